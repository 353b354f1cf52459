"""Frames, tables of Arrow and mappings are prepared for training as a Parquet file of them is."""

import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from pyarrow import parquet

import gpubp
from gpubp.errors import ConfigError, DataError
from gpubp.raw import arrow
from gpubp.raw.frames import table_of
from gpubp.raw.tables import from_arrow
from gpubp.raw.text import Reading
from gpubp.results.answers import entity_of

from .helpers import same_bits

HOW = Reading(dates={"when": ""}, thousands=",")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Columns of every kind, some values missing, and an index that is no column."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "age": rng.integers(18, 80, 60).astype(float),
        "town": pd.Categorical(rng.choice(["Rome", "Oslo", "Lima"], 60)),
        "when": pd.date_range("2024-01-01", periods=60),
        "member": rng.random(60) > 0.3,
        "shop": pd.array(rng.integers(0, 3, 60), dtype="Int64"),
        "pays": rng.choice(["1,200.5", "900"], 60),
        "price": rng.normal(50, 10, 60),
    }
    columns["age"][3] = np.nan
    return pd.DataFrame(columns, index=np.arange(60) * 7)


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.from_pandas(frame.reset_index(drop=True)),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "columns": lambda frame: {name: frame[name] for name in frame},
    "rows": lambda frame: frame.to_dict("records"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [{"target": "town"}, {"target": "price", "per": "shop"}], ids=["classes", "entities"])
def test_a_frame_is_prepared_as_its_file_is(
    tmp_path: Path, frame: pd.DataFrame, kind: str, given: dict[str, Any]
) -> None:
    path = tmp_path / "frame.parquet"
    frame.to_parquet(path, index=False)
    of_file = gpubp.load_data(path, reading=HOW, impute="mean", **given)
    prepared = gpubp.load_data(KINDS[kind](frame), reading=HOW, impute="mean", **given)
    assert prepared.fingerprint == of_file.fingerprint
    assert same_bits(prepared.training.inputs, of_file.training.inputs)
    assert same_bits(prepared.training.targets, of_file.training.targets)
    assert prepared.preparation.to_dict() == of_file.preparation.to_dict()
    assert str(prepared) == str(of_file).replace(str(path), "data")


TEXTS = pa.array(["2024-01-01", None, "1931-05-04T12:00"])
MOMENTS = TEXTS.cast(pa.timestamp("ns"))
DATES = {
    "texts as polars has them": TEXTS.cast(pa.string_view()),
    "texts of a category": TEXTS.dictionary_encode(),
    "moments of a category": MOMENTS.dictionary_encode(),
    "with a nanosecond": pc.add(MOMENTS.cast(pa.int64()), 1).cast(pa.timestamp("ns")),
}


@pytest.mark.parametrize("kind", DATES)
def test_dates_are_days_whatever_type_of_arrow_has_them(tmp_path: Path, kind: str) -> None:
    table = pa.table({"when": DATES[kind], "price": [1.0, 2.0, 3.0]})
    parquet.write_table(table, tmp_path / "a.parquet")
    for samples in (table, tmp_path / "a.parquet"):
        read = gpubp.load_data(samples, "price", reading=HOW, impute="mean", validation=0, scale="none").training.inputs
        assert read[[0, 2], 0].tolist() == [19723.0, -14121.5]


def test_moments_too_far_for_microseconds_are_days() -> None:
    far = pa.table({"when": pa.array([10**15, 0]).cast(pa.timestamp("s")), "price": [1.0, 2.0]})
    read = gpubp.load_data(far, "price", reading=HOW, validation=0, scale="none").training.inputs
    assert read[:, 0].tolist() == [10**15 / 86400, 0]


NUMBERS: dict[str, Any] = {
    "day": [0, 1, 2, 1] * 10,
    "flag": [True, False] * 20,
    "gap": pd.array([3, None] * 20, dtype="Int64"),
    "id": pd.array([2**60 + 1, None, 2**62, 5] * 10, dtype="UInt64"),
    "size": np.array([0.1, 2.5] * 20, np.float32),
    "price": [decimal.Decimal("1.25"), decimal.Decimal("0.50")] * 20,
}
CATEGORIES = [("0", "1", "2"), ("False", "True"), ("3",), ("1152921504606846977", "4611686018427387904", "5"),
              ("0.1", "2.5"), ("0.5", "1.25")]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet", *KINDS])
def test_numbers_that_are_to_be_texts_are_categories_whatever_has_them(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({**NUMBERS, "y": range(40)})
    frame.assign(price=[1.25, 0.5] * 20).to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    samples = KINDS[kind](frame) if kind in KINDS else tmp_path / f"a.{kind}"
    data = gpubp.load_data(samples, "y", reading=Reading(text=tuple(NUMBERS)), impute="mean", folds=4)
    told = [each.categories for each in data.preparation.columns]
    assert told[:4] + told[5:] == CATEGORIES[:4] + CATEGORIES[5:]
    if kind not in ("columns", "rows"):  # those of Python have floats of 64 bits alone
        assert told[4] == CATEGORIES[4]
    of_file = gpubp.load_data(tmp_path / "a.csv", "y", reading=Reading(text=tuple(NUMBERS)), impute="mean", folds=4)
    assert same_bits(data.training.inputs, of_file.training.inputs)


def test_categories_that_are_numbers_are_names() -> None:
    codes = {"zip": pd.Categorical([5, 1, 5, 10]), "size": pd.Categorical([0.5, None, 2.0, 2.0]),
             "text": pd.Categorical(["07", "7", "x", "7"])}  # fmt: skip
    frame = pd.DataFrame({**codes, "shop": pd.Categorical([1, 1, 2, 2]), "y": pd.Categorical([3, 4, 3, 4])})
    for samples in (frame, pa.Table.from_pandas(frame)):
        data = gpubp.load_data(samples, "y", impute="mean", per="shop", validation=0)
        assert [each.categories for each in data.preparation.columns] == [
            ("1", "10", "5"),
            ("0.5", "2"),
            ("07", "7", "x"),
        ]
        assert data.training.targets.tolist() == [0, 1, 0, 1]
    ours = data.preparation
    for same in (frame, frame.assign(zip=[5, 1, 5, 10]), frame.assign(zip=["5", "1", "5", "10"])):
        assert same_bits(ours.plain(table_of(same, ours)), ours.plain(table_of(samples, ours)))


def test_whole_floats_are_texts_without_a_point_and_missing_ones_missing() -> None:
    frame = pd.DataFrame({"gap": [3.0, None, 4.0], "other": [None, 2.5, -0.0], "y": ["1", "2", "1"]})
    data = gpubp.load_data(frame, "y", reading=Reading(text=("gap", "other")), impute="mean", validation=0)
    assert [each.categories for each in data.preparation.columns] == [("3", "4"), ("0", "2.5")]
    large = pa.table({"gap": pa.array([2**64 - 1, None], pa.uint64())})
    assert from_arrow("a", large, reading=Reading(text=("gap",))).columns["gap"].tolist() == [str(2**64 - 1), None]
    assert arrow.unpacked(large, ()) < arrow.unpacked(large, ("gap",)) == 2 * arrow.TEXT
    with pytest.raises(DataError, match=r"'gap' lacks 1 of 3 values"):
        gpubp.load_data(frame, "y", reading=Reading(text=("gap", "other")), validation=0)
    with pytest.raises(DataError, match=r"'gap' holds floats so large that they may be rounded; integers or"):
        gpubp.load_data(frame.assign(gap=[1.0, 1e17, 2.0]), "y", reading=Reading(text=("gap",)))


def test_columns_of_arrays_are_texts_too(tmp_path: Path) -> None:
    for many in (np.array([[0, 5], [1, 6], [0, 7]]), np.array([[0.0, 5], [1.0, 6], [0.0, 7]])):
        np.savez(tmp_path / "a.npz", X=many, y=np.arange(3.0))
        data = gpubp.load_data(tmp_path / "a.npz", reading=Reading(text=("inputs[0]",)), validation=0)
        assert [each.categories for each in data.preparation.columns] == [("0", "1"), None]
        assert same_bits(data.preparation.inputs(table_of(tmp_path / "a.npz", data.preparation)), data.training.inputs)


def test_classes_and_entities_named_as_texts_are_texts() -> None:
    frame = pd.DataFrame({"shop": [7.0, 8.0] * 20, "x": range(40), "kind": [0, 1, 2, 1] * 10})
    data = gpubp.load_data(frame, "kind", per="shop", reading=Reading(text=("shop", "kind")))
    assert data.preparation.classes == ("0", "1", "2")
    assert data.preparation.entities is not None
    assert data.preparation.entities.values == (("7", "8"),)
    for samples in (frame, frame.astype({"shop": int}), frame.astype({"shop": int}).astype({"shop": str})):
        assert entity_of(table_of(samples, data.preparation), data.preparation.entities).tolist() == [0, 1] * 20
    with pytest.raises(DataError, match="'x' holds text, this loss needs numbers"):
        gpubp.load_data(frame, "x", loss="mean_squared_error", reading=Reading(text=("x",)))


def test_entities_of_a_parquet_file_may_have_large_numbers(tmp_path: Path) -> None:
    pd.DataFrame({"shop": [1e17, 2e17] * 20, "x": range(40), "y": range(40)}).to_parquet(tmp_path / "a.parquet")
    entities = gpubp.load_data(tmp_path / "a.parquet", "y", per="shop").preparation.entities
    assert entities is not None
    assert entities.values == ((10**17, 2 * 10**17),)


@pytest.mark.parametrize("name", ["delimiter", "encoding"])
def test_what_text_files_alone_have_is_refused_of_others(tmp_path: Path, frame: pd.DataFrame, name: str) -> None:
    frame.to_parquet(tmp_path / "a.Parquet", index=False)
    for samples, what in ((tmp_path / "a.Parquet", r"\S*a\.Parquet"), (frame, "a DataFrame")):
        with pytest.raises(
            ConfigError, match=f"^{name} '.*': only for files that end in .csv or .tsv, not for {what}$"
        ):
            gpubp.load_data(samples, "price", reading=Reading(**{name: ";" if name == "delimiter" else "latin-1"}))


@pytest.mark.parametrize("given", [{}, {"per": "shop"}, {"folds": 3}], ids=["all", "entities", "folds"])
def test_a_model_of_a_result_is_that_of_its_run_directory(
    tmp_path: Path, frame: pd.DataFrame, given: dict[str, Any]
) -> None:
    data = gpubp.load_data(frame, "town", reading=HOW, impute="mean", **given)
    design = [{"widths": f"{data.widths_in},{width},{data.widths_out}"} for width in (3, 2)]
    if given:
        places = range(data.training.networks)
        design = [row | {"fold": place} for row in design for place in places]
    common = {"loss": data.loss, "lr": 0.01, "epochs": 1, "batch_size": 16, "engine": "eager"}
    result = gpubp.train_many(design, data.training, data.validation, **common, run_dir=tmp_path / "run")
    model, loaded, samples = gpubp.Model.of(result), gpubp.load(tmp_path / "run"), frame.drop(columns="town")
    assert set(model.predict(samples)) <= {"Rome", "Oslo", "Lima"}
    assert np.array_equal(model.predict_proba(samples), loaded.predict_proba(samples))
    assert model.ranking().tolist() == loaded.ranking().tolist()
    assert same_bits(model.inputs(samples, 1), loaded.inputs(samples, 1))  # its fold's or entity's scaling


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros((3, 2)), "data: a ndarray; a file, or columns with names expected: .* gpubp.Dataset takes arrays"),
        (pd.Series([1.0]), "data: a Series; a file, or columns with names expected"),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "y"]), "data: 2 columns are called 'a'"),
        (pd.DataFrame([[1, 2, 3]], columns=[1, "1", "y"]), "data: 2 columns are called '1'"),
        (pd.DataFrame({"a": [1.0], "Y": [1]}), "data: column 'y' is missing; did you mean 'Y'?"),
        (pd.DataFrame({"a": [1, "x"], "y": [1, 2]}), "data: a DataFrame; .* values of one kind .*column a"),
        (pd.DataFrame({"a": [], "y": []}), "data holds no samples"),
        ({"a": [1.0, 2.0], "y": torch.zeros(3)}, "data: a dict; columns or rows of equal lengths expected"),
        ({"a": pd.to_datetime(["2024-01-01"]), "y": [1]}, "data: column 'a' holds dates"),
    ],
)
def test_what_is_no_table_is_refused(samples: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        gpubp.load_data(samples, target="y")


def test_a_frame_needs_a_target(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="data has no targets; target= or --target names the columns to predict"):
        gpubp.load_data(frame, reading=HOW)
