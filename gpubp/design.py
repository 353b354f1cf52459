"""Design: a table with a row per network, and the groups of rows that share a kernel.

A column is a setting: of NetworkSpec (widths "64,32,10", hidden, output, loss, bias, train_bias), of Population.create
(init, init_scale), or of TrainConfig (optimizer, lr, batch_size, epochs, patience, ...). Two more say what is random
and which samples are used: `seed`, the network's id, by default its row; and `fold`, the position of its samples in the
data, by default its row too. An empty cell is the default. Rows that differ in numbers alone train as one population;
nothing is padded. Refused, with the row: what any of these refuse.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import files
from .config import HYPER, TrainConfig
from .errors import ConfigError, DataError, GpubpError, lookup, unknown
from .initialise import INITIALISERS, initialise
from .population import Population
from .rng import EVERYBODY
from .spec import NetworkSpec

if TYPE_CHECKING:
    import pyarrow as pa

SPEC = ("widths", "hidden", "output", "loss", "bias", "train_bias")
START = ("init", "init_scale", "seed", "fold")
LENGTHS = ("epochs", "steps")
TRAINING = tuple(each.name for each in fields(TrainConfig) if each.name not in ("class_weight", "extra"))
COLUMNS = (*SPEC, *START, *TRAINING)
NUMBERS = (*HYPER, *LENGTHS, "init_scale", "seed", "fold")  # may differ within a group
WHOLE = ("seed", "fold", "epochs", "steps", "batch_size", "evaluate_every")
TRUTHS = ("train_bias", "restore_best")
FILE = "design.parquet"

Row = dict[str, Any]


class Group(NamedTuple):
    """Networks that share a kernel. rows (N,): in the design; position (N,): of each network's samples in the data."""

    rows: Tensor
    population: Population
    config: TrainConfig
    position: Tensor


@dataclass(frozen=True)
class Design:
    """rows: the settings of each network by name, without those that are default."""

    rows: tuple[Row, ...]
    first: int = 0  # the number of the first row

    def part(self, begin: int, end: int, first: int | None = None) -> Design:
        """Some of the rows, with their numbers, or numbered from `first`."""
        return Design(self.rows[begin:end], self.first + begin if first is None else first)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ConfigError("the design has no rows; one or more networks expected")

    @classmethod
    def of(cls, given: Any, **settings: Any) -> Design:
        """A design from a mapping of columns, a sequence or iterator of mappings, a frame of pandas or polars, a
        pyarrow.Table or the path of a .csv or .parquet file. settings: of all rows that have no other."""
        if isinstance(given, Design):
            given = given.rows
        columns = _columns(given)
        for name in (*columns, *settings):
            if name not in COLUMNS:
                raise ConfigError(unknown("design: column", name, COLUMNS))
        common = {name: _value(name, value, "of all networks") for name, value in settings.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            few, most = min(lengths.values()), max(lengths.values())
            raise ConfigError(f"design: columns of {few} to {most} rows; equal lengths expected")
        rows = []
        for number in range(next(iter(lengths.values()), 0)):
            cells = {name: _value(name, values[number], f"in row {number}") for name, values in columns.items()}
            own = {name: value for name, value in cells.items() if value is not None}
            taken = LENGTHS if any(name in own for name in LENGTHS) else ()  # a row has its length, or that of all
            usual = {name: value for name, value in common.items() if value is not None and name not in taken}
            rows.append(usual | own)
        return cls(tuple(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Design({len(self):,} networks: {', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """The settings that some row has, in the order of COLUMNS."""
        present = {name for row in self.rows for name in row}
        return [name for name in COLUMNS if name in present]

    def table(self) -> pa.Table:
        """The design as a table, topologies as text."""
        import pyarrow as pa  # `import gpubp` need not wait for it

        return pa.table({name: pa.array([_text(row.get(name)) for row in self.rows]) for name in self.names})

    def save(self, run_dir: Path) -> None:
        """Write RUN/design.parquet. Raises OSError."""
        from pyarrow import parquet

        files.write(run_dir / FILE, lambda beside: parquet.write_table(self.table(), beside))

    def groups(self, seed: int, dtype: torch.dtype, folds: int | None) -> Iterator[Group]:
        """The rows that share a kernel, in the order of their first rows. folds: how many positions the data have, or
        None if all networks have the same samples."""
        found: dict[Any, list[int]] = {}
        for number, row in enumerate(self.rows):
            fixed = tuple((name, value) for name, value in row.items() if name not in NUMBERS)
            found.setdefault((frozenset(fixed), frozenset(row)), []).append(number)
        for rows in found.values():
            try:
                yield self._group(rows, seed, dtype, folds)
            except GpubpError as error:
                more = f" and {len(rows) - 1:,} like it" if len(rows) > 1 else ""
                raise type(error)(f"design: row {self.first + rows[0]}{more}: {error}") from None

    def _group(self, rows: list[int], seed: int, dtype: torch.dtype, folds: int | None) -> Group:
        first = self.rows[rows[0]]
        if "widths" not in first:
            raise ConfigError("widths are missing, of inputs, hidden layers and outputs: 64,32,10")
        values = {name: [self.rows[row][name] for row in rows] for name in first}
        many: dict[str, Any] = {
            name: each[0] if len(set(each)) == 1 else _numbers(each) for name, each in values.items()
        }
        spec = NetworkSpec(**{name: first[name] for name in SPEC if name in first})
        config = TrainConfig(**{name: many[name] for name in TRAINING if name in first})
        config.recipe(spec)  # refuses an unused hyper-parameter before anything is made
        at = self.first + torch.tensor(rows)
        ids = torch.tensor(values["seed"]) if "seed" in first else at
        if int(ids.max()) >= EVERYBODY:
            raise ConfigError(f"seed {int(ids.max())}: less than {EVERYBODY} expected")
        position = torch.tensor(values["fold"]) if "fold" in first else at
        if folds is None and "fold" in first:
            raise DataError(f"fold {first['fold']}: the data are the same for all networks; data.folds(k) expected")
        if folds is not None and int(position.max()) >= folds:
            raise DataError(f"fold {int(position.max())}: the data have {folds}, from 0 to {folds - 1}")
        rule = lookup(INITIALISERS, first.get("init", "glorot_uniform"), "init", ConfigError)
        params = initialise(spec, rule, seed, ids, dtype, many.get("init_scale"))
        return Group(at, Population(spec, params, seed, ids), config, position)


def _columns(given: Any) -> dict[str, list[Any]]:
    """The columns of a design as lists."""
    import pyarrow as pa

    from . import tables

    if isinstance(given, str | os.PathLike):
        given = tables.read(given).columns
    elif isinstance(given, Iterator):
        given = list(given)
    if isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(row, Mapping) for row in given):
        names = dict.fromkeys(name for row in given for name in row)
        given = {name: [row.get(name) for row in given] for name in names}
    elif hasattr(given, "columns") and not isinstance(given, Mapping):
        given = pa.table(given).to_pydict()  # also of pandas and polars, through Arrow
        given.pop("__index_level_0__", None)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"design is a {type(given).__name__}; a mapping of columns, a list of mappings, a frame, or the path of a "
            "file, expected"
        )
    columns = {}
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray | Tensor):
            raise ConfigError(f"design: column {name!r} is a {type(values).__name__}; a list of values expected")
        columns[str(name)] = list(values.tolist() if isinstance(values, np.ndarray | Tensor) else values)
    return columns


def _value(name: str, value: Any, where: str) -> Any:
    """A cell as its setting takes it; None if it is empty. Raises ConfigError."""
    if isinstance(value, np.generic | Tensor):
        value = value.item()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        if name == "widths":
            parts = value.replace("-", ",").split(",") if isinstance(value, str) else list(value)
            return tuple(_whole(part) for part in parts)
        if name == "hidden" and not isinstance(value, str) and isinstance(value, Sequence):
            return tuple(value)
        if name == "hidden" and isinstance(value, str) and "," in value:
            return tuple(value.split(","))
        if name in TRUTHS:
            return {"true": True, "false": False, "1.0": True, "0.0": False}[str(value).lower()]
        if name in WHOLE:
            return _whole(value)
        if name in NUMBERS:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        kinds = (
            {"widths": "whole numbers"}
            | dict.fromkeys(TRUTHS, "true or false")
            | dict.fromkeys(WHOLE, "a whole number")
        )
        kind = kinds.get(name, "a number")
        raise ConfigError(f"design: {name} {value!r} {where}: {kind} expected") from None
    return value


def _numbers(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64 if isinstance(values[0], int) else torch.float64)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or float(value) != int(value) or int(value) < 0:
        raise ValueError
    return int(value)


def _text(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
