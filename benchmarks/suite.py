"""gpu_check's runs of pytest, with the plugins that are named here and no others, and what became of the tests."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .supervisor import FAILED, PASSED, ROOT, TAKEN, Outcome, call

if TYPE_CHECKING:
    from .gpu import Check

PYTEST = [sys.executable, "-m", "pytest", "-p", "xdist"]
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever else is installed may warn, and a warning is an error


def tests(check: Check, chosen: Sequence[str], log: Path) -> Outcome:
    """pytest with these arguments, within the step's time: tests that would begin after 6 tenths of it are skipped
    by name. log: its report."""
    log.unlink(missing_ok=True)
    seconds = check.until - time.monotonic()
    until = f"--until={time.time() + 0.6 * seconds}"
    command = [*PYTEST, "-q", "-p", "no:cacheprovider", f"--junitxml={log}", until, *chosen]
    said = call(command, ROOT, 0.95 * seconds, ALONE)
    if said is None:
        return Outcome(FAILED, f"not done: ended after {0.95 * seconds:.0f} s")
    if not log.exists():
        return Outcome(FAILED, (said.strip().splitlines() or ["pytest said nothing"])[-1])
    return read_tests(log)


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
