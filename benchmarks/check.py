"""scripts/gpu_check.py: the parts of gpu.py one after the other, each in a process of its own with a deadline.

The process that waits for them uses no GPU, so it can always kill them, with whatever they began. gpu_check.json has
the results after every step, and only measured figures. Where a part's process ends before its last step, by its
deadline, a crash or an error, the step that it was in has failed, and its other steps are not run.
"""

import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp.system import devices

from . import machine
from .harness import own_kernels
from .tables import WIDE, screen

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, ABSENT = "passed", "failed", "not run"
CHILD = "import sys; from benchmarks import check; sys.exit(check.work(*sys.argv[1:]))"
PARTS = "benchmarks.gpu:parts"
LATE = "no time left"
WORTH = 15.0  # seconds that must remain to start a process


class Outcome(NamedTuple):
    """The outcome of a step: one of the three words above, a line about it, and a list."""

    status: str
    said: str
    listed: Sequence[str] = ()


class Step(NamedTuple):
    """What is checked or measured at once. least: seconds that must remain to start it."""

    name: str
    run: Callable[[], Outcome]
    least: float


class Part(NamedTuple):
    """The steps of one process. share: of the remaining time that it may take; proves: whether running out of time is a
    failure."""

    steps: Sequence[Step]
    share: float = 1 / 3
    proves: bool = True


@dataclass
class Check:
    """devices: the GPUs; out: the folder of the results; end: the deadline of this process by time.monotonic(), which
    all processes share."""

    devices: Sequence[str]
    out: Path
    end: float
    console: Console
    report: dict[str, Any] = field(default_factory=lambda: blank([]))

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self.end - time.monotonic()

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps, and write the report after each."""
        for step in steps:
            self.add(step.name, attempt(step, self.left))

    def add(self, name: str, outcome: Outcome) -> None:
        """Report the outcome of a step, in the file and on the screen."""
        self.report["checks"].append({"name": name, **outcome._asdict()})
        for line in (f"{name}: {outcome.status}: {outcome.said}", *(f"  {each}" for each in outcome.listed)):
            self.console.print(line, highlight=False, markup=False)
        write(self.out, self.report)


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
    return {"devices": list(devices), "checks": [], **measured}


def read(out: Path) -> dict[str, Any]:
    """The report as it is."""
    return json.loads((out / "gpu_check.json").read_text())  # type: ignore[no-any-return]


def write(out: Path, report: dict[str, Any]) -> None:
    """The report in one piece: whoever is ended while he writes leaves the last one."""
    part = out / "gpu_check.part"
    part.write_text(json.dumps(report) + "\n")
    part.replace(out / "gpu_check.json")


def work(out: str, end: str, make: str, part: str) -> None:
    """A part's process. make: a function by name, module:function, that gives the parts by their names."""
    report = read(Path(out))
    check = Check(report["devices"], Path(out), float(end), screen(), report)
    report["threads"] = machine.limit(os.cpu_count() or 1, "cuda")
    check.run(pkgutil.resolve_name(make)(check)[part].steps)


def main(out: Path, minutes: float, make: str = PARTS) -> int:
    """Check every GPU of this machine, in `minutes` and the seconds that the plots take. make: see work().
    -> exit status: 0 where nothing failed. What was not run for want of time has not failed; a proof or a test that had
    to be ended has."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("gpu_check*"):
        old.unlink()
    found = [str(each) for each in devices.devices(devices.ALL)]
    check = Check(found, out, time.monotonic() + 60 * minutes, screen(), blank(found))
    write(out, check.report)
    parts: Mapping[str, Part] = pkgutil.resolve_name(make)(check)
    with own_kernels():
        for name, part in parts.items():
            begun = check.left > WORTH
            status = child(out, time.monotonic() + part.share * check.left, make, name) if begun else LATE
            check.report = read(out)
            done = {each["name"] for each in check.report["checks"]}
            for number, step in enumerate(step for step in part.steps if step.name not in done):
                failed = begun and number == 0 and (part.proves or status != LATE)
                check.add(step.name, Outcome(FAILED if failed else ABSENT, f"its process ended: {status}"))
    table = overview(check.report)
    text = StringIO()
    Console(file=text, width=WIDE).print(table)
    (out / "gpu_check.txt").write_text(text.getvalue())
    check.console.print(table)
    check.console.print(out)
    draw(check.report, out)
    return int(any(each["status"] == FAILED for each in check.report["checks"]))


def child(out: Path, end: float, make: str, part: str) -> int | str:
    """A part's process from its start to its end, soon after `end` at the latest. -> its exit status."""
    command = [sys.executable, "-u", "-X", "faulthandler", "-c", CHILD, str(out), repr(end), make, part]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return LATE
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def overview(report: dict[str, Any]) -> Table:
    """Every step in a line."""
    table = Table("step", "outcome", "what", title="GPU check", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for each in report["checks"]:
        table.add_row(each["name"], each["status"], Text("\n".join([each["said"], *each["listed"]])))
    return table


def draw(report: dict[str, Any], out: Path) -> None:
    """The plots of what was measured, of the races beside the first kind of peers."""
    from . import plots  # which the processes of the parts need not import

    if first := [result for result in report["results"] if result["kind"] == "peers"]:
        plots.ratios({**report, "results": first}, out / "gpu_check.png")
    if report["sweep"]:
        points = {**report, "results": report["sweep"], "over": "batch_size", "workload": "W5"}
        plots.sweep(points, out / "gpu_check-batch_size.png")
