"""Alone: one network of a saved run, trained by itself along its line of descent, as the run trained it among others.

A network's line is a stretch from the start; in population based training, one more for each time that it, or an
ancestor, became a copy of another (search/lineage.py): the ancestor trains up to the exchange, and its copy continues
from there with its own id and length and changed hyper-parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .. import stopping
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.packing import Saved
from ..engines import choose_for_all
from ..errors import CheckpointError, ConfigError, DataError, ShapeError
from ..line import counted
from ..networks import Networks, Outcome
from ..population import Population
from ..raw.tables import parquet
from ..runs.design import DESIGN, INIT, Design
from ..runs.run import Run, Sets
from ..search.lineage import Lineage
from ..state import TrainState
from ..system.ambient import HOME


class Stretch(NamedTuple):
    """A part of a line: the network as the run has saved it; the round after which it becomes a copy, 0 at the start;
    by name, the hyper-parameters that it then has, if they differ from those saved."""

    saved: Saved
    round: int
    hyper: Mapping[str, Any]


def network_of(saved: Checkpoint, row: int) -> Saved:
    """The network in a row of the results, alone, its best row restored if one is kept. Raises ShapeError if the run
    does not have it, or has not begun it yet."""
    for each in saved.populations:
        at = (each.rows == row).nonzero().squeeze(1)
        if len(at):
            networks = Networks(*each[:3]).take(at)
            stopping.restore(networks.state)
            return Saved(*networks, each.notes)
    found = saved.ended.find(row)
    if found is None:
        last = sum(len(each.rows) for each in saved.populations) + int(saved.ended.statuses.sum()) - 1
        raise ShapeError(f"network {row}: a row from 0 to {last} of the results expected")
    return found


def line_of(saved: Checkpoint, lineage: Lineage, found: Saved) -> list[Stretch]:
    """The line of a network. A copy takes over all hyper-parameters, and lineage records those that then change; the
    others come from its first ancestor, which may have been overwritten since."""
    copies = lineage.ancestors(int(found.rows))
    if not copies:
        return [Stretch(found, 0, {})]
    first = network_of(saved, copies[0].source)
    changed = {name: first.state.hyper[name] for name in copies[0].after}
    begun = {**found.state.hyper, **changed, **lineage.first(copies[0].source)}
    later = (Stretch(network_of(saved, each.target), each.round, each.after) for each in copies)
    return [Stretch(first, 0, begun), *later]


def place(name: str, given: Population, first: Saved) -> Tensor:
    """(1,): the place of the network in `given` (`name` in messages): its row, or 0 if alone. Raises ConfigError."""
    row, mine = int(first.rows), first.state.population
    if (given.spec, given.params.dtype) != (mine.spec, mine.params.dtype) or not (
        given.count == 1 or row < given.count
    ):
        raise ConfigError(f"{name}: {given}: the run's network {row}, of {mine}, is not among them")
    return torch.tensor([0 if given.count == 1 else row])


def given(population: Population, first: Saved) -> Population:
    """The network of a line before its first step, from those given to train()."""
    params = population.params[place("population", population, first).to(population.device)].to(HOME)
    return replace(first.state.population, params=params)


def drawn(
    folder: Path, saved: Checkpoint, first: Saved, init: str, scale: Any, design: Iterator[Any] | None
) -> Population:
    """The network of a line before its first step, drawn anew, according to its row of the design, if there is one."""
    mine, row, queue = first.state.population, int(first.rows), saved.notes["queue"]
    if design is not None:
        own = [{name: cell for name, cell in each.items() if name != "entity"} for each in islice(design, row, row + 1)]
        rows = Design.of(own, row, **(queue or {}).get("common", {}))
        init, scale = rows.cells("init")[0], rows.cells("init_scale")[0]
    elif queue is not None and queue["total"] is None:
        raise CheckpointError(f"{folder} was given a stream of rows: replay(..., design=) with the same rows expected")
    elif (folder / DESIGN).is_file():
        init, scale = _cells(folder / DESIGN, row)
    elif isinstance(scale, Tensor) and scale.ndim:
        scale = scale[row]
    dtype = mine.params.dtype
    return Population.create(mine.spec, None, mine.seed, init or INIT, HOME, dtype, mine.ids, scale)


def _cells(path: Path, row: int) -> list[Any]:
    """The init and init_scale of the network in a row of a saved design. Raises CheckpointError."""
    try:
        design = parquet(path)
    except DataError as error:  # it names the file
        raise CheckpointError(error) from None
    if row >= len(design):
        raise CheckpointError(f"{path} has {counted(len(design), 'row')}, and none for network {row}")
    return [design[name][row].as_py() if name in design.column_names else None for name in ("init", "init_scale")]


@dataclass(eq=False)
class Alone:
    """run: of this network alone; left: the stretches of its line that it has not begun."""

    run: Run
    left: list[Stretch]

    @classmethod
    def start(
        cls, population: Population, line: Sequence[Stretch], sets: Sets, before: TrainState | None = None
    ) -> Self:
        """The network before its first step. population: the network, untrained; sets: only its samples; before: see
        TrainState.remember(). Raises EngineError if this machine cannot train it."""
        (_, config, rows, notes), _, hyper = line[0]
        name, dtype = "eager" if notes["engine"] == "eager" else "cpu", population.params.dtype
        choice = choose_for_all(name, population.spec, config, [HOME], dtype, sets.data)
        state = TrainState.start(population, config, sets.data, torch.zeros_like(rows))
        if before is not None:
            state.remember(before)
        alone = cls(Run(state, config, sets, choice, [HOME], rows), list(line[1:]))
        alone._change(state, hyper)
        alone.run.begin()
        return alone

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.run.state.step)

    @property
    def due(self) -> bool:
        """Whether it is at the end of a round that is not evaluated yet."""
        return self.run.open and not bool((self.run.state.left > 0).any())

    def train(self, step: int, decided: bool = True) -> None:
        """Train to `step`, or to the end. decided: whether to apply the decisions of a round that ends there."""
        while bool(self.run.state.running) and (self.step < step or (decided and self.due)):
            self._round(max(step, self.step))
            if self.due and (decided or self.step < step):
                self.run.look()
                while self.left and self.left[0].round == self.run.number:
                    self._become(self.left.pop(0))

    def _round(self, step: int) -> None:
        """Train to `step`, or to the end of the round."""
        run = self.run
        if not run.open:
            run.next_round()
        limit = run.state.limit.numpy().copy()
        run.train_to(limit.clip(max=step))
        run.place.begin()
        run.pace.look(run.state)
        while run.pace.left:
            run.advance()
        run.settle()
        run.train_to(limit)
        run.place.begin()

    def _become(self, stretch: Stretch) -> None:
        """Become a copy of itself in another row, with that row's id and length."""
        state, theirs = self.copy(), stretch.saved.state
        state.population.ids.copy_(theirs.population.ids)
        state.end.copy_(theirs.end)
        self._change(state, stretch.hyper)
        self.run.renew(Networks(state, stretch.saved.config, stretch.saved.rows))

    @staticmethod
    def _change(state: TrainState, hyper: Mapping[str, Any]) -> None:
        for name, value in hyper.items():
            state.hyper[name].copy_(torch.as_tensor(value, dtype=torch.float64))

    def copy(self) -> TrainState:
        """A copy of the present state."""
        self.run.place.gather()
        return self.run.state.rows(torch.tensor([0]))

    def outcome(self) -> Outcome:
        """A copy as if the training ended here, its best row restored, with its figures."""
        run = replace(self.run, state=self.copy(), number=0, open=False)
        run.begin()
        return Outcome.of(run.rows, run.state, run.figures())
