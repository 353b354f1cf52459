"""Steps that take their process along, for test_supervisor.py: they are taken in a child, which finds them by name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import PASSED, Check, Outcome, Step

FOREVER = "import time; time.sleep(3600)"


def fine() -> Outcome:
    """Says its process."""
    return Outcome(PASSED, str(os.getpid()))


def exits() -> Outcome:
    os._exit(7)


def aborts() -> Outcome:
    os.abort()


def hangs() -> Outcome:
    time.sleep(3600)
    return Outcome(PASSED, "never")


def leaves(out: Path) -> Outcome:
    """Two processes, one of them in a session of its own; then it hangs."""
    ids = [subprocess.Popen([sys.executable, "-c", FOREVER], start_new_session=own).pid for own in (False, True)]
    (out / "left.txt").write_text(" ".join(map(str, ids)))
    return hangs()


def loses(check: Check) -> Outcome:
    """As after an illegal access to a GPU's memory."""
    check.lost = lambda: "CUDA error: an illegal memory access"  # type: ignore[method-assign]
    raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")


def troubled(check: Check) -> list[Step]:
    return [
        Step("fine", fine, 0),
        Step("aborts", aborts, 0),
        Step("exits", exits, 0, proves=False),
        Step("loses", lambda: loses(check), 0),
        Step("leaves", lambda: leaves(check.out), 0.5, 0),
        Step("long", fine, 36000),
        Step("last", fine, 0),
    ]


def proof(check: Check) -> list[Step]:
    return [Step("fine", fine, 0), Step("proof", lambda: leaves(check.out), 0, 1), Step("late", fine, 0)]


def broken(check: Check) -> list[Step]:
    raise RuntimeError("no steps")
