"""read_frame(): columns with names as a Table to train on: frames of pandas and polars, pyarrow, mappings, rows of
mappings; table_of(): these, arrays and files as a Table for predictions; inputs_of(): as inputs of networks; written():
a file's columns unchanged.

Frames are recognised by their `columns` and Arrow stream, so that neither library is imported. Predictions ignore
columns that training did not use. Refused: missing columns, and rows of another width.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from ..errors import DataError, ShapeError, warn
from ..system import arrays
from . import text
from .arrow import different
from .preparation import Preparation
from .tables import Table, from_arrow, named, parquet, parsed, present, read
from .text import Reading

TOLD = 3  # columns named in a warning


def table_of(samples: Any, preparation: Preparation) -> Table:
    """The Table of `samples`, with only the columns that `preparation` was fitted on and those that name entities; the
    latter come last in rows without names."""
    if isinstance(samples, Table):
        return samples
    names = [column.name for column in preparation.columns]
    names += [] if preparation.entities is None else preparation.entities.names
    if isinstance(samples, str | os.PathLike):
        return read(samples, reading=replace(preparation.reading, drop=()), only=names)
    return from_arrow("samples", _arrow("samples", samples, names), reading=replace(preparation.reading, drop=()))


def written(path: Path, names: Sequence[str], reading: Reading) -> pa.Table:
    """The columns `names` of a .csv, .tsv or .parquet file, as written there. Raises DataError, also for lists in
    cells."""
    name, plain, suffix = str(path), replace(reading, text=tuple(names), dates={}), path.suffix.lower()
    if suffix == ".parquet":
        table = parquet(path)
    elif suffix in (".csv", ".tsv"):
        table = parsed(path, lambda content: text.columns(name, content, plain, missing=False)[0])
    else:
        raise DataError(f"{path}: columns of a .csv, .tsv or .parquet file expected")
    different(name, table.column_names)
    table = table.select(present(name, table.column_names, names))
    for column, kind in zip(names, table.schema.types):
        if pa.types.is_nested(kind):
            raise DataError(f"{name}: column {column!r} holds {kind}; numbers, dates, truth values or text expected")
    return table


def read_frame(samples: Any, target: str | Sequence[str] | None, reading: Reading, keys: Sequence[str] = ()) -> Table:
    """The Table of `samples`, columns with names, as read() makes one from a file. Categorical inputs are text, even if
    their categories are numbers or look like numbers. Raises DataError."""
    table, targets = _arrow("data", samples, None), named("target", target)
    taken = {*targets, *keys, *reading.drop, *reading.dates, *reading.text}
    coded = [name for name in table.column_names if name not in taken and _numbers_as_names(table[name], reading)]
    return from_arrow("data", table, (), targets, replace(reading, text=(*reading.text, *coded)))


def _numbers_as_names(column: pa.ChunkedArray, reading: Reading) -> bool:
    """Whether a column is categorical, and some of its categories are numbers or look like numbers."""
    if not pa.types.is_dictionary(column.type):
        return False
    kind, known = column.type.value_type, [each for part in column.chunks for each in part.dictionary.to_pylist()]
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return plain or any(isinstance(each, str) and reading.number(each) for each in known)


def _arrow(what: str, samples: Any, names: Sequence[str] | None) -> pa.Table:
    """The columns `names`, or all. Raises DataError."""
    try:
        if isinstance(samples, Sequence) and len(samples) and isinstance(samples[0], Mapping):
            names_of_all = dict.fromkeys(name for row in samples for name in row)
            samples = {name: [row.get(name) for row in samples] for name in names_of_all}
        if isinstance(samples, pa.Table):
            return samples.select(present(what, samples.column_names, names))
        if isinstance(samples, Mapping):
            known = _known(what, samples)
            return pa.table({name: _column(what, name, samples[known[name]]) for name in present(what, known, names)})
        if hasattr(samples, "columns"):
            known = _known(what, samples.columns)
            chosen = list(present(what, known, names))
            arrow = pa.table(samples[[known[name] for name in chosen]])
            return arrow.select(range(len(chosen))).rename_columns(chosen)  # drops pandas' index, which is last
        if names is not None:
            return pa.table(_places(what, samples, names), names)
    except DataError:
        raise
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"{what}: a {type(samples).__name__}; columns or rows of equal lengths expected, each column with values "
            f"of one kind ({error})"
        ) from None
    raise DataError(
        f"{what}: a {type(samples).__name__}; a file, or columns with names expected: a data frame, a pyarrow.Table or "
        "a mapping of names to columns; gpubp.Dataset takes arrays"
    )


def _known(what: str, names: Iterable[Any]) -> dict[str, Any]:
    """The names of columns by their texts, which must differ."""
    names = list(names)
    different(what, [str(name) for name in names])
    return {str(name): name for name in names}


def _places(what: str, samples: Any, names: Sequence[str]) -> list[pa.Array]:
    """The columns of unnamed rows (M, C)."""
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu().numpy()
    if isinstance(samples, np.ndarray):
        columns = list(samples.T) if samples.ndim == 2 else []
    else:
        columns = list(zip(*samples, strict=True))
    if len(columns) != len(names):
        shape = tuple(samples.shape) if hasattr(samples, "shape") else (len(samples), len(columns))
        raise DataError(f"{what} {shape}: (M, {len(names)}), in the order of preparation.columns, expected")
    return [_column(what, name, column) for name, column in zip(names, columns)]


def _column(what: str, name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    """Values (M,), with None and NaN missing."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        return pa.array(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise DataError(
            f"{what}: column {name!r}: only numbers of at most 64 bits, only truth values or only text expected"
        ) from None


def inputs_of(
    samples: Any, preparation: Preparation | None, width: int, like: Tensor, position: Tensor | int | None = None
) -> Tensor:
    """The inputs (M, I) of raw samples, or, without a preparation, of numbers (M, I), I = width, with the dtype and the
    device of `like`. Warns of columns that differ from training. position: as in Preparation."""
    if preparation is not None:
        table = checked(samples, preparation)
        return typed(preparation.inputs(table, position), like, table, preparation)
    numbers = _numbers(samples, width)
    if not numbers.is_floating_point():
        arrays.held("samples", numbers, numbers.to(like.dtype))
    return typed(numbers, like)


def checked(samples: Any, preparation: Preparation) -> Table:
    """table_of(), with warnings of columns that differ from training, of the first TOLD each."""
    table = table_of(samples, preparation)
    strange = preparation.strange(table)
    more = len(strange) - TOLD
    if more > 0:
        strange[TOLD:] = [f"{more} more column{'s differ' if more > 1 else ' differs'} from training"]
    for each in strange:
        warn(f"{table.name}: {each}")
    return table


def typed(prepared: Tensor, like: Tensor, table: Table | None = None, preparation: Preparation | None = None) -> Tensor:
    """Inputs with the dtype and the device of `like`; raises DataError if that makes one infinite."""
    inputs = prepared.to(like.device, like.dtype)
    bad = (~inputs.isfinite()).nonzero()
    if len(bad):
        sample, place = bad[0].tolist()
        where = f"input {place}"
        if table is not None and preparation is not None:
            names = [column.name for column in preparation.columns for _ in column.categories or (None,)]
            where = f"{table.name}: column {names[place]!r}"
        raise DataError(
            f"{where} becomes {float(prepared[sample, place]):g} in sample {sample}, one of {len(bad)} numbers "
            f"that are not finite as {like.dtype}; finite numbers expected"
        )
    return inputs


def _numbers(samples: Any, width: int) -> Tensor:
    """Samples (M, I) for networks without a preparation, unchanged."""
    try:
        numbers = arrays.tensor("samples", samples)
    except DataError as error:
        raise DataError(
            f"{error}; the run was trained on plain tensors, without a preparation: numbers (M, {width})"
        ) from None
    if numbers.ndim != 2 or numbers.shape[1] != width or not len(numbers):
        raise ShapeError(f"samples {tuple(numbers.shape)}: (M, {width}) expected")
    return numbers
