"""gpubp.sklearn: estimators behind scikit-learn's interface."""

import inspect
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler

import gpubp
from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor
from gpubp.sklearn.mlp import invscaling

from .helpers import covering

SMALL = {"engine": "eager", "random_state": 0}
FLOWERS, SPECIES = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"], dtype=object)[SPECIES]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def flowers():
    return PopulationClassifier(6, (8,), lr="1e-2..1e-1:log", epochs=12, **SMALL).fit(FLOWERS, NAMES)


def test_a_population_learns_and_predicts_the_mean_of_its_networks(flowers):
    assert accuracy_score(NAMES, flowers.predict(FLOWERS)) > 0.9
    each = np.stack([one.predict_proba(FLOWERS) for one in flowers.estimators_])
    mean, spread = flowers.predict_proba(FLOWERS, return_std=True)
    np.testing.assert_allclose(each.mean(0), flowers.predict_proba(FLOWERS), atol=1e-7)
    np.testing.assert_allclose(each.mean(0), mean, atol=1e-7)
    np.testing.assert_allclose(each.std(0), spread, atol=1e-7)
    assert spread.max() > 1e-3
    assert len({float(one.losses_[0]) for one in flowers.estimators_}) == 6


def test_the_best_networks_predict_in_the_order_of_their_losses(flowers):
    best = clone(flowers).set_params(ensemble=2).fit(FLOWERS, NAMES)
    assert best.members_.tolist() == flowers.losses_.argsort()[:2].tolist()
    each = [flowers.estimators_[place].predict_proba(FLOWERS) for place in range(2)]
    np.testing.assert_allclose(best.predict_proba(FLOWERS), np.mean(each, axis=0), atol=1e-7)


def test_networks_have_their_own_topologies_and_settings():
    given = {"hidden_layer_sizes": [(4,), (6, 5)], "activation": ["relu", "tanh"], "batch_size": [32, 50]}
    model = PopulationClassifier(8, epochs=1, **given, settings={"clip_norm": 1.0}, **SMALL).fit(FLOWERS, SPECIES)
    found = {(each.spec.widths, each.spec.hidden) for each in model.model_.populations.each}
    assert found == {((4, *sizes, 3), name) for sizes in ((4,), (6, 5)) for name in ("relu", "tanh")}
    assert len(model.model_.populations.each) == 8
    sizes = [one.hidden_layer_sizes for one in model.estimators_]
    assert sorted(sizes) == [(4,)] * 4 + [(6, 5)] * 4
    assert [one.model_.spec.widths[1:-1] for one in model.estimators_] == sizes


def test_predictions_of_a_regressor_are_in_the_units_of_the_targets():
    X, y = (each[::2] for each in load_diabetes(return_X_y=True, scaled=False))
    model = PopulationRegressor(2, (8,), lr=0.03, epochs=12, **SMALL).fit(X, y)
    assert model.score(X, y) > 0.4
    mean, spread = model.predict(X, return_std=True)
    np.testing.assert_allclose(mean, np.mean([one.predict(X) for one in model.estimators_], axis=0), rtol=1e-6)
    assert 0.1 < spread.mean() < y.std()
    both = clone(model).fit(X, np.stack([y, -1000 * y], 1))
    assert both.predict(X).shape == (len(X), 2)
    assert np.corrcoef(both.predict(X)[:, 0], -both.predict(X)[:, 1])[0, 1] > 0.9


def test_early_stopping_keeps_each_network_at_its_best_epoch():
    given = {"lr": [0.01, 0.3], "epochs": 20, "n_iter_no_change": 3, "early_stopping": True}
    model = PopulationClassifier(2, (8,), validation_fraction=0.2, **given, **SMALL).fit(FLOWERS, NAMES)
    best = min(record["validation_loss"]["min"] for record in model.history_)
    assert model.losses_.min() == pytest.approx(best)
    assert len(model.history_) == len(model.loss_curve_) >= model.n_iter_


def test_samples_to_stop_by_are_held_out_where_there_are_enough():
    """Not where a class has a single sample, nor in partial_fit; samples of weight 0 count as absent."""
    X, y = np.r_[FLOWERS, FLOWERS + 0.1], np.r_[NAMES, NAMES]
    rare, absent = np.append(y[:-1], "rare"), np.repeat([1.0, 0.0], 150)
    cases = (X, y, None, True), (X[:199], y[:199], None, False), (X, rare, None, False), (X, y, absent, False)
    for inputs, labels, weight, held_out in cases:
        model = PopulationClassifier(2, (8,), epochs=2, **SMALL).fit(inputs, labels, weight)
        assert (model.history_[-1]["validation_loss"] is not None) == held_out
    part = PopulationClassifier(2, (8,), **SMALL).partial_fit(X, y, np.unique(y))
    assert part.history_[-1]["validation_loss"] is None
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        PopulationClassifier(2, (8,), early_stopping=True, **SMALL).partial_fit(X, y, np.unique(y))


def test_few_samples_are_held_out_of_any_class_as_in_scikit_learn():
    """Two of thirteen, of three classes."""
    X, y = FLOWERS[::12], NAMES[::12]
    theirs = neural_network.MLPClassifier(early_stopping=True, max_iter=2).fit(X, y)
    for model in (
        MLPClassifier((4,), early_stopping=True, max_iter=2, **SMALL),
        PopulationClassifier(1, (4,), early_stopping=True, epochs=2, **SMALL),
    ):
        assert model.fit(X, y).predict_proba(X).shape == theirs.predict_proba(X).shape == (13, 3)
        assert model.history_[-1]["validation_loss"] is not None
    with pytest.raises(ValueError, match="The validation set is too small"):
        model.fit(X[[0, -1]], y[[0, -1]])


def test_warm_start_and_partial_fit_go_on_with_the_same_networks():
    model = PopulationClassifier(2, (8,), lr=0.03, epochs=2, warm_start=True, **SMALL).fit(FLOWERS, NAMES)
    first, scaler = model.losses_, model.input_scaler_
    model.fit(FLOWERS, NAMES).fit(FLOWERS, NAMES)
    assert (model.losses_ < 0.8 * first).all()
    assert model.input_scaler_ is scaler
    assert len(model.loss_curve_) == 6
    parts = clone(model)
    for _ in range(6):
        parts.partial_fit(FLOWERS, NAMES, classes=np.unique(NAMES))
    assert parts.t_ == 6 * len(FLOWERS) == model.t_
    assert (parts.losses_ < 0.8 * first).all()
    with pytest.raises(ValueError, match="the topology has changed"):
        model.set_params(hidden_layer_sizes=(4,)).fit(FLOWERS, NAMES)


def test_partial_fit_keeps_the_memory_of_the_optimizers():
    given = {"hidden_layer_sizes": [(8,), (4,)], "lr": 0.01, "settings": {"shuffle": "none"}, "n_iter_no_change": None}
    whole = PopulationClassifier(3, epochs=3, **given, **SMALL).fit(FLOWERS, NAMES)
    parts = clone(whole)
    for _ in range(3):
        parts.partial_fit(FLOWERS, NAMES, classes=np.unique(NAMES))
    np.testing.assert_array_equal(parts.predict_proba(FLOWERS), whole.predict_proba(FLOWERS))


def test_partial_fit_knows_labels_that_come_later():
    model = MLPClassifier((8,), **SMALL).partial_fit(FLOWERS[:50], NAMES[:50], classes=np.unique(NAMES))
    model.partial_fit(FLOWERS[50:], NAMES[50:])
    assert model.predict_proba(FLOWERS).shape == (150, 3)
    with pytest.raises(ValueError, match=r"labels that are not in classes: \['iris'\]"):
        model.partial_fit(FLOWERS[:1], ["iris"])


def test_a_class_weight_is_a_weight_of_its_samples():
    given = {"epochs": 3, **SMALL}
    weight = {"setosa": 1.0, "versicolor": 5.0, "virginica": 0.5}
    by_class = PopulationClassifier(1, (8,), class_weight=weight, **given).fit(FLOWERS, NAMES)
    by_sample = PopulationClassifier(1, (8,), **given).fit(FLOWERS, NAMES, [weight[name] for name in NAMES])
    np.testing.assert_array_equal(by_class.predict_proba(FLOWERS), by_sample.predict_proba(FLOWERS))
    neither = PopulationClassifier(1, (8,), **given).fit(FLOWERS, NAMES)
    assert np.abs(by_class.predict_proba(FLOWERS) - neither.predict_proba(FLOWERS)).max() > 1e-3


def test_samples_of_weight_0_are_as_absent():
    X, y = np.r_[FLOWERS, 1e6 + FLOWERS], np.r_[SPECIES, SPECIES]
    model = PopulationClassifier(2, (8,), lr=0.03, epochs=10, **SMALL).fit(X, y, np.repeat([1.0, 0.0], 150))
    np.testing.assert_allclose(model.input_scaler_.mean_, FLOWERS.mean(0))
    assert model.score(FLOWERS, SPECIES) > 0.9


def test_a_fitted_estimator_is_the_same_after_pickle_and_joblib(flowers):
    stored = io.BytesIO()
    joblib.dump(flowers, stored)
    for other in (pickle.loads(pickle.dumps(flowers)), joblib.load(io.BytesIO(stored.getvalue()))):
        np.testing.assert_array_equal(other.predict_proba(FLOWERS), flowers.predict_proba(FLOWERS))
    assert not hasattr(clone(flowers), "model_")
    given = FLOWERS, NAMES, np.unique(NAMES)
    several = (PopulationClassifier(count, (4,), **SMALL).partial_fit(*given) for count in (4, 40))
    sizes = [len(pickle.dumps(each.estimators_[0])) for each in several]
    assert max(sizes) < min(sizes) + 500  # nothing of the others


def test_a_random_state_decides_all(flowers):
    again = clone(flowers).fit(FLOWERS, NAMES)
    np.testing.assert_array_equal(again.predict_proba(FLOWERS), flowers.predict_proba(FLOWERS))
    other = clone(flowers).set_params(random_state=np.random.RandomState(1)).fit(FLOWERS, NAMES)
    assert np.abs(other.predict_proba(FLOWERS) - flowers.predict_proba(FLOWERS)).max() > 1e-3


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_a_stand_in_has_the_parameters_of_scikit_learn(name):
    ours, theirs = (
        inspect.signature(getattr(module, name).__init__).parameters for module in (gpubp.sklearn, neural_network)
    )
    assert {key: value.default for key, value in theirs.items()}.items() <= {
        key: value.default for key, value in ours.items()
    }.items()
    assert {*ours} - {*theirs} == {"dtype", "device", "engine"}
    assert [*ours][: len(theirs)] == [*theirs]


SOLVERS = [
    {"solver": "adam", "beta_1": 0.8, "beta_2": 0.99, "alpha": 0.1, "epsilon": 1e-12},
    {"solver": "sgd", "momentum": 0.8, "alpha": 0.1},
    {"solver": "sgd", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3, "momentum": 0},
    {"activation": "logistic", "epsilon": 1e-12},
    {"activation": "identity", "hidden_layer_sizes": ()},
]


@pytest.mark.parametrize(("given", "kind"), covering(SOLVERS, ["classes", "numbers", "poisson"], meet=1))
def test_a_step_of_a_stand_in_is_that_of_scikit_learn(kind, given):
    """From the same weights, with all samples in a batch, where no random number is left."""
    X = StandardScaler().fit_transform(FLOWERS[::2])
    y = {"classes": SPECIES, "numbers": FLOWERS[:, :2] * 3, "poisson": np.round(FLOWERS[:, :2])}[kind][::2]
    name = "MLPClassifier" if kind == "classes" else "MLPRegressor"
    given = {"hidden_layer_sizes": (5,), "learning_rate_init": 0.01, "batch_size": len(X), "random_state": 0} | given
    given |= {"loss": "poisson"} if kind == "poisson" else {}
    (theirs, ours) = (getattr(module, name)(**given) for module in (neural_network, gpubp.sklearn))
    ours.set_params(engine="eager", dtype="float64", warm_start=True, max_iter=4, tol=0)
    theirs.set_params(warm_start=True, max_iter=1).fit(X, y)
    ours.set_params(max_iter=1).fit(X, y)
    for layer, (weight, bias) in enumerate(ours.model_.spec.layers(ours.model_.population.params)):
        weight[0], bias[0] = (torch.from_numpy(each[layer]) for each in (theirs.coefs_, theirs.intercepts_))
    ours.set_params(max_iter=4).fit(X, y)
    theirs.t_ = 0  # of invscaling
    theirs.set_params(max_iter=4, tol=0).fit(X, y)
    for mine, wanted in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-6)


def test_inverse_scaling_counts_whole_epochs():
    lr, step, samples = (torch.tensor([[number]], dtype=torch.float64) for number in (0.1, 7.0, 30.0))
    rate = invscaling(lr, step, step, torch.tensor(0.5), torch.tensor(10.0), samples)
    assert float(rate) == pytest.approx(0.1 / 61**0.5)


def test_targets_of_one_class_are_refused():
    with pytest.raises(ValueError, match="y has one class"):
        PopulationClassifier().fit(FLOWERS, np.zeros(150))


def test_networks_that_diverge_do_not_predict_and_are_told_of():
    y = FLOWERS[:, 0] * 1e3
    given = {"optimizer": "sgd", "scale_inputs": False, "scale_targets": False, "epochs": 3}
    with pytest.warns(ConvergenceWarning, match="1 of 2 networks diverged"):
        model = PopulationRegressor(2, (4,), lr=[1e-9, 1e6], **given, **SMALL).fit(FLOWERS, y)
    assert model.members_.tolist() == [0]
    assert np.isfinite(model.predict(FLOWERS)).all()


def check_end(model, costs, tol):
    """It is the third epoch in a row whose cost is not `tol` below the lowest: n_iter_no_change=2."""
    best, waited = float("inf"), 0
    for number, cost in enumerate(costs, 1):
        best, waited = min(best, cost), 0 if cost <= best - tol else waited + 1
        assert (waited == 3) == (number == model.n_iter_)


def test_tol_is_of_the_mean_over_several_numbers_as_in_scikit_learn():
    """Whose curve is the mean over outputs, and ours is the sum; alpha, which is of both, is 0."""
    y = np.stack([np.sin(DRAWN @ np.full(DRAWN.shape[1], k)) for k in range(1, 6)], 1)
    given = {"hidden_layer_sizes": (5,), "tol": 0.01, "n_iter_no_change": 2, "max_iter": 300, "random_state": 0}
    model = MLPRegressor(**given, alpha=0.0, learning_rate_init=0.01, engine="eager").fit(DRAWN, y)
    check_end(model, np.divide(model.loss_curve_, 5), 0.01)


def test_the_end_of_all_epochs_is_told_of():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier((4,), max_iter=2, **SMALL).fit(FLOWERS, SPECIES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier((4,), max_iter=20, tol=10, n_iter_no_change=2, **SMALL).fit(FLOWERS, SPECIES)


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_are_taken_with_their_names(library):
    frame = library.DataFrame({"length": [*FLOWERS[:, 2]], "width": [*FLOWERS[:, 3]]})
    model = PopulationClassifier(2, (8,), lr=0.1, epochs=5, **SMALL).fit(frame, NAMES)
    assert model.feature_names_in_.tolist() == ["length", "width"]
    assert model.score(frame, NAMES) > 0.9


SOURCE = np.random.default_rng(3)
DRAWN = SOURCE.normal(size=(40, 3))
RATES = SOURCE.poisson(2, size=(40, 3)).astype(float)
CURVES = {
    "a number": (MLPRegressor, DRAWN[:, 0] ** 2, {}, lambda there: there),
    "numbers": (MLPRegressor, DRAWN**2, {"alpha": 0}, lambda there: 3 * there),
    "rates": (MLPRegressor, RATES, {"loss": "poisson"}, lambda there: there - constant(RATES).sum()),
    "two classes": (MLPClassifier, DRAWN[:, 0] > 0, {}, lambda there: there),
    "three classes": (MLPClassifier, (DRAWN > 0).sum(1) % 3, {}, lambda there: there),
    "labels": (MLPClassifier, (DRAWN > 0).astype(int), {}, lambda there: there),
}


def test_the_score_of_the_held_out_samples_decides_as_in_scikit_learn():
    given = {"tol": 0.02, "n_iter_no_change": 2, "max_iter": 300, "learning_rate_init": 0.02}
    model = MLPClassifier((5,), early_stopping=True, **given, **SMALL).fit(FLOWERS, SPECIES)
    check_end(model, np.negative(model.validation_scores_), 0.02)


def constant(y):
    """The mean of what poisson's deviance has of the targets alone."""
    return (y * np.log(np.where(y, y, 1)) - y).mean(0)


@pytest.mark.parametrize("name", CURVES)
def test_the_curve_is_that_of_scikit_learn_at_the_same_weights(name):
    ours, y, given, expected = CURVES[name]
    common = {"hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 0.7, "learning_rate_init": 1e-12,
              "max_iter": 1, "batch_size": 40, "random_state": 0, **given}  # fmt: skip
    here = ours(**common, dtype="float64", engine="eager").fit(DRAWN, y)
    there = getattr(neural_network, ours.__name__)(**common, warm_start=True).fit(DRAWN, y)
    there.coefs_, there.intercepts_ = ([each.copy() for each in part] for part in (here.coefs_, here.intercepts_))
    loss = expected(there.fit(DRAWN, y).loss_)
    assert [here.loss_, here.best_loss_, *here.loss_curve_] == pytest.approx([loss] * 3, rel=1e-9)


def test_the_curve_of_several_labels_decides_when_it_no_longer_falls_by_tol():
    """As in scikit-learn: a loss that is only a little lower than the lowest is the lowest, and counts against it."""
    _, y, *_ = CURVES["labels"]
    given = {"hidden_layer_sizes": (5,), "tol": 0.02, "n_iter_no_change": 2, "max_iter": 500, "random_state": 0}
    model = MLPClassifier(**given, learning_rate_init=0.1, engine="eager").fit(DRAWN, y)
    check_end(model, model.loss_curve_, 0.02)
