"""W5b: the digits data end to end, gpubp.train against scikit-learn's MLPClassifier in joblib's processes.

The two cannot have the same initial weights or minibatches, so equal steps prove nothing. Each trains for the number of
epochs after which its median network, over learning rates from LOW to HIGH, reaches ACCURACY on the held-out
samples; that is found before the timing. Then whole trainings are timed round by round, with the final evaluation.
The same timings give network-steps per second, whatever the accuracy.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy
import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import gpubp

from .harness import Setting, interleave, ratio

WIDTHS, BATCH, LOW, HIGH, ACCURACY = (64, 32, 10), 64, 1e-3, 1e-2, 0.95
EPOCHS = 40  # the most of either
PILOT = 32  # networks, spread over the learning rates, that find the number of epochs


def rates(count: int) -> torch.Tensor:
    """`count` learning rates, LOW to HIGH."""
    return torch.from_numpy(numpy.geomspace(LOW, HIGH, count))


def trained(data: gpubp.Prepared, engine: str, count: int, epochs: int, every: int, device: str) -> gpubp.Result:
    """A training with Adam, a learning rate and an order of samples per network."""
    population = gpubp.Population.create(gpubp.NetworkSpec(WIDTHS, loss="cross_entropy"), count, device=device)
    config = gpubp.TrainConfig("adam", lr=rates(count), batch_size=BATCH, epochs=epochs, evaluate_every=every)
    return gpubp.train(population, data.training, config, validation=data.validation, engine=engine)


def classifier(seed: int, lr: float, epochs: int) -> MLPClassifier:
    """Adam with torch's defaults, no penalty, no early end."""
    return MLPClassifier(
        WIDTHS[1:-1], alpha=0.0, batch_size=BATCH, learning_rate_init=lr, max_iter=epochs, tol=0.0,
        n_iter_no_change=epochs + 1, random_state=seed,
    )  # fmt: skip


def fit(data: list[Any], *settings: Any) -> float:
    """Train on the first two of `data`. -> accuracy on the last two."""
    inputs, targets, held_out, truth = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(classifier(*settings).fit(inputs, targets).score(held_out, truth))


def accuracies(data: list[Any], *settings: Any) -> list[float]:
    """Accuracy on the held-out samples after every epoch."""
    inputs, targets, held_out, truth = data
    model, classes = classifier(*settings), numpy.unique(targets)
    return [model.partial_fit(inputs, targets, classes=classes).score(held_out, truth) for _ in range(model.max_iter)]


def first_epoch(medians: Iterable[float], whose: str) -> int:
    """The epoch, from 1, at which the median reaches ACCURACY; AssertionError if it never does."""
    for epoch, median in enumerate(medians, 1):
        if median >= ACCURACY:
            return epoch
    raise AssertionError(f"{whose}: a median accuracy of {ACCURACY} expected within {EPOCHS} epochs")


def race(engine: str, networks: int, sample: int, threads: int, setting: Setting) -> dict[str, Any]:
    """gpubp trains `networks`, scikit-learn a `sample`, in `threads` processes of one thread each; ratios are of
    seconds per network."""
    prepared = gpubp.load_data("digits")
    data = [part.numpy() for side in (prepared.training, prepared.validation) for part in (side.inputs, side.targets)]
    with parallel_config("loky", inner_max_num_threads=1):
        parallel = Parallel(threads)

    def scikit(what: Callable[..., Any], count: int, epochs: int) -> list[Any]:
        return parallel(delayed(what)(data, seed, lr, epochs) for seed, lr in enumerate(rates(count).tolist()))

    pilot = trained(prepared, engine, PILOT, EPOCHS, 1, setting.device)
    ours = first_epoch((record["metric"]["median"] for record in pilot.history), "gpubp")
    theirs = first_epoch(numpy.median(scikit(accuracies, PILOT, EPOCHS), axis=0), "scikit-learn")
    calls: dict[str, Callable[[], Any]] = {
        "gpubp": lambda: trained(prepared, engine, networks, ours, ours, setting.device).validation_metric,
        "scikit_learn": lambda: scikit(fit, sample, theirs),
    }
    accuracy = {name: float(numpy.median(call())) for name, call in calls.items()}  # compiles, starts processes
    seconds = interleave(calls, setting)
    get_reusable_executor().shutdown(wait=True)
    counts, epochs = {"gpubp": networks, "scikit_learn": sample}, {"gpubp": ours, "scikit_learn": theirs}
    # gpubp's minibatches run on across epochs; scikit-learn ends each epoch with a shorter one
    steps = {"gpubp": -(-ours * len(data[0]) // BATCH), "scikit_learn": theirs * -(-len(data[0]) // BATCH)}
    per_network = {name: numpy.array(spent) / counts[name] for name, spent in seconds.items()}
    per_step = {name: spent / steps[name] for name, spent in per_network.items()}
    return {
        "workload": "W5b",
        "engine": engine,
        "threads": threads,
        "accuracy": ACCURACY,
        "learning_rates": [LOW, HIGH],
        "contenders": {
            name: {
                "networks": counts[name],
                "epochs": epochs[name],
                "steps": steps[name],
                "median_accuracy": accuracy[name],
                "ms_per_network": 1e3 * float(numpy.median(per_network[name])),
                "rate": 1 / float(numpy.median(per_step[name])),
                "to_accuracy": ratio(per_network[name], per_network["gpubp"]),
                "for_steps": ratio(per_step[name], per_step["gpubp"]),
                "seconds": seconds[name],
            }
            for name in calls
        },
    }
