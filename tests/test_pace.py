"""Calls of the engine are as long as is worth it, are counted ahead, and are cut by nothing that nobody looks at; small
operations between them are computed by the thread that asks."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import stopping
from gpubp.placing import placement
from gpubp.reporters.snapshot import Snapshot
from gpubp.runs import pace
from gpubp.settings.config import TrainConfig
from gpubp.state import Status, TrainState
from gpubp.system.threads import one_thread

from .helpers import noted, population, same_bits, samples, threads
from .short_runs import hears

SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
STEP, LEAST = 0.002, 1  # seconds of a step of the machine below


def state(*limits: int) -> TrainState:
    inputs, targets = samples(SPEC, 40)
    own = TrainState.start(population(SPEC, len(limits)), TrainConfig(steps=1), gpubp.Dataset(inputs, targets))
    own.limit = torch.tensor(limits)
    return own


class Machine:
    """Takes STEP seconds for a step. A call returns when it is done, or, like a GPU's, when the one two before is."""

    def __init__(self, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead, self.now, self.ends = ahead, 0.0, [0.0, 0.0]
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.now)

    def run(self, steps: int) -> None:
        self.ends.append(max(self.ends[-1], self.now) + STEP * steps)
        self.now = max(self.now + 2e-5, self.ends[-3 if self.ahead else -1])

    def wait(self) -> None:
        self.now = max(self.now, self.ends[-1])


def calls(own: pace.Pace, machine: Machine) -> list[int]:
    found = []
    while own.left:
        found.append(own.next(LEAST))
        machine.run(found[-1])
        own.returned(found[-1])
    return found


@pytest.mark.parametrize("ahead", [False, True], ids=["waits for a call", "is ahead of it"])
def test_calls_become_as_long_as_wanted_and_never_much_longer(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, own, networks = Machine(ahead, monkeypatch), pace.Pace(0.25, 1 << 16, 100.0), state(20_000, 20_000)
    own.look(networks)
    found = calls(own, machine)
    assert sum(found) == 20_000
    assert max(found) <= 126
    assert found[20:-1] == [125] * len(found[20:-1])
    assert own.rate == pytest.approx(2 / STEP, rel=0.01)
    machine.wait()
    networks.step += 20_000
    own.settled(networks)
    assert own.rate == pytest.approx(2 / STEP)


@pytest.mark.parametrize("ahead", [False, True])
def test_rounds_of_one_call_become_one_call(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, own, networks = Machine(ahead, monkeypatch), pace.Pace(0.25, 1 << 16, 100.0), state(0, 0)
    found = []
    for _ in range(3):
        networks.limit += 100
        own.look(networks)
        found.append(calls(own, machine))
        machine.wait()
        networks.step += 100
        own.settled(networks)
    assert found[0][:3] == [1, 1, 1], "not before it is known how long one takes"
    assert found[1:] == [[100], [100]]


def test_the_first_call_takes_no_longer_than_wanted_wherever_it_may_be() -> None:
    """At most 2 ms for a layer, and a second for ten million weights times samples."""
    shapes = ((3, 6, 2), 1, 8), ((3, 6, 2), 1000, 8), ((3, 6, 2), 100_000, 32), ((2,) * 200, 2, 8)
    seconds = [pace.slowest(population(gpubp.NetworkSpec(each), count), batch) for each, count, batch in shapes]
    assert seconds == pytest.approx([0.006, 0.036, 12.2, 0.4], rel=0.1)
    assert [pace.Pace(0.25, 30, each).length for each in seconds] == [30, 6, 1, 1]


def test_what_calls_will_have_done_is_counted_for_networks_that_end_apart() -> None:
    own, networks = pace.Pace(1.0, 1 << 16, 100.0), state(10, 3, 10, 0)
    networks.status[2] = Status.diverged
    own.look(networks)
    assert (own.left, own.running, own.done) == (10, 3, 0)
    for steps, done in ((2, 4), (4, 9), (4, 13)):
        own.next(1)
        own.returned(steps)
        assert own.done == done
    assert own.left == 0


def train(monkeypatch: pytest.MonkeyPatch, *reporters: Any, **settings: Any) -> tuple[gpubp.Result, list[int]]:
    """A run, and the steps of its calls."""
    validation = settings.pop("validation", None)
    config = TrainConfig(**{"batch_size": 8, "steps": 400, "lr": 0.01, **settings})
    with monkeypatch.context() as patch:
        patch.setattr("gpubp.runs.run.CALL", 100.0)
        taken = noted(patch, placement.Home, "run", lambda self, steps: steps)
        data = gpubp.Dataset(*samples(SPEC, 40))
        return gpubp.train(population(SPEC, 3), data, config, validation, reporters=reporters), taken


HEARS = hears(evaluated=lambda record: None)


def test_rounds_without_an_audience_cut_no_call_and_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, few = train(monkeypatch)
    assert few == [400]
    assert [(record["step"], record["round"]) for record in alone.history] == [(400, 1)]
    assert len(train(monkeypatch, hears(progress=lambda progress: None))[0].history) == 1
    held_out = gpubp.Dataset(*samples(SPEC, 10, seed=4))
    looks: Sequence[tuple[Any, ...]] = ((HEARS,), {"validation": held_out}, {"evaluate_every": 4})
    for each in looks:
        looked, many = train(monkeypatch, *each) if isinstance(each, tuple) else train(monkeypatch, **each)
        assert len(looked.history) == 100
        assert len(many) >= 100
        for name in ("step", "status", "loss"):
            assert same_bits(getattr(looked.state, name), getattr(alone.state, name)), name
        assert same_bits(looked.population.params, alone.population.params)
        assert same_bits(looked.loss, alone.loss)


def test_between_two_evaluations_no_clock_of_a_network_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step, status and limit are what they were at the last look, until the place brings them home."""
    run, look, away = placement.Home.run, placement.Home.look, {}

    def stale(self: placement.Home, steps: int) -> list[str]:
        own = self.state
        if away:
            own.step, own.status = away["step"], away["status"]
        notes = run(self, steps)
        away.update(step=own.step, status=own.status)
        own.step, own.status = torch.full_like(own.step, -99), torch.full_like(own.status, 77)
        return notes

    def home(self: placement.Home) -> None:
        if away:
            self.state.step, self.state.status = away["step"], away["status"]
            away.clear()
        look(self)

    expected, _ = train(monkeypatch, HEARS, lr=[0.01, 1e308, 0.02])
    monkeypatch.setattr(placement.Home, "run", stale)
    monkeypatch.setattr(placement.Home, "look", home)
    found, _ = train(monkeypatch, HEARS, lr=[0.01, 1e308, 0.02])
    assert same_bits(found.population.params, expected.population.params)
    assert found.status_names == expected.status_names == ["finished", "diverged", "finished"]
    assert found.network_steps == expected.network_steps
    steps = [[record["step"] for record in each.history] for each in (found, expected)]
    assert steps[0] == steps[1] == list(range(4, 401, 4))


@pytest.mark.parametrize("length", [{"epochs": [12, 40]}, {"steps": [300, 1000]}])
def test_plateau_decides_as_often_among_longer_networks_and_in_longer_runs(length: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"lr": 0.3, "schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5}
    [(name, lengths)] = length.items()

    def found(ids: list[int], ends: Any) -> torch.Tensor:
        config = TrainConfig(batch_size=8, **{name: ends}, **settings)
        given = population(SPEC, ids=ids), gpubp.Dataset(*samples(SPEC, 40)), config
        return gpubp.train(*given, engine="eager").population.params

    assert same_bits(found([0, 1], lengths)[:1], found([0], lengths[0]))


def test_one_thread_is_the_callers_alone_and_ends() -> None:
    seen = list[int]()
    with threads(3):
        with one_thread():
            assert torch.get_num_threads() == 1
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert seen == [3]
        assert torch.get_num_threads() == 3


def test_a_loop_decides_and_reports_in_one_thread_and_trains_in_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    listening, curves = set[int](), gpubp.TensorBoardReporter
    works = (stopping, "decide"), (Snapshot, "describe"), (curves, "show"), (curves, "outcome")
    small = [noted(monkeypatch, where, name, lambda *given: torch.get_num_threads()) for where, name in works]
    listener = hears(evaluated=lambda record: listening.add(torch.get_num_threads()))
    with threads(3):
        train(monkeypatch, listener, curves(tmp_path), steps=2)
    assert [{*each} for each in small] == [{1}] * 4
    assert listening == {3}
