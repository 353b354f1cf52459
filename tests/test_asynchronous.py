"""search/asynchronous.py: who goes on is said by those that came before, and networks may wait for slots."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError
from gpubp.search import AsynchronousHalving, SuccessiveHalving

from .helpers import alike, quick, same_bits
from .searches import COMMON, LINE, ascending, data, rated, run, train
from .short_runs import forge


def shuffled(count: int) -> list[float]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    return torch.tensor(ascending(count), dtype=torch.float64)[order].tolist()


def test_networks_that_are_all_there_go_on_as_in_successive_halving() -> None:
    rows = rated(shuffled(27), epochs=27, batch_size=8)
    one, other = (train(rows, search()).table for search in (AsynchronousHalving, SuccessiveHalving))
    assert one.equals(other)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_what_ends_for_itself_counts_at_its_rung_and_takes_no_place_as_in_successive_halving(epochs: int) -> None:
    """The best reaches its target at the first rung, on the way to the second, or there."""
    target = float(train(rated([0.1], epochs=epochs), None).validation_loss[0])
    rows = rated(ascending(27), epochs=9, target_loss=0.0)
    rows[26] |= {"target_loss": target}
    one, other = (train(rows, search()).table for search in (AsynchronousHalving, SuccessiveHalving))
    assert one["status"][26].as_py() == "converged"
    assert one["rung"].to_pylist().count(2) == 3
    assert one.equals(other)


@pytest.mark.parametrize("slots", quick([2, 7, 20], [2, 20]))
def test_those_that_wait_are_compared_with_all_that_came_before(slots: int) -> None:
    """By plain lists, and the losses of networks that train alone."""
    rows = rated(shuffled(40), epochs=9)
    search = AsynchronousHalving()
    result = train(rows, search, slots=slots)
    alone = [train(rated(shuffled(40), epochs=epochs), None).validation_loss for epochs in (1, 3)]
    come: list[list[float]] = [[], []]
    steps, seen = [9] * 40, []
    for record in result.search.arrivals:
        here = [*zip(record["network"], record["rung"], record["figure"])]
        assert record["network"] == sorted(record["network"])
        for _, rung, figure in here:
            come[rung].append(figure)
        for network, rung, figure in here:
            seen.append((network, rung))
            assert figure == float(alone[rung][network])
            better = sum(each < figure for each in come[rung])
            if better >= max(1, len(come[rung]) // 3):
                steps[network] = (1, 3)[rung]
    assert result.table["steps"].to_pylist() == steps
    assert result.table["rung"].to_pylist() == [{1: 0, 3: 1, 9: 2}[each] for each in steps]
    assert sorted(seen) == sorted((n, rung) for n in range(40) for rung in range(2) if steps[n] > rung * 1)
    assert not search.arrivals, "a run's search is a copy"
    assert max(each["statuses"]["running"] for each in result.history) <= slots
    for network in range(0, 40, 7):
        own = train(rated([shuffled(40)[network]], epochs=9, seed=COMMON["seed"]), None, engine="eager")
        if steps[network] == 9:
            assert same_bits(own.loss[0], result.loss[network])
            assert alike(own.network(0), result.network(network))


def test_equal_networks_go_on_in_the_order_in_which_they_come() -> None:
    result = train(rated([0.1] * 12, epochs=3), AsynchronousHalving(), slots=4)
    assert result.table["rung"].to_pylist() == [1] * 1 + [0] * 11, (
        "four come, one goes on; two of eight do, and are worse"
    )


def test_networks_that_diverge_count_and_never_go_on() -> None:
    rows = rated([1e200, 1e200, 0.01, 0.02, 0.05, 1e200], epochs=3, batch_size=1)
    result = train(rows, AsynchronousHalving(), slots=2)
    assert [each for record in result.search.arrivals for each in record["network"]].count(1) == 1
    assert result.status_names == ["diverged", "diverged", "stopped", "finished", "finished", "diverged"]


def test_losses_of_two_kinds_are_compared_by_the_metric_whoever_is_there() -> None:
    rows = [{**row, "loss": ("mean_squared_error", "huber")[n // 4]} for n, row in enumerate(rated([0.1, 0.05] * 4))]
    result = train(rows, AsynchronousHalving(), slots=2, epochs=3)
    alone = train(rows, None, epochs=1).validation_metric
    assert alone is not None
    seen = [each for record in result.search.arrivals for each in zip(record["network"], record["figure"])]
    assert seen == [(network, -float(alone[network])) for network in range(8)]


def test_what_diverges_between_two_rungs_counts_at_the_second() -> None:
    """After the first round the first network's error is 1e160, whose square is not finite."""
    result = train(rated([1e160, 0.01, 0.02], epochs=9), AsynchronousHalving(), slots=1)
    assert [(each["network"], each["rung"]) for each in result.search.arrivals][:2] == [([0], [0]), ([0], [1])]
    assert result.search.arrivals[1]["figure"] == [float("inf")]
    assert result.table["steps"].to_pylist() == [1, 9, 9]
    assert result.table["rung"].to_pylist() == [1, 2, 2]


def test_networks_come_to_a_rung_once_while_those_of_another_topology_train_on() -> None:
    rows = [*rated([0.1, 0.09], epochs=9), *rated([0.001, 0.002], epochs=9, widths="1,2,1")]
    come = train(rows, AsynchronousHalving()).search.arrivals
    assert [each["network"] for each in come] == [[0, 1, 2, 3], [0]]


def test_each_entity_has_a_search_of_its_own() -> None:
    inputs = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    keys = torch.arange(40) % 2
    given = gpubp.Dataset(inputs, inputs * 10.0 ** (3 * keys)[:, None]).by(keys.tolist())
    rows = [{**row, "entity": n % 2} for n, row in enumerate(rated(ascending(18), epochs=3))]
    result = train(rows, AsynchronousHalving(), given, None, slots=6)
    rungs = torch.tensor(result.table["rung"].to_pylist()).view(9, 2)
    assert rungs[:, 0].tolist() == rungs[:, 1].tolist()
    assert 1 <= int(rungs[:, 0].sum()) < 9


def test_damaged_arrivals_are_refused_as_decisions_depend_on_them(tmp_path: Path) -> None:
    """Stopped, killed and resumed runs: test_search_resume.py."""
    run("asha", tmp_path / "run", epochs=4)
    (tmp_path / "run" / "arrivals.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match=r"^\S*/run/arrivals.jsonl is damaged"):
        gpubp.resume(tmp_path / "run", data(), data(9))
    for network, rung in (([12], [0]), ([3, 12], [0, 0]), ([3], [9]), ([1 << 63], [0]), ([], [])):
        record = {"round": 1, "network": network, "rung": rung, "figure": [0.5] * len(rung)}
        forge(tmp_path / "run", lambda held, record=record: {"search": held["search"] | {"arrivals": [record]}})
        with pytest.raises(CheckpointError, match=r"/run\S*: .*arrivals|/run/arrivals"):
            gpubp.resume(tmp_path / "run", data(), data(9))


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        (iter(rated([0.1] * 9, epochs=9)), {"slots": 3}, "the design is an iterator; one that has all its rows"),
        ([{**row, "fold": 0} for row in rated([0.1] * 9, epochs=9)], {},
         r"in each fold: SuccessiveHalving \(--search halving\) expected"),
        (rated([0.1] * 9, epochs=2), {"slots": 3}, "asha: after min_resources, 1 epoch, one network of 3 goes on"),
        ([*rated([0.1] * 9, epochs=9), *rated([0.1], epochs=9, evaluate_every=2)], {"slots": 3}, "asha decides after"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_trains(rows: Any, more: dict[str, Any], told: str) -> None:
    folds = LINE.folds(2) if "in each fold" in told else (LINE, LINE)
    with pytest.raises(ConfigError, match=told):
        train(rows, AsynchronousHalving(), *folds, **more)


def test_halving_without_slots_for_all_names_it_only_where_it_can_take_the_networks() -> None:
    rows, told = rated([0.1] * 9, epochs=9), "or search=AsynchronousHalving"
    folded = [{**row, "fold": 0} for row in rows]
    for given, folds, there in ((rows, (LINE, LINE), True), (iter(rows), (LINE, LINE), False),
                                (folded, LINE.folds(2), False)):  # fmt: skip
        with pytest.raises(ConfigError, match="give as many slots, or fewer networks") as caught:
            train(given, SuccessiveHalving(), *folds, slots=3)
        assert (told in str(caught.value)) == there


def test_a_cluster_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at the same time: SuccessiveHalving \(--search halving\) expected"):
        gpubp.cluster.train_many(
            rated([0.1, 0.2], epochs=9), LINE, LINE, run_dir=tmp_path / "run", search=AsynchronousHalving()
        )
    assert not (tmp_path / "run").exists()
