"""The cache of compiled kernels, and the conditions for running one of its files.

A kernel's file is named by its key, a hash of all its sources, and by the SHA-256 of its content, which reveals damage
but not forgery: files are trusted only because only the user and root can write to the folder and to all above it, so
that no file changes between its check and its use. A file that others could have written is deleted. A folder open to
others is not used: then, and if the cache cannot be written, every process compiles its kernels in a temporary folder,
and news() says so. The environment variable GPUBP_CACHE names a folder.
"""

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
STALE = 3600  # seconds after which the writer of an unfinished file is assumed dead
ACCESS = "system.posix_acl_access"  # the file attribute that holds its access list
NEWS: dict[object, str] = {}  # notes for the user, by cause; "" once reported


def place() -> Path | None:
    """The cache folder, links resolved; None without a home directory."""
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
    """`load` of the cached file, if it exists, matches its name, is trusted and loads; else None."""
    try:
        if folder is None or not folder.is_dir() or not _trusted(folder):
            return None
        for path in sorted(folder.glob(f"{key}_*{suffix}")):
            why = _unsafe(path)
            if why is None and path.name == f"{key}_{digest(path.read_bytes())}{suffix}":
                return load(path)
            NEWS.setdefault(path, f"a kernel is compiled again: {why or f'{path} is not what was stored there'}")
            path.unlink()
    except OSError:  # it is compiled instead
        pass
    return None


def keep(made: bytes, key: str, folder: Path | None, suffix: str, load: Callable[[Path], T]) -> T | None:
    """Store `made` in the cache and load it from there; None if it cannot be stored."""
    if folder is None:
        _unkept(None, "there is no home directory to cache them in")
        return None
    try:
        path = _put(folder, f"{key}_{digest(made)}{suffix}", made)
        return load(path) if path else None
    except OSError as error:
        _unkept(folder, f"they cannot be cached in {folder}: {error.strerror or error}")
        return None


def add(name: str, number: float) -> float:
    """Append a number to a file of the cache, which other processes may do at the same time. -> the sum of all its
    numbers, or only this one if it cannot be stored or the file cannot be read."""
    folder = place()
    with suppress(OSError, ValueError):
        if folder is not None and _made(folder):
            handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            with os.fdopen(handle, "r+b", buffering=0) as file:
                file.write(f"\n{number}".encode())  # in one piece, after other processes' numbers
                file.seek(0)
                return sum(map(float, file.read().split()))
    return number


def log(output: str, folder: Path | None) -> str:
    """Write a compiler's output to a file in the cache, or else a temporary one. -> its name, or that this failed."""
    name, words = f"compiler-{digest(output.encode())}.log", output.encode(errors="replace")
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
    """A temporary folder to compile in, writable only by this user. Removes folders of killed processes once they are
    older than any compilation. Raises EngineError if others can write to the temporary directory; OSError if there is
    none."""
    for old in Path(tempfile.gettempdir()).glob("gpubp-*.compiling"):
        with suppress(OSError):
            found = old.lstat()
            if stat.S_ISDIR(found.st_mode) and not _stranger(found) and time.time() - found.st_mtime > STALE:
                shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="gpubp-", suffix=".compiling", ignore_cleanup_errors=True) as name:
        folder = Path(os.path.realpath(name))
        if why := exposed(folder):
            raise EngineError(
                f"kernels are compiled only where nobody else can write, but {why}; TMPDIR can name another directory "
                'for temporary files; engine "eager" needs none'
            )
        yield folder


def news() -> list[str]:
    """Notes for the user about compilations, once for each cause."""
    news = {cause: note for cause, note in [*NEWS.items()] if note}  # a copy: other threads may add to it
    NEWS.update(dict.fromkeys(news, ""))
    return [*news.values()]


def _unkept(folder: Path | None, why: str) -> None:
    note = f"every process compiles its kernels again: {why}; GPUBP_CACHE can name another directory"
    NEWS.setdefault(folder, note)


def digest(content: bytes) -> str:
    """The SHA-256 of the content, as in a cached file's name."""
    return hashlib.sha256(content).hexdigest()


def exposed(folder: Path) -> str | None:
    """Why users other than this process's and root could put a file into `folder`, a path without links, or None. A
    sticky directory above it, such as /tmp, is harmless: others cannot move our files in it."""
    if not hasattr(os, "geteuid"):  # Windows: profiles are private
        return None
    owner = Path("/").stat().st_uid  # root, also in a user namespace without one
    for each in (folder, *folder.parents):
        found = each.stat()
        if _stranger(found) and (each == folder or found.st_uid != owner):
            return f"{each} belongs to another user"
        if _open_to_others(each, found) and (each == folder or not found.st_mode & stat.S_ISVTX):
            return f"others can write to {each}"
    return None


def _unsafe(path: Path) -> str | None:
    """Why a file in a trusted folder may be another user's, or None."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is a link, or no file"
    if _stranger(found):
        return f"{path} belongs to another user"
    return f"others can write to {path}" if _open_to_others(path, found) else None


def _trusted(folder: Path) -> bool:
    why = exposed(folder)
    if why:
        _unkept(folder, f"no kernel is stored in or loaded from {folder}, because {why}")
    return not why


def _made(folder: Path) -> bool:
    """Make the folder of the cache. -> whether it is trusted. Raises OSError."""
    for each in reversed((folder, *folder.parents)):
        each.mkdir(mode=0o700, exist_ok=True)
    return _trusted(folder)


def _put(folder: Path, name: str, content: bytes) -> Path | None:
    """Write `content` atomically to a file in a trusted cache; None if it is not trusted. Raises OSError."""
    if not _made(folder):
        return None
    for old in folder.glob("*.part"):
        with suppress(OSError):  # another process was faster
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink()
    part = folder / f"{secrets.token_hex(8)}.part"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # readable by others if the umask allows
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


def _open_to_others(path: Path, found: os.stat_result) -> bool:
    """Whether anyone but the owner can write to it. A group with only the user, common on many systems, is fine."""
    if not hasattr(os, "geteuid") or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    with suppress(OSError, AttributeError):  # not on every system
        if ACCESS in os.listxattr(path):  # the group's bits stand for its entries, of any users and groups
            return True
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    private = (group.gr_gid, group.gr_name) == (user.pw_gid, user.pw_name)
    return not (private and {*group.gr_mem} <= {user.pw_name})
