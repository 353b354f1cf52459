"""Allowed values: the range of every hyper-parameter, and the limit of counts."""

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..system import arrays

LONGEST = 10**12  # steps, epochs, samples per step: all counts stay below 2^63

# Lowest and highest value of a hyper-parameter, and whether each is allowed itself.
USUAL = 0, math.inf, True, False
RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "beta1": (0, 1, True, False),
    "beta2": (0, 1, True, False),
    "rho": (0, 1, True, False),
    "alpha": (0, 1, True, False),
    "dropout": (0, 1, True, False),
    "label_smoothing": (0, 1, True, True),
    "quantile": (0, 1, False, False),
    "delta": (0, math.inf, False, False),
    "clip_value": (0, math.inf, False, True),
    "clip_norm": (0, math.inf, False, True),
    "gamma": (0, math.inf, False, False),
    "step_size": (1, math.inf, True, False),
    "timescale": (0, math.inf, False, False),
    "pct_start": (0, 1, True, True),
    "div_factor": (0, math.inf, False, False),
    "final_div_factor": (0, math.inf, False, False),
    "plateau_factor": (0, 1, False, False),
    "warmup_start": (0, 1, True, True),
    "patience": (1, math.inf, True, True),
    "target_loss": (-math.inf, math.inf, True, False),
}


def bounded(name: str, number: int) -> int:
    """`number`, a count; raises ConfigError if it is too large."""
    if number > LONGEST:
        raise ConfigError(f"{name} {number}: {LONGEST:,} or less expected")
    return number


def numbers_of(name: str, value: Any) -> Tensor:
    """`value` as float64 numbers, () or (N,). Raises ConfigError unless all are within the range of `name`."""
    given = arrays.tensor(name, value, ConfigError)
    numbers = given.double()
    if given.dtype == torch.bool or numbers.ndim > 1 or not numbers.numel():
        raise ConfigError(f"{name} {value!r}: a number, or N numbers, expected")
    wrong = outside(name, numbers)
    if bool(wrong.any()):
        worst = float(numbers[wrong][0]) if numbers.ndim else float(numbers)
        raise ConfigError(f"{name} is {worst:g}; a number in {allowed(name)} expected")
    return numbers


def outside(name: str, numbers: Tensor) -> Tensor:
    """Which of `numbers`, of any shape, are not within the range of `name`; NaN is not."""
    low, high, low_in, high_in = RANGES.get(name, USUAL)
    return ~((numbers >= low if low_in else numbers > low) & (numbers <= high if high_in else numbers < high))


def allowed(name: str) -> str:
    """The range of `name`, as text."""
    low, high, low_in, high_in = RANGES.get(name, USUAL)
    return f"{'[' if low_in else '('}{low:g}, {high:g}{']' if high_in else ')'}"
