"""fit(): fits the preparation on the training part: scaling, values for missing ones, categories, classes.

Refused: columns that cannot be scaled or filled, targets that the loss cannot use, and, with a question, texts that
look like numbers, dates or names.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

import numpy as np

from .arrays import real
from .errors import ConfigError, DataError, one_of, unknown
from .flags import number
from .preparation import TASK_OF_LOSS, UNSCALED, Column, Label, Preparation, filled, number_target, raw
from .tables import Array, Table, complete, finite, listed, missing
from .text import question

SCALES = ("none", "standard", "minmax")
IMPUTES = ("mean", "median")
SAME = 4  # steps of a column's type: a smaller range is one number, rounded differently


def fit(
    table: Table,
    loss: str,
    rows: Array | slice = slice(None),
    scale: str | float = "none",
    impute: str | None = None,
    scale_targets: str = "none",
) -> Preparation:
    """The Preparation of `table` for `loss`, fitted on its samples `rows`, by default all.

    scale: "none", "standard" (mean 0, variance 1), "minmax" (from 0 to 1) or a number to divide by; a constant column
    is only shifted. impute: "mean" or "median" fills missing numbers, the most frequent text fills missing texts; None
    refuses them. scale_targets: "none" or "standard", for number targets. Raises DataError and ConfigError.
    """
    mode = check_scale(scale)
    if impute is not None:
        one_of(IMPUTES, impute, "impute")
    if not table.inputs:
        raise DataError(f"{table.name}: every column is a target; one or more inputs expected")
    task, classes = _task(table, loss, rows)
    one_of(("none", "standard"), scale_targets, "scale_targets")
    if scale_targets != "none" and (task != "numbers" or loss in UNSCALED):
        raise ConfigError(f"scale_targets {scale_targets!r}: loss {loss!r} needs unscaled targets, 'none'")
    targets = []
    for name in table.targets:
        numbers = number_target(table, name)[rows] if task == "numbers" else None
        offset, factor = (0.0, 1.0) if numbers is None else _scaling(table, name, numbers, scale_targets)
        targets.append(Column(name, offset, factor))
    columns = tuple(_learn(table, name, rows, mode, impute) for name in table.inputs)
    texts = [column.name for column in columns if column.categories is not None]
    texts += [table.targets[0] for label in classes[:1] if isinstance(label, str)]
    reading = replace(table.reading, text=tuple(texts), drop=())
    return Preparation(columns, tuple(targets), task, classes, reading)


def check_scale(scale: object) -> str | float:
    """`scale` as one of SCALES or as a number above 0; raises ConfigError for anything else."""
    if isinstance(scale, str) and scale in SCALES:
        return scale
    try:
        factor = number(scale) if isinstance(scale, str) else real(scale)
    except ValueError:
        factor = None
    if factor is None or factor <= 0:
        raise ConfigError(f"{unknown('scale', scale, SCALES)}, or a number above 0 to divide by, such as 16")
    return factor


def _learn(table: Table, name: str, rows: Array | slice, scale: str | float, impute: str | None) -> Column:
    values = table.columns[name]
    text = values.dtype == object
    if text and name not in table.reading.text:
        ask(table, name)
    values = raw(table, name, text)
    fill = None if impute is None else _typical(table, name, values[rows], impute)
    values = filled(table, name, values, fill)[rows]
    if text:
        return Column(name, categories=tuple(sorted(set(values.tolist()))), fill=fill)
    return Column(
        name, *_scaling(table, name, values, scale), fill=fill, low=float(values.min()), high=float(values.max())
    )


def ask(table: Table, name: str) -> None:
    """Raise DataError with a question if a column of texts does not look like categories."""
    if asked := question(table.columns[name], table.reading, shlex.quote(name), name in table.targets):
        raise table.wrong(name, asked)


def _scaling(table: Table, name: str, values: Array, scale: str | float) -> tuple[float, float]:
    """The offset and factor of a column with these training values."""
    if scale == "none":
        return 0.0, 1.0
    if isinstance(scale, float):
        return 0.0, scale
    low, high = float(values.min()), float(values.max())
    if low == high or rounded(table, name, values):
        return low, 1.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        offset, factor = (low, high - low) if scale == "minmax" else (float(values.mean()), float(values.std()))
    if not (math.isfinite(offset) and 0 < factor < math.inf):
        raise table.wrong(name, f"holds {low:g} to {high:g}, which 64 bits cannot scale by {scale!r}")
    return offset, factor


def rounded(table: Table, name: str, values: Array) -> bool:
    """Whether these numbers, some of them missing, are one number that was rounded differently: their deviation is
    only rounding, and no scale."""
    values = values[~missing(values)].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    step, largest = table.steps.get(name, 2.0**-52), max(abs(low), abs(high))
    exact = largest <= 2 / step and bool((values == np.floor(values)).all())  # whole numbers up to there
    return low < high and not exact and high - low <= SAME * step * largest


def _task(table: Table, loss: str, rows: Array | slice) -> tuple[str, tuple[Label, ...]]:
    """The task of `loss` and the targets, and the classes."""
    task = TASK_OF_LOSS.get(loss, "numbers")
    if task == "numbers" or (task != "classes" and len(table.targets) > 1):
        return "numbers", ()
    where = f"{table.name}: targets {listed(table.targets)}"
    if len(table.targets) != 1:
        raise DataError(f"{where}: loss {loss!r} needs one column of classes")
    values = complete(table, table.targets[0], table.columns[table.targets[0]])
    if values.dtype.kind == "f":
        finite(table, table.targets[0], values)
        if not bool((values == np.floor(values)).all()):
            if loss == "binary_cross_entropy" and bool(((values >= 0) & (values <= 1)).all()):
                return "numbers", ()
            first = float(values[values != np.floor(values)][0])
            raise DataError(f"{where} hold {first:g}; loss {loss!r} needs classes, which are text or whole numbers")
    classes = tuple(sorted({int(v) if isinstance(v, float) else v for v in values[rows].tolist()}))
    if len(classes) < 2 or (task != "classes" and len(classes) != 2):
        count = "two or more" if task == "classes" else "two"
        raise DataError(f"{where}: classes {listed(classes)} in the training part; loss {loss!r} needs {count}")
    return task, classes


def _typical(table: Table, name: str, values: Array, impute: str) -> float | str:
    """The replacement for missing ones of these training values."""
    known = values[~missing(values)]
    if not len(known):
        raise table.wrong(name, "has no value in the training part; drop it")
    if values.dtype == object:
        texts, counts = np.unique(known.astype(str), return_counts=True)
        return str(texts[counts.argmax()])  # of equally frequent ones the first in sorted order
    return float(known.mean() if impute == "mean" else np.median(known))
