"""Groups that take turns: whatever of two streams comes first where nothing says so, the bits are those of one group;
and copies are given before the work that hides them."""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import gpubp
from gpubp import memory
from gpubp.engines import ENGINES
from gpubp.placing import placement, turns
from gpubp.samples.data import Dataset
from gpubp.state import TrainState
from gpubp.system import gpus

from . import test_gpu_training as compiled_runs
from .helpers import compiled, covering, quick, samples  # noqa: F401
from .playing import machine
from .streams import PLAYERS, Streams, streams
from .test_placement import COUNT, SPEC, STEPS, config, data, same, train

CALLS, ROUNDS = STEPS // 4 * 2, STEPS // 4  # of 3 steps and of 1; of 4 steps
MOST = 2 * COUNT * CALLS  # no run of groups takes more calls of the engine

pytestmark = pytest.mark.usefixtures("short_calls")


def own_inputs() -> gpubp.Dataset:
    """Each network's own inputs, rows and weights."""
    weight = torch.rand(COUNT, 40, generator=torch.Generator().manual_seed(3)).double()
    return gpubp.Dataset(*samples(SPEC, COUNT, 40), [range(n, 20 + 2 * n) for n in range(COUNT)], weight)


RUNS: dict[str, Callable[[], dict[str, Any]]] = {
    "shared": dict,
    "own inputs": lambda: {"data": own_inputs()},
    "own rows, sgd": lambda: {
        "data": data(rows=[range(n, 20 + n) for n in range(COUNT)]), "config": config(optimizer="sgd")
    },
    "some diverge": lambda: {
        "config": config(optimizer="sgd", schedule="constant", lr=[1e200 if n % 3 == 1 else 0.01 for n in range(COUNT)])
    },
    "ends of their own": lambda: {"config": config(steps=[STEPS - n for n in range(COUNT)])},
}  # fmt: skip


@functools.cache
def expected(run: str) -> gpubp.Result:
    """A run in one group."""
    return train(**RUNS[run]())


def played(
    player: str, run: str, fit: int = 6, reads: bool = False, engine: Callable[..., Any] = lambda run: run
) -> tuple[gpubp.Result, Streams]:
    """A run on a device that holds `fit` networks, its streams played. engine: makes another of the eager one."""
    calls = itertools.count()

    def ends(*given: Any) -> None:
        assert next(calls) < MOST, "a run whose copies come too late or too early takes calls without end"
        trains(*given)

    with streams(player, reads) as own, pytest.MonkeyPatch.context() as patch:
        trains = engine(ENGINES["eager"].run)
        patch.setattr(memory, "fit", lambda *given: fit)
        patch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=ends))
        return train(["cpu"], **RUNS[run]()), own


FIND = [("shared", "late copies", False), ("own rows, sgd", "all late", True), ("some diverge", "early copies", False),
        ("ends of their own", "chance", True)]  # fmt: skip


@pytest.mark.parametrize(("run", "player", "reads"), quick(itertools.product(RUNS, PLAYERS, [False, True]), FIND))
def test_groups_copied_during_training_have_the_bits_of_one_group(player: str, run: str, reads: bool) -> None:
    for fit in (6,) if reads else (2, COUNT):  # the last holds all
        found, own = played(player, run, fit, reads)
        assert same(found, expected(run)), fit
        waits = CALLS + ROUNDS + 1 + (fit == COUNT)
        assert own.waits == waits, "a call, an evaluation, and rows that come home, wait"
    if run == "some diverge":
        assert found.statuses["diverged"] == 2


SHORT = [(6, 2, 4, 2), (6, 1, 5, 3), (COUNT, 3, 0, 2), (COUNT, 2, 2, 2)]


@pytest.mark.parametrize(("short", "player", "run"), covering(SHORT, PLAYERS, ["shared", "own inputs"], meet=1))
def test_memory_that_runs_out_in_the_middle_of_a_turn_changes_no_bit(
    short: tuple[int, int, int, int], player: str, run: str
) -> None:
    """How many fit, then find room after so many calls, and how many notes that makes."""
    fit, room, after, notes = short
    calls = [0]

    def full(trains: Callable[..., None]) -> Callable[..., None]:
        def run(state: TrainState, data: Dataset, steps: int) -> None:
            calls[0] += 1
            if calls[0] > after and state.population.count > room:
                trains(state.rows(slice(0, room)), data, steps)
                raise torch.OutOfMemoryError("CUDA out of memory")
            trains(state, data, steps)

        return run

    found, _ = played(player, run, fit, engine=full)
    assert same(found, expected(run))
    assert len(found.notes) == notes


@pytest.mark.parametrize("name", ["to", "room"])
def test_memory_that_has_no_room_for_two_seats_halves_the_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner: Any = {"to": TrainState, "room": Dataset}[name]
    whole, make, made = expected("own inputs"), getattr(owner, name), []

    def full(given: Any, *rest: Any) -> Any:
        made.append(rest[0] if name == "room" else given.population.count)
        if made[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(given, *rest)

    monkeypatch.setattr(owner, name, full)
    monkeypatch.setattr(memory, "fit", lambda *given: 6)
    found = train(["cpu"], data=own_inputs())
    assert same(found, whole)
    assert made == [6, 4], "two seats of three, then of two"


@pytest.mark.parametrize(
    ("name", "player"),
    [("some diverge", "all late"), pytest.param("own inputs and weights", "chance", marks=pytest.mark.slow),
     *(pytest.param(*each, marks=pytest.mark.slow) for each in itertools.product(("adam", "own rows"), PLAYERS))],
)  # fmt: skip
def test_the_compiled_engine_which_waits_for_nothing_has_the_same_bits(
    name: str, player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = compiled_runs.SETTINGS[name]
    whole = compiled_runs.train("cpu", **settings)
    monkeypatch.setattr(memory, "fit", lambda *given: 4)
    with machine(), streams(player, engine="cuda"):
        assert same(compiled_runs.train("cuda:0", **settings), whole)


class Told:
    """gpubp.system.gpus.Copies that writes down what it is asked."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    @contextmanager
    def beside(self) -> Iterator[None]:
        self.told.append("beside")
        yield
        self.told.append("end")

    def follow(self) -> None:
        self.told.append("follow")

    def lead(self) -> None:
        self.told.append("lead")


def told(number: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `number` groups that take turns ask for, in order: copies by their stream, the host's waits."""
    asked: list[str] = []
    monkeypatch.setattr(gpus, "wait", lambda device: asked.append("wait"))
    everyone = turns.groups(number, 1)

    def tell(what: str) -> Callable[[turns.Group], None]:
        return lambda group: asked.append(f"{what} {group.part.start}")

    turns.take_turns(everyone, torch.device("cpu"), Told(asked), tell("come"), tell("work"), tell("leave"))
    found, inside = [], False
    for each in asked:
        inside = each == "beside" or (inside and each != "end")
        assert inside == (each.split()[0] in ("beside", "come", "leave")), "copies are beside, and nothing else is"
        found += [] if each in ("beside", "end") else [each]
    return found


def test_the_next_group_is_copied_before_the_work_that_hides_it_and_the_host_waits_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told(3, monkeypatch) == [
        "follow", "come 0", "lead",
        "come 1", "work 0", "lead", "follow", "leave 0",
        "come 2", "work 1", "lead", "follow", "leave 1",
        "work 2", "lead", "follow", "leave 2",
        "lead", "wait",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["come 0", "come 1", "work 0", "work 1", "leave 1"])
def test_after_an_error_in_a_turn_the_host_still_waits_for_running_work(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(gpus, "wait", lambda device: asked.append("wait"))

    def tell(word: str) -> Callable[[turns.Group], None]:
        def act(group: turns.Group) -> None:
            if f"{word} {group.part.start}" == what:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return act

    with pytest.raises(torch.OutOfMemoryError):
        turns.take_turns(
            turns.groups(3, 1), torch.device("cpu"), Told(asked), tell("come"), tell("work"), tell("leave")
        )
    assert asked[-2:] == ["lead", "wait"]


def test_a_call_in_turns_has_steps_enough_to_hide_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubp.runs.run.CALL", 0.0)  # calls of one step
    monkeypatch.setattr("gpubp.runs.run.MOST", 1024)
    taken: list[int] = []

    def counted(trains: Callable[..., None]) -> Callable[..., None]:
        def run(state: TrainState, data: Dataset, steps: int) -> None:
            taken.append(steps)
            trains(state, data, steps)

        return run

    for fit, groups, calls in ((6, 3, [64, 2, 4]), (COUNT, 1, [1] * 9)):
        taken.clear()
        chosen = config(steps=sum(calls), evaluate_every=66, schedule="constant")
        with monkeypatch.context() as patch:
            patch.setattr(memory, "fit", lambda *given, fit=fit: fit)
            patch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=counted(ENGINES["eager"].run)))
            train(["cpu"], config=chosen)
        assert taken == [steps for steps in calls for _ in range(groups)]
    assert placement.Home.least == 1
