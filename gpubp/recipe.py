"""Recipe: the settings of a training configuration that shape the computation; the numbers, which differ between
networks, are columns of the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .activations import ACTIVATIONS
from .losses import LOSSES
from .optimizers import OPTIMIZERS, Optimizer
from .schedules import SCHEDULES, Schedule

MEMORY = {"scale": 1.0, "best": float("inf"), "bad": 0.0, "cooling": 0.0}  # of a schedule that watches evaluations


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

    @property
    def memory(self) -> Mapping[str, float]:
        """The columns of a state that evaluations change, with their initial values."""
        return MEMORY if self.timetable.events else {}

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that a step reads."""
        return (*self.hyper, "scale") if self.timetable.events else self.hyper


def missing(spec: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Which rule of a saved specification and configuration is in no table, and how to add it; or None."""
    hidden = spec.get("hidden")
    activations = [*(hidden if isinstance(hidden, list) else [hidden]), spec.get("output")]
    tables: list[tuple[str, Mapping[str, object], str, list[Any]]] = [
        ("ACTIVATIONS", ACTIVATIONS, "Activation", activations),
        ("LOSSES", LOSSES, "Loss", [spec.get("loss")]),
        ("OPTIMIZERS", OPTIMIZERS, "Optimizer", [config.get("optimizer")]),
        ("SCHEDULES", SCHEDULES, "Schedule", [config.get("schedule")]),
    ]
    for table, rows, kind, names in tables:
        for name in names:
            if isinstance(name, str) and name not in rows:
                return (
                    f"{kind.lower()} {name!r} is in no table of this process; add it as the run had it: "
                    f"gpubp.{table}[{name!r}] = gpubp.{kind}(...)"
                )
    return None
