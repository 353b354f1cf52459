"""model_ of an estimator: its networks on raw samples, with scaling, names and labels of the fit, to be exported. And
what further calls of fit() and partial_fit() change and keep."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris

import gpubp
from gpubp.errors import SpecError
from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor

from .test_export import agree

FLOWERS, SPECIES = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[SPECIES]
PEOPLE, DISEASE = load_diabetes(return_X_y=True, scaled=False)
SMALL: dict[str, Any] = {"engine": "eager", "random_state": 0}
SEVERAL = {**SMALL, "epochs": 4, "hidden_layer_sizes": [(5,), (4, 3)], "ensemble": 3}
ONE = {**SMALL, "max_iter": 4, "hidden_layer_sizes": (5, 4)}
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


def test_a_fit_keeps_nothing_of_the_one_before() -> None:
    """Scaling too, which the second does without."""
    numbers = PopulationRegressor(2, (4,), epochs=2, **SMALL).fit(FLOWERS, SPECIES)
    for given in ({"scale_inputs": False}, {"scale_targets": False}, {"loss": "poisson"}):
        numbers.set_params(**given).fit(FLOWERS, SPECIES)
        np.testing.assert_array_equal(numbers.predict(FLOWERS), clone(numbers).fit(FLOWERS, SPECIES).predict(FLOWERS))


def test_scaling_that_a_warm_start_asks_for_first_is_fitted_then() -> None:
    model = PopulationClassifier(2, (4,), epochs=2, scale_inputs=False, warm_start=True, **SMALL).fit(FLOWERS, SPECIES)
    model.set_params(scale_inputs=True).fit(FLOWERS, SPECIES)
    np.testing.assert_allclose(model.input_scaler_.mean_, FLOWERS.mean(0))


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_a_changed_activation_and_precision_are_those_of_the_networks(call: str) -> None:
    def more(model: Any) -> Any:
        return model.fit(FLOWERS, SPECIES) if call == "fit" else model.partial_fit(FLOWERS, SPECIES, classes=range(3))

    model = more(MLPClassifier((4,), max_iter=2, warm_start=True, **SMALL))
    weights = model.coefs_[0]
    more(model.set_params(activation="tanh", dtype="float64", learning_rate_init=1e-9))
    (population,) = model.model_.populations.each
    assert (population.spec.hidden, population.params.dtype) == ("tanh", torch.float64)
    np.testing.assert_allclose(model.coefs_[0], weights, atol=1e-6)
    hidden = np.tanh(FLOWERS @ model.coefs_[0] + model.intercepts_[0])
    logits = hidden @ model.coefs_[1] + model.intercepts_[1]
    np.testing.assert_array_equal(model.predict(FLOWERS), logits.argmax(1))


def test_targets_of_another_shape_are_refused_as_such() -> None:
    both = np.stack([SPECIES, SPECIES], 1)
    model = PopulationRegressor(1, (4,), epochs=1, **SMALL).partial_fit(FLOWERS, both)
    with pytest.raises(ValueError, match="y has 1 numbers per sample; 2 expected, as in the first call"):
        model.partial_fit(FLOWERS, SPECIES)


def test_few_samples_to_train_on_are_of_any_class() -> None:
    """One of 150."""
    model = PopulationClassifier(1, (4,), epochs=1, early_stopping=True, validation_fraction=0.99, **SMALL)
    assert model.fit(FLOWERS, SPECIES).t_ == 1


def test_an_estimator_of_one_network_has_its_parameters_and_trains_on_with_them() -> None:
    rates, norms = np.array([0.0, 0.1]), {"clip_norm": [1.0, 0.2]}
    several = PopulationClassifier(4, [(4,), (3,)], "tanh", epochs=1, lr=rates, settings=norms, **SMALL)
    several.set_params(n_networks=8).fit(FLOWERS, SPECIES)
    found, still = set(), 0
    for one in several.estimators_:
        own, before = one.get_params(), one.predict_proba(FLOWERS)
        spec = one.model_.spec
        assert (spec.widths[1:-1], spec.hidden) == (own["hidden_layer_sizes"], own["activation"])
        assert one.model_.results["lr"].to_pylist() == [pytest.approx(own["lr"])]
        found.add((spec.widths, spec.hidden, own["lr"], own["settings"]["clip_norm"]))
        after = one.partial_fit(FLOWERS, SPECIES).predict_proba(FLOWERS)
        assert one.model_.spec == spec
        still += np.array_equal(before, after)
    assert (len(found), still) == (8, 4)


@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_networks_with_several_sizes_of_batches_train_on(call: str) -> None:
    """Whose last one lacks different numbers of samples, to the bits of those that have one size."""
    given: dict[str, Any] = {"n_iter_no_change": None, "epochs": 1, "warm_start": True, **SMALL}
    both, *ones = (PopulationClassifier(4, (4,), batch_size=batch, **given) for batch in ([20, 28], 20, 28))
    more = {"classes": [0, 1, 2]} if call == "partial_fit" else {}
    for part in (slice(0, 113), slice(20, 150)):
        for each in (both, *ones):
            getattr(each, call)(FLOWERS[part], SPECIES[part], **more)
        for at, one in enumerate(ones):
            assert both.losses_[at::2].tolist() == one.losses_[at::2].tolist()


def test_an_estimator_of_one_network_has_its_own_length_and_no_curve_of_the_others() -> None:
    several = PopulationClassifier(4, (4,), epochs=[1, 3], **SMALL).fit(FLOWERS, SPECIES)
    assert (several.n_iter_, len(several.history_)) == (3, 3)
    for one in several.estimators_:
        assert one.n_iter_ == one.epochs
        assert one.history_ == one.loss_curve_ == []
        one.partial_fit(FLOWERS, SPECIES)
        assert one.loss_curve_ == [record["loss"]["max"] for record in one.history_]
        assert (one.n_iter_, len(one.history_)) == (1, 1)
    assert len(several.history_) == len(several.loss_curve_) == 3
