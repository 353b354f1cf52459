"""What a driver does when workers die, when none has room, and when Ray ends; with a Ray that is made up."""

import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp import cli
from gpubp.checkpoints.history import History
from gpubp.cluster import health
from gpubp.cluster.driver import Driver
from gpubp.cluster.health import Lifeline, Tries, free
from gpubp.cluster.messages import Begun, Looked
from gpubp.cluster.plan import Plan
from gpubp.cluster.progress import Together
from gpubp.cluster.session import Room, session
from gpubp.commands import outcome, train
from gpubp.errors import ClusterError, ConfigError
from gpubp.reporters import Progress
from gpubp.reporters.listeners import Listeners
from gpubp.runs.run import Sets
from gpubp.state import Status

from . import no_ray
from .commands import Capture
from .helpers import failing
from .no_ray import RayError, RayTaskError


class TaskCancelledError(RayError):
    pass


class Ray:
    """Its tasks are what they return, or raise, at once; cancelled ones raise that they are."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, TaskCancelledError=TaskCancelledError)

    def __init__(self) -> None:
        self.cancelled: list[Any] = []

    def wait(self, tasks: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = [each for each in tasks if each.result is not None or each in self.cancelled]
        return done, [each for each in tasks if each not in done]

    def get(self, task: Any) -> Any:
        if task in self.cancelled:
            raise TaskCancelledError
        if isinstance(task.result, Exception):
            raise task.result
        return task.result

    def cancel(self, task: Any, force: bool, recursive: bool) -> None:
        self.cancelled.append(task)


class Task:
    """result: None while it goes on."""

    def __init__(self, result: Any) -> None:
        self.result = result


def driver(*ticks: list[tuple[int, Begun]]) -> tuple[Any, list[str]]:
    """A driver of two shards, which hears these messages at its looks, and what it tells the user."""
    found: Any = Driver.__new__(Driver)
    notes, heard = list[str](), iter(ticks)
    found.ray, found.shards, found.signals, found.options = Ray(), [None, None], [], {"num_cpus": 1}
    found.together = SimpleNamespace(tell=lambda *given: notes.extend(given))
    found.steps, found.lifeline, found.try_to_keep = 0, SimpleNamespace(check=lambda: None), lambda: None
    found.hear = lambda: [found.tries.begin(number, *each) for number, each in next(heard, [])]
    return found, notes


def test_a_shard_whose_worker_dies_is_tried_again_and_the_user_is_told_from_where() -> None:
    died = RayError("died")
    results = {0: iter([died, died, died, 4]), 1: iter([5])}
    found, notes = driver([(0, Begun(0, 0)), (1, Begun(0, 0))], [(0, Begun(40, 20))], [])
    assert found.gather(lambda at: Task(next(results[at])), lambda at, what: None, heard=True) == [4, 5]
    assert notes == [
        "shard 0: its worker died; tried again from step 20",
        "shard 0: its worker died before it began; tried again",
    ]


def test_a_shard_whose_workers_die_without_a_checkpoint_is_given_up_and_the_others_save() -> None:
    results = {0: RayError("died"), 1: None}
    found, notes = driver(*[[(0, Begun(40, 20))]] * 5)
    with pytest.raises(ClusterError, match=r"^shard 0: its worker died 5 times since its last checkpoint: died$"):
        found.gather(lambda at: Task(results[at]), lambda at, what: None, heard=True)
    assert notes == ["shard 0: its worker died; tried again from step 20"] * 4
    assert [each.result for each in found.ray.cancelled] == [None], "the other one"


def test_deaths_count_from_the_last_checkpoint_on() -> None:
    tries = Tries(1, lambda note: None, heard=True)
    for saved in range(20):
        tries.begin(0, 10 * saved, 5 * saved)
        assert tries.died(0, RayError()) is None


def lending(*machines: dict[str, float]) -> Any:
    """A Ray of 4 GPUs and 16 CPUs of which its machines have that free."""
    free = {name: sum(each.get(name, 0) for each in machines) for name in ("GPU", "CPU")}
    state = SimpleNamespace(available_resources_per_node=lambda: dict(enumerate(machines)))
    return SimpleNamespace(
        available_resources=lambda: free, cluster_resources=lambda: {"GPU": 4.0, "CPU": 16.0},
        _private=SimpleNamespace(state=state),
        remote=lambda **_: lambda task: SimpleNamespace(remote=lambda *_: Task(0)),
    )  # fmt: skip


def test_shards_that_find_no_room_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = list[str]()
    ray = lending({"GPU": 1.0}, {"CPU": 2.0})
    tries, told = Tries(3, notes.append, heard=True), lambda: free(ray, {"num_gpus": 2, "num_cpus": 1})
    tries.look([0, 1], told)
    assert notes == [], "not yet"
    monkeypatch.setattr(health, "WAIT", 0.0)
    tries.begin(2, 0, 0)
    tries.look([0, 1, 2], told)
    assert notes == [], "one of the run's is at work, and gives its place to the next"
    for _ in range(2):
        tries.look([0, 1], told)
    assert notes == ["no shard has a worker after 0 s: 1 of 4 GPUs free, 2 needed, 2 of 16 CPUs free, 1 needed"]


@pytest.mark.parametrize("has", [{"GPU": 2.0, "CPU": 1.0}, {"GPU": 2.0}])
def test_a_worker_that_starts_slowly_where_there_is_room_is_not_told_of(
    has: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by shards nor where settings are looked at."""
    monkeypatch.setattr(health, "WAIT", 0.0)
    notes, ray = list[str](), lending({"CPU": 1.0}, has)
    tries, looks, options = Tries(1, notes.append, heard=True), [[], [1]], {"num_gpus": 2, "num_cpus": 1}
    tries.look([0], lambda: free(ray, options))
    ray.wait, ray.get = (lambda *_, **more: (looks.pop(0), [])), lambda task: ([], ["seen"])
    ray.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    plan: Any = SimpleNamespace(**dict.fromkeys(("parts", "folds", "rules")), configure=lambda configs: None)
    plan.sets = SimpleNamespace(validation=None)
    lacking = "CPU" not in has
    with pytest.warns(UserWarning, match="no worker has looked at the settings after") if lacking else nullcontext():
        assert Plan.fit(plan, ray, Room(1, 1, options), None, "auto", "auto", False) == ["seen"]
    assert len(notes) == lacking


@pytest.fixture
def lifeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Lifeline, socket.socket, socket.socket]]:
    """One to a process of Ray on this machine and one to the head of its cluster, which both are of this test."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as raylet, socket.create_server(("127.0.0.1", 0)) as head:
        raylet.bind("raylet")
        raylet.listen()
        ray, port = SimpleNamespace(), head.getsockname()[1]
        ray._private = SimpleNamespace(
            worker=SimpleNamespace(_global_node=SimpleNamespace(raylet_socket_name="raylet"))
        )
        ray.get_runtime_context = lambda: SimpleNamespace(gcs_address=f"127.0.0.1:{port}")
        found = Lifeline(ray)
        connection, _ = raylet.accept()
        yield found, connection, head
        connection.close()
        found.close()


def test_the_end_of_ray_on_this_machine_is_an_error(lifeline: Any) -> None:
    found, raylet, _ = lifeline
    found.check()
    raylet.close()
    with pytest.raises(ClusterError, match="the Ray of this machine has ended; shards have what they saved last"):
        found.check()


def test_a_head_that_is_away_for_long_is_an_error(lifeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, head = lifeline
    monkeypatch.setattr(health, "EVERY", 0.0)
    found.check()
    head.close()
    found.check()  # it may come back
    monkeypatch.setattr(health, "AWAY", 0.0)
    with pytest.raises(ClusterError, match="the head of the cluster does not answer for 0 s"):
        found.check()


def test_a_ray_that_says_nowhere_where_it_is_is_not_watched() -> None:
    found = Lifeline(SimpleNamespace())
    found.check()
    found.close()


@pytest.mark.parametrize("url", [False, True])
def test_a_run_whose_cluster_is_lost_ends_with_one_sentence_and_how_it_goes_on(
    tmp_path: Path, url: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    run: Any = "s3://bucket/run" if url else tmp_path / "run"

    lost = failing(ClusterError("the Ray of this machine has ended"))
    monkeypatch.setattr(train, "run", lambda settings: outcome.ended(run, lost, "10.0.0.1:6379"))
    assert cli.main(["train", "--data", "iris"]) == 1
    first = "has all that is saved; continue with the same command"
    if not url:
        first = f"holds its last checkpoint; continue with: gpubp resume {run} --cluster 10.0.0.1:6379"
    assert capsys.readouterr().err == f"{run} {first}\nerror: the Ray of this machine has ended\n"


def together(seconds: float = 0.0, stops: bool = False, **first: int) -> tuple[Together, list[Progress]]:
    """Of two shards that began with this progress, and what it tells."""
    heard = list[Progress]()
    listening = Listeners((SimpleNamespace(progress=heard.append),), lambda _: None)  # type: ignore[arg-type]
    told = Together([], [], listening, History(), seconds, [], {}, stops)
    told.progress = [Progress(0, 0.0, 3, **first) for _ in range(2)]
    return told, heard


def test_the_first_rate_after_a_resume_is_that_of_this_call() -> None:
    told, _ = together(50.0)
    told.hear(0, Begun(400, 20))
    told.hear(1, Begun(300, 15))
    told.hear(1, Begun(350, 17))  # its worker has died
    assert (told.seen[0], told.seen[1] >= 50.0) == (700, True)
    assert [each.done for each in told.progress] == [400, 350]


def test_shards_that_compile_are_told_of_together_until_one_trains() -> None:
    told, heard = together(compiling=4)
    told.tell()
    told.hear(1, Progress(0, 0.0, 3, compiling=2))
    told.tell()
    told.hear(0, Progress(120, 1.0, 3))
    told.tell()
    assert [*dict.fromkeys(each.compiling for each in heard)] == [8, 6, 0]


@pytest.mark.parametrize("stops", [False, True])
def test_the_steps_of_a_run_in_shards_are_those_of_networks_that_go_on(stops: bool) -> None:
    """As on one machine: networks that have stopped take no more, and where a search stops some nobody knows."""
    told, heard = together(stops=stops, steps=300)
    told.hear(0, Progress(120, 1.0, 2, steps=220))
    status, step = torch.tensor([Status.stopped, Status.running, Status.finished]), torch.tensor([30, 60, 100])
    states = [{"status": status, "step": step, "end": torch.full((3,), 100)}]
    told.rest(1, states, Looked(3, [], [], torch.empty(0)))
    told.tell()
    assert [each.steps for each in heard] == ([0, 0] if stops else [520, 450])
    assert (heard[-1].done, heard[-1].running) == (310, 3)


@pytest.mark.parametrize("listening", [True, False])
def test_auto_starts_no_ray_beside_a_cluster_that_does_not_let_it_in(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that wants another token; what Ray says of it is what it says of one that has crashed."""
    made_up, started, data = no_ray.ray(), list[str](), gpubp.Dataset(torch.zeros(8, 2), torch.zeros(8, 1))
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        if not listening:
            head.close()

        def init(where: str, **_: Any) -> None:
            started.append(where)
            if where == "auto":
                raise ConnectionError(f"Failed to connect to Ray cluster at 127.0.0.1:{port}")

        made_up.init = init
        monkeypatch.setitem(sys.modules, "ray", made_up)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        refused = pytest.raises(ConfigError, match=rf"cluster 'auto': .*127.0.0.1:{port}; .* wants its token: RAY_AUTH")
        with refused if listening else nullcontext(), session("auto", Sets(data)):
            pass
    assert started == ["auto"] + ["local"] * (not listening)
