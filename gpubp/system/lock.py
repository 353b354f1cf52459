"""One process at a time writes a run: it holds a lock on RUN/checkpoint/lock, which names the process and, in a second
line, its machine.

The lock is flock's: it ends with its process. A network file system may keep the lock of a dead machine; `force` takes
it over. Without flock nothing guards a run, and held() says so. Readers need no lock. The holder deletes unfinished
files of killed processes. A process whose run was removed or taken over stops writing to it: check().
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from weakref import WeakKeyDictionary

from ..errors import CheckpointError
from ..line import line, quoted
from . import files

HELD: WeakKeyDictionary[TextIO, Path] = WeakKeyDictionary()  # a forked process would keep holding them
UNGUARDED = "a second process could write this run at the same time: {} has no file locks"


def file(run_dir: Path) -> Path:
    """The lock file of a run; its folder exists before the run has saved anything."""
    return run_dir / "checkpoint" / "lock"


@contextmanager
def held(run_dir: Path, force: bool = False, machine: str = "") -> Iterator[list[str]]:
    """Hold the lock of the run in `run_dir`, with `force` even if another process has it. machine: its description, for
    people. -> notes for the user. Raises CheckpointError, naming the process, if another one holds the lock."""
    path = file(run_dir)
    if os.path.islink(path.parent):  # Path's raises for a name that is too long
        raise CheckpointError(
            f"{path.parent} is a link, perhaps to the files of another run: move the directory itself there"
        )
    try:
        if force:
            path.unlink(missing_ok=True)
        if path.exists():
            files.regular(path)
            if path.stat().st_nlink > 1 and not path.is_symlink():
                raise CheckpointError(
                    f"{path} has another hard link, and is not written to; gpubp resume {run_dir} --force makes a "
                    "new one"
                )
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | files.FOLLOW_NONE
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} is missing: {run_dir} is not the directory of a run, or it saved nothing"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace") as handle:  # closing it ends the lock
        notes = _locked(handle, run_dir)
        HELD[handle] = path
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}\n{machine}\n")
        handle.flush()
        for folder in (run_dir, path.parent) if not notes else ():
            files.sweep(folder)
        try:
            yield notes
        finally:
            HELD.pop(handle)
            _unlock(handle)


def check(run_dir: Path) -> None:
    """Raise CheckpointError if this process holds the lock of a run that was removed or taken over."""
    path = file(run_dir)
    mine = [os.fstat(handle.fileno()) for handle, where in HELD.items() if where == path]
    if mine and not (path.exists() and any(os.path.samestat(each, path.stat()) for each in mine)):
        raise CheckpointError(
            f"{path} no longer belongs to this process: the run was removed, or another process took it"
        )


def _unlock(handle: TextIO) -> None:
    """Release the lock, even if a process forked a moment ago has the file open."""
    with suppress(ImportError, OSError, ValueError):  # no such locks, or closed in a forked process
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
            f"{run_dir} is in use by {line(handle.readline(200)) or 'another process'}; wait for it or end it. If it "
            f"is dead, and a network file system keeps its lock: gpubp resume {quoted(run_dir)} --force"
        ) from None
    except OSError as error:
        return [UNGUARDED.format(f"the file system of {run_dir} ({error.strerror})")]
    return []
