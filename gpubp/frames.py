"""table_of(): raw samples of any kind as a Table: frames of pandas and polars, pyarrow, mappings, rows, arrays, files;
inputs_of(): the same as the inputs of networks.

Frames are recognised by their `columns` and Arrow stream, so neither library is imported. Columns that training
did not use are ignored. Refused: missing columns, and rows of another width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from . import arrays
from .errors import DataError, ShapeError, nearest, warn
from .preparation import Preparation
from .tables import Table, from_arrow, listed, read


def table_of(samples: Any, preparation: Preparation) -> Table:
    """The Table of `samples`, with only the columns that `preparation` was fitted on, and those that name entities,
    which are last in rows without names."""
    if isinstance(samples, Table):
        return samples
    if isinstance(samples, str | os.PathLike):
        return read(samples, reading=preparation.reading)
    names = [column.name for column in preparation.columns]
    names += [] if preparation.entities is None else preparation.entities.names
    try:
        if isinstance(samples, Sequence) and len(samples) and isinstance(samples[0], Mapping):
            present = {name for row in samples for name in row}
            samples = {name: [row.get(name) for row in samples] for name in present}
        if isinstance(samples, Mapping):
            arrow = pa.table({name: _column(name, samples[name]) for name in _present(samples, names)})
        elif isinstance(samples, pa.Table):
            arrow = samples.select(_present(samples.column_names, names))
        elif hasattr(samples, "columns"):
            known = {str(name): name for name in samples.columns}
            own = list(_present(known, names))
            arrow = pa.table(samples[[known[name] for name in own]])
            arrow = arrow.select(range(len(own))).rename_columns(own)  # pandas' index is last
        else:
            arrow = pa.table(_places(samples, names), names)
        return from_arrow("samples", arrow, reading=replace(preparation.reading, drop=()))
    except DataError:
        raise
    except (pa.ArrowException, TypeError, ValueError):
        raise DataError(f"samples: a {type(samples).__name__}; columns or rows of equal lengths expected") from None


def _present(given: Any, wanted: Sequence[str]) -> Sequence[str]:
    """The names `wanted`; raises DataError if one is not among those given."""
    for name in wanted:
        if name not in given:
            raise DataError(
                f"samples: column {name!r} is missing{nearest(name, given)}; the columns are {listed(given)}"
            )
    return wanted


def _places(samples: Any, names: Sequence[str]) -> list[pa.Array]:
    """The columns of unnamed rows (M, C)."""
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu().numpy()
    if isinstance(samples, np.ndarray):
        columns = list(samples.T) if samples.ndim == 2 else []
    else:
        columns = list(zip(*samples, strict=True))
    if len(columns) != len(names):
        shape = tuple(samples.shape) if hasattr(samples, "shape") else (len(samples), len(columns))
        raise DataError(f"samples {shape}: (M, {len(names)}), in the order of preparation.columns, expected")
    return [_column(name, column) for name, column in zip(names, columns)]


def _column(name: str, values: Any) -> pa.Array | pa.ChunkedArray:
    """Values (M,), with None and NaN missing."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    try:
        return pa.array(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise DataError(
            f"samples: column {name!r}: only numbers of at most 64 bits, only truth values or only text expected"
        ) from None


def inputs_of(
    samples: Any, preparation: Preparation | None, width: int, like: Tensor, position: Tensor | int | None = None
) -> Tensor:
    """The inputs (M, I) of raw samples, or without a preparation of numbers (M, I), I = width, with the dtype and the
    device of `like`. Warns of columns that differ from training. position: as in Preparation."""
    if preparation is not None:
        table = checked(samples, preparation)
        return typed(preparation.inputs(table, position), like, table, preparation)
    numbers = _numbers(samples, width)
    if not numbers.is_floating_point():
        arrays.held("samples", numbers, numbers.to(like.dtype))
    return typed(numbers, like)


def checked(samples: Any, preparation: Preparation) -> Table:
    """table_of(), with warnings of columns that differ from training."""
    table = table_of(samples, preparation)
    for each in preparation.strange(table):
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
