"""gpu_check's runs of pytest, with the plugins that are named here and no others, and what became of the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

from .supervisor import FAILED, PASSED, ROOT, TAKEN, Outcome

PYTEST = [sys.executable, "-m", "pytest", "-p", "xdist"]
HANGS = 60  # seconds of a test
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed may warn, and a warning is an error


class Timed(Protocol):
    """until: when it has to be over, by time.monotonic()."""

    until: float


def tests(check: Timed, chosen: Sequence[str], log: Path) -> Outcome:
    """pytest with these arguments, within the step's time. log: its report."""
    return run(["-p", "no:cacheprovider", *chosen], ROOT, 0.7 * (check.until - time.monotonic()), log)


def run(chosen: Sequence[str], folder: Path, seconds: float, log: Path) -> Outcome:
    """pytest in `folder`. After `seconds` no test is begun, and some later its processes are ended; the process of a
    test that hangs is ended, and pytest-xdist begins another."""
    log.unlink(missing_ok=True)
    hangs = [f"-ofaulthandler_timeout={HANGS}", "-ofaulthandler_exit_on_timeout=true"]
    command = [*PYTEST, "-q", f"--junitxml={log}", *hangs, *chosen]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    late = ""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        late = f"; no time for the rest after {seconds:.0f} s"
        said, _ = process.communicate()
    if not log.exists():
        return Outcome(FAILED, (said.strip().splitlines() or ["pytest said nothing"])[-1])
    found = read_tests(log)
    return found._replace(said=found.said + late)


def read_tests(log: Path) -> Outcome:
    """The outcome in pytest's XML: failed where a test did, or where none passed. Those that were skipped are listed by
    their reason; of tests with --device, how many calls were taken there, and the files that took none."""
    found: dict[str, list[str]] = {"failure": [], "error": [], "skipped": [], PASSED: []}
    skipped: dict[str, dict[str, None]] = defaultdict(dict)
    taken: dict[str, list[int]] = defaultdict(list)
    for case in ElementTree.parse(log).iter("testcase"):
        kind = next((child for child in case if child.tag in found), None)
        name = case.get("name", "")
        found[PASSED if kind is None else kind.tag].append(
            name if kind is None else f"{kind.tag}: {name}: {kind.get('message')}"
        )
        if kind is not None and kind.tag == "skipped":
            skipped[kind.get("message", "")][name.partition("[")[0]] = None
        elif counted := [each for each in case.iter("property") if each.get("name") == TAKEN]:
            taken[case.get("classname", "")] += [int(each.get("value", 0)) for each in counted]
    bad = found["failure"] + found["error"]
    said = f"{len(found[PASSED])} passed, {len(bad)} failed, {len(found['skipped'])} skipped"
    if calls := [count for counts in taken.values() for count in counts]:
        said += f"; {sum(calls):,} calls were taken there, by {sum(map(bool, calls)):,} tests"
    listed = bad + [f"skipped: {', '.join(names)}: {reason}" for reason, names in skipped.items()]
    listed += [f"no call was taken there: {name}" for name, counts in taken.items() if not any(counts)]
    return Outcome(PASSED if found[PASSED] and not bad else FAILED, said, listed)
