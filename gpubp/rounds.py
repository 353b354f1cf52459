"""Rounds: when a network is evaluated. They are its own: a function of its steps and samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        return number * self.every if self.in_steps else steps(number * self.every * sizes, self.batch_size)


def steps(samples: Tensor, batch_size: int) -> Tensor:
    """How many batches hold so many samples, (N,) int64."""
    return torch.div(samples + batch_size - 1, batch_size, rounding_mode="floor")
