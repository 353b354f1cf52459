"""Ended: networks that have left a run to make room for others: their states and figures, in a file or in memory.

    RUN/ended/0.rows    records of one kind of networks, each with the tensors of a checkpoint (packing.py), FIGURES

Records are appended in the order in which networks leave. A checkpoint has the number of records and the SHA-256 of
their bytes; those that a killed run added later are dropped when it resumes. Files are read through memory maps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import files, packing, stopping
from .errors import CheckpointError, ConfigError, reason
from .evaluate import Evaluation
from .networks import Networks, Outcome
from .packing import Saved
from .state import numbers

FOLDER = "ended"
FIGURES = ("loss", "metric", "validation_loss", "validation_metric")
PIECE = 1 << 24  # bytes digested at once
PENDING = 1 << 24  # bytes kept in memory before they are written


class Log:
    """Networks of one kind. entry: what they have in common, as in a manifest; kind: the dtype of a record; path:
    of the file, or None for memory alone. count: networks in the file; waiting: records that are not."""

    def __init__(self, entry: dict[str, Any], kind: np.dtype[Any], path: Path | None) -> None:
        self.entry, self.kind, self.path = entry, kind, path
        self.count, self.digest = 0, hashlib.sha256()
        self.waiting: list[np.ndarray] = []

    def add(self, records: np.ndarray) -> None:
        """Append records, sooner or later."""
        self.waiting.append(records)
        if self.path is not None and sum(each.nbytes for each in self.waiting) > PENDING:
            with suppress(OSError):  # as on a full disk: save() tries again, and reports it
                self.write()

    def write(self) -> None:
        """Write what waits. Raises OSError; then nothing has changed."""
        if self.path is None or not self.waiting:
            return
        records = np.concatenate(self.waiting)
        content = records.tobytes()
        self.path.parent.mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | files.FOLLOW_NONE
        with os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0) as file:
            file.truncate(self.count * self.kind.itemsize)
            file.seek(0, os.SEEK_END)
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        self.digest.update(content)
        self.count, self.waiting = self.count + len(records), []

    def records(self) -> np.ndarray:
        """All networks; changes of them are not written. Raises CheckpointError."""
        kept: list[np.ndarray] = []
        if self.path is not None and self.count:
            try:
                kept = [np.memmap(self.path, self.kind, "c", shape=(self.count,))]
            except (OSError, ValueError) as error:
                why = reason(error, "it is shorter than what was written")
                raise CheckpointError(f"{self.path}, of networks that have ended, cannot be read: {why}") from None
        everything = kept + self.waiting
        return everything[0] if len(everything) == 1 else np.concatenate(everything)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in a checkpoint, after write()."""
        kinds = [(name, self.kind[name]) for name in self.kind.names or ()]
        fields = [[name, each.base.str, list(each.shape)] for name, each in kinds]
        return {"entry": self.entry, "record": fields, "count": self.count, "sha256": self.digest.hexdigest()}

    @classmethod
    def load(cls, path: Path, saved: Mapping[str, Any]) -> Log:
        """From the result of to_dict(); the file may have more records. Raises CheckpointError."""
        found = cls(saved["entry"], record([(name, kind, tuple(shape)) for name, kind, shape in saved["record"]]), path)
        found.count, left = int(saved["count"]), int(saved["count"]) * found.kind.itemsize
        try:
            files.regular(path)
            with path.open("rb") as file:
                while left and (piece := file.read(min(left, PIECE))):
                    found.digest.update(piece)
                    left -= len(piece)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not what was written')}") from None
        if left or found.digest.hexdigest() != saved["sha256"]:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in the checkpoint")
        return found


class Ended:
    """The logs of a run by kind."""

    def __init__(self, run_dir: Path | None, logs: Mapping[str, Log] | None = None) -> None:
        self.folder = None if run_dir is None else run_dir / FOLDER
        self.logs = dict(logs or {})
        self.statuses = numbers(torch.cat([torch.zeros(0), *(_status(log) for log in self.logs.values())]))  # of all

    def add(self, saved: Saved, figures: Sequence[Evaluation]) -> None:
        """Add networks with their figures: training, and perhaps validation."""
        entry, tensors = packing.pack(saved)
        spec, config = saved.state.population.spec, saved.config  # which have the rules that are in no table
        entry["spec"] |= {"hidden": spec.hidden, "output": spec.output, "loss": spec.loss}
        entry["config"] |= {"optimizer": config.optimizer, "schedule": config.schedule}
        values = dict(zip(FIGURES, (each.double() for found in figures for each in found)))
        content = {name: np.ascontiguousarray(each) for name, each in {**tensors, **_named(values)}.items()}
        kind = Networks(saved.state, saved.config, saved.rows).kind
        if kind not in self.logs:
            path = None if self.folder is None else self.folder / f"{len(self.logs)}.rows"
            fields = [(name, each.dtype.str, each.shape[1:]) for name, each in content.items()]
            self.logs[kind] = Log(entry, record(fields), path)
        log = self.logs[kind]
        records = np.empty(len(saved.rows), log.kind)
        for name, each in content.items():
            records[name] = each
        log.add(records)
        self.statuses += numbers(saved.state.status)

    def write(self) -> None:
        """Write what waits. Raises CheckpointError."""
        try:
            for log in self.logs.values():
                log.write()
        except OSError as error:
            raise CheckpointError(f"{self.folder}: networks that have ended cannot be written: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values, after write()."""
        return {kind: log.to_dict() for kind, log in self.logs.items()}

    @classmethod
    def load(cls, run_dir: Path, saved: Mapping[str, Any]) -> Ended:
        """From the result of to_dict(). Raises CheckpointError."""
        folder = run_dir / FOLDER
        each = enumerate(saved.items())
        return cls(run_dir, {kind: Log.load(folder / f"{at}.rows", entry) for at, (kind, entry) in each})

    def networks(self) -> list[Saved]:
        """Everybody, as the last checkpoint of each would have them, kind by kind, in the order of leaving."""
        return [_saved(log)[0] for log in self.logs.values()]

    def outcomes(self) -> list[Outcome]:
        """The same, with their best rows restored, and their figures."""
        return [_outcome(log) for log in self.logs.values()]


def _status(log: Log) -> Tensor:
    return torch.from_numpy(np.array(log.records()["status"]))


def _saved(log: Log) -> tuple[Saved, list[Tensor]]:
    """The networks of a log and their FIGURES. Raises GpubpError for values that no run writes."""
    records = log.records()
    tensors = {name: torch.from_numpy(records[name]) for name in records.dtype.names or ()}
    figures = [tensors.pop(f"figures.{name}") for name in FIGURES if f"figures.{name}" in tensors]
    return packing.unpack(log.entry, tensors, streams=True), figures


def _outcome(log: Log) -> Outcome:
    """The networks of a log, their best rows restored."""
    (state, _, rows, notes), figures = _saved(log)
    held_out = Evaluation(*figures[2:]) if figures[2:] else None
    if state.kept:
        stopping.exchange(state, stopping.restored(state))
    return Outcome(rows, state, Evaluation(*figures[:2]), held_out, notes["folds"])


def record(fields: Sequence[tuple[str, str, tuple[int, ...]]]) -> np.dtype[Any]:
    """The dtype of a record with these fields, each where its numbers are aligned. Raises ConfigError."""
    formats = [(np.dtype(kind), shape) for _, kind, shape in fields]
    if any(kind.hasobject for kind, _ in formats):
        raise ConfigError("a record holds numbers")
    return np.dtype({"names": [name for name, _, _ in fields], "formats": formats}, align=True)


def _named(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"figures.{name}": each for name, each in values.items()}
