"""Snapshot: the networks of a run after an evaluation, for reporters; values are computed from the run when used."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluate import Evaluation, Round
from ..results.ranking import ranked_by_loss
from ..state import DIVERGED, RUNNING, TrainState, counts
from ..system.arrays import Array

QUANTILES = {"min": 0.0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "max": 1.0}


class Snapshot:
    """record: of the evaluation. All tensors are (N,), in one order; `rows` are the networks' rows in the results. With
    a queue, these are the networks in its slots. loss: mean training loss of the round, NaN for networks that did not
    train in it; validation_loss, validation_metric: of the validation data, None without them. gradient_norms(most):
    the norms of the gradients of up to `most` of the networks that train, on the minibatch of their next step."""

    def __init__(
        self, states: Sequence[TrainState], rows: Sequence[Tensor], found: Sequence[Round],
        gradient_norms: Callable[[int], Tensor],
    ) -> None:  # fmt: skip
        self.states, self.found, self.gradient_norms = states, found, gradient_norms
        self.parts, self.record = rows, dict[str, Any]()

    @cached_property
    def rows(self) -> Tensor:
        """The networks' rows in the results."""
        return torch.cat([*self.parts])

    @cached_property
    def status(self) -> Tensor:
        """Values of gpubp.Status, after the decisions of a search."""
        return torch.cat([each.status for each in self.states])

    @cached_property
    def loss(self) -> Tensor:
        """The mean training loss of the round."""
        return torch.cat([each.loss for each in self.found])

    @cached_property
    def held_out(self) -> list[Evaluation]:
        """The evaluation on the validation data, or empty."""
        return [each.held_out for each in self.found if each.held_out is not None]

    @cached_property
    def validation_loss(self) -> Tensor | None:
        """On the validation data."""
        return torch.cat([each.loss for each in self.held_out]) if self.held_out else None

    @cached_property
    def validation_metric(self) -> Tensor | None:
        """On the validation data."""
        return torch.cat([each.metric for each in self.held_out]) if self.held_out else None

    @cached_property
    def diverged_step(self) -> Tensor:
        """The step that did not count, -1 if none."""
        return torch.cat([each.diverged_step for each in self.states])

    @property
    def running(self) -> Tensor:
        """Which networks still train."""
        return self.status == RUNNING

    def hyper(self) -> dict[str, Tensor]:
        """Every hyper-parameter with one number per network, as it is now; NaN for networks without it."""
        names = {name for each in self.states for name, column in each.hyper.items() if column.shape[1] == 1}
        return {name: torch.cat([_column(each, name) for each in self.states]) for name in sorted(names)}

    @cached_property
    def ranked_by_loss(self) -> bool:
        """Whether the loss ranks the networks, or the metric."""
        return ranked_by_loss(self.states)

    def describe(
        self, number: int, seconds: float, done: int, rate: float, metric: str, others: Tensor | None = None
    ) -> None:
        """Make `record`, of the round `number`, after `done` network-steps; its quantiles leave out diverged networks.
        others: statuses of networks that left."""
        alive = self.status.numpy() != DIVERGED

        def spread(values: Tensor | None) -> dict[str, float] | None:
            return None if values is None else quantiles(values.numpy()[alive])

        self.record = {
            "seconds": seconds,
            "round": number,
            "step": max(int(each.step.max()) for each in self.states),
            "network_steps": done,
            "network_steps_per_second": rate,
            "statuses": counts(self.status, others),
            "metric_name": metric,
            "loss": spread(self.loss),
            "validation_loss": spread(self.validation_loss),
            "metric": spread(self.validation_metric),
            "lr": spread(torch.cat([each.lr for each in self.found])),
        }


def _column(state: TrainState, name: str) -> Tensor:
    column = state.hyper.get(name)
    return torch.full_like(state.total, float("nan")) if column is None else column[:, 0]


def quantiles(values: Tensor | Array) -> dict[str, float]:
    """The quantiles of the finite `values` (N,), by name; empty if none is finite."""
    numbers = np.asarray(values, np.float64)
    finite = numbers[np.isfinite(numbers)]  # a copy
    if not len(finite):
        return {}
    ranks = _ranks(len(finite))
    finite.partition(ranks)  # a sort of a million takes five times as long
    return dict(zip(QUANTILES, finite[ranks].tolist()))


def ends(values: Tensor) -> dict[str, float]:
    """The min, median and max of the finite `values` (N,) as in studies: the median is the mean of two middle values.
    Empty if none is finite."""
    finite = values[values.isfinite()].double().cpu().numpy()
    return dict(zip(("min", "median", "max"), np.quantile(finite, (0, 0.5, 1)).tolist())) if len(finite) else {}


@lru_cache
def _ranks(count: int) -> list[int]:
    """The places of QUANTILES among `count` sorted numbers."""
    return [round(share * (count - 1)) for share in QUANTILES.values()]
