"""Reading: how a text file is read: encoding, delimiter, number formats, dates; columns(), which reads it; and the
question to ask if a column of texts looks like something else.

A column is numeric if every cell is a number in the given notation, all with the same currency or percent sign, if any,
which is dropped; ?, - and None are then missing values. Nothing else is guessed from a cell.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.csv

from ..errors import ConfigError, DataError
from ..line import advised
from ..system import free

Array = npt.NDArray[Any]

DELIMITERS = (",", ";", "\t", "|")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
UNKNOWN = ("?", "-", "--", "None", "none", "N.A.", "n.a.")  # missing values, in a column of numbers
SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2019": "'", "\u2212": "-"})
NOTATIONS = ((",", None), (".", ","), (",", "."), (",", " "), (".", " "), (".", "'"), (",", "'"))
ISO = "ISO 8601"
FORMATS = (ISO, "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%d.%m.%Y %H:%M",
           "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d %b %Y", "%b %d, %Y")  # fmt: skip
MANY = 50  # categories of one column; more are probably names, measurements or free text
BLOCK = 1 << 26  # bytes read at once, the limit of a row
WIDE = 10_000  # bytes of a header; beyond, a task per column costs more than reading
HEAD = 1 << 20  # bytes searched for the delimiter
SOME = 10_000  # distinct texts of a column that are examined
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Reading:
    """How a file is read. Raises ConfigError.

    delimiter: between the columns of a text file; by default comma, semicolon, tab or |, judging by its first lines.
    decimal: the decimal point. thousands: the separator of groups of digits, by default none. encoding: of a text file;
    by default from its byte order mark, or UTF-8. drop: columns to leave out. text: columns read as text, whatever they
    look like; also numbers in other files and in frames, as a CSV has them: 3.0 becomes 3. dates: columns that become
    days since 1970, each with a format of strptime or "ISO 8601", or "" to detect it.
    """

    delimiter: str | None = None
    decimal: str = "."
    thousands: str | None = None
    encoding: str | None = None
    drop: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    dates: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("delimiter", "decimal", "thousands"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[\W_]", value) or value in "+-"):
                raise ConfigError(f"{name} {value!r}: one character, not a digit, letter or sign, expected")
        for name in ("drop", "text"):
            given = getattr(self, name)
            names = (given,) if isinstance(given, str) else given
            if not isinstance(names, Collection) or not all(isinstance(each, str) for each in names):
                raise ConfigError(f"{name} {given!r}: the name of a column, or a list of names, expected")
            object.__setattr__(self, name, tuple(names))
        if not isinstance(self.dates, Mapping):
            raise ConfigError(f"dates {self.dates!r}: a format for each column, such as {{'day': ''}}, expected")
        for name in {*self.dates} & {*self.text}:
            raise ConfigError(f"column {name!r} is in text and in dates; one of them expected")
        if not isinstance(self.encoding, str | None):
            raise ConfigError(f"encoding {self.encoding!r}: a name such as utf-8 or latin-1 expected")
        if self.decimal == self.thousands:
            raise ConfigError(f"decimal and thousands are both {self.decimal!r}; different characters expected")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise ConfigError(f"encoding {self.encoding!r} is unknown; utf-8, utf-16, latin-1, cp1252 ...") from None

    def number(self, cell: str) -> tuple[float, str] | None:
        """The number in a cell and its currency or percent sign; None if it is not a number."""
        return _number(cell, self.decimal, self.thousands)


def decoded(name: str, content: bytes, encoding: str | None) -> tuple[bytes, str]:
    """The content in UTF-8, and the name of its encoding. Raises DataError with the line that cannot be decoded."""
    found = encoding or next((value for mark, value in BOMS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(found).lstrip("\ufeff").encode(), found
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: line {line} holds bytes that are not {found} ({error.reason}); "
            "Reading(encoding=...) or --encoding names another, often latin-1 or cp1252"
        ) from None


def delimiter(content: bytes) -> str:
    """The one of DELIMITERS that splits the first lines into the most columns, equally many in each."""
    lines = content[:HEAD].decode(errors="replace").splitlines(keepends=True)
    lines = lines[:-1][:20] if len(lines) > 1 and len(content) > HEAD else lines[:20]

    def columns(sign: str) -> tuple[bool, int]:
        try:
            widths = [len(row) for row in csv.reader(lines, delimiter=sign) if row]
        except csv.Error:  # a field above its size limit
            return False, 0
        return len(set(widths)) == 1 < widths[0], widths[0] if widths else 0

    return max(DELIMITERS, key=columns)


def columns(name: str, content: bytes, reading: Reading, missing: bool = True) -> tuple[pyarrow.Table, list[str]]:
    """A .csv as a table, and the detected format. missing: whether a text such as NA means missing. Raises DataError
    with a row that has more or fewer columns than others, or is too long."""
    content, encoding = decoded(name, content, reading.encoding)
    sign = reading.delimiter or delimiter(content)
    if not content.strip():
        raise DataError(f"{name} holds no line; the columns' names, and a line per sample, expected")
    free.columns(name, width(content, sign.encode()))
    threads, held = content.find(b"\n") < WIDE, owned(content)
    del content
    try:
        table = _parsed(held, sign, reading, missing, threads)
    except pyarrow.ArrowInvalid:
        odd = []

        def refused(row: pyarrow.csv.InvalidRow) -> str:
            odd.append(row)
            return "error"

        with suppress(pyarrow.ArrowInvalid):
            _parsed(held, sign, reading, missing, False, refused)
        for row in odd:
            number = _line(held.to_pybytes(), row.text.encode())
            place = f"{name}: line {number}" if number else f"{name}: a line"
            many = f"has {row.actual_columns} columns, {row.expected_columns} expected"
            raise DataError(f"{place} {many}: {row.text}") from None
        if held.size > BLOCK:
            raise DataError(f"{name}: a row of more than {BLOCK:,} bytes; is a quotation mark missing?") from None
        raise
    return table, [f"encoding {encoding}"] * (not encoding.startswith("utf-8")) + [f"delimiter {sign!r}"] * (
        sign != ","
    )


def owned(content: bytes) -> pyarrow.Buffer:
    """A copy of the content in Arrow's memory. If an Arrow thread is the last to release Python's memory, it waits for
    Python, and aborts a process that is ending."""
    held = pyarrow.allocate_buffer(len(content))
    memoryview(held).cast("B")[:] = content
    return held


def _parsed(
    held: pyarrow.Buffer, sign: str, reading: Reading, missing: bool, threads: bool, refused: Any = None
) -> pyarrow.Table:
    """The table in the content `held`. refused: called with a row of more or fewer columns, if not `threads`."""
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(held),
        pyarrow.csv.ReadOptions(block_size=BLOCK, use_threads=threads),
        pyarrow.csv.ParseOptions(delimiter=sign, newlines_in_values=True, invalid_row_handler=refused),
        pyarrow.csv.ConvertOptions(
            strings_can_be_null=missing,
            decimal_point=reading.decimal,
            column_types=dict.fromkeys((*reading.text, *reading.dates), pyarrow.string()),
        ),
    )


def width(content: bytes, sign: bytes) -> int:
    """How many columns the first non-blank row has; counting stops above COLUMNS."""
    apart = re.escape(sign)
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+")?[^%b\r\n]*+(%b|)' % (apart, apart)
    first = re.compile(rb"[\r\n]*").match(content)
    fields = re.compile(field).finditer(content, first.end() if first else 0)
    return next((count for count, each in enumerate(fields, 1) if not each[1] or count > free.COLUMNS), 1)


def _line(content: bytes, text: bytes) -> int:
    """The number of the first line that equals `text`, from 1; 0 if none. Found without a pattern, as a row may have
    megabytes."""
    content, text = b"\n" + content + b"\n", b"\n" + text
    at = content.find(text)
    while at >= 0 and not content.startswith((b"\n", b"\r\n"), at + len(text)):
        at = content.find(text, at + 1)
    return content.count(b"\n", 0, at + 1)


def numbers(cells: Array, reading: Reading) -> tuple[Array, str] | None:
    """A column of texts (M,), None if missing, as numbers (M,) float64, NaN if missing, and the sign that was dropped;
    None if the column is not all numbers."""
    found: dict[str | None, float] = {None: np.nan}
    signs = set()
    for cell in set(cells.tolist()) - {None}:
        value = reading.number(cell)
        if value is not None:
            signs.add(value[1])
        elif cell.strip() not in UNKNOWN:
            return None
        found[cell] = np.nan if value is None else value[0]
    return (np.array([found[cell] for cell in cells.tolist()]), signs.pop()) if len(signs) == 1 else None


def days(where: str, cells: Array, form: str) -> tuple[Array, str]:
    """A column of dates (M,), None if missing, as days since 1970 (M,) float64, NaN if missing, and their format:
    `form`, or if that is "", the one of FORMATS that fits all of them."""
    known = set(cells.tolist()) - {None}
    read = {each: {cell: _day(cell, each) for cell in known} for each in ([form] if form else FORMATS)}
    fits = {each: found for each, found in read.items() if None not in found.values()}
    if not fits:
        each, found = max(read.items(), key=lambda item: sum(day is not None for day in item[1].values()))
        wrong = next(cell for cell in cells.tolist() if cell is not None and found[cell] is None)
        at = cells.tolist().index(wrong)
        other = "" if form else "; Reading(dates=...) or --dates NAME=FORMAT gives another"  # a given form is intended
        raise DataError(f"{where} holds {wrong!r} in sample {at}, which is not a date in format {each}{other}")
    form, found = next(iter(fits.items()))
    for other in list(fits)[1:]:
        if fits[other] != found:
            either = f"{form} and {other}; Reading(dates=...) or --dates NAME={form} chooses one"
            raise DataError(f"{where} holds dates that differ between {either}")
    return np.array([np.nan if cell is None else found[cell] for cell in cells.tolist()], dtype=np.float64), form


def question(cells: Array, reading: Reading, column: str, target: bool = False) -> str | None:
    """The question about a column of texts (M,) that does not look like categories; None if it does. target: whether
    the column is a target, which cannot be left out."""
    known = [cell for cell in cells.tolist() if cell is not None]
    counts, take = Counter(known), f"{advised('text', column)} keeps them as texts"
    take += "" if target else f", {advised('drop', column)} leaves it out"
    other = {text for text in counts if reading.number(text) is None and text.strip() not in UNKNOWN}
    few = sum(counts[text] for text in other)
    if known and not other:
        return _signs(cells.tolist(), reading) + take
    if 2 * few < len(known):
        at = next(sample for sample, cell in enumerate(cells.tolist()) if cell in other)
        return (
            f"holds numbers except for {few} of {len(known)} texts, the first {cells[at]!r} in sample {at}; correct "
            f"them, leave cells with missing values empty, or {take}"
        )
    some = list(counts)[:SOME]
    others = [each for each in NOTATIONS if each != (reading.decimal, reading.thousands)]
    found = {each: [text for text in some if _number(text, *each) is not None] for each in others}
    most = max(map(len, found.values()))
    if 2 * most > len(some):
        best = [each for each, texts in found.items() if len(texts) == most]
        ways = [_flags(each, reading) for each in best if not each[1] or (each[0], None) not in best]
        such = found[best[0]][0]
        return f"holds texts such as {such!r}, which are numbers with {' or '.join(ways[:2])}; {take}"
    for form in FORMATS:
        dates = [text for text in some[:100] if _day(text, form) is not None]
        if 2 * len(dates) > len(some[:100]):
            days = f"{advised('dates', column)} reads them as days"
            return f"holds texts such as {dates[0]!r}, which are dates; {days}; {take}"
    if len(counts) > MANY or (len(counts) == len(known) >= 10):
        return (
            f"holds {len(counts)} different texts in {len(known)} samples, such as {known[0]!r}; are they names or "
            f"measurements? {take}"
        )
    return None


def _signs(cells: list[str | None], reading: Reading) -> str:
    """The message for numbers with different currency or percent signs: the usual sign, and the first other one."""
    found = {cell: number[1] for cell in set(cells) if cell is not None and (number := reading.number(cell))}
    counts = Counter(found[cell] for cell in cells if cell in found)
    usual = counts.most_common(1)[0][0]
    such = next(cell for cell in cells if cell in found and found[cell] == usual)
    at = next(sample for sample, cell in enumerate(cells) if cell in found and found[cell] != usual)
    return (
        f"holds {counts[usual]} numbers such as {such!r}, and {counts.total() - counts[usual]} with another sign, the "
        f"first {cells[at]!r} in sample {at}; correct them, or "
    )


def _flags(notation: tuple[str, str | None], reading: Reading) -> str:
    decimal, thousands = notation
    changed = [("decimal", decimal)] * (decimal != reading.decimal) + [("thousands", thousands)] * bool(thousands)
    flags = " ".join(f"--{name} {value!r}" for name, value in changed)
    return f"Reading({', '.join(f'{name}={value!r}' for name, value in changed)}) or {flags}"


@cache
def _pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    point, apart = re.escape(decimal), re.escape(thousands or "")
    groups = rf"|\d{{1,3}}(?:{apart}\d{{2,3}})*{apart}\d{{3}}" if thousands else ""
    return re.compile(
        rf"([-+]?)([$€£¥]?) ?([-+]?)((?={point}?\d)(?:\d+{groups})?(?:{point}\d*)?(?:[eE][-+]?\d+)?) ?([%$€£¥]?)"
    )


def _number(cell: str, decimal: str, thousands: str | None) -> tuple[float, str] | None:
    found = _pattern(decimal, thousands).fullmatch(cell.translate(SPACES).strip())
    if found is None:
        return None
    plus, before, minus, digits, after = found.groups()
    if (plus and minus) or (before and after):
        return None
    value = digits.replace(thousands, "") if thousands else digits
    return float(plus + minus + value.replace(decimal, ".")), before + after


def _day(cell: str, form: str) -> float | None:
    try:
        moment = datetime.fromisoformat(cell.strip()) if form == ISO else datetime.strptime(cell.strip(), form)
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - EPOCH).total_seconds() / 86400
