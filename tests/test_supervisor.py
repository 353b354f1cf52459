"""The parent of scripts/gpu_check.py, with steps that hang, crash or leave others behind: each is named, the next is
taken, and the end is kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import supervisor
from benchmarks.gpu import ABSENT, FAILED, PASSED, Check, Outcome, Step


def fine() -> Outcome:
    """Says its process."""
    return Outcome(PASSED, str(os.getpid()))


def hangs(out: Path) -> Outcome:
    """With a process that it began."""
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    (out / "left.txt").write_text(str(left.pid))
    time.sleep(3600)
    return Outcome(PASSED, "never")


def loses(check: Check) -> Outcome:
    """As after an illegal access to a GPU's memory."""
    check.lost = lambda: "CUDA error: an illegal memory access"  # type: ignore[method-assign]
    raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")


def troubled(check: Check) -> list[Step]:
    """Steps that take their process along: they are taken in a child, which finds them by name."""
    return [
        Step("fine", fine, 0),
        Step("aborts", os.abort, 0),
        Step("loses", lambda: loses(check), 0),
        Step("hangs", lambda: hangs(check.out), 1, 0),
        Step("long", fine, 36000),
        Step("last", fine, 0),
    ]


def broken(check: Check) -> list[Step]:
    raise RuntimeError("no steps")


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """The exit status and the report of a check by steps of this file."""
    monkeypatch.setattr(supervisor.devices, "devices", lambda given: ["cpu"])

    def run(make: str) -> tuple[int, dict[str, Any]]:
        status = supervisor.main(tmp_path, 10, f"tests.test_supervisor:{make}")
        return status, supervisor.read(tmp_path)

    return run


def outcomes(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What became of every step, and what is said of it but for the seconds."""
    said = {each["name"]: re.sub(r" after \d+ s$", "", each["said"]) for each in report["checks"]}
    return {each["name"]: (each["status"], said[each["name"]]) for each in report["checks"]}


def gone(process: Path) -> bool:
    """Whether a process of /proc has ended, or does so at once; it may wait to be counted."""
    for _ in range(100):
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_step_that_takes_its_process_along_is_named_and_a_new_process_takes_the_next(
    ended: Any, tmp_path: Path
) -> None:
    status, report = ended("troubled")
    found = outcomes(report)
    assert status == 1
    assert list(found) == report["planned"] == ["fine", "aborts", "loses", "hangs", "long", "last"]
    assert len({found[name][1] for name in ("fine", "last")}) == 2
    assert {name: outcome for name, outcome in found.items() if name not in ("fine", "long", "last")} == {
        "aborts": (FAILED, "not done: ended by SIGABRT"),
        "loses": (FAILED, "RuntimeError: CUDA error: an illegal memory access; then no call to the GPU went well: "
                          "CUDA error: an illegal memory access"),
        "hangs": (FAILED, "not done: ended"),
    }  # fmt: skip
    assert [found[name][0] for name in ("fine", "long", "last")] == [PASSED, ABSENT, PASSED]
    assert gone(Path("/proc") / (tmp_path / "left.txt").read_text())
    told = (tmp_path / "gpu_check.txt").read_text()
    for name, (outcome, _) in found.items():
        assert re.search(rf"^ {name} +{outcome} ", told, re.MULTILINE), name


@pytest.mark.parametrize("why", [supervisor.ENDED, supervisor.INTERRUPTED])
@pytest.mark.parametrize("proves", [False, True])
def test_a_race_that_had_to_be_ended_was_not_run_and_a_proof_has_failed(
    proves: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"name": "step", "begun": time.monotonic() - 7, "until": 0.0, "proves": proves}
    supervisor.write(tmp_path, supervisor.blank(["cpu"]) | {"planned": ["step", "next"], "running": running})
    monkeypatch.setattr(supervisor, "child", lambda *given: why)
    assert supervisor.supervise(tmp_path, time.monotonic(), "") == ("no time left" if why == "ended" else why)
    report = supervisor.read(tmp_path)
    failed = proves and why == supervisor.ENDED
    assert outcomes(report) == {"step": (FAILED if failed else ABSENT, f"not done: {why}")}
    assert report["checks"][0]["seconds"] >= 7
    assert "running" not in report


@pytest.mark.parametrize("error", [KeyboardInterrupt, subprocess.TimeoutExpired("child", 1)])
def test_a_child_is_killed_at_the_end_and_after_an_interruption(
    error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[subprocess.Popen[Any]] = []

    class Hangs(subprocess.Popen[Any]):
        def __init__(self, command: Any, **more: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(3600)"], **more)
            made.append(self)

        def wait(self, timeout: float | None = None) -> int:
            if self.poll() is None and not hasattr(self, "asked"):
                self.asked = True
                raise error
            return super().wait(timeout)

    monkeypatch.setattr(supervisor.subprocess, "Popen", Hangs)
    told = supervisor.child(tmp_path, time.monotonic(), "")
    assert told == (supervisor.INTERRUPTED if error is KeyboardInterrupt else supervisor.ENDED)
    assert made[0].wait(10) == -9


def test_a_process_that_takes_no_step_is_no_endless_trial(ended: Any, tmp_path: Path) -> None:
    (tmp_path / "gpu_check.png").touch()
    status, report = ended("broken")
    assert (status, outcomes(report)) == (
        1, {"start": (FAILED, "the process that takes the steps was ended with exit status 1 before it took one")}
    )  # fmt: skip
    assert not (tmp_path / "gpu_check.png").exists(), "of an earlier check"


def test_kernels_are_compiled_anew(ended: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.delenv("GPUBP_CACHE", raising=False)
    monkeypatch.setattr(supervisor, "supervise", lambda *given: seen.append(os.environ["GPUBP_CACHE"]) or "")
    assert ended("troubled")[0] == 0
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
