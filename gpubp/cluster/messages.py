"""Messages between shards and the driver. None has a row of a network."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoints.stored import is_row
from ..evaluate import Round
from ..networks import Figures
from ..reporters import Progress, Reporter, Start
from ..reporters.snapshot import Snapshot
from ..reporters.tensorboard import SHARE
from ..state import TrainState

PATIENCE = 1.0  # seconds between two messages of a shard about its progress
NONE = torch.empty(0, dtype=torch.float64)
CLOCKS = ("step", "status", "diverged_step")  # what reporters receive of networks at every evaluation
Tensors = dict[str, Tensor]


class Begun(NamedTuple):
    """A worker has begun: the network-steps of its shard so far, and the step."""

    done: int
    step: int


class Looked(NamedTuple):
    """An evaluation of a shard: its round, for each part the CLOCKS and the figures, and norms of gradients (K,)."""

    number: int
    clocks: list[Tensors]
    found: list[Round]
    norms: Tensor


Message = Begun | Progress | Looked


class End(NamedTuple):
    """A shard at its end, or where a signal has ended it: for each part, its figures and the notes of a checkpoint; the
    file that has the rows, as a manifest names it (checkpoints/stored.py), and the file of curves."""

    figures: list[Figures]
    notes: list[dict[str, Any]]
    file: dict[str, Any]
    curves: str


class Report(NamedTuple):
    """What a shard's task returns. looked: its last evaluation, None if `signals` ended it early; states: of each part,
    all but the rows; end: None at a meeting point. steps, seconds: network-steps of this task, and their time; letters:
    messages that the driver may not have (board.py)."""

    looked: Looked | None
    states: list[Tensors]
    end: End | None
    signals: list[int]
    steps: int
    seconds: float
    notes: list[str]
    letters: Sequence[Any] = ()


class Decision(NamedTuple):
    """What a search made of a shard's networks at the end of a round: for each part, all but the rows."""

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
