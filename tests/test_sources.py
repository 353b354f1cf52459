"""sources.py, tables.py and preparation.py: data by name and from files, and what is learned about them."""

from __future__ import annotations

import builtins
import json
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from gpubp.errors import ConfigError, DataError
from gpubp.preparation import CATEGORIES, SCALES, Preparation, check_scale, fit
from gpubp.sources import SOURCES, load, split
from gpubp.tables import Table, read

Write = Callable[[str, str | bytes], Path]

FLOWERS = "length,colour,kind\n1.0,red,a\n2.0,blue,b\n3.0,red,a\n6.0,green,b\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer


def table(columns: Mapping[str, list[Any]], targets: tuple[str, ...] = ("y",)) -> Table:
    arrays = {
        name: np.array(values, dtype=object if any(isinstance(value, str) for value in values) else None)
        for name, values in columns.items()
    }
    return Table("a table", arrays, targets)


def refused(what: str) -> Any:
    return pytest.raises(DataError, match=re.escape(what))


# --- data by name


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_ready_for_its_loss(name: str) -> None:
    if name not in ("tutorial", "xor", "spirals"):
        pytest.importorskip("sklearn")
    data = load(name)
    assert data.name == name
    assert data.loss == SOURCES[name].loss
    assert data.training.inputs.dtype == torch.float64
    assert data.training.inputs.shape == (data.sizes[0], data.widths_in)
    classes = data.loss == "cross_entropy"
    assert data.training.targets.shape == ((data.sizes[0],) if classes else (data.sizes[0], data.widths_out))
    assert data.training.targets.dtype == (torch.int64 if classes else torch.float64)
    assert (data.validation is None) == (data.sizes[1] == 0) == (SOURCES[name].validation == 0)
    assert len(data.fingerprint) == 64
    assert data.fingerprint == load(name, seed=1).fingerprint


def test_the_tutorial_is_its_one_sample() -> None:
    data = load("tutorial").training
    assert data.inputs.tolist() == [[0.05, 0.10]]
    assert data.targets.tolist() == [[0.01, 0.99]]


def test_xor_is_its_four_points() -> None:
    data = load("xor").training
    assert data.inputs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert data.targets.tolist() == [[0], [1], [1], [0]]


def test_the_spirals_never_change() -> None:
    spirals = load("spirals", validation=0)
    assert spirals.fingerprint == "8dfa4bb6209ac6275f99f58d7f4d48ac383e5a331bb009d93e335ad22a7bd339"
    assert spirals.training.inputs.abs().max() < 1.1


def test_digits_are_divided_by_16() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    raw = datasets.load_digits()
    data = load("digits", validation=0).training
    assert torch.equal(data.inputs, torch.from_numpy(raw.data / 16))
    assert data.targets.tolist() == raw.target.tolist()


def test_diabetes_has_targets_of_variance_one_that_decode_to_the_raw_ones() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = load("diabetes", validation=0)
    torch.testing.assert_close(data.training.targets.var(0, correction=0), torch.ones(1, dtype=torch.float64))
    assert data.preparation.columns[0].name == "age"
    assert 48 < data.preparation.columns[0].offset < 49  # years, not what scikit-learn makes of them
    raw = datasets.load_diabetes().target
    np.testing.assert_allclose(data.preparation.decode(data.training.targets)[:, 0], raw, rtol=1e-12)
    assert load("diabetes", loss="huber").preparation.target_columns[0].factor > 50
    assert load("diabetes", loss="poisson").training.targets.min() >= 25


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused("data 'iris': scikit-learn is not installed; pip install \"gpubp[data]\""):
        load("iris")


def test_an_unknown_name_gets_the_nearest_one_and_hears_of_files() -> None:
    with refused("data 'digts' is unknown; did you mean 'digits'?; allowed: breast_cancer, "):
        load("digts")
    with refused("or a file that ends in .csv, .npz, .parquet"):
        load("digts")


def test_a_source_has_its_own_targets() -> None:
    with pytest.raises(ConfigError, match="target 'o1': data 'tutorial' have their own"):
        load("tutorial", target="o1")


# --- the split


def test_the_split_is_the_same_for_ever() -> None:
    rows, held_out = split(10, 0.3, 0)
    assert (rows.tolist(), held_out.tolist()) == ([1, 3, 4, 5, 6, 7, 8], [0, 2, 9])
    rows, held_out = split(10, 0.3, 1)
    assert (rows.tolist(), held_out.tolist()) == ([1, 2, 4, 5, 6, 7, 9], [0, 3, 8])


def test_every_sample_is_in_one_part() -> None:
    rows, held_out = split(1001, 0.25, 7)
    assert len(held_out) == 250
    assert torch.equal(torch.cat((rows, held_out)).sort().values, torch.arange(1001))


def test_a_share_of_zero_holds_nothing_out() -> None:
    rows, held_out = split(3, 0, 0)
    assert (rows.tolist(), held_out.tolist()) == ([0, 1, 2], [])


@pytest.mark.parametrize(("count", "share"), [(2, 0.2), (1, 0.5), (3, 0.9)])
def test_a_split_with_an_empty_part_is_refused(count: int, share: float) -> None:
    with refused(f"validation {share:g} of {count} samples: "):
        split(count, share, 0)


@pytest.mark.parametrize("share", [1, -0.1, True, float("nan"), "0.2"])
def test_a_share_that_is_none_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError, match="a share from 0 to below 1 expected"):
        split(10, share, 0)


def test_a_wrong_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        split(10, 0.2, -1)


# --- files


def test_a_csv_becomes_numbers_one_hot_texts_and_classes(write: Write) -> None:
    data = load(write("flowers.csv", FLOWERS), target="kind", validation=0, scale="none")
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


def test_a_line_break_in_quotes_may_stand_where_a_large_csv_is_cut_into_blocks(write: Write) -> None:
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
    assert len({load(path, target="kind").fingerprint for path in paths}) == 1


@pytest.mark.parametrize(("inputs", "targets"), [("inputs", "targets"), ("X", "y"), ("x", "y")])
def test_an_npz_has_its_targets_by_name(tmp_path: Path, inputs: str, targets: str) -> None:
    arrays: dict[str, Any] = {
        inputs: np.arange(12, dtype=np.float32).reshape(3, 2, 2),
        targets: np.array([7, 3, 7], dtype=np.uint8),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    data = load(tmp_path / "a.npz", scale=2, validation=0)
    assert data.training.inputs.tolist() == [[0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5], [4, 4.5, 5, 5.5]]
    assert data.training.targets.tolist() == [1, 0, 1]
    assert data.preparation.classes == (3, 7)


def test_one_target_column_may_be_a_string_and_several_a_list(write: Write) -> None:
    path = write("n.csv", "a,b,c\n1,2.5,3.5\n4,5.5,6.5\n")
    one, two = load(path, target="c", validation=0), load(path, target=["c", "b"], validation=0)
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


def test_a_file_without_a_target_lists_its_columns(write: Write) -> None:
    with refused("has no targets; name the columns to predict by --target; it has length, colour, kind"):
        load(write("flowers.csv", FLOWERS))


def test_a_target_that_is_not_there_gets_the_nearest_name(write: Write) -> None:
    message = "column 'kin' is missing; did you mean 'kind'?; the columns are length, colour, kind"
    with refused(message):
        load(write("flowers.csv", FLOWERS), target=["kin"])


def test_a_long_list_of_columns_is_cut(write: Write) -> None:
    with refused("19 and 10 more"):
        load(write("wide.csv", ",".join(map(str, range(30))) + "\n" + ",".join("1" * 30)), target="y")


def test_a_target_named_twice_is_refused(write: Write) -> None:
    with refused("targets kind, kind: each column once expected"):
        load(write("flowers.csv", FLOWERS), target=["kind", "kind"])


def test_a_file_of_targets_alone_is_refused(write: Write) -> None:
    with refused("every column is a target"):
        load(write("n.csv", "a,b\n1.5,2\n"), target=["a", "b"], validation=0)


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.parquet"])
def test_a_missing_an_empty_and_a_damaged_file_are_refused(write: Write, name: str) -> None:
    with refused(f"{name} cannot be read: No such file or directory"):
        load(f"nowhere/{name}")
    with refused(f"{name} is empty; samples expected"):
        read(write(name, ""))
    with pytest.raises(DataError, match=rf"{name} (cannot be read as \.|is not an \.npz archive)"):
        read(write(name, b"a,b\n1,2,3\n"))


@pytest.mark.parametrize("name", ["a.npz", "a.parquet"])
def test_half_a_file_is_refused_with_the_reason(write: Write, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones((9, 9)), y=np.ones(9))
    parquet.write_table(pyarrow.table({"x": [1.0]}), tmp_path / "a.parquet")
    whole = (tmp_path / name).read_bytes()
    with pytest.raises(DataError, match=rf"{name} cannot be read as \.\w+: (BadZipFile|ArrowInvalid): .+"):
        read(write(name, whole[: len(whole) // 2]))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with refused("is a directory; a file that ends in .csv, .npz, .parquet expected"):
        load(tmp_path)
    (tmp_path / "d.csv").mkdir()
    with refused("d.csv is a directory"):
        read(tmp_path / "d.csv")


def test_a_file_that_may_not_be_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = write("a.csv", FLOWERS)
    monkeypatch.setattr(Path, "read_bytes", forbid)
    with refused("a.csv cannot be read: Permission denied"):
        read(path)


def test_an_unknown_ending_gets_the_nearest_one() -> None:
    with refused("a.cvs: the ending '.cvs' is unknown; did you mean '.csv'?; allowed: .csv, .npz, .parquet"):
        load("a.cvs")
    with refused("the ending '' is unknown"):
        load("folder/data")


def test_a_csv_without_samples_is_refused(write: Write) -> None:
    with refused("a.csv holds no samples; one or more expected"):
        read(write("a.csv", "x,y\n"))


def test_columns_need_different_names(write: Write) -> None:
    with refused("two columns are called 'x'"):
        read(write("a.csv", "x,x\n1,2\n"))
    with refused("column 0 has no name; where it is a saved index, save without the index"):
        read(write("a.csv", ",x\n1,2\n"))


def test_bytes_that_are_not_utf_8_and_dates_are_refused(write: Write) -> None:
    with refused("column 'y' holds bytes that are not text in UTF-8"):
        read(write("a.csv", b"x,y\n1,caf\xe9\n"))
    with refused("column 'day' holds date32[day]; numbers, truth values or text expected"):
        read(write("a.csv", "day,y\n2020-01-31,1\n"))


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["X", "y"])
def test_a_pickle_in_an_npz_is_refused_and_nothing_is_executed(tmp_path: Path, name: str) -> None:
    arrays: dict[str, Any] = {"X": np.ones((1, 2)), "y": np.ones(1)}
    arrays[name] = np.array([Bomb(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", **arrays)
    with refused(f"a.npz: array '{name}' holds pickled Python objects, which can execute code and are never loaded"):
        read(tmp_path / "a.npz")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_called_npz_is_refused_and_nothing_is_executed(write: Write, tmp_path: Path) -> None:
    path = write("a.npz", pickle.dumps(Bomb(tmp_path / "executed")))
    with refused("a.npz is not an .npz archive, as numpy.savez writes it"):
        read(path)
    assert not (tmp_path / "executed").exists()


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
        ({"X": np.ones((1, 1)) * 1j, "y": np.ones(1)}, "column 'inputs[0]' holds complex128; numbers, truth values or"),
        ({"X": np.array([[2**64 - 1]], dtype=np.uint64), "y": np.ones(1)}, "holds 18446744073709551615; whole numbers"),
    ],
)
def test_an_npz_of_other_arrays_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with refused(message):
        load(tmp_path / "a.npz", validation=0)


def test_an_npz_takes_no_target_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.ones((2, 2)), y=np.ones(2))
    with refused("target label chooses columns of .csv and .parquet; .npz has targets or y"):
        load(tmp_path / "a.npz", target="label")


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


# --- the loss and the targets


@pytest.mark.parametrize(
    ("column", "loss", "task"),
    [
        ("a\nb\n", "cross_entropy", "classes"),
        ("5\n2\n", "cross_entropy", "classes"),
        ("true\nfalse\n", "cross_entropy", "classes"),
        ("5.0\n2.0\n", "mean_squared_error", "numbers"),
    ],
)
def test_the_type_of_a_target_column_decides_the_usual_loss(write: Write, column: str, loss: str, task: str) -> None:
    values = column.split()
    data = load(write("a.csv", f"x,y\n1,{values[0]}\n2,{values[1]}\n"), target="y", validation=0)
    assert (data.loss, data.preparation.task) == (loss, task)


@pytest.mark.parametrize(
    ("labels", "classes"), [(["b", "a", "b"], ("a", "b")), ([10, 9, 10], (9, 10)), ([True, False, True], (False, True))]
)
def test_classes_are_sorted_encoded_by_the_loss_and_decoded(labels: list[Any], classes: tuple[Any, ...]) -> None:
    raw = table({"x": [1, 2, 3], "y": labels})
    learned = {loss: fit(raw, loss) for loss in ("cross_entropy", "binary_cross_entropy", "hinge")}
    assert all(each.classes == classes for each in learned.values())
    assert learned["cross_entropy"].targets(raw).tolist() == [1, 0, 1]
    assert learned["binary_cross_entropy"].targets(raw).tolist() == [[1.0], [0.0], [1.0]]
    assert learned["hinge"].targets(raw).tolist() == [[1.0], [-1.0], [1.0]]
    assert [each.width_out for each in learned.values()] == [2, 1, 1]
    two, one = torch.tensor([[[0.0, 1], [3, 2], [0, 1]]]), torch.tensor([[[0.5], [-0.5], [0.5]]])
    assert learned["cross_entropy"].decode(two).tolist() == [labels]
    assert learned["binary_cross_entropy"].decode(one).tolist() == [labels]
    assert learned["hinge"].decode(one.requires_grad_()).tolist() == [labels]
    assert torch.equal(learned["cross_entropy"].outputs(two), two)


def test_whole_floats_may_be_classes_and_shares_may_be_binary_targets() -> None:
    raw = table({"x": [1, 2], "y": [1.0, 3.0]})
    assert fit(raw, "cross_entropy").classes == (1, 3)
    assert fit(raw, "cross_entropy").targets(raw).tolist() == [0, 1]
    shares = table({"x": [1, 2], "y": [0.25, 1.0]})
    assert fit(shares, "binary_cross_entropy").targets(shares).tolist() == [[0.25], [1.0]]
    several = table({"x": [1, 2], "y": [0, 1], "z": [True, False]}, ("y", "z"))
    assert fit(several, "binary_cross_entropy").targets(several).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_whole_numbers_are_numbers_where_the_loss_says_so() -> None:
    raw = table({"x": [1, 2], "y": [4, 9]})
    assert fit(raw, "poisson").targets(raw).tolist() == [[4.0], [9.0]]


@pytest.mark.parametrize(
    ("targets", "loss", "message"),
    [
        ({"y": [0.5, 1.0]}, "cross_entropy", "targets y hold 0.5; loss 'cross_entropy' needs classes"),
        ({"y": [1.5, 0.0]}, "binary_cross_entropy", "targets y hold 1.5; loss 'binary_cross_entropy' needs classes"),
        ({"y": ["a", "a"]}, "cross_entropy", "classes a in the training part; loss 'cross_entropy' needs two or more"),
        ({"y": ["a", "a"]}, "hinge", "classes a in the training part; loss 'hinge' needs two"),
        ({"y": ["a", "b"]}, "mean_squared_error", "column 'y' holds text, this loss needs numbers"),
        ({"y": [1, 2], "z": [1, 2]}, "cross_entropy", "targets y, z: loss 'cross_entropy' needs one column of classes"),
        (
            {"y": ["a", None]},
            "cross_entropy",
            "column 'y' lacks 1 of 2 values, the first in sample 1; targets are not",
        ),
        (
            {"y": [np.nan, 1]},
            "huber",
            "column 'y' lacks 1 of 2 values, the first in sample 0; targets are not imputed",
        ),
        ({"y": [np.inf, 1]}, "huber", "column 'y' holds inf in sample 0, one of 1; finite numbers expected"),
        ({"y": [-np.inf, 1]}, "hinge", "column 'y' holds -inf in sample 0, one of 1; finite numbers expected"),
    ],
)
def test_targets_that_the_loss_cannot_use_are_refused(targets: dict[str, list[Any]], loss: str, message: str) -> None:
    with refused(message):
        fit(table({"x": [1, 2], **targets}, tuple(targets)), loss)


def test_three_classes_are_too_many_for_a_binary_loss() -> None:
    with refused("classes 1, 2, 3 in the training part; loss 'binary_cross_entropy' needs two"):
        fit(table({"x": [1, 2, 3], "y": [1, 2, 3]}), "binary_cross_entropy")


def test_an_unknown_loss_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="loss 'cross_entrop' is unknown; did you mean 'cross_entropy'"):
        load("xor", loss="cross_entrop")


def test_a_class_that_training_did_not_have_is_refused() -> None:
    raw = table({"x": [1, 2, 3], "y": ["a", "b", "c"]})
    with refused("column 'y' has class 'c' in sample 2, not one of the training part: a, b; take another --seed"):
        fit(raw, "cross_entropy", rows=np.array([0, 1])).targets(raw)


def test_scaled_targets_come_back_in_their_units() -> None:
    raw = table({"x": [1, 2], "y": [10.0, 30.0], "z": [5.0, 5.0]}, ("y", "z"))
    learned = fit(raw, "mean_squared_error", scale_targets="standard")
    assert learned.targets(raw).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    out = torch.tensor([[0.5, 1.0]])
    assert learned.outputs(out).tolist() == learned.decode(out).tolist() == [[25.0, 6.0]]


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "hinge", "poisson"])
def test_targets_that_mean_what_they_are_are_not_scaled(loss: str) -> None:
    with pytest.raises(ConfigError, match=f"scale_targets 'standard': loss '{loss}' needs its targets as they are"):
        fit(table({"x": [1, 2], "y": [0, 1]}), loss, scale_targets="standard")
    with pytest.raises(ConfigError, match="scale_targets 'minmx' is unknown"):
        fit(table({"x": [1, 2], "y": [0, 1]}), loss, scale_targets="minmx")


# --- what is learned, from the training part alone


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [1.0, 3.0, 100.0]),
        ("standard", [-1.0, 1.0, 98.0]),
        ("minmax", [0.0, 1.0, 49.5]),
        ("16", [1 / 16, 3 / 16, 6.25]),
        (2, [0.5, 1.5, 50.0]),
    ],
)
def test_scaling_is_learned_from_the_training_part_alone(scale: str | float, expected: list[float]) -> None:
    raw = table({"x": [1, 3, 100], "y": [0.5, 1.5, 2.5]})
    learned = fit(raw, "mean_squared_error", rows=np.array([0, 1]), scale=scale)
    assert learned.inputs(raw)[:, 0].tolist() == expected


def test_target_scaling_is_learned_from_the_training_part_alone() -> None:
    raw = table({"x": [1, 3, 100], "y": [10.0, 30.0, 100.0]})
    learned = fit(raw, "mean_squared_error", rows=np.array([0, 1]), scale_targets="standard")
    assert learned.targets(raw).tolist() == [[-1.0], [1.0], [8.0]]


def test_load_learns_from_its_training_part_alone(write: Write) -> None:
    lines = "".join(f"{number * number},{number}.5\n" for number in range(50))
    data = load(write("a.csv", "x,y\n" + lines), target="y")
    assert data.sizes == (40, 10)
    assert data.validation is not None
    torch.testing.assert_close(data.training.inputs.mean(), torch.tensor(0.0, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(data.training.inputs.var(correction=0), torch.tensor(1.0, dtype=torch.float64))
    assert abs(float(data.validation.inputs.mean())) > 1e-3


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_a_constant_column_becomes_zero(scale: str) -> None:
    raw = table({"x": [0.1] * 3, "y": [0.5, 1.5, 2.5]})
    assert fit(raw, "huber", scale=scale).inputs(raw).tolist() == [[0.0]] * 3


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_a_column_too_wide_to_scale_is_refused(scale: str) -> None:
    with refused(f"column 'x' holds -1.7e+308 to 1.7e+308, which 64 bits cannot scale by '{scale}'"):
        fit(table({"x": [1.7e308, -1.7e308], "y": [0.5, 1.5]}), "huber", scale=scale)


def test_check_scale_takes_names_and_numbers() -> None:
    assert [check_scale(scale) for scale in (*SCALES, "16", 0.5)] == [*SCALES, 16.0, 0.5]


@pytest.mark.parametrize("scale", ["standart", "0", -1, "inf", "nan", True, None])
def test_another_scale_is_refused(scale: Any) -> None:
    with pytest.raises(ConfigError, match=r"allowed: minmax, none, standard, or a number above 0 to divide by"):
        check_scale(scale)


def test_missing_values_are_refused_with_advice(write: Write) -> None:
    advice = "values, the first in sample 1; train with --impute mean or median, or leave these samples out"
    with refused(f"column 'x' lacks 2 of 3 {advice}"):
        load(write("a.csv", "x,y\n1,a\n,b\nNA,a\n"), target="y", validation=0)
    with refused(f"column 'x' lacks 1 of 2 {advice}"):
        load(write("b.csv", "x,y\nred,a\n,b\n"), target="y", validation=0)


@pytest.mark.parametrize(("impute", "expected"), [("mean", 4.0), ("median", 2.0)])
def test_missing_values_are_filled_with_what_training_shows(impute: str, expected: float) -> None:
    x, colour = [1.0, 2.0, 9.0, np.nan, 1000.0], ["red", "blue", "blue", None, "red"]
    raw = table({"x": x, "colour": colour, "y": [0.5, 1.5, 2.5, 3.5, 4.5]})
    learned = fit(raw, "huber", rows=np.array([0, 1, 2, 3]), impute=impute)
    assert learned.inputs(raw)[3].tolist() == [expected, 1.0, 0.0]
    assert [column.fill for column in learned.columns] == [expected, "blue"]


def test_missing_truth_values_and_whole_numbers_are_filled(write: Write) -> None:
    text = "x,flag,y\n1,true,0.5\n,false,1.5\n3,,2.5\n"
    data = load(write("a.csv", text), target="y", impute="mean", scale="none", validation=0)
    assert data.training.inputs.tolist() == [[1, 1], [2, 0], [3, 0.5]]


def test_a_column_without_values_cannot_be_filled(write: Write) -> None:
    with refused("column 'x' has no value in the training part; leave it out"):
        load(write("a.csv", "x,y\n,a\n,b\n"), target="y", impute="median", validation=0)


def test_another_imputation_is_refused() -> None:
    with pytest.raises(ConfigError, match="impute 'meen' is unknown; did you mean 'mean'"):
        fit(table({"x": [1, 2], "y": [0.5, 1.5]}), "huber", impute="meen")


def test_infinity_is_refused_even_outside_the_training_part() -> None:
    raw = table({"x": [1.0, 2.0, -np.inf], "y": [0.5, 1.5, 2.5]})
    with refused("column 'x' holds -inf in sample 2, one of 1; finite numbers expected"):
        fit(raw, "huber", rows=np.array([0, 1]), impute="mean")


def test_free_text_is_refused() -> None:
    count = CATEGORIES + 1
    with refused(f"column 'x' holds {count} different texts, an input each; at most {CATEGORIES} expected"):
        fit(table({"x": [f"text {number}" for number in range(count)], "y": [0.5] * count}), "huber")


# --- prediction


def test_a_category_that_training_did_not_have_is_all_zeros() -> None:
    learned = fit(table({"colour": ["red", "blue"], "y": [0.5, 1.5]}), "huber")
    assert learned.inputs(table({"colour": ["green", "red"]}, ())).tolist() == [[0, 0], [0, 1]]


def test_extra_columns_are_ignored_and_the_order_is_that_of_training(write: Write) -> None:
    learned = load(write("flowers.csv", FLOWERS), target="kind", scale="none", validation=0).preparation
    raw = read(write("new.csv", "colour,other,length,kind\nred,x,5,b\n"))
    assert learned.inputs(raw).tolist() == [[5, 0, 0, 1]]
    assert learned.targets(raw).tolist() == [1]


def test_a_missing_column_is_named() -> None:
    learned = fit(table({"length": [1, 2], "y": [0.5, 1.5]}), "huber")
    with refused("a table: column 'length' is missing; did you mean 'lenght'?; the columns are lenght"):
        learned.inputs(table({"lenght": [1]}, ()))
    with refused("column 'y' is missing"):
        learned.targets(table({"lenght": [1]}, ()))


def test_an_npz_of_another_width_is_refused_with_both_widths(tmp_path: Path) -> None:
    for width in (2, 3):
        np.savez(tmp_path / f"{width}.npz", X=np.ones((4, width)), y=np.arange(4.0))
    learned = load(tmp_path / "2.npz").preparation
    with refused("3.npz: inputs (4, 3): the last size must be 2, as in training"):
        learned.inputs(read(tmp_path / "3.npz"))


def test_an_npz_without_targets_serves_prediction(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", X=np.array([["a"], ["b"]]), y=np.array(["yes", "no"]))
    np.savez(tmp_path / "new.npz", X=np.array([["b"]]))
    data = load(tmp_path / "train.npz", validation=0)
    assert data.training.targets.tolist() == [1, 0]
    assert data.preparation.inputs(read(tmp_path / "new.npz")).tolist() == [[0, 1]]


def test_a_column_of_another_type_is_refused() -> None:
    learned = fit(table({"a": [1, 2], "b": ["x", "z"], "y": [0.5, 1.5]}), "huber")
    with refused("column 'a' holds text, but numbers in training"):
        learned.inputs(table({"a": ["1"], "b": ["x"]}, ()))
    with refused("column 'b' holds numbers, but text in training"):
        learned.inputs(table({"a": [1], "b": [1]}, ()))


def test_codes_that_look_like_numbers_are_read_as_the_text_they_were(write: Write) -> None:
    data = load(write("a.csv", "code,y\nA1,x1\n007,02\n"), target="y", validation=0)
    assert data.preparation.text == ("code", "y")
    raw = read(write("new.csv", "code,y\n007,02\n"), text=data.preparation.text)
    assert data.preparation.inputs(raw).tolist() == [[1, 0]]
    assert data.preparation.targets(raw).tolist() == [0]


def test_an_empty_column_is_filled_whatever_its_type(write: Write) -> None:
    learned = load(write("a.csv", "c,y\nr,0.5\nb,1.5\nb,2.5\n"), target="y", impute="mean", validation=0).preparation
    assert learned.inputs(read(write("new.csv", "c,d\n,1\n"))).tolist() == [[1, 0]]


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "hinge"])
def test_a_preparation_survives_json(write: Write, loss: str) -> None:
    path = write("a.csv", "x,colour,y\n0.1,red,a\n,blue,b\n0.7,,a\n1e-9,red,b\n")
    learned = load(path, target="y", loss=loss, impute="mean", validation=0).preparation
    again = Preparation.from_dict(json.loads(json.dumps(learned.to_dict())))
    assert again == learned
    assert again.to_dict() == learned.to_dict()
    raw = read(path)
    assert torch.equal(again.inputs(raw), learned.inputs(raw))
    assert torch.equal(again.targets(raw), learned.targets(raw))


def test_a_preparation_of_numbers_survives_json() -> None:
    raw = table({"x": [0.1, 0.7, 1e-9], "y": [0.1, 0.2, 0.4]})
    learned = fit(raw, "huber", scale="standard", scale_targets="standard")
    again = Preparation.from_dict(json.loads(json.dumps(learned.to_dict())))
    assert again == learned
    assert torch.equal(again.inputs(raw), learned.inputs(raw))
    assert torch.equal(again.targets(raw), learned.targets(raw))


@pytest.mark.parametrize("change", [{"task": "guess"}, {"more": 1}, {"columns": [{"name": "x"}]}, {"classes": None}])
def test_a_damaged_preparation_is_refused(change: dict[str, Any]) -> None:
    values = fit(table({"x": [1, 2], "y": [0.5, 1.5]}), "huber").to_dict()
    with pytest.raises(DataError, match="preparation: "):
        Preparation.from_dict({**values, **change})
    with pytest.raises(DataError, match="preparation: "):
        Preparation.from_dict({})
