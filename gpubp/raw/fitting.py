"""fit(): fits the preparation on the training part: scaling, replacements of missing values, categories, classes;
fit_apart() fits the scaling on the training part of each fold or entity.

Refused: columns that cannot be scaled or filled, targets that the loss cannot use, and, with a question, texts that
look like numbers, dates or names.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import ConfigError, DataError, one_of, unknown
from ..system.arrays import real
from ..system.flags import number
from .columns import Column, filled, number_target, raw
from .preparation import TASK_OF_LOSS, UNSCALED, Label, Preparation
from .tables import Array, Table, complete, finite, listed, missing
from .text import numbers as numbers_in
from .text import question

SCALES = ("none", "standard", "minmax")
IMPUTES = ("mean", "median")
AT_ONCE = 1 << 22  # numbers of a column copied at once for scaling
SAME = 4  # steps of a column's type: within a smaller range, numbers are one number rounded differently


def fit(
    table: Table,
    loss: str,
    rows: Array | slice = slice(None),
    scale: str | float = "none",
    impute: str | None = None,
    scale_targets: str = "none",
    beside: Sequence[str] = (),
) -> Preparation:
    """The Preparation of `table` for `loss`, fitted on its samples `rows`, by default all.

    scale: "none", "standard" (mean 0, variance 1), "minmax" (from 0 to 1) or a number to divide by; a constant column
    is only shifted. impute: "mean" or "median" fills missing numbers, the most frequent text fills missing texts; None
    refuses them. scale_targets: "none" or "standard", for number targets. beside: columns that are not inputs. Raises
    DataError and ConfigError.
    """
    mode = check_scale(scale)
    if impute is not None:
        one_of(IMPUTES, impute, "impute")
    inputs = [name for name in table.inputs if name not in beside]
    if not inputs:
        others = f" or one of {listed(beside)}" if beside else ""
        out = ", or left out" if table.reading.drop else ""
        raise DataError(f"{table.name}: every column is a target{others}{out}; one or more inputs expected")
    task, classes = _task(table, loss, rows)
    one_of(("none", "standard"), scale_targets, "scale_targets")
    if scale_targets != "none" and (task != "numbers" or loss in UNSCALED):
        raise ConfigError(f"scale_targets {scale_targets!r}: loss {loss!r} needs unscaled targets, 'none'")
    targets = []
    for name in table.targets:
        numbers = number_target(table, name)[rows] if task == "numbers" else None
        offset, factor = (0.0, 1.0) if numbers is None else _scaling(table, name, numbers, scale_targets)
        targets.append(Column(name, offset, factor))
    columns = tuple(_learn(table, name, rows, mode, impute) for name in inputs)
    texts = [column.name for column in columns if column.categories is not None]
    texts += [table.targets[0] for label in classes[:1] if isinstance(label, str)]
    texts += [name for name in beside if table.column(name).dtype == object and _is_text(table, name)]
    reading = replace(table.reading, text=tuple(texts), drop=())
    return Preparation(columns, tuple(targets), task, classes, reading)


def _is_text(table: Table, name: str) -> bool:
    """Whether a column of texts must be text in other files too, even if all of its cells are numbers there."""
    return name in table.reading.text or numbers_in(table.column(name), table.reading) is None


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
    if asked := question(table.columns[name], table.reading, name, name in table.targets):
        raise table.wrong(name, asked)


def fit_apart(
    table: Table, preparation: Preparation, parts: Sequence[Array], scale: str | float, scale_targets: str
) -> Preparation:
    """The preparation with each position's scaling, fitted on its training samples `parts`; a column that is constant
    there takes the factor of all samples. Categories, classes and replacements of missing values stay those of all."""

    def scaled(column: Column, values: Array, mode: str | float) -> Column:
        if not isinstance(mode, str) or mode == "none" or isinstance(column.factor, tuple):
            return column
        offset, factor = np.empty(len(parts)), np.empty(len(parts))
        for size in np.unique(sizes):  # parts of one size together, each with the numbers it would have alone
            everyone, most = (sizes == size).nonzero()[0], max(1, AT_ONCE // size)
            for begin in range(0, len(everyone), most):
                at = everyone[begin : begin + most]
                some = values[np.stack([parts[part] for part in at])]
                offset[at], factor[at] = _scalings(table, column.name, some, mode, column.factor)
        return replace(column, offset=tuple(offset.tolist()), factor=tuple(factor.tolist()))

    sizes, mode = np.array([len(part) for part in parts]), check_scale(scale)
    columns = [
        scaled(each, filled(table, each.name, raw(table, each.name, False), each.fill), mode)
        if each.categories is None
        else each
        for each in preparation.columns
    ]
    targets = preparation.target_columns
    if preparation.task == "numbers":
        targets = tuple(scaled(each, number_target(table, each.name), scale_targets) for each in targets)
    return replace(preparation, columns=tuple(columns), target_columns=targets)


def _scaling(table: Table, name: str, values: Array, scale: str | float) -> tuple[float, float]:
    """The offset and factor of a column with these training values."""
    if scale == "none":
        return 0.0, 1.0
    if isinstance(scale, float):
        return 0.0, scale
    offset, factor = _scalings(table, name, values[None], scale, 1.0)
    return float(offset[0]), float(factor[0])


def _scalings(table: Table, name: str, values: Array, scale: str, constant: float) -> tuple[Array, Array]:
    """Offsets and factors of G parts of a column, from their training values (G, S); a part without deviation gets its
    value and `constant`."""
    low, high = values.min(1).astype(np.float64), values.max(1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        offset, factor = (low, high - low) if scale == "minmax" else (values.mean(1), values.std(1))
    same = (low == high) | _rounded(table, name, values)
    offset, factor = np.where(same, low, offset), np.where(same, constant, factor)
    wrong = (~(np.isfinite(offset) & (factor > 0) & (factor < math.inf))).nonzero()[0]
    if len(wrong):
        at = wrong[0]
        raise table.wrong(name, f"holds {low[at]:g} to {high[at]:g}, which 64 bits cannot scale by {scale!r}")
    return offset, factor


def rounded(table: Table, name: str, values: Array) -> bool:
    """Whether these numbers, some perhaps missing, are one number rounded differently: their deviation is then only
    rounding, not a scale."""
    return bool(_rounded(table, name, values[~missing(values)][None].astype(np.float64))[0])


def _rounded(table: Table, name: str, values: Array) -> Array:
    """rounded() of G parts, (G, S) with none missing: (G,)."""
    low, high = values.min(1), values.max(1)
    step, largest = table.steps.get(name, 2.0**-52), np.maximum(np.abs(low), np.abs(high))
    exact = (largest <= 2 / step) & (values == np.floor(values)).all(1)  # whole numbers are exact up to there
    with np.errstate(over="ignore"):
        found: Array = (low < high) & ~exact & (high - low <= SAME * step * largest)
    return found


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
    """The replacement for missing values, from these training values."""
    known = values[~missing(values)]
    if not len(known):
        raise table.wrong(name, "has no value in the training part; drop it")
    if values.dtype == object:
        texts, counts = np.unique(known.astype(str), return_counts=True)
        return str(texts[counts.argmax()])  # among equally frequent ones, the first in sorted order
    return float(known.mean() if impute == "mean" else np.median(known))
