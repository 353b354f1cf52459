"""Method: what searches share: when they decide, what they compare, how they are saved.

Networks are compared as in a Result (results/ranking.py): by the validation loss or, without validation data, the mean
training loss of the round; by the metric of the validation data if their losses differ in kind, or if all monitor it;
among equals, by their rows. A search depends on the length of the training: a run with a search cannot be extended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluate import Round
from ..line import counted
from ..maths.losses import LOSSES
from ..results.ranking import comparable, ranked_by_loss, worth
from ..runs.run import Run
from ..settings.config import TrainConfig
from ..settings.recipe import LOSS, METRIC
from ..state import TrainState

TIE = 1e-9  # less than a sample of any validation data counts in an accuracy


class Placed(Protocol):
    """A Run, or an Outcome."""

    @property
    def rows(self) -> Tensor:
        """(N,): the networks' rows in the results."""

    @property
    def state(self) -> TrainState:
        """The networks' state."""


class Method:
    """name: in messages and checkpoints. every: epochs, or steps, between two decisions, or up to the first; paced: the
    name of that setting. stops: whether it stops networks, so that the number of steps left is unknown. streams:
    whether networks may come and go, instead of all training at the same time."""

    name: ClassVar[str]
    stops: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    paced: ClassVar[str] = "every"
    every: int

    def interval(self, configs: Sequence[TrainConfig]) -> int:
        """Epochs, or steps, between evaluations, the same for all networks. Raises ConfigError if the configurations
        do not allow that."""
        interval = asked(self.name, configs) or self.every
        if self.every % interval:
            raise ConfigError(
                f"{self.name} decides after {counted(self.every, unit_of(configs)[:-1])}, and networks are evaluated "
                f"every {interval}: a multiple expected, by {self.paced} (--budget) or evaluate_every "
                "(--evaluate-every)"
            )
        return interval

    def acts(self, number: int, runs: Sequence[Run]) -> bool:
        """Whether decide() may change a network at the end of round `number`; else it need not be called."""
        raise NotImplementedError

    def columns(self, networks: Sequence[Placed]) -> dict[str, Tensor]:
        """Columns added to the results: (N,) by name, in the order of rows."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Its settings and its decisions, from which it is restored."""
        names = [each.name for each in fields(self)] if is_dataclass(self) else list[str]()
        return {"method": self.name} | {name: getattr(self, name) for name in names}


def asked(name: str, configs: Sequence[TrainConfig]) -> int | None:
    """Epochs, or steps, between evaluations, if the configurations set them: the same for all networks. Raises
    ConfigError if they differ."""
    unit = unit_of(configs)
    given = sorted({each.interval for each in configs if each.evaluate_every is not None or each.decides})
    if len(given) > 1:
        raise ConfigError(
            f"{name} compares networks at the same time, and they are evaluated every {given[0]} and every {given[1]} "
            f"{unit}: one evaluate_every expected"
        )
    return given[0] if given else None


def unit_of(configs: Sequence[TrainConfig]) -> str:
    """What the lengths of all networks count. Raises ConfigError if they differ."""
    units = {"epochs" if each.steps is None else "steps" for each in configs}
    if len(units) > 1:
        raise ConfigError("a search compares networks at the same time: a design with epochs, or with steps, expected")
    return units.pop()


def small(runs: Sequence[Run]) -> list[str]:
    """A note on networks with so few samples that a step takes more epochs than should lie between evaluations."""
    few = 0
    for run in runs:
        if run.config.steps is None:
            sizes = run.sets.data.size(run.state.position)
            few += int((sizes * run.config.interval < run.config.batch_size).sum())
    if not few:
        return []
    every = "an epoch" if (interval := runs[0].config.interval) == 1 else f"{interval:,} epochs"
    return [
        f"{few:,} of {sum(len(run.rows) for run in runs):,} networks have so few samples that a step is more than "
        f"{every}: they are evaluated, and compared, after every step instead"
    ]


def in_order(runs: Sequence[Placed], values: Iterable[Tensor]) -> Tensor:
    """The (N,) values of all networks in the order of their rows, from the values of each run."""
    return torch.cat([*values])[torch.cat([run.rows for run in runs]).argsort()]


def figures(runs: Sequence[Run], found: Sequence[Round], name: str | None = None) -> list[Tensor]:
    """The figures that compare networks, (N,) float64 for each run, less is better; infinite for NaN. name: "loss" or
    "metric", of validation data; by default the loss, if it ranks the networks of `runs`. To a metric that they all
    monitor a little of the loss is added, which orders those of equal metric."""
    if any(each.held_out is None for each in found):
        return [worth("loss", each.loss.double()) for each in found]
    held_out = [each.held_out for each in found if each.held_out is not None]
    if name is None:
        name = compared(runs)
    keys, states = [worth(name, getattr(each, name)) for each in held_out], [run.state for run in runs]
    if name == METRIC and all(state.recipe.rated for state in states) and comparable(states):
        keys = [key + TIE * worth(LOSS, each.loss).atan() for key, each in zip(keys, held_out)]
    return keys


def compared(runs: Sequence[Run]) -> str:
    """What compares networks on validation data: the loss, if it ranks them, or the metric."""
    return LOSS if ranked_by_loss([run.state for run in runs]) else METRIC


def check_comparable(name: str, runs: Sequence[Run], changed: Iterable[str] = ()) -> None:
    """Raise ConfigError if nothing compares the networks. changed: hyper-parameters that a search changes."""
    moving = any(each in LOSSES[run.state.population.spec.loss].defaults for run in runs for each in changed)
    if (moving or not comparable([run.state for run in runs])) and runs[0].sets.validation is None:
        raise ConfigError(f"{name}: the networks' losses differ in kind: validation data, to compare metrics, expected")
