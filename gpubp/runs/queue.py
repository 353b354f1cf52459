"""Queue: the rows of a design stream through slots. A network that has ended leaves its slot, with its state and
figures (checkpoints/ended.py), and at the next round the next row of the design takes the slot.

Which networks train at the same time changes no bit of any: each has its own clock, and its rounds count its own steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import chain, islice
from typing import Any, NamedTuple

import torch

from ..checkpoints.ended import Ended
from ..checkpoints.packing import Saved
from ..errors import ConfigError
from ..networks import Figures, Networks
from ..raw.entities import Entities
from ..samples import checks
from ..settings.ranges import LONGEST
from ..system import arrays
from ..system.threads import one_thread
from .cells import LENGTHS
from .design import Design, Group, Planned
from .making import Maker, Source
from .room import Needs, Room
from .run import Run, Sets
from .side_by_side import Crew

AHEAD = 1 << 12, 1 << 24  # networks of a design, and their bytes, made at once: few take as long as many
STREAM = 1 << 16  # networks of a stream that train at once by default
KEPT = 3 / 4  # while more of the slots' networks train, too few have ended to pay for a change
HALF = 1 / 2  # of them still train when a round without evaluation ends: fewer rounds and changes


class Rows:
    """The rows of a design that are left, in order. design: None for a stream that has ended; source: turns rows into
    networks; total: the number of rows, None if unknown; taken: how many have been taken, the last with the settings
    `last`."""

    def __init__(
        self, design: Design | Iterator[Any] | None, settings: dict[str, Any], source: Source, taken: int = 0,
        last: Any = None, entities: Entities | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.source, self.taken, self.last, self.entities = settings, source, taken, last, entities
        self.design = design if isinstance(design, Design) else iter(design or ())
        self.total = len(design) if isinstance(design, Design) else None
        if taken and isinstance(self.design, Iterator) and design is not None:
            self.pass_by(list(islice(self.design, taken - 1, taken)))
        self.left = design is not None and (self.total is None or taken < self.total)
        self.planned: list[Planned] = []

    @cached_property
    def needs(self) -> Needs:
        """The Needs of all rows of a design. Raises the error of a wrong row."""
        assert isinstance(self.design, Design)
        planned = self.source.planned(self.design)
        self.planned = [] if self.taken else planned  # all of them may train at once
        return Needs.of(planned, 0)

    def groups(self, first: Design) -> list[Group]:
        """The networks of the `first` rows, which next() has found."""
        planned, self.planned = self.planned, []
        return [each.made() for each in (planned if len(first) == self.total else self.source.planned(first))]

    @property
    def waiting(self) -> int | None:
        """How many rows are left; None if unknown."""
        return 0 if not self.left else None if self.total is None else self.total - self.taken

    def pass_by(self, row: list[Any]) -> None:
        """Raise ConfigError unless `row` is the last one that the run has taken from the stream."""
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

    def first(self) -> list[Any]:
        """The first row of a stream, which stays; none at its end."""
        assert not isinstance(self.design, Design)
        found = list(islice(self.design, 1))
        self.design = chain(found, self.design)
        return found

    def more(self) -> bool:
        """Whether any row is left, asking a stream, whose error is raised when the row is taken."""
        if self.left and self.total is None:
            try:
                self.left = bool(self.first())
            except Exception as error:
                self.design = failing(error)
        return self.left

    def next(self, count: int, room: Room) -> Design | None:
        """The next `count` rows, or as many as have room, or fewer at the end; None if there are none. If a stream
        fails, its error is raised once the rows before it are taken."""
        if not self.left:
            return None
        begin = self.taken
        if isinstance(self.design, Design):
            end = min(begin + count, len(self.design))
            fit = room.fits(self.needs.part(begin, end), end == len(self.design))
            found, self.left = self.design.part(begin, begin + fit) if fit else None, begin + fit < len(self.design)
        else:
            found = self.read(count, room)
        if found is not None:
            self.taken += len(found)
            self.last = found.part(len(found) - 1, len(found)).plain
        return found

    def read(self, count: int, room: Room) -> Design | None:
        """next() of a stream; rows without room stay."""
        assert not isinstance(self.design, Design)
        rows: list[Any] = []
        try:
            rows.extend(islice(self.design, count))  # keeps the rows before a failure
            self.left = len(rows) == count
        except Exception as error:
            self.design = failing(error)
        if not rows:
            return next(self.design, None)  # raises
        found = Design.of(rows, self.taken, self.entities, **self.settings)
        needs = Needs.of(self.source.planned(found), self.taken)
        fit = room.fits(needs.part(0, len(rows)), last=not self.left)
        if fit < len(rows):
            self.design, self.left = chain(rows[fit:], self.design), True
        return found.part(0, fit) if fit else None


def failing(error: Exception) -> Iterator[Any]:
    """A stream whose next row is an error."""
    raise error
    yield


@dataclass
class Queue:
    """rows: those that wait; maker: of their runs; slots: the most networks that train at once, if memory has room;
    ended: networks that have left; steps: theirs; made: runs of the next rows, some of which may be taken already."""

    rows: Rows
    maker: Maker
    slots: int
    ended: Ended
    steps: int = 0
    made: list[Run] = field(default_factory=list)

    def next(self, runs: Sequence[Run]) -> list[Run]:
        """Runs of the next rows, if enough slots are free. Raises the error of a wrong row; then no row is taken."""
        training, before = sum(run.pace.running for run in runs), (self.rows.taken, self.rows.last, self.rows.left)
        if not self.rows.left or training > KEPT * filled(runs):
            return []
        try:
            with one_thread():
                return self.taken(self.slots - training, Room.beside(runs))
        except BaseException:
            self.rows.taken, self.rows.last, self.rows.left = before
            raise

    def taken(self, count: int, room: Room) -> list[Run]:
        """Runs of the next `count` rows, or of fewer: see Rows.next(). Further rows of a design become networks at the
        same time; a row of a stream is read only when a slot is free."""
        begin, design = self.rows.taken, self.rows.next(count, room)
        end = self.rows.taken
        if design is not None and all(int(run.rows[-1]) < end - 1 for run in self.made):
            if isinstance(self.rows.design, Design):
                needs = self.rows.needs.part(begin, begin + AHEAD[0])  # later rows may need far more than these
                ahead = min(int((needs[0].cumsum(0) <= AHEAD[1]).sum()), room.fits(needs, last=False))
                design = self.rows.design.part(begin, max(end, begin + ahead))
            self.made = self.maker.runs(self.rows.source.groups(design))
        mine = [(run, ((run.rows >= begin) & (run.rows < end)).nonzero().squeeze(1)) for run in self.made]
        self.made = [run for run in self.made if int(run.rows[-1]) >= end]
        return [run if len(some) == len(run.rows) else run.part(some) for run, some in mine if len(some)]

    def fill(self, runs: list[Run], new: list[Run], crew: Crew) -> None:
        """Let networks that have ended leave, and those of `new` runs take their slots, in place. After an error, such
        as too little memory, each network is still in exactly one run; those without a slot are in runs of their own:
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
                run.number = number  # so that the training's round numbers rise
        crew.compile_ahead(new)

    def change(self, run: Run, new: list[Run]) -> bool:
        """Let the networks of `run` that have ended leave, and networks of `new` join where they can; their runs are
        taken out of `new`. -> whether any train. Whatever may need much memory is done before a network leaves."""
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

    def leaving(self, run: Run, index: torch.Tensor) -> tuple[Saved, Figures]:
        """Evaluate the networks in the rows `index` of a run. -> what is kept of them."""
        with one_thread():
            left = run.part(index)
            left.begin()
        with left.threads():
            figures = left.figures()
        return left.saved(), figures

    def most(self, runs: Sequence[Run]) -> int:
        """The most steps of a round, which ends when half of the slots are free; no limit if evaluations end it or no
        row waits."""
        if self.maker.looks or not self.rows.left:
            return LONGEST
        with one_thread():
            left = torch.cat([(run.state.end - run.state.step)[run.state.running] for run in runs])
            return int(left.kthvalue(max(1, len(left) - int(HALF * filled(runs)))).values)

    def over(self, runs: Sequence[Run]) -> bool:
        """Whether all networks have ended, and no row is left."""
        return not any(run.pace.running for run in runs) and not self.rows.more()

    def unwatched(self, runs: Sequence[Run]) -> bool:
        """Whether nothing uses this round's figures: such rounds only let networks change, and one record follows at
        the end."""
        return not self.maker.looks and not self.over(runs)

    def expected(self, runs: Sequence[Run]) -> int:
        """The network-steps of all networks, assuming that waiting ones take as many as those that train; 0 while their
        number is unknown."""
        count, steps = sum(len(run.rows) for run in runs), sum(int(run.state.end.sum()) for run in runs)
        if self.rows.waiting is None:
            return 0
        return self.steps + steps + round(self.rows.waiting * steps / count)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of the queue. Raises CheckpointError."""
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


def filled(runs: Sequence[Run]) -> int:
    """The slots that are filled: networks that have ended since the last change still hold theirs."""
    return sum(len(run.rows) for run in runs)


class Waiting(NamedTuple):
    """A design, some of whose rows may wait: _trained() makes a queue of it. folds: whether it has a column fold; free:
    bytes before any network was made, if known."""

    rows: Rows
    slots: int
    folds: bool
    free: int | None

    def every(self, looks: bool) -> dict[str, int]:
        """Maker.every, as known before any network is made: unless `looks`, a round is as long as any training."""
        columns = self.rows.design.columns if isinstance(self.rows.design, Design) and not looks else {}
        given = {name: columns[name].values[columns[name].given] for name in LENGTHS if name in columns}
        return {name: int(each.max()) for name, each in given.items()}

    def check(self, sets: Sets) -> None:
        """Raise the errors of waiting rows now rather than later, if the rows are known."""
        if isinstance(self.rows.design, Design):
            for spec in {each.loss: each for each in self.rows.needs.specs}.values():
                for data in sets.each:
                    checks.check(data, spec, data.networks or 0)

    def queue(self, maker: Maker, runs: Sequence[Run], ended: Ended) -> Queue:
        """The queue of a training that begins with `runs`."""
        self.rows.source = self.rows.source._replace(like=runs[0].state.population.spec)
        return Queue(self.rows, maker, self.slots, ended)


def limit(rows: Rows, slots: int | None) -> int:
    """How many networks may train at once, if memory has room: `slots`, or all; for a stream, STREAM."""
    return (rows.total or STREAM) if slots is None else arrays.count("slots", slots)
