"""The model of a thousand GPUs: its figures in docs/inside/cluster.md, and limits that can be told without it."""

import re
from dataclasses import replace

import pytest

from benchmarks.cluster_model import Cluster, Costs, simulate

from .clusters import ROOT

DOCUMENT = (ROOT / "docs" / "inside" / "cluster.md").read_text(encoding="utf-8")
FREE = Costs(*[0.0] * 10)


def table(header: str) -> dict[str, list[str]]:
    """Of the table whose header begins so, the numbers of each row by its first cell."""
    rows = DOCUMENT.partition(f"\n| {header} |")[2].partition("\n\n")[0].replace(",", "").splitlines()[2:]
    cells = [row.strip("| ").partition(" | ") for row in rows]
    return {name: re.findall(r"\d+\.?\d*", rest) for name, _, rest in cells}


@pytest.fixture
def costs() -> Costs:
    """As they are in the document."""
    seconds, sizes = ([float(each[0]) for each in table(name).values()] for name in ("request", "| bytes a network"))
    task, message, record, join, tidy, start = seconds
    design, told, light, state = sizes
    return Costs(task, message, record * 1e-6, join * 1e-6, tidy, state, told, design, light, start)


@pytest.mark.parametrize("shards", [100, 1000])
def test_the_documented_figures_are_those_of_the_model(costs: Costs, shards: int) -> None:
    found, told = simulate(costs, Cluster(shards)), table("shards")[str(shards)]
    last = found.seconds - found.joining
    busy = [100 * found.busy[name] for name in ("board", "storage", "driver", "network")]
    mine = [100 * found.ideal / last, found.joining, 100 * found.efficiency, *busy]
    assert [f"{value:.{len(shown.partition('.')[2])}f}" for value, shown in zip(mine, told, strict=True)] == told


def test_what_costs_nothing_takes_the_time_of_the_training() -> None:
    found = simulate(FREE, Cluster(5, samples=0.0, lost=0.0))
    assert (found.seconds, found.efficiency, found.redone) == (pytest.approx(found.ideal), pytest.approx(1), 0)


def test_a_server_that_has_more_to_do_than_there_is_time_is_full() -> None:
    cluster = Cluster(50, samples=0.0, lost=0.0, hours=0.1)
    board = simulate(replace(FREE, message=0.02), cluster)  # 50 messages a second, a second's work, and evaluations
    assert 1 < board.busy["board"] < 1.5
    storage = simulate(replace(FREE, state=1e5), replace(cluster, storage=5e7, minutes=0.5))
    assert storage.busy["storage"] > 0.95
    assert storage.efficiency < 0.5


def test_failures_cost_the_work_since_the_last_checkpoint() -> None:
    cluster = Cluster(200, samples=0.0, lost=5.0, minutes=5.0)
    found = simulate(FREE, cluster)
    failures = cluster.shards * cluster.hours * cluster.lost / 24
    assert 0.5 * failures * 150 < found.redone < 1.5 * failures * 150, "half of five minutes each"
    assert simulate(FREE, replace(cluster, minutes=1.0)).redone < found.redone / 3
