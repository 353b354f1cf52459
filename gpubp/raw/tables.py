"""Table: raw samples by column, and read(), which reads them from a .csv, .tsv, .npz or .parquet file.

Cells of a .csv that are empty, NA, NaN or null are missing values; text.py has the other rules of text files.
Refused, with the file and the column: columns without a name or with equal names, values that are not numbers, truth
values or text, dates unless requested, and, before unpacking, what would not fit in memory. Nothing in a file is
ever executed.

write_csv() writes nothing that a spreadsheet executes.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow
from pyarrow import csv

from ..errors import ConfigError, DataError, nearest, unknown
from ..line import advised
from ..system import files, free
from . import arrow, npz, text
from .text import Reading

Array = npt.NDArray[Any]
Only = Collection[str] | None
T = TypeVar("T")

TIMES = 4  # bytes of memory per byte of a file: for the file, its text, cells and numbers

BLANK = re.compile(rb'"(?:[^"]|"")*"|^\n', re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Table:
    """M raw samples, column by column, before any fitting.

    name: the file or source, for messages. columns: name -> (M,): bool, int64, float64 with NaN if missing,
    or object: str, or None if missing. targets: which columns are the targets; the others are inputs. named: False if
    columns have only positions, so that another table must have as many. reading: how another file with these columns
    is read. about: what reading detected. steps: the relative distance between numbers of a column's type, if that is a
    narrower float than float64. numbers: columns of numbers or truth values that became text, by Reading.text. Raises
    DataError.
    """

    name: str
    columns: dict[str, Array]
    targets: tuple[str, ...] = ()
    named: bool = True
    reading: Reading = field(default_factory=Reading)
    about: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    steps: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        plain = {name: _plain(f"{self.name}: column {name!r}", values) for name, values in self.columns.items()}
        kinds = {name: np.asarray(values).dtype for name, values in self.columns.items()}
        narrow = {name: kind for name, kind in kinds.items() if kind.kind == "f" and kind.itemsize < 8}
        object.__setattr__(self, "columns", plain)
        object.__setattr__(self, "steps", {name: float(np.finfo(kind).eps) for name, kind in narrow.items()})
        lengths = {len(values) for values in plain.values()}
        if not plain or lengths == {0}:
            raise DataError(f"{self.name} holds no samples; one or more expected")
        if len(lengths) > 1:
            raise DataError(f"{self.name}: columns of {min(lengths)} to {max(lengths)} samples; equal lengths expected")
        for name in self.targets:
            self.column(name)
        if len(set(self.targets)) < len(self.targets):
            raise DataError(f"{self.name}: targets {', '.join(self.targets)}: each column once expected")

    @property
    def samples(self) -> int:
        """M."""
        return len(next(iter(self.columns.values())))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that are not targets."""
        return tuple(name for name in self.columns if name not in self.targets)

    def column(self, name: str) -> Array:
        """The values (M,) of a column; raises DataError with the nearest name if it is missing."""
        present(self.name, self.columns, (name,))
        return self.columns[name]

    def wrong(self, name: str, why: str) -> DataError:
        """The error for a column."""
        return DataError(f"{self.name}: column {name!r} {why}")

    def fingerprint(self) -> str:
        """SHA-256 of names, types and values: equal for equal data from any file."""
        digest = hashlib.sha256(json.dumps(self.targets).encode())
        for name, values in self.columns.items():
            digest.update(json.dumps([name, values.dtype.str]).encode())
            digest.update(json.dumps(values.tolist()).encode() if values.dtype == object else values.tobytes())
        return digest.hexdigest()


def write_csv(tables: Iterable[pyarrow.Table], where: Any) -> None:
    """Write the rows of one table after another as CSV, to a path or a file. Texts in cells and column names that a
    spreadsheet would read as formulas get a leading '; numbers stay numbers, even if they are text. An empty cell that
    is alone in its row is "", as many readers skip blank lines. Raises OSError."""
    with nullcontext(where) if hasattr(where, "write") else open(where, "wb") as file:
        for number, table in enumerate(tables):
            columns = [arrow.no_formula(values) for values in table.columns]
            plain = pyarrow.table(columns, arrow.no_formula(pyarrow.array(table.column_names)).to_pylist())
            part = pyarrow.BufferOutputStream()
            csv.write_csv(plain, part, csv.WriteOptions(include_header=not number))
            content = part.getvalue()
            if len(columns) == 1:
                content = BLANK.sub(lambda found: found[0] if found[0] != b"\n" else b'""\n', content)
            file.write(content)


def named(what: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of columns in `given`; raises ConfigError unless it is a name or a list of names."""
    names = (given,) if isinstance(given, str) else () if given is None else given
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{what} {given!r}: the name of a column, or a list of names, expected")
    return tuple(names)


def listed(names: Collection[object], most: int = 20) -> str:
    """The first names, and the number of further ones."""
    shown = ", ".join(str(name) for name in list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def present(what: str, given: Collection[str], wanted: Only, why: str = "") -> Collection[str]:
    """The names `wanted`, or all; raises DataError with the nearest name if one is not in `given`."""
    for name in wanted or ():
        if name not in given:
            parts = name.split(",")
            near = f"; a list, {parts}, expected" if len(parts) > 1 and {*parts} <= {*given} else nearest(name, given)
            raise DataError(f"{what}: column {name!r}{why} is missing{near}; the columns are {listed(given)}")
    return given if wanted is None else wanted


def missing(values: Array) -> Array:
    """Which of `values` (M,) are missing, (M,) bool."""
    return np.array([value is None for value in values]) if values.dtype == object else np.isnan(values)


def finite(table: Table, name: str, values: Array) -> Array:
    """`values` (M,), some perhaps missing, but none infinite."""
    at = np.isinf(values).nonzero()[0]
    if len(at):
        raise table.wrong(name, f"holds {values[at[0]]} in sample {at[0]}, one of {len(at)}; finite numbers expected")
    return values


def floats(table: Table, name: str, values: Array) -> Array:
    """`values` (M,) as float64; whole numbers too large to be exact are refused."""
    found = values.astype(np.float64)
    if values.dtype.kind == "i":
        at = ((values > 1 << 53) | (values < -1 << 53)).nonzero()[0]
        if len(at):
            raise table.wrong(
                name,
                f"holds {values[at[0]]} in sample {at[0]}, one of {len(at)} whole numbers beyond 2^53, which float64 "
                f"may not hold; {advised('text', name)} takes them as names, {advised('drop', name)} leaves them out",
            )
    return found


def complete(table: Table, name: str, values: Array, advice: str = "targets are not imputed") -> Array:
    """`values` (M,), of which none is missing."""
    at = missing(values).nonzero()[0]
    if len(at):
        raise table.wrong(name, f"lacks {len(at)} of {len(values)} values, the first in sample {at[0]}; {advice}")
    return values


def read(
    path: str | os.PathLike[str], target: str | Sequence[str] | None = None, reading: Reading | None = None,
    only: Only = None,
) -> Table:  # fmt: skip
    """The raw samples of a .csv, .tsv, .npz or .parquet file.

    target: the columns that are targets; without it every column of .csv and .parquet is an input, as for prediction.
    An .npz has its inputs in an array inputs, X or x, and its targets, if any, in targets or y. reading: how to read
    it, for prediction Preparation.reading. only: the wanted columns of .csv and .parquet, whatever others hold. Raises
    DataError that names the file.
    """
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"{path!r} is no path of a file that ends in {listed(READERS)}")
    path, targets = Path(path), named("target", target)
    if path.suffix.lower() not in READERS and not path.is_dir():
        raise DataError(f"{path}: {unknown('the ending', path.suffix, READERS)}")
    given = targets, reading or Reading(), only
    return parsed(path, lambda content: READERS[path.suffix.lower()](str(path), content, *given))


def parquet(path: Path) -> pyarrow.Table:
    """The table in a Parquet file. Raises DataError that names the file."""
    return parsed(path, lambda content: _unpacked(str(path), content))


def parsed(path: Path, parse: Callable[[bytes], T]) -> T:
    """The content of a file, parsed. Raises DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a directory; a file that ends in {listed(READERS)} expected")
    try:
        content = files.read(path, TIMES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path} is empty; samples expected")
    try:
        return parse(content)
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} needs more memory than is free") from None
    except Exception as error:  # damaged bytes make the parsers raise nearly anything
        raise DataError(f"{path} cannot be read as {path.suffix.lower()}: it is damaged, or another file") from error


def _plain(where: str, values: Array) -> Array:
    """A column as one of the four types of Table."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise DataError(f"{where} has shape {values.shape}; one value per sample expected")
    if values.dtype.kind == "O":
        for sample, value in enumerate(values):
            if value is not None and not isinstance(value, str):
                raise DataError(f"{where} holds {type(value).__name__} {value!r} in sample {sample}; text expected")
        return values
    types = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64, "U": np.object_}
    if values.dtype.kind not in types:
        raise DataError(f"{where} holds {values.dtype}; numbers, truth values or text expected")
    if values.dtype.kind == "u" and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where} holds {values.max()}; whole numbers of 64 bits with a sign expected")
    return values.astype(types[values.dtype.kind])


def _csv(name: str, content: bytes, targets: tuple[str, ...], reading: Reading, only: Only) -> Table:
    return from_arrow(name, *text.columns(name, content, reading), targets, reading, only)


def _parquet(name: str, content: bytes, targets: tuple[str, ...], reading: Reading, only: Only) -> Table:
    return from_arrow(name, _unpacked(name, content), (), targets, reading, only)


def _unpacked(name: str, content: bytes) -> pyarrow.Table:
    return arrow.opened(name, text.owned(content), len(content)).read()


def _names(name: str, names: Sequence[str]) -> None:
    """Raise DataError for columns without a name or of one name."""
    for number, column in enumerate(names):
        if column in ("", "__index_level_0__"):  # the second is pandas' name for it in .parquet
            raise DataError(f"{name}: column {number} has no name; where it is a saved index, save without the index")
    arrow.different(name, names)


def from_arrow(
    name: str, table: Any, found: Sequence[str] = (), targets: tuple[str, ...] = (), reading: Reading | None = None,
    only: Only = None,
) -> Table:  # fmt: skip
    """A pyarrow.Table, or `only` some columns of it, as a Table; raises DataError for columns without a name or of
    another type. found: what reading detected."""
    reading, found = reading or Reading(), list(found)
    _names(name, table.column_names)
    table = table.select(present(name, table.column_names, only))
    free.fits(name, arrow.unpacked(table, reading.text))
    columns, dates, made = {}, dict(reading.dates), []
    present(name, table.column_names, reading.drop, ", to be left out,")
    if both := [column for column in targets if column in reading.drop]:
        raise DataError(f"{name}: column {both[0]!r} is a target, and to be left out; one of the two expected")
    for column, values in zip(table.column_names, table.itercolumns()):
        where = f"{name}: column {column!r}"
        if column in reading.drop:
            found.append(f"{column} left out")
            continue
        if column in dates:
            columns[column], dates[column] = arrow.days(where, values, dates[column])
            found.append(f"{column} in days since 1970, dates as {dates[column]}")
            continue
        if column in reading.text and (texts := arrow.texts(values)) is not None:
            columns[column] = texts
            made.append(column)
            continue
        columns[column] = arrow.numbers(
            where, values, "" if column in targets else f", {advised('drop', column)} leaves it out"
        )
        numbers = None
        if columns[column].dtype == object and column not in reading.text:
            numbers = text.numbers(columns[column], reading)
        if numbers is not None:
            columns[column], sign = numbers
            found += [f"{column} in {sign}"] * bool(sign)
    about = tuple(found)
    return Table(name, columns, targets, reading=replace(reading, dates=dates), about=about, numbers=tuple(made))


def _npz(name: str, content: bytes, targets: tuple[str, ...], reading: Reading, only: Only) -> Table:
    if targets:
        raise DataError(f"{name}: target {listed(targets)} chooses columns of .csv and .parquet; .npz has targets or y")
    if replace(reading, text=()) != Reading():
        raise DataError(f"{name}: columns to drop, dates and how numbers are written are of .csv and .parquet files")
    arrays = npz.arrays(name, content)
    columns = {f"{kind}[{at}]": array[:, at] for kind, array in arrays.items() for at in range(array.shape[1])}
    given = {column: columns[column] for column in reading.text if column in columns}
    texts = {column: arrow.written(values) for column, values in given.items() if values.dtype.kind in "biuf"}
    made = {column: values for column, values in texts.items() if values is not None}
    columns |= made
    own = tuple(column for column in columns if column.startswith("targets"))
    return Table(name, columns, own, named=False, reading=reading, numbers=tuple(made))


Reader = Callable[[str, bytes, tuple[str, ...], Reading, Only], Table]
READERS: dict[str, Reader] = {".csv": _csv, ".tsv": _csv, ".npz": _npz, ".parquet": _parquet}
