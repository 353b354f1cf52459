"""Loop: run, look, decide, report, save, until every network has ended.

Evaluations come from the configuration alone and define rounds, which are a network's own: in a round every network
trains to the step at which its next evaluation is due. Whatever the clock decides (progress, timed checkpoints, Ctrl-C)
only cuts a call of the engine short, which changes no bit. Within a round the loop reads no clock of a network: it
counts ahead (pace.py). What cannot be written, a checkpoint, results, a reporter's file, is reported and ends no
training; checkpoints are tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint
from .data import Dataset
from .engines import Choice
from .errors import CheckpointError
from .evaluate import Evaluation, metric_name
from .history import History
from .pace import Pace
from .placement import placed
from .reporters import Progress, Reporter, Start, counts, quantiles
from .reporters.table import table, write
from .result import Result, kept
from .schedules import scheduled
from .serial import one_thread
from .signals import collected
from .state import Status, TrainState
from .stopping import plateau

CALL = 0.25  # seconds that one call of the engine should take
MOST = 1 << 16  # steps of one call at most
EAGER = 1 << 10  # the same of engine eager, which holds the order of samples of all of them for a block of networks
TABLE = 1 << 22  # samples of one call at most, where all networks have one order, which is a table


@dataclass
class Loop:
    """A run in progress. settings and lines: what reporters hear of it (see Start). number: of the present round, from
    1; 0 before the first. unsaved: why the last checkpoint or the results could not be written; silenced: the reporters
    that could not write, and why."""

    state: TrainState
    data: Dataset
    validation: Dataset | None
    choice: Choice
    where: list[torch.device]
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    number: int = 0
    history: History = field(default_factory=History)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    unsaved: str | None = None
    silenced: list[str] = field(default_factory=list)
    first: Future[None] | None = None  # the first checkpoint, as long as it may be under way

    def __post_init__(self) -> None:
        # Which networks the evaluation at the end of the present round is of. A checkpoint is never written between a
        # round's last step and its evaluation: where nobody has a step left, all have been looked at.
        self.due = self.state.running & bool(self.state.left.any())

    def run(self) -> Result:
        """To the end of every network, or to a signal, which the result names."""
        try:
            return self.to_the_end()
        except BaseException:
            for reporter in self.reporters:
                _give_back(reporter)
            raise
        finally:
            self.wait_for_first()

    def to_the_end(self) -> Result:
        """run(), whose errors nobody was told of."""
        with collected() as signals:
            self.begin()
            while not signals and (self.pace.left or self.next_round()):
                self.advance()
                if not self.pace.left:
                    self.settle()
                    self.look()
                if self.run_dir is not None and time.monotonic() - self.saved > 60 * self.checkpoint_minutes:
                    self.save()  # never between a round's last step and its evaluation
            self.settle()
            if self.run_dir is not None:
                self.save()
            result = self.result(signals)
            with kept(result):
                self.tell(lambda reporter: reporter.finish(result))
        return result

    def begin(self) -> None:
        """Networks and data where they train, reporters told, a run that is killed early there to begin anew."""
        self.begun, self.before, state = time.monotonic(), self.seconds, self.state
        data = [each for each in (self.data, self.validation) if each is not None]
        self.place = placed(state, data, self.choice, self.where)
        if self.number:  # a longer training may have moved the ends of rounds
            self.train_to(self.round(torch.where(self.due, state.limit, state.step) - 1)[1])
            self.due |= state.left > 0
        batch = state.config.batch_size
        self.pace = Pace(CALL, min(MOST, EAGER if self.choice.name == "eager" else max(EAGER, TABLE // batch)))
        self.pace.look(state)
        self.taken = self.pace.before
        self.held_out: Evaluation | None = None  # of now, where they are known
        start = Start(
            networks=state.population.count,
            parameters=state.population.spec.size,
            steps=int(state.end.sum()),
            done=self.taken,
            step=int(state.step.max()),
            engine_reason=self.choice.reason,
            run_dir=None if self.run_dir is None else str(self.run_dir),
            metric_name=metric_name(state.population.spec),
            lines=self.lines,
            settings=self.settings,
            history=tuple(self.history),
        )
        self.listening = list(self.reporters)
        for reporter in self.reporters:
            reporter.start(start)
        self.saved = time.monotonic()
        if self.run_dir is not None and not self.number:
            self.write_first(self.run_dir)

    def round(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) both: the steps at which the round that holds the step after `step` begins and ends."""
        return self.state.config.round(step, self.data.size(self.state.position))

    def train_to(self, step: Tensor) -> None:
        """Each network to `step` (N,), or to the end of its training."""
        torch.minimum(step, self.state.end, out=self.state.limit)

    @one_thread()
    def next_round(self) -> bool:
        """Begin it; False where every network has ended."""
        if not self.pace.running:
            return False
        self.number += 1
        self.due = self.state.running
        self.train_to(self.round(self.state.step)[1])
        self.state.total[self.state.status != Status.finished] = 0  # a longer training may go on with its last round
        self.pace.look(self.state)
        return True

    def advance(self) -> None:
        """One call of the engine, as long as a person likes to wait for the next sign of life, or as is worth what has
        to be moved for it."""
        steps, self.held_out = self.pace.next(self.place.least), None
        notes = self.place.run(steps)
        self.pace.returned(steps)
        if self.first is not None and self.first.done():
            self.finish_first()
        self.seconds = self.before + time.monotonic() - self.begun
        self.note(*notes)

    def settle(self) -> None:
        """Wait for all calls; the clocks are then at home."""
        self.place.look()
        with one_thread():
            self.pace.settled(self.state)
        self.seconds = self.before + time.monotonic() - self.begun

    def note(self, *notes: str) -> None:
        """Tell how far the run is, and what a person should know."""
        self.notes += notes
        progress = Progress(self.pace.done, self.pace.rate, self.pace.running, notes)
        self.tell(lambda reporter: reporter.progress(progress))

    def tell(self, what: Callable[[Reporter], None]) -> None:
        """Tell every reporter. One that cannot write what it hears, for a full disk or a closed pipe, hears no more."""
        for reporter in tuple(self.listening):
            if reporter not in self.listening:  # it failed while another's failure was told
                continue
            try:
                what(reporter)
            except OSError as error:
                self.listening.remove(reporter)
                _give_back(reporter)
                self.silenced.append(f"{type(reporter).__name__} cannot write, and reports no more: {error}")
                self.note(self.silenced[-1])

    def look(self) -> None:
        """The evaluation at the end of a round, and what it decides."""
        if self.validation is not None:
            self.held_out = self.place.evaluate(self.validation)
        record = self.decided()
        self.history.append(record)
        self.tell(lambda reporter: reporter.evaluated(record))

    @one_thread()
    def decided(self) -> dict[str, Any]:
        """What the end of a round changes in the state. -> the record of it."""
        state = self.state
        first, last = self.round(state.step - 1)
        mean = state.total.double() / torch.clamp(state.step - first, min=1)
        mean = mean.masked_fill(~self.due, float("nan"))
        plateau_loss = mean if self.held_out is None else self.held_out.loss
        plateau(state, plateau_loss, self.due & (state.step == last))  # the training may end within a round
        state.status[state.running & (state.step >= state.end)] = Status.finished
        self.pace.running = int(state.running.sum())
        alive = state.status != Status.diverged
        return {
            "round": self.number,
            "step": int(state.step.max()),
            "seconds": self.seconds,
            "network_steps_per_second": self.pace.rate,
            "statuses": counts(state.status),
            "loss": quantiles(mean[alive]),
            "validation_loss": None if self.held_out is None else quantiles(self.held_out.loss[alive]),
            "metric_name": metric_name(state.population.spec),
            "metric": None if self.held_out is None else quantiles(self.held_out.metric[alive]),
            "lr": quantiles(self.learning_rate()[alive]),
        }

    def learning_rate(self) -> Tensor:
        """(N,): the scheduled rate of each network's next step."""
        state = self.state
        step, end = state.step[:, None].double(), state.end[:, None].double()
        return scheduled(state.config.timetable, {**state.hyper, **state.plateau}, step, end)[:, 0]

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Of the data, read once for all checkpoints."""
        given = {"data": self.data, "validation": self.validation}
        return {name: None if each is None else each.fingerprint() for name, each in given.items()}

    def save(self) -> None:
        """A checkpoint of now; where it cannot be written, the next one is tried when it is due."""
        assert self.run_dir is not None
        self.settle()
        with suppress(CheckpointError):  # then this is the first
            self.finish_first()
        before, self.unsaved = self.unsaved, None
        try:
            self.write_checkpoint(self.run_dir)
        except CheckpointError as error:
            self.unsaved = str(error)
            if before is None:  # said once, however often it is tried
                self.note(f"{error}; training goes on, and it is tried again every {self.checkpoint_minutes:g} minutes")
        else:
            if before is not None:
                self.note(f"{self.run_dir}: a checkpoint could be written again")
        self.saved = time.monotonic()

    def write_first(self, run_dir: Path) -> None:
        """The checkpoint before the first step; beside the first calls, where the rows at home stay as they are. Raises
        CheckpointError where it cannot be done, then or soon."""
        if not self.place.leave(self.wait_for_first):
            self.write_checkpoint(run_dir)
            return
        notes = self.noted() | {"history": type(self.history)()}
        pool = ThreadPoolExecutor(1, "gpubp-checkpoint")
        self.first = pool.submit(checkpoint.save, run_dir, self.state.at_rest(), notes)
        pool.shutdown(wait=False)

    def wait_for_first(self) -> None:
        """Until the first checkpoint is written, or could not be."""
        if self.first is not None:
            wait([self.first])

    def finish_first(self) -> None:
        """The same, and raise why it could not."""
        first, self.first = self.first, None
        if first is not None:
            first.result()

    def write_checkpoint(self, run_dir: Path) -> None:
        """Raises CheckpointError where it cannot be done."""
        self.wait_for_first()
        self.place.gather()
        checkpoint.save(run_dir, self.state, self.noted())

    def noted(self) -> dict[str, Any]:
        """What a checkpoint has besides the state."""
        return {
            "number": self.number,
            "history": self.history,
            "seconds": self.seconds,
            "engine": self.choice.name,
            "engine_reason": self.choice.reason,
            **self.fingerprints,
        }

    def result(self, signals: list[int]) -> Result:
        """The final evaluation, results in the run's directory, and everything that a caller may want."""
        state, training = self.state, self.place.evaluate(self.data)
        if self.validation is not None and self.held_out is None:
            self.held_out = self.place.evaluate(self.validation)
        self.place.gather()
        rows = table(state, training, self.held_out, metric_name(state.population.spec))
        if news := self.place.news():
            self.note(*news)
        if self.run_dir is not None:
            try:
                write(rows, self.run_dir)
            except Exception as error:  # whatever pyarrow raises: the result is there
                why = f"{self.run_dir}: the results cannot be written: {error}"
                self.unsaved = why if self.unsaved is None else f"{self.unsaved}; {why}"
                self.note(why)
        names = [each.name for each in Status]
        return Result(
            population=state.population,
            loss=training.loss,
            metric=training.metric,
            validation_loss=None if self.held_out is None else self.held_out.loss,
            validation_metric=None if self.held_out is None else self.held_out.metric,
            status=[names[number] for number in state.status.tolist()],
            statuses=counts(state.status),
            table=rows,
            history=list(self.history),
            notes=self.notes,
            state=state,
            engine=self.choice.name,
            engine_reason=self.choice.reason,
            seconds=time.monotonic() - self.begun,
            step_seconds=self.pace.seconds,
            network_steps=int(state.step.sum()) - self.taken,
            run_dir=self.run_dir,
            interrupted=max(signals, default=None),  # SIGTERM before SIGINT
            unsaved=self.unsaved,
            silenced=self.silenced,
        )


def _give_back(reporter: Reporter) -> None:
    """Have it give the screen and files back."""
    with suppress(OSError):
        getattr(reporter, "failed", lambda: None)()
