"""W5b: the digits data end to end, gpubp.train against scikit-learn's MLPClassifier in joblib's processes.

The two cannot have the same initial weights or minibatches, so equal steps prove nothing. Each trains for the number of
epochs after which its median network, over learning rates from LOW to HIGH, reaches ACCURACY on the held-out
samples; that is found before the timing. Then whole trainings are timed round by round, with the final evaluation.
The same timings give network-steps per second, whatever the accuracy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

import gpubp
from gpubp.samples import sources

from .harness import Setting, interleave, ratio

WIDTHS, BATCH, LOW, HIGH, ACCURACY = (64, 32, 10), 64, 1e-3, 1e-2, 0.95
EPOCHS = 40  # the most of either
PILOT = 32  # networks, spread over the learning rates, that find the number of epochs


def rates(count: int) -> torch.Tensor:
    """`count` learning rates, LOW to HIGH."""
    return LOW * torch.logspace(0, 1, count, dtype=torch.float64) ** torch.log10(torch.tensor(HIGH / LOW)).item()


def trained(engine: str, count: int, epochs: int, every: int, device: str = "cpu") -> gpubp.Result:
    """A training with Adam, a learning rate and an order of samples per network."""
    prepared = sources.load("digits")
    spec = gpubp.NetworkSpec(WIDTHS, loss="cross_entropy")
    population = gpubp.Population.create(spec, count, device=device)
    config = gpubp.TrainConfig(
        optimizer="adam", lr=rates(count), batch_size=BATCH, epochs=epochs, evaluate_every=every
    )  # fmt: skip
    return gpubp.train(population, prepared.training, config, validation=prepared.validation, engine=engine)


def first_epoch(medians: list[float], whose: str) -> int:
    """The epoch, from 1, at which the median reaches ACCURACY; AssertionError if it never does."""
    for epoch, median in enumerate(medians, 1):
        if median >= ACCURACY:
            return epoch
    raise AssertionError(
        f"{whose}: median accuracy {max(medians):.3f} after {len(medians)} epochs, {ACCURACY} expected"
    )


def race(engine: str, networks: int, sample: int, threads: int, setting: Setting) -> dict[str, Any]:
    """gpubp trains `networks`, scikit-learn a `sample`; ratios are of seconds per network."""
    data, classifier = _arrays(), Scikit(threads)
    pilot = trained(engine, PILOT, EPOCHS, 1, setting.device)
    ours = first_epoch([record["metric"]["median"] for record in pilot.history], "gpubp")
    theirs = first_epoch(classifier.medians(data), "scikit-learn")
    left: dict[str, Any] = {}

    def gpubp_call() -> None:
        left["gpubp"] = trained(engine, networks, ours, ours, setting.device)

    def scikit_call() -> None:
        left["scikit_learn"] = classifier.train(data, sample, theirs)

    calls: dict[str, Callable[[], None]] = {"gpubp": gpubp_call, "scikit_learn": scikit_call}
    for call in calls.values():
        call()  # compilation and the start of processes are not timed
    seconds = interleave(calls, setting)
    classifier.close()
    accuracy = {"gpubp": left["gpubp"].validation_metric.tolist(), "scikit_learn": left["scikit_learn"]}
    trained_networks, epochs = {"gpubp": networks, "scikit_learn": sample}, {"gpubp": ours, "scikit_learn": theirs}
    per_network = {name: [spent / trained_networks[name] for spent in each] for name, each in seconds.items()}
    samples = len(data[0])
    # gpubp's minibatches run on across epochs; scikit-learn ends each epoch with a shorter one
    steps = {"gpubp": -(-ours * samples // BATCH), "scikit_learn": theirs * -(-samples // BATCH)}
    per_step = {name: [spent / steps[name] for spent in each] for name, each in per_network.items()}
    return {
        "workload": "W5b",
        "engine": engine,
        "threads": threads,
        "accuracy": ACCURACY,
        "learning_rates": [LOW, HIGH],
        "contenders": {
            name: {
                "networks": trained_networks[name],
                "epochs": epochs[name],
                "steps": steps[name],
                "median_accuracy": statistics.median(accuracy[name]),
                "ms_per_network": 1e3 * statistics.median(per_network[name]),
                "rate": 1 / statistics.median(per_step[name]),
                "to_accuracy": ratio(per_network[name], per_network["gpubp"]),
                "for_steps": ratio(per_step[name], per_step["gpubp"]),
                "seconds": seconds[name],
            }
            for name in calls
        },
    }


def _arrays() -> tuple[Any, Any, Any, Any]:
    prepared = sources.load("digits")
    parts = (prepared.training, prepared.validation)
    return tuple(array.numpy() for part in parts for array in (part.inputs, part.targets))


class Scikit:
    """scikit-learn in `threads` processes, one thread each."""

    def __init__(self, threads: int) -> None:
        import joblib

        self.joblib, self.threads = joblib, threads

    def all(self, jobs: list[Any]) -> list[Any]:
        """Run the jobs in parallel, in processes that stay."""
        with self.joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            return self.joblib.Parallel(n_jobs=self.threads)(jobs)

    def models(self, count: int, epochs: int) -> list[Any]:
        """Untrained models with gpubp's learning rates."""
        from .scikit import classifier

        return [classifier(WIDTHS[1:-1], lr, BATCH, epochs, seed) for seed, lr in enumerate(rates(count).tolist())]

    def medians(self, data: tuple[Any, Any, Any, Any]) -> list[float]:
        """The median network's accuracy after every epoch."""
        from .scikit import accuracies

        found = self.all([self.joblib.delayed(accuracies)(data, model) for model in self.models(PILOT, EPOCHS)])
        return [statistics.median(column) for column in zip(*found)]

    def train(self, data: tuple[Any, Any, Any, Any], count: int, epochs: int) -> list[float]:
        """Train `count` models. -> their accuracies."""
        from .scikit import fit

        return self.all([self.joblib.delayed(fit)(data, model) for model in self.models(count, epochs)])

    def close(self) -> None:
        """End the processes."""
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
