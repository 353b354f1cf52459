"""Files of Python and estimators of scikit-learn answer samples in all their forms, with gaps, as the networks do, or
say what is wrong with them."""

import math
import pickle
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

import gpubp
from gpubp.errors import DataError
from gpubp.export.numpy import HELPERS
from gpubp.raw.arrow import as_text
from gpubp.raw.fitting import fit
from gpubp.results.model import Model

from .files import table
from .helpers import population, same_bits

TRAINED = {"rooms": [1.0, 2.0, 3.0, 4.0], "town": ["A", "B", "A", "C"], "area": [9.0, 7.0, 5.0, 8.0]}
NAN = math.nan
GAPS = {"rooms": [1.0, NAN, 3.0], "town": ["A", NAN, "C"], "area": [NAN, 6.0, 7.0]}
Predict = Callable[[Any], Any]


def networks(impute: str | None = "mean", count: int = 2) -> Model:
    data = fit(table({**TRAINED, "y": [1.0, 5.0, 2.0, 4.0]}), "mean_squared_error", impute=impute)
    return Model(population(gpubp.NetworkSpec((5, 4, 1), "tanh"), count), data)


def exported(model: Model, folder: Path) -> Predict:
    predict: Predict = run_path(str(model.export(folder / "networks.py", [1, 0])))["predict"]
    return predict


def filled(with_: Any) -> dict[str, list[Any]]:
    """GAPS with another missing value."""
    return {name: [with_ if each is NAN else each for each in values] for name, values in GAPS.items()}


FRAMES: dict[str, Any] = {
    "pandas": pandas.DataFrame(GAPS),
    "None": pandas.DataFrame(filled(None)),
    "string": pandas.DataFrame(filled(None)).astype({"rooms": "Float64", "town": "string"}),
    "object": pandas.DataFrame(filled(None)).astype({"town": object}),
    "NA": pandas.DataFrame({**GAPS, "town": pandas.Series(["A", pandas.NA, "C"], dtype=object)}),
    "category": pandas.DataFrame(GAPS).astype({"town": "category"}),
    "polars": polars.DataFrame(filled(None)),
}
ROWS: dict[str, Any] = {"rows": [*zip(*GAPS.values())], "array": np.array([*zip(*filled(None).values())], object)}
MAPPINGS: dict[str, Any] = {
    "lists": GAPS,
    "lists of None": filled(None),
    "lists of NA": filled(pandas.NA),
    "arrays": {name: np.array(values, object) for name, values in GAPS.items()},
    "series": {name: polars.Series(values) for name, values in filled(None).items()},
    "to_dict": pandas.DataFrame(GAPS).to_dict("list"),
    "all missing": {**GAPS, "town": [NAN, NAN, NAN]},
}
ALL = FRAMES | ROWS | MAPPINGS


@pytest.mark.parametrize("given", ALL.values(), ids=[*ALL])
def test_a_python_file_fills_what_is_missing_as_the_networks_do(given: Any, tmp_path: Path) -> None:
    model = networks()
    np.testing.assert_allclose(exported(model, tmp_path)(given), model.predict(given, [1, 0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({**GAPS, "area": [1.0]}, "columns of 3, 3, 1 samples; equal lengths expected"),
        ({name: GAPS[name] for name in ("rooms", "area")}, "samples have no column 'town'; rooms, town, area expected"),
        (polars.DataFrame(filled(None)).drop("area"), "samples have no column 'area'"),
        (None, "samples have no column 'rooms'"),
        ({**GAPS, "town": [1.0, 2.0, 3.0]}, "column 'town' is not text, as it was in training"),
        ({**GAPS, "rooms": ["some", "few", "none"]}, "column 'rooms' is not numeric, as it was in training"),
        ({**GAPS, "rooms": [1.0, 2.0, math.inf]}, "column 'rooms' holds infinity"),
        ({**GAPS, "rooms": 1.0}, r"column 'rooms' has shape \(\); a value per sample expected"),
        ({**GAPS, "rooms": [[1.0, 2.0, 3.0]]}, r"column 'rooms' has shape \(1, 3\)"),
        ([[1.0, "A", 2.0], [1.0]], r"samples \(2,\): \(M, 3\) expected"),
    ],
)
def test_a_python_file_says_what_is_wrong_with_samples(given: Any, what: str, tmp_path: Path) -> None:
    model = networks()
    with pytest.raises(ValueError, match=what):
        exported(model, tmp_path)(given)
    with pytest.raises(ValueError, match="samples"):
        model.predict(given, [1, 0])


COUNTED: dict[str, list[Any]] = {
    "day": [0, 1, 2, 1], "size": [1.0, NAN, 0.1, 1.0], "flag": [True, False, True, True], "rooms": [1.5, 2.0, 3.0, 4.0]
}  # fmt: skip
OF_NUMBERS: dict[str, Any] = {
    "pandas": pandas.DataFrame(COUNTED),
    "float32": pandas.DataFrame(COUNTED).astype({"size": np.float32, "day": np.uint8}),
    "nullable": pandas.DataFrame(COUNTED).astype({"day": "Int64", "size": "Float64", "flag": "boolean"}),
    "category": pandas.DataFrame(COUNTED).astype({"day": "category", "size": "category"}),
    "decimal": pandas.DataFrame({**COUNTED, "size": [Decimal("1.00"), None, Decimal("0.10"), Decimal("1.00")]}),
    "texts": pandas.DataFrame({**COUNTED, "day": [*"0121"], "size": ["1", None, "0.1", "1"]}),
    "polars": polars.DataFrame({**COUNTED, "size": [1.0, None, 0.1, 1.0]}),
    "unseen": pandas.DataFrame({**COUNTED, "day": [7, 1, 0, 2], "size": ["1.0", "1", "0.1", "0.10"]}),
    "rows": np.array([*zip(*COUNTED.values())], object),
}


def of_numbers() -> Model:
    """Networks of columns of texts that were numbers."""
    reading = gpubp.Reading(text=("day", "size", "flag"))
    frame = pandas.DataFrame({**COUNTED, "y": [1.0, 2.0, 3.0, 4.0]})
    data = gpubp.load_data(frame, "y", reading=reading, loss="mean_squared_error", impute="mean", validation=0)
    return Model(population(gpubp.NetworkSpec((data.widths_in, 4, 1), "tanh"), 2), data.preparation)


@pytest.mark.parametrize("given", OF_NUMBERS.values(), ids=[*OF_NUMBERS])
@pytest.mark.filterwarnings("ignore:.* which training did not have; they count as no category")
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_numbers_are_the_texts_that_training_took_them_for_everywhere(given: Any, tmp_path: Path) -> None:
    model = of_numbers()
    assert [each.categories for each in model.preparation.columns][:3] == [
        ("0", "1", "2"), ("0.1", "1"), ("False", "True")
    ]  # fmt: skip
    wanted = model.predict(given, [1, 0])
    np.testing.assert_allclose(exported(model, tmp_path)(given), wanted, rtol=1e-12)
    estimator = pickle.loads(pickle.dumps(model.estimator([1, 0])))
    np.testing.assert_allclose(estimator.predict(given), wanted, rtol=1e-12)
    if isinstance(given, pandas.DataFrame) and given["day"].nunique() == 3 and given["size"].nunique() == 2:
        assert same_bits(model.inputs(given, 0), model.inputs(OF_NUMBERS["texts"], 0))


def test_an_estimator_names_what_it_makes_of_texts() -> None:
    for model, texts in (
        (of_numbers(), ["day_0", "day_1", "day_2", "size_0.1", "size_1", "flag_False", "flag_True", "rooms"]),
        (networks(), ["rooms", "town_A", "town_B", "town_C", "area"]),
    ):
        names = model.estimator([0])[:-1].get_feature_names_out()
        assert [name.split("__")[1] for name in names] == texts


def test_whole_numbers_that_a_frame_rounds_are_refused_by_an_export(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"id": pandas.array([2**60 + 1, 2**60 + 3] * 4, dtype="Int64"), "y": range(8)})
    data = gpubp.load_data(frame, "y", reading=gpubp.Reading(text=("id",)), impute="mean", validation=0)
    model = Model(population(gpubp.NetworkSpec((2, 1)), 2), data.preparation)
    given = frame[["id"]].astype(float)
    for predict in (exported(model, tmp_path), model.estimator([1, 0]).predict, partial(model.predict, networks=[0])):
        with pytest.raises((ValueError, TypeError), match=r"is not text|requires a 'str'|holds numbers, but text"):
            predict(given)
    np.testing.assert_allclose(exported(model, tmp_path)(frame), model.predict(frame, [1, 0]), rtol=1e-12)


def test_numbers_in_the_place_of_other_texts_are_refused_everywhere(tmp_path: Path) -> None:
    for texts, numbers in (
        (["A", "B", "A", "C"], [1, 2, 1, 2]),
        (["1", "2", "1", "3a"], [1, 2, 1, 2]),
        (["007", "008", "009", "007"], [1, 2, 1, 2]),
        (["1.0", "2", "1.0", "2"], [1, 2, 1, 2]),
        (["1", "2", "1", "2"], [True, False, True, False]),
        (["True", "False", "True", "False"], [1, 0, 1, 0]),
    ):
        trained = pandas.DataFrame({**TRAINED, "town": texts, "y": [1.0, 5.0, 2.0, 4.0]})
        reading = gpubp.Reading(text=("town",))
        data = gpubp.load_data(trained, "y", reading=reading, loss="mean_squared_error", impute="mean", validation=0)
        model = Model(population(gpubp.NetworkSpec((data.widths_in, 4, 1), "tanh"), 2), data.preparation)
        given = pandas.DataFrame({**TRAINED, "town": numbers})
        with pytest.raises(DataError, match="column 'town' holds numbers, but text in training"):
            model.predict(given, [1, 0])
        with pytest.raises(ValueError, match="column 'town' is not text, as it was in training"):
            exported(model, tmp_path)(given)
        with pytest.raises(TypeError, match=r"requires a 'str' object but received a '(numpy\.)?(int|bool)\w*'"):
            model.estimator([1, 0]).predict(given)


def test_a_python_file_takes_numbers_for_the_texts_that_gpubp_does() -> None:
    scope: dict[str, Any] = {"np": np}
    exec(HELPERS["as_texts"], scope)
    for value, text in ((3, "3"), (3.0, "3"), (-0.0, "0"), (0.1, "0.1"), (np.float32(0.1), "0.1"), (np.int8(4), "4"),
                        (True, "True"), (np.bool_(False), "False"), (Decimal("2.00"), "2"), (Decimal("0.50"), "0.5"),
                        (2**70, str(2**70)), (math.inf, "inf"), (1e17, 1e17), (2.0**53, str(2**53)), ("3.0", "3.0"),
                        (Decimal("12345678901234567890.5"), "12345678901234567890.5"),
                        (Decimal("0.12345678901234567891"), "0.12345678901234567891"),
                        (Decimal("1E-7"), "1e-07"), (Decimal("1E+22"), f"1{'0' * 22}"), (10**400, f"1{'0' * 400}"),
                        (np.float32(2**24), str(2**24)), (np.float32(2**24 + 2), 2**24 + 2),
                        (Decimal("1E+99999999"), Decimal("1E+99999999")), (None, None),
                        (pandas.NaT, pandas.NaT)):  # fmt: skip
        assert all(found is text or found == text for found in (as_text(value), scope["as_text"](value)))


@pytest.mark.parametrize("frame", FRAMES.values(), ids=[*FRAMES])
@pytest.mark.parametrize("rows", [[0], [1, 0]])
def test_an_estimator_fills_what_a_frame_misses_and_takes_columns_by_name(frame: Any, rows: list[int]) -> None:
    model = networks()
    estimator, wanted = model.estimator(rows), model.predict(frame, rows)
    assert estimator.feature_names_in_.tolist() == [*TRAINED]
    for given in (frame, frame[["town", "area", "rooms"]]):
        np.testing.assert_allclose(estimator.predict(given), wanted, rtol=1e-12)
    with pytest.raises(ValueError, match=r"columns are missing: \{'town'\}"):
        estimator.predict(frame[["rooms", "area"]])


@pytest.mark.parametrize("given", ROWS.values(), ids=[*ROWS])
def test_an_estimator_fills_what_rows_miss_and_says_that_they_have_no_names(given: Any) -> None:
    model = networks()
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        said = model.estimator([0]).predict(np.array(given, object))
    np.testing.assert_allclose(said, model.predict(given, [0]), rtol=1e-12)


@pytest.mark.parametrize("gap", [None, NAN, pandas.NA])
@pytest.mark.parametrize("name", [*TRAINED])
def test_what_training_refused_as_missing_is_refused_everywhere(name: str, gap: Any, tmp_path: Path) -> None:
    model = networks(impute=None)
    column = pandas.Series([gap, *TRAINED[name][1:]], dtype=object if name == "town" else "Float64")
    for predict in (model.estimator([0]).predict, exported(model, tmp_path), partial(model.predict, networks=[0])):
        with pytest.raises(ValueError, match=r"contains NaN|column .* has missing values|lacks 1 of 4"):
            predict(pandas.DataFrame({**TRAINED, name: column}))


def test_numbers_by_place_have_no_names_for_scikit_learn() -> None:
    columns = {f"inputs[{at}]": [1.0, 2.0, 3.0] for at in range(2)}
    data = fit(table({**columns, "y": [1.0, 2.0, 3.0]}), "mean_squared_error")
    estimator = Model(population(gpubp.NetworkSpec((2, 1)), 1), data).estimator([0])
    assert not hasattr(estimator, "feature_names_in_")
    assert estimator.predict(np.ones((3, 2))).shape == (3,)
