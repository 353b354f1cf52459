"""Networks trained here learn as well as those of scikit-learn, under the same settings."""

from __future__ import annotations

import warnings

import torch

import gpubp
from gpubp.samples import sources

NETWORKS, SEEDS, EPOCHS, BATCH = 30, 4, 15, 50


def test_a_population_learns_the_digits_as_well_as_scikit_learn() -> None:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    digits = sources.load("digits")
    held_out = digits.validation
    assert held_out is not None
    assert float(digits.training.inputs.max()) == 1.0, "inputs / 16"
    spec = gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy")
    config = gpubp.TrainConfig(optimizer="adam", lr=0.001, batch_size=BATCH, epochs=EPOCHS)
    result = gpubp.train(gpubp.Population.create(spec, NETWORKS), digits.training, config, held_out, engine="eager")
    ours = result.validation_metric
    assert ours is not None

    inputs, targets = digits.training.inputs.numpy(), digits.training.targets.numpy()
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(SEEDS):
            classifier = MLPClassifier(
                (32,), batch_size=BATCH, max_iter=EPOCHS, learning_rate_init=0.001, alpha=0.0, n_iter_no_change=1000,
                tol=0.0, random_state=seed,
            )  # fmt: skip
            classifier.fit(inputs, targets)
            assert classifier.n_iter_ == EPOCHS
            scores.append(classifier.score(held_out.inputs.numpy(), held_out.targets.numpy()))
    theirs = torch.tensor(scores, dtype=torch.float64)
    error = float((ours.double().var() / NETWORKS + theirs.var() / SEEDS).sqrt())
    assert 0 < error < 0.01, "so that the comparison says something"
    assert float(theirs.mean()) > 0.9
    assert float(ours.mean()) > float(theirs.mean()) - error, f"{ours.mean()} {theirs.mean()} {error}"
    assert result.statuses["finished"] == NETWORKS
