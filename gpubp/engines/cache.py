"""Where compiled kernels are kept between processes, and what makes a file there one that may run.

A kernel's file is named by its key, a hash of all that it was made from, and by a hash of itself. The second tells a
damaged file. It tells nobody's intent: that a file is what was compiled is known because the folder, and all above it,
can be written by nobody but its user and root. Nothing is kept in or loaded from another folder: then, and where the
cache cannot be written, every process compiles its kernels for itself, in a folder of its own, and news() says so.
The environment's GPUBP_CACHE names a folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..errors import EngineError

T = TypeVar("T")
STALE = 3600  # seconds after which what is still being written belongs to a process that is gone
UNKEPT: dict[Path | None, str] = {}  # caches that did not keep a kernel, and why; "" once it was told


def place() -> Path | None:
    """Where kernels are kept, links resolved; None where there is no home directory."""
    given = os.environ.get("GPUBP_CACHE")
    try:
        if given:
            found = Path(given).expanduser()
        elif sys.platform == "darwin":
            found = Path.home() / "Library" / "Caches" / "gpubp"
        else:
            found = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpubp"
    except RuntimeError:
        return None
    return Path(os.path.realpath(found))


def kept(key: str, folder: Path | None, suffix: str, load: Callable[[Path], T]) -> T | None:
    """What `load` makes of the cache's file, if it is there, is what its name says, can be nobody else's and can be
    loaded."""
    try:
        if folder is None or not folder.is_dir() or not _trusted(folder):
            return None
        for path in sorted(folder.glob(f"{key}-*{suffix}")):
            found = path.lstat()
            own = stat.S_ISREG(found.st_mode) and not _stranger(found) and not _open_to_others(found)
            if own and path.name == f"{key}-{digest(path.read_bytes())}{suffix}":
                return load(path)
    except OSError:  # then it is made
        pass
    return None


def keep(made: bytes, key: str, folder: Path | None, suffix: str, load: Callable[[Path], T]) -> T | None:
    """`made` put into the cache and loaded from there; None where it cannot be kept: this process alone has it."""
    if folder is None:
        UNKEPT.setdefault(None, "there is no home directory to keep them in")
        return None
    try:
        path = _put(folder, f"{key}-{digest(made)}{suffix}", made)
        return load(path) if path else None
    except OSError as error:
        UNKEPT.setdefault(folder, f"they cannot be kept in {folder}: {error.strerror or error}")
        return None


def log(said: str, folder: Path | None) -> str:
    """The file that a compiler's words were written to, in the cache or else among temporary files; or why not."""
    name, words = f"compiler-{digest(said.encode())}.log", said.encode(errors="replace")
    for where in (folder, None):
        with suppress(OSError):
            if where is None:
                handle, path = tempfile.mkstemp(prefix="gpubp-", suffix=".log")
                with os.fdopen(handle, "wb") as file:
                    file.write(words)
                return path
            if put := _put(where, name, words):
                return str(put)
    return "a file that could not be written"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder to compile in, which nobody else can write. What killed processes have left of such is removed when no
    compilation can be as old. Raises EngineError where temporary files lie where others can put theirs; OSError where
    there can be none."""
    for old in Path(tempfile.gettempdir()).glob("gpubp-*.compiling"):
        with suppress(OSError):
            found = old.lstat()
            if stat.S_ISDIR(found.st_mode) and not _stranger(found) and time.time() - found.st_mtime > STALE:
                shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="gpubp-", suffix=".compiling", ignore_cleanup_errors=True) as name:
        folder = Path(os.path.realpath(name))
        if why := exposed(folder):
            raise EngineError(
                f"a kernel is compiled where nobody else can write, and {why}; the environment's TMPDIR may name "
                'another directory for temporary files; engine "eager" needs none'
            )
        yield folder


def news() -> list[str]:
    """What a person should know, and was not told: once for every cache that kernels cannot be kept in."""
    told = [why for why in UNKEPT.values() if why]
    UNKEPT.update(dict.fromkeys(UNKEPT, ""))
    return [
        f"every process compiles its kernels anew: {why}; the environment's GPUBP_CACHE may name another directory"
        for why in told
    ]


def digest(content: bytes) -> str:
    """What a kept file's name says of its content."""
    return hashlib.sha256(content).hexdigest()[:16]


def exposed(folder: Path) -> str | None:
    """Why somebody else than this process's user and root could put a file into `folder`, a path without links; None
    where nobody could. A sticky directory above it, such as /tmp, does no harm: in it others cannot move what is ours.
    """
    if not hasattr(os, "geteuid"):  # Windows: a profile is its user's own
        return None
    owner = Path("/").stat().st_uid  # root, also in a user namespace that knows no root
    for each in (folder, *folder.parents):
        found = each.stat()
        if _stranger(found) and (each == folder or found.st_uid != owner):
            return f"{each} belongs to another user"
        if _open_to_others(found) and (each == folder or not found.st_mode & stat.S_ISVTX):
            return f"others can write to {each}"
    return None


def _trusted(folder: Path) -> bool:
    why = exposed(folder)
    if why:
        UNKEPT.setdefault(folder, f"no kernel is stored in or loaded from {folder}, because {why}")
    return not why


def _put(folder: Path, name: str, content: bytes) -> Path | None:
    """`content` as a file of a cache that can be trusted, whole or not at all; None for another. Raises OSError."""
    for each in reversed((folder, *folder.parents)):
        each.mkdir(mode=0o700, exist_ok=True)
    if not _trusted(folder):
        return None
    for old in folder.glob("*.part"):
        with suppress(OSError):  # another process was faster
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
    part = folder / f"{secrets.token_hex(8)}.part"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # for others to read, where the umask lets them
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(part, folder / name)
    except BaseException:
        os.unlink(part)
        raise
    return folder / name


def _stranger(found: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid())


def _open_to_others(found: os.stat_result) -> bool:
    """Whether others than its owner can write it. A group of one, which many systems give every user, is not others."""
    if not hasattr(os, "geteuid") or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    own = (group.gr_gid, group.gr_name) == (user.pw_gid, user.pw_name)
    return not (own and {*group.gr_mem} <= {user.pw_name})
