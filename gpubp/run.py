"""Run: one population in training, round by round, with its evaluations and their decisions.

Evaluations depend only on the configuration and define rounds: in a round every network
trains to the step of its next evaluation. Cutting a call of the engine short changes no bit, so the
length of calls may depend on the clock. Within a round no clock of a network is read: the run estimates (pace.py).
Signals, reporters and files are in loop.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from . import stopping
from .config import TrainConfig
from .data import Dataset
from .engines import Choice
from .evaluate import Evaluation, metric_name
from .pace import Pace
from .placement import placed
from .reporters import quantiles
from .schedules import scheduled
from .serial import one_thread
from .state import Status, TrainState, counts

CALL = 0.25  # intended seconds of a call of the engine
MOST = 1 << 16  # steps of one call at most
EAGER = 1 << 10  # the same for engine eager, which holds the order of samples of a whole call for a block of networks
TABLE = 1 << 22  # samples of one call at most, if all networks share an order, which is a table


@dataclass(eq=False)
class Run:
    """number: of the present round, from 1; 0 before the first. held_out: the evaluation of the present
    networks on `validation`, if known."""

    state: TrainState
    config: TrainConfig
    data: Dataset
    validation: Dataset | None
    choice: Choice
    where: list[torch.device]
    number: int = 0
    held_out: Evaluation | None = None

    def __post_init__(self) -> None:
        # Which networks are evaluated at the end of the present round. A checkpoint is never written between a
        # round's last step and its evaluation: if no network has a step left, all are evaluated.
        self.due = self.state.running & bool(self.state.left.any())

    def begin(self) -> None:
        """Move networks and data to their devices."""
        state = self.state
        data = [each for each in (self.data, self.validation) if each is not None]
        self.place = placed(state, data, self.choice, self.where)
        if self.number:  # an extended training may have moved the ends of rounds
            self.train_to(self.round(torch.where(self.due, state.limit, state.step) - 1)[1])
            self.due |= state.left > 0
        longest = EAGER if self.choice.name == "eager" else max(EAGER, TABLE // self.config.batch_size)
        self.place.begin()
        self.pace = Pace(CALL, min(MOST, longest))
        self.pace.look(state)
        self.taken = self.pace.before

    @cached_property
    def metric_name(self) -> str:
        """The name of the evaluations' metric."""
        return metric_name(self.state.population.spec)

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Digests of the data, computed once for all checkpoints."""
        given = {"data": self.data, "validation": self.validation}
        return {name: None if each is None else each.fingerprint() for name, each in given.items()}

    def round(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) both: the first and last step of the round of the step after `step`."""
        return self.config.rounds.of(step, self.data.size(self.state.position))

    def train_to(self, step: Tensor) -> None:
        """Each network to `step` (N,), or to the end of its training."""
        torch.minimum(step, self.state.end, out=self.state.limit)

    @one_thread()
    def next_round(self) -> bool:
        """Start the next round; False if every network has ended."""
        if not self.pace.running:
            return False
        self.number += 1
        self.due = self.state.running
        self.train_to(self.round(self.state.step)[1])
        self.state.total[self.state.status != Status.finished] = 0  # an extended training may continue its last round
        self.place.begin()
        self.pace.look(self.state)
        return True

    def advance(self) -> list[str]:
        """One call of the engine, short enough for regular progress, but long enough to pay for its copies. -> notes
        for the user."""
        steps, self.held_out = self.pace.next(self.place.least), None
        notes = self.place.run(steps)
        self.pace.returned(steps)
        return notes

    def settle(self) -> None:
        """Wait for all calls, and bring the clocks to host memory."""
        self.place.look()
        with one_thread():
            self.pace.settled(self.state)

    def look(self) -> dict[str, Any]:
        """Evaluate at the end of a round, and apply the decisions. -> its record."""
        if self.validation is not None:
            self.held_out = self.place.evaluate(self.validation)
        record, better = self.decided()
        if self.state.kept and bool(better.any()):
            self.place.keep(better)
        return record

    @one_thread()
    def decided(self) -> tuple[dict[str, Any], Tensor]:
        """Apply the decisions at the end of a round to the state. -> its record, and (N,) bool: the networks whose row
        is their best."""
        state = self.state
        first, last = self.round(state.step - 1)
        mean = state.total.double() / torch.clamp(state.step - first, min=1)
        mean = mean.masked_fill(~self.due, float("nan"))
        loss = mean if self.held_out is None else self.held_out.loss
        better = stopping.decide(state, loss, self.due, state.step == last)
        state.status[state.running & (state.step >= state.end)] = Status.finished
        self.pace.running = int(state.running.sum())
        alive = state.status != Status.diverged
        record = {
            "round": self.number,
            "step": int(state.step.max()),
            "network_steps_per_second": self.pace.rate,
            "statuses": counts(state.status),
            "loss": quantiles(mean[alive]),
            "validation_loss": None if self.held_out is None else quantiles(self.held_out.loss[alive]),
            "metric_name": self.metric_name,
            "metric": None if self.held_out is None else quantiles(self.held_out.metric[alive]),
            "lr": quantiles(self.learning_rate()[alive]),
        }
        return record, better

    def learning_rate(self) -> Tensor:
        """(N,): the scheduled rate of each network's next step."""
        state = self.state
        step, end = state.step[:, None].double(), state.end[:, None].double()
        return scheduled(state.recipe.timetable, {**state.hyper, **state.memory}, step, end)[:, 0]

    def figures(self) -> tuple[Evaluation, Evaluation | None]:
        """Restore the best rows, if they are kept, evaluate on both datasets, and bring the rows to host memory."""
        if self.state.kept and bool((best := stopping.restored(self.state)).any()):
            self.place.exchange(best)
            self.held_out = None
        training = self.place.evaluate(self.data)
        if self.validation is not None and self.held_out is None:
            self.held_out = self.place.evaluate(self.validation)
        self.place.gather()
        return training, self.held_out
