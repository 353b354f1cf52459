"""A signal ends a training with everything saved, and then reaches whoever handled it before, with the result."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.cli import main
from gpubp.commands import outcome, settings
from gpubp.engines import Choice
from gpubp.placing.compaction import Compaction
from gpubp.results.saved import read_results
from gpubp.runs.run import Run

from .apart import APART
from .commands import Capture, here  # noqa: F401
from .helpers import handled, population, same_bits
from .short_runs import CPU, Stop, hears
from .test_train import SPEC, config, data


def train(*reporters: gpubp.Reporter, run_dir: Path | None = None) -> gpubp.Result:
    return gpubp.train(population(SPEC, 3), data(), config(), engine="eager", reporters=reporters, run_dir=run_dir)


class Last(gpubp.Reporter):
    """Sends signals to this process at evaluation `number`; the fourth is the last."""

    def __init__(self, *signals: int, number: int = 4) -> None:
        self.signals, self.number, self.finished = signals, number, False

    def evaluated(self, record: Any) -> None:
        for each in self.signals if record["round"] == self.number else ():
            os.kill(os.getpid(), each)

    def finish(self, result: gpubp.Result) -> None:
        self.finished = True


def loop(folder: Path, number: int) -> None:
    """In a process of its own: three trainings, in the first of which a signal comes."""
    with open(folder / "log", "w") as log:
        os.dup2(log.fileno(), 2)
    for run in range(3):
        train(Stop(3, number), run_dir=folder / f"run {run}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 1)])
def test_a_process_that_trains_in_a_loop_ends_by_the_signal_with_its_training_saved(
    number: int, code: int, tmp_path: Path
) -> None:
    """SIGINT as KeyboardInterrupt, which ends a process of multiprocessing with 1."""
    child = APART.Process(target=loop, args=(tmp_path, number))
    child.start()
    child.join(120)
    told = (tmp_path / "log").read_text()
    assert child.exitcode == code, told
    assert {*os.listdir(tmp_path)} == {"log", "run 0"}
    steps = checkpoint.load(tmp_path / "run 0", CPU).populations[0].state.step
    assert 0 < int(steps.max()) < 20
    assert (tmp_path / "run 0" / "results.csv").exists()
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in told
        assert f"this exception's `result` has the outcome; continue with gpubp.resume('{tmp_path}/run 0'" in told


@pytest.mark.parametrize("sent", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_a_handler_that_raises_nothing_is_called_and_the_result_is_returned(sent: tuple[int, ...]) -> None:
    """Of both signals with that which ends the process."""
    called, reporter = list[int](), Last(*sent, number=2)
    with handled(signal.SIGTERM, lambda number, frame: called.append(number)):
        result = train(reporter)
    assert called == [signal.SIGTERM]
    assert reporter.finished
    assert (result.interrupted, result.statuses["running"], len(result.history)) == (signal.SIGTERM, 3, 2)
    assert "3 running" in repr(result)
    assert "stopped by SIGTERM" in repr(result)


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    with handled(signal.SIGINT, signal.SIG_IGN):
        assert train(Last(signal.SIGINT, number=1)).interrupted is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_that_python_did_not_install_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *given: pytest.fail("it could not be put back"))
    assert train().interrupted is None


@pytest.mark.parametrize("when", ["at the last evaluation", "while saving"])
def test_a_signal_near_the_end_is_delivered_when_all_is_done(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper, folder, reporter = checkpoint.save, tmp_path / "run", Last()

    def save(*given: Any) -> None:
        proper(*given)
        if int(given[1][0].state.step.max()) == 20:
            os.kill(os.getpid(), signal.SIGINT)

    if when == "while saving":
        monkeypatch.setattr(checkpoint, "save", save)
    else:
        reporter = Last(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(reporter, run_dir=folder)
    assert caught.value.result.status_names == ["finished"] * 3  # type: ignore[attr-defined]
    assert reporter.finished
    assert (folder / "results.csv").exists()


def test_in_another_thread_signals_stay_the_main_threads() -> None:
    seen: list[Any] = []

    look = hears(progress=lambda progress: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: seen.append(train(look).interrupted))
    thread.start()
    thread.join()
    assert seen[-1] is None
    assert set(seen[:-1]) == {signal.getsignal(signal.SIGINT)}


def test_the_command_line_says_how_many_rows_wait(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(outcome, "reporters", lambda *given: [gpubp.ConsoleReporter(), Last(signal.SIGINT, number=2)])
    assert main([*COMMAND.split(), "--slots", "1", "--networks", "7"]) == 128 + signal.SIGINT
    told = capsys.readouterr()
    assert "1 network has steps left, 6 wait for a slot; continue: gpubp resume run\n" in told.out
    assert "1 running, 6 waiting" in told.err


ASKED = "--data xor --networks 2 --steps 50 --evaluate-every 10 --tensorboard false"
COMMAND = f"train {ASKED} --engine eager --run-dir run"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_says_how_to_resume_and_it_works(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "reporters", lambda *given: [gpubp.ConsoleReporter(), Last(number, number=2)])
        assert main(COMMAND.split()) == 128 + number
    told = capsys.readouterr()
    assert "2 networks have steps left; continue: gpubp resume run\n" in told.out
    assert f"stopped by {signal.Signals(number).name}" in told.err
    assert main(["resume", "run"]) == 0
    assert "2 finished" in capsys.readouterr().err
    assert main(["resume", "run"]) == 0
    assert "nothing is left to train: every network has ended: 2 finished" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_any_training_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(settings, "load_data", lambda *given, **named: os.kill(os.getpid(), number))
    assert main([*COMMAND.split(), "--device", "cpu"]) == 128 + number
    assert capsys.readouterr() == ("", f"stopped by {signal.Signals(number).name}\n")
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_names_the_last_checkpoint(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    twice = [Stop(2, signal.SIGINT), Stop(2, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "reporters", lambda *given: twice)
        assert main([*COMMAND.split(), "--device", "cpu"]) == 130
    told = "run holds its last checkpoint; continue with: gpubp resume run\nstopped by SIGINT\n"
    assert capsys.readouterr() == ("", told)
    assert main(["resume", "run"]) == 0


@pytest.mark.parametrize("resumed", [False, True])
def test_a_signal_while_kernels_are_compiled_ends_the_run_with_the_present_one(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many topologies the others would take minutes, also to evaluate their networks."""
    given, folder = data(), tmp_path / "run"
    rows = [{"widths": (3, width, 2), "lr": 0.01} for width in range(4, 12)]
    common = {"engine": "eager", "batch_size": 8, "evaluate_every": 5}
    whole = gpubp.train_many(rows, given, given, steps=10, **common)
    if resumed:
        gpubp.train_many(rows, given, given, steps=5, run_dir=folder, **common)
    compiled: list[Any] = []

    def compile_ahead(run: Run) -> None:
        compiled.append(run)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # until the main thread has it

    def again() -> gpubp.Result:
        if folder.exists():
            return gpubp.resume(folder, given, given, steps=10)
        return gpubp.train_many(rows, given, given, steps=10, run_dir=folder, **common)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "compile_ahead", compile_ahead)
        patched.setattr(Choice, "compiles", True)
        patched.setattr(Compaction, "evaluate", lambda *given: pytest.fail("it would be compiled for"))
        with pytest.raises(KeyboardInterrupt) as caught:
            again()
    assert 0 < len(compiled) <= (os.cpu_count() or 1)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.loss.isnan().all()
    assert result.status_names == ["running"] * len(rows)
    kept = read_results(folder / "results.parquet")["loss"].to_numpy()
    assert np.isnan(kept).all() != resumed
    assert same_bits(torch.cat([each.params.flatten() for each in again().populations.each]),
                     torch.cat([each.params.flatten() for each in whole.populations.each]))  # fmt: skip


AT_ONCE = {"widths": "3,2", "lr": 1e308, "l2": 1e10, "optimizer": "sgd"}  # diverges in the first step


@pytest.mark.parametrize(("rows", "calls"), [([AT_ONCE], 1), ([AT_ONCE, {"widths": "3,6,2"}], 6)])
def test_networks_of_a_kind_that_diverged_at_once_have_figures_after_a_signal(rows: list[Any], calls: int) -> None:
    common = {"epochs": 40, "evaluate_every": 1, "engine": "eager", "dtype": torch.float64}
    with pytest.raises(KeyboardInterrupt) as caught:
        gpubp.train_many(rows, data(), reporters=[Stop(calls, signal.SIGINT)], **common)
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.status_names == ["diverged", "running"][: len(rows)]
    assert result.loss.isfinite().all()
