"""Cells of a design: its columns from a mapping, mappings row by row, a frame or a file, as numbers or as options.

Each distinct cell is read once, and numbers all at once, so that a million rows take seconds. An empty cell is None,
NaN, pandas.NA or "". Refused, with column and row: values that the column's setting does not take.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from ..errors import ConfigError, GpubpError
from ..maths.activations import ACTIVATIONS
from ..maths.losses import LOSSES
from ..maths.optimizers import OPTIMIZERS
from ..maths.rng import EVERYBODY
from ..maths.rows import CustomName, Table
from ..maths.schedules import SCHEDULES
from ..raw import tables
from ..raw.entities import Entities, located
from ..settings import ranges
from ..settings.class_weights import BALANCED
from ..settings.config import HYPER
from ..system import config_file, free
from ..system.flags import number

Array = npt.NDArray[Any]

EXTRA = "extra."  # before the name of a custom rule's hyper-parameter
LENGTHS = ("epochs", "steps")
NUMBERS = (*HYPER, *LENGTHS, "init_scale", "seed", "fold")  # may differ within a group, as class_weight may
WHOLE = {
    **dict.fromkeys((*LENGTHS, "batch_size", "evaluate_every", "widths"), (1, ranges.LONGEST)),
    **dict.fromkeys(("seed", "fold"), (0, EVERYBODY - 1)),
}
TRUTHS = ("train_bias", "restore_best")
TABLES: dict[str, Table[Any]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "output": ACTIVATIONS,
    "hidden": ACTIVATIONS,
}
OBJECT = 100  # bytes of a non-numeric cell, as a Python object
LISTS = {
    "widths": "whole numbers of 1 or more, separated by commas,",
    "class_weight": "numbers separated by commas, or balanced,",
}


class Column(NamedTuple):
    """A setting of N networks. values (N,): float64 or int64 numbers, or for another setting the position of its value
    in `options`. given (N,): False for an empty cell, whose value has no meaning."""

    values: Array
    given: Array
    options: tuple[Any, ...] | None = None

    def take(self, rows: Array | slice) -> Column:
        """The cells of these rows."""
        return self._replace(values=self.values[rows], given=self.given[rows])

    def filled(self, other: Column, free: Array) -> Column:
        """These cells; empty ones in the rows `free` come from `other`, which has as many cells or one for all."""
        values, options = other.values, self.options
        if options is not None:
            options = tuple(dict.fromkeys((*options, *(other.options or ()))))
            place = {each: at for at, each in enumerate(options)}
            values = np.array([place[each] for each in other.options or ()], np.int64)[values]
        if not self.given.any() and free.all():  # one for all takes the memory of one
            values, given = (np.broadcast_to(each, len(free)) for each in (values, other.given))
            return Column(values, given, options)
        return Column(np.where(self.given, self.values, values), self.given | (other.given & free), options)

    def cells(self) -> list[Any]:
        """The value of each cell; None if it is empty."""
        found = self.values.tolist() if self.options is None else [self.options[each] for each in self.values.tolist()]
        return [value if given else None for value, given in zip(found, self.given.tolist())]


@dataclass(frozen=True, eq=False)
class Coded:
    """Cells by their position (N,) in `options`, -1 if empty: only the options are Python objects."""

    options: list[Any]
    codes: Array

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Any]:
        every = [*self.options, None]
        return (every[each] for each in self.codes.tolist())


def columns(given: Any, first: int = 0, entities: Entities | None = None) -> tuple[dict[str, Any], int, bool]:
    """The columns of a design by the names of their settings, the number of its rows, and whether each row names its
    own columns. first: the number of the first row; entities: of the data, which a column `entity` may name. Raises
    ConfigError and DataError."""
    if isinstance(given, str | os.PathLike):
        given = _file(given)
    elif isinstance(given, Iterator):
        given = list(given)
    if hasattr(given, "collect"):  # polars.LazyFrame
        given = given.collect()
    apart = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    if apart:
        for row, each in enumerate(given, first):
            if not isinstance(each, Mapping):
                raise ConfigError(f"design: row {row} is a {type(each).__name__}; a mapping of settings expected")
        names = dict.fromkeys(name for row in given for name in row)
        pairs, count = [(name, [row.get(name) for row in given]) for name in names], len(given)
    elif isinstance(given, Mapping):
        pairs, count = list(given.items()), 0
    elif hasattr(given, "iloc") and hasattr(given, "columns"):  # pandas, whose index says nothing
        pairs, count = list(given.items()), len(given)
    elif hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns"):
        table = pa.table(given)
        pairs, count = list(zip(table.column_names, table.columns)), table.num_rows
        pairs = [(name, values) for name, values in pairs if not name.startswith("__index_level_")]  # pandas'
    else:
        raise ConfigError(
            f"design is a {type(given).__name__}; a mapping of columns, a list of mappings, a frame, or the path of a "
            "file, expected"
        )
    found: dict[str, Any] = {}
    for name, values in pairs:
        setting = str(name).strip().replace("-", "_")
        if setting in found:
            raise ConfigError(f"design: column {setting!r} is there twice; once expected")
        found[setting] = _cells(setting, values)
    if "entity" in found:
        if "fold" in found:
            raise ConfigError("design: columns fold and entity, both the position of the samples: one of them expected")
        found["fold"] = located(found.pop("entity"), entities, first)
    lengths = {len(values) for values in found.values()} or {count}
    if len(lengths) > 1:
        raise ConfigError(f"design: columns of {min(lengths)} to {max(lengths)} rows; equal lengths expected")
    return found, lengths.pop(), apart


def _file(path: str | os.PathLike[str]) -> Any:
    """The table in a file. Raises DataError."""
    if (suffix := Path(path).suffix.lower()) != ".parquet":
        return config_file.rows(Path(path)) if suffix in config_file.ENDINGS else tables.read(path).columns
    found = tables.parquet(Path(path))  # which can hold lists of widths too
    for name, kind in zip(found.schema.names, found.schema.types):
        if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind):
            raise ConfigError(f"design: column {name!r} holds {kind}; numbers, names, truth values or lists expected")
    objects = sum(pa.types.is_nested(each) or pa.types.is_decimal(each) for each in found.schema.types)
    free.fits(f"design {path}", OBJECT * objects * found.num_rows)
    return found


def _cells(name: str, values: Any) -> Array | list[Any] | Coded:
    """The cells of a column: an array of numbers, or a list, or texts and truths of a pyarrow.Table."""
    if hasattr(values, "combine_chunks") and str(values.type) in ("string", "large_string", "bool"):
        found = values.combine_chunks().dictionary_encode()
        return Coded(found.dictionary.to_pylist(), found.indices.fill_null(-1).to_numpy().astype(np.int64))
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    what = type(values).__name__
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # None for masked values
    elif hasattr(values, "__array__"):  # series of pandas, polars and pyarrow too
        array = np.asarray(values)
        if array.ndim == 1 and array.dtype.kind in "fiu":
            return array
        what, values = f"{what} of {array.dtype}", array.tolist() if array.dtype.kind in "fiubUO" else None
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not isinstance(values, Iterable):
        raise ConfigError(f"design: column {name!r} is a {what}; a list of numbers, names or truth values expected")
    return list(values)


def column(name: str, cells: Array | list[Any] | Coded, where: str = "row {}", first: int = 0) -> Column:
    """The cells of a setting, checked. where: for errors; first: the number of the first row. Raises ConfigError."""
    if name in NUMBERS or name.startswith(EXTRA):
        return _numbers(name, list(cells) if isinstance(cells, Coded) else cells, where, first)
    options: dict[Any, int] = {}
    known: dict[Any, int] = {}  # by the cell as given
    codes = []
    told: Iterable[tuple[int, Any]]
    if isinstance(cells, Coded):  # for each, the first row that has it
        told = ((first + int((cells.codes == code).argmax()), each) for code, each in enumerate(cells.options))
    else:
        told = enumerate(cells.tolist() if isinstance(cells, np.ndarray) else cells, first)
    for row, cell in told:
        try:
            code = known.get((type(cell), cell))
            remember = True
        except TypeError:  # lists, arrays, rules with a dict of defaults
            code, remember = None, False
        if code is None:
            value = _read(name, cell, where.format(row))
            code = -1 if value is None else options.setdefault(value, len(options))
            if remember:
                known[type(cell), cell] = code
        codes.append(code)
    values = np.array(codes, np.int64)
    if isinstance(cells, Coded):
        values = np.append(values, -1)[cells.codes]
    return Column(values.clip(0), values >= 0, tuple(options))


def _numbers(name: str, cells: Array | list[Any], where: str, first: int) -> Column:
    """A column of numbers."""
    numbers: Array | None = None
    if isinstance(cells, np.ndarray) or {*map(type, cells)} <= {int, float, type(None)}:
        with suppress(OverflowError):
            numbers = np.array(cells, np.float64)  # None becomes NaN
    if numbers is None:
        read = (_read(name, cell, where.format(row)) for row, cell in enumerate(cells, first))
        numbers = np.array([math.nan if cell is None else cell for cell in read], np.float64)
    given, whole = ~np.isnan(numbers), name in WHOLE
    if whole:
        low, high = WHOLE[name]
        wrong = (numbers < low) | (numbers > high) | (numbers != np.floor(numbers))
    elif name == "init_scale":
        wrong = np.isinf(numbers)
    else:
        wrong = ranges.outside(name, torch.from_numpy(numbers)).numpy()
    bad = (wrong & given).nonzero()[0]
    if len(bad):
        raise _refused(name, cells[bad[0]], where.format(first + bad[0]))
    return Column(np.where(given, numbers, 0).astype(np.int64) if whole else numbers, given)


def _read(name: str, cell: Any, where: str) -> Any:
    """The value of a cell; None if it is empty."""
    try:
        return _value(name, cell)
    except GpubpError as error:
        raise ConfigError(error, f"design: {where}") from None
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        raise _refused(name, cell, where) from None


def _value(name: str, cell: Any) -> Any:
    if isinstance(cell, np.generic | np.ndarray | Tensor):
        cell = cell.tolist()
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, str) and not isinstance(cell, CustomName):
        cell = str(cell).strip()
        if not cell:
            return None
    if name == "class_weight" and cell == BALANCED:
        return BALANCED
    if name in LISTS:
        parts = cell.strip("()[]").replace("-", ",").split(",") if isinstance(cell, str) else list(cell)
        return tuple(_whole(name, part) if name == "widths" else _number(part) for part in parts)
    if name in TRUTHS:
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}[str(cell).lower()]
    if name in NUMBERS or name.startswith(EXTRA):
        return _number(cell)
    if name in WHOLE:
        return _whole(name, cell)
    if name == "hidden" and isinstance(cell, str) and "," in cell:
        cell = [part.strip() for part in cell.split(",")]
    if name == "hidden" and type(cell) in (list, tuple):  # a rule is a named tuple
        return tuple(_named(name, each) for each in cell)
    return _named(name, cell)


def _named(name: str, cell: Any) -> str:
    """The name of a rule; names in tables are looked up when the network is made."""
    if isinstance(cell, str):
        return cell
    if name in TABLES:
        return TABLES[name].name(cell, name, ConfigError)
    raise TypeError


def _number(cell: Any) -> float:
    if isinstance(cell, bool):
        raise ValueError
    return number(cell) if isinstance(cell, str) else float(cell)


def _whole(name: str, cell: Any) -> int:
    found, (low, high) = _number(cell), WHOLE[name]
    if not low <= found <= high or found != int(found):
        raise ValueError
    return int(found)


def _refused(name: str, cell: Any, where: str) -> ConfigError:
    """The error for a cell."""
    if name in LISTS:
        expected = LISTS[name]
    elif name in TRUTHS:
        expected = "true or false"
    elif name in WHOLE:
        expected = "a whole number from {} to {:,}".format(*WHOLE[name])
    elif name in NUMBERS or name.startswith(EXTRA):
        expected = "a finite number" if name == "init_scale" else f"a number in {ranges.allowed(name)}"
    else:
        expected = "a name"
    shown = cell.item() if isinstance(cell, np.generic) else cell
    shown = int(shown) if isinstance(shown, float) and shown.is_integer() else shown
    if name not in LISTS and isinstance(cell, str) and re.fullmatch(r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*", cell):
        expected += ", with a decimal point,"
    return ConfigError(f"{name} {shown!r}: {expected} expected", f"design: {where}")
