"""Columns of Arrow as numpy arrays. Refused, with the file and the column: dates unless requested, other types, and
whole numbers that missing values would round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow

from . import text
from .errors import DataError
from .text import Array


def days(where: str, column: Any, form: str) -> tuple[Array, str]:
    """A column of dates as days since 1970, NaN where one is missing, and their format."""
    kind, types = column.type, pyarrow.types
    if types.is_date(kind) or types.is_timestamp(kind):
        moments = column.cast(pyarrow.timestamp("us", kind.tz if types.is_timestamp(kind) else None))
        return np.asarray(moments.cast(pyarrow.int64()).to_numpy(), dtype=np.float64) / 86400e6, form or text.ISO
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
        raise DataError(f"{where} holds {kind}; dates expected")
    return text.days(where, np.array(column.to_pylist(), dtype=object), form)


def numbers(where: str, column: Any, otherwise: str) -> Array:
    """A column as numbers, truth values or texts. otherwise: what else to do with one that holds something else."""
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = pyarrow.chunked_array([column.to_pylist()], column.type.value_type)  # cast() lacks polars' types
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values: Array = np.array(column.to_pylist(), dtype=object)
        return values
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_date(kind) or types.is_timestamp(kind):
        raise DataError(f"{where} holds dates; --dates NAME reads them as days{otherwise}")
    if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DataError(f"{where} holds {kind}; numbers, truth values or text expected{otherwise}")
    if types.is_decimal(kind) or (column.null_count and not types.is_floating(kind)):
        plain = column.cast(pyarrow.int8() if types.is_boolean(kind) else kind)
        try:
            column = plain.cast(pyarrow.float64())
        except pyarrow.ArrowInvalid:
            raise DataError(
                f"{where} lacks {column.null_count} of {len(column)} values and holds whole numbers above 2^53, which "
                f"are floats then, and rounded: fill in the values, or make the numbers smaller{otherwise}"
            ) from None
    return np.asarray(column.to_numpy())
