"""One process at a time writes a run: it holds a lock on RUN/checkpoint/lock, which names it.

The lock is flock's: it goes with its process, however that ends. A network file system may keep one of a machine that
is gone; `force` takes it. Where there is no flock, nothing guards a run, and held() says so. Readers need no lock. Who
has it deletes what killed processes left unfinished. Whose run was removed, or taken, writes no more of it: check().
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from weakref import WeakKeyDictionary

from . import files
from .errors import CheckpointError
from .line import line, quoted

HELD: WeakKeyDictionary[TextIO, Path] = WeakKeyDictionary()  # a process forked meanwhile would go on holding them
UNGUARDED = "nothing keeps a second process from writing this run: {} has no file locks"


def file(run_dir: Path) -> Path:
    """Where the lock of a run is; its folder is what a run has before it has saved anything."""
    return run_dir / "checkpoint" / "lock"


@contextmanager
def held(run_dir: Path, force: bool = False) -> Iterator[list[str]]:
    """Hold the lock of the run in `run_dir`, taken from whoever has it with `force`. -> what a person should know.
    Raises CheckpointError where another process holds it, by name."""
    path = file(run_dir)
    if path.parent.is_symlink():
        raise CheckpointError(
            f"{path.parent} is a link; the files of another run may lie behind it: move the directory itself there"
        )
    try:
        if force:
            path.unlink(missing_ok=True)
        if path.exists():
            files.regular(path)
            if path.stat().st_nlink > 1 and not path.is_symlink():
                raise CheckpointError(
                    f"{path} has another name elsewhere, and is not written to; gpubp resume {run_dir} --force makes a "
                    "new one"
                )
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | files.FOLLOW_NONE
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is not there: {run_dir} is not the directory of a run, or it saved nothing"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace") as handle:  # the lock goes when it is closed
        notes = _locked(handle, run_dir)
        HELD[handle] = path
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        handle.flush()
        for folder in (run_dir, path.parent) if not notes else ():
            files.sweep(folder)
        try:
            yield notes
        finally:
            HELD.pop(handle)
            _unlock(handle)


def check(run_dir: Path) -> None:
    """Raise CheckpointError where this process held the lock of a run that is no longer where it was, or another's."""
    path = file(run_dir)
    mine = [os.fstat(handle.fileno()) for handle, where in HELD.items() if where == path]
    if mine and not (path.exists() and any(os.path.samestat(each, path.stat()) for each in mine)):
        raise CheckpointError(f"{path} is not this process's any more: the run was removed, or another took it")


def _unlock(handle: TextIO) -> None:
    """Let go of it, also where a process that was forked a moment ago has it open."""
    with suppress(ImportError, OSError, ValueError):  # no such locks here, or closed, for this is such a process
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def _let_go() -> None:
    for handle in tuple(HELD):
        handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _locked(handle: TextIO, run_dir: Path) -> list[str]:
    try:
        import fcntl
    except ImportError:
        return [UNGUARDED.format("this system")]
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        handle.seek(0)
        raise CheckpointError(
            f"{run_dir} is in use by {line(handle.read(200)) or 'another process'}; wait for it or end it. If it is "
            f"gone, and a network file system keeps its lock: gpubp resume {quoted(run_dir)} --force"
        ) from None
    except OSError as error:
        return [UNGUARDED.format(f"the file system of {run_dir} ({error.strerror})")]
    return []
