"""Loop: run, look, decide, report, save, until every network has ended; and Result, what it leaves.

Evaluations come from the configuration alone and define rounds: in a round every network trains to the step at which
its next evaluation is due. Whatever the clock decides (progress, timed checkpoints, Ctrl-C) only cuts a call of the
engine short, which changes no bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checkpoint
from .data import Dataset
from .engines import Choice
from .evaluate import Evaluation, metric_name
from .placement import placed
from .population import Population
from .reporters import Progress, Reporter, Start, counts, quantiles
from .reporters.table import table, write
from .schedules import scheduled
from .state import Status, TrainState
from .stopping import plateau

if TYPE_CHECKING:
    import pyarrow as pa

CALL = 0.25  # seconds that one call of the engine should take
MOST = 1024  # steps of one call at most: the order of samples is computed for all of them at once


@dataclass(frozen=True, eq=False)
class Result:
    """What a training left.

    population: the trained networks, each at its last step that left finite numbers, on the device of the given ones.
    loss and metric (N,): over each network's training samples at its end;
    validation_loss, validation_metric: over the validation data, or None.
    status: a name per network. table: a row per network (pyarrow). history: a record per evaluation. notes: what went
    otherwise than asked for, such as memory that ran out. interrupted: the signal that ended the run early, or None.
    seconds: in training, evaluations included.
    """

    population: Population
    loss: Tensor
    metric: Tensor
    validation_loss: Tensor | None
    validation_metric: Tensor | None
    status: list[str]
    statuses: dict[str, int]
    table: pa.Table
    history: list[dict[str, Any]]
    notes: list[str]
    state: TrainState
    engine: str
    engine_reason: str
    seconds: float
    network_steps: int
    run_dir: Path | None
    interrupted: int | None

    def ranking(self) -> Tensor:
        """Rows of the networks that did not diverge, the best first: by validation loss, or else by loss."""
        return ranking(self.state, self.loss if self.validation_loss is None else self.validation_loss)


def ranking(state: TrainState, loss: Tensor) -> Tensor:
    """Rows of the networks that did not diverge, by `loss` (N,), the least first."""
    order = torch.argsort(loss.nan_to_num(float("inf")), stable=True)
    return order[state.status[order] != Status.diverged]


@dataclass
class Loop:
    """A run in progress. number: of the present round, from 1; 0 before the first."""

    state: TrainState
    data: Dataset
    validation: Dataset | None
    choice: Choice
    where: list[torch.device]
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    number: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    rate: float = 0.0
    notes: list[str] = field(default_factory=list)

    def run(self) -> Result:
        """To the end of every network, or to a signal."""
        data = [each for each in (self.data, self.validation) if each is not None]
        self.place = placed(self.state, data, self.choice, self.where)
        state, begun, before = self.state, time.monotonic(), self.seconds
        taken = int(state.step.sum())
        sizes = self.data.size(state.position)
        if self.number:  # a resumed round; a longer training may have moved its end
            state.limit.copy_(torch.minimum(self.state.config.round_end(self.number, sizes), state.end))
        start = Start(
            networks=state.population.count,
            parameters=state.population.spec.size,
            steps=int(state.end.sum()),
            done=taken,
            step=int(state.step.max()),
            engine_reason=self.choice.reason,
            run_dir=None if self.run_dir is None else str(self.run_dir),
        )
        for reporter in self.reporters:
            reporter.start(start)
        self.saved, self.call = time.monotonic(), 1
        if self.run_dir is not None and not self.number:
            self.save()  # killed before the first timed one, a run begins anew
        with interruptible() as signals:
            left = int(state.left.max())
            while (left or bool(state.running.any())) and not signals:
                if not left:
                    self.number += 1
                    state.limit.copy_(torch.minimum(state.config.round_end(self.number, sizes), state.end))
                    state.total.zero_()
                    left = int(state.left.max())
                if left:  # a round of less than a batch may have no step
                    self.advance(left)
                    left = int(state.left.max())
                self.seconds = before + time.monotonic() - begun
                if not left:
                    self.look(sizes)
                due = time.monotonic() - self.saved > 60 * self.checkpoint_minutes
                if self.run_dir is not None and due:  # never between a round's last step and its evaluation
                    self.save()
            self.seconds = before + time.monotonic() - begun
            if self.run_dir is not None:
                self.save()
        result = self.result(int(state.step.sum()) - taken, time.monotonic() - begun, next(iter(signals), None))
        if self.run_dir is not None:
            write(result, self.run_dir)
        for reporter in self.reporters:
            reporter.finish(result)
        return result

    def advance(self, left: int) -> None:
        """One call of the engine, as long as a person likes to wait for the next sign of life, or as is worth what has
        to be moved for it. left: most steps that a network has in this round."""
        state, steps = self.state, min(MOST, max(self.call, self.place.least))
        before, begun = int(state.step.sum()), time.monotonic()
        notes = self.place.run(min(steps, left))
        self.place.look()
        done = int(state.step.sum())
        seconds = max(time.monotonic() - begun, 1e-6)
        self.rate = (done - before) / seconds
        self.call = max(1, min(MOST, 4 * steps, round(steps * CALL / seconds)))
        self.notes += notes
        for reporter in self.reporters:
            reporter.progress(Progress(done, self.rate, int(state.running.sum()), tuple(notes)))

    def look(self, sizes: Tensor) -> None:
        """The evaluation at the end of a round, and what it decides."""
        state, config = self.state, self.state.config
        first = torch.minimum(config.round_end(self.number - 1, sizes), state.end)
        mean = state.total.double() / torch.clamp(state.step - first, min=1)
        mean = mean.masked_fill(state.step <= first, float("nan"))
        held_out = self.evaluation(self.validation)
        plateau_loss = mean if held_out is None else held_out.loss
        whole = state.step == config.round_end(self.number, sizes)  # the training may end within a round
        plateau(state, plateau_loss, whole)
        state.status[state.running & (state.step >= state.end)] = Status.finished
        alive = state.status != Status.diverged
        name = metric_name(state.population.spec)
        record = {
            "round": self.number,
            "step": int(state.step.max()),
            "seconds": self.seconds,
            "network_steps_per_second": self.rate,
            "statuses": counts(state.status),
            "loss": quantiles(mean[alive]),
            "validation_loss": None if held_out is None else quantiles(held_out.loss[alive]),
            "metric_name": name,
            "metric": None if held_out is None else quantiles(held_out.metric[alive]),
            "lr": quantiles(self.learning_rate()[alive]),
        }
        self.history.append(record)
        for reporter in self.reporters:
            reporter.evaluated(record)

    def learning_rate(self) -> Tensor:
        """(N,): the scheduled rate of each network's next step."""
        state = self.state
        step, end = state.step[:, None].double(), state.end[:, None].double()
        return scheduled(state.config.timetable, {**state.hyper, **state.plateau}, step, end)[:, 0]

    def evaluation(self, data: Dataset | None) -> Evaluation | None:
        """The networks as they are, on `data`, where there is any."""
        return None if data is None else self.place.evaluate(data)

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Of the data, read once for all checkpoints."""
        given = {"data": self.data, "validation": self.validation}
        return {name: None if each is None else each.fingerprint() for name, each in given.items()}

    def save(self) -> None:
        """A checkpoint of now."""
        assert self.run_dir is not None
        self.place.gather()
        notes = {
            "number": self.number,
            "history": self.history,
            "seconds": self.seconds,
            "engine": self.choice.name,
            "engine_reason": self.choice.reason,
            **self.fingerprints,
        }
        checkpoint.save(self.run_dir, self.state, notes)
        self.saved = time.monotonic()

    def result(self, steps: int, seconds: float, interrupted: int | None) -> Result:
        """The final evaluation, and everything that a caller may want."""
        state, training = self.state, self.evaluation(self.data)
        assert training is not None
        held_out = self.evaluation(self.validation)
        self.place.gather()
        names = [each.name for each in Status]
        return Result(
            population=state.population,
            loss=training.loss,
            metric=training.metric,
            validation_loss=None if held_out is None else held_out.loss,
            validation_metric=None if held_out is None else held_out.metric,
            status=[names[number] for number in state.status.tolist()],
            statuses=counts(state.status),
            table=table(state, training, held_out, metric_name(state.population.spec)),
            history=self.history,
            notes=[*self.notes, *self.place.news()],
            state=state,
            engine=self.choice.name,
            engine_reason=self.choice.reason,
            seconds=seconds,
            network_steps=steps,
            run_dir=self.run_dir,
            interrupted=interrupted,
        )


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending at once; a second SIGINT does end at once. Only the main
    thread can; elsewhere the list stays empty."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
