"""Where a population trains: where it lies, or with its rows shared over GPUs.

The loop (loop.py) sees one state. Where GPUs train, it is at home in the processor's memory, and each GPU keeps its
share of the rows (shard.py). No bit depends on how many GPUs there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from . import gpus
from .data import Dataset
from .engines import Choice, cache
from .evaluate import Evaluation, spread
from .losses import LOSSES
from .shard import Shard
from .state import TrainState
from .turns import fitting, pin

HOME = torch.device("cpu")
LEAST = 64  # steps of a call in which groups take turns


class Place(Protocol):
    """What the loop asks for."""

    @property
    def least(self) -> int:
        """Steps that a call should take at least: 1, or LEAST where groups take turns, whose rows all move to and fro
        in a call: at 50 GB/s a way takes 64-32-10 with Adam as long as 18 steps may (docs/gpu.md)."""

    def run(self, steps: int) -> list[str]:
        """Advance every running network by up to `steps` steps, not beyond its limit. -> what a person should know. The
        call and the one before may be under way afterwards, and the state does not show them before look()."""

    def look(self) -> None:
        """Wait, and bring the clocks home: all that the loop looks at in the state, besides the rows."""

    def evaluate(self, data: Dataset) -> Evaluation:
        """The networks as they are, on one of the datasets that the place was made with."""

    def news(self) -> list[str]:
        """What a person should know, and was not told."""

    def gather(self) -> None:
        """Bring the rows home, and the clocks."""

    def leave(self, read: Callable[[], object]) -> bool:
        """Whether the rows at home stay as they are until gather(), or memory runs out, which waits for read()."""


def placed(state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device]) -> Place:
    """`state` on the devices `where`, or as it is where that is the one on which it lies. data: to train on, then
    others to evaluate on."""
    for device in where:
        choice.compile_ahead(state, data[0], data, device)
    if list(where) == [state.population.device]:
        return Home(state, data[0], choice)
    return Shards(state, data, choice, where)


class Home:
    """A population that trains where it lies."""

    least = 1

    def __init__(self, state: TrainState, data: Dataset, choice: Choice) -> None:
        self.state, self.data, self.choice = state, data, choice

    def run(self, steps: int) -> list[str]:
        """See Place."""
        self.choice.run(self.state, self.data, steps)
        return cache.news()

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Place."""
        state = self.state
        return self.choice.evaluate(state.population, data, state.hyper, state.position)

    def news(self) -> list[str]:
        """See Place."""
        return cache.news()

    def look(self) -> None:
        """They are here."""

    def gather(self) -> None:
        """They are here."""

    def leave(self, read: Callable[[], object]) -> bool:
        """They change."""
        return False


class Shards:
    """A population whose rows are shared over devices, a thread for each."""

    def __init__(
        self, state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device]
    ) -> None:
        self.state, self.pinned = state, where[0].type != "cuda"  # nothing to pin for a CPU
        if LOSSES[state.population.spec.loss].metric == "r2":
            for own in data:  # before each device is given its part, and a room for it
                spread(own)
        count, each = state.population.count, -(-state.population.count // len(where))
        where = where[: -(-count // each)]  # more devices than networks: the others have no rows
        sizes = [fitting(state, each, device, data) for device in where]
        parts = [slice(first, min(first + each, count)) for first in range(0, count, each)]
        self.shards = [
            Shard(state.rows(part), data, part, choice, device, size) for part, device, size in zip(parts, where, sizes)
        ]
        self.pool = ThreadPoolExecutor(len(self.shards), "gpubp")

    @property
    def least(self) -> int:
        """See Place."""
        return 1 if all(shard.stays for shard in self.shards) else LEAST

    def run(self, steps: int) -> list[str]:
        """See Place."""
        if not self.pinned and not all(shard.stays for shard in self.shards):
            self._pin_home()
        return [note for notes in self.pool.map(lambda shard: shard.run(steps), self.shards) for note in notes]

    def _pin_home(self) -> None:
        """From now on some shards have groups, which go to and fro."""
        self.pinned = True
        pin(self.state)
        for shard in self.shards:
            shard.home, shard.until = self.state.rows(shard.part), gpus.pinned(shard.until)

    def news(self) -> list[str]:
        """See Place."""
        return [note for shard in self.shards for note in shard.news()]

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Place."""
        found = list(self.pool.map(lambda shard: shard.evaluate(data), self.shards))
        return Evaluation(*(torch.cat(each) for each in zip(*found)))

    def look(self) -> None:
        """See Place."""
        for shard in self.shards:
            shard.look()

    def gather(self) -> None:
        """See Place."""
        for shard in self.shards:
            shard.gather()

    def leave(self, read: Callable[[], object]) -> bool:
        """See Place."""
        for shard in self.shards:
            shard.read = read
        return all(shard.stays for shard in self.shards)
