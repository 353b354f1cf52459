"""Storage: where the shards of a run save themselves, a directory that all machines share, or any path of fsspec.

A local path is used as it is. At another, such as s3://bucket/run, every save is a new folder, whose file COMPLETE is
written last; the newest complete folder counts, and the one before it is kept. Folders' names rise with the phase: if a
process thought dead still writes, that does not count once the others have moved on, and it deletes nothing that others
have written since it began.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.manifests import MANIFEST
from ..errors import CheckpointError, ConfigError
from ..line import line
from ..system.files import UNFINISHED

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

COMPLETE = "complete"
KEPT = 2  # saves
LEFT_OUT = ("lock", COMPLETE)
PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Storage:
    """path: of a directory, or a URL of fsspec's."""

    path: str

    @classmethod
    def of(cls, given: Any) -> Storage:
        """`given`, checked: a URL as it is, a path made absolute. Raises ConfigError."""
        if not isinstance(given, str | Path) or "\0" in str(given):
            raise ConfigError(f"run_dir {given!r}: a path on storage that all machines share expected")
        if "://" not in str(given):
            return cls(str(Path(given).absolute()))
        if str(given).startswith("memory://"):
            raise ConfigError(f"run_dir {given}: the memory of one process, which no other machine sees")
        storage = cls(str(given).rstrip("/"))
        if PATTERN & {*storage._system[1]}:
            raise ConfigError(f"run_dir {given}: fsspec takes * ? [ for a pattern, of other runs too: name another one")
        return storage

    @property
    def local(self) -> Path | None:
        """The directory; None for a URL."""
        return None if "://" in self.path else Path(self.path)

    def __truediv__(self, name: str) -> Storage:
        return Storage(f"{self.path}/{name}")

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The directory, or a temporary one with the files of the newest save."""
        if self.local is not None:
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="gpubp-") as folder:
            self.pull(Path(folder))
            yield Path(folder)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """One file, or a temporary copy of it; if there is none, the path does not exist. Raises CheckpointError."""
        if self.local is not None:
            yield self.local / name
            return
        system, root = self._system
        with tempfile.TemporaryDirectory(prefix="gpubp-") as folder:
            path = Path(folder, name.rpartition("/")[2])
            with self._told("read"):
                system.invalidate_cache()
                if system.exists(f"{root}/{name}"):
                    system.get_file(f"{root}/{name}", str(path))
            yield path

    def holds(self, name: str) -> bool:
        """Whether there is such a file. Raises CheckpointError."""
        system, root = self._system
        with self._told("read"):
            return bool(system.exists(f"{root}/{name}"))

    def push(self, folder: Path, phase: int, held: list[str]) -> str:
        """Save the files of `folder`, unless they are there. held: saves() before this process, and its own since; all
        but the last ones are deleted. -> where, as a prefix of their names. Raises CheckpointError."""
        if self.local is not None:
            return ""
        system, root = self._system
        save = f"{root}/{phase:06}-{time.time_ns():020}-{secrets.token_hex(4)}"
        with self._told("written"):
            _put(system, folder, save)
            system.pipe_file(f"{save}/{COMPLETE}", b"")
            held.append(save)
            while len(held) > KEPT:
                with suppress(FileNotFoundError):  # another process was faster
                    system.rm(held.pop(0), recursive=True)
        return f"{save.rpartition('/')[2]}/"

    def put(self, folder: Path) -> None:
        """Copy the files of `folder` here, for people. Raises CheckpointError."""
        system, root = self._system
        with self._told("written"):
            _put(system, folder, root)

    def pull(self, folder: Path) -> None:
        """Fetch the files of the newest save, if there is one. Raises CheckpointError."""
        if self.local is not None:
            return
        system, _ = self._system
        with self._told("read"):
            newest = next((each for each in reversed(self.saves()) if system.exists(f"{each}/{COMPLETE}")), None)
            for each in system.find(newest) if newest else []:
                where = folder / each.partition(str(newest).rpartition("/")[2])[2].lstrip("/")
                where.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(each, str(where))

    def check(self, names: Collection[str]) -> list[str]:
        """All files at a URL; none for a directory. Raises CheckpointError unless `names` are there."""
        found, root = list[str](), ""
        if self.local is None:
            system, root = self._system
            with self._told("read"):
                system.invalidate_cache()
                found = list(system.find(root))
        known = {*found}
        for name in names:
            if not ((self.local / name).is_file() if self.local is not None else f"{root}/{name}" in known):
                raise CheckpointError(
                    f"{self.path}: {name}, which a worker has written, is not there: run_dir on storage that all "
                    "machines share expected"
                )
        return found

    def keep(self, names: Collection[str]) -> None:
        """Delete all but these files, if they are there. Raises CheckpointError."""
        found = self.check(names)
        if self.local is None:
            system, root = self._system
            with self._told("tidied up"):
                if gone := [each for each in found if each not in {f"{root}/{name}" for name in names}]:
                    system.rm(gone)
            return
        for path in sorted(self.local.rglob("*"), reverse=True):  # folders after their contents
            with suppress(OSError):  # a folder that is not empty
                if path.is_dir():
                    path.rmdir()
                elif path.relative_to(self.local).as_posix() not in names:
                    path.unlink()

    def saves(self) -> list[str]:
        """The folders of saves, oldest first; none for a directory. Raises CheckpointError."""
        if self.local is not None:
            return []
        system, root = self._system
        with self._told("read"):
            system.invalidate_cache()
            found = system.ls(root, detail=False) if system.exists(root) else []
        return sorted((each.rstrip("/") for each in found), key=lambda each: each.rpartition("/")[2])

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn errors of any library into CheckpointError. what: the thing that cannot be done."""
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{self.path} cannot be {what}: {line(error)}") from error

    @property
    def _system(self) -> tuple[AbstractFileSystem, str]:
        try:
            import fsspec
        except ImportError:
            raise ConfigError(f"run_dir {self.path}: fsspec is not installed: pip install 'gpubp[cluster]'") from None
        try:
            system, root = fsspec.url_to_fs(self.path)
        except (ImportError, ValueError) as error:  # a protocol that is unknown, or whose library is missing
            raise ConfigError(f"run_dir {self.path}: {line(error)}") from None
        return system, str(root)


def _put(system: AbstractFileSystem, folder: Path, root: str) -> None:
    for each in sorted(folder.rglob("*"), key=lambda path: path.name == MANIFEST):  # last: it says that all is there
        if each.is_file() and each.name not in LEFT_OUT and each.suffix != UNFINISHED:
            where = f"{root}/{each.relative_to(folder).as_posix()}"
            try:
                system.put_file(str(each), where)
            except FileNotFoundError:  # its folder is missing, or the bucket, which makedirs() would create, at a cost
                if not system.exists(where.partition("/")[0] or "/"):
                    raise
                system.makedirs(where.rpartition("/")[0], exist_ok=True)
                system.put_file(str(each), where)
