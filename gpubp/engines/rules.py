"""The rows of the tables that a training takes, for engines that keep what they once made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from ..activations import ACTIVATIONS
from ..config import TrainConfig
from ..losses import LOSSES
from ..spec import NetworkSpec

Rows = tuple[tuple[Any, ...], ...]


def rows(spec: NetworkSpec, config: TrainConfig) -> Rows:
    """Activations by layer, loss, optimizer, schedule, as the tables have them now."""
    return (*(ACTIVATIONS[name] for name in spec.activations), LOSSES[spec.loss], config.rule, config.timetable)


def functions(given: Rows) -> tuple[Callable[..., Any], ...]:
    """The functions of rows, in order."""
    return tuple(part for row in given for part in row if callable(part))


def fixed(given: Iterable[Callable[..., Any]]) -> bool:
    """Whether functions do for ever what they do now: the package's own. Another may read a constant, or a variable of
    the function around it, that changes between two calls."""
    return all(isinstance(each, FunctionType) and _ours(each) for each in given)


def _ours(function: FunctionType) -> bool:
    """By where its globals are: functools.wraps gives a function another's __module__."""
    return function.__globals__.get("__name__", "").startswith("gpubp.") and function.__closure__ is None
