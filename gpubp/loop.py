"""Loop: advance a run (run.py), report, save, until every network has ended or a signal comes.

Everything that depends on the clock (progress, timed checkpoints, Ctrl-C) only cuts a call of the engine short, which
changes no bit. Failing to write a checkpoint, results or a reporter's file is reported and ends no training;
checkpoints are retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import checkpoint
from .errors import CheckpointError
from .history import History
from .reporters import Progress, Reporter, Start
from .reporters.table import table, write
from .result import Result, kept
from .run import Run
from .signals import collected


@dataclass
class Loop:
    """settings and lines: for reporters (see Start). unsaved: why the last checkpoint or the results could
    not be written; silenced: reporters that failed to write, and why."""

    run: Run
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    unsaved: str | None = None
    silenced: list[str] = field(default_factory=list)
    first: Future[None] | None = None  # the first checkpoint, while it may be running

    def train(self) -> Result:
        """Train to the end of every network, or to a signal, which the result names."""
        try:
            return self.to_the_end()
        except BaseException:
            for reporter in self.reporters:
                _give_back(reporter)
            raise
        finally:
            self.wait_for_first()

    def to_the_end(self) -> Result:
        """train(), without telling reporters of errors."""
        run = self.run
        with collected() as signals:
            self.begin()
            while not signals and (run.pace.left or run.next_round()):
                self.advance()
                if not run.pace.left:
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
        """Start the run and reporters; write the checkpoint from which an early killed run restarts."""
        self.begun, self.before, run = time.monotonic(), self.seconds, self.run
        run.begin()
        start = Start(
            networks=run.state.population.count,
            parameters=run.state.population.spec.size,
            steps=int(run.state.end.sum()),
            done=run.taken,
            step=int(run.state.step.max()),
            engine_reason=run.choice.reason,
            run_dir=None if self.run_dir is None else str(self.run_dir),
            metric_name=run.metric_name,
            lines=self.lines,
            settings=self.settings,
            history=tuple(self.history),
        )
        self.listening = list(self.reporters)
        for reporter in self.reporters:
            reporter.start(start)
        self.saved = time.monotonic()
        if self.run_dir is not None and not run.number:
            self.write_first(self.run_dir)

    def advance(self) -> None:
        """One call of the engine."""
        notes = self.run.advance()
        if self.first is not None and self.first.done():
            self.finish_first()
        self.seconds = self.before + time.monotonic() - self.begun
        self.note(*notes)

    def settle(self) -> None:
        """Wait for all calls."""
        self.run.settle()
        self.seconds = self.before + time.monotonic() - self.begun

    def note(self, *notes: str) -> None:
        """Report progress, and notes for the user."""
        self.notes += notes
        pace = self.run.pace
        progress = Progress(pace.done, pace.rate, pace.running, notes)
        self.tell(lambda reporter: reporter.progress(progress))

    def tell(self, what: Callable[[Reporter], None]) -> None:
        """Call every reporter. One that fails to write, as on a full disk or a closed pipe, is called no more."""
        for reporter in tuple(self.listening):
            if reporter not in self.listening:  # it failed during the report of another's failure
                continue
            try:
                what(reporter)
            except OSError as error:
                self.listening.remove(reporter)
                _give_back(reporter)
                self.silenced.append(f"{type(reporter).__name__} cannot write, and stops reporting: {error}")
                self.note(self.silenced[-1])

    def look(self) -> None:
        """The evaluation at the end of a round."""
        record = {"seconds": self.seconds, **self.run.look()}
        self.history.append(record)
        self.tell(lambda reporter: reporter.evaluated(record))

    def save(self) -> None:
        """Write a checkpoint; if that fails, it is retried when the next is due."""
        assert self.run_dir is not None
        self.settle()
        with suppress(CheckpointError):  # then this is the first
            self.finish_first()
        before, self.unsaved = self.unsaved, None
        try:
            self.write_checkpoint(self.run_dir)
        except CheckpointError as error:
            self.unsaved = str(error)
            if before is None:  # reported once
                self.note(f"{error}; training continues, and it is retried every {self.checkpoint_minutes:g} minutes")
        else:
            if before is not None:
                self.note(f"{self.run_dir}: a checkpoint could be written again")
        self.saved = time.monotonic()

    def write_first(self, run_dir: Path) -> None:
        """Write the checkpoint before the first step, during the first calls if the rows in host memory do not change.
        Raises CheckpointError if it fails, now or soon."""
        if not self.run.place.leave(self.wait_for_first):
            self.write_checkpoint(run_dir)
            return
        notes = self.noted() | {"history": History()}
        pool = ThreadPoolExecutor(1, "gpubp-checkpoint")
        self.first = pool.submit(checkpoint.save, run_dir, self.run.state.at_rest(), self.run.config, notes)
        pool.shutdown(wait=False)

    def wait_for_first(self) -> None:
        """Wait until the first checkpoint is written or has failed."""
        if self.first is not None:
            wait([self.first])

    def finish_first(self) -> None:
        """The same, and raise its error."""
        first, self.first = self.first, None
        if first is not None:
            first.result()

    def write_checkpoint(self, run_dir: Path) -> None:
        """Write a checkpoint. Raises CheckpointError."""
        self.wait_for_first()
        self.run.place.gather()
        checkpoint.save(run_dir, self.run.state, self.run.config, self.noted())

    def noted(self) -> dict[str, Any]:
        """The notes of a checkpoint, besides the state."""
        return {
            "number": self.run.number,
            "history": self.history,
            "seconds": self.seconds,
            "settings": self.settings,
            "engine": self.run.choice.name,
            "engine_reason": self.run.choice.reason,
            **self.run.fingerprints,
        }

    def result(self, signals: list[int]) -> Result:
        """Run the final evaluation and write results to the run's directory. -> the Result."""
        run, state = self.run, self.run.state
        training, held_out = run.figures()
        rows = table(state, training, held_out, run.metric_name)
        if news := run.place.news():
            self.note(*news)
        if self.run_dir is not None:
            try:
                write(rows, self.run_dir)
            except Exception as error:  # also pyarrow's; the result exists
                why = f"{self.run_dir}: the results cannot be written: {error}"
                self.unsaved = why if self.unsaved is None else f"{self.unsaved}; {why}"
                self.note(why)
        return Result(
            population=state.population,
            loss=training.loss,
            metric=training.metric,
            validation_loss=None if held_out is None else held_out.loss,
            validation_metric=None if held_out is None else held_out.metric,
            table=rows,
            history=list(self.history),
            notes=self.notes,
            state=state,
            engine=run.choice.name,
            engine_reason=run.choice.reason,
            seconds=time.monotonic() - self.begun,
            step_seconds=run.pace.seconds,
            network_steps=int(state.step.sum()) - run.taken,
            run_dir=self.run_dir,
            interrupted=max(signals, default=None),  # SIGTERM before SIGINT
            unsaved=self.unsaved,
            silenced=self.silenced,
        )


def _give_back(reporter: Reporter) -> None:
    """Let a reporter release the screen and files."""
    with suppress(OSError):
        getattr(reporter, "failed", lambda: None)()
