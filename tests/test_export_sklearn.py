"""scikit-learn's estimators of networks predict like them and train on; its fitted MLPs are rows that predict like them
and train on."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

import gpubp
from gpubp.errors import ShapeError, SpecError
from gpubp.export.sklearn import ACTIVATIONS
from gpubp.results.model import Model

from .exported import case
from .helpers import population, quick, same_bits
from .test_export import agree, dtype_of, expected, silent  # noqa: F401

SEEDS = range(48)  # each loss with each activation, twice
HIDDEN = [*ACTIVATIONS]


def flat(model: Model) -> bool:
    """Whether a sample has one number."""
    return model.populations.each[0].spec.widths[-1] == 1


@pytest.mark.parametrize("seed", quick(SEEDS, SEEDS[:24]))
def test_an_estimator_predicts_what_the_networks_do_or_is_refused_by_name(seed: int) -> None:
    losses = ["cross_entropy", "binary_cross_entropy", "mean_squared_error", "huber", "poisson", "hinge"]
    each = case(seed, loss=losses[seed % 6], hidden=HIDDEN[seed // 6 % 4])
    wanted, model = expected(each), each.model
    loss, several = losses[seed % 6], len(each.rows) > 1 and not model.classes and not flat(model)
    if loss == "hinge" or several:
        refused = "targets that are|VotingRegressor predicts one number|VotingClassifier predicts one label"
        with pytest.raises(SpecError, match=refused):
            model.estimator(each.rows)
        return
    estimator = model.estimator(each.rows)
    given = np.asarray(each.samples) if isinstance(each.samples, torch.Tensor) else np.array(each.samples, object)
    said = estimator.predict(given)
    if loss == "binary_cross_entropy" and not model.classes:
        chances = estimator.predict_proba(given)
        assert estimator.classes_.tolist() == [*range(chances.shape[1])]
        assert said.tolist() == (wanted["predict"].reshape(said.shape) > 0.5).tolist()
        said = chances[:, 1] if flat(model) else chances
    agree(said.reshape(wanted["predict"].shape), wanted["predict"], dtype_of(model))  # one number is (M,) there
    if model.classes:
        assert estimator.classes_.tolist() == [*model.classes]
        agree(estimator.predict_proba(given), wanted["predict_proba"], dtype_of(model))
    clone(estimator)


def test_what_an_mlp_of_scikit_learn_does_not_have_is_refused_by_name() -> None:
    for settings, what in (
        ({"hidden": "gelu"}, "hidden gelu: scikit-learn's MLP has one of identity, sigmoid, tanh, relu"),
        ({"hidden": ("relu", "tanh")}, "hidden relu, tanh: scikit-learn's MLP has one of"),
        ({"output": "tanh"}, "output 'tanh', loss 'mean_squared_error' and targets that are numbers"),
        ({"loss": "hinge"}, "output 'identity', loss 'hinge'"),
    ):
        with pytest.raises(SpecError, match=what):
            Model(population(gpubp.NetworkSpec((3, 4, 5, 2), **settings), 1)).estimator([0])
    for loss, what in (("mean_squared_error", "VotingRegressor predicts one number for a sample"),
                       ("binary_cross_entropy", "VotingClassifier predicts one label for a sample")):  # fmt: skip
        with pytest.raises(SpecError, match=what):
            Model(population(gpubp.NetworkSpec((3, 2), loss=loss), 2)).estimator([0, 1])


TRAINED_ON: dict[str, tuple[str, int, Callable[[np.ndarray], np.ndarray]]] = {
    "cross_entropy": ("Classifier", 3, lambda inputs: inputs.argmax(1)),
    "binary_cross_entropy": ("Classifier", 2, lambda inputs: (inputs[:, :2] > 0).astype(int)),
    "mean_squared_error": ("Regressor", 1, lambda inputs: inputs.sum(1)),
}


@pytest.mark.parametrize("loss", TRAINED_ON)
def test_an_estimator_trains_on_from_the_networks_weights(loss: str) -> None:
    kind, outputs, targets_of = TRAINED_ON[loss]
    spec = gpubp.NetworkSpec((3, 8, outputs), "tanh", loss=loss)
    model = Model(population(spec, 1))
    mlp = model.estimator([0])[-1].set_params(learning_rate_init=0.02)
    assert type(mlp).__name__ == f"MLP{kind}"
    (weight, bias), _ = spec.layers(model.population.params)
    assert np.array_equal(mlp.coefs_[0], weight[0])
    assert np.array_equal(mlp.intercepts_[0], bias[0])
    inputs = np.random.default_rng(0).normal(size=(200, 3))
    targets = targets_of(inputs)
    before = mlp.score(inputs, targets)
    for _ in range(30):
        mlp.partial_fit(inputs, targets)
    assert mlp.score(inputs, targets) > before + 0.1
    assert mlp.t_ == 30 * 200


def fitted(kind: str, seed: int = 0, dtype: Any = np.float64, **settings: Any) -> tuple[Any, np.ndarray]:
    """A fitted MLP of scikit-learn, and samples."""
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(60, 4)).astype(dtype)
    numbers = inputs @ draw.normal(size=(4, 2))
    targets = {
        "two": numbers[:, 0] > 0, "three": np.digitize(numbers[:, 0], [-0.5, 0.5]), "labels": (numbers > 0).astype(int),
        "number": numbers[:, 0], "numbers": numbers, "poisson": np.floor(np.exp(numbers[:, 0])),
    }[kind]  # fmt: skip
    classes = kind in ("two", "three", "labels")
    make = neural_network.MLPClassifier if classes else neural_network.MLPRegressor
    settings |= {"loss": "poisson"} if kind == "poisson" else {}
    mlp = make(max_iter=5, random_state=seed, **settings)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return mlp.fit(inputs, targets.astype(int if classes else dtype)), inputs


KINDS = ["two", "three", "labels", "number", "numbers", "poisson"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_fitted_mlps_become_networks_that_predict_like_them(kind: str, activation: str) -> None:
    dtype = np.float32 if activation == "tanh" else np.float64
    made = [fitted(kind, seed, dtype, activation=activation, hidden_layer_sizes=(5, 4)) for seed in range(3)]
    networks = gpubp.Population.from_estimators([mlp for mlp, _ in made], seed=3)
    assert (networks.count, networks.seed, networks.ids.tolist()) == (3, 3, [0, 1, 2])
    model = Model(networks)
    for row, (mlp, inputs) in enumerate(made):
        assert networks.params.dtype == getattr(torch, mlp.coefs_[0].dtype.name)
        said = (
            model.predict_proba(inputs, [row]) if kind in ("two", "three", "labels") else model.predict(inputs, [row])
        )
        if kind == "two":
            said = np.concatenate([1 - said, said], 1)
        wanted = mlp.predict_proba(inputs) if hasattr(mlp, "predict_proba") else mlp.predict(inputs)
        agree(said.reshape(wanted.shape), wanted, networks.params.dtype)


def test_rows_survive_scikit_learn() -> None:
    """And their seed and ids, so that they train on as they did."""
    networks = population(gpubp.NetworkSpec((4, 6, 3), "relu", loss="cross_entropy"), 3, torch.float32)
    back = gpubp.Population.from_estimators([Model(networks).estimator([row])[-1] for row in range(3)], networks.seed)
    assert same_bits(back.params, networks.params)
    assert (back.seed, back.ids.tolist(), back.spec) == (networks.seed, networks.ids.tolist(), networks.spec)


def test_estimators_that_are_no_such_networks_are_refused() -> None:
    mlp, _ = fitted("number")
    for given, error, what in (
        ([], SpecError, "one estimator or more"),
        (mlp, SpecError, r"from_estimators takes several: \[estimator\], not the MLPRegressor itself"),
        ([neural_network.MLPRegressor()], SpecError, "estimator 0, MLPRegressor, is not fitted"),
        ([make_pipeline(mlp)], SpecError, r"estimator 0 is a Pipeline; .* its last step, pipeline\[-1\]"),
        (["mlp"], SpecError, "estimator 0 is a str"),
        ([mlp, fitted("number", hidden_layer_sizes=(3,))[0]], SpecError, "estimator 1 is .*one topology"),
    ):
        with pytest.raises(error, match=what):
            gpubp.Population.from_estimators(given)
    mlp.coefs_[1] = mlp.coefs_[1][:5]
    with pytest.raises(ShapeError, match=r"estimator 0: coefs_ and intercepts_ .* expected"):
        gpubp.Population.from_estimators([mlp])
