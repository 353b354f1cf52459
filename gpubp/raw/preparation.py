"""Preparation: how the raw columns of a Table become tensors; fitting.py fits it on the training part.

Number columns become (value - offset) / factor, text columns one input per category. Offset and factor come from all
samples, or, for one model per entity and for folds, from each position's training samples. Refused, with the column and
the first sample: infinity, missing targets, and missing values unless `impute` fills them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, one_of, reason
from ..system import files
from .columns import Column, are_texts, number_target, tensors
from .entities import Entities
from .tables import Array, Table, complete, listed
from .text import Reading

Label = str | int | bool

TASKS = ("classes", "binary", "sign", "numbers")
TASK_OF_LOSS = {
    "cross_entropy": "classes",
    "binary_cross_entropy": "binary",
    "hinge": "sign",
}  # other losses: "numbers"
UNSCALED = ("poisson", "binary_cross_entropy", "hinge")  # losses whose targets have a fixed scale
FILE = "preparation.json"  # of a run


@dataclass(frozen=True)
class Preparation:
    """How raw columns become inputs and targets, and outs become predictions; plain data, saved with the run.

    columns: the input columns, in order. target_columns: the targets. task: "classes" (class numbers), "binary" (0 and
    1), "sign" (-1 and +1) or "numbers". classes: the sorted labels, none for numbers. reading: how files with these
    columns are read, as a code such as 007 may look like a number and a date like text. entities: the entities whose
    networks answer samples, for one model per entity.

    A `position` is the fold or entity of each sample, (M,), or of all samples; needed if scaling differs between them.
    """

    columns: tuple[Column, ...]
    target_columns: tuple[Column, ...]
    task: str
    classes: tuple[Label, ...] = ()
    reading: Reading = field(default_factory=Reading)
    entities: Entities | None = None

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
        own = {len(each.factor) for each in (*self.columns, *self.target_columns) if isinstance(each.factor, tuple)}
        if len(own) > 1 or (self.entities is not None and not own <= {len(self.entities)}):
            raise DataError(f"preparation: columns scaled for {listed(sorted(own))} positions; equal numbers expected")

    @property
    def width_in(self) -> int:
        """I."""
        return sum(1 if column.categories is None else len(column.categories) for column in self.columns)

    @property
    def width_out(self) -> int:
        """O."""
        return len(self.classes) if self.task == "classes" else len(self.target_columns)

    @property
    def scaled_apart(self) -> bool:
        """Whether scaling differs between positions."""
        return any(isinstance(each.factor, tuple) for each in (*self.columns, *self.target_columns))

    @property
    def positions(self) -> float:
        """How many positions have their own scaling or are entities; infinite if neither is the case."""
        own = [len(each.factor) for each in (*self.columns, *self.target_columns) if isinstance(each.factor, tuple)]
        return min([*own, math.inf if self.entities is None else len(self.entities)])

    def at(self, position: int) -> Self:
        """The preparation of the samples of one position."""
        columns, targets = (tuple(each.at(position) for each in part) for part in (self.columns, self.target_columns))
        return replace(self, columns=columns, target_columns=targets, entities=None)

    def inputs(self, table: Table, position: Tensor | int | None = None) -> Tensor:
        """The inputs (M, I) float64 of `table`; columns that training did not use are ignored."""
        return self.scaled(self.plain(table), position)

    def plain(self, table: Table) -> Tensor:
        """inputs() before scaling."""
        if not table.named and len(table.inputs) != len(self.columns):
            shape = table.samples, len(table.inputs)
            raise DataError(f"{table.name}: inputs {shape}: the last size must be {len(self.columns)}, as in training")
        return torch.from_numpy(np.concatenate([column.encode(table) for column in self.columns], 1))

    def scaled(self, plain: Tensor, position: Tensor | int | None = None) -> Tensor:
        """Inputs (M, I) from plain ones."""
        offset, factor = _picked(self._of_inputs, position)
        return (plain - offset) / factor

    @cached_property
    def _of_inputs(self) -> tuple[Tensor, Tensor]:
        each = [column for column in self.columns for _ in column.categories or (None,)]
        return tensors(each)

    @cached_property
    def _of_targets(self) -> tuple[Tensor, Tensor]:
        return tensors(self.target_columns)

    def strange(self, table: Table) -> list[str]:
        """A sentence for each input column of `table` that differs from training: numbers all outside its range, or
        unseen texts."""
        found = [column.strange(table) for column in self.columns if column.name in table.columns]
        return [each for each in found if each is not None]

    def targets(self, table: Table, position: Tensor | int | None = None, rows: Tensor | None = None) -> Tensor:
        """The targets of `table`, or of its samples `rows`: (M,) int64 for "classes", (M, O) float64 otherwise."""
        at = torch.arange(table.samples) if rows is None else rows
        if self.task == "numbers":
            read = np.stack([number_target(table, column.name) for column in self.target_columns], 1)
            offset, factor = _picked(self._of_targets, position)
            return (torch.from_numpy(read)[at] - offset) / factor
        name = self.target_columns[0].name
        labels = complete(table, name, table.column(name)).tolist()
        place = {label: number for number, label in enumerate(self.classes)}
        for sample, label in enumerate(labels):
            if label not in place:
                raise table.wrong(
                    name,
                    f"has class {label!r} in sample {sample}, not one of the training part: {listed(self.classes)}; "
                    "try another seed, a smaller validation part, or task regression (--task) if these are numbers, "
                    "not classes",
                )
        numbers = torch.tensor([place[label] for label in labels])[at]
        if self.task == "classes":
            return numbers
        return (numbers if self.task == "binary" else 2 * numbers - 1).double()[:, None]

    def outputs(self, out: Tensor, position: Tensor | int | None = None) -> Tensor:
        """Expected targets (..., M, O) in raw units; those of classes unchanged."""
        if self.task != "numbers":
            return out
        offset, factor = (each.to(out.device, out.dtype) for each in _picked(self._of_targets, position))
        return out * factor + offset

    def decode(self, expected: Tensor) -> Array:
        """The predictions for expected targets (..., O) (the loss's inverse link of the outs), in raw units if scaling
        differs between positions: for classes, the nearest labels (...); else numbers (..., O)."""
        if self.task == "numbers":
            raw = expected if self.scaled_apart else self.outputs(expected.detach())
            return np.asarray(raw.detach().cpu())
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
    def load(cls, run_dir: Path) -> Self | None:
        """A run's preparation, if it has one. Raises CheckpointError."""
        path = run_dir / FILE
        with files.trusted(path):
            return cls.from_dict(json.loads(files.read(path))) if path.exists() else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the result of to_dict(); raises DataError for anything else."""
        try:
            json.dumps(values, ensure_ascii=False).encode()  # refuses half a surrogate pair, which no table can hold
            columns, target_columns = (
                tuple(Column(**{name: _tuple(each) for name, each in column.items()}) for column in values[part])
                for part in ("columns", "target_columns")
            )
            entities = values.get("entities")
            entities = None if entities is None else Entities.from_dict(entities)
            reading = values.get("reading")
            if reading is None:  # of a run from before `reading` existed
                texts = [column.name for column in columns if column.categories is not None]
                texts += [column.name for column in target_columns[:1] if isinstance((*values["classes"], 0)[0], str)]
                reading = {"drop": (), "text": texts}
            if not (
                are_texts(reading["drop"])
                and are_texts(reading["text"])
                and are_texts(reading.get("dates", {}).values())
            ):
                raise TypeError("names of columns in reading")
            reading = Reading(**{**reading, "drop": tuple(reading["drop"]), "text": tuple(reading["text"])})
            changed = {"columns": columns, "target_columns": target_columns, "classes": tuple(values["classes"])}
            return cls(**{**values, **changed, "reading": reading, "entities": entities})
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError) as error:
            why = reason(error, "entries of other types")
            raise DataError(f"preparation: the result of Preparation.to_dict() expected; {why}") from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _picked(scaling: tuple[Tensor, Tensor], position: Tensor | int | None) -> tuple[Tensor, Tensor]:
    """Offsets and factors of samples at `position`."""
    offset, factor = scaling
    if len(offset) == 1:
        return offset, factor
    if position is None:
        raise DataError(
            f"scaling differs between {len(offset)} folds or entities; the position of each sample expected"
        )
    return offset[position], factor[position]
