"""loss_curve_ and what ends a training, of the estimators with scikit-learn's parameters, are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import neural_network

from gpubp.sklearn import MLPClassifier, MLPRegressor

SOURCE = np.random.default_rng(3)
X, WEIGHT = SOURCE.normal(size=(40, 3)), SOURCE.uniform(0.1, 3, size=40)
RATES = SOURCE.poisson(2, size=(40, 3)).astype(float)
CASES: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
    "a number": (MLPRegressor, X[:, 0] ** 2, {}, lambda there: there),
    "numbers": (MLPRegressor, X**2, {"alpha": 0}, lambda there: 3 * there),
    "rates": (MLPRegressor, RATES, {"loss": "poisson"}, lambda there: there - constant(RATES).sum()),
    "two classes": (MLPClassifier, X[:, 0] > 0, {}, lambda there: there),
    "three classes": (MLPClassifier, (X > 0).sum(1) % 3, {}, lambda there: there),
    "labels": (MLPClassifier, (X > 0).astype(int), {}, lambda there: there),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def constant(y: np.ndarray) -> np.ndarray:
    """The mean of what poisson's deviance has of the targets alone."""
    return np.asarray((y * np.log(np.where(y, y, 1)) - y).mean(0))


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_scikit_learn_at_the_same_weights(name: str) -> None:
    ours, y, given, expected = CASES[name]
    common = {"hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 0.7, "learning_rate_init": 1e-12,
              "max_iter": 1, "batch_size": 40, "random_state": 0, **given}  # fmt: skip
    here = ours(**common, dtype="float64", engine="eager").fit(X, y)
    there = getattr(neural_network, ours.__name__)(**common, warm_start=True).fit(X, y)
    there.coefs_, there.intercepts_ = ([each.copy() for each in part] for part in (here.coefs_, here.intercepts_))
    loss = expected(there.fit(X, y).loss_)
    assert [here.loss_, here.best_loss_, *here.loss_curve_] == pytest.approx([loss] * 3, rel=1e-9)


def test_the_curve_of_several_labels_decides_when_it_no_longer_falls_by_tol() -> None:
    _, y, *_ = CASES["labels"]
    given = {"hidden_layer_sizes": (5,), "tol": 0.005, "n_iter_no_change": 2, "max_iter": 500, "random_state": 0}
    model = MLPClassifier(**given, learning_rate_init=0.01, engine="eager").fit(X, y)
    best, waited = float("inf"), 0
    for number, loss in enumerate(model.loss_curve_, 1):
        best, waited = (loss, 0) if loss < best - 0.005 else (best, waited + 1)
        assert (waited == 3) == (number == model.n_iter_)
