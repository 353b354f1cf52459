"""scripts/gpu_check.py's parent: it uses no GPU itself, so that nothing keeps it from ending what does.

Steps are taken in a child process, which ends itself where one takes too long. A step that takes its child along, so or
by a crash or an error after which CUDA refuses every call, is named, and a new child takes the steps after it. At the
end the child is killed with its group. The report is completed and drawn here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpubp import devices

from . import plots, roofline, tables
from .harness import own_kernels

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, ABSENT = "passed", "failed", "not run"
TAKEN = "calls taken elsewhere"  # a property of tests in pytest's report, see tests/conftest.py
FILE = "gpu_check.json"
ENDED, INTERRUPTED = "ended", "interrupted"  # what became of a child
STEPS = "benchmarks.gpu:steps"
CHILD = "import sys; from benchmarks import gpu; sys.exit(gpu.work(*sys.argv[1:]))"
PATIENCE = 5.0  # seconds that a child has to end itself, and a killed one to be gone
WIDTH = 140  # of what is written
WORTH = 15.0  # seconds that must be left for another child: its start alone takes most of them


class Outcome(NamedTuple):
    """What became of a step: one of the three words above, a line about it, and what it lists."""

    status: str
    said: str
    listed: Sequence[str] = ()


def blank(devices: Sequence[str]) -> dict[str, Any]:
    """A report in which nothing stands yet."""
    measured: dict[str, Any] = {"results": [], "sweep": [], "calls": [], "whole": {}, "beside_jax": []}
    return {"devices": list(devices), "planned": [], "checks": [], **measured}


def read(out: Path) -> dict[str, Any]:
    """The report as it is."""
    return json.loads((out / FILE).read_text())  # type: ignore[no-any-return]


def write(out: Path, report: dict[str, Any]) -> None:
    """The report in one piece: whoever is ended while he writes leaves the last one."""
    part = out / f"{FILE}.part"
    part.write_text(json.dumps(report) + "\n")
    part.replace(out / FILE)


def add(report: dict[str, Any], status: str, said: str, listed: Sequence[str] = (), name: str = "") -> None:
    """The outcome of the step that runs, or of `name`, which did not begin."""
    running = report.pop("running", None)
    seconds = time.monotonic() - running["begun"] if running else 0.0
    name = running["name"] if running else name
    report["checks"].append({"name": name, "status": status, "said": said, "listed": list(listed), "seconds": seconds})


def main(out: Path, minutes: float, make: str = STEPS) -> int:
    """Check every GPU of this machine, in `minutes` and the seconds that the plots take. make: see gpu.work.
    -> exit status: 0 where nothing failed. What was not run for want of time has not failed; a proof or a test that had
    to be ended has."""
    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("gpu_check*"):
        old.unlink()
    write(out, blank([str(each) for each in devices.devices(devices.ALL)]))
    with own_kernels():
        why = supervise(out, end, make)
    report = read(out)
    done = {each["name"] for each in report["checks"]}
    for name in report["planned"]:
        if name not in done:
            add(report, ABSENT, why, name=name)
    write(out, report)
    (out / "gpu_check.txt").write_text(text(report))
    screen().print(overview(report))
    print(out)
    draw(report, out)
    return 0 if why != INTERRUPTED and all(each["status"] != FAILED for each in report["checks"]) else 1


def supervise(out: Path, end: float, make: str) -> str:
    """Children, one after the other, until every step is taken or it is `end`. -> why those that are left are not."""
    while True:
        known = len(read(out)["checks"])
        why = child(out, end, make)
        report = read(out)
        if running := report.get("running"):
            late = why != INTERRUPTED and time.monotonic() >= min(end, running["until"])
            wanting = why == INTERRUPTED or (late and not running["proves"])
            spent = time.monotonic() - running["begun"]
            add(report, ABSENT if wanting else FAILED, f"not done: {ENDED if late else why} after {spent:.0f} s")
            write(out, report)
            show(report["checks"][-1], screen())
        if why == INTERRUPTED:
            return why
        if len(report["checks"]) == len(report["planned"]) > 0:
            return ""
        if end - time.monotonic() < WORTH:
            return "no time left"
        if len(report["checks"]) == known:  # it would go on so for ever
            add(report, FAILED, f"the process that takes the steps was {why} before it took one", name="start")
            write(out, report)
            return "no process to take it"


def child(out: Path, end: float, make: str) -> str:
    """A child from its start to its end, soon after `end` at the latest. -> what became of it. Not waited for long: a
    process that a driver holds may never end."""
    command = [sys.executable, "-u", "-X", "faulthandler", "-c", CHILD, str(out), repr(end), make]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        status = process.wait(max(0.0, end - time.monotonic()) + PATIENCE)
    except subprocess.TimeoutExpired:
        return ENDED
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def screen() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def show(entry: dict[str, Any], console: Console) -> None:
    """A step and what it lists."""
    console.print(f"{entry['name']}: {entry['status']}: {entry['said']}", highlight=False, markup=False)
    for line in entry["listed"]:
        console.print(f"  {line}", highlight=False, markup=False)


def overview(report: dict[str, Any]) -> Table:
    """Every step in a line."""
    table = Table(title="GPU check", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("step", "outcome", "s", "what"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for each in report["checks"]:
        table.add_row(each["name"], each["status"], f"{each['seconds']:.0f}", Text(each["said"]))
    return table


def text(report: dict[str, Any]) -> str:
    """Everything in words: steps, figures, and every step in a line."""
    console = Console(file=StringIO(), width=WIDTH)
    for each in report["checks"]:
        show(each, console)
    for result in report["results"]:
        console.print(tables.rates(result["workload"], result))
    if report["calls"]:
        console.print(tables.calls(report["calls"]))
    for name, result in report["whole"].items():
        console.print(tables.parts(name, result))
    if report["beside_jax"]:
        console.print(tables.beside_jax(report["beside_jax"]))
    console.print(overview(report))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def draw(report: dict[str, Any], out: Path) -> None:
    """The plots of what was measured."""
    if report["results"]:
        whole = {**report, "results": merged(report["results"])}
        plots.ratios(whole, out / "gpu_check.png")
        roofline.plot(whole, out / "gpu_check-roofline.png")
    if report["sweep"]:
        points = {**report, "results": report["sweep"], "over": "batch_size", "workload": "W5"}
        plots.sweep(points, out / "gpu_check-batch_size.png")


def merged(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Races of one workload and optimizer as one: a ratio is to the first contender of its own race, which is the same.
    Of a contender in several, the figures of the first."""
    found: dict[Any, dict[str, Any]] = {}
    for result in results:
        key = result["workload"], result["optimizer"], next(iter(result["contenders"]))
        known = found.setdefault(key, {**result, "contenders": {}})["contenders"]
        known |= {name: own for name, own in result["contenders"].items() if name not in known}
    return list(found.values())
