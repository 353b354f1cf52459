"""Hyper-parameters of many networks from one string: ranges sampled by scrambled Sobol points, lists as a grid.

An expression is a number ("0.01"), a range ("1e-4..1e-1", uniform; "1e-4..1e-1:log", uniform in the logarithm;
"1..8:int" and "1..64:log:int", whole numbers, both ends included) or a list ("0.1,0.01"). Lists form a grid that
repeats along the networks; each point of the Sobol sequence is tried with the whole grid, so that no element of a list
sees only part of a range: with c combinations, network n has point n // c, for any number of networks. Sobol, 1967;
scrambled as in Owen, 1995 (torch.quasirandom.SobolEngine). With method "random" numbers and elements of lists are drawn
independently instead (Bergstra, Bengio, 2012), by Philox (maths/rng.py).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, check_kind, one_of
from ..line import counted
from ..maths import rng
from ..maths.losses import LOSSES
from ..maths.optimizers import OPTIMIZERS
from ..maths.rows import Table
from ..maths.schedules import SCHEDULES, WARMUP
from ..runs.cells import WHOLE, Column, column
from ..runs.design import Design
from ..settings.config import HYPER, SWITCHES
from ..settings.ranges import bounded
from ..system import arrays
from ..system.flags import number

METHODS = ("sobol", "random")
POINT = 5  # layer of the search stream
TABLES: dict[str, Table[Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSSES}


class Range(NamedTuple):
    """Numbers from low to high, uniform, or uniform in the logarithm; whole: whole numbers, as Optuna draws them."""

    low: float
    high: float
    log: bool
    whole: bool = False

    def at(self, share: Tensor) -> Tensor:
        """The numbers below which these shares, in (0, 1), of the range lie."""
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        if not self.log:
            return self.within(low + share * (high - low)) if self.whole else low + share * (high - low)
        return self.within(torch.exp(math.log(low) + share * (math.log(high) - math.log(low))))

    def within(self, values: Tensor) -> Tensor:
        """The nearest numbers of the range."""
        return (values.round() if self.whole else values).clamp(self.low, self.high)


SCALES = (["linear"], ["log"], ["int"], ["linear", "int"], ["log", "int"])
Expression = float | str | list[float]


def parse(name: str, text: Expression) -> float | Range | list[float]:
    """The value of an expression; raises ConfigError for anything else."""
    written = ",".join(map(str, text)) if isinstance(text, list) else str(text)
    body, *how = written.split(":")
    try:
        if (how and (how not in SCALES or ".." not in body)) or "..." in body:  # 1...2 is ambiguous: from 1. or to .2
            raise ValueError
        if ".." in body:
            low, high = (number(part) for part in body.split(".."))
            log, whole = "log" in how, "int" in how
            if not (low < high and math.isfinite(high - low)) or (log and low <= 0):
                raise ValueError
            if whole and (low != int(low) or high != int(high)):
                raise ValueError
            return Range(low, high, log, whole)
        numbers = [number(part) for part in body.split(",")]
    except ValueError:
        raise ConfigError(
            f"{name} {text!r}: a number, a range LOW..HIGH or LOW..HIGH:log with LOW < HIGH, or numbers separated by "
            "commas expected; :int after a range of whole numbers"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def sample(
    expressions: Mapping[str, Expression],
    count: int,
    seed: int,
    choices: Mapping[str, Sequence[Any]] = {},
    method: str = "sobol",
) -> dict[str, Any]:
    """Each name's number, or its numbers (N,) float64 for the networks with ids 0 .. count - 1, int64 for a range of
    whole ones. choices: values of any kind that extend the grid: a list of N of them. method: "sobol", or "random".
    Raises ConfigError."""
    one_of(METHODS, method, "sampling")
    count = arrays.count("count", count)
    for name, values in choices.items():
        if not len(values):
            raise ConfigError(f"{name} is empty; one value or more expected")
    parsed = {name: parse(name, text) for name, text in expressions.items()}
    ranges = [name for name, value in parsed.items() if isinstance(value, Range)]
    lists = [name for name, value in parsed.items() if isinstance(value, list)]
    share, places = _points(count, seed, len(ranges), [*(len(parsed[name]) for name in lists),  # type: ignore[arg-type]
                                                       *map(len, choices.values())], method)  # fmt: skip
    result: dict[str, Any] = {}
    for name, value in parsed.items():
        if isinstance(value, Range):
            drawn = value.at(share[:, ranges.index(name)])
            result[name] = drawn.long() if value.whole else drawn
        elif isinstance(value, list):
            result[name] = torch.tensor(value, dtype=torch.float64)[places[lists.index(name)]]
        else:
            result[name] = value
    for (name, values), place in zip(choices.items(), places[len(lists) :]):
        result[name] = [*values] * count if len(values) == 1 else [values[each] for each in place.tolist()]
    return result


def several(given: Any) -> bool:
    """Whether `given` is a list or an array of values."""
    return isinstance(given, list | tuple) or bool(getattr(given, "ndim", None))


def shortfall(
    expressions: Mapping[str, Expression], count: int, choices: Mapping[str, Sequence[Any]] = {}
) -> str | None:
    """A sentence on what sample() of these leaves out of the grid, or of a range, whose every point is tried with the
    whole grid; None if nothing."""
    parsed = {name: parse(name, text) for name, text in expressions.items()}
    ranges = [name for name, value in parsed.items() if isinstance(value, Range)]
    given = {name: value for name, value in parsed.items() if isinstance(value, list)} | {**choices}
    lists = {name: len(value) for name, value in given.items() if len(value) > 1}
    grid = math.prod(lists.values())
    if count > grid or not lists or (count == grid and not ranges):
        return None
    left = f", which leave {grid - count:,} of them out" if count < grid else ""
    told = f"{grid:,} combinations of {' and '.join(lists)} for {counted(count, 'network')}{left}"
    if ranges:
        told += f"; all have one point of {' and '.join(ranges)}: each point goes through all combinations"
    return told


def _points(count: int, seed: int, ranges: int, lengths: Sequence[int], method: str) -> tuple[Tensor, list[Tensor]]:
    """For each network: a number in [0, 1) for every range, (N, ranges) float64, and the place in each list, (N,)."""
    if method == "random":
        share = rng.uniform(seed, torch.arange(count), ranges + len(lengths), POINT, rng.SEARCH)
        return share, [(share[:, ranges + at] * length).long() for at, length in enumerate(lengths)]
    places, stride, everyone = [], 1, torch.arange(count)
    for length in lengths:
        none = torch.zeros(1, dtype=torch.int64).expand(count)
        places.append(none if length == 1 else torch.div(everyone, stride, rounding_mode="floor") % length)
        stride *= length
    if not ranges:
        return torch.empty(count, 0, dtype=torch.float64), places
    points = torch.quasirandom.SobolEngine(ranges, scramble=True, seed=seed).draw(
        -(-count // stride), dtype=torch.float64
    )
    return points[torch.div(everyone, stride, rounding_mode="floor")], places


def design(
    space: Mapping[str, Any], count: int | None = None, seed: int = 0, method: str = "sobol", **common: Any
) -> Design:
    """A design from a space: for each column of a design (runs/design.py) a range as text, "1e-4..1e-1:log", a list or
    an array of values of any kind, such as topologies, or one value. count: of networks; by default all combinations of
    the lists, if there are no ranges. Numbers are rounded for settings that take whole ones, and a hyper-parameter is
    left out of rows whose optimizer, schedule and loss do not have it. common: settings of all networks. Warns if so
    few networks leave out parts of lists or ranges.

        gpubp.search.design({"widths": ["64,32,10", "64,64,10"], "lr": "1e-4..1e-1:log"}, 100, loss="cross_entropy")
    """
    check_kind("space", space, Mapping)
    numbers, choices = {}, {}
    for name, value in space.items():
        if isinstance(value, str) and ".." in value:
            numbers[name] = value
        elif several(value) and not (name in ("widths", "hidden") and isinstance(value, tuple)):
            choices[name] = list(value)
        else:
            common[name] = value
    if count is None:
        if numbers:
            raise ConfigError(f"space: {', '.join(numbers)} are ranges: `count`, of networks, expected")
        count = math.prod(len(values) or 1 for values in choices.values())  # sample() refuses empty lists
    number = bounded("count", arrays.count("count", count))
    columns = sample(numbers, number, rng.check_seed(seed), choices, method)
    if method == "sobol" and (told := shortfall(numbers, number, choices)):
        warnings.warn(told, stacklevel=2)
    columns |= {name: columns[name].round().long() for name in numbers if name in WHOLE}
    hyper = {name: [common.pop(name)] for name in HYPER if name in common}
    hyper |= {name: columns.pop(name) for name in HYPER if name in columns}
    rows = Design.of(columns or {"seed": list(range(number))}, **common)
    for name, values in hyper.items():
        rows = taken(rows, name, values, f"space: {name}")
    return rows


def taken(rows: Design, name: str, values: Any, what: str) -> Design:
    """`rows` with a hyper-parameter, `values` (N) or one for all, where its cell is empty and the optimizer, schedule
    or loss has it. what: its name in messages. Raises ConfigError if no row takes it."""
    rules = [rows.columns.get(kind, Column(np.array([0]), np.array([False]), ())) for kind in TABLES]
    options = [(*(each.options or ()), None) for each in rules]  # None for an empty cell
    known = [_has(name, *some) for some in product(*options)]
    places = tuple(np.where(each.given, each.values, len(some) - 1) for each, some in zip(rules, options))
    fits = np.broadcast_to(np.reshape(known, [*map(len, options)])[places], len(rows))
    if not fits.any():
        those = {kind: ", ".join(rule for rule in table if _of(name, table[rule])) for kind, table in TABLES.items()}
        told = "; ".join(f"{kind} {some}" for kind, some in those.items() if some)
        raise ConfigError(f"{what}: no network takes it; for {told}")
    free = fits & ~rows.columns[name].given if name in rows.columns else fits
    if not free.any():
        raise ConfigError(
            f"{what}: no network takes it; all have a cell of their own in the design, or an optimizer, schedule and "
            "loss without it"
        )
    found = column(name, values, "all networks" if len(values) == 1 else "row {}")
    found = found._replace(values=np.broadcast_to(found.values, len(rows)), given=found.given & free)
    return rows.filled(Design({name: found}, len(rows)))


@cache
def _has(name: str, *rules: str | None) -> bool:
    """Whether a network with these rows of TABLES has a hyper-parameter, or may have it if a row is not given. Design
    refuses a row that is in no table."""
    if name in (*SWITCHES, *WARMUP, "lr", "weight_decay"):
        return True
    for table, rule in zip(TABLES.values(), rules):
        if rule is not None and rule not in table:
            return True
        known = [*table.values()] if rule is None else [table[rule]]
        if any(_of(name, each) for each in known):
            return True
    return False


def _of(name: str, rule: Any) -> bool:
    """Whether a rule of TABLES has a hyper-parameter."""
    return name in rule.defaults or (name == "class_weight" and getattr(rule, "classes", False))
