"""Hyper-parameters of many networks from one string: ranges sampled by scrambled Sobol points, lists as a grid.

An expression is a number ("0.01"), a range ("1e-4..1e-1", uniform; "1e-4..1e-1:log", uniform in the logarithm) or a
list ("0.1,0.01"). Lists form a grid that repeats along the networks; point n of the
Sobol sequence belongs to the network with id n, for any number of networks. Sobol, 1967; scrambled as in Owen,
1995 (torch.quasirandom.SobolEngine).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError
from .flags import number


class Range(NamedTuple):
    """Numbers from low to high, uniform, or uniform in the logarithm."""

    low: float
    high: float
    log: bool


Expression = float | str | list[float]


def parse(name: str, text: Expression) -> float | Range | list[float]:
    """The value of an expression; raises ConfigError for anything else."""
    written = ",".join(map(str, text)) if isinstance(text, list) else str(text)
    body, colon, how = written.partition(":")
    try:
        if (colon and (how not in ("log", "linear") or ".." not in body)) or "..." in body:  # 1...2: from 1, or to .2?
            raise ValueError
        if ".." in body:
            low, high = (number(part) for part in body.split(".."))
            if not (low < high and math.isfinite(high - low)) or (how == "log" and low <= 0):
                raise ValueError
            return Range(low, high, how == "log")
        numbers = [number(part) for part in body.split(",")]
    except ValueError:
        raise ConfigError(
            f"{name} {text!r}: a number, a range LOW..HIGH or LOW..HIGH:log with LOW < HIGH, or numbers separated by "
            "commas expected"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def sample(
    expressions: Mapping[str, Expression], count: int, seed: int, choices: Mapping[str, Sequence[Any]] = {}
) -> dict[str, Any]:
    """Each name's number, or its numbers (N,) float64 for the networks with ids 0 .. count - 1. choices: values of any
    kind that extend the grid: a list of N of them."""
    parsed = {name: parse(name, text) for name, text in expressions.items()}
    ranges = [name for name, value in parsed.items() if isinstance(value, Range)]
    points = torch.empty(count, 0, dtype=torch.float64)
    if ranges:
        engine = torch.quasirandom.SobolEngine(len(ranges), scramble=True, seed=seed)
        points = engine.draw(count, dtype=torch.float64)
    result: dict[str, Any] = {}
    stride = 1
    for name, value in parsed.items():
        if isinstance(value, Range):
            share = points[:, ranges.index(name)]
            low, high = (math.log(value.low), math.log(value.high)) if value.log else (value.low, value.high)
            numbers = low + share * (high - low)
            result[name] = torch.exp(numbers).clamp(value.low, value.high) if value.log else numbers
        elif isinstance(value, list):
            result[name] = torch.tensor(value, dtype=torch.float64)[_places(count, stride, len(value))]
            stride *= len(value)
        else:
            result[name] = value
    for name, values in choices.items():
        result[name] = [values[place] for place in _places(count, stride, len(values)).tolist()]
        stride *= len(values)
    return result


def _places(count: int, stride: int, length: int) -> Tensor:
    """(N,): which of the `length` values of a list each network has."""
    return torch.div(torch.arange(count), stride, rounding_mode="floor") % length
