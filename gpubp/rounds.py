"""How long a network trains, and its rounds, at whose ends it is evaluated: functions of its own steps and samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .data import Dataset
from .errors import ConfigError


@dataclass(frozen=True)
class Rounds:
    """every: epochs, or steps if `in_steps`, between evaluations. batch_size: B."""

    every: int
    in_steps: bool
    batch_size: int

    def of(self, step: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Where each network's round at `step` (N,) begins and ends, (N,) int64 both: its last evaluation up to there,
        and the first after it; sizes (N,): its samples. A round has one step or more."""
        done = self.passed(step, sizes)
        return self._begin(done, sizes), self._begin(done + 1, sizes)

    def passed(self, step: Tensor, sizes: Tensor) -> Tensor:
        """How many times `every` has passed for each network up to `step` (N,), (N,) int64; where that is less than a
        batch, more often than it was evaluated."""
        if self.in_steps:
            return torch.div(step, self.every, rounding_mode="floor")
        return torch.div(step * self.batch_size, self.every * sizes, rounding_mode="floor")

    def _begin(self, number: Tensor, sizes: Tensor) -> Tensor:
        return number * self.every if self.in_steps else self._steps(number * self.every * sizes)

    def after(self, epochs: Tensor, sizes: Tensor) -> Tensor:
        """How many steps take networks through `epochs` (N,) or () of their samples, (N,) int64."""
        if int(epochs.max()) * int(sizes.max()) >> 62:
            raise ConfigError(
                f"epochs {int(epochs.max()):,} of {int(sizes.max()):,} samples: below 2^62 in all expected"
            )
        return self._steps(epochs * sizes)

    def _steps(self, samples: Tensor) -> Tensor:
        return torch.div(samples + self.batch_size - 1, self.batch_size, rounding_mode="floor")


def fitted(batch_size: int, data: Dataset) -> tuple[int, list[str]]:
    """A batch of at most the samples, and what was changed or is to be known.

    Networks that share their samples, or have as many each, take a batch of all. Networks with `rows` keep the batch,
    whatever their neighbours have: a network's bits depend on its own samples alone.
    """
    fewest = data.lengths[0]
    if fewest >= batch_size:
        return batch_size, []
    if data.sizes is None:
        return fewest, [f"batch_size {batch_size} is more than the {fewest} samples: a batch is all of them"]
    few = int((data.sizes < batch_size).sum())
    return batch_size, [
        f"batch_size {batch_size}: {few} of {len(data.sizes)} networks have fewer samples, from {fewest} on; a "
        "batch of theirs goes through them more than once"
    ]
