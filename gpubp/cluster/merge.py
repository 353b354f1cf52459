"""One run of the shards that have ended: their checkpoints, figures and curves, as if it had trained in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import checkpoint, curves
from ..ambient import HOME
from ..evaluate import Evaluation
from ..networks import Outcome
from ..packing import Saved
from ..state import TrainState
from ..stopping import restore
from .shards import Job, Part, Shard
from .worker import Report

Figures = tuple[Evaluation, Evaluation | None]


def merged(job: Job, shards: Sequence[Shard], parts: Sequence[Part], run_dir: Path) -> list[Saved]:
    """The groups at the end of their training, from the shards' checkpoints, one after the other; their curves go to
    `run_dir`. Raises CheckpointError."""
    found: dict[int, Saved] = {}
    for shard in shards:
        with (job.storage / str(shard.number)).folder() as folder:
            saved = checkpoint.load(folder, HOME)
            for group, index, mine in zip(shard.groups, shard.index, saved.populations):
                if group not in found:
                    state = blank(mine.state, len(parts[group].rows))
                    found[group] = Saved(state, parts[group].config, parts[group].rows, {**mine.notes, "number": 0})
                whole = found[group]
                for (_, ours), (_, theirs) in zip(whole.state.tensors(), mine.state.tensors()):
                    ours[index] = theirs
                whole.notes["number"] = max(whole.notes["number"], mine.notes["number"])
            draw(folder, shard, run_dir)
    return [found[group] for group in range(len(parts))]


def blank(state: TrainState, count: int) -> TrainState:
    """A state of `count` networks with room for what `state` has."""
    return state.rows(torch.zeros(count, dtype=torch.int64))


def outcomes(saved: Sequence[Saved], shards: Sequence[Shard], reports: Sequence[Report], folds: bool) -> list[Outcome]:
    """The groups with their best rows restored, and their figures."""
    found = []
    for group, each in enumerate(saved):
        restore(each.state)
        figures = [
            (index, report.figures[at])
            for shard, report in zip(shards, reports)
            for at, (mine, index) in enumerate(zip(shard.groups, shard.index))
            if mine == group and report.figures is not None
        ]
        sides = [_whole([(index, mine[side]) for index, mine in figures], len(each.rows)) for side in (0, 1)]
        assert sides[0] is not None
        found.append(Outcome(each.rows, each.state, sides[0], sides[1], folds))
    return found


def _whole(figures: Sequence[tuple[Tensor, Evaluation | None]], count: int) -> Evaluation | None:
    """The evaluation of `count` networks, from those of some (K,)."""
    known = [(index, each) for index, each in figures if each is not None]
    if not known:
        return None
    whole = Evaluation(*(each.new_empty(count) for each in known[0][1]))
    for index, each in known:
        for ours, theirs in zip(whole, each):
            ours[index] = theirs
    return whole


def draw(folder: Path, shard: Shard, run_dir: Path) -> None:
    """Add the curves of a shard, with the rows of the whole run, as far as the file goes."""
    path = folder / curves.FILE
    if not path.exists():
        return
    rows = torch.cat(shard.rows)[torch.cat(shard.local).argsort()].numpy()
    with path.open("rb") as file, (run_dir / curves.FILE).open("ab") as whole:
        while len(piece := np.fromfile(file, curves.KIND, curves.AT_ONCE)):
            piece["network"] = rows[np.minimum(piece["network"], len(rows) - 1)]
            whole.write(piece[piece["network"] < curves.NETWORKS].tobytes())
        whole.flush()
        os.fsync(whole.fileno())
