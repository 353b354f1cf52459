"""Saving: the checkpoints of a run, every few minutes and at its end, and its results.

A failed write, as on a full disk, is reported and does not end training; checkpoints are retried, and curves end.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import checkpoint, curves
from ..checkpoints.history import History
from ..checkpoints.packing import Saved
from ..errors import CheckpointError
from ..results.saved import write
from ..results.table import Results
from ..system import lock


@dataclass
class Saving:
    """networks: those of a checkpoint, in host memory; notes: its other content; told: called with notes for the user.
    unsaved: why the last checkpoint or the results could not be written; last: its time.monotonic()."""

    run_dir: Path
    minutes: float
    networks: Callable[[], Sequence[Saved]]
    notes: Callable[[], dict[str, Any]]
    told: Callable[[str], None]
    unsaved: str | None = None
    last: float = 0.0
    first: Future[None] | None = None  # the first checkpoint, while it may be running
    drawing: bool = True  # whether curves can be written

    @property
    def name(self) -> str:
        """The run's name in notes."""
        return str(self.run_dir)

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is too old."""
        return time.monotonic() - self.last > 60 * self.minutes

    def save(self) -> None:
        """Write a checkpoint; if that fails, it is retried when the next is due."""
        with suppress(CheckpointError):  # if the first failed, this takes its place
            self.finish_first()
        before, self.unsaved = self.unsaved, None
        try:
            self.write()
        except CheckpointError as error:
            self.unsaved = str(error)
            if before is None:  # reported once
                self.told(f"{error}; training continues, and it is retried every {self.minutes:g} minutes")
        else:
            if before is not None:
                self.told(f"{self.name}: a checkpoint could be written again")
        self.last = time.monotonic()

    def write(self) -> None:
        """Write a checkpoint. Raises CheckpointError."""
        self.wait()
        checkpoint.save(self.run_dir, self.networks(), self.notes())

    def write_beside(self, networks: Sequence[Saved]) -> None:
        """Write the first checkpoint during the first calls, of networks whose rows do not change before wait(). Raises
        CheckpointError if it fails, here or in finish_first()."""
        notes = self.notes() | {"history": History()}
        pool = ThreadPoolExecutor(1, "gpubp-checkpoint")
        self.first = pool.submit(checkpoint.save, self.run_dir, networks, notes)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until the first checkpoint is written or has failed."""
        if self.first is not None:
            wait([self.first])

    def finish_first(self) -> None:
        """The same, and raise its error."""
        first, self.first = self.first, None
        if first is not None:
            first.result()

    def draw(self, number: int, found: Iterable[curves.Losses]) -> None:
        """Add the losses after round `number` to the networks' curves."""
        try:
            if self.drawing:
                lock.check(self.run_dir)
                curves.add(self.run_dir, number, found)
        except (OSError, CheckpointError) as error:
            self.drawing = False
            self.told(f"{self.name}: the curves of networks end, as they cannot be written: {error}")

    def results(self, results: Results) -> None:
        """Write the results table."""
        try:
            write(results, self.run_dir)
        except Exception as error:  # also pyarrow's; the result exists
            why = f"{self.run_dir}: the results cannot be written: {error}"
            self.unsaved = why if self.unsaved is None else f"{self.unsaved}; {why}"
            self.told(why)
