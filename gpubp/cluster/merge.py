"""One run from shards that have ended: figures, results and curves, and a checkpoint that names the shards' files.

The driver handles no rows: they stay in the shards' last checkpoints, and are read from there when used
(checkpoints/stored.py). The manifest is written after all else; then files that no manifest names are deleted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..checkpoints import checkpoint, curves
from ..checkpoints.packing import Saved
from ..checkpoints.stored import Read, Source, StoredState, rowless
from ..networks import Outcome
from ..runs.saving import Saving
from ..state import TrainState
from ..stopping import restored
from ..system import files
from ..system.ambient import HOME
from .meeting import LightRun
from .messages import End
from .shards import Part, Shard, by_group, joined
from .storage import Storage


@dataclass
class Joining(Saving):
    """A Saving of networks whose rows are in `rows`, the files of a manifest."""

    rows: Sequence[dict[str, Any]] = ()

    def write(self) -> None:
        """See Saving."""
        checkpoint.save(self.run_dir, self.networks(), self.notes(), self.rows)


def saved(runs: Sequence[LightRun], parts: Sequence[Part], shards: Sequence[Shard], ends: Sequence[End]) -> list[Saved]:
    """The groups as in a checkpoint, but without their rows."""
    notes = by_group(shards, (end.notes for end in ends), len(runs))
    return [
        Saved(
            rowless(run.state), part.config, part.rows, mine[0][1] | {"number": max(each["number"] for _, each in mine)}
        )
        for run, part, mine in zip(runs, parts, notes)
    ]


def outcomes(some: Sequence[Saved], shards: Sequence[Shard], ends: Sequence[End], folds: bool) -> list[Outcome]:
    """The groups with their figures, without their rows."""
    figures = by_group(shards, (end.figures for end in ends), len(some))
    return [Outcome.of(each.rows, each.state, joined(parts), folds) for each, parts in zip(some, figures)]


def with_rows(given: Sequence[Outcome], ends: Sequence[End], storage: Storage) -> list[Outcome]:
    """The same networks, their best rows restored; rows are read from the shards' files when used."""
    source = Source([end.file for end in ends], [len(each.rows) for each in given], storage.file)
    return [
        each._replace(state=StoredState.of(each.state, _ended(partial(source.read, group, HOME), each.state)))
        for group, each in enumerate(given)
    ]


def _ended(read: Read, state: TrainState) -> Read:
    """`read`, with present and kept rows exchanged as at the end of the training (stopping.py)."""
    if not state.recipe.restore_best:
        return read
    best = restored(state)

    def exchanged(name: str) -> Tensor:
        found, other = read(name), {"params": "kept.best", "kept.best": "params"}.get(name)
        if other is not None:
            found[best] = read(other)[best]
        return found

    return exchanged


def draw(storage: Storage, names: Iterable[str], run_dir: Path) -> None:
    """Write the curves of all shards. Raises CheckpointError, OSError."""

    def fill(beside: Path) -> None:
        with beside.open("wb") as whole:
            for name in names:
                with storage.file(name) as path:
                    if path.exists():
                        with path.open("rb") as file:
                            while len(piece := np.fromfile(file, curves.KIND, curves.AT_ONCE)):
                                whole.write(piece.tobytes())

    files.write(run_dir / curves.FILE, fill)
