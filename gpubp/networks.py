"""Networks: some rows of a run, to take out of it and to join with others that share their kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .evaluate import Evaluation
from .settings.config import HYPER, TrainConfig
from .settings.ranges import numbers_of
from .state import TrainState


class Networks(NamedTuple):
    """rows (N,): of the networks in the results. The numbers of `config` are one per network: see spread()."""

    state: TrainState
    config: TrainConfig
    rows: Tensor

    @property
    def kind(self) -> str:
        """What networks must have in common to join."""
        population, config = self.state.population, self.config
        plain = {name: "a column" if isinstance(value, Tensor) else value for name, value in config.to_dict().items()}
        extra = sorted(plain.pop("extra"))
        return json.dumps([population.spec.to_dict(), population.seed, str(population.params.dtype), plain, extra])

    def take(self, index: Tensor) -> Networks:
        """The networks in the rows `index` (K,); copies."""
        return Networks(self.state.rows(index), self.config.take(index), self.rows[index])

    def put(self, index: Tensor, other: Networks) -> Networks:
        """Overwrite the networks in the rows `index` (K,), in their tensors, with `other` of the same kind."""
        self.state.put(index, other.state)
        for mine, theirs in zip([self.rows, *self.columns], [other.rows, *other.columns]):
            mine.index_copy_(0, index, theirs)
        return self

    @property
    def columns(self) -> list[Tensor]:
        """The configuration's columns."""
        each = {**self.config.to_dict(), **self.config.extra}
        return [value for value in each.values() if isinstance(value, Tensor)]

    def join(self, other: Networks) -> Networks:
        """These, then `other` of the same kind."""
        ours, theirs = self.config.to_dict(), other.config.to_dict()
        columns: dict[str, Any] = {
            name: torch.cat((value, theirs[name])) for name, value in ours.items() if isinstance(value, Tensor)
        }
        extra = {
            name: torch.cat([torch.as_tensor(each) for each in (value, other.config.extra[name])])
            for name, value in self.config.extra.items()
        }
        config = replace(self.config, **columns, extra=extra)
        return Networks(self.state.concatenate(other.state), config, torch.cat((self.rows, other.rows)))


class Figures(NamedTuple):
    """Figures of networks at the end of training. faults (N,): what first was not finite (explaining/faults.py)."""

    training: Evaluation
    validation: Evaluation | None
    faults: Tensor


class Outcome(NamedTuple):
    """Networks at the end of their training, with their figures. rows (N,): in the results; folds: whether positions in
    the data are folds; faults (N,): what first was not finite (explaining/faults.py), if known."""

    rows: Tensor
    state: TrainState
    training: Evaluation
    validation: Evaluation | None
    folds: bool = False
    faults: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor, state: TrainState, figures: Figures, folds: bool = False) -> Outcome:
        """From the end of a run."""
        return cls(rows, state, figures.training, figures.validation, folds, figures.faults)

    def take(self, index: Tensor | slice) -> Outcome:
        """The networks in the rows `index` (K,), as copies, or of a slice, as views."""

        def some(given: Evaluation) -> Evaluation:
            return Evaluation(*(numbers[index] for numbers in given))

        held_out = None if self.validation is None else some(self.validation)
        faults = None if self.faults is None else self.faults[index]
        return Outcome(self.rows[index], self.state.rows(index), some(self.training), held_out, self.folds, faults)


def spread(config: TrainConfig, count: int) -> TrainConfig:
    """`config` with a column (N,) in place of each number that may differ between networks of a kind. A 0 that means
    off becomes one too: networks that join may have another value."""

    def column(value: Any) -> Any:
        return value if value is None else torch.as_tensor(value).expand(count).clone()

    given = {name: getattr(config, name) for name in HYPER}
    columns: dict[str, Any] = {
        name: value if value is None else column(numbers_of(name, value)) for name, value in given.items()
    }
    columns |= {name: column(getattr(config, name)) for name in ("epochs", "steps")}
    extra = {name: column(numbers_of(name, value)) for name, value in config.extra.items()}
    weight = config.class_weight
    if weight is not None:
        weight = torch.as_tensor(weight).double()
        weight = weight.expand(count, weight.shape[-1]).clone()
    return replace(config, **columns, class_weight=weight, extra=extra)
