"""Preparation: how the raw columns of a Table become tensors, learned by fit() from the training part alone.

Number columns become (value - offset) / factor, text columns one input per category. Refused, with the column and the
first sample: infinity always, missing values unless `impute` says how to fill them, missing targets always.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError, DataError, one_of, unknown
from .tables import Array, Table, complete, finite, listed, missing

Label = str | int | bool

TASKS = ("classes", "binary", "sign", "numbers")
TASK_OF_LOSS = {
    "cross_entropy": "classes",
    "binary_cross_entropy": "binary",
    "hinge": "sign",
}  # "numbers" for the others
UNSCALED = ("poisson", "binary_cross_entropy", "hinge")  # losses to which 0 and 1 mean what they are
SCALES = ("none", "standard", "minmax")
IMPUTES = ("mean", "median")
FILE = "preparation.json"  # of a run
CATEGORIES = 1000  # more of them in one text column are names or free text, not categories


@dataclass(frozen=True)
class Column:
    """What was learned about one column.

    offset, factor: a number becomes (number - offset) / factor. categories: of a text column, one input each. fill: a
    missing value becomes it, None refuses them.
    """

    name: str
    offset: float = 0.0
    factor: float = 1.0
    categories: tuple[str, ...] | None = None
    fill: float | str | None = None

    def encode(self, table: Table) -> Array:
        """The column of `table` as inputs, (M, 1) or (M, categories); a category not seen in training is all zeros."""
        values = _read(table, self.name, text=self.categories is not None)
        values = _filled(table, self.name, values, self.fill)
        if self.categories is None:
            return ((values - self.offset) / self.factor)[:, None]
        place = {category: number for number, category in enumerate(self.categories)}
        at = np.array([place.get(value, -1) for value in values])
        one_hot = np.zeros((len(values), len(self.categories)))
        one_hot[at >= 0, at[at >= 0]] = 1
        return one_hot


@dataclass(frozen=True)
class Preparation:
    """How raw columns become inputs and targets, and outs become predictions; plain data, saved with the run.

    columns: the input columns, in order. target_columns: the targets. task: "classes" (class numbers), "binary" (0 and
    1), "sign" (-1 and +1) or "numbers". classes: the labels in sorted order, none for numbers.
    """

    columns: tuple[Column, ...]
    target_columns: tuple[Column, ...]
    task: str
    classes: tuple[Label, ...] = ()

    @property
    def width_in(self) -> int:
        """I."""
        return sum(1 if column.categories is None else len(column.categories) for column in self.columns)

    @property
    def width_out(self) -> int:
        """O."""
        return len(self.classes) if self.task == "classes" else len(self.target_columns)

    @property
    def text(self) -> tuple[str, ...]:
        """The columns that hold text, which a file must be read with: a code such as 007 may look like a number."""
        inputs = [column.name for column in self.columns if column.categories is not None]
        return (*inputs, *(self.target_columns[0].name for label in self.classes[:1] if isinstance(label, str)))

    def inputs(self, table: Table) -> Tensor:
        """The inputs (M, I) float64 of `table`; columns that training did not have are ignored."""
        if not table.named and len(table.inputs) != len(self.columns):
            shape = table.samples, len(table.inputs)
            raise DataError(f"{table.name}: inputs {shape}: the last size must be {len(self.columns)}, as in training")
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.columns], 1))

    def targets(self, table: Table) -> Tensor:
        """The targets of `table`: (M,) int64 for "classes", (M, O) float64 otherwise."""
        if self.task == "numbers":
            read = [(_target(table, column.name) - column.offset) / column.factor for column in self.target_columns]
            return torch.from_numpy(np.stack(read, 1))
        name = self.target_columns[0].name
        labels = complete(table, name, table.column(name)).tolist()
        place = {label: number for number, label in enumerate(self.classes)}
        for sample, label in enumerate(labels):
            if label not in place:
                raise table.wrong(
                    name,
                    f"has class {label!r} in sample {sample}, not one of the training part: {listed(self.classes)}; "
                    "take another --seed, a smaller --validation, or --loss mean_squared_error where these "
                    "are numbers, not classes",
                )
        numbers = torch.tensor([place[label] for label in labels])
        if self.task == "classes":
            return numbers
        return (numbers if self.task == "binary" else 2 * numbers - 1).double()[:, None]

    def outputs(self, out: Tensor) -> Tensor:
        """What is expected of the targets (..., O), in the units of the raw ones; of classes as it is."""
        offset, factor = (
            torch.tensor([getattr(column, part) for column in self.target_columns], dtype=out.dtype, device=out.device)
            for part in ("offset", "factor")
        )
        return out * factor + offset if self.task == "numbers" else out

    def decode(self, expected: Tensor) -> Array:
        """The predictions of what is expected of the targets (..., O), a loss's inverse link of outs: the nearest
        labels (...) of classes; numbers (..., O)."""
        if self.task == "numbers":
            return np.asarray(self.outputs(expected.detach()).cpu())
        if self.task == "classes":
            number = expected.argmax(-1)
        else:
            number = (expected[..., 0] > (0.5 if self.task == "binary" else 0)).long()
        labels: Array = np.array(self.classes)
        return np.asarray(labels[number.cpu().numpy()])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, as JSON gives them back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def save(self, run_dir: Path) -> None:
        """Into the directory of a run, for load()."""
        (run_dir / FILE).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """What to_dict() gave; raises DataError for anything else."""
        try:
            columns, target_columns = (
                tuple(
                    Column(**{**column, "categories": column["categories"] and tuple(column["categories"])})
                    for column in values[part]
                )
                for part in ("columns", "target_columns")
            )
            rest = {
                name: value for name, value in values.items() if name not in ("columns", "target_columns", "classes")
            }
            read = cls(columns=columns, target_columns=target_columns, classes=tuple(values["classes"]), **rest)
        except (KeyError, TypeError) as error:
            raise DataError(f"preparation: what Preparation.to_dict() gives expected ({error!r})") from None
        one_of(TASKS, read.task, "preparation: task", DataError)
        return read


def fit(
    table: Table,
    loss: str,
    rows: Array | slice = slice(None),
    scale: str | float = "none",
    impute: str | None = None,
    scale_targets: str = "none",
) -> Preparation:
    """The Preparation of `table` for `loss`, learned from its samples `rows` alone, all of them by default.

    scale: "none", "standard" (mean 0, variance 1), "minmax" (from 0 to 1) or a number to divide by; a constant column
    is shifted alone. impute: "mean" or "median" fills missing numbers, the most frequent text fills missing texts; None
    refuses them. scale_targets: "none" or "standard", for number targets. Raises DataError and ConfigError.
    """
    mode = check_scale(scale)
    if impute is not None:
        one_of(IMPUTES, impute, "impute")
    if not table.inputs:
        raise DataError(f"{table.name}: every column is a target; one or more to learn from expected")
    task, classes = _task(table, loss, rows)
    one_of(("none", "standard"), scale_targets, "scale_targets")
    if scale_targets != "none" and (task != "numbers" or loss in UNSCALED):
        raise ConfigError(f"scale_targets {scale_targets!r}: loss {loss!r} needs its targets as they are, 'none'")
    targets = []
    for name in table.targets:
        numbers = _target(table, name)[rows] if task == "numbers" else None
        offset, factor = (0.0, 1.0) if numbers is None else _scaling(table, name, numbers, scale_targets)
        targets.append(Column(name, offset, factor))
    return Preparation(
        tuple(_learn(table, name, rows, mode, impute) for name in table.inputs), tuple(targets), task, classes
    )


def check_scale(scale: object) -> str | float:
    """`scale` as one of SCALES or as a number above 0; raises ConfigError for anything else."""
    if isinstance(scale, str) and scale in SCALES:
        return scale
    try:
        factor = math.nan if isinstance(scale, bool) else float(scale)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 < factor < math.inf:
        raise ConfigError(f"{unknown('scale', scale, SCALES)}, or a number above 0 to divide by, such as 16")
    return factor


def _learn(table: Table, name: str, rows: Array | slice, scale: str | float, impute: str | None) -> Column:
    values = table.columns[name]
    text = values.dtype == object
    values = _read(table, name, text)
    fill = None if impute is None else _typical(table, name, values[rows], impute)
    values = _filled(table, name, values, fill)[rows]
    if not text:
        return Column(name, *_scaling(table, name, values, scale), fill=fill)
    categories = tuple(sorted(set(values.tolist())))
    if len(categories) > CATEGORIES:
        raise table.wrong(
            name, f"holds {len(categories)} different texts, an input each; at most {CATEGORIES} expected"
        )
    return Column(name, categories=categories, fill=fill)


def _scaling(table: Table, name: str, values: Array, scale: str | float) -> tuple[float, float]:
    """The offset and factor that `scale` gives a column with these training values."""
    if scale == "none":
        return 0.0, 1.0
    if isinstance(scale, float):
        return 0.0, scale
    low, high = float(values.min()), float(values.max())
    if low == high:  # asked of the values: rounding gives a constant column a tiny deviation
        return low, 1.0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        offset, factor = (low, high - low) if scale == "minmax" else (float(values.mean()), float(values.std()))
    if not (math.isfinite(offset) and 0 < factor < math.inf):
        raise table.wrong(name, f"holds {low:g} to {high:g}, which 64 bits cannot scale by {scale!r}")
    return offset, factor


def _task(table: Table, loss: str, rows: Array | slice) -> tuple[str, tuple[Label, ...]]:
    """The task that `loss` makes of the targets, and the classes."""
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


def _read(table: Table, name: str, text: bool) -> Array:
    """An input column as text (object) or as finite or missing numbers (float64)."""
    values = table.column(name)
    if text and values.dtype.kind == "f" and bool(missing(values).all()):
        values = np.full(len(values), None)  # an empty column of a file has no type
    if text != (values.dtype == object):
        holds, held = ("text", "numbers") if values.dtype == object else ("numbers", "text")
        raise table.wrong(name, f"holds {holds}, but {held} in training")
    return values if text else finite(table, name, values.astype(np.float64))


def _typical(table: Table, name: str, values: Array, impute: str) -> float | str:
    """What stands for the missing ones of these training values."""
    known = values[~missing(values)]
    if not len(known):
        raise table.wrong(name, "has no value in the training part; leave it out")
    if values.dtype == object:
        texts, counts = np.unique(known.astype(str), return_counts=True)
        return str(texts[counts.argmax()])  # the first in sorted order of equally frequent ones
    return float(known.mean() if impute == "mean" else np.median(known))


def _filled(table: Table, name: str, values: Array, fill: float | str | None) -> Array:
    """An input column in which `fill` stands for the missing values; refused where that is None."""
    if fill is None:
        return complete(table, name, values, "train with --impute mean or median, or leave these samples out")
    return np.where(missing(values), np.array(fill, dtype=values.dtype), values)


def _target(table: Table, name: str) -> Array:
    """A target column as finite numbers (M,) float64."""
    values = complete(table, name, table.column(name))
    if values.dtype == object:
        raise table.wrong(name, "holds text, this loss needs numbers; one column of classes goes with cross_entropy")
    return finite(table, name, values.astype(np.float64))
