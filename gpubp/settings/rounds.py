"""How long a network trains, and its rounds, each ending with an evaluation: functions of its steps and samples."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..line import counted
from ..samples.data import Dataset
from ..system.arrays import Array

Numbers = TypeVar("Numbers", Tensor, Array)


@dataclass(frozen=True)
class Rounds:
    """every: epochs, or steps if `in_steps`, between evaluations. batch_size: B."""

    every: int
    in_steps: bool
    batch_size: int

    def of(self, step: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers]:
        """The start and end, (N,) int64 each, of each network's round at `step` (N,): its last evaluation at or before
        that step, and the first one after. sizes (N,): its samples. A round has one step or more."""
        done = self.passed(step, sizes)
        return self._begin(done, sizes), self._begin(done + 1, sizes)

    def passed(self, step: Numbers, sizes: Numbers) -> Numbers:
        """How many times `every` has passed for each network up to `step` (N,), (N,) int64; if `every` is less than a
        batch, this exceeds its evaluations."""
        done, each = (step, self.every) if self.in_steps else (step * self.batch_size, self.every * sizes)
        passed: Numbers = done // each
        return passed

    def number(self, step: Tensor, sizes: Tensor) -> Tensor:
        """The round, (N,) int64, of step `step` (N,), both counted from 1: a round has one step or more."""
        return torch.minimum(self.passed(step - 1, sizes), step - 1) + 1

    def _begin(self, number: Numbers, sizes: Numbers) -> Numbers:
        return number * self.every if self.in_steps else self._steps(number * self.every * sizes)

    def after(self, epochs: Tensor, sizes: Tensor) -> Tensor:
        """The steps for `epochs` (N,) or () of the networks' samples, (N,) int64."""
        if int(epochs.max()) * int(sizes.max()) >> 62:
            raise ConfigError(
                f"epochs {int(epochs.max()):,} of {int(sizes.max()):,} samples: a product below 2^62 expected"
            )
        return self._steps(epochs * sizes)

    def _steps(self, samples: Numbers) -> Numbers:
        return (samples + self.batch_size - 1) // self.batch_size


def fitted(batch_size: int, data: Dataset) -> tuple[int, list[str]]:
    """A batch of at most all samples, and notes for the user.

    If networks share their samples, or have equally many, the batch is cut to that number. Networks with `rows` keep
    the batch: a network's bits depend only on its own samples, not on its neighbours'.
    """
    fewest = data.lengths[0]
    if fewest >= batch_size:
        return batch_size, []
    if data.sizes is None:
        return fewest, [
            f"batch_size {batch_size} is more than the {counted(fewest, 'sample')}: every batch has all of them"
        ]
    few = int((data.sizes < batch_size).sum())
    return batch_size, [
        f"batch_size {batch_size}: {few} of {len(data.sizes)} networks have fewer samples, at least {fewest}; their "
        "batches contain samples more than once"
    ]
