"""scripts/gpu_check.py with the CPU in a GPU's place: what it writes, and that a step which hangs, crashes or leaves
processes behind is named and the next part runs."""

import importlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import calls, check, contenders, gpu, harness, machine, proofs, sweeps, whole
from benchmarks.check import ABSENT, FAILED, PASSED, Check, Outcome, Part, Step
from benchmarks.workloads import WORKLOADS
from gpubp.engines import ENGINES
from gpubp.system import gpus

from .helpers import compiled, population, same_bits, samples, train  # noqa: F401

ROOT = Path(__file__).parent.parent
FACTS = {"device": "a CPU in a GPU's place", "peak_gflops": 100.0, "peak_of": "a guess", "torch_threads": 1,
         "copy_gbytes_per_second": 10.0, "matmul_peak_gflops": 90.0}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Check:
    (tmp_path / "out").mkdir()
    console = Console(file=io.StringIO(), width=140)
    return Check(["cpu", "cpu"], tmp_path / "out", time.monotonic() + 600, console)


def test_without_cuda_it_ends_with_one_sentence_and_else_its_folder_is_named_from_where_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script, given = importlib.import_module("gpu_check"), []
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    assert script.main([]) == 2
    assert capsys.readouterr() == ("", "gpu_check needs a CUDA GPU: torch finds no CUDA driver or no GPU here\n")
    monkeypatch.setattr(gpus, "missing", lambda: None)
    monkeypatch.setattr(check, "main", lambda *chosen: given.append(chosen) or 0)
    monkeypatch.chdir(tmp_path)
    assert script.main(["--out", "found", "--minutes", "1"]) == 0
    assert given == [(tmp_path.resolve() / "found", 1.0)]


# ---- the processes


def fine() -> Outcome:
    """Says its process."""
    return Outcome(PASSED, f"process {os.getpid()}")


def hangs(out: Path) -> Outcome:
    """With a process that it began."""
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    (out / "left.txt").write_text(str(left.pid))
    time.sleep(3600)
    return Outcome(PASSED, "never")


def fails() -> Outcome:
    raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")


def troubled(own: Check) -> dict[str, Part]:
    """Parts that end their processes, which find them here by name."""
    return {
        "crashes": Part(
            [Step("fine", fine, 0), Step("fails", fails, 0), Step("long", fine, 36000), Step("aborts", os.abort, 0)]
        ),
        "hangs": Part([Step("a proof: hangs", lambda: hangs(own.out), 0), Step("a proof: not begun", fine, 0)]),
    }


def late(own: Check) -> dict[str, Part]:
    steps = Step("hangs", fine, 0), Step("not begun", fine, 0)
    return {
        "proof": Part([each._replace(name=f"a proof: {each.name}") for each in steps]),
        "races": Part(steps, proves=False),
    }


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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_part_that_ends_early_is_reported_step_by_step_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left.txt"

    class Hurried(subprocess.Popen[Any]):
        """The time of a part is over when a step hangs."""

        def wait(self, timeout: float | None = None) -> int:
            while timeout and self.poll() is None:
                if left.exists() and left.stat().st_size:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                time.sleep(0.05)
            return super().wait()

    (tmp_path / "gpu_check.png").touch()
    monkeypatch.setattr(check.devices, "devices", lambda given: ["cpu"])
    monkeypatch.setattr(check.subprocess, "Popen", Hurried)
    assert check.main(tmp_path, 60, "tests.test_gpu_check:troubled") == 1
    found = {each["name"]: (each["status"], each["said"]) for each in check.read(tmp_path)["checks"]}
    assert {name: outcome for name, (outcome, _) in found.items()} == {
        "fine": PASSED, "fails": FAILED, "long": ABSENT, "aborts": FAILED, "a proof: hangs": FAILED,
        "a proof: not begun": ABSENT,
    }  # fmt: skip
    for name, said in {
        "fails": "RuntimeError: CUDA error: an illegal memory access (0 s)", "aborts": "its process ended: -6",
        "a proof: hangs": "its process ended: no time left", "long": "36000 are needed",
    }.items():  # fmt: skip
        assert said in found[name][1], name
    assert gone(Path("/proc") / left.read_text())
    told = (tmp_path / "gpu_check.txt").read_text()
    for name, (outcome, _) in found.items():
        assert re.search(rf"^ {name} +{outcome} ", told, re.MULTILINE), name
    assert not (tmp_path / "gpu_check.png").exists(), "of an earlier check"


def test_without_time_or_processes_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.devices, "devices", lambda given: ["cpu"])
    for ended, minutes, outcomes in (
        (1, 0, [ABSENT] * 4),
        (1, 60, [FAILED, ABSENT] * 2),
        (check.LATE, 60, [FAILED, ABSENT, ABSENT, ABSENT]),  # a race that takes too long has not failed
    ):
        monkeypatch.setattr(check, "child", lambda *given, ended=ended: ended)
        assert check.main(tmp_path, minutes, "tests.test_gpu_check:late") == (FAILED in outcomes)
        assert [each["status"] for each in check.read(tmp_path)["checks"]] == outcomes


# ---- the steps


def test_every_workload_and_every_promise_has_a_step_and_the_main_ones_come_first(here: Check) -> None:
    names = [step.name for part in gpu.parts(here).values() for step in part.steps]
    assert len(set(names)) == len(names)
    for name, workload in WORKLOADS.items():
        for optimizer in workload.optimizers:
            assert {f"{name}, {optimizer}, {kind}" for kind in gpu.KINDS} <= set(names)
    assert set(sum(gpu.KINDS.values(), ())) == set(contenders.PEERS) - set(contenders.OURS)
    assert {"calls of one step", "digits, 1,000", f"whole training {len(whole.CASES)}"} <= set(names)
    assert {"machine", "tests marked gpu", "bits of engine cuda against engine cpu", "eager: independence",
            "eager: number of GPUs", "suite on cpu", "sweep over batch_size"} <= set(names)  # fmt: skip
    assert names[0] == "machine"
    assert {name.partition("-")[0] for name in gpu.MAIN} == {name.partition("-")[0] for name in WORKLOADS}
    last = max(names.index(f"{name}, {WORKLOADS[name].optimizers[0]}, peers") for name in gpu.MAIN)
    assert last < min(names.index(name) for name in ("W2, adam, peers", "W1-K1, sgd, peers", "sweep over batch_size"))
    compiling = [name.endswith("torch.compile") for name in names]
    assert compiling == sorted(compiling), "a recording of theirs that fails would take others along"


SUITE = """
import pytest, time
def test_fine(): pass
def test_bad(): assert 1 == 2
def test_away(): pytest.skip('no CUDA device')
def test_hangs(): time.sleep(3600)
@pytest.mark.parametrize('number', range(100))
def test_long(number): time.sleep(0.3)
"""


@pytest.fixture
def suite(tmp_path: Path, here: Check, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The outcome of SUITE, or of chosen tests of it; a plugin of somebody else's is installed, and breaks every run of
    pytest that loads it."""
    (tmp_path / "foreign-1.dist-info").mkdir()
    (tmp_path / "foreign-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    (tmp_path / "foreign-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    (tmp_path / "foreign.py").write_text("def pytest_configure(config): raise RuntimeError\n")
    (tmp_path / "test_some.py").write_text(SUITE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "PYTEST", [each.replace("timeout=60", "timeout=1") for each in gpu.PYTEST])

    def run(chosen: str, seconds: float = 100) -> Outcome:
        here.end = time.monotonic() + seconds / 0.7
        return gpu.tests(here, ["-c", "/dev/null", "--rootdir", str(tmp_path), "-n", "1", "test_some.py", "-k", chosen])

    return run


@pytest.mark.slow
def test_the_outcome_of_tests_says_which_failed_were_skipped_hung_or_were_not_begun(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said, listed = suite("fine or bad or away or hangs")
    assert (status, said.startswith("2 failed, 1 passed, 1 skipped in ")) == (FAILED, True), said
    assert [line.partition(" ")[0] for line in listed] == ["SKIPPED", "FAILED", "FAILED"]
    with monkeypatch.context() as patch:
        skipped = subprocess.CompletedProcess([], 0, "SKIPPED [1] test_some.py: away\n1 skipped in 0.1s\n", "")
        patch.setattr(subprocess, "run", lambda *given, **more: skipped)
        assert suite("away").status == FAILED, "nothing passed"
    status, said, _ = suite("fine or long", 5)
    assert (status, said.endswith("; no time for the rest after 5 s")) == (PASSED, True), said


def test_what_is_missing_is_not_run_and_says_why(here: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ENGINES, "cuda", raising=False)
    assert gpu.bits("cpu") == (ABSENT, "this gpubp has no engine cuda", ())
    assert gpu.shared("eager", ["cpu"]).status == ABSENT
    assert gpu.raced(here, "W2", WORKLOADS["W2"], "sgd", "peers").status == ABSENT, "no figure without the machine's"


def test_a_workload_is_measured_and_absent_contenders_are_listed(here: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.KINDS, "peers", ("autograd_bmm", "autograd_graph"))
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    full = contenders.PEERS["cpu"]._replace(excuse=lambda *given: "finds no place on the chip")
    here.report |= {"results": [], "machine": FACTS}
    for first, absent in (("cpu", "  cuda: runs on a GPU only"), ("eager", "  cpu: finds no place on the chip")):
        outcome = gpu.raced(here, "W2", WORKLOADS["W2"].tiny(), "sgd", "peers")
        assert outcome.status == PASSED
        assert outcome.said.startswith(f"{first} ")
        assert {absent, "  autograd_graph: runs on a GPU only"} <= set(outcome.listed)
        for word in ("network-steps/s", "of the peak"):
            assert word in outcome.said
        monkeypatch.setitem(contenders.PEERS, "cpu", full)


@pytest.mark.slow  # two seconds for plots; the parts of the report have tests of their own
def test_the_whole_report_is_written_with_its_plots(here: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "facts", lambda device, threads: dict(FACTS))
    monkeypatch.delitem(ENGINES, "cuda")  # a CPU in a GPU's place plays eager alone
    alone = contenders.PEERS["cpu"]._replace(excuse=lambda *given: "compiles")
    monkeypatch.setitem(contenders.PEERS, "cpu", alone)
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    monkeypatch.setattr(harness, "PAUSE", 0)
    monkeypatch.setattr(gpu, "tests", lambda check, chosen: Outcome(PASSED, "none"))
    monkeypatch.setattr(gpu, "WORKLOADS", {"W2": WORKLOADS["W2"].tiny()})
    monkeypatch.setattr(gpu, "KINDS", {**dict.fromkeys(gpu.KINDS, ()), "peers": ("autograd_bmm",)})
    monkeypatch.setattr(calls, "CASES", {"W2": WORKLOADS["W2"].tiny()})
    monkeypatch.setattr(whole, "CASES", ())  # JAX compiles them for test_benchmarks.py
    monkeypatch.setattr(whole, "command_lines", lambda device: {"tutorial": ("--data", "tutorial")})
    for name in ("independence", "nearness", "shares"):  # test_proofs.py runs them
        monkeypatch.setattr(proofs, name, lambda *given: proofs.Proof(1, []))
    parts = dict.fromkeys(("start", "steps", "evaluation", "writing", "other", "total"), 1.0)
    monkeypatch.setattr(whole, "run", lambda *given: parts)
    monkeypatch.setitem(sweeps.VALUES, "batch_size", (2, 4))
    monkeypatch.setitem(sweeps.BASES, "batch_size", ("W2", WORKLOADS["W2"].tiny()))
    monkeypatch.setattr(check, "child", lambda *given: here.run(gpu.parts(here)[given[-1]].steps))
    monkeypatch.setattr(check.devices, "devices", lambda given: ["cpu", "cpu"])
    here.report |= {"devices": here.devices, "threads": {}}
    assert check.main(here.out, 1.0) == 0, check.read(here.out)
    report = check.read(here.out)
    assert [point["value"] for point in report["sweep"]] == [2, 4]
    assert [own["case"] for own in report["calls"]] == ["W2"]
    assert list(report["whole"]) == ["tutorial"]
    for words in ("seconds of gpubp train --data tutorial", "Calls of one step"):
        assert words in here.console.file.getvalue()  # type: ignore[attr-defined]
    files = {".json", ".txt", ".png", "-batch_size.png"}
    assert {path.name for path in here.out.iterdir()} == {f"gpu_check{each}" for each in files}
