"""scripts/gpu_check.py's two processes: the parent uses no GPU, so that it can always kill the child, which
runs the steps of gpu.py, and exits if one takes too long.

gpu_check.json has the results after every step. A step that kills its child, by time, a crash or an error
after which CUDA refuses every call, has failed, and a new child runs the next steps. At the end the child's
process group is killed. The report has only measured figures.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp import devices, gpus

from . import plots, roofline, threads
from .harness import own_kernels

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, ABSENT = "passed", "failed", "not run"
CHILD = "import sys; from benchmarks import check; sys.exit(check.work(*sys.argv[1:]))"
STEPS = "benchmarks.gpu:steps"
WIDTH = 140  # of the written report
LATE = "no time left"
WORTH = 15.0  # seconds that must remain for another child, mostly for its start


class Outcome(NamedTuple):
    """The outcome of a step: one of the three words above, a line about it, and a list."""

    status: str
    said: str
    listed: Sequence[str] = ()


class Step(NamedTuple):
    """A part of the check. least: seconds that must remain to start it; share: of the remaining time that it may take,
    or `least` if that is more; proves: whether running out of time is a failure."""

    name: str
    run: Callable[[], Outcome]
    least: float
    share: float = 1 / 2
    proves: bool = True


@dataclass
class Check:
    """A process that runs steps. devices: the GPUs; out: the folder of the results; end: its deadline in
    time.monotonic(), which all processes share; until: the deadline of the present step."""

    devices: Sequence[str]
    out: Path
    end: float
    console: Console
    report: dict[str, Any] = field(default_factory=lambda: blank([]))
    until: float = 0.0

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self.end - time.monotonic()

    def run(self, steps: Sequence[Step]) -> bool:
        """Run the steps that are not in the report, and write it before and after each. -> whether all ran: none runs
        after a step that leaves the GPU unusable for this process."""
        known = {each["name"] for each in self.report["checks"]}
        self.report["planned"] = [step.name for step in steps]
        for step in steps:
            if step.name in known:
                continue
            spare = max(step.least, step.share * self.left)
            self.until = min(self.end, time.monotonic() + spare)
            self.report["running"] = [step.name, step.proves]
            write(self.out, self.report)
            faulthandler.dump_traceback_later(max(0.1, self.until - time.monotonic()), exit=True)
            try:
                outcome, lost = attempt(step, self.left), self.lost()
            finally:
                faulthandler.cancel_dump_traceback_later()
            if lost:
                outcome = Outcome(FAILED, f"{outcome.said}; then every call to the GPU fails: {lost}", outcome.listed)
            del self.report["running"]
            add(self.report, step.name, outcome, self.console)
            write(self.out, self.report)
            if lost:
                return False
        return True

    def lost(self) -> str:
        """Why this process can no longer use a GPU, or "": after some errors CUDA refuses all calls."""
        try:
            for device in self.devices:
                gpus.wait(torch.device(device))
        except RuntimeError as error:
            return first_line(error)
        return ""


def first_line(error: Exception) -> str:
    """The first line of its message."""
    return (str(error).splitlines() or [""])[0]


def attempt(step: Step, left: float) -> Outcome:
    """The step's outcome, also if it raises or there is no time."""
    if left < step.least:
        return Outcome(ABSENT, f"{max(0, left):.0f} s are left, {step.least:.0f} are needed")
    begun = time.monotonic()
    try:
        outcome = step.run()
    except Exception as error:
        outcome = Outcome(FAILED, f"{type(error).__name__}: {first_line(error)}")
    return outcome._replace(said=f"{outcome.said} ({time.monotonic() - begun:.0f} s)")


def blank(devices: Sequence[str]) -> dict[str, Any]:
    """A report in which nothing stands yet."""
    measured: dict[str, Any] = {"results": [], "sweep": [], "calls": [], "whole": {}, "beside_jax": []}
    return {"devices": list(devices), "planned": [], "checks": [], **measured}


def read(out: Path) -> dict[str, Any]:
    """The report as it is."""
    return json.loads((out / "gpu_check.json").read_text())  # type: ignore[no-any-return]


def write(out: Path, report: dict[str, Any]) -> None:
    """The report in one piece: whoever is ended while he writes leaves the last one."""
    part = out / "gpu_check.part"
    part.write_text(json.dumps(report) + "\n")
    part.replace(out / "gpu_check.json")


def add(report: dict[str, Any], name: str, outcome: Outcome, console: Console) -> None:
    """What became of a step, for the report and for who waits."""
    report["checks"].append({"name": name, **outcome._asdict()})
    for line in (f"{name}: {outcome.status}: {outcome.said}", *(f"  {each}" for each in outcome.listed)):
        console.print(line, highlight=False, markup=False)


def work(out: str, end: str, make: str) -> int:
    """The child: run the steps of make(check) that the report in `out` lacks. -> exit status, 0 if all ran. end: by
    time.monotonic(); make: a function by name, module:function."""
    report = read(Path(out))
    check = Check(report["devices"], Path(out), float(end), screen(), report)
    report["threads"] = threads.limit(os.cpu_count() or 1, "cuda")
    return 0 if check.run(pkgutil.resolve_name(make)(check)) else 1


def main(out: Path, minutes: float, make: str = STEPS) -> int:
    """Check every GPU of this machine, in `minutes` and the seconds that the plots take. make: see work().
    -> exit status: 0 where nothing failed. What was not run for want of time has not failed; a proof or a test that had
    to be ended has."""
    end, console = time.monotonic() + 60 * minutes, screen()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("gpu_check*"):
        old.unlink()
    write(out, blank([str(each) for each in devices.devices(devices.ALL)]))
    with own_kernels():
        why = children(out, end, make, console)
    report = read(out)
    done = {each["name"] for each in report["checks"]}
    for name in report["planned"]:
        if name not in done:
            add(report, name, Outcome(ABSENT, why), console)
    write(out, report)
    table = overview(report)
    text = Console(file=StringIO(), width=WIDTH)
    text.print(table)
    (out / "gpu_check.txt").write_text(text.file.getvalue())  # type: ignore[attr-defined]
    console.print(table)
    print(out)
    draw(report, out)
    return int(any(each["status"] == FAILED for each in report["checks"]))


def children(out: Path, end: float, make: str, console: Console) -> str:
    """One after the other, until every step is taken or it is `end`. -> why those that are left are not."""
    while end - time.monotonic() > WORTH:
        known, status = len(read(out)["checks"]), child(out, end, make)
        report = read(out)
        if running := report.pop("running", None):
            name, proves = running
            late = status in (LATE, 1)  # what faulthandler ends ends with 1
            add(report, name, Outcome(ABSENT if late and not proves else FAILED, f"not done: {status}"), console)
        if status == 0:
            return ""
        if len(report["checks"]) == known:  # it would go on so for ever
            add(report, "start", Outcome(FAILED, f"the process that takes the steps ended with {status}"), console)
            write(out, report)
            return "no process to take it"
        write(out, report)
    return LATE


def child(out: Path, end: float, make: str) -> int | str:
    """A child from its start to its end, soon after `end` at the latest. -> its exit status."""
    command = [sys.executable, "-u", "-X", "faulthandler", "-c", CHILD, str(out), repr(end), make]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return LATE
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def screen() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def overview(report: dict[str, Any]) -> Table:
    """Every step in a line."""
    table = Table(title="GPU check", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "outcome", "what"):
        table.add_column(heading)
    for each in report["checks"]:
        table.add_row(each["name"], each["status"], Text("\n".join([each["said"], *each["listed"]])))
    return table


def draw(report: dict[str, Any], out: Path) -> None:
    """The plots of what was measured, of the races beside the first kind of peers."""
    if first := [result for result in report["results"] if result["kind"] == "peers"]:
        plots.ratios({**report, "results": first}, out / "gpu_check.png")
        roofline.plot({**report, "results": first}, out / "gpu_check-roofline.png")
    if report["sweep"]:
        points = {**report, "results": report["sweep"], "over": "batch_size", "workload": "W5"}
        plots.sweep(points, out / "gpu_check-batch_size.png")
