"""Queue: the rows of a design stream through slots. A network that has ended leaves its slot, with its state and
figures (ended.py), and the next row of the design takes it at the next round.

Which networks train at the same time changes no bit of any: each has its own clock, and rounds are of its own steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, islice
from typing import Any, NamedTuple

import torch

from . import arrays, checks, memory
from .ambient import HOME
from .cells import LENGTHS
from .design import Design
from .ended import Ended
from .entities import Entities
from .errors import ConfigError
from .evaluate import Evaluation
from .making import Maker, Source
from .networks import Networks
from .packing import Saved
from .ranges import LONGEST
from .run import Run, Sets
from .serial import one_thread
from .side_by_side import Crew

FIRST = 1 << 12  # rows of a design from which slots are counted
AHEAD = FIRST, 1 << 24  # networks of a design, and bytes of them, that are made at once: few take as long as many
STREAM = 1 << 16  # networks of a stream that train at once, if nothing else is said
KEPT = 3 / 4  # of the slots train: too few have ended for others to pay for the change
HALF = 1 / 2  # of the slots train at the end of a round that no evaluation ends: rounds, and changes, are fewer


class Rows:
    """The rows of a design that are left, in order; None for those of a stream that has ended. total: of all rows, None
    if unknown; taken: those that left, of which `last` are the settings of the last."""

    def __init__(
        self, design: Design | Iterator[Any] | None, settings: dict[str, Any], taken: int = 0, last: Any = None,
        entities: Entities | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.taken, self.last, self.entities = settings, taken, last, entities
        self.design = design if isinstance(design, Design) else iter(design or ())
        self.total = len(design) if isinstance(design, Design) else None
        if taken and isinstance(self.design, Iterator) and design is not None:
            self.pass_by(list(islice(self.design, taken - 1, taken)))
        self.left = design is not None and (self.total is None or taken < self.total)

    @property
    def waiting(self) -> int | None:
        """How many are left; None if unknown."""
        return 0 if not self.left else None if self.total is None else self.total - self.taken

    def pass_by(self, row: list[Any]) -> None:
        """Raise ConfigError unless `row` is the last one that the run has had of a stream."""
        if not row:
            raise ConfigError(
                f"design: fewer rows than the {self.taken:,} that the run has had; the same rows expected"
            )
        found = Design.of(row, self.taken - 1, self.entities, **self.settings).plain
        if found != self.last:
            raise ConfigError(
                f"design: row {self.taken - 1} is {found}, and was {self.last} when the run had it: the same rows "
                "expected"
            )

    def peek(self) -> Design:
        """The first rows, which stay: of a design some, of a stream one. Raises ConfigError if there are none."""
        if isinstance(self.design, Design):
            return self.design.part(self.taken, self.taken + FIRST)
        return Design.of(self.first(), 0, self.entities, **self.settings)

    def first(self) -> list[Any]:
        """The first row of a stream, which stays; none at its end."""
        assert not isinstance(self.design, Design)
        found = list(islice(self.design, 1))
        self.design = chain(found, self.design)
        return found

    def more(self) -> bool:
        """Whether any is left, for which a stream is asked; if it fails, that is raised when the row is taken."""
        if self.left and self.total is None:
            try:
                self.left = bool(self.first())
            except Exception as error:
                self.design = failing(error)
        return self.left

    def next(self, count: int) -> Design | None:
        """The next `count` rows, or fewer at the end; None if there are none."""
        if isinstance(self.design, Design):
            found = self.design.part(self.taken, self.taken + count) if self.left else None
        else:
            rows = list(islice(self.design, count))
            found = Design.of(rows, self.taken, self.entities, **self.settings) if rows else None
        got = 0 if found is None else len(found)
        self.taken += got
        if found is not None:
            self.last = found.part(got - 1, got).plain
        self.left = got == count if self.total is None else self.taken < self.total
        return found


def failing(error: Exception) -> Iterator[Any]:
    """A stream whose next row is an error."""
    raise error
    yield


@dataclass
class Queue:
    """rows: that wait; source and maker: which make networks of them; slots: most networks that train at once; ended:
    those that have left, with their steps; made: runs of the next rows, some of which may be taken already."""

    rows: Rows
    source: Source
    maker: Maker
    slots: int
    ended: Ended
    steps: int = 0
    made: list[Run] = field(default_factory=list)

    def next(self, runs: Sequence[Run]) -> list[Run]:
        """Runs of the next rows, if enough slots are free. Raises what a wrong row does; then no row is taken."""
        training, before = sum(run.pace.running for run in runs), (self.rows.taken, self.rows.last, self.rows.left)
        if not self.rows.left or training > KEPT * self.slots:
            return []
        try:
            with one_thread():
                return self.taken(self.slots - training)
        except BaseException:
            self.rows.taken, self.rows.last, self.rows.left = before
            raise

    def taken(self, count: int) -> list[Run]:
        """Runs of the next `count` rows, or of fewer at the end. Of a design more rows become networks at once; of a
        stream no row is read before a slot is free."""
        begin, design = self.rows.taken, self.rows.next(count)
        end = self.rows.taken
        if design is not None and all(int(run.rows[-1]) < end - 1 for run in self.made):
            if isinstance(self.rows.design, Design):
                ahead = self.ahead(self.rows.design.part(begin, begin + AHEAD[0]))
                design = self.rows.design.part(begin, max(end, begin + ahead))
            self.made = self.maker.runs(self.source.groups(design))
        mine = [(run, ((run.rows >= begin) & (run.rows < end)).nonzero().squeeze(1)) for run in self.made]
        self.made = [run for run in self.made if int(run.rows[-1]) >= end]
        return [run if len(some) == len(run.rows) else run.part(some) for run, some in mine if len(some)]

    def ahead(self, design: Design) -> int:
        """How many of these rows become networks at once: the next ones may be far larger than those that train."""
        sizes = torch.zeros(len(design), dtype=torch.int64)
        for each in self.source.planned(design):
            spec, itemsize = each.spec, self.source.dtype.itemsize
            sizes[each.rows - design.first] = memory.each(spec, each.config.recipe(spec), itemsize)
        return int((sizes.cumsum(0) <= AHEAD[1]).sum())

    def fill(self, runs: list[Run], new: list[Run], crew: Crew) -> None:
        """Let networks that have ended leave, and those of `new` runs take their slots. In place. After an error, as
        where memory ends, each network is in one place, and those that have found no slot train in runs of their own:
        the training can be saved."""
        if not new:
            return
        number = max(run.number for run in runs)
        try:
            for run in tuple(runs):
                if not self.change(run, new):
                    runs.remove(run)
        finally:
            runs += new
            crew.begin(new, runs)
            for run in new:
                run.number = number  # so that rounds of the training have rising numbers
        crew.compile_ahead(new)

    def change(self, run: Run, new: list[Run]) -> bool:
        """Let the networks of `run` that have ended leave, and those of `new` that can join come, whose runs are taken
        out of `new`. -> whether any train. What may need much memory is done before anybody leaves."""
        with one_thread():
            run.place.gather()
            running = run.state.running
            training, ended = running.nonzero().squeeze(1), (~running).nonzero().squeeze(1)
        left = self.leaving(run, ended) if len(ended) else None
        with one_thread():
            mates = [each for each in new if each.networks.kind == run.networks.kind]
            come = [each.networks for each in mates]
            in_place = len(come) == 1 and len(come[0].rows) == len(ended)
            networks = []
            if not in_place:
                stay = [run.networks.take(training) if len(ended) else run.networks] if len(training) else []
                networks = [*stay, *come]
            joined = reduce(Networks.join, networks) if networks and (come or len(ended)) else None
            if left is not None:
                self.ended.add(*left)
                self.steps += int(left[0].state.step.sum())
            new[:] = [each for each in new if each not in mates]
            if in_place:
                joined = run.networks.put(ended, come[0])
            if joined is not None:
                run.renew(joined)
        return in_place or bool(networks)

    def leaving(self, run: Run, index: torch.Tensor) -> tuple[Saved, list[Evaluation]]:
        """Evaluate the networks in the rows `index` of a run. -> what is logged of them."""
        with one_thread():
            left = run.part(index)
            left.begin()
        with left.threads():
            figures = [each for each in left.figures() if each is not None]
        return left.saved(), figures

    def most(self, runs: Sequence[Run]) -> int:
        """Of a round that ends when half of the slots are free; without a limit if evaluations end it, or nobody
        waits."""
        if self.maker.looks or not self.rows.left:
            return LONGEST
        with one_thread():
            left = torch.cat([(run.state.end - run.state.step)[run.state.running] for run in runs])
            return int(left.kthvalue(max(1, len(left) - int(HALF * self.slots))).values)

    def over(self, runs: Sequence[Run]) -> bool:
        """Whether all networks have ended, and no row is left."""
        return not any(run.pace.running for run in runs) and not self.rows.more()

    def unwatched(self, runs: Sequence[Run]) -> bool:
        """Whether nobody wants the figures of this round: there are rounds for the networks to change, and one record
        at the end."""
        return not self.maker.looks and not self.over(runs)

    def expected(self, runs: Sequence[Run]) -> int:
        """The network-steps of all networks, of which those that wait are taken to be as long as those that train; 0
        while their number is unknown."""
        count, steps = sum(len(run.rows) for run in runs), sum(int(run.state.end.sum()) for run in runs)
        if self.rows.waiting is None:
            return 0
        return self.steps + steps + round(self.rows.waiting * steps / count)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint has of it. Raises CheckpointError."""
        self.ended.write()
        return {
            "taken": self.rows.taken,
            "last": self.rows.last,
            "left": self.rows.left,
            "total": self.rows.total,
            "common": Design.of([{}], **self.rows.settings).plain if self.rows.total is None else {},
            "slots": self.slots,
            "engine": self.maker.engine,
            "every": self.maker.every,
            "looks": self.maker.looks,
            "steps": self.steps,
            "ended": self.ended.to_dict(),
        }


class Waiting(NamedTuple):
    """A design, some of whose rows may wait: what _trained() makes a queue of. folds: whether it has a column fold."""

    rows: Rows
    source: Source
    slots: int
    folds: bool

    def every(self, looks: bool) -> dict[str, int]:
        """See Maker: what is known before any network is made. If nobody looks, a round is as long as any training."""
        columns = self.rows.design.columns if isinstance(self.rows.design, Design) and not looks else {}
        given = {name: columns[name].values[columns[name].given] for name in LENGTHS if name in columns}
        return {name: int(each.max()) for name, each in given.items()}

    def check(self, sets: Sets) -> None:
        """Raise now what rows that wait would raise later, if they are known."""
        if isinstance(self.rows.design, Design):
            specs = [each.spec for each in self.source.planned(self.rows.design)]
            for spec in {each.loss: each for each in specs}.values():
                for data in sets.each:
                    checks.check(data, spec, data.networks or 0)

    def queue(self, maker: Maker, runs: Sequence[Run], ended: Ended) -> Queue:
        """The queue of a training that begins with `runs`, or goes on with them."""
        source = self.source._replace(like=runs[0].state.population.spec)
        return Queue(self.rows, source, maker, self.slots, ended)


def room_for(rows: Rows, source: Source, slots: int | None) -> int:
    """How many networks train at once: `slots`, or all if they fit into memory, or as many as fit."""
    number = 1 if slots is None else arrays.whole(slots)
    if number is None or number < 1:
        raise ConfigError(f"slots {slots!r}: a whole number of 1 or more expected")
    if slots is not None:
        return number
    shapes = [(each.population.spec, each.config.recipe(each.population.spec)) for each in source.groups(rows.peek())]
    fit = min(memory.fit(*shape, source.dtype.itemsize, HOME) for shape in shapes)
    if rows.total is not None and rows.total <= fit:
        return rows.total
    return max(1, min(fit // 3, STREAM if rows.total is None else fit))  # at a change some are there twice
