"""Where a population trains: in place, or with its rows split over GPUs.

The loop (runs/loop.py) sees one state. If GPUs train, that state is in host memory, and each GPU keeps its share of the
rows (shard.py). No bit depends on the number of GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..engines import Choice, cache
from ..evaluate import Evaluation, spread
from ..maths.losses import LOSSES
from ..samples.data import Dataset
from ..state import TrainState
from ..system import gpus
from .compaction import Compaction
from .shard import Shard
from .turns import fitting, pin

LEAST = 64  # steps of a call, if groups take turns


def placed(
    state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device], stream: int | None = None
) -> Home | Shards:
    """`state` on the devices `where`, in place if that is its device. data: to train on, then further ones to evaluate
    on. stream: of a GPU, see Shard."""
    if list(where) == [state.population.device]:
        return Home(state, data[0], choice)
    return Shards(state, data, choice, where, stream)


class Home(Compaction):
    """A population that trains in place."""

    least = 1

    def __init__(self, state: TrainState, data: Dataset, choice: Choice) -> None:
        super().__init__(state, choice)
        self.data = data

    def begin(self) -> None:
        """See Shards."""
        self.compact(self.state.running)

    def run(self, steps: int) -> list[str]:
        """See Shards."""
        self.advance(self.data, steps)
        return cache.news()

    def news(self) -> list[str]:
        """See Shards."""
        return cache.news()

    def leave(self, read: Callable[[], object]) -> bool:
        """Whether rows stay: no, they change in place."""
        return False


class Shards:
    """A population with its rows split over devices, a thread for each."""

    def __init__(
        self, state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device],
        stream: int | None = None,
    ) -> None:  # fmt: skip
        self.state, self.pinned = state, where[0].type != "cuda"  # nothing to pin for a CPU
        if LOSSES[state.population.spec.loss].metric == "r2":
            for dataset in data:  # before each device gets its part, and a buffer for that
                spread(dataset)
        count, each = state.population.count, -(-state.population.count // len(where))
        where = where[: -(-count // each)]  # with more devices than networks the others have no rows
        sizes = [fitting(state, each, device, data) for device in where]
        parts = [slice(first, min(first + each, count)) for first in range(0, count, each)]
        self.shards = [
            Shard(state.rows(part), data, part, choice, device, size, stream)
            for part, device, size in zip(parts, where, sizes)
        ]
        self.pool = ThreadPoolExecutor(len(self.shards), "gpubp")

    @property
    def least(self) -> int:
        """The fewest steps of a call: 1, or LEAST if groups take turns, as a call copies all their rows in and out: at
        50 GB/s, one way takes as long as 18 steps of 64-32-10 with Adam (docs/gpu.md)."""
        return 1 if all(shard.stays for shard in self.shards) else LEAST

    def run(self, steps: int) -> list[str]:
        """Advance every running network by up to `steps` steps, at most to its limit. -> notes for the user. The call
        and the previous one may still be running afterwards; the state does not show their steps before look()."""
        if not self.pinned and not all(shard.stays for shard in self.shards):
            self._pin_home()
        return [note for notes in self.pool.map(lambda shard: shard.run(steps), self.shards) for note in notes]

    def _pin_home(self) -> None:
        """Pin host memory, as some shards now have groups that are copied in and out."""
        self.pinned = True
        pin(self.state)
        for shard in self.shards:
            shard.home, shard.until = self.state.rows(shard.part), gpus.pinned(shard.until)

    def begin(self) -> None:
        """The loop has changed the clocks in host memory; nothing to do, as shards read them there."""

    def keep(self, better: Tensor) -> None:
        """Keep the present rows of the networks `better` (N,) as their best (stopping.py)."""
        for shard in self.shards:
            shard.keep(better[shard.part])

    def exchange(self, some: Tensor) -> None:
        """Exchange present and kept rows of the networks `some` (N,)."""
        for shard in self.shards:
            shard.exchange(some[shard.part])

    def news(self) -> list[str]:
        """New notes for the user."""
        return [note for shard in self.shards for note in shard.news()]

    def evaluate(self, data: Dataset) -> Evaluation:
        """Evaluate the present networks on one of the place's datasets."""
        found = list(self.pool.map(lambda shard: shard.evaluate(data), self.shards))
        return Evaluation(*(torch.cat(each) for each in zip(*found)))

    def look(self) -> None:
        """Wait, and bring the clocks to host memory: besides the rows, all that the loop reads of the state."""
        for shard in self.shards:
            shard.look()

    def gather(self) -> None:
        """Bring the rows and the clocks to host memory."""
        for shard in self.shards:
            shard.gather()

    def sample(self, most: int) -> TrainState:
        """Copies, in host memory, of up to `most` of the networks that train, evenly spaced."""
        first, *others = (shard.sample(-(-most // len(self.shards))) for shard in self.shards)
        return first.concatenate(*others).rows(slice(most))

    def leave(self, read: Callable[[], object]) -> bool:
        """Whether rows in host memory stay the same until gather(), or until memory runs out, once read() returns."""
        for shard in self.shards:
            shard.read = read
        return all(shard.stays for shard in self.shards)
