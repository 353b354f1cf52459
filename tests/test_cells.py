"""Cells of a design: any form of table gives the same columns; what a setting does not take is refused with its row."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import gpubp
from gpubp.errors import ELSEWHERE, ConfigError, DataError, GpubpError, OutOfMemoryError, ShapeError, SpecError
from gpubp.runs import cells
from gpubp.runs.design import COLUMNS, Design

from .test_design import data, train


def test_a_design_may_come_in_any_form_and_is_kept_with_the_run(tmp_path: Path) -> None:
    columns = {
        "widths": ["3,6,4", "3,5,5,4"],
        "lr": [0.01, 0.3],
        "batch_size": [8, None],
        "restore_best": [True, False],
    }
    expected = Design.of(columns)
    table = pa.table(columns)
    parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('widths,lr,batch_size,restore_best\n"3,6,4",0.01,8,true\n3-5-5-4,0.3,,false\n')
    lists = table.set_column(0, "widths", pa.array([[3, 6, 4], [3, 5, 5, 4]]))
    parquet.write_table(lists.append_column("__index_level_0__", pa.array([5, 6])), tmp_path / "lists.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(table.to_pylist()))
    (tmp_path / "columns.json").write_text(json.dumps(lists.to_pydict()))
    (tmp_path / "rows.yaml").write_text(
        "- {widths: [3, 6, 4], lr: 1e-2, batch_size: 8, restore_best: true}\n"
        "- {widths: '3,5,5,4', lr: 0.3, restore_best: false}\n"
    )
    files = [tmp_path / name for name in ("rows.json", "columns.json", "rows.yaml")]
    forms = [*files, tmp_path / "lists.parquet", table, table.to_pylist(), iter(table.to_pylist()),
             tmp_path / "a.parquet", str(tmp_path / "a.csv"), expected,
             {**columns, "lr": np.array([0.01, 0.3]), "widths": [(3, 6, 4), [3, 5, 5, 4]]},
             {**columns, "lr": torch.tensor([0.01, 0.3], dtype=torch.float64)}]  # fmt: skip
    for form in forms:
        assert Design.of(form).table() == expected.table()
    train(columns, data(), run_dir=tmp_path / "run")
    assert (
        Design.of(tmp_path / "run" / "design.parquet").table()
        == Design.of(columns, loss="cross_entropy", epochs=6, batch_size=8).table()
    )


def one(**cells: Any) -> list[dict[str, Any]]:
    """A design of one row."""
    return [{"widths": "3,4", **cells}]


REFUSED: tuple[tuple[Any, type[GpubpError], str], ...] = (  # a design of networks for 3 inputs and 4 classes
    ([], ConfigError, "the design has no rows"),
    (7, ConfigError, "design is a int; a mapping of columns"),
    ({"lr": 0.1}, ConfigError, "column 'lr' is a float; a list of numbers, names or truth values expected"),
    ({"lr": [0.1], "widths": ["3,4", "3,4"]}, ConfigError, "columns of 1 to 2 rows; equal lengths expected"),
    ([{"width": "3,4"}], ConfigError, "column 'width' is unknown; did you mean 'widths'"),
    ([{"LR": 0.1}], ConfigError, "column 'LR' is unknown; did you mean 'lr'"),
    ([{"Learning_Rate": 0.1}], ConfigError, "column 'Learning_Rate' is unknown; did you mean 'lr'"),
    ([{"lr": 0.1}], ConfigError, "row 0: widths are missing"),
    (one() + one(widths="3,x,4"), ConfigError,
     "row 1: widths '3,x,4': whole numbers of 1 or more, separated by commas, expected"),
    (one() + one(lr="big"), ConfigError, r"row 1: lr 'big': a number in \[0, inf\) expected"),
    (one() + one(momentum=1), ConfigError, "row 1: momentum is not a hyper-par"),
    (one(hidden="relo"), SpecError, "row 0: .*'relo' is unknown; did you mean 'relu'"),
    (one(widths="2,4"), GpubpError, "the last size must be 2"),
    (one(fold=3), DataError, "row 0: fold 3: the data have 3, from 0 to 2"),
    (one(seed=-1), ConfigError, "row 0: seed -1: a whole number from 0 to"),
    (one(init="glorot"), ConfigError, "row 0: init 'glorot' is unknown; did you mean"),
    (one(batch_size=2.5), ConfigError, "row 0: batch_size 2.5: a whole number from 1 to"),
    (one() + one(widths="3,9"), ConfigError, "from 3 to 4 and from 3 to 9: the same inputs"),
    (one(restore_best="perhaps"), ConfigError, "true or false expected"),
    (one() + one(lr=np.inf), ConfigError, "row 1: lr inf: a number in"),
    (one() + one(lr=10**400), ConfigError, "row 1: lr 10*"),
    (one(lr=True), ConfigError, "row 0: lr True: a number in"),
    (one(lr="nan"), ConfigError, "row 0: lr 'nan': a number in"),
    (one(lr=np.array([0.1, 0.2])), ConfigError, "row 0: lr array.*: a number in"),
    (one(lr="0,1"), ConfigError, "row 0: lr '0,1': a number in .*, with a decimal point, exp"),
    (one(epochs=2**70), ConfigError, "row 0: epochs 1180591620717411303424: a whole"),
    (one(epochs=np.inf), ConfigError, "row 0: epochs inf: a whole number from 1 to"),
    (one(optimizer=["adam"]), ConfigError, "row 0: optimizer .* did you mean 'adam'"),
    (one(init=5), ConfigError, "row 0: init 5: a name expected"),
    (one(bias=np.array(["none", "layer"])), ConfigError, "row 0: bias array.*: a name"),
    ({"widths": ["3,4"], "lr": np.array([1j])}, ConfigError, "column 'lr' is a ndarray of complex128"),
    ({"widths": ["3,4"], "lr": [1], " lr": [2]}, ConfigError, "column 'lr' is there twice"),
    ([{"widths": "3,4", "extra.gain": 1}], ConfigError, "row 0: gain is not a hyper-parameter"),
    (one(class_weight="1,x"), ConfigError, "row 0: class_weight '1,x': numbers separated"),
    (one(class_weight=[1, 2]), ShapeError, "row 0: class_weight"),
    (one(class_weight=[1, 2]) + one(class_weight=[1, 2, 3, 4]), ConfigError,
     "row 0 and 1 like it: class_weights of 2 to 4 numbers: one per class expected"),
    (one(widths="3,10000000000000,4"), ConfigError, "row 0: widths"),
    (one(widths="3,1000000000000,4"), OutOfMemoryError, "row 0: 1 network of"),
)  # fmt: skip


@pytest.mark.parametrize(("design", "error", "told"), REFUSED)
def test_a_design_that_cannot_be_is_refused_with_its_row(design: Any, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        train(design)


@pytest.mark.parametrize(("name", "value", "told"), [
    ("extra", 5, "extra 5: a dict of hyper-parameters by name expected"), ("momentum", 3, "momentum"),
    ("lr", [0.1, 0.2], "all networks: lr .*: a number in"),
])  # fmt: skip
def test_settings_of_all_networks_that_cannot_be_are_refused(name: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        train(one(), **{name: value})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b'[{"lr": 1}\n', "a.json cannot be read: line 2, column 1: Expecting ',' delimiter; JSON expected"),
        ("a.json", b'[{"lr": 1, "lr": 2}]', "a.json cannot be read: 'lr' occurs 2 times in an object; once expected"),
        ("a.json", b"\xff", "a.json cannot be read: JSON in UTF-8 expected, a list of rows or columns by name"),
        ("a.json", b"[" * 100_000, "a.json cannot be read: JSON in UTF-8 expected, a list of rows or columns by name"),
        ("a.json", b'"a.csv"', "design is a str; a mapping of columns, a list of mappings"),
        ("a.yaml", b"- &a {lr: 0.1}\n- *a", "a.yaml: the anchor or alias 'a'"),
        ("none.json", None, "none.json cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_holds_no_design_is_refused(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(told)):
        Design.of(tmp_path / name)


def test_a_cell_is_empty_or_a_value_in_any_librarys_words() -> None:
    expected = Design.of([{"widths": (3, 4)}, {"widths": (3, 5, 4), "lr": 0.5, "hidden": "tanh", "train_bias": False}])
    plain: dict[str, Any] = {"lr": [None, 0.5], "hidden": [None, "tanh"], "train_bias": ["", 0]}
    forms: list[Any] = [
        {"widths": ["3, 4", "(3, 5, 4)"], **plain},
        {"widths": [np.array([3, 4]), torch.tensor([3, 5, 4])], **plain, "hidden": [pd.NA, np.array("tanh")]},
        {"widths": pd.Series(["3,4", "3-5-4"]), **plain, "lr": pl.Series([None, 0.5]), "hidden": [None, " tanh "]},
        {"widths": ["3,4", "3,5,4"], **plain, "hidden": pl.Series([None, "tanh"])},
        {"widths": ["3,4", "3,5,4"], **plain, "lr": np.ma.array([7, 0.5], mask=[True, False])},
        {"widths": ["3,4", "3,5,4"], **plain, "lr": [pd.NA, np.float64(0.5)], "hidden": [float("nan"), "tanh"]},
        {"widths": ["3,4", "3,5,4"], **plain, "lr": pa.chunked_array([[None, 0.5]])},
        {"widths": pa.array(["3,4", "3,5,4"]).dictionary_encode(), **plain, "lr": ["", " 0.5 "]},
        {"widths": ["3,4", "3,5,4"], "train-bias": [None, False], **{name: plain[name] for name in ("lr", "hidden")}},
        {"widths": ["3,4", "3,5,4"], **plain, "hidden": [None, gpubp.ACTIVATIONS["tanh"]]},
        pd.DataFrame({"widths": ["3,4", "3,5,4"], **plain}, index=[7, 5]),
        pl.LazyFrame({"widths": ["3,4", "3,5,4"], **plain}, strict=False),
    ]
    for form in forms:
        assert Design.of(form).table() == expected.table(), form


def test_a_cell_is_read_once_however_many_rows_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read, count = [], 10_000
    value = cells._value
    monkeypatch.setattr(cells, "_value", lambda name, cell: read.append(cell) or value(name, cell))
    design = {"widths": ["3,4", "3,5,4"] * count, "lr": [0.1, None] * count, "seed": np.arange(2 * count)}
    groups = [each.made() for each in Design.of(design, epochs=3).planned(0, torch.float32, None)]
    assert read == ["3,4", "3,5,4"]
    assert [group.rows[:3].tolist() for group in groups] == [[0, 2, 4], [1, 3, 5]]


def test_structs_in_a_file_are_refused_before_they_become_objects(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"lr": [{"a": 1}]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="column 'lr' holds struct<a: int64>; numbers, names, truth values or lists"):
        Design.of(tmp_path / "a.parquet")


def test_words_of_other_libraries_stand_for_columns_that_there_are() -> None:
    assert {*ELSEWHERE.values()} <= {*COLUMNS}
    assert not {*ELSEWHERE} & {*COLUMNS}
