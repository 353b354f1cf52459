"""Preparation: how the raw columns of a Table become tensors; fitting.py fits it on the training part.

Number columns become (value - offset) / factor, text columns one input per category. Refused, with the column and the
first sample: infinity, missing targets, and missing values unless `impute` fills them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, ValuesView
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import files
from .arrays import real
from .errors import DataError, one_of, reason
from .tables import Array, Table, complete, finite, floats, listed, missing
from .text import Reading

Label = str | int | bool

TASKS = ("classes", "binary", "sign", "numbers")
TASK_OF_LOSS = {
    "cross_entropy": "classes",
    "binary_cross_entropy": "binary",
    "hinge": "sign",
}  # "numbers" for the others
UNSCALED = ("poisson", "binary_cross_entropy", "hinge")  # losses whose targets have a fixed scale
FILE = "preparation.json"  # of a run


@dataclass(frozen=True)
class Column:
    """The fitted preparation of one column.

    offset, factor: a number becomes (number - offset) / factor. categories: of a text column, one input each. fill:
    replaces missing values; None refuses them. low, high: the range of the raw numbers in the training part.
    """

    name: str
    offset: float = 0.0
    factor: float = 1.0
    categories: tuple[str, ...] | None = None
    fill: float | str | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Raise DataError for values that fit() never produces, as in a damaged file."""
        texts, fill = self.categories, self.fill
        right = {
            "name": isinstance(self.name, str),
            "offset": _finite(self.offset),
            "factor": _finite(self.factor) and self.factor > 0,
            "categories": texts is None or (_texts(texts) and 0 < len(set(texts)) == len(texts)),
            "fill": fill is None or (_finite(fill) if texts is None else isinstance(fill, str)),
            "low": self.low is None or _finite(self.low),
            "high": self.high is None or _finite(self.high),
        }
        for name in right:
            if not right[name]:
                found = getattr(self, name)
                raise DataError(f"preparation: column {self.name!r} has {name} {found!r}, which fit() never produces")

    def encode(self, table: Table) -> Array:
        """The column of `table` as inputs, (M, 1) or (M, categories); unseen categories are all zeros."""
        values = raw(table, self.name, text=self.categories is not None)
        values = filled(table, self.name, values, self.fill)
        if self.categories is None:
            return ((values - self.offset) / self.factor)[:, None]
        place = {category: number for number, category in enumerate(self.categories)}
        at = np.array([place.get(value, -1) for value in values])
        one_hot = np.zeros((len(values), len(self.categories)))
        one_hot[at >= 0, at[at >= 0]] = 1
        return one_hot

    def strange(self, table: Table) -> str | None:
        """How the column of `table` differs from training, as in other units or by a wrong name, or None."""
        values = raw(table, self.name, text=self.categories is not None)
        known = values[~missing(values)]
        if not len(known):
            return None
        if self.categories is not None:
            if set(known.tolist()) & set(self.categories):
                return None
            return f"column {self.name!r} holds {listed(sorted(set(known)))}; in training {listed(self.categories)}"
        low, high = float(known.min()), float(known.max())
        if self.low is None or self.high is None or (low <= self.high and high >= self.low):
            return None
        return (
            f"column {self.name!r} holds {low:g} to {high:g}, in training {self.low:g} to {self.high:g}; are the units "
            "the same?"
        )


@dataclass(frozen=True)
class Preparation:
    """How raw columns become inputs and targets, and outs become predictions; plain data, saved with the run.

    columns: the input columns, in order. target_columns: the targets. task: "classes" (class numbers), "binary" (0 and
    1), "sign" (-1 and +1) or "numbers". classes: the sorted labels, none for numbers. reading: how files with
    these columns are read, as a code such as 007 may look like a number and a date like a text.
    """

    columns: tuple[Column, ...]
    target_columns: tuple[Column, ...]
    task: str
    classes: tuple[Label, ...] = ()
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Raise DataError for inconsistent values, as in a damaged file."""
        one_of(TASKS, self.task, "preparation: task", DataError)
        names = [column.name for column in (*self.columns, *self.target_columns)]
        if not self.columns or not self.target_columns or len(set(names)) < len(names):
            raise DataError(f"preparation: columns {listed(names)}; inputs and targets of different names expected")
        kinds, many = {type(label) for label in self.classes}, len(self.classes)
        if self.task == "numbers":
            right = not many
        else:
            two = many == 2 or (many > 2 and self.task == "classes")
            right = two and len(self.target_columns) == len(kinds) == 1 and kinds <= {str, int, bool}
        if not right or len(set(self.classes)) < many:
            raise DataError(f"preparation: classes {listed(self.classes)} do not match task {self.task!r}")

    @property
    def width_in(self) -> int:
        """I."""
        return sum(1 if column.categories is None else len(column.categories) for column in self.columns)

    @property
    def width_out(self) -> int:
        """O."""
        return len(self.classes) if self.task == "classes" else len(self.target_columns)

    def inputs(self, table: Table) -> Tensor:
        """The inputs (M, I) float64 of `table`; columns that training did not use are ignored."""
        if not table.named and len(table.inputs) != len(self.columns):
            shape = table.samples, len(table.inputs)
            raise DataError(f"{table.name}: inputs {shape}: the last size must be {len(self.columns)}, as in training")
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.columns], 1))

    def strange(self, table: Table) -> list[str]:
        """A sentence for each input column of `table` that differs from training: numbers all outside its range, texts
        that are all unseen."""
        found = [column.strange(table) for column in self.columns if column.name in table.columns]
        return [each for each in found if each is not None]

    def targets(self, table: Table) -> Tensor:
        """The targets of `table`: (M,) int64 for "classes", (M, O) float64 otherwise."""
        if self.task == "numbers":
            read = [
                (number_target(table, column.name) - column.offset) / column.factor for column in self.target_columns
            ]
            return torch.from_numpy(np.stack(read, 1))
        name = self.target_columns[0].name
        labels = complete(table, name, table.column(name)).tolist()
        place = {label: number for number, label in enumerate(self.classes)}
        for sample, label in enumerate(labels):
            if label not in place:
                raise table.wrong(
                    name,
                    f"has class {label!r} in sample {sample}, not one of the training part: {listed(self.classes)}; "
                    "try another --seed, a smaller --validation, or --task regression if these are "
                    "numbers, not classes",
                )
        numbers = torch.tensor([place[label] for label in labels])
        if self.task == "classes":
            return numbers
        return (numbers if self.task == "binary" else 2 * numbers - 1).double()[:, None]

    def outputs(self, out: Tensor) -> Tensor:
        """Expected targets (..., O) in raw units; those of classes unchanged."""
        offset, factor = (
            torch.tensor([getattr(column, part) for column in self.target_columns], dtype=out.dtype, device=out.device)
            for part in ("offset", "factor")
        )
        return out * factor + offset if self.task == "numbers" else out

    def decode(self, expected: Tensor) -> Array:
        """The predictions for expected targets (..., O) (the loss's inverse link of the outs): the nearest labels (...)
        of classes; numbers (..., O)."""
        if self.task == "numbers":
            return np.asarray(self.outputs(expected.detach()).cpu())
        if self.task == "classes":
            number = expected.argmax(-1)
        else:
            number = (expected[..., 0] > (0.5 if self.task == "binary" else 0)).long()
        labels: Array = np.array(self.classes)
        return np.asarray(labels[number.cpu().numpy()])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, as read back from JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def save(self, run_dir: Path) -> None:
        """Write to the directory of a run, for load(). Raises OSError."""
        files.write_text(run_dir / FILE, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """From the result of to_dict(); raises DataError for anything else."""
        try:
            columns, target_columns = (
                tuple(
                    Column(**{**column, "categories": column["categories"] and tuple(column["categories"])})
                    for column in values[part]
                )
                for part in ("columns", "target_columns")
            )
            reading = values.get("reading")
            if reading is None:  # of a run from before `reading` existed
                texts = [column.name for column in columns if column.categories is not None]
                texts += [column.name for column in target_columns[:1] if isinstance((*values["classes"], 0)[0], str)]
                reading = {"drop": (), "text": texts}
            if not (_texts(reading["drop"]) and _texts(reading["text"]) and _texts(reading.get("dates", {}).values())):
                raise TypeError("names of columns in reading")
            reading = Reading(**{**reading, "drop": tuple(reading["drop"]), "text": tuple(reading["text"])})
            changed = {"columns": columns, "target_columns": target_columns, "classes": tuple(values["classes"])}
            return cls(**{**values, **changed, "reading": reading})
        except (KeyError, TypeError, AttributeError) as error:
            why = reason(error, "entries of other types")
            raise DataError(f"preparation: the result of Preparation.to_dict() expected; {why}") from None


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and real(value) is not None


def _texts(values: object) -> bool:
    """Whether `values` is a sequence of texts, not a single one."""
    return isinstance(values, (list, tuple, ValuesView)) and all(isinstance(each, str) for each in values)


def raw(table: Table, name: str, text: bool) -> Array:
    """An input column as text (object) or as finite or missing numbers (float64)."""
    values = table.column(name)
    if text and values.dtype.kind == "f" and bool(missing(values).all()):
        values = np.full(len(values), None)  # an empty column of a file has no type
    if text != (values.dtype == object):
        if text:
            raise table.wrong(name, "holds numbers, but text in training")
        at = next((at for at, each in enumerate(values) if each and table.reading.number(each) is None), 0)
        raise table.wrong(name, f"holds text, the first {values[at]!r} in sample {at}, but numbers in training")
    return values if text else finite(table, name, floats(table, name, values))


def filled(table: Table, name: str, values: Array, fill: float | str | None) -> Array:
    """An input column with missing values replaced by `fill`, or refused if that is None."""
    if fill is None:
        return complete(table, name, values, "train with --impute mean or median, or leave these samples out")
    return np.where(missing(values), np.array(fill, dtype=values.dtype), values)


def number_target(table: Table, name: str) -> Array:
    """A target column as finite numbers (M,) float64."""
    values = complete(table, name, table.column(name))
    if values.dtype == object:
        raise table.wrong(
            name, "holds text, this loss needs numbers; --task classification trains on one column of classes"
        )
    return finite(table, name, floats(table, name, values))
