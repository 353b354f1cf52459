"""tables.py: columns by name, and the readers of files."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from gpubp.errors import DataError
from gpubp.raw import tables
from gpubp.raw.tables import Table, read
from gpubp.raw.text import Reading
from gpubp.samples.sources import load_data
from gpubp.system import free

from .files import FLOWERS, Write, refused, table
from .helpers import failing


def test_a_csv_becomes_numbers_one_hot_texts_and_classes(write: Write) -> None:
    data = load_data(write("flowers.csv", FLOWERS), target="kind", validation=0, scale="none")
    assert data.loss == "cross_entropy"
    assert (data.widths_in, data.widths_out, data.sizes) == (4, 2, (4, 0))
    assert data.preparation.columns[1].categories == ("blue", "green", "red")
    assert data.training.inputs.tolist() == [[1, 0, 0, 1], [2, 1, 0, 0], [3, 0, 0, 1], [6, 0, 1, 0]]
    assert data.training.targets.tolist() == [0, 1, 0, 1]
    assert data.preparation.classes == ("a", "b")


def test_a_csv_may_have_a_byte_order_mark_quotes_and_line_breaks_in_quotes(write: Write) -> None:
    raw = read(write("q.csv", b'\xef\xbb\xbf"first, second",kind\r\n1.5,"a ""b""\nc"\r\n2.5,\xc3\xa9\r\n'), ["kind"])
    assert list(raw.columns) == ["first, second", "kind"]
    assert raw.inputs == ("first, second",)
    assert raw.columns["kind"].tolist() == ['a "b"\nc', "é"]


def test_a_quoted_line_break_may_be_where_a_large_csv_is_split_into_blocks(write: Write) -> None:
    rows = 1 << 17  # 20 bytes each, where pyarrow cuts after each 1 MiB
    raw = read(write("long.csv", "text,y\n" + '"a\nb\nc\nd\ne\nf\ng\nh",1\n' * rows))
    assert raw.samples == rows
    assert set(raw.columns["text"]) == {"a\nb\nc\nd\ne\nf\ng\nh"}


def test_a_parquet_file_gives_what_the_csv_gives(write: Write, tmp_path: Path) -> None:
    columns = {"length": [1.0, 2.0, 3.0, 6.0], "colour": ["red", "blue", "red", "green"], "kind": ["a", "b", "a", "b"]}
    plain = pyarrow.table(columns)
    parquet.write_table(plain, tmp_path / "flowers.parquet")
    encoded = plain.set_column(1, "colour", plain.column(1).dictionary_encode())
    parquet.write_table(encoded, tmp_path / "encoded.PARQUET")
    paths = [write("flowers.csv", FLOWERS), tmp_path / "flowers.parquet", tmp_path / "encoded.PARQUET"]
    assert len({load_data(path, target="kind").fingerprint for path in paths}) == 1


@pytest.mark.parametrize(("inputs", "targets"), [("inputs", "targets"), ("X", "y"), ("x", "y")])
def test_an_npz_has_its_targets_by_name(tmp_path: Path, inputs: str, targets: str) -> None:
    arrays: dict[str, Any] = {
        inputs: np.arange(12, dtype=np.float32).reshape(3, 2, 2),
        targets: np.array([7, 3, 7], dtype=np.uint8),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    data = load_data(tmp_path / "a.npz", scale=2, validation=0)
    assert data.training.inputs.tolist() == [[0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5], [4, 4.5, 5, 5.5]]
    assert data.training.targets.tolist() == [1, 0, 1]
    assert data.preparation.classes == (3, 7)


def test_one_target_column_may_be_a_string_and_several_a_list(write: Write) -> None:
    path = write("n.csv", "a,b,c\n1,2.5,3.5\n4,5.5,6.5\n")
    one, two = load_data(path, target="c", validation=0), load_data(path, target=["c", "b"], validation=0)
    assert (one.loss, one.widths_in, one.training.targets.tolist()) == ("mean_squared_error", 2, [[3.5], [6.5]])
    assert (two.loss, two.widths_in) == ("mean_squared_error", 1)
    assert two.training.targets.tolist() == [[3.5, 2.5], [6.5, 5.5]]


def test_a_fingerprint_changes_with_a_value_a_name_and_the_target() -> None:
    same = table({"x": [1, 2], "y": ["a", "b"]}).fingerprint()
    assert table({"x": [1, 2], "y": ["a", "b"]}).fingerprint() == same
    others = [table({"x": [1, 3], "y": ["a", "b"]}), table({"z": [1, 2], "y": ["a", "b"]})]
    others += [table({"x": [1, 2], "y": ["a", "c"]}), table({"x": [1, 2], "y": ["a", "b"]}, ("x",))]
    others += [table({"x": [1.0, 2.0], "y": ["a", "b"]})]
    assert len({same, *(other.fingerprint() for other in others)}) == 6


ADVICE = "values, the first in sample 1; train with impute mean or median (--impute), or leave these samples out"
REFUSED: list[tuple[str | bytes, Any, str]] = [  # a .csv, its targets, and what is said of them
    (FLOWERS, None, "has no targets; target= or --target names the columns to predict; it has length, colour, kind"),
    (FLOWERS, "length,kind", "column 'length,kind' is missing; a list, ['length', 'kind'], expected; the columns"),
    (FLOWERS, ["kin"], "column 'kin' is missing; did you mean 'kind'?; the columns are length, colour, kind"),
    (FLOWERS, ["kind", "kind"], "targets kind, kind: each column once expected"),
    (",".join(map(str, range(30))) + "\n" + ",".join("1" * 30), "y", "19 and 10 more"),
    ("a,b\n1.5,2\n", ["a", "b"], "every column is a target"),
    ("x,y\n", "y", "a.csv holds no samples; one or more expected"),
    ("x,x\n1,2\n", "x", "2 columns are called 'x'"),
    (",x\n1,2\n", "x", "column 0 has no name; where it is a saved index, save without the index"),
    (
        b"x,y\n1,caf\xe9",
        "y",
        "line 2 holds bytes that are not utf-8 (unexpected end of data); Reading(encoding=...) or --encoding",
    ),
    (
        "day,y\n2020-01-31,1\n",
        "y",
        "'day' holds dates; Reading(dates=...) or --dates NAME reads them as days, Reading(drop=...) or --drop day",
    ),
    ("x,y\n1,a\n,b\nNA,a\n", "y", f"column 'x' lacks 2 of 3 {ADVICE}"),
    ("x,y\nred,a\n,b\n", "y", f"column 'x' lacks 1 of 2 {ADVICE}"),
]


@pytest.mark.parametrize(("text", "target", "message"), REFUSED)
def test_a_csv_that_cannot_be_used_is_refused(text: str | bytes, target: Any, message: str, write: Write) -> None:
    with refused(message):
        load_data(write("a.csv", text), target=target, validation=0)


def test_settings_of_text_files_are_refused_for_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, X=np.eye(3), y=np.arange(3))
    for reading in (Reading(drop=("inputs[1]",)), Reading(decimal=","), Reading(dates={"inputs[0]": ""})):
        with pytest.raises(DataError, match=r"are of \.csv and \.parquet files"):
            read(path, reading=reading)
    assert read(path, reading=Reading(text=("targets[0]",))).samples == 3, "as a preparation asks for"


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.parquet"])
def test_a_missing_an_empty_and_a_damaged_file_are_refused(write: Write, tmp_path: Path, name: str) -> None:
    with refused(f"{name} cannot be read: No such file or directory"):
        load_data(f"nowhere/{name}")
    with refused(f"{name} is empty; samples expected"):
        read(write(name, ""))
    why = {"a.csv": ": line 3 has 3 columns, 2 expected: 1,2,3", "a.npz": " is not an .npz archive",
           "a.parquet": " cannot be read as .parquet: it is damaged, or another file"}  # fmt: skip
    with refused(name + why[name]):
        read(write(name, b"a,b\n1,2\n1,2,3\n1,2\n"))
    np.savez(tmp_path / "a.npz", X=np.ones((9, 9)), y=np.ones(9))
    parquet.write_table(pyarrow.table({"x": [1.0]}), tmp_path / "a.parquet")
    if name != "a.csv":
        whole = (tmp_path / name).read_bytes()
        with refused(f"{name} cannot be read as .{name[2:]}: it is damaged, or another file"):
            read(write(name, whole[: len(whole) // 2]))


def test_what_is_no_file_that_may_be_read_is_refused(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d.csv").mkdir()
    for given, told in (
        (tmp_path, "is a directory; a file that ends in .csv, .tsv, .npz, .parquet expected"),
        (tmp_path / "d.csv", "d.csv is a directory"),
        ("a.cvs", "a.cvs: the ending '.cvs' is unknown; did you mean '.csv'?; allowed: .csv, .npz, .parquet, .tsv"),
        ("folder/data", "the ending '' is unknown"),
    ):
        with refused(told):
            load_data(given)
    path = write("a.csv", FLOWERS)
    monkeypatch.setattr(Path, "open", failing(PermissionError(13, "Permission denied")))
    with refused("a.csv cannot be read: Permission denied"):
        read(path)


def test_columns_of_a_parquet_file_need_different_names(tmp_path: Path) -> None:
    same = pyarrow.Table.from_arrays([pyarrow.array([1.0])] * 2, names=["x", "x"])
    parquet.write_table(same, tmp_path / "a.parquet")
    for reader in (read, tables.parquet):
        with refused("2 columns are called 'x'"):
            reader(tmp_path / "a.parquet")


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_pickle_in_an_npz_or_called_npz_is_refused_and_nothing_is_executed(write: Write, tmp_path: Path) -> None:
    for name in ("X", "y"):
        arrays: dict[str, Any] = {"X": np.ones((1, 2)), "y": np.ones(1)}
        arrays[name] = np.array([Bomb(tmp_path / "executed")], dtype=object)
        np.savez(tmp_path / "a.npz", **arrays)
        with refused(f"a.npz: array '{name}' holds pickled Python objects, which can execute code and are never load"):
            read(tmp_path / "a.npz")
    path = write("a.npz", pickle.dumps(Bomb(tmp_path / "executed")))
    with refused("a.npz is not an .npz archive, as numpy.savez writes it"):
        read(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes()).close()
    assert (tmp_path / "executed").exists(), "it would have shown"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.ones((2, 2))}, "no array is called inputs or X or x; it has data"),
        ({"X": np.ones((2, 2))}, "has no targets; no array is called targets or y; it has inputs[0], inputs[1]"),
        ({"X": np.ones((2, 2)), "x": np.ones((2, 2))}, "arrays X and x mean the same; one of them expected"),
        ({"X": np.ones((2, 2)), "y": np.ones(3)}, "inputs (2, 2), targets (3,); (M, I), and (M,) or (M, O)"),
        ({"X": np.ones((2, 2)), "y": np.ones((2, 1, 1))}, "inputs (2, 2), targets (2, 1, 1); (M, I)"),
        ({"X": np.float64(1), "y": np.ones(1)}, "inputs (), targets (1,); (M, I)"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "inputs (0, 2), targets (0,); (M, I)"),
        ({"X": np.ones((2, 2)), "y": np.ones((2, 0))}, "has no targets"),
        ({"X": np.ones((1, 1)) * 1j, "y": np.ones(1)}, "'inputs[0]' holds complex128; numbers, truth values or"),
        ({"X": np.array([[2**64 - 1]], dtype=np.uint64), "y": np.ones(1)}, "holds 18446744073709551615; whole numbers"),
    ],
)
def test_an_npz_with_other_arrays_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with refused(message):
        load_data(tmp_path / "a.npz", validation=0)


@pytest.mark.parametrize("name", ["a.npz", "a.parquet"])
def test_a_small_file_of_large_content_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    zeros = np.zeros((10_000, 10))
    np.savez_compressed(tmp_path / "a.npz", X=zeros, y=zeros[:, 0])
    parquet.write_table(pyarrow.table({str(number): zeros[:, 0] for number in range(11)}), tmp_path / "a.parquet")
    assert read(tmp_path / name).samples == 10_000
    monkeypatch.setattr(free, "available", lambda device: 1_000_000)
    monkeypatch.setattr(np, "frombuffer", None)  # what NumPy unpacks with
    monkeypatch.setattr(parquet.ParquetFile, "read", None)
    with refused(f"{name} needs 1.76 MB when unpacked; 1 MB are free"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz"])
def test_a_device_and_a_pipe_in_the_place_of_a_file_are_not_read(name: str, tmp_path: Path) -> None:
    """Their content would never end, and fill the memory."""
    (tmp_path / name).symlink_to("/dev/zero")
    with refused(f"{name} cannot be read: not a regular file"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with refused(f"{name} cannot be read: not a regular file"):
        read(tmp_path / name)


def dictionary(rows: int) -> pyarrow.Table:
    """A long text in every row, which a Parquet file holds once."""
    indices = pyarrow.array(np.zeros(rows, np.int32))
    return pyarrow.table({"a": pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["A" * 500_000]))})


@pytest.mark.parametrize("kind", ["text", "texts in lists", "numbers in a list"])
def test_a_parquet_file_of_a_few_bytes_that_unpack_to_very_many_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free, "LARGE", 1 << 24)
    made = {
        "text": lambda: dictionary(10_000),
        "texts in lists": lambda: pyarrow.table(
            {"a": pyarrow.ListArray.from_arrays(np.arange(10_001, dtype=np.int32), dictionary(10_000)["a"].chunk(0))}
        ),
        "numbers in a list": lambda: pyarrow.table(
            {"a": pyarrow.ListArray.from_arrays([0, 1_200_000], pyarrow.array(np.zeros(1_200_000, np.int8)))}
        ),
    }[kind]()
    parquet.write_table(made, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 60_000
    for reader in (read, tables.parquet):
        with refused("when unpacked; at most 10,000 times its size expected"):
            reader(tmp_path / "a.parquet")


def test_an_archive_that_packs_better_than_numpy_is_read_if_it_is_no_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free, "LARGE", 1 << 24)
    for rows in (8, 1 << 25):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive, archive.open("X.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": (rows, 1)})
            for _ in range(max(1, rows >> 20)):
                file.write(bytes(min(rows, 1 << 20)))
        if rows == 8:
            assert read(tmp_path / "a.npz").samples == 8
    with refused("when unpacked; at most 10,000 times its size expected"):
        read(tmp_path / "a.npz")


def test_an_npz_takes_no_target_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones((2, 2)), y=np.ones(2))
    with refused("target label chooses columns of .csv and .parquet; .npz has targets or y"):
        load_data(tmp_path / "a.npz", target="label")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 2)), "has shape (2, 2); one value per sample expected"),
        (np.array(["a", 1], dtype=object), "holds int 1 in sample 1; text expected"),
        (np.array([b"a", b"b"]), "holds |S1; numbers, truth values or text expected"),
        (np.ones(3), "columns of 2 to 3 samples; equal lengths expected"),
    ],
)
def test_a_table_of_other_values_is_refused(values: Any, message: str) -> None:
    with refused(message):
        Table("a table", {"y": np.ones(2), "x": values})
