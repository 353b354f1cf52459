"""Atomic files.

A file is written under a random name in its folder, synced to disk and renamed: readers find either the old file or the
new one, even if the process is killed at any instant. Links in its place are not followed; sweep() deletes what killed
processes left. A file has the mode of the umask. Only regular files are read, as a pipe or a device might never end,
and no more of them than memory holds, whatever size a sparse file claims.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import CheckpointError, ConfigError, GpubpError, reason

UNFINISHED = ".writing"  # suffix of a file being written
FOLLOW_NONE = getattr(os, "O_NOFOLLOW", 0)
TIMES = 32  # bytes of memory that a byte of JSON can take, as in [[],[],...
PIECE, BLOCK = 1 << 26, 1 << 20  # bytes that a thread digests, and that it reads at once


@contextmanager
def written(what: object, error: type[GpubpError]) -> Iterator[None]:
    """Turn an error of the system or of safetensors into `error`, which says that `what` cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as why:
        raise error(f"{what} cannot be written: {reason(why, str(why))}") from None


@contextmanager
def trusted(
    what: object, error: type[GpubpError] = CheckpointError, otherwise: str = "it is not what was written"
) -> Iterator[None]:
    """Turn whatever the system, a library or Python raises for its content into `error`: `what` cannot be read.
    otherwise: the reason given for an error of a library or Python."""
    try:
        yield
    except error:
        raise
    except Exception as why:
        raise error(f"{what} cannot be read: {reason(why, otherwise)}") from why


def path(name: str, given: Any) -> Path:
    """`given` as a path; raises ConfigError if it is not one. name: of the argument."""
    if isinstance(given, str) and "://" in given:
        raise ConfigError(f"{name} {given!r}: a path on this machine expected; copy what is at a URL")
    try:
        found = Path(given)
        if b"\0" in os.fspath(found).encode():
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"{name} {given!r}: a path in UTF-8 without NUL expected") from None
    return found


def write(path: Path, fill: Callable[[Path], object], sync: bool = True) -> None:
    """Let `fill` write a new file, which replaces `path` when complete. Raises OSError, or like `fill`; then `path` is
    unchanged, and nothing else is left. sync: whether the file must survive a power loss, which takes disks long."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | FOLLOW_NONE, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        fill(beside)
        with beside.open("rb+") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:  # `fill` replaced the file
                beside.chmod(mode)
            if sync:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    if not sync:
        return
    with suppress(OSError):  # some systems cannot open or sync a directory; the file is in place
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path) -> None:
    """Delete unfinished files of killed processes in `folder`, where no other process may be writing."""
    for each in (*folder.glob(f"*{UNFINISHED}"), *folder.glob(".tmp??????")):  # the latter are of safetensors
        with suppress(OSError):
            each.unlink()


def read(path: Path, times: int = TIMES, first: int | None = None) -> bytes:
    """The content of a regular file, or its `first` bytes. Raises OSError, also for a file that does not fit in memory,
    before reading it. times: bytes of memory that the caller needs per byte."""
    from . import free  # it imports torch, which takes long

    size = regular(path)
    size = size if first is None else max(0, min(size, first))
    if (room := free.too_little(size * times)) is not None:
        need = f"{free.size(size)}, for which {free.size(size * times)} of memory may be needed"
        raise OSError(errno.EFBIG, f"it holds {need}; {free.size(room)} are free", str(path))
    with path.open("rb") as file:
        return file.read(size)


def found(path: Path) -> bytes | None:
    """The same; None if it cannot be read."""
    try:
        return read(path)
    except OSError:
        return None


def regular(path: Path) -> int:
    """The bytes of `path`, or what it links to. Raises OSError unless that is a regular file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found.st_size


def write_text(path: Path, text: str) -> None:
    """Write `text` to the file `path` in UTF-8. Raises OSError."""
    write(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def digest(path: Path) -> str:
    """SHA-256 over the SHA-256s of a file's pieces, which threads compute in parallel. Raises OSError."""
    regular(path)

    def piece(begin: int) -> bytes:
        found = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(begin)
            for _ in range(0, PIECE, BLOCK):
                found.update(file.read(BLOCK))
        return found.digest()

    begins = range(0, path.stat().st_size, PIECE)
    with ThreadPoolExecutor() as pool:
        pieces = (pool.map if len(begins) > 1 else map)(piece, begins)
        return hashlib.sha256(b"".join(pieces)).hexdigest()
