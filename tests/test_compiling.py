"""While kernels of many populations are compiled, a person sees how many are left."""

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import gpubp
from gpubp.engines import Choice
from gpubp.reporters import Progress, Start, console
from gpubp.reporters.console import ConsoleReporter
from gpubp.runs.run import Run

from .helpers import same_bits, samples
from .short_runs import hears


@pytest.mark.parametrize("terminal", [False, True])
def test_kernels_that_are_still_to_be_compiled_are_counted(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80, soft_wrap=True)
    reporter = ConsoleReporter(screen)
    reporter.start(Start(networks=9, parameters=3, steps=1000, done=0, step=0, engine_reason="", run_dir=None))
    for now, left in ((3.0, 8), (6.0, 7), (7.0, 6), (12.0, 5)):
        clock[0] = now
        reporter.progress(Progress(0, 0.0, 9, steps=1000, compiling=left))
        if reporter.bar is not None:
            assert reporter.bar.tasks[0].fields["text"] == f"kernels of {left} populations to compile"
    if not terminal:
        text = [f"kernels of {left} populations to compile" for left in (7, 5)]
        assert screen.file.getvalue().splitlines()[1:] == text, "a line every five seconds"
    reporter.progress(Progress(0, 0.0, 9, steps=1000))
    assert reporter.begun == (None if terminal else 12.0), "the time left begins with the first call"
    reporter.failed()


def compiling(left: list[int], last: int = 0) -> gpubp.Reporter:
    """Keeps in `left` how many populations are left, and fails at one of these numbers."""

    def progress(progress: Progress) -> None:
        left.extend([progress.compiling] * (progress.compiling > 0))
        if 0 < progress.compiling == last:
            raise ValueError("enough")

    return hears(progress=progress)


def test_a_run_tells_of_populations_without_kernels_and_ends_with_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Run] = []

    def compile_ahead(run: Run) -> None:
        compiled.append(run)
        time.sleep(0.02)

    monkeypatch.setattr(Run, "compile_ahead", compile_ahead)
    monkeypatch.setattr(Choice, "compiles", True)
    threads = os.cpu_count() or 1
    design = [{"widths": (3, 4 + more, 1)} for more in range(6 + threads)]
    left, data = list[int](), gpubp.Dataset(*samples(gpubp.NetworkSpec((3, 1)), 40))
    gpubp.train_many(design, data, engine="eager", steps=1, reporters=[compiling(left)])
    assert left == [*range(5 + threads, 0, -1)]
    compiled.clear()
    with pytest.raises(ValueError, match="enough"):
        gpubp.train_many(design, data, engine="eager", steps=1, reporters=[compiling([], 3 + threads)])
    assert 3 <= len(compiled) < 3 + threads < len(design)
    left.clear()
    gpubp.train_many(design[:1], data, engine="eager", steps=1, reporters=[compiling(left)])
    assert not left, "of a single population there is nothing to count"
    monkeypatch.undo()
    gpubp.train_many(design, data, engine="eager", steps=1, reporters=[compiling(left)])
    assert not left, "engine eager has no kernels"


def test_a_signal_while_networks_of_a_queue_come_compiles_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, slots = gpubp.NetworkSpec((3, 4, 2)), 4 + (os.cpu_count() or 1)
    data = gpubp.Dataset(*samples(spec, 40))
    design = [{"widths": (3, width, 2), "lr": 0.01} for width in range(4, 4 + 2 * slots)]
    common = {"engine": "eager", "steps": 4, "batch_size": 8, "slots": slots}
    whole = gpubp.train_many(design, data, data, **common)
    compiled, evaluate = list[Run](), Run.figures

    def compile_ahead(run: Run) -> None:
        compiled.append(run)
        if len(compiled) == slots + 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # until the main thread has it

    def figures(run: Run, looks: bool = True) -> Any:
        assert looks == bool(run.state.step.any()), "those without a step may have no kernel"
        return evaluate(run, looks)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "compile_ahead", compile_ahead)
        patched.setattr(Choice, "compiles", True)
        patched.setattr(Run, "figures", figures)
        with pytest.raises(KeyboardInterrupt) as caught:
            gpubp.train_many(design, data, data, run_dir=tmp_path / "run", **common)
    assert slots < len(compiled) < 2 * slots
    result = caught.value.result  # type: ignore[attr-defined]
    assert result.loss[:slots].isfinite().all()
    assert result.loss[slots:].isnan().all()
    again = gpubp.resume(tmp_path / "run", data, data)
    assert all(map(same_bits, (again.loss, again.validation_loss), (whole.loss, whole.validation_loss)))
