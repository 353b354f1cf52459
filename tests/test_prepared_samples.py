"""A preparation on samples that come after training, and read from JSON again."""

import copy
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpubp.errors import DataError, GpubpError
from gpubp.raw.fitting import fit
from gpubp.raw.frames import checked
from gpubp.raw.preparation import Preparation
from gpubp.raw.tables import read
from gpubp.samples.sources import load_data

from .files import FLOWERS, Write, refused, table


def test_a_category_that_training_did_not_have_is_all_zeros() -> None:
    learned = fit(table({"colour": ["red", "blue"], "y": [0.5, 1.5]}), "huber")
    assert learned.inputs(table({"colour": ["green", "red"]}, ())).tolist() == [[0, 0], [0, 1]]


def test_extra_columns_are_ignored_and_the_order_is_that_of_training(write: Write) -> None:
    learned = load_data(write("flowers.csv", FLOWERS), target="kind", scale="none", validation=0).preparation
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
    learned = load_data(tmp_path / "2.npz").preparation
    with refused("3.npz: inputs (4, 3): the last size must be 2, as in training"):
        learned.inputs(read(tmp_path / "3.npz"))


def test_an_npz_without_targets_serves_prediction(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", X=np.array([["a"], ["b"]]), y=np.array(["yes", "no"]))
    np.savez(tmp_path / "new.npz", X=np.array([["b"]]))
    data = load_data(tmp_path / "train.npz", validation=0)
    assert data.training.targets.tolist() == [1, 0]
    assert data.preparation.inputs(read(tmp_path / "new.npz")).tolist() == [[0, 1]]


def test_a_column_of_another_type_is_refused() -> None:
    learned = fit(table({"a": [1, 2], "b": ["x", "z"], "y": [0.5, 1.5]}), "huber")
    with refused("column 'a' holds text, the first 'one' in sample 1, but numbers in training"):
        learned.inputs(table({"a": ["1", "one"], "b": ["x", "x"]}, ()))
    with refused("column 'a' holds text, the first '1' in sample 0, but numbers in training"):
        learned.inputs(table({"a": ["1"], "b": ["x"]}, ()))
    with refused("column 'b' holds numbers, but text in training"):
        learned.inputs(table({"a": [1], "b": [1]}, ()))


def test_codes_that_look_like_numbers_are_read_as_the_text_they_were(write: Write) -> None:
    data = load_data(write("a.csv", "code,y\nA1,x1\n007,02\n"), target="y", validation=0)
    assert data.preparation.reading.text == ("code", "y")
    raw = read(write("new.csv", "code,y\n007,02\n"), reading=data.preparation.reading)
    assert data.preparation.inputs(raw).tolist() == [[1, 0]]
    assert data.preparation.targets(raw).tolist() == [0]


def test_a_file_with_columns_unlike_those_of_training_gives_a_warning() -> None:
    data = load_data("diabetes")
    sklearn = pytest.importorskip("sklearn.datasets")
    for scaled, count in ((False, 0), (True, 10)):
        bunch = sklearn.load_diabetes(scaled=scaled)
        columns = dict(zip(bunch.feature_names, bunch.data.T.tolist()))
        strange = data.preparation.strange(table(columns, ()))
        assert len(strange) == count, strange
    with pytest.warns(UserWarning, match="from training|in training") as warned:
        checked(table(columns, ()), data.preparation)
    assert [str(each.message).partition(": ")[2] for each in warned] == [
        *strange[:3],
        "7 more columns differ from training",
    ]
    assert strange[2].startswith("column 'bmi' holds -0.0902753 to 0.170555, in training 18")
    assert strange[2].endswith("are the units the same?")
    learned = fit(table({"colour": ["red", "blue"], "x": [1.0, 3.0], "y": [0.5, 1.5]}), "huber")
    again = Preparation.from_dict(learned.to_dict())
    for made in (learned, again):
        assert made.strange(table({"colour": ["red", "blue"], "x": [3.0, np.nan]}, ())) == []
        assert made.strange(table({"colour": ["red", "green", "red", "rot", "green"], "x": [3.0] * 5}, ())) == [
            "column 'colour' holds green, rot in 3 of 5 samples, which training did not have; they count as no category"
        ]
        assert made.strange(table({"colour": ["green", "rot"], "x": [3.1, 4.0]}, ())) == [
            "column 'colour' holds green, rot; in training blue, red",
            "column 'x' holds 3.1 to 4, in training 1 to 3; are the units the same?",
        ]


def test_an_empty_column_of_any_type_is_filled(write: Write) -> None:
    learned = load_data(
        write("a.csv", "c,y\nr,0.5\nb,1.5\nb,2.5\n"), target="y", impute="mean", validation=0
    ).preparation
    assert learned.inputs(read(write("new.csv", "c,d\n,1\n"))).tolist() == [[1, 0]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything in nested dicts and lists."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def test_a_preparation_with_a_value_of_another_type_is_refused_or_means_that_value() -> None:
    raw = table({"x": [1.0, 2.0, 4.0], "c": ["a", "b", "a"], "y": ["no", "yes", "no"]})
    values, refused, taken = fit(raw, "cross_entropy", scale="standard").to_dict(), 0, []
    for place in places(values):
        for other in (None, 1, -1.5, math.inf, math.nan, 10**400, "zz", True, [], [1], ["a", "a"], {}, {"a": 1}):
            changed = {"all": copy.deepcopy(values)}
            *path, last = ("all", *place)
            inner: Any = changed
            for key in path:
                inner = inner[key]
            inner[last] = other
            try:
                read = Preparation.from_dict(changed["all"])
            except GpubpError:
                refused += 1
                continue
            taken.append((place, other))
            with suppress(DataError):  # of a column by another name
                inputs = read.inputs(raw)
                assert inputs.dtype == torch.float64
                assert inputs.shape == (3, read.width_in)
                read.strange(raw)
            assert json.dumps(read.to_dict()) == json.dumps(Preparation.from_dict(read.to_dict()).to_dict())
    assert refused > 10 * len(taken) / 2
    assert (("columns", 0, "factor"), -1.5) not in taken
    assert (("classes",), "zz") not in taken


def test_a_preparation_without_reading_can_be_loaded() -> None:
    learned = fit(table({"x": [1.0, 2.0, 3.0], "c": ["a", "b", "a"], "y": ["no", "yes", "no"]}), "cross_entropy")
    values = learned.to_dict()
    del values["reading"]
    again = Preparation.from_dict(values)
    assert again.reading.text == ("c", "y")
    assert again.to_dict()["columns"] == learned.to_dict()["columns"]
