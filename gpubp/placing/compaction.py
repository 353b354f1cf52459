"""Compaction: once networks have ended, those that still train are gathered into a smaller state, without gaps.

Otherwise, an ended network's SIMD lane or thread would idle beside its neighbours. No bit depends on it.
"""

import torch
from torch import Tensor

from .. import stopping
from ..engines import Choice
from ..evaluate import Evaluation
from ..samples.data import Dataset
from ..state import TrainState
from ..system import free
from ..system.ambient import HOME

FULL = 15 / 16  # of a state's networks: while more still train, another compaction does not pay

ROWS = ("params", "slots", "kept")  # changed by training; names of TrainState.tensors()
LOOPS = ("limit", "memory")  # changed only by the loop
CLOCKS = ("columns", "step", "status", "loss", "total", "diverged_step")  # changed by both


class Compaction:
    """active: the networks that train: `state`, or copies of its rows `index`, on the same device."""

    def __init__(self, state: TrainState, choice: Choice) -> None:
        self.state, self.choice = state, choice
        self.unpack()

    def unpack(self) -> None:
        """Train in `state` itself again."""
        self.active, self.ahead = self.state, False
        self.index: Tensor | None = None
        self.figures: dict[int, Evaluation] = {}  # figures of all networks, by dataset, as last computed
        self.present: set[int] = set()  # datasets whose figures are those of the present rows

    def compact(self, running: Tensor) -> None:
        """Use the clocks of `state`, which the loop may have changed. running (N,) bool, on the host: which train."""
        count, before = int(running.sum()), len(self.active.step)
        if 0 < count <= FULL * before and self._room(count):
            self._home(ROWS)
            figures = {key: found for key, found in self.figures.items() if key in self.present}
            self.unpack()  # frees the copies before new ones are made
            index = running.nonzero().squeeze(1).to(self.state.step.device)
            self.active, self.index, self.figures = self.state.rows(index), index, figures  # all, or none without room
        elif self.index is not None:
            for mine, theirs in _pairs(self.active, self.state, CLOCKS + LOOPS):
                torch.index_select(theirs, 0, self.index, out=mine)  # takes no memory, so that it cannot run out

    def _room(self, count: int) -> bool:
        room, state = free.available(self.state.step.device), self.state
        size = sum(tensor.nbytes for _, tensor in state.tensors()) * count // len(state.step)
        return room is None or 2 * size < room

    def advance(self, data: Dataset, steps: int) -> None:
        """One call of the engine."""
        self.present.clear()
        self.ahead = True
        self.choice.engine.run(self.active, data, steps)

    def look(self) -> None:
        """Bring the clocks to `state`, if the engine has changed them since; then the loop may change them."""
        if self.ahead:
            self._home(CLOCKS)
        self.ahead = False

    def gather(self) -> None:
        """Bring rows and clocks to `state`."""
        self.look()
        self._home(ROWS)

    def _home(self, names: tuple[str, ...]) -> None:
        if self.index is not None:
            for mine, theirs in _pairs(self.active, self.state, names):
                theirs.index_copy_(0, self.index, mine)

    def evaluate(self, data: Dataset) -> Evaluation:
        """Evaluate all networks; those that were left out keep the figures from their end."""
        known = self.figures.get(id(data))
        if known is None:
            self.gather()
        state = self.state if known is None else self.active
        found = self.choice.engine.evaluate(state.population, data, state.hyper, state.position)
        if known is not None and self.index is not None:
            found = Evaluation(*(old.index_copy(0, self.index, new) for old, new in zip(known, found)))
        self.figures[id(data)] = found
        self.present.add(id(data))
        return found

    def sample(self, most: int) -> TrainState:
        """See Shards."""
        training = self.active.running.nonzero().squeeze(1)
        count = min(most, len(training))
        some = torch.arange(count, device=training.device) * len(training) // max(1, count)
        return self.active.rows(training[some]).on(HOME)

    def keep(self, better: Tensor) -> None:
        """stopping.keep, of the present rows; better (N,) bool."""
        better = better.to(self.state.step.device)
        stopping.keep(self.active, better if self.index is None else better[self.index])

    def exchange(self, some: Tensor) -> None:
        """stopping.exchange in all rows."""
        self.gather()
        self.unpack()
        stopping.exchange(self.state, some.to(self.state.step.device))


def _pairs(one: TrainState, other: TrainState, names: tuple[str, ...]) -> list[tuple[Tensor, Tensor]]:
    """The tensors of both with these names (up to a dot)."""
    both = zip(one.tensors(), other.tensors())
    return [(mine, theirs) for (name, mine), (_, theirs) in both if name.partition(".")[0] in names]


def copy(source: TrainState, target: TrainState, names: tuple[str, ...]) -> None:
    """Copy the tensors with these names (up to a dot)."""
    for mine, theirs in _pairs(source, target, names):
        theirs.copy_(mine, non_blocking=True)
