"""search/population_based.py: the worst copy the best and explore, and all that happened is in the lineage."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.errors import ConfigError
from gpubp.placing import placement
from gpubp.results.result import Result
from gpubp.search import PopulationBased

from . import searches, short_runs
from .helpers import same_bits, threads
from .searches import LINE, ascending, rated, train
from .short_runs import Stop, stopped, told


def copies(result: Result) -> list[dict[str, Any]]:
    return result.search.lineage.table().to_pylist()


def same(one: Result, other: Result) -> None:
    short_runs.same(one, other)
    assert copies(one) == copies(other)


def test_the_worst_quarter_copies_the_best_quarter_and_explores() -> None:
    rates = ascending(12)
    result = train(rated(rates, epochs=4), PopulationBased(3, resample=0.0))
    found = copies(result)
    assert [each["round"] for each in found] == [1] * 3, "a round is three epochs"
    assert [each["network"] for each in found] == [2, 1, 0], "from the best of the worst to the worst"
    assert {each["source"] for each in found} <= {9, 10, 11}
    for each in found:
        assert each["lr_before"] == rates[each["network"]]
        assert each["lr"] in [min(rates[each["source"]] * factor, rates[-1]) for factor in (0.8, 1.2)]
        assert result.table["lr"][each["network"]].as_py() == each["lr"]
        assert result.table["id"][each["network"]].as_py() == 3, "ids stay"
    others = [row for row in range(12) if row not in (0, 1, 2)]
    assert [result.table["lr"][row].as_py() for row in others] == [rates[row] for row in others]


AWAY = gpubp.Dataset(LINE.inputs, -9 * LINE.inputs)  # the best of a network is its first evaluation


@pytest.mark.parametrize(("engine", "held_out"), [("eager", LINE), ("eager", AWAY), ("cpu", AWAY)])
def test_a_copy_goes_on_exactly_as_its_source(engine: str, held_out: gpubp.Dataset) -> None:
    """Without exploration, and with one order of samples for all, it can only be the same: its best row and what a
    plateau has counted too."""
    rows = rated(ascending(8), epochs=6, optimizer="adam", restore_best=True, batch_size=4, schedule="plateau")
    search = PopulationBased(4, perturb=[1.0], resample=0.0)
    result = train(rows, search, held_out=held_out, engine=engine)
    found, state = copies(result), result.state
    assert len(found) == 2
    for name, tensor in state.tensors():
        for each in found:
            assert name == "position" or same_bits(tensor[each["network"]], tensor[each["source"]]), name
    assert {*result.table["best_step"].to_pylist()} == {4 if held_out is AWAY else 24}
    alone = train([rows[each["source"]] for each in found], None, held_out=held_out, engine=engine, evaluate_every=1)
    for number, each in enumerate(found):
        assert same_bits(result.loss[each["network"]], alone.loss[number])


def test_a_network_that_diverges_trains_again_as_a_copy() -> None:
    rates = [1e200, *ascending(6), 1e200]
    result = train(rated(rates, epochs=8), PopulationBased(4, space={"lr": "1e-3..0.1:log"}))
    assert result.statuses == {"running": 0, "finished": 8, "diverged": 0}
    assert result.table["steps"].to_pylist() == [8] * 8
    assert result.network_steps == 6 * 8 + 2 * (1 + 4), "of their sources' steps those that diverged have taken none"
    assert result.table["diverged_step"].null_count == 8
    assert {each["network"] for each in copies(result)} == {0, 7}
    assert max(result.table["lr"].to_pylist()) <= 0.1


def test_what_the_caller_gave_stays_as_it_was() -> None:
    """The search changes columns of the training, never a tensor of the configuration."""
    data = searches.data()
    given = {
        "lr": torch.logspace(-4, -1, 8, dtype=torch.float64),
        "class_weight": torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5,
    }
    before = {name: each.clone() for name, each in given.items()}
    networks = gpubp.Population.create(gpubp.NetworkSpec((3, 3), loss="cross_entropy"), 8)
    params = networks.params.clone()
    search = PopulationBased(2, space={"lr": "1e-4..0.5:log"})
    result = gpubp.train(networks, data, gpubp.TrainConfig(**given, epochs=6), data, engine="eager", search=search)
    assert copies(result)
    for name, each in given.items():
        assert same_bits(each, before[name]), name
    assert same_bits(networks.params, params)


def test_which_diverged_networks_copy_does_not_depend_on_an_interruption(tmp_path: Path, short_calls: None) -> None:
    """Of three that diverge in a round, two become copies, whatever their losses were before they did."""
    rows, search = rated([1e120, 1e200, 1e100, *ascending(5)], epochs=9), PopulationBased(5, space={"lr": "1e-3..0.1"})
    whole = train(rows, search, held_out=None)
    assert len(copies(whole)) >= 2
    more = {"run_dir": tmp_path / "run", "checkpoint_minutes": 0.0, "reporters": [Stop(1, signal.SIGINT)]}
    assert stopped(lambda: train(rows, search, held_out=None, **more)).state.step.max() < 5
    same(gpubp.resume(tmp_path / "run", LINE), whole)


def test_who_copies_whom_depends_on_the_seed_alone() -> None:
    rows = rated(ascending(20), epochs=9)
    one, again = (train(rows, PopulationBased(2, seed=5)) for _ in range(2))
    same(one, again)
    assert copies(train(rows, PopulationBased(2, seed=6))) != copies(one)
    drawn = [(each["network"], each["source"]) for each in copies(one)[:5]]
    assert drawn == [(4, 19), (3, 16), (2, 18), (1, 16), (0, 19)], "a format that stays"


@pytest.fixture(name="whole", scope="module")
def with_one_thread() -> Result:
    return searches.run("pbt", epochs=6)


def test_shares_calls_and_threads_change_no_bit(whole: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubp.runs.run.MOST", 3)
    monkeypatch.setattr("gpubp.runs.run.placed", placement.Shards)
    monkeypatch.setattr("gpubp.placing.placement.fitting", lambda *_: 2)  # networks at a time
    with threads(3):
        shared = searches.run("pbt", epochs=6, device=["cpu"] * 2)
    same(shared, whole)
    assert told(shared) == told(whole)


def test_networks_exchange_only_within_their_topology_and_fold() -> None:
    inputs = torch.linspace(-1, 1, 32, dtype=torch.float64)[:, None]
    data = gpubp.Dataset(inputs, 3 * inputs)
    rows = [{**row, "fold": fold, **more} for row in rated(ascending(6), epochs=6) for fold in range(2)
            for more in ({}, {"widths": "1,2,1", "hidden": "tanh"})]  # fmt: skip
    result = gpubp.train_many(rows, *data.folds(2), search=PopulationBased(2), engine="eager", dtype=torch.float64)
    found = copies(result)
    assert len({each["network"] % 4 for each in found}) == 4
    drawn = [[each["lr"] for each in found if each["network"] % 2 == topology] for topology in range(2)]
    assert drawn[0] != drawn[1], "each network has draws of its own"
    assert all(each["network"] % 4 == each["source"] % 4 for each in found)
    for each in found:
        assert each["network"] != each["source"]
        assert 0.001 <= each["lr"] <= 0.1


def test_lists_have_neighbours_and_draws_stay_within_their_space() -> None:
    rows = [{**row, "init_scale": 0.0 if n else 1.0, "momentum": 0.5, "optimizer": "momentum"}
            for n, row in enumerate(rated(ascending(40), epochs=30))]  # fmt: skip
    space = {"lr": "0.01..0.05", "momentum": [0.9, 0.1, 0.5]}
    found = copies(train(rows, PopulationBased(1, space=space, resample=0.0)))
    moved = {(each["momentum_before"], each["momentum"]) for each in found}
    assert {each["momentum"] for each in found} == {0.1, 0.5, 0.9}
    assert moved
    assert all(0.01 <= each["lr"] <= 0.05 for each in found)
    drawn = copies(train(rows, PopulationBased(1, space={"lr": "0.01..0.05"}, resample=1.0)))
    values = torch.tensor([each["lr"] for each in drawn])
    assert len(values) == 290
    assert 0.01 <= float(values.min()) < 0.011 < 0.049 < float(values.max()) <= 0.05
    assert abs(float(values.mean()) - 0.03) < 0.003


def tempered(grad: Any, heat: Any) -> Any:
    return (heat * grad,)


@pytest.mark.parametrize("space", [(0.1, 0.5), np.array([0.1, 0.5]), torch.tensor([0.1, 0.5], dtype=torch.float64)])
def test_a_space_names_hyper_parameters_of_custom_rules_as_a_design_does_and_takes_arrays(
    space: Any, tmp_path: Path
) -> None:
    rule = gpubp.Optimizer(tempered, defaults={"heat": 1.0})
    rows = [{**row, "extra.heat": 0.5, "optimizer": rule} for row in rated(ascending(8), epochs=6)]
    search = PopulationBased(1, space={"extra.heat": space}, resample=0.0)
    found = copies(train(rows, search, run_dir=tmp_path / "run"))
    assert {each["heat"] for each in found} == {0.1, 0.5}
    assert copies(train(rows, PopulationBased(1, space={"heat": "0.1,0.5"}, resample=0.0))) == found


def test_networks_that_have_ended_take_no_part() -> None:
    rows = rated(ascending(8), epochs=6, target_loss=0.0)
    rows[0] |= {"target_loss": 1e9}
    rows[7] |= {"epochs": 2}
    result = train(rows, PopulationBased(2))
    assert result.status_names[0] == "converged"
    assert {each["network"] for each in copies(result)} | {each["source"] for each in copies(result)} <= {*range(1, 7)}


def test_a_search_serves_many_runs() -> None:
    search = PopulationBased(2)
    one, other = train(rated(ascending(8), epochs=6), search), train(rated([0.1, 0.2, 0.3, 0.4], epochs=6), search)
    assert search.space is None
    assert not search.lineage
    assert (len(copies(one)), len(copies(other))) == (4, 2)


@pytest.mark.parametrize(
    ("rows", "search", "told"),
    [
        (rated([0.1] * 4, epochs=9), PopulationBased(), "networks have the same hyper-parameters, and no space"),
        (rated(ascending(4), epochs=9), PopulationBased(9), "every 9 epochs: less than the training's 9 expected"),
        (rated([0.1], epochs=9), PopulationBased(), "two networks or more with the same topology, recipe and"),
        (rated(ascending(4), epochs=9, loss="huber"), PopulationBased(space={"delta": "1..2"}), "differ in kind"),
        (rated(ascending(4), epochs=9), PopulationBased(space={"momentum": "0..0.9"}), "no network has momentum"),
    ],
)  # fmt: skip
def test_populations_in_which_nothing_could_happen_are_refused(rows: Any, search: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        train(rows, search, held_out=None)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"every": 0}, "every 0: a whole number of 1 or more"), ({"quantile": 0.6}, "quantile 0.6: a number from 0 to"),
        ({"quantile": 0}, "quantile 0: "), ({"resample": 2}, "resample 2: a number from 0 to 1"),
        ({"perturb": [0.8, -1]}, "perturb .*: factors above 0"), ({"perturb": []}, "perturb .*: factors above 0"),
        ({"perturb": 0.8}, "perturb 0.8: factors above 0, in a list"),
        ({"perturb": torch.tensor(0.8)}, "perturb .*: factors above 0, in a list"),
        ({"space": {"lr": "0.1"}}, "lr '0.1': a range LOW..HIGH"), ({"space": {"beta1": "0.5..1"}}, "beta1 is 1; a"),
        ({"space": "lr"}, "space is a str; ranges by name"), ({"seed": -1}, "seed -1: "),
    ],
)  # fmt: skip
def test_settings_of_population_based_training_are_checked(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        PopulationBased(**given)
