"""model_ of an estimator: its networks on raw samples, with scaling, names and labels of the fit, to be exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris

import gpubp
from gpubp.errors import SpecError
from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor

from .test_export import agree

FLOWERS, SPECIES = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
PEOPLE, DISEASE = load_diabetes(return_X_y=True, scaled=False)
SEVERAL = {"engine": "eager", "random_state": 0, "epochs": 4, "hidden_layer_sizes": [(5,), (4, 3)], "ensemble": 3}
ONE = {"engine": "eager", "random_state": 0, "max_iter": 4, "hidden_layer_sizes": (5, 4)}
CASES = {
    "three classes": (PopulationClassifier(5, activation=["gelu", "tanh"], dropout=0.2, **SEVERAL), FLOWERS, NAMES),
    "two classes": (PopulationClassifier(5, **SEVERAL), FLOWERS[:100], NAMES[:100]),
    "whole labels": (MLPClassifier(**ONE), FLOWERS, SPECIES.astype(float)),
    "yes or no": (PopulationClassifier(5, **SEVERAL), FLOWERS, np.eye(3, dtype=int)[SPECIES]),
    "numbers": (PopulationRegressor(5, **SEVERAL), PEOPLE, np.stack([DISEASE, -1000 * DISEASE], 1)),
    "a number": (PopulationRegressor(5, **SEVERAL), PEOPLE, DISEASE),
    "a rate": (MLPRegressor("poisson", **ONE), PEOPLE / 100, DISEASE / 100),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("name", CASES)
def test_the_model_of_an_estimator_and_its_files_say_what_it_says(name: str, tmp_path: Path) -> None:
    """For raw samples, in the units and labels of the fit."""
    estimator, X, y = CASES[name]
    estimator.fit(X, y)
    model, rows = estimator.model_, estimator.members_.tolist()
    assert model.ranking()[: len(rows)].tolist() == rows
    wanted: Any = estimator.predict(X)
    if name == "yes or no":
        np.testing.assert_array_equal(model.predict(X, rows) > 0.5, wanted)
        wanted = estimator.predict_proba(X)
    np.testing.assert_array_equal(model.predict(X, rows), wanted)
    again = gpubp.load(model.export(tmp_path / "networks.safetensors", rows))
    np.testing.assert_array_equal(again.predict(X, "all"), wanted)
    session = onnxruntime.InferenceSession(model.export(tmp_path / "networks.onnx", rows))
    names = [output.name for output in session.get_outputs()]
    said = dict(zip(names, session.run(names, {"numbers": X})))
    if "label" in said:
        assert said["label"].tolist() == wanted.tolist()
        agree(said["probabilities"], estimator.predict_proba(X), torch.float32)
    else:
        agree(said["prediction"], wanted, torch.float32)


def test_columns_have_the_names_of_the_fit() -> None:
    frame = pd.DataFrame(FLOWERS, columns=["y", "y_", "b", "a"])
    model = PopulationClassifier(2, (4,), epochs=1, engine="eager", random_state=0).fit(frame, NAMES).model_
    assert [each.name for each in model.preparation.columns] == ["y", "y_", "b", "a"]
    assert model.predict(frame[["a", "b", "y_", "y"]]).tolist() == model.predict(FLOWERS).tolist()
    assert model.classes == ("setosa", "versicolor", "virginica")


UNUSUAL = [3, 0, 1, 2], [0.5, 1.5, 2.5, 3.5], ["3", "0", "1", "2"], [("b", 2), ("a", 1), ("a", 2), ("b", 1)]


@pytest.mark.parametrize("names", UNUSUAL, ids=repr)
def test_a_frame_is_known_again_by_names_that_are_no_texts(names: list[Any]) -> None:
    several = isinstance(names[0], tuple)
    columns = pd.MultiIndex.from_tuples(names) if several else names
    frame = pd.DataFrame(FLOWERS, columns=columns, index=range(1, 151))
    fitted = PopulationClassifier(1, (4,), epochs=1, engine="eager", random_state=0).fit(frame, NAMES)
    wanted = fitted.predict(frame).tolist()
    assert [each.name for each in fitted.model_.preparation.columns] == [*map(str, names)]
    for given in (frame, frame[sorted(names)], FLOWERS):
        assert fitted.model_.predict(given).tolist() == wanted
    assert fitted.estimators_[0].model_.predict(frame).tolist() == fitted.estimators_[0].predict(frame).tolist()
    assert [each.name for each in fitted.fit(FLOWERS, NAMES).model_.preparation.columns] == ["x0", "x1", "x2", "x3"]


def test_an_estimators_networks_are_not_those_of_scikit_learn() -> None:
    made = MLPClassifier(**ONE)
    assert not hasattr(made, "model_")
    with pytest.raises(SpecError, match=r"sklearn's MLPClassifier .* gpubp\.sklearn's are model_\.populations"):
        gpubp.Population.from_estimators([made.fit(FLOWERS, NAMES)])
    assert made.model_.estimator()[-1].score(made.model_.inputs(FLOWERS), NAMES) == made.score(FLOWERS, NAMES)
