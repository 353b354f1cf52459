"""General kernels: one serves networks of any widths, with the bits of their own kernels, until those would save more
than compiling takes. (Their layouts are among those of test_compiled.py and test_compiled_independence.py.)"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import build, cache, cpu, general
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import REACH

from .helpers import compiled, differences, noted, population, quick, samples, start, threads, train  # noqa: F401

DEEP = {(2, 3, 1, 7, 18): 7, (17, 33, 1): 1, (1, 50, 16, 3): 40}  # and a size of batches
SETTINGS: dict[str, Any] = {"optimizer": "adam", "lr": 0.05, "steps": 5, "shuffle": "network"}


@pytest.fixture(name="cached", scope="module")
def kernels_of_this_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, cached: Path) -> None:
    """No topology has lost anything, nor has its own kernel."""
    monkeypatch.setattr(general, "COMPILING", 2.0)
    monkeypatch.setattr(general, "ACCOUNTS", {})
    monkeypatch.setattr(cpu, "KERNELS", {})
    monkeypatch.setattr(cpu, "CALLS", type(cpu.CALLS)())
    monkeypatch.setenv("GPUBP_CACHE", str(cached))
    for lost in cached.rglob("lost-*"):
        lost.unlink()


def networks(widths: tuple[int, ...], count: int = 3) -> gpubp.Population:
    return population(gpubp.NetworkSpec(widths, "tanh"), count, torch.float32)


def dataset(widths: tuple[int, ...], count: int = 40) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(gpubp.NetworkSpec(widths), count, dtype=torch.float32))


def key(widths: tuple[int, ...] = (4, 8, 3), networks: int = 10) -> Key:
    spec = gpubp.NetworkSpec(widths, "tanh")
    recipe = gpubp.TrainConfig(batch_size=8, **SETTINGS).recipe(spec)
    return Key(spec, recipe, torch.float32, Samples(True, shuffle="network"), networks)


def trained(one: bool, count: int) -> list[Any]:
    """The first networks of DEEP after five steps, and their figures, by general kernels or by their own."""
    found: list[Any] = []
    with general.only(one):
        for widths, batch in [*DEEP.items()][:count]:
            state = train(networks(widths), dataset(widths), [2, 3], cpu, batch_size=batch, **SETTINGS)
            found.append((state, cpu.evaluate(state.population, dataset(widths), {}, state.position)))
    return found


@pytest.mark.parametrize("count", quick([2, 3], [2]))
def test_a_general_kernel_has_the_bits_of_each_topologys_own(count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        texts = noted(patch, build, "library", lambda text, **given: text)
        found = trained(True, count)
    assert len({*texts}) == 2, "one serves all widths, depths and batches in training, one in evaluations"
    for (one, mine), (other, theirs) in zip(found, trained(False, count)):
        assert not differences(one, other)
        assert torch.equal(mine.loss, theirs.loss)
        assert torch.equal(mine.metric, theirs.metric)


@pytest.mark.parametrize("count", quick([63, 64, 65, 4095, 4096, 8300], [65, 8300]))
def test_sums_over_many_samples_have_their_one_order(count: int) -> None:
    given, settings = (networks((1, 1)), dataset((1, 1), count)), {**SETTINGS, "batch_size": count, "steps": 2}
    found = []
    for one in (True, False):
        with general.only(one):
            found.append(train(*given, engine=cpu, **settings))
    assert not differences(*found)


def test_threads_share_no_sizes() -> None:
    """Two topologies train side by side in one library."""
    given = [(networks(widths, 33), dataset(widths)) for widths in [*DEEP][:2]]
    settings = {**SETTINGS, "batch_size": 8, "steps": 60}
    with general.only(True):
        expected = [train(*each, engine=cpu, **settings) for each in given]
        states = [start(*each, **settings) for each in given]
        with threads(3), ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(cpu.run, state, data, 60) for state, (_, data) in zip(states, given)]:
                each.result()
    for one, other in zip(states, expected):
        assert not differences(one, other)


def test_a_short_training_has_a_general_kernel_and_a_long_one_its_own() -> None:
    cpu.settle(key(), 100)
    assert not cpu.kernel(key()).own
    cpu.settle(key(), 10**9)
    assert cpu.kernel(key()).own
    assert not cpu.kernel(key((5, 3, 2))).own, "another topology"


def test_what_short_trainings_lose_adds_up_also_over_processes() -> None:
    steps = 0.3 * general.COMPILING / cpu.chosen(key()).loss
    for number in range(4):
        general.ACCOUNTS.clear()  # as in a new process
        cpu.settle(key(), steps)
        assert general.account(key()).general == (number < 3)


def test_nothing_is_lost_of_what_many_add_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cache.add("lost", 0.25), range(200)))
    assert cache.add("lost", 0.0) == 50


def test_a_call_that_has_lost_enough_goes_on_in_its_own_kernel() -> None:
    given = networks((4, 8, 3)), dataset((4, 8, 3))
    state = start(*given, batch_size=8, **SETTINGS)
    cpu.run(state, given[1], 2)
    ((_, before),) = cpu.CALLS.kept.values()
    assert not before.own
    assert 0 < before.account.lost < 2
    before.account.lost = math.inf
    cpu.run(state, given[1], 3)
    ((_, after),) = cpu.CALLS.kept.values()
    assert after.own
    with general.only(False):
        assert not differences(state, train(*given, engine=cpu, batch_size=8, **SETTINGS))


def test_where_nothing_can_be_stored_each_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_CACHE", "/proc/nowhere")
    cpu.settle(key(), 1e5)
    assert general.account(key()).general
    cpu.settle(key(), 10**9)
    assert not general.account(key()).general


def test_a_general_kernel_whose_numbers_no_index_reaches_is_not_used() -> None:
    """Its own kernel, which adds no gradients over chunks, would have fewer."""
    spec = gpubp.NetworkSpec((20_000, 27_000))
    recipe = gpubp.TrainConfig("adam", batch_size=32, steps=1).recipe(spec)
    assert 4 * spec.size > REACH > 3 * spec.size
    assert "that an index can address" in str(cpu.refused(spec, recipe, torch.float32))


def test_no_networks_lose_nothing() -> None:
    cpu.settle(key(networks=0), 100)
    assert general.account(key(networks=0)).general


def test_what_a_kernel_loses_is_a_part_of_its_time_by_the_number_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.time, "perf_counter", iter(range(4)).__next__)
    lost = [0.0]
    for count in (1, 10_000):
        monkeypatch.setattr(kernel := cpu.kernel(key(networks=count)), "library", SimpleNamespace(run=lambda job: 0))
        kernel.entry("run", key(networks=count))(None)
        lost.append(general.account(key()).lost)
    assert [lost[1], lost[2] - lost[1]] == pytest.approx([cpu.chosen(key(networks=n)).share for n in (1, 10_000)])
    assert lost[1] < lost[2] - lost[1]


def test_a_prepared_call_is_of_the_kernels_that_serve_now() -> None:
    data = dataset((4, 8, 3))
    state = start(networks((4, 8, 3)), data, batch_size=8, **SETTINGS)
    for one in (True, False, True):
        with general.only(one):
            cpu.run(state, data, 1)
            ((_, call),) = cpu.CALLS.kept.values()
            assert call.own == (not one)


def test_the_workspace_has_room_for_the_kernel_that_may_follow() -> None:
    data = dataset((4, 8, 3))
    state = start(networks((4, 8, 3), 100), data, batch_size=8, **SETTINGS)
    with general.only(False):
        own = cpu.workspace(state, data)
    assert cpu.workspace(state, data) >= own


def test_a_topology_that_has_its_own_kernels_keeps_them_whatever_other_threads_count() -> None:
    cpu.settle(key(), 10**9)
    general.account(key()).lost = 0.1
    assert not general.account(key()).general
