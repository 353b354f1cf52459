"""Recipe: the settings of a training configuration that shape the computation; the numbers, which differ between
networks, are columns of the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..maths.optimizers import OPTIMIZERS, Optimizer
from ..maths.schedules import SCHEDULES, Schedule

INF = float("inf")
MEMORY = {"scale": 1.0, "best": INF, "bad": 0.0, "cooling": 0.0}  # of a schedule that watches evaluations
TRACKED = {"best_loss": INF, "best_step": -1.0, "waited": 0.0, "last_loss": INF}  # of stopping and the best row
RATED = {"best_metric": -INF, "last_metric": -INF}  # and of these by the metric
LOSS, METRIC = MONITORED = ("loss", "metric")
EXACT = "exact"
PRECISIONS = {EXACT: 0, "tf32": 1, "3xtf32": 3}  # of products: how many tf32 products make one; 0: the dtype's own
STOPPING = ("patience", "min_delta", "tol", "target_loss")  # hyper-parameters that a step does not read


class Rules:
    """The rows of an `optimizer` and a `schedule` by name."""

    optimizer: Any
    schedule: Any

    @property
    def rule(self) -> Optimizer:
        """The optimizer's row."""
        return OPTIMIZERS[self.optimizer]

    @property
    def timetable(self) -> Schedule:
        """The schedule's row."""
        return SCHEDULES[self.schedule]


@dataclass(frozen=True)
class Recipe(Rules):
    """The settings of a TrainConfig by these names. hyper: the hyper-parameters that are switched on, in the order of
    TrainConfig.columns."""

    optimizer: str = "sgd"
    schedule: str = "constant"
    batch_size: int = 1
    shuffle: str = "none"
    update_order: str = "simultaneous"
    hyper: tuple[str, ...] = ()
    monitor: str = LOSS
    restore_best: bool = False
    precision: str = EXACT

    @property
    def memory(self) -> Mapping[str, float]:
        """The columns of a state that evaluations change, with their initial values."""
        rated = RATED if self.tracks and self.rated else {}
        return {**(MEMORY if self.timetable.events else {}), **(TRACKED if self.tracks else {}), **rated}

    @property
    def tracks(self) -> bool:
        """Whether each network's best evaluation is remembered."""
        return self.restore_best or "patience" in self.hyper

    @property
    def rated(self) -> bool:
        """Whether the best is by the metric, not by the loss."""
        return self.monitor == METRIC

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that a step reads."""
        hyper = tuple(name for name in self.hyper if name not in STOPPING)
        return (*hyper, "scale") if self.timetable.events else hyper
