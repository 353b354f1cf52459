"""A run of few networks in calls of few steps, which tests stop, damage and go on with; every file has its fixtures."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import gpubp
from gpubp.checkpoints import checkpoint, manifests
from gpubp.checkpoints.stored import is_row, rowless
from gpubp.engines import build
from gpubp.runs import run as running
from gpubp.state import TrainState
from gpubp.system import files

from .apart import APART
from .helpers import FAST, differing, handled, population, samples

SPEC = gpubp.NetworkSpec((3, 6, 4), "relu", loss="cross_entropy")
COUNT = 5
RATES = [0.001, 0.3, 0.01, 1e308, 0.05]
CPU = torch.device("cpu")
NAMES = ("manifest.json", "manifest.previous.json")
ALWAYS = 0.0  # minutes between checkpoints: one after every call


@contextmanager
def calls_of_three_steps() -> Iterator[None]:
    """Runs take their steps in calls of three, however short these are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpubp.runs.run.CALL", 100.0)
        patch.setattr("gpubp.runs.run.MOST", 3)
        yield


@pytest.fixture
def short_calls() -> Iterator[None]:
    with calls_of_three_steps():
        yield


def networks() -> gpubp.Population:
    return population(SPEC, COUNT)


def training(seed: int = 1) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, 40, seed=seed))


def held_out() -> gpubp.Dataset:
    return training(9)


def config(**settings: Any) -> gpubp.TrainConfig:
    chosen = {"lr": RATES, "dropout": 0.2, "batch_size": 8, "evaluate_every": 2, "epochs": 12}
    chosen |= {"schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5}
    return gpubp.TrainConfig(**{**chosen, **settings})


def run(folder: Path | None = None, reporters: Any = (), engine: str = "auto", **settings: Any) -> gpubp.Result:
    return gpubp.train(
        networks(), training(), config(**settings), held_out(), reporters=reporters, run_dir=folder,
        checkpoint_minutes=ALWAYS, engine=engine,
    )  # fmt: skip


def same_state(one: TrainState, other: TrainState) -> None:
    assert differing(one, other) == []


def same(one: gpubp.Result, other: gpubp.Result) -> None:
    for mine, theirs in zip(one.states, other.states, strict=True):
        same_state(mine, theirs)
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())  # a NaN is itself
    assert one.status_names == other.status_names


def told(result: gpubp.Result) -> list[dict[str, Any]]:
    times = ("seconds", "network_steps_per_second")
    return json.loads(json.dumps([{k: v for k, v in each.items() if k not in times} for each in result.history]))


def save(folder: Path, result: gpubp.Result, before: checkpoint.Checkpoint) -> None:
    """Save the end of `result` as the run's checkpoint, otherwise as `before`."""
    saved = before.populations[0]._replace(state=result.state, config=config())
    checkpoint.save(folder, [saved], before.notes)


def finishes_as(whole: gpubp.Result, folder: Path) -> None:
    again = gpubp.resume(folder, training(), held_out())
    same(again, whole)
    assert told(again) == told(whole)
    assert again.interrupted is None


def stopped(training: Callable[[], gpubp.Result]) -> gpubp.Result:
    """What there is of a training that Ctrl-C, or SIGTERM with a handler that raises, ends early."""

    def handler(number: int, frame: Any) -> None:
        raise SystemExit(f"handled {number}")

    with handled(signal.SIGTERM, handler):
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            training()
        assert signal.getsignal(signal.SIGTERM) is handler, "the handlers of before are back"
    result: gpubp.Result = caught.value.result  # type: ignore[attr-defined]
    assert isinstance(caught.value, KeyboardInterrupt if result.interrupted == signal.SIGINT else SystemExit)
    return result


class Stop(gpubp.Reporter):
    """Sends a signal to this process after so many calls of the engine."""

    def __init__(self, calls: int, number: int) -> None:
        self.calls, self.number = calls, number

    def progress(self, progress: Any) -> None:
        self.calls -= 1
        if not self.calls:
            os.kill(os.getpid(), self.number)


def hears(**what: Callable[[Any], object]) -> gpubp.Reporter:
    """A reporter that is these functions, by the names of what it is told."""
    return type("Hears", (gpubp.Reporter,), {name: staticmethod(each) for name, each in what.items()})()


class Slow(gpubp.Reporter):
    """Leaves time to be killed in."""

    def progress(self, progress: Any) -> None:
        time.sleep(0.01)


Sets = tuple[Callable[[], gpubp.Dataset], Callable[[], gpubp.Dataset]]


def go_on(folder: Path, begin: Callable[..., gpubp.Result], sets: Sets) -> None:
    """In a process of its own: the run, or the rest of it, in calls of a step."""
    torch.set_num_threads(1)
    running.CALL = 1e-9
    build.FLAGS += FAST
    if folder.exists():
        gpubp.resume(folder, *(each() for each in sets), reporters=[Slow()], checkpoint_minutes=1e-5)
    else:
        begin(folder=folder, reporters=[Slow()])


def killed(times: int, folder: Path, begin: Callable[..., gpubp.Result], sets: Sets) -> list[int]:
    """Kill a process of its own that begins or goes on with the run in `folder` so often, at random moments. -> the
    steps of all networks, of which every one leaves more"""
    source, manifest, steps = random.Random(times), folder / "checkpoint" / "manifest.json", [0]
    for _ in range(times):
        seen = {manifest.stat().st_mtime_ns if manifest.exists() else 0}
        child = APART.Process(target=go_on, args=(folder, begin, sets))
        child.start()
        try:
            limit = time.monotonic() + 90
            while len(seen) < 3:  # a new run saves its beginning, then steps
                seen |= {manifest.stat().st_mtime_ns} if manifest.exists() else set()
                assert child.is_alive(), "the run ended before it saved anything"
                assert time.monotonic() < limit
                time.sleep(0.005)
            time.sleep(source.uniform(0, 0.3))
        finally:
            child.kill()
            child.join()
        assert child.exitcode == -signal.SIGKILL, "it was killed while it ran"
        found = checkpoint.load(folder, CPU)
        steps.append(sum(int(each.state.step.sum()) for each in (*found.populations, *found.ended.outcomes())))
    assert steps == sorted(set(steps)), "every run got further than the one before"
    return steps


class Crash(gpubp.Reporter):
    def __init__(self, number: int) -> None:
        self.number = number

    def evaluated(self, record: Any) -> None:
        if record["round"] == self.number:
            raise RuntimeError("crashed")


def sealed(manifest: dict[str, Any]) -> str:
    """A manifest that somebody wrote on purpose: its digest is its own."""
    return json.dumps(manifest | {"manifest_sha256": manifests.digest(manifest)})


def forge(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The manifest of the run in `folder` with other values, those that `change` makes of it, sealed."""
    path = folder / "checkpoint" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(sealed(content | change(content)))


def with_entry(manifest: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A manifest with other values in the entry of its population."""
    (entry,) = manifest["populations"]
    return manifest | {"populations": [entry | changed]}


def with_notes(manifest: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A manifest with other notes of its population."""
    (entry,) = manifest["populations"]
    return with_entry(manifest, notes=entry["notes"] | changed)


def in_shards(whole: Path, folder: Path, names: Sequence[str]) -> Path:
    """The run `whole` again, in `folder`, with its rows in files of these names, one of each shard."""
    saved, rows, count = checkpoint.load(whole, CPU), [], len(names)
    shutil.copytree(whole, folder, ignore=lambda path, names: names if Path(path).name == "checkpoint" else [])
    for shard, name in enumerate(names):
        path, content, held = folder / name, dict[str, torch.Tensor](), []
        for group, each in enumerate(saved.populations):
            first = (shard - group) % count
            held.append([group, first, count])
            tensors = [found for found in each.state.tensors() if is_row(found[0])]
            content |= {f"{group}.{row}": tensor[first::count].contiguous() for row, tensor in tensors}
        path.parent.mkdir(parents=True)
        save_file(content | {"0.step": torch.zeros(1)}, path)
        rows.append({"file": name, "sha256": files.digest(path), "networks": held})
    populations = [each._replace(state=rowless(each.state)) for each in saved.populations]
    checkpoint.save(folder, populations, saved.notes, rows)
    return folder


CALLS = {"save_file": checkpoint, "replace": os, "fsync": os, "chmod": Path, "open": os, "write_text": Path}


def fail(patch: pytest.MonkeyPatch, call: str, after: int, error: BaseException) -> None:
    """The `call` after so many raises `error`, as do all that follow."""
    owner, left = CALLS[call], [after]
    proper = getattr(owner, call)

    def failing(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return proper(*arguments, **named)

    patch.setattr(owner, call, failing)


@pytest.fixture(name="crashed", scope="module")
def a_crashed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that crashed within its third round, for tests to copy."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with calls_of_three_steps(), pytest.raises(RuntimeError, match="crashed"):
        run(folder, [Crash(3)])
    return folder


@pytest.fixture(name="whole", scope="module")
def a_whole_run() -> gpubp.Result:
    return run()


@pytest.fixture(name="folder")
def a_copy_of_it(crashed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(crashed, tmp_path / "run"))
