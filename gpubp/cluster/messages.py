"""Messages: what shards tell the driver, and it them. None has a row of a network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.stored import is_row
from ..evaluate import Evaluation, Round
from ..networks import Figures
from ..reporters import Progress, Reporter, Start
from ..reporters.snapshot import Snapshot
from ..reporters.tensorboard import SHARE
from ..state import Status, TrainState

PATIENCE = 1.0  # seconds between two messages of a shard about its progress
NONE = torch.empty(0, dtype=torch.float64)
CLOCKS = ("step", "status", "diverged_step")  # what reporters are told of networks at every evaluation
Tensors = dict[str, Tensor]


class Begun(NamedTuple):
    """A worker has begun: the network-steps of its shard so far, and the step."""

    done: int
    step: int


class Looked(NamedTuple):
    """An evaluation of a shard: its round, of each part the CLOCKS and what was found, and norms of gradients (K,)."""

    number: int
    clocks: list[Tensors]
    found: list[Round]
    norms: Tensor


Message = Begun | Progress | Looked


class End(NamedTuple):
    """What a shard is at its end, or where a signal has ended it: of each part its figures and the notes of a
    checkpoint; the file that has the rows, as a manifest names it (stored.py), and the file of curves."""

    figures: list[Figures]
    notes: list[dict[str, Any]]
    file: dict[str, Any]
    curves: str


class Report(NamedTuple):
    """What a shard's task ends with. looked: its last evaluation, None if `signals` ended it early; states: of each
    part all but the rows; end: None at a meeting point. steps, seconds: network-steps of this task, and their time;
    letters: to the driver, which it may not have (board.py)."""

    looked: Looked | None
    states: list[Tensors]
    end: End | None
    signals: list[int]
    steps: int
    seconds: float
    notes: list[str]
    letters: Sequence[Any] = ()


class Decision(NamedTuple):
    """What a search made of the networks of a shard at the end of a round: of each part all but the rows."""

    number: int
    states: list[Tensors]


class Herald(Reporter):
    """Tells the driver of progress and evaluations, with up to `norms` norms of gradients."""

    def __init__(self, tell: Callable[[Message], object], norms: int = 0) -> None:
        self.tell, self.last, self.norms, self.spent = tell, -math.inf, norms, 0
        self.latest: Looked | None = None

    def start(self, start: Start) -> None:
        """Before the first step of this process."""
        self.spent = start.done
        self.tell(Begun(start.done, start.step))

    def progress(self, progress: Progress) -> None:
        """Now and then."""
        if progress.notes or time.monotonic() - self.last > PATIENCE:
            self.last = time.monotonic()
            self.tell(progress)

    def looked(self, snapshot: Snapshot) -> None:
        """Every time."""
        times, steps = [clocks(each) for each in snapshot.states], snapshot.record["network_steps"]
        most = min(self.norms, (steps - self.spent) // SHARE)
        norms = snapshot.gradient_norms(most).cpu() if most else NONE
        self.spent = steps if len(norms) else self.spent
        self.latest = Looked(snapshot.record["round"], times, [*snapshot.found], norms)
        self.tell(self.latest)


def light(state: TrainState) -> Tensors:
    """Copies of all but the rows."""
    return {name: each.clone() for name, each in state.tensors() if not is_row(name)}


def clocks(state: TrainState) -> Tensors:
    """Copies of the CLOCKS."""
    return {name: getattr(state, name).clone() for name in CLOCKS}


def packed(looked: Looked) -> Tensors:
    """An evaluation as tensors by name, for unpacked()."""
    told = {"norms": looked.norms}
    for part, (times, found) in enumerate(zip(looked.clocks, looked.found)):
        each = times | {"found.loss": found.loss, "found.lr": found.lr, "found.status": found.status}
        if found.held_out is not None:
            each |= {"held_out.loss": found.held_out.loss, "held_out.metric": found.held_out.metric}
        told |= {f"{part}.{name}": values for name, values in each.items()}
    return told


def unpacked(number: int, told: Tensors, states: Sequence[TrainState], index: Sequence[Tensor]) -> Looked:
    """An evaluation of a shard, at the end of the round `number`, from packed(). states: of the groups of its parts;
    index: the networks (K,) of these. Raises ValueError, KeyError for what cannot be one."""

    def known(name: str, like: Tensor, count: int) -> Tensor:
        each = told[name]
        status = name.endswith("status")
        if (each.dtype, each.shape) != (like.dtype, (count,)) or (
            status and not ((each >= 0) & (each < len(Status))).all()
        ):
            raise ValueError(name)
        return each

    times, found = list[Tensors](), list[Round]()
    for part, (state, networks) in enumerate(zip(states, index)):
        likes = dict.fromkeys(("found.loss", "found.lr", "held_out.loss", "held_out.metric"), state.total)
        likes |= {name: getattr(state, name) for name in CLOCKS} | {"found.status": state.status}
        if f"{part}.held_out.loss" not in told:
            likes = {name: each for name, each in likes.items() if not name.startswith("held_out")}
        mine = {name: known(f"{part}.{name}", like, len(networks)) for name, like in likes.items()}
        held_out = Evaluation(mine["held_out.loss"], mine["held_out.metric"]) if "held_out.loss" in mine else None
        found.append(Round(mine["found.loss"], held_out, mine["found.lr"], mine["found.status"]))
        times.append({name: mine[name] for name in CLOCKS})
    return Looked(number, times, found, known("norms", NONE, told["norms"].numel()))
