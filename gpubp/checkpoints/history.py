"""Records of a run, lines of JSON in a file of their own, and its history: RUN/history.jsonl, one per evaluation.

New records are appended. A checkpoint has the length and the SHA-256 of its part of the file; records that a killed run
added later are dropped when it resumes. Records that differ from what was written are refused.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from ..errors import CheckpointError
from ..system import files

FILE = "history.jsonl"
NUMBERS = ("round", "step", "seconds", "network_steps_per_second")  # of a record; these are quantiles by name:
SPREADS = ("loss", "validation_loss", "metric", "lr")
SHOWN = {"min", "q10", "median", "q90", "max"}  # quantiles in curves; empty if no value is finite


class Records(list[dict[str, Any]]):
    """Records in the order of their `round`. name: of the file."""

    name: ClassVar[str]

    def __init__(self, records: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(records)
        self.written, self.digest = 0, hashlib.sha256()  # records in the file, and the hash of its bytes
        self.file: tuple[int, ...] | None = None  # the file that save() wrote

    def __reduce__(self) -> tuple[type, tuple[list[dict[str, Any]]]]:
        return type(self), (list(self),)  # a copy has no file, and a hash cannot be pickled

    def save(self, run_dir: Path, number: int | None = None) -> dict[str, Any]:
        """Write every record to the file, or those up to round `number` while more are added. -> a checkpoint's entry,
        for load(). Raises OSError; save() may then be called again."""
        path, count = run_dir / self.name, sum(number is None or each["round"] <= number for each in self)
        if self.file is None or self.file != _identity(path):  # an older file, half a record, a link
            self.written, self.digest = 0, hashlib.sha256()
        lines = "".join(f"{json.dumps(each)}\n" for each in self[self.written : count]).encode()
        if not self.written:
            files.write(path, lambda beside: beside.write_bytes(lines))
        elif lines:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | files.FOLLOW_NONE), "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        self.digest.update(lines)
        self.written, self.file = count, _identity(path)
        return {"records": count, "bytes": path.stat().st_size, "sha256": self.digest.hexdigest()}

    @staticmethod
    def sound(record: Any) -> bool:
        """Whether `record` is valid; any error of Python means that it is not."""
        raise NotImplementedError

    @classmethod
    def load(cls, run_dir: Path, saved: Any) -> Self:
        """The records of a checkpoint: those in the file, if `saved` is the result of save(), or in older checkpoints
        `saved` itself. Raises CheckpointError if they differ from what was written."""
        path = run_dir / cls.name
        with files.trusted(path, otherwise="it does not hold records of a run"):
            if isinstance(saved, Mapping):
                text = files.read(path, first=saved["bytes"])
                if len(text) != saved["bytes"] or hashlib.sha256(text).hexdigest() != saved["sha256"]:
                    raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in the checkpoint")
                saved = [json.loads(each) for each in text.splitlines()]
            if not all(map(cls.sound, saved)):
                raise ValueError
        return cls(saved)


class History(Records):
    """The records of a run's evaluations. hidden: the last, if it is not among them."""

    name = FILE
    hidden: dict[str, Any] | None = None

    def add(self, record: dict[str, Any], shown: bool) -> None:
        """Add a record, or hide it: a hidden record is added only if it is the last one at the end."""
        self.hidden = None if shown else record
        if shown:
            self.append(record)

    def end(self) -> None:
        """The training has ended."""
        if self.hidden is not None:
            self.add(self.hidden, True)

    @staticmethod
    def sound(record: Any) -> bool:
        """Whether reporters can show `record`."""
        spreads = [record[name] or {} for name in SPREADS]
        numbers = [record[name] for name in NUMBERS] + [value for each in spreads for value in each.values()]
        named = isinstance(record["metric_name"], str) and all(set(each) >= SHOWN for each in spreads if each)
        counts = all(type(count) is int for count in record["statuses"].values())
        return named and counts and all(type(number) in (int, float) for number in numbers)


def with_files(search: Mapping[str, Any] | None, run_dir: Path, number: int) -> dict[str, Any] | None:
    """The notes of a search, with its Records written to their files."""
    if search is None:
        return None
    return {key: each.save(run_dir, number) if isinstance(each, Records) else each for key, each in search.items()}


def _identity(path: Path) -> tuple[int, ...] | None:
    """Device, inode and size of a regular file with one name; None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    one = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return (found.st_dev, found.st_ino, found.st_size) if one else None
