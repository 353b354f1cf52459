"""python -m benchmarks.tabular: ensembles of networks on tables, beside what people use there.

Accuracy and log loss, or RMSE in the target's standard deviations, of held-out rows, the mean over shuffled splits with
its standard error, and seconds to fit, all with their defaults: gpubp's PopulationClassifier and PopulationRegressor,
scikit-learn's MLP and gradient boosting, and pytabkit's RealMLP where it is installed. Every contender has the same
rows, numbers with gaps filled by the median, categories one-hot; the MLP gets its inputs (and targets) scaled.

    python -m benchmarks.tabular --to docs/benchmarks/tabular.json   figures that are there already stay
    python -m benchmarks.tabular --tune '{"epochs": 200}' '{"schedule": "cosine"}'   settings on the other sets
"""

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit, cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gpubp.sklearn import PopulationClassifier, PopulationRegressor

from .machine import facts
from .tabular_data import SHOWN, TUNED, Set, load

HELD_OUT = 0.2
Contender = Callable[[bool, int], Any]  # whether targets are labels, and a seed, to an estimator


def population(**settings: Any) -> Contender:
    """Ours with other settings than the defaults."""
    return lambda labels, seed: (PopulationClassifier if labels else PopulationRegressor)(random_state=seed, **settings)


def mlp(labels: bool, seed: int) -> Any:
    """scikit-learn's, on scaled inputs and targets."""
    if labels:
        return make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MLPRegressor(random_state=seed)), transformer=StandardScaler()
    )


def boosting(labels: bool, seed: int) -> Any:
    """scikit-learn's histogram gradient boosting."""
    return (HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor)(random_state=seed)


def realmlp(labels: bool, seed: int) -> Any:
    """pytabkit's, with its tuned defaults."""
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    return (RealMLP_TD_Classifier if labels else RealMLP_TD_Regressor)(random_state=seed, device="cpu", n_threads=2)


def contenders() -> dict[str, Contender]:
    """Those that can run here, by name."""
    found: dict[str, Contender] = {
        "gpubp, 16 networks": population(),
        "gpubp, one network": population(n_networks=1),
        "scikit-learn MLP": mlp,
        "gradient boosting": boosting,
    }
    return found | ({"RealMLP": realmlp} if find_spec("pytabkit") else {})


ENCODER = make_column_transformer(
    (SimpleImputer(strategy="median"), make_column_selector(dtype_include="number")),
    (OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=50),
     make_column_selector(dtype_exclude="number")),
)  # fmt: skip


def scores(given: Set, model: Any, inputs: Any, targets: Any) -> dict[str, float]:
    """Of held-out rows. RMSE is divided by the standard deviation of all targets."""
    if not given.labels:
        return {"rmse": float(root_mean_squared_error(targets, model.predict(inputs)) / given.target.std())}
    return {
        "accuracy": float(accuracy_score(targets, model.predict(inputs))),
        "log_loss": float(log_loss(targets, model.predict_proba(inputs), labels=model.classes_)),
    }


def race(name: str, running: Mapping[str, Contender], count: int) -> dict[str, dict[str, list[float]]]:
    """{contender: {score or "seconds": of each split}}; the contenders take turns."""
    given = load(name)
    found: dict[str, dict[str, list[float]]] = {each: defaultdict(list) for each in running}
    kind = StratifiedShuffleSplit if given.labels else ShuffleSplit
    splits = kind(count, test_size=HELD_OUT, random_state=0).split(given.features, given.target)
    for number, split in enumerate(splits):
        inputs = np.asarray(ENCODER.fit(given.features.iloc[split[0]]).transform(given.features), float)
        for contender, make in running.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of convergence, within the epochs of a default
                told = cross_validate(make(given.labels, number), inputs, given.target, cv=[split],
                                      scoring=partial(scores, given), error_score="raise")  # fmt: skip
            for score, (value,) in told.items():
                if score != "score_time":
                    found[contender]["seconds" if score == "fit_time" else score.removeprefix("test_")].append(value)
    return found


def line(name: str, contender: str, of: Mapping[str, Sequence[float]]) -> str:
    """A row of the table."""
    figures = (
        f"{score} {np.mean(each):.4f} ± {np.std(each, ddof=1) / len(each) ** 0.5:.4f}"
        for score, each in of.items()
        if score != "seconds"
    )
    return f"{name:14} {contender:22} {'  '.join(figures)}  {np.median(of['seconds']):.2f} s"


def tune(candidates: Sequence[str], names: Sequence[str], count: int) -> dict[str, Any]:
    """The mean logarithm of each candidate's log loss or RMSE over that of the defaults, by set and over the sets."""
    running = {"{}": population(), **{each: population(**json.loads(each)) for each in candidates}}
    found: dict[str, dict[str, float]] = {each: {} for each in running}
    for name in names:
        raced = race(name, running, count)
        loss = {each: np.array(of.get("log_loss", of.get("rmse"))) for each, of in raced.items()}
        for each in running:
            found[each][name] = float(np.log(loss[each] / loss["{}"]).mean())
            print(f"{name:12} {found[each][name]:+.4f}  {line(name, each, raced[each])}", flush=True)
    for each, of in found.items():
        print(f"mean {np.mean([*of.values()]):+.4f}  median {np.median([*of.values()]):+.4f}  {each}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", help="names of data sets")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tune", nargs="+", metavar="JSON", help="settings to compare with the defaults")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders; all by default")
    parser.add_argument("--to", type=Path, help="JSON file for the figures, written after each set")
    given = parser.parse_args()
    if given.tune:
        tune(given.tune, given.sets or TUNED, given.splits)
        return
    found = {name: make for name, make in contenders().items() if name in (given.only or contenders())}
    figures = json.loads(given.to.read_text())["figures"] if given.to and given.to.exists() else {}
    for name in given.sets or SHOWN:
        raced = race(name, found, given.splits)
        print(*(line(name, each, of) for each, of in raced.items()), sep="\n", flush=True)
        figures[name] = figures.get(name, {}) | raced
        if given.to:
            given.to.write_text(json.dumps({"machine": facts("cpu", {"all": 2}), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
