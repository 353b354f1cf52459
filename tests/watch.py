"""watched(): what a call may not do: execute, write elsewhere, take more memory or time than allowed, hang."""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOM = 300 << 20  # bytes that a small file may take
MOST = 3 << 30  # bytes of addresses, beyond which a process gets none: the machine is safe
PATIENCE = 20  # seconds of the processor, so that it does not depend on what else runs
HUNG = 15  # times as long by the clock
EXECUTED = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
CHANGED = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.symlink": 2, "os.link": 2, "os.chmod": 1,
           "os.truncate": 1, "shutil.rmtree": 1}  # fmt: skip  # events, and how many of their arguments are paths
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class LateError(BaseException):
    """Not caught on the way."""


class Watch:
    """The calls of this process: sys.addaudithook() has no way back, so one looks on for all tests, where told."""

    root: Path | None = None
    seen: list[str] = []

    @classmethod
    def heard(cls, event: str, given: tuple[Any, ...]) -> None:
        if cls.root is None:
            return
        paths: list[Any] = []
        if event in EXECUTED:
            cls.refuse(f"{event} {given!r:.200}")
        elif event == "open" and isinstance(given[2], int) and given[2] & WRITES:
            paths = [given[0]]
        elif event in CHANGED:
            paths = list(given[: CHANGED[event]])
        for path in paths:
            if isinstance(path, (str, bytes, os.PathLike)):
                where = Path(os.path.realpath(os.path.dirname(os.path.abspath(os.fsdecode(path)))))
                if not where.is_relative_to(cls.root) and os.fsdecode(path) != os.devnull:
                    cls.refuse(f"{event} {os.fsdecode(path)}")

    @classmethod
    def refuse(cls, what: str) -> None:
        cls.seen.append(what)
        raise RuntimeError(f"not here: {what}")


def told(name: str) -> int:
    """Bytes of this process, as Linux tells: VmHWM, the most that it has held, VmSize, its addresses."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(each.split()[1]) for each in lines if each.startswith(name)) << 10


@contextmanager
def watched(root: Path, room: int = ROOM, patience: float = PATIENCE) -> Iterator[None]:
    """Within, nothing is executed or written outside `root`, and memory and time are bounded."""
    if not Watch.seen:
        Watch.seen.append("installed")
        sys.addaudithook(Watch.heard)
    measured = Path("/proc/self/clear_refs").exists()
    if measured:
        Path("/proc/self/clear_refs").write_text("5")
    held, begun, written = told("VmHWM") if measured else 0, time.process_time(), sys.dont_write_bytecode
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, patience), signal.SIGALRM: (signal.ITIMER_REAL, HUNG * patience)}

    def late(number: int, _: Any) -> None:
        raise LateError(f"still at it after {timers[signal.Signals(number)][1]} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    if measured:
        resource.setrlimit(resource.RLIMIT_AS, (told("VmSize") + MOST, limits[1]))
    before = {number: signal.signal(number, late) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    Watch.root, sys.dont_write_bytecode = root.resolve(), True
    del Watch.seen[1:]
    try:
        yield
    finally:
        Watch.root, sys.dont_write_bytecode = None, written
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert Watch.seen[1:] == []
    taken = told("VmHWM") - held if measured else 0
    assert taken < room, f"{taken:,} bytes"
    assert time.process_time() - begun < patience
