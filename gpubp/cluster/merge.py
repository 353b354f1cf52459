"""One run of the shards that have ended: figures, results and curves, and a checkpoint that names the shards' files.

The driver handles no row: those stay in the last checkpoints of the shards, where whoever asks for them reads them
(checkpoints/stored.py). The manifest is written after all else, and what no manifest names is deleted after it.
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
from ..evaluate import Evaluation
from ..networks import Outcome
from ..runs.saving import Saving
from ..state import TrainState
from ..stopping import restored
from ..system import files
from ..system.ambient import HOME
from .meeting import LightRun
from .messages import End
from .shards import Part, Shard
from .storage import Storage


@dataclass
class Joining(Saving):
    """A Saving of networks whose rows are in `rows`, the files of a manifest."""

    rows: Sequence[dict[str, Any]] = ()

    def write(self) -> None:
        """See Saving."""
        checkpoint.save(self.run_dir, self.networks(), self.notes(), self.rows)


def saved(runs: Sequence[LightRun], parts: Sequence[Part], shards: Sequence[Shard], ends: Sequence[End]) -> list[Saved]:
    """The groups as they are in a checkpoint, but for their rows."""
    notes: list[list[dict[str, Any]]] = [[] for _ in runs]
    for shard, end in zip(shards, ends):
        for group, mine in zip(shard.groups, end.notes):
            notes[group].append(mine)
    return [
        Saved(rowless(run.state), part.config, part.rows, mine[0] | {"number": max(each["number"] for each in mine)})
        for run, part, mine in zip(runs, parts, notes)
    ]


def outcomes(some: Sequence[Saved], shards: Sequence[Shard], ends: Sequence[End], folds: bool) -> list[Outcome]:
    """The groups with their figures, without their rows."""
    found = []
    for group, each in enumerate(some):
        figures = [
            (index, end.figures[at])
            for shard, end in zip(shards, ends)
            for at, (mine, index) in enumerate(zip(shard.groups, shard.index))
            if mine == group
        ]
        count = len(each.rows)
        training = _whole([(index, mine.training) for index, mine in figures], count)
        held_out = [(index, mine.validation) for index, mine in figures if mine.validation is not None]
        faults = _joined([(index, mine.faults) for index, mine in figures], count)
        found.append(
            Outcome(each.rows, each.state, training, _whole(held_out, count) if held_out else None, folds, faults)
        )
    return found


def _whole(known: Sequence[tuple[Tensor, Evaluation]], count: int) -> Evaluation:
    """The evaluation of `count` networks, from those of some (K,)."""
    losses, metrics = ([(index, each[side]) for index, each in known] for side in (0, 1))
    return Evaluation(_joined(losses, count), _joined(metrics, count))


def _joined(known: Sequence[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """Numbers of `count` networks, from those of some (K,)."""
    whole = known[0][1].new_empty(count)
    for index, each in known:
        whole[index] = each
    return whole


def with_rows(given: Sequence[Outcome], ends: Sequence[End], storage: Storage) -> list[Outcome]:
    """The same networks, their best rows restored; rows are read from the shards' files when somebody asks for them."""
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
