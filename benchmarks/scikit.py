"""One scikit-learn classifier, trained in one of joblib's processes, which imports only this file."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier


def classifier(hidden: tuple[int, ...], lr: float, batch: int, epochs: int, seed: int) -> MLPClassifier:
    """Adam with torch's defaults, no penalty, no early end."""
    return MLPClassifier(
        hidden, alpha=0.0, batch_size=batch, learning_rate_init=lr, max_iter=epochs, tol=0.0,
        n_iter_no_change=epochs + 1, random_state=seed,
    )  # fmt: skip


def fit(data: tuple[Any, Any, Any, Any], model: MLPClassifier) -> float:
    """Train on the first two of `data`. -> accuracy on the last two."""
    inputs, targets, held_out, truth = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(model.fit(inputs, targets).score(held_out, truth))


def accuracies(data: tuple[Any, Any, Any, Any], model: MLPClassifier) -> numpy.ndarray:
    """Accuracy on the held-out samples after every epoch."""
    inputs, targets, held_out, truth = data
    classes, found = numpy.unique(targets), []
    for _ in range(model.max_iter):
        model.partial_fit(inputs, targets, classes=classes)
        found.append(model.score(held_out, truth))
    return numpy.array(found)
