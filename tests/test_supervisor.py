"""The parent of scripts/gpu_check.py, with steps that hang, crash or leave others behind: each is named, the next is
taken, the end is kept, and nothing is left running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import gpu, supervisor

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], tuple[int, dict[str, Any], float]]:
    """The exit status, the report and the seconds of a check by steps of gpu_check_steps.py."""
    monkeypatch.setattr(supervisor.devices, "devices", lambda given: ["cpu"])
    monkeypatch.setattr(supervisor, "WORTH", 1.0)
    monkeypatch.setattr(supervisor, "POLL", 0.05)

    def run(make: str, seconds: float) -> tuple[int, dict[str, Any], float]:
        begun = time.monotonic()
        status = supervisor.main(tmp_path, seconds / 60, f"tests.gpu_check_steps:{make}")
        return status, supervisor.read(tmp_path), time.monotonic() - begun

    return run


def outcomes(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What became of every step, and what is said of it but for the seconds."""
    said = {each["name"]: re.sub(r" after \d+ s$", "", each["said"]) for each in report["checks"]}
    return {each["name"]: (each["status"], said[each["name"]]) for each in report["checks"]}


def gone(folder: Path) -> bool:
    """Whether the processes that a step left behind have ended, or do so at once: there are none, or they wait to be
    counted."""
    until = time.monotonic() + 5
    while True:
        states = []
        for each in (folder / "left.txt").read_text().split():
            try:
                states.append((Path("/proc") / each / "stat").read_text().rpartition(")")[2].split()[0])
            except OSError:
                states.append("gone")
        if set(states) <= {"gone", "Z"} or time.monotonic() > until:
            return set(states) <= {"gone", "Z"}
        time.sleep(0.05)


linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


@linux
def test_a_step_that_takes_its_process_along_is_named_and_a_new_process_takes_the_next(
    ended: Any, tmp_path: Path
) -> None:
    status, report, _ = ended("troubled", 600)
    found = outcomes(report)
    assert status == 1
    assert list(found) == report["planned"] == ["fine", "aborts", "exits", "loses", "leaves", "long", "last"]
    processes = {found[name][1] for name in ("fine", "last")}
    assert len(processes) == 2
    assert {name: outcome for name, outcome in found.items() if name not in ("fine", "long", "last")} == {
        "aborts": (gpu.FAILED, "not done: ended by SIGABRT"),
        "exits": (gpu.FAILED, "not done: ended with exit status 7"),
        "loses": (gpu.FAILED, "RuntimeError: CUDA error: an illegal memory access; then no call to the GPU went well: "
                              "CUDA error: an illegal memory access"),
        "leaves": (gpu.FAILED, "not done: ended"),
    }  # fmt: skip
    assert [found[name][0] for name in ("fine", "long", "last")] == [gpu.PASSED, gpu.ABSENT, gpu.PASSED]
    assert gone(tmp_path), "in a session of its own or not"
    told = (tmp_path / "gpu_check.txt").read_text()
    for name, (outcome, _) in found.items():
        assert re.search(rf"^ {name} +{outcome} ", told, re.MULTILINE), name


@linux
def test_a_proof_that_still_runs_at_the_end_is_ended_and_has_failed(ended: Any, tmp_path: Path) -> None:
    status, report, seconds = ended("proof", 12)
    assert (status, list(outcomes(report).values())[1:]) == (
        1, [(gpu.FAILED, "not done: ended"), (gpu.ABSENT, "no time left")])  # fmt: skip
    assert 12 < seconds < 22
    assert report["checks"][1]["seconds"] < 12
    assert gone(tmp_path)


@pytest.mark.parametrize("proves", [False, True])
def test_a_race_that_had_to_be_ended_was_not_run_and_a_proof_has_failed(
    proves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"name": "step", "begun": time.monotonic() - 7, "until": 0.0, "proves": proves}
    supervisor.write(tmp_path, supervisor.blank(["cpu"]) | {"planned": ["step", "next"], "running": running})
    monkeypatch.setattr(supervisor, "child", lambda *given: supervisor.ENDED)
    assert supervisor.supervise(tmp_path, time.monotonic(), "") == "no time left"
    report = supervisor.read(tmp_path)
    assert outcomes(report) == {"step": (gpu.FAILED if proves else gpu.ABSENT, "not done: ended")}
    assert report["checks"][0]["seconds"] >= 7
    assert "running" not in report


def test_a_process_that_takes_no_step_is_no_endless_trial(ended: Any, tmp_path: Path) -> None:
    (tmp_path / "gpu_check.png").touch()
    status, report, _ = ended("broken", 600)
    assert (status, outcomes(report)) == (
        1, {"start": (gpu.FAILED, "the process that takes the steps was ended with exit status 1 before it took one")}
    )  # fmt: skip
    assert not (tmp_path / "gpu_check.png").exists(), "of an earlier check"


@linux
def test_an_interruption_ends_everything_and_the_report_says_so(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\nfrom benchmarks import supervisor\n"
        "supervisor.devices.devices = lambda given: ['cpu']\n"
        f"sys.exit(supervisor.main(pathlib.Path({str(tmp_path)!r}), 10, 'tests.gpu_check_steps:proof'))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "left.txt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 1
    finally:
        process.kill()
    found = outcomes(supervisor.read(tmp_path))
    assert found.pop("fine")[0] == gpu.PASSED
    assert found == {"proof": (gpu.ABSENT, "not done: interrupted"), "late": (gpu.ABSENT, "interrupted")}
    assert gone(tmp_path)


@linux
def test_a_command_that_hangs_is_ended_with_what_it_began(tmp_path: Path) -> None:
    program = (
        "import pathlib, subprocess, sys\n"
        "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "pathlib.Path('left.txt').write_text(str(own.pid))\nown.wait()"
    )
    assert supervisor.call([sys.executable, "-c", program], tmp_path, 3) is None
    assert gone(tmp_path)
    assert supervisor.call([sys.executable, "-c", "print(1)"], tmp_path, 60) == "1\n"


def test_kernels_are_compiled_anew(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.delenv("GPUBP_CACHE", raising=False)
    monkeypatch.setattr(supervisor, "supervise", lambda *given: seen.append(os.environ["GPUBP_CACHE"]) or "")
    assert ended("proof", 60)[0] == 0
    assert len(seen) == 1
    assert "GPUBP_CACHE" not in os.environ


def test_races_of_one_workload_are_drawn_as_one() -> None:
    def race(workload: str, **rates: float) -> dict[str, Any]:
        return {"workload": workload, "optimizer": "sgd", "contenders": rates}

    races = [
        race("W2", cuda=9, eager=2),
        race("W5", cuda=5),
        race("W2", cuda=8, eager=3, jax_last=4),
        race("W2", eager=7),
    ]
    one, other, without = supervisor.merged(races)
    assert list(one["contenders"].items()) == [("cuda", 9), ("eager", 2), ("jax_last", 4)]
    assert (other, without) == (races[1], races[3])
    assert "jax_last" not in races[0]["contenders"]
