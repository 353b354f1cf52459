"""Ended: networks that have left a run to make room for others, with states and figures, in a file or in memory.

    RUN/ended/0.rows    records of one kind of networks, each with the tensors of a checkpoint (packing.py), FIGURES

Records are appended in the order in which networks leave, at their best rows if these are restored. A checkpoint has
the number of records and the SHA-256 of their bytes; records that a killed run added later are dropped when it resumes.
Files are read through memory maps, so unused records take no memory, and move with the run's directory.
"""

import hashlib
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..evaluate import Evaluation
from ..networks import Figures, Networks, Outcome
from ..state import numbers
from ..system import files
from . import packing
from .packing import Saved

FOLDER = "ended"
LOSSES = "loss", "validation_loss"
FIGURES = ("loss", "metric", "validation_loss", "validation_metric", "faults")  # older files lack the last
PIECE = 1 << 24  # bytes digested, and records checked, at once
PENDING = 1 << 24  # bytes kept in memory before they are written


class Folder:
    """The folder of the files; once used, it stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def descriptor(self) -> int:
        """The folder's descriptor. Raises OSError."""
        found = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, found)
        return found

    def open(self, name: str, flags: int) -> int:
        """A descriptor of the file `name`. Raises OSError."""
        return os.open(name, flags | files.FOLLOW_NONE, 0o666, dir_fd=self.descriptor)


class Log:
    """Networks of one kind. entry: what they have in common, as in a manifest; kind: the dtype of a record; name: of
    the file in `folder`, None for memory alone. count: networks in the file; waiting: records not yet in it."""

    def __init__(self, entry: dict[str, Any], kind: np.dtype[Any], name: str, folder: Folder | None) -> None:
        self.entry, self.kind, self.name, self.folder = entry, kind, name, folder
        self.count, self.digest = 0, hashlib.sha256()
        self.waiting: list[np.ndarray] = []

    def write(self) -> None:
        """Write waiting records. Raises OSError, MemoryError; then nothing has changed."""
        if self.folder is None or not self.waiting:
            return
        records = np.concatenate(self.waiting)
        content = records.tobytes()
        if "descriptor" not in vars(self.folder):
            self.folder.path.mkdir(exist_ok=True)
        with os.fdopen(self.folder.open(self.name, os.O_RDWR | os.O_CREAT), "r+b", buffering=0) as file:
            file.truncate(self.count * self.kind.itemsize)
            file.seek(0, os.SEEK_END)
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        self.digest.update(content)
        self.count, self.waiting = self.count + len(records), []

    def parts(self) -> Iterator[np.ndarray]:
        """All records, those in the file first; changes to them are not written. Raises CheckpointError."""
        if self.folder is not None and self.count:
            what = f"{self.folder.path / self.name}, of networks that have ended,"
            with files.trusted(what, otherwise="it is shorter than what was written"):
                file = os.fdopen(self.folder.open(self.name, os.O_RDONLY), "rb")
                with file:
                    records = np.memmap(file, self.kind, "c", shape=(self.count,))
            yield records
        if self.waiting:
            self.waiting = [np.concatenate(self.waiting)]
            yield self.waiting[0]

    def outcomes(self) -> Iterator[Outcome]:
        """The networks, as views of the records."""
        for records in self.parts():
            tensors, figures = _split(records)
            sides = [Evaluation(figures[name], figures[f"{name[:-4]}metric"]) for name in LOSSES if name in figures]
            state, folds = packing.bare(self.entry, tensors), self.entry["notes"]["folds"]
            yield Outcome(tensors["rows"], state, sides[0], (*sides, None)[1], folds, figures.get("faults"))

    def find(self, row: int) -> Saved | None:
        """The network in a row of the results, as a copy; None if it is not here."""
        for records in self.parts():
            if len(at := np.flatnonzero(records["rows"] == row)):
                return packing.unpack(self.entry, _split(records[at])[0], streams=True)
        return None

    def check(self) -> None:
        """Raise GpubpError, or one of the errors of Python and torch, for values that no run writes."""
        for records in self.parts():
            size = max(1, PIECE // self.kind.itemsize)
            for begin in range(0, len(records), size):
                packing.unpack(self.entry, _split(records[begin : begin + size])[0], streams=True)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in a checkpoint, after write()."""
        kinds = [(name, self.kind[name]) for name in self.kind.names or ()]
        fields = [[name, each.base.str, list(each.shape)] for name, each in kinds]
        return {"entry": self.entry, "record": fields, "count": self.count, "sha256": self.digest.hexdigest()}

    @classmethod
    def load(cls, name: str, folder: Folder, saved: Mapping[str, Any]) -> Self:
        """From the result of to_dict(); the file may have more records. Raises like check(), and CheckpointError."""
        kind, path = record([(each, kind, tuple(shape)) for each, kind, shape in saved["record"]]), folder.path / name
        found = cls(saved["entry"], kind, name, folder)
        found.count, left = int(saved["count"]), int(saved["count"]) * kind.itemsize
        with files.trusted(path):
            files.regular(path)
            with path.open("rb") as file:
                while left and (piece := file.read(min(left, PIECE))):
                    found.digest.update(piece)
                    left -= len(piece)
        if left or found.digest.hexdigest() != saved["sha256"]:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in the checkpoint")
        found.check()
        return found


class Ended:
    """The logs of a run by kind. notes: for the user, once."""

    def __init__(self, run_dir: Path | None) -> None:
        self.folder = None if run_dir is None else Folder(run_dir / FOLDER)
        self.logs: dict[str, Log] = {}
        self.statuses = numbers(torch.zeros(0))  # counts of all statuses
        self.waiting, self.most = 0, PENDING  # bytes not yet written, and how many may wait
        self.notes: list[str] = []

    def add(self, saved: Saved, figures: Figures) -> None:
        """Add networks with their figures. If memory runs out, none is added."""
        entry, tensors = packing.pack(saved)
        spec, config = saved.state.population.spec, saved.config  # they hold the rules that are not in a table
        entry["spec"] |= {"hidden": spec.hidden, "output": spec.output, "loss": spec.loss}
        entry["config"] |= {"optimizer": config.optimizer, "schedule": config.schedule}
        sides = [each for each in (figures.training, figures.validation) if each is not None]
        values = dict(zip(FIGURES, (each.double() for found in sides for each in found))) | {"faults": figures.faults}
        content = {name: np.ascontiguousarray(each) for name, each in {**tensors, **_named(values)}.items()}
        kind = Networks(saved.state, saved.config, saved.rows).kind
        fields = [(name, each.dtype.str, each.shape[1:]) for name, each in content.items()]
        log = self.logs.get(kind) or Log(entry, record(fields), f"{len(self.logs)}.rows", self.folder)
        records = np.empty(len(saved.rows), log.kind)
        for name in log.kind.names or ():
            records[name] = content[name]
        self.statuses = self.statuses + numbers(saved.state.status)
        self.logs[kind] = log  # from here on, nothing needs memory
        log.waiting.append(records)
        self.waiting += records.nbytes
        if self.folder is not None and self.waiting > self.most:
            try:
                self.write()
            except CheckpointError as error:  # as on a full disk
                if self.most == PENDING:
                    self.notes.append(f"{error}; they stay in memory, and are written when they can be")
                self.most = 2 * self.waiting

    def write(self) -> None:
        """Write waiting records. Raises CheckpointError."""
        try:
            for log in self.logs.values():
                log.write()
        except (OSError, MemoryError) as error:
            where = None if self.folder is None else self.folder.path
            raise CheckpointError(f"{where}: networks that have ended cannot be written: {error}") from error
        self.waiting, self.most = 0, PENDING

    def to_dict(self) -> dict[str, Any]:
        """Plain values, after write()."""
        return {kind: log.to_dict() for kind, log in self.logs.items()}

    @classmethod
    def load(cls, run_dir: Path, saved: Mapping[str, Any]) -> Self:
        """From the result of to_dict(). Raises like Log.load()."""
        found = cls(run_dir)
        if found.folder is not None:
            for at, (kind, entry) in enumerate(saved.items()):
                log = found.logs[kind] = Log.load(f"{at}.rows", found.folder, entry)
                for records in log.parts():
                    found.statuses += numbers(torch.from_numpy(records["status"]))
        return found

    def find(self, row: int) -> Saved | None:
        """The network in a row of the results; None if it has not left the run."""
        return next((found for log in self.logs.values() if (found := log.find(row)) is not None), None)

    def outcomes(self) -> list[Outcome]:
        """All networks, kind by kind, in the order of leaving."""
        return [each for log in self.logs.values() for each in log.outcomes()]


def _split(records: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a checkpoint, and FIGURES, as views."""
    tensors = {name: torch.from_numpy(records[name]) for name in records.dtype.names or ()}
    return tensors, {name: tensors.pop(f"figures.{name}") for name in FIGURES if f"figures.{name}" in tensors}


def record(fields: Sequence[tuple[str, str, tuple[int, ...]]]) -> np.dtype[Any]:
    """The dtype of a record with these fields, each aligned for its numbers. Raises ConfigError."""
    formats = [(np.dtype(kind), shape) for _, kind, shape in fields]
    if any(kind.hasobject for kind, _ in formats):
        raise ConfigError("a record holds numbers")
    return np.dtype({"names": [name for name, _, _ in fields], "formats": formats}, align=True)


def _named(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"figures.{name}": each for name, each in values.items()}
