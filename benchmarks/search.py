"""PopulationSearchCV and train_many against GridSearchCV over scikit-learn's MLP: python -m benchmarks.search [--rounds
3] [--agree].

Time: 64 settings x 5 folds on the digits, the same shape, penalties, epochs and batch size, interleaved; GridSearchCV
in as many processes as there are processors. Seconds of the clock, and of all processors, which other programs hardly
change. Kernels are compiled before, and the time of that is told. --agree: mean scores of both on five data sets, with
the standard deviation over seeds.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, StratifiedKFold
from sklearn.preprocessing import scale

import gpubp
from gpubp import sklearn as ours

from .harness import command, cost

EPOCHS, BATCH, SEEDS = 20, 120, 5
GRID = {"learning_rate_init": np.logspace(-4, -1, 16), "alpha": np.logspace(-6, -1, 4)}
SETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")
ALL = os.cpu_count() or 1


def main(rounds: int = 3, agree: bool = False) -> None:
    """Measure and print."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.environ["PYTHONWARNINGS"] = "ignore"  # of joblib's processes
    if agree:
        for name in SETS:
            agreement(name)
    else:
        race(rounds)


def race(rounds: int) -> None:
    """The time of both searches."""
    inputs, targets = datasets.load_digits(return_X_y=True)
    inputs = scale(inputs)
    fixed: dict[str, Any] = {
        "hidden_layer_sizes": (64,), "max_iter": EPOCHS, "batch_size": BATCH, "tol": 0, "n_iter_no_change": 10**6,
        "random_state": 0,
    }  # fmt: skip
    how: dict[str, Any] = {"cv": StratifiedKFold(5), "refit": False}
    mine, theirs = ours.MLPClassifier(**fixed), neural_network.MLPClassifier(**fixed)
    searches: dict[str, Callable[[], object]] = {
        "PopulationSearchCV": lambda: ours.PopulationSearchCV(mine, GRID, **how).fit(inputs, targets),
        "train_many": lambda: folds(inputs, targets),
        f"GridSearchCV, {ALL} processes": lambda: ended(GridSearchCV(theirs, GRID, n_jobs=ALL, **how), inputs, targets),
    }
    first = [cost(search)[1] for search in [*searches.values()][:2]]
    seconds = np.median([[cost(search)[1:] for search in searches.values()] for _ in range(rounds)], axis=0)
    print(f"{5 * len(ParameterGrid(GRID))} fits of 64-64-10 on the digits, {EPOCHS} epochs, batch {BATCH}; medians of "
          f"{rounds} rounds, {ALL} cores")  # fmt: skip
    for name, each, more in zip(searches, seconds, seconds / seconds[1]):
        print(f"{name}: {each[0]:.2f} s, {each[1]:.2f} of all processors: {more[0]:.1f} and {more[1]:.1f} times "
              "train_many")  # fmt: skip
    print("with kernels to compile, or to load: " + ", ".join(f"{each:.2f} s" for each in first))


def ended(search: GridSearchCV, inputs: np.ndarray, targets: np.ndarray) -> None:
    """A search, and its processes, whose seconds count once they have ended."""
    search.fit(inputs, targets)
    get_reusable_executor().shutdown()


def folds(inputs: np.ndarray, targets: np.ndarray) -> None:
    """The same with train_many: scikit-learn divides its penalty by the samples of a batch."""
    data, held_out = gpubp.Dataset(torch.from_numpy(inputs).float(), torch.from_numpy(targets)).folds(5)
    rows = [
        {"lr": each["learning_rate_init"], "l2": each["alpha"] / BATCH, "fold": fold}
        for each in ParameterGrid(GRID) for fold in range(5)
    ]  # fmt: skip
    gpubp.train_many(
        rows, data, held_out, widths="64,64,10", loss="cross_entropy", epochs=EPOCHS, batch_size=BATCH,
        evaluate_every=EPOCHS,
    )  # fmt: skip


def agreement(name: str) -> None:
    """Mean scores of three topologies at two rates over folds and seeds, of both."""
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    numbers = name == "diabetes"
    inputs, targets = scale(inputs), scale(targets) if numbers else targets
    kind, cv = ("MLPRegressor", KFold) if numbers else ("MLPClassifier", StratifiedKFold)
    grid = {
        "hidden_layer_sizes": [(8,), (32,), (32, 16)], "learning_rate_init": [0.001, 0.01],
        "random_state": list(range(SEEDS)),
    }  # fmt: skip
    found = []
    for search, module in ((ours.PopulationSearchCV, ours), (GridSearchCV, neural_network)):
        outcome = search(getattr(module, kind)(max_iter=40), grid, cv=cv(5, shuffle=True, random_state=0), refit=False)
        found.append(outcome.fit(inputs, targets).cv_results_["mean_test_score"].reshape(-1, SEEDS))
    for setting, mine, other in zip(range(6), *found):
        size, rate = grid["hidden_layer_sizes"][setting // 2], grid["learning_rate_init"][setting % 2]
        gap = mine.mean() - other.mean()
        error = np.sqrt((mine.var(ddof=1) + other.var(ddof=1)) / SEEDS)
        print(f"{name} {size} {rate}: ours {mine.mean():.4f}, scikit-learn {other.mean():.4f}, "
              f"difference {gap:+.4f} ± {error:.4f}")  # fmt: skip


if __name__ == "__main__":
    command(main, about=__doc__)
