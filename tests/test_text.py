"""text.py: files of text as people write them, and what is asked where a column looks like something else."""

import re
import sys
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from gpubp.errors import ConfigError, DataError
from gpubp.raw import text
from gpubp.raw.tables import read
from gpubp.raw.text import Reading
from gpubp.samples.sources import load_data

from .files import Write, refused

ROWS = [("a", "b", "naïve"), (1.5, 2, "é"), (2.5, 3, "ü")]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_delimiter_and_byte_order_mark_are_recognised(write: Write, sign: str, encoding: str) -> None:
    text = "\n".join(sign.join(map(str, row)) for row in ROWS)
    raw = read(write("a.csv", text.encode(encoding)))
    assert {name: values.tolist() for name, values in raw.columns.items()} == {
        "a": [1.5, 2.5], "b": [2, 3], "naïve": ["é", "ü"]
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
def test_an_encoding_without_a_mark_is_requested(write: Write, encoding: str) -> None:
    path = write("a.csv", "x,y\n1,é\n".encode(encoding))
    assert read(path, reading=Reading(encoding=encoding)).columns["y"].tolist() == ["é"]
    with refused("a.csv"):
        read(path)


@pytest.mark.parametrize("row", ["1," + "2" * 5000, '1,"2'], ids=["a long row", "a quotation mark without another"])
def test_a_row_that_is_longer_than_is_read_is_refused(row: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK", 1 << 10)
    with refused("a.csv: a row of more than 1,024 bytes; is a quotation mark missing?"):
        read(write("a.csv", "a,b\n1,2\n" + row + "\n1,2" * 1000))


@pytest.mark.parametrize("rows", ["1,2\n", "1,2,3\n"], ids=["right", "refused"])
def test_a_thread_of_arrow_is_never_the_last_with_a_file(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for Python to let it go, and abort a process that is ending."""
    content = ("a,b\n" + "1,2\n" * 1000 + rows).encode()
    monkeypatch.setattr(text, "decoded", lambda *given: (content, "utf-8"))
    alone, held = sys.getrefcount(content), []
    for _ in range(300):
        with suppress(DataError):
            text.columns("a.csv", b"", Reading())
        held.append(sys.getrefcount(content) - alone)
    assert not any(held)


def test_the_delimiter_is_that_which_the_rows_agree_on(write: Write) -> None:
    assert list(read(write("a.csv", 'a;b\n"1,5";2,5\n"2,5";3,5\n')).columns) == ["a", "b"]
    assert list(read(write("b.csv", '"a;b","c;d"\n1,2\n')).columns) == ["a;b", "c;d"]
    assert list(read(write("c.tsv", "a, b\tc\n1\t2\n")).columns) == ["a, b", "c"]
    assert list(read(write("d.csv", "a:b\n1:2\n"), reading=Reading(delimiter=":")).columns) == ["a", "b"]


def test_a_row_may_be_longer_than_a_megabyte(write: Write) -> None:
    names = [f"gene_{number}" for number in range(4_000)]
    line = ",".join(["0." + "3" * 300] * len(names))
    raw = read(write("a.csv", f"{','.join(names)}\n{line}\n{line}\n"))
    assert (len(raw.columns), raw.samples) == (4_000, 2)


NUMBERS: dict[str, tuple[list[str], Reading, list[float]]] = {
    "a decimal comma": (["87237,19", "5,5"], Reading(decimal=","), [87237.19, 5.5]),
    "groups of thousands": (["1,234.50", "7.5"], Reading(thousands=","), [1234.5, 7.5]),
    "groups of ten thousands": (["12,34,567", "1"], Reading(thousands=","), [1234567, 1]),
    "both": (["1.234,5", "7"], Reading(decimal=",", thousands="."), [1234.5, 7]),
    "spaces": (["1 234,5", "1\u202f234"], Reading(decimal=",", thousands=" "), [1234.5, 1234]),
    "a currency": (["$12", "-$1.5"], Reading(), [12, -1.5]),
    "a currency behind": (["12,50 €", "3 €"], Reading(decimal=","), [12.5, 3]),
    "percent": (["5%", "12.5 %"], Reading(), [5, 12.5]),
    "missing ones": (["1.5", "?", "-", "None", "2"], Reading(), [1.5, np.nan, np.nan, np.nan, 2]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_of_numbers_as_people_write_them_is_numbers(write: Write, name: str) -> None:
    cells, reading, expected = NUMBERS[name]
    path = write("a.csv", "x;y\n" + "".join(f'"{cell}";1\n' for cell in cells))
    found = read(path, reading=reading).columns["x"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


TEXTS = {
    "a comma where a point is": (
        ["87237,19", "5,5"], "such as '87237,19', which are numbers with Reading(decimal=',') or --decimal ','; R"),
    "an ambiguous comma": (
        ["1,234", "2,500"], "numbers with Reading(decimal=',') or --decimal ',' or Reading(thousands=',') or --thous"),
    "groups": (
        ["1,234.50", "7.5"], "Reading(thousands=',') or --thousands ','; Reading(text=...) or --text x keeps"),
    "both": (
        ["1.234,5", "2.345,5"], "with Reading(decimal=',', thousands='.') or --decimal ',' --thousands '.'; R"),
    "two currencies": (
        ["$5", "€7", "$9"], "2 numbers such as '$5', and 1 with another sign, the first '€7' in sample 1; correct"),
    "a percentage among numbers": (
        ["1", "?", "5%", "2"], "2 numbers such as '1', and 1 with another sign, the first '5%' in sample 2; correct"),
    "a stray text": (
        ["1.5", "2.5", "oops", "4"], "numbers except for 1 of 4 texts, the first 'oops' in sample 2; correct them"),
    "dates": (
        ["31.12.2020", "1.1.2021"], "which are dates; Reading(dates=...) or --dates x reads them as days; R"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_look_like_something_else_are_questioned_as_inputs_and_as_targets(write: Write, name: str) -> None:
    cells, message = TEXTS[name]
    path = write("a.csv", "x;y\n" + "".join(f"{cell};{number}.5\n" for number, cell in enumerate(cells)))
    for target in ("x", "y"):
        with pytest.raises(DataError, match=r"a.csv: column 'x' holds .*" + re.escape(message)):
            load_data(path, target=target, validation=0)
    taken = load_data(path, target="y", validation=0, reading=Reading(text=("x",)))
    assert taken.preparation.columns[0].categories == tuple(sorted(cells))
    assert load_data(path, target="x", validation=0, reading=Reading(text=("x",))).loss == "cross_entropy"


def test_whole_numbers_beyond_2_to_the_53_are_no_inputs_and_no_targets(write: Write) -> None:
    path = write("a.csv", f"x;y\n1;1.5\n{2**53 + 1};2.5\n3;0.5\n")
    for target in ("x", "y"):
        with pytest.raises(
            DataError, match=rf"'x' holds {2**53 + 1} in sample 1, one of 1 .* beyond 2\^53, .*--text x"
        ):
            load_data(path, target=target, loss="mean_squared_error", validation=0)


def test_categories_are_not_questioned(write: Write) -> None:
    cells = ["A1", "007", "red 5", "10-20", "May", "3rd", "a,b"]
    path = write("a.csv", "x;y\n" + "".join(f"{cell};0.5\n" for cell in cells))
    assert load_data(path, target="y", validation=0).widths_in == len(cells)


DATES: dict[str, tuple[list[str], str, list[float]]] = {
    "ISO": (["1970-01-02", "1970-01-03 12:00:00", "1970-01-01T00:00:00+12:00"], "", [1, 2.5, -0.5]),
    "German": (["02.01.1970", "31.01.1970"], "", [1, 30]),
    "British": (["02/01/1970", "31/01/1970"], "", [1, 30]),
    "American": (["01/02/1970", "01/31/1970"], "", [1, 30]),
    "said": (["02/01/1970", "03/01/1970"], "%d/%m/%Y", [1, 2]),
    "said otherwise": (["02/01/1970", "03/01/1970"], "%m/%d/%Y", [31, 59]),
    "missing": (["1970-01-02", ""], "", [1, np.nan]),
}


@pytest.mark.parametrize("name", DATES)
def test_dates_become_days(write: Write, name: str) -> None:
    cells, form, expected = DATES[name]
    path = write("a.csv", "day,y\n" + "".join(f"{cell},1\n" for cell in cells))
    np.testing.assert_array_equal(read(path, reading=Reading(dates={"day": form})).columns["day"], expected)


def test_dates_of_a_parquet_file_become_days(tmp_path: Any) -> None:
    days = pyarrow.array([1, None], pyarrow.date32())
    times = pyarrow.array([86400_000, 43200_000], pyarrow.timestamp("ms", "Europe/Berlin"))
    parquet.write_table(pyarrow.table({"day": days, "time": times, "other": days}), tmp_path / "a.parquet")
    raw = read(tmp_path / "a.parquet", reading=Reading(dates={"day": "", "time": ""}, drop=("other",)))
    np.testing.assert_array_equal(raw.columns["day"], [1, np.nan])
    np.testing.assert_array_equal(raw.columns["time"], [1, 0.5])
    assert list(raw.columns) == ["day", "time"]


def test_dates_that_can_be_read_in_two_ways_and_texts_that_are_none_are_refused(write: Write) -> None:
    asked = Reading(dates={"day": ""})
    with refused(
        "dates that differ between %d/%m/%Y and %m/%d/%Y; Reading(dates=...) or --dates NAME=%d/%m/%Y chooses"
    ):
        read(write("a.csv", "day,y\n01/02/2020,1\n"), reading=asked)
    with refused(
        "'soon' in sample 1, which is not a date in format ISO 8601; Reading(dates=...) or --dates NAME=FORMAT"
    ):
        read(write("a.csv", "day,y\n2020-01-31,1\nsoon,2\n"), reading=asked)
    with pytest.raises(DataError, match=r"in sample 0, which is not a date in format ISO 8601$"):
        read(write("a.csv", "day,y\n31.01.2020,1\n"), reading=Reading(dates={"day": text.ISO}))


def test_prediction_reads_a_file_as_the_training_did(write: Write) -> None:
    rows = "".join(f"{day:02}/01/2020;{day},5;0{day};x;{day}\n" for day in range(1, 31))
    path = write("a.csv", "day;x;code;other;y\n" + rows)
    asked = Reading(decimal=",", dates={"day": ""}, text=("code",), drop=("other",))
    data = load_data(path, target="y", reading=asked, validation=0, task="regression")
    new = read(write("new.csv", "code;x;day;y\n05;5,5;05/01/2020;7\n"), reading=data.preparation.reading)
    assert data.preparation.inputs(new).tolist() == data.training.inputs[4:5].tolist()


def test_whole_numbers_that_lack_values_and_are_too_large_are_refused_by_name(tmp_path: Any) -> None:
    parquet.write_table(pyarrow.table({"id": [2**60, None], "y": [1, 2]}), tmp_path / "a.parquet")
    with refused(
        "column 'id' lacks 1 of 2 values and holds whole numbers above 2^53, which are floats then, and rounded: fill"
    ):
        read(tmp_path / "a.parquet")


def test_missing_columns_in_flags_get_the_nearest_name(write: Write) -> None:
    path = write("a.csv", "colour,y\nred,1.5\nblue,2.5\n")
    with refused("column 'color', to be left out, is missing; did you mean 'colour'?"):
        load_data(path, target="y", reading=Reading(drop=("color",)))
    for reading in (Reading(text=("color",)), Reading(dates={"color": ""})):
        with refused("column 'color' is missing; did you mean 'colour'?"):
            load_data(path, target="y", reading=reading)
    with pytest.raises(ConfigError, match="only for files; data 'xor' need none"):
        load_data("xor", reading=Reading(drop=("a",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": ["day"], "dates": {"day": ""}}, "column 'day' is in text and in dates; one of them expected"),
        ({"delimiter": "ab"}, "delimiter 'ab': one character, not a digit, letter or sign, expected"),
        ({"decimal": "1"}, "decimal '1': one character"),
        ({"decimal": ",", "thousands": ","}, "decimal and thousands are both ','; different characters expected"),
        ({"encoding": "latin-0"}, "encoding 'latin-0' is unknown; utf-8, utf-16"),
    ],
)
def test_another_reading_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Reading(**settings)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_row_of_megabytes_is_told_with_its_line_at_once(end: str, write: Write) -> None:
    path = write("a.csv", end.join(["a,b", "11,1", "1,2", "1" * 2_000_000, "3,4", ""]))
    before = time.process_time()
    with pytest.raises(DataError, match=r"a\.csv: line 4 has 1 columns, 2 expected: 1"):
        read(path)
    assert time.process_time() - before < 1, "it is no pattern, which would take seconds to compile"


def test_what_a_reading_names_is_a_column_or_a_list_of_columns(write: Write) -> None:
    path = write("a.csv", "note;y\nx;1\nz;2\n")
    for given in ("note", ["note"], ("note",)):
        assert Reading(drop=given) == Reading(drop=("note",))
        assert load_data(path, target="y", validation=0, reading=Reading(text=given)).widths_in == 2
    for name, wrong in (("drop", 3), ("text", [3]), ("dates", "note"), ("dates", ["note"])):
        with pytest.raises(ConfigError, match=f"^{name} .* expected$"):
            Reading(**{name: wrong})
