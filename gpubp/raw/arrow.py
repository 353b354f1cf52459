"""Parquet files as tables of Arrow, and columns of Arrow as numpy arrays; as_text(), numbers as texts. Refused: files
that unpack to more than memory holds; with the file and the column, dates unless requested, other types, and whole
numbers that missing values would round."""

import decimal
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow
from pyarrow import compute, parquet

from ..errors import DataError
from ..system import free
from . import text
from .text import Array

AT_ONCE = 1 << 16  # rows of texts read at once
UNITS = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}  # per second
TRUTHS = frozenset(("False", "True"))
NUMBER = 8  # bytes of a number in a Table
TEXT = 64  # bytes of a text in a Table, without its letters
FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"  # https://owasp.org/www-community/attacks/CSV_Injection
PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"  # a number as text


def opened(name: str, source: Any, size: int) -> parquet.ParquetFile:
    """The Parquet file in `source`, a path or a Buffer, called `name`, of `size` bytes. Raises DataError if it unpacks
    to more than fits: a value stored once may stand in millions of rows."""
    file = parquet.ParquetFile(source)
    free.columns(name, file.metadata.num_columns)
    different(name, file.schema_arrow.names)  # with two columns of a name, neither would be read right
    parts, heads = file.metadata, [file.metadata.schema.column(at) for at in range(file.metadata.num_columns)]
    groups, numbers = [parts.row_group(at) for at in range(parts.num_row_groups)], 0
    for at, head in enumerate(heads):
        if head.max_repetition_level:  # only lists have more values than rows
            file.scan_contents([at])  # raises if metadata are damaged; column() would end the process
        values = (each.column(at).num_values if head.max_repetition_level else each.num_rows for each in groups)
        numbers += (NUMBER + max(NUMBER, head.length)) * sum(values)
    free.fits(name, numbers, size)
    texts = {at: head.path for at, head in enumerate(heads) if head.physical_type == "BYTE_ARRAY"}
    if texts:  # the file's own total may be too low; that of a column could end the process
        free.fits(name, sum(each.total_byte_size for each in groups), size)
    file_of_texts, letters = parquet.ParquetFile(source, read_dictionary=[*texts.values()]), 0
    for at, path in ((at, path) for at in range(len(groups)) for path in texts.values()):
        for some in file_of_texts.iter_batches(AT_ONCE, [at], [path]):
            letters += sum(map(_letters, some.columns))
            free.fits(name, numbers + 2 * letters, size)
    return file


def unpacked(table: Any, made: Collection[str]) -> int:
    """Bytes of a table of Arrow as arrays of numbers and of texts, without letters. made: columns that become texts."""
    texts = (not pyarrow.types.is_primitive(each.type) or each.name in made for each in table.schema)
    return sum(len(table) * (TEXT if text else NUMBER) for text in texts)


def different(name: str, names: Sequence[str]) -> None:
    """Raise DataError for columns of one name."""
    column, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f"{name}: {count} columns are called {column!r}; different names expected")


def _letters(values: Any) -> int:
    """The bytes of all texts in an array."""
    if pyarrow.types.is_dictionary(values.type):
        sizes = compute.binary_length(values.dictionary).fill_null(0).cast(pyarrow.int64())
        return compute.sum(sizes.take(values.indices)).as_py() or 0
    if not pyarrow.types.is_nested(values.type):
        return 0
    inside = values.flatten()
    return sum(map(_letters, inside if isinstance(inside, list) else [inside]))


def days(where: str, column: Any, form: str) -> tuple[Array, str]:
    """A column of dates as days since 1970, NaN if missing, and their format."""
    types, column = pyarrow.types, _decoded(column)
    if types.is_date(column.type):
        column = column.cast(pyarrow.timestamp("ms"))
    if types.is_timestamp(kind := column.type):
        with suppress(pyarrow.ArrowInvalid):  # parts of a microsecond, or too many
            column = column.cast(pyarrow.timestamp("us", kind.tz))
        numbers = np.asarray(column.cast(pyarrow.int64()).to_numpy(), dtype=np.float64)
        return numbers / (86400 * UNITS[column.type.unit]), form or text.ISO
    if not (_is_text(kind) or types.is_null(kind)):
        raise DataError(f"{where} holds {kind}; dates expected")
    return text.days(where, np.array(column.to_pylist(), dtype=object), form)


def _is_text(kind: Any) -> bool:
    return any(
        each(kind) for each in (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    )


def _decoded(column: Any) -> Any:
    """A column with its own values instead of a dictionary's."""
    if not pyarrow.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    if pyarrow.types.is_temporal(kind):
        return column.cast(kind)
    return pyarrow.chunked_array([column.to_pylist()], kind)  # cast() lacks polars' types


def plain(column: Any) -> Any:
    """A column with texts of any of Arrow's types as strings."""
    column = _decoded(column)
    return column.cast(pyarrow.string()) if _is_text(column.type) else column


def numbers(where: str, column: Any, otherwise: str) -> Array:
    """A column as numbers, truth values or texts. otherwise: advice for a column of anything else."""
    types, column = pyarrow.types, _decoded(column)
    kind = column.type
    if _is_text(kind):
        values: Array = np.array(column.to_pylist(), dtype=object)
        return values
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_date(kind) or types.is_timestamp(kind):
        raise DataError(f"{where} holds dates; Reading(dates=...) or --dates NAME reads them as days{otherwise}")
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


def texts(column: Any) -> Array | None:
    """A column of numbers or truth values as written() has them; None for other values."""
    types, column = pyarrow.types, _decoded(column)
    kind = column.type
    if types.is_floating(kind):
        return written(column.to_numpy())
    exact = types.is_boolean(kind) or types.is_integer(kind) or types.is_decimal(kind)
    return written(column.to_pylist()) if exact else None


def written(values: Iterable[Any]) -> Array | None:
    """Numbers and truth values (M,) as texts, None if missing; or just None if as_text() leaves one a number."""
    found = [None if each != each else as_text(each) for each in values]
    return np.array(found, dtype=object) if all(each is None or isinstance(each, str) for each in found) else None


# An exported Python file contains the source of these two: they need only NumPy, and no evaluated annotation.
def as_text(value: "Any") -> "Any":
    """A number or truth value as a CSV file has it, whole numbers without a point; anything else unchanged, as are
    floats so large that they may be rounded whole numbers."""
    kind = type(value)
    if isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if not (isinstance(value, (float, np.floating)) or kind.__name__ == "Decimal") or value != value:
        return value
    found = str(value if isinstance(value, np.floating) else float(value))
    if kind.__name__ == "Decimal" and value.is_finite():
        if value == kind(found) != value.to_integral_value():
            return found
        if abs(value.adjusted()) > 100:
            return value
        return str(int(value)) if value == value.to_integral_value() else format(value, "f").rstrip("0")
    if not float(value).is_integer():
        return found
    return value if abs(float(value)) > 2 / np.finfo(kind).eps else str(int(value))


def as_texts(samples: "Any", truths: bool) -> "Any":
    """An array with its truth values if `truths`, else its numbers, as texts."""
    values = np.asarray(samples)
    texts = [as_text(each) if isinstance(each, (bool, np.bool_)) == truths else each for each in values.flat]
    return np.array(texts, object).reshape(values.shape)


def is_number(text: str) -> bool:
    """Whether as_text() makes this text from a number or truth value."""
    try:
        return text in TRUTHS or as_text(decimal.Decimal(text)) == text
    except decimal.InvalidOperation:
        return False


def are_truths(texts: Iterable[str]) -> bool:
    """Whether all texts are those of truth values."""
    return TRUTHS.issuperset(texts)


def no_formula(texts: Any) -> Any:
    """A column with texts that no spreadsheet reads as formulas."""
    texts = plain(texts)
    if not pyarrow.types.is_string(texts.type):
        return texts
    risky = compute.match_substring_regex(texts, FORMULA)
    risky = compute.and_not(risky, compute.match_substring_regex(texts, PLAIN))
    return compute.if_else(risky, compute.binary_join_element_wise("'", texts, ""), texts)
