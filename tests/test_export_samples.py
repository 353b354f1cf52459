"""Files of Python answer samples in all their forms, with gaps, as the networks do, or
say what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest

import gpubp
from gpubp.fitting import fit
from gpubp.model import Model

from .files import table
from .helpers import population

TRAINED = {"rooms": [1.0, 2.0, 3.0, 4.0], "town": ["A", "B", "A", "C"], "area": [9.0, 7.0, 5.0, 8.0]}
NAN = math.nan
GAPS = {"rooms": [1.0, NAN, 3.0], "town": ["A", NAN, "C"], "area": [NAN, 6.0, 7.0]}
Predict = Callable[[Any], Any]


def networks(impute: str | None = "mean", count: int = 2) -> Model:
    data = fit(table({**TRAINED, "y": [1.0, 5.0, 2.0, 4.0]}), "mean_squared_error", impute=impute)
    return Model(population(gpubp.NetworkSpec((5, 4, 1), "tanh"), count), data)


def exported(model: Model, folder: Path) -> Predict:
    module: dict[str, Any] = {}
    exec(model.export(folder / "networks.py", [1, 0]).read_text(encoding="utf-8"), module)
    predict: Predict = module["predict"]
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
        ({**GAPS, "town": [1.0, 2.0, 3.0]}, "column 'town' holds other values than text"),
        ({**GAPS, "rooms": ["some", "few", "none"]}, "column 'rooms' holds other values than numbers"),
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
