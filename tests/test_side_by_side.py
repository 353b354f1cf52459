"""Populations of one run side by side: the same bits, no more threads than there are, and nothing left behind."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import memory
from gpubp.engines import ENGINES, cpu, general

from .helpers import alike, compiled, start, threads  # noqa: F401
from .playing import machine
from .short_runs import Stop, stopped
from .test_design import FOLDS, data, rows, same, train
from .test_queue import same as same_rows

# Three populations, which have one kernel for their evaluations; some diverge, one stops.
ROWS = [{**row, "hidden": "relu"} for row in rows() if row["seed"] in (0, 1, 2, 4, 5, 8)]
WAIT = 60  # seconds within which two calls meet that can be under way at once


@contextmanager
def calls(meet: bool = False) -> Iterator[list[int]]:
    """Engine cpu. -> torch's threads in all calls under way, at every start of a call. meet: the first calls of the
    two populations with sgd, of one network each, wait for each other."""
    under_way, seen, lock, begun = [0], [], threading.Lock(), set()
    barrier, trains = threading.Barrier(2), ENGINES["cpu"].run

    def run(state: Any, given: Any, steps: int) -> None:
        with lock:
            under_way[0] += torch.get_num_threads()
            seen.append(under_way[0])
            first = state.recipe.optimizer == "sgd" and state.recipe not in begun
            begun.add(state.recipe)
        if first and meet:
            barrier.wait(WAIT)
        trains(state, given, steps)
        with lock:
            under_way[0] -= torch.get_num_threads()

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "cpu", ENGINES["cpu"]._replace(run=run))
        yield seen


@pytest.fixture(name="whole", scope="module")
def one_after_the_other() -> gpubp.Result:
    return train(ROWS, engine="cpu")


@pytest.mark.cpu("counts threads of a CPU")
@pytest.mark.parametrize(("number", "slots"), [(1, None), (2, None), (4, None), (2, 4)])
def test_populations_side_by_side_have_the_bits_of_each_alone_and_no_more_threads_than_there_are(
    number: int, slots: int | None, whole: gpubp.Result
) -> None:
    with threads(number), calls(meet=number > 1 and slots is None) as seen:
        found = train(ROWS, engine="cpu", slots=slots)
    same_rows(found, whole) if slots else same(found, whole, history=False)
    assert max(seen) == number, "all threads, and no more"


@pytest.mark.cpu("counts threads of a CPU")
@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_ctrl_c_ends_every_population_after_its_call_and_the_run_resumes_to_the_same_bits(
    minutes: float, whole: gpubp.Result, tmp_path: Path, short_calls: None
) -> None:
    folder = tmp_path / "run"
    with threads(2):
        early = stopped(
            lambda: train(
                ROWS, engine="cpu", run_dir=folder, checkpoint_minutes=minutes, reporters=[Stop(9, signal.SIGINT)]
            )
        )
        assert 0 < early.network_steps < whole.network_steps
        assert not [each for each in threading.enumerate() if each.name.startswith("gpubp-run")]
        same(gpubp.resume(folder, data(rows=FOLDS), data(9)), whole, history=False)


@pytest.mark.cpu("counts threads of a CPU")
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_after_an_error_of_one_population_or_a_reporter_nothing_goes_on(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, short_calls: None
) -> None:
    trains, ran = ENGINES["cpu"].run, []

    def run(state: Any, given: Any, steps: int) -> None:
        ran.append(steps)
        if isinstance(error, RuntimeError) and len(ran) == 5:
            raise error
        trains(state, given, steps)

    class Raises(gpubp.Reporter):
        def progress(self, progress: Any) -> None:
            if isinstance(error, KeyboardInterrupt) and len(ran) > 5:
                raise error

    monkeypatch.setitem(ENGINES, "cpu", ENGINES["cpu"]._replace(run=run))
    with threads(2), pytest.raises(type(error)):
        train(ROWS, engine="cpu", reporters=[Raises()])
    assert not [each for each in threading.enumerate() if each.name.startswith("gpubp-run")]
    assert len(ran) < 12, "each other population ends with its present call"


def test_a_call_has_as_many_threads_as_it_keeps_busy() -> None:
    def share(count: int, number: int, populations: int, widths: str = "3,6,4") -> int:
        spec = gpubp.NetworkSpec(tuple(map(int, widths.split(","))), loss="cross_entropy")
        state = start(gpubp.Population.create(spec, count), data(), steps=1)
        with general.only(False):
            return cpu.share(state, number, populations)

    lanes = cpu.build.vector_bytes() // 4
    assert share(5, 8, 1) == 8, "alone all"
    assert share(5, 8, 20) == 1
    assert share(3 * lanes, 2, 20) == 1, "of two, one would wait for a third group"
    assert share(6 * lanes, 4, 20) == 3
    assert share(100 * lanes, 4, 20) == 4
    assert share(5, 8, 2) == 4, "an equal part, where that leaves none idle"


def test_workspace_is_planned_once_for_all_populations() -> None:
    spec, config = gpubp.NetworkSpec((2, 3, 2)), gpubp.TrainConfig(steps=1, batch_size=2)
    shape = spec, config.recipe(spec), 4, 4
    assert memory.together([shape]) == memory.needed(*shape)
    assert memory.together([shape] * 200) - memory.needed(*shape) == 199 * (memory.together([shape]) - _empty(shape))


def _empty(shape: Any) -> int:
    return memory.needed(*shape[:2], 0, shape[3])


def test_on_a_gpu_each_population_has_a_stream_and_memory_of_its_own(whole: gpubp.Result) -> None:
    some = 0, 2  # a population each
    barrier, meeting, lock = threading.Barrier(len(some)), set[int | None](), threading.Lock()
    with machine() as own:
        play = own.player.play

        def meets(launch: Any) -> None:
            with lock:
                first = launch.stream not in meeting
                meeting.add(launch.stream)
            if first:
                barrier.wait(WAIT)
            play(launch)

        own.player.play = meets
        found = train([ROWS[row] for row in some], engine="cuda", device="cuda:0")
        launches = own.player.launches
    for at, row in enumerate(some):
        assert alike(found.network(at), whole.network(row)), row
    used: dict[int, set[int | None]] = {}
    for job, stream in ((launch.job, launch.stream) for launch in launches if "#define TASK 0" in launch.text):
        for address in (job.params, job.step, job.taken, *list(job.slots)[:-1]):  # what a launch writes
            used.setdefault(address, set()).add(stream)
    assert {launch.stream for launch in launches} == {0, 1}
    assert len(used) >= 3 * 2
    both = {address: streams for address, streams in used.items() if len(streams) > 1}
    assert not both, "no buffer is used in two streams"
