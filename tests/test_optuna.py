"""search/optuna.py: batches of trials of a study train as one design, are reported, pruned and told."""

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

import gpubp
from gpubp.errors import ConfigError, GpubpError
from gpubp.search.optuna import optimize

from .helpers import same_bits
from .searches import COMMON, line

LINE = line()
SETTINGS = {**{name: value for name, value in COMMON.items() if name != "seed"}, "epochs": 6, "engine": "eager",
            "dtype": torch.float64}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def alike(params: dict[str, Any]) -> dict[str, Any]:
    """Networks that start from one weight: only the rate matters."""
    return {**params, "seed": 3}


def study(pruner: Any = None, direction: str = "minimize", **sampler: Any) -> optuna.Study:
    chosen = optuna.samplers.TPESampler(seed=1, **sampler)
    return optuna.create_study(sampler=chosen, pruner=pruner or optuna.pruners.NopPruner(), direction=direction)


def test_a_trial_is_told_what_its_network_is_alone_and_its_rounds_are_reported() -> None:
    mine = study()
    results = optimize(mine, {"lr": "1e-3..0.1:log"}, LINE, LINE, n_trials=7, batch=3, **SETTINGS)
    assert [each.populations.count for each in results] == [3, 3, 1]
    assert [trial.user_attrs for trial in mine.trials] == [{"batch": n // 3, "network": n % 3} for n in range(7)]
    for trial in mine.trials:
        assert trial.state == TrialState.COMPLETE
        assert [*trial.intermediate_values] == [1, 2, 3, 4, 5, 6]
        alone = gpubp.train_many([{**trial.params, "seed": trial.number}], LINE, LINE, **SETTINGS)
        found = results[trial.user_attrs["batch"]]
        assert same_bits(found.loss[trial.user_attrs["network"]], alone.loss[0])
        assert trial.value == float(alone.validation_loss[0])  # type: ignore[index]
        assert trial.intermediate_values[6] == trial.value
    assert mine.best_value == min(float(each.validation_loss.min()) for each in results)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"steps": 200, "patience": 20}, [100, 200]),  # EVENTS of config.py
        ({"steps": 300}, [*range(3, 303, 3)]),  # a hundredth of the training
        ({"steps": 30, "evaluate_every": 10}, [10, 20, 30]),
        ({"epochs": 6, "evaluate_every": 3}, [3, 6]),
        ({"epochs": 4, "patience": 20}, [1, 2, 3, 4]),
        ({"epochs": 5, "evaluate_every": 2}, [2, 4, 5]),
        ({"steps": 7, "evaluate_every": 3}, [3, 6, 7]),
    ],
)
def test_networks_are_evaluated_as_often_as_without_a_study(given: dict[str, Any], reported: list[int]) -> None:
    mine = study()
    settings = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    (result,) = optimize(mine, {"lr": "1e-3..0.1:log"}, LINE, LINE, 2, 2, **settings, **given)
    assert [[*trial.intermediate_values] for trial in mine.trials] == [reported] * 2
    alone = gpubp.train_many([{"lr": 0.01}], LINE, LINE, **settings, **given)
    assert [each["step"] for each in result.history] == [each["step"] for each in alone.history]


def test_networks_of_a_batch_are_evaluated_equally_often() -> None:
    mine = study()
    settings = {name: value for name, value in SETTINGS.items() if name != "epochs"}
    (result,) = optimize(mine, {"steps": [10, 400]}, LINE, LINE, 4, 4, **settings)
    assert {len(trial.intermediate_values) for trial in mine.trials} == {3, 100}
    assert all(max(trial.intermediate_values) == trial.params["steps"] for trial in mine.trials)
    assert len(result.history) == 100


def test_the_sampler_learns_from_batch_to_batch() -> None:
    """The best rate is at the end of the range: later trials are drawn nearer to it."""
    mine = study(n_startup_trials=20)
    optimize(mine, {"lr": "1e-4..0.1:log"}, LINE, LINE, 60, 20, alike, **SETTINGS)
    rates = torch.tensor([trial.params["lr"] for trial in mine.trials]).log()
    assert float(rates[40:].mean()) > float(rates[:20].mean()) + 1
    again = study(n_startup_trials=20)
    optimize(again, {"lr": "1e-4..0.1:log"}, LINE, LINE, 60, 20, alike, **SETTINGS)
    assert [trial.params for trial in again.trials] == [trial.params for trial in mine.trials]


def test_the_pruner_stops_networks_which_end_as_pruned() -> None:
    mine = study(optuna.pruners.SuccessiveHalvingPruner(1, 2), constant_liar=True)
    result, *_ = optimize(mine, {"lr": "1e-3..0.1:log"}, LINE, LINE, 16, 16, alike, **SETTINGS)
    pruned = [trial.number for trial in mine.trials if trial.state == TrialState.PRUNED]
    assert 0 < len(pruned) < 16
    assert [n for n, name in enumerate(result.status_names) if name == "stopped"] == pruned
    steps = result.table["steps"].to_pylist()
    for trial in mine.trials:
        assert len(trial.intermediate_values) == steps[trial.number]
    best = max(mine.trials, key=lambda trial: trial.params["lr"])
    assert best.state == TrialState.COMPLETE


@pytest.mark.parametrize("batch", [1, 3, 4, 50])
@pytest.mark.parametrize("rates", [[0.01, 0.05, 0.1], [0.01, 1e200]])
def test_a_sampler_that_has_tried_all_there_is_ends_the_study(rates: list[float], batch: int) -> None:
    mine = optuna.create_study(sampler=optuna.samplers.GridSampler({"lr": rates}, seed=0))
    results = optimize(mine, {"lr": rates}, LINE, LINE, 50, batch, alike, **SETTINGS)
    assert {trial.params["lr"] for trial in mine.trials} == {*rates}
    assert len(mine.trials) == -(-len(rates) // batch) * batch
    assert sum(each.populations.count for each in results) == len(mine.trials)
    assert all(trial.state.is_finished() for trial in mine.trials)


def test_a_network_that_diverges_is_a_trial_that_failed() -> None:
    mine = study()
    optimize(mine, {"lr": [1e200, 0.05]}, LINE, LINE, n_trials=12, batch=12, **SETTINGS)
    states = {trial.params["lr"]: trial.state for trial in mine.trials}
    assert states == {1e200: TrialState.FAIL, 0.05: TrialState.COMPLETE}


def test_topologies_whole_numbers_and_rows_of_own_making() -> None:
    mine = study(direction="maximize")
    data = gpubp.Dataset(torch.randn(30, 2), torch.arange(30) % 3)
    space = {"widths": [(2, 4, 3), "2,3,3,3"], "batch_size": "4..9:int", "patience": "2..8:log:int", "lr": "0.01..0.1",
             "optimizer": CategoricalDistribution(["adam", "sgd"])}  # fmt: skip
    (result,) = optimize(mine, space, data, data, 8, loss="cross_entropy", epochs=3, engine="eager")
    assert {type(each) for each in mine.trials[0].distributions.values()} == {
        CategoricalDistribution, IntDistribution, FloatDistribution
    }  # fmt: skip
    assert {trial.params["widths"] for trial in mine.trials} == {"2,4,3", "2,3,3,3"}
    for trial, row in zip(mine.trials, result.table.to_pylist(), strict=True):
        assert {name: row[name] for name in trial.params} == trial.params
        assert trial.value == row["validation_accuracy"]
    width = study()
    (result,) = optimize(width, {"width": "2..9:int"}, data, None, 4, 4, lambda own: {"widths": (2, own["width"], 3)},
                         loss="cross_entropy", epochs=2, engine="eager")  # fmt: skip
    sizes = [each.widths[1] for each in (population.spec for population in result.populations.each)]
    assert {*sizes} == {trial.params["width"] for trial in width.trials}
    assert [trial.value for trial in width.trials] == result.loss.tolist()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"space": dict}, "space is a type, Mapping expected"),
        ({"space": {"lr": 0.1}}, "lr 0.1: a range LOW..HIGH, a list, or a distribution of Optuna expected"),
        ({"space": {"lr": []}}, r"lr \[\]: a range"), ({"run_dir": "x"}, "run_dir is not for studies"),
        ({"search": None}, "search is not for studies"), ({"n_trials": 0}, "n_trials 0: a whole number of 1 or more"),
        ({"batch": 0}, "batch 0: "), ({"study": study(direction="maximize"), "validation": None}, "there are none"),
        ({"study": optuna.create_study(directions=["minimize"] * 2)}, "a study of 2 values; one, a loss or a metric"),
    ],
)  # fmt: skip
def test_what_no_study_can_do_is_refused_before_a_trial_is_asked_for(given: dict[str, Any], told: str) -> None:
    chosen = {"study": study(), "space": {"lr": "0.1..1"}, "data": LINE, "validation": LINE, **SETTINGS, **given}
    with pytest.raises(ConfigError, match=told):
        optimize(**chosen)
    assert not chosen["study"].trials


def test_trials_of_a_design_that_is_refused_fail() -> None:
    mine = study()
    with pytest.raises(GpubpError, match="momentum"):
        optimize(mine, {"momentum": "0..0.9"}, LINE, LINE, n_trials=3, **SETTINGS)
    assert [trial.state for trial in mine.trials] == [TrialState.FAIL] * 3
