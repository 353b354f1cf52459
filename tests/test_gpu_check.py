"""scripts/gpu_check.py with the CPU in a GPU's place: what it writes, and that its proofs find what is wrong."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

import gpubp
from benchmarks import calls, contenders, gpu, machine, proofs, suite, supervisor, sweeps, whole
from benchmarks.workloads import WORKLOADS
from gpubp import backprop, cuda
from gpubp.engines import ENGINES, cpu

from . import tolerances
from .conftest import HERE, pytest_ignore_collect, pytest_runtest_logfinish
from .elsewhere import elsewhere
from .helpers import compiled, population, same_bits, samples, train  # noqa: F401
from .playing import Player, playing
from .recorder import recorded
from .test_compiled import case, differences
from .test_independence import SPECS

ROOT = Path(__file__).parent.parent
FACTS = {"device": "a CPU in a GPU's place", "peak_gflops": 100.0, "peak_of": "a guess", "torch_threads": 1,
         "copy_gbytes_per_second": 10.0, "matmul_peak_gflops": 90.0}  # fmt: skip


@pytest.fixture
def check(tmp_path: Path) -> gpu.Check:
    return gpu.Check(["cpu", "cpu"], tmp_path / "out", time.monotonic() + 600, Console(file=io.StringIO(), width=140))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One topology, and fewer networks."""
    monkeypatch.setattr(proofs, "SPECS", {"5-33-2": proofs.SPECS["5-33-2"]})
    monkeypatch.setattr(proofs, "MANY", 20)


def written(check: gpu.Check) -> dict[str, Any]:
    return json.loads((check.out / "gpu_check.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/gpu_check.py."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("gpu_check")


def test_without_cuda_it_ends_with_one_sentence(
    gpu_check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    assert gpu_check.main([]) == 2
    told = capsys.readouterr()
    assert told.err == "gpu_check needs a CUDA GPU: torch finds no CUDA driver or no GPU here\n"
    assert told.out == ""


def test_its_folder_is_named_from_where_the_command_is_given(
    gpu_check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(cuda, "missing", lambda: None)
    monkeypatch.setattr(supervisor, "main", lambda *chosen: given.append(chosen) or 0)
    monkeypatch.chdir(tmp_path)
    assert gpu_check.main(["--out", "found", "--minutes", "1"]) == 0
    assert given == [(tmp_path.resolve() / "found", 1.0)]


def test_it_runs_as_a_command() -> None:
    if cuda.missing() is None:
        pytest.skip("CUDA is there")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gpu_check.py"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_steps_that_fail_or_have_no_time_are_named_and_the_next_is_taken(check: gpu.Check) -> None:
    def breaks() -> gpu.Outcome:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    made = [
        gpu.Step("broken", breaks, 1),
        gpu.Step("long", lambda: gpu.Outcome(gpu.PASSED, "never"), 3600),
        gpu.Step("fine", lambda: gpu.Outcome(gpu.PASSED, "3 comparisons", ["modules: not installed"]), 1),
    ]
    check.out.mkdir()
    assert check.run(made)
    report = written(check)
    assert [each["status"] for each in report["checks"]] == [gpu.FAILED, gpu.ABSENT, gpu.PASSED]
    assert report["checks"][0]["said"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "3600 are needed" in report["checks"][1]["said"]
    told = supervisor.text(report)
    for word in ("broken", "not run", "modules: not installed", "3 comparisons"):
        assert word in told
        assert word in check.console.file.getvalue()  # type: ignore[attr-defined]


def test_every_workload_and_every_promise_has_a_step(check: gpu.Check) -> None:
    names = [step.name for step in gpu.steps(check)]
    assert len(set(names)) == len(names)
    for name, workload in WORKLOADS.items():
        for optimizer in workload.optimizers:
            assert {f"{name}, {optimizer}, {kind}" for kind in gpu.KINDS} <= set(names)
    assert set(sum(gpu.KINDS.values(), ())) == set(contenders.PEERS) - set(contenders.OURS)
    assert {"calls of one step", "digits, 1,000", f"whole training {len(whole.CASES)}"} <= set(names)
    assert {"machine", "tests marked gpu", "bits of engine cuda against engine cpu", "eager: independence",
            "eager: number of GPUs", "suite on cpu", "sweep over batch_size"} <= set(names)  # fmt: skip
    assert names[0] == "machine"


def test_the_main_workloads_meet_their_best_peers_before_the_rest_is_raced(check: gpu.Check) -> None:
    names = [step.name for step in gpu.steps(check)]
    main = [f"{name}, {WORKLOADS[name].optimizers[0]}" for name in gpu.MAIN]
    assert {name.partition("-")[0] for name in gpu.MAIN} == {name.partition("-")[0] for name in WORKLOADS}
    last = max(names.index(f"{each}, peers") for each in main)
    assert last < min(names.index(name) for name in ("W2, adam, peers", "W1-K1, sgd, peers", "sweep over batch_size"))
    compiling = [name.endswith("torch.compile") for name in names]
    assert compiling == sorted(compiling), "a recording of theirs that fails would take others along"


def test_the_suite_runs_with_its_steps_on_another_device(check: gpu.Check) -> None:
    check.out.mkdir()
    check.until = time.monotonic() + 1200  # a kernel is compiled, perhaps on a busy machine
    files = [f"tests/test_{name}.py" for name in ("compiled_divergence", "independence", "schedules", "rng")]
    chosen = [
        "--device",
        "played",
        *files,
        "-k",
        "all_may_diverge or (blocks_threads and sgd-none) or _has_a_reference",
    ]
    status, said, listed = suite.tests(check, chosen, check.out / "log.xml")
    assert status == gpu.PASSED
    assert said == "2 passed, 0 failed, 1 skipped; 2 calls were taken there, by 1 tests"
    assert listed == ["skipped: test_blocks_threads_and_cuts_change_no_bit: shows what a CPU does",
                      "no call was taken there: tests.test_schedules"]  # fmt: skip


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin of somebody else's is installed, and breaks every run of pytest that loads it."""
    (tmp_path / "foreign-1.dist-info").mkdir()
    (tmp_path / "foreign-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    (tmp_path / "foreign-1.dist-info" / "entry_points.txt").write_text("[pytest11]\nforeign = foreign\n")
    (tmp_path / "foreign.py").write_text("def pytest_configure(config): raise RuntimeError\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)


def test_the_command_of_all_checks_names_its_plugins(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$PYTEST_DISABLE_PLUGIN_AUTOLOAD $*"\n')
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    told = subprocess.run(["bash", "scripts/check.sh", "-m", "slow"], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": ""})  # fmt: skip
    assert told.stdout.splitlines()[-1] == "1 -m pytest -p xdist -n auto --dist worksteal -m slow"


def test_files_that_stay_here_are_there_and_are_left_out(pytestconfig: pytest.Config) -> None:
    names = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert set(sum(HERE.values(), ())) <= names
    away = argparse.Namespace(getoption=lambda name: "played")
    left_out = {name for name in names if pytest_ignore_collect(ROOT / "tests" / f"test_{name}.py", away)}  # type: ignore[arg-type]
    assert left_out == set(sum(HERE.values(), ()))
    assert not any(pytest_ignore_collect(ROOT / "tests" / f"test_{name}.py", pytestconfig) for name in names)


def test_a_process_of_pytest_that_lost_its_gpu_ends_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for sound, processes, expected in ((True, True, []), (False, False, []), (False, True, [3])):
        monkeypatch.setattr(torch.cuda, "synchronize", (lambda: None) if sound else lost)
        with monkeypatch.context() as patch:
            patch.setenv("PYTEST_XDIST_WORKER", "gw0") if processes else patch.delenv("PYTEST_XDIST_WORKER", False)
            pytest_runtest_logfinish()
        assert ended == expected


@pytest.mark.usefixtures("foreign")
def test_a_test_that_hangs_is_ended_and_named_and_so_is_a_lack_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "HANGS", 1)
    (tmp_path / "test_some.py").write_text(
        "import time\ndef test_fine(): pass\ndef test_hangs(): time.sleep(3600)\ndef test_other(): pass\n"
    )
    alone = ["-c", "/dev/null", "--rootdir", str(tmp_path), "-n", "1", "test_some.py"]
    status, said, listed = suite.run(alone, tmp_path, 100, tmp_path / "log.xml")
    assert (status, said) == (gpu.FAILED, "2 passed, 1 failed, 0 skipped")
    assert "crashed while running" in listed[0]
    assert "test_hangs" in listed[0]
    (tmp_path / "test_some.py").write_text("import time\ndef test_long(): time.sleep(0.5)\n" + "".join(
        f"def test_{number}(): time.sleep(0.5)\n" for number in range(100)))  # fmt: skip
    status, said, _ = suite.run(alone, tmp_path, 8, tmp_path / "log.xml")
    assert "; no time for the rest after 8 s" in said


def test_steps_taken_elsewhere_are_brought_back() -> None:
    own = case(6)
    expected = train(own.population(), own.data(), engine=cpu, **own.settings)
    with elsewhere("played") as place:
        found = train(own.population(), own.data(), [3, 100], engine=cpu, **own.settings)
        assert (len(place.player.launches), place.calls) == (2, [3, 100])
    everyone = list(range(found.population.count))
    assert not differences(found, everyone, expected, everyone)


def test_eager_rounds_otherwise_elsewhere_and_nowhere_else() -> None:
    spec, settings = SPECS["13-7-3"], {"optimizer": "sgd", "lr": 0.1, "batch_size": 6, "steps": 8}
    networks, data = population(spec, 5), gpubp.Dataset(*samples(spec, 23))
    expected, everyone = train(networks, data, **settings), list(range(5))
    with elsewhere("played"):
        found, again = train(networks, data, **settings), train(networks, data, [3, 100], **settings)
        outs = backprop.forward(spec, networks.params, data.inputs)
    assert "params" in differences(found, everyone, expected, everyone)
    torch.testing.assert_close(found.population.params, expected.population.params, **tolerances.TRAINING)
    assert not differences(again, everyone, found, everyone)
    assert same_bits(outs, backprop.forward(spec, networks.params, data.inputs))
    assert not differences(train(networks, data, **settings), everyone, expected, everyone)


def test_what_is_not_there_is_not_run_and_says_why(check: gpu.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ENGINES, "cuda", raising=False)
    assert gpu.bits("cpu") == (gpu.ABSENT, "this gpubp has no engine cuda", ())
    assert gpu.shared("eager", ["cpu"]).status == gpu.ABSENT
    assert gpu.raced(check, "W2", WORKLOADS["W2"], "sgd", []).status == gpu.ABSENT, "no figure without the machine's"


def test_a_workload_is_measured_and_who_does_not_run_is_listed(check: gpu.Check) -> None:
    check.out.mkdir()
    check.report |= {"results": [], "machine": FACTS}
    outcome = gpu.raced(check, "W2", WORKLOADS["W2"].tiny(), "sgd", ["autograd_bmm", "autograd_graph"])
    assert outcome.status == gpu.PASSED
    assert outcome.listed == ["  cuda: runs on a GPU only", "  autograd_graph: runs on a GPU only"]
    (result,) = check.report["results"]
    assert set(result["contenders"]) >= {"autograd_bmm"}
    for word in ("network-steps/s", "of the peak", "of the bandwidth"):
        assert word in outcome.said
    own = result["contenders"]["autograd_bmm"]
    moved = 4 * (own["rate"] * 3 * result["parameters"] + own["rate"] * result["batch"] * 9 / result["networks"])
    assert own["share_of_bandwidth"] == pytest.approx(moved / (FACTS["copy_gbytes_per_second"] * 1e9))


def test_a_workload_that_the_first_engine_cannot_train_is_measured_without_it(
    check: gpu.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = contenders.PEERS["cpu"]._replace(excuse=lambda *given: "finds no place on the chip")
    monkeypatch.setitem(contenders.PEERS, "cpu", full)
    check.out.mkdir()
    check.report |= {"results": [], "machine": FACTS}
    outcome = gpu.raced(check, "W2", WORKLOADS["W2"].tiny(), "sgd", ["autograd_bmm"])
    assert outcome.said.startswith("eager ")
    assert "  cpu: finds no place on the chip" in outcome.listed


def test_the_whole_report_is_written_with_its_plots(check: gpu.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "facts", lambda device, threads: dict(FACTS))
    monkeypatch.delitem(ENGINES, "cuda")  # a CPU in a GPU's place plays eager alone
    monkeypatch.setattr(gpu, "tests", lambda check, chosen, log: gpu.Outcome(gpu.PASSED, "none"))
    monkeypatch.setattr(gpu, "WORKLOADS", {"W2": WORKLOADS["W2"].tiny()})
    monkeypatch.setattr(gpu, "KINDS", {**dict.fromkeys(gpu.KINDS, ()), "peers": ("autograd_bmm",)})
    monkeypatch.setattr(calls, "CASES", {"W2": WORKLOADS["W2"].tiny()})
    monkeypatch.setattr(whole, "CASES", ())  # JAX compiles them for test_benchmarks.py
    line = ("--data", "tutorial", "--steps", "3", "--tensorboard=false", "--engine", "eager")
    monkeypatch.setattr(whole, "command_lines", lambda device: {"tutorial": line})
    monkeypatch.setattr(proofs, "SPECS", {"2-2-2": proofs.SPECS["2-2-2"]})
    monkeypatch.setattr(proofs, "MANY", 20)
    monkeypatch.setitem(sweeps.VALUES, "batch_size", (2, 4))
    monkeypatch.setitem(sweeps.BASES, "batch_size", ("W2", WORKLOADS["W2"].tiny()))
    monkeypatch.setattr(supervisor, "supervise", lambda out, end, make: "" if check.run(gpu.steps(check)) else "lost")
    monkeypatch.setattr(supervisor.devices, "devices", lambda given: ["cpu", "cpu"])
    check.report |= {"devices": check.devices, "threads": {}}
    assert supervisor.main(check.out, 1.0) == 0, supervisor.text(written(check))
    report = written(check)
    assert [point["value"] for point in report["sweep"]] == [2, 4]
    assert [own["case"] for own in report["calls"]] == ["W2"]
    assert list(report["whole"]) == ["tutorial"]
    told = (check.out / "gpu_check.txt").read_text()
    for words in ("seconds of gpubp train --data tutorial", "Calls of one step"):
        assert words in told
    files = {".json", ".txt", ".png", "-roofline.png", "-batch_size.png"}
    assert {path.name for path in check.out.iterdir()} == {f"gpu_check{each}" for each in files}


def test_the_outcome_of_tests_is_read_from_their_report(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\ndef test_fine(): pass\ndef test_bad(): assert 1 == 2\n"
        "def test_away(): pytest.skip('no CUDA device')\n"
    )

    def outcome(*words: str) -> gpu.Outcome:
        return suite.run(["-c", "/dev/null", "test_some.py", *words], tmp_path, 120, tmp_path / "log.xml")

    status, said, listed = outcome()
    assert (status, said) == (gpu.FAILED, "1 passed, 1 failed, 1 skipped")
    assert listed == ["failure: test_bad: assert 1 == 2", "skipped: test_away: no CUDA device"]
    assert outcome("-k", "fine").status == gpu.PASSED
    assert outcome("-k", "away").status == gpu.FAILED, "nothing passed"


@pytest.mark.usefixtures("few")
def test_the_proofs_hold_on_the_cpu_and_on_a_played_gpu() -> None:
    assert proofs.independence("eager", "cpu").differing == []
    assert proofs.shares("eager", ["cpu"] * 3).differing == []
    assert proofs.equal_bits("cpu", "cpu", "cpu").differing == []
    with playing(Player()):
        played = proofs.equal_figures("cuda", "cpu", "cpu")
    assert (played.compared, played.differing) == (2 * 2 * len(proofs.SPECS), [])
    with recorded(4):
        assert proofs.independence("eager", "cpu").differing == []
        near = proofs.nearness("eager", "cpu")
    assert near.differing == []
    assert near.compared == len(proofs.SETTINGS)


@pytest.mark.usefixtures("few")
def test_engines_that_round_otherwise_are_told_apart_and_how_far() -> None:
    found = proofs.equal_bits("eager", "cpu", "cpu")
    assert found.differing
    assert all("of a row's length apart" in each for each in found.differing)
    assert proofs.equal_figures("eager", "cpu", "cpu").differing


@pytest.mark.usefixtures("few")
def test_a_planted_dependence_on_the_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    product = backprop.product
    monkeypatch.setattr(backprop, "product", lambda left, *rest: product(left, *rest) * (1 + 2**-20 * (len(left) > 4)))
    differing = proofs.independence("eager", "cpu").differing
    assert any("alone" in each for each in differing)
    assert not any("another order" in each for each in differing)


@pytest.mark.usefixtures("few")
def test_a_wrong_rate_is_found() -> None:
    found = proofs.nearness("eager", "cpu", lr=0.011)
    assert len(found.differing) == found.compared


@pytest.mark.usefixtures("few")
def test_networks_that_are_alike_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train = proofs.Case.train

    def alike(case: proofs.Case, *arguments: Any, **more: Any) -> Any:
        state = train(case, *arguments, **more)
        return state.rows(torch.zeros_like(state.step))

    monkeypatch.setattr(proofs.Case, "train", alike)
    assert any("prove nothing" in each for each in proofs.independence("eager", "cpu").differing)
