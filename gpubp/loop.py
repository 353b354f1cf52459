"""Loop: advance runs (run.py) round by round, report, save, until every network has ended or a signal comes.

Everything that depends on the clock (progress, timed checkpoints, Ctrl-C) only cuts a call of the engine short, which
changes no bit. Failing to write a checkpoint, results or a reporter's file is reported and ends no training;
checkpoints are retried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from . import checkpoint
from .errors import CheckpointError
from .history import History
from .populations import Populations
from .reporters import Progress, Reporter, Start, quantiles
from .reporters.listeners import Listeners
from .reporters.table import Outcome, table, write
from .result import Result, kept
from .run import Round, Run
from .signals import collected
from .state import Status, counts


class Search(Protocol):
    """Decides over networks together, between rounds, by their evaluations alone."""

    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """After the evaluation of round `number`, from 1: stop networks (Run.stop), or rewrite them (Run.rewrite)."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings and what it has decided so far, as plain values, from which it goes on after a resume."""


@dataclass
class Loop:
    """settings and lines: for reporters (see Start). unsaved: why the last checkpoint or the results could
    not be written."""

    runs: Sequence[Run]
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    unsaved: str | None = None
    search: Search | None = None
    first: Future[None] | None = None  # the first checkpoint, while it may be running

    def __post_init__(self) -> None:
        self.listeners = Listeners(self.reporters, self.note)

    def train(self) -> Result:
        """Train to the end of every network, or to a signal, which the result names."""
        try:
            return self.to_the_end()
        except BaseException:
            self.listeners.give_back()
            raise
        finally:
            self.wait_for_first()

    def to_the_end(self) -> Result:
        """train(), without telling reporters of errors."""
        with collected() as signals:
            self.begin()
            while not signals and self.next_round():
                for run in self.runs:
                    while run.open and run.pace.left and not signals:
                        self.advance(run)
                        self.save_if_due()
                if not signals:
                    self.settle()
                    self.look()
                    self.save_if_due()
            self.settle()
            if self.run_dir is not None:
                self.save()
            result = self.result(signals)
            with kept(result):
                self.listeners.tell(lambda reporter: reporter.finish(result))
        return result

    def begin(self) -> None:
        """Start runs and reporters; write the checkpoint from which an early killed run restarts."""
        self.begun, self.before = time.monotonic(), self.seconds
        for run in self.runs:
            run.begin()
        populations = [run.state.population for run in self.runs]
        start = Start(
            networks=sum(each.count for each in populations),
            parameters=max(each.spec.size for each in populations),
            steps=sum(int(run.state.end.sum()) for run in self.runs),
            done=sum(run.taken for run in self.runs),
            step=max(int(run.state.step.max()) for run in self.runs),
            engine_reason=self.reasons,
            run_dir=None if self.run_dir is None else str(self.run_dir),
            metric_name=self.metric_name,
            lines=self.lines,
            settings=self.settings,
            history=tuple(self.history),
            populations=len(self.runs),
        )
        self.listeners.start(start)
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "gpubp-compile") as pool:  # two kernels each
            list(pool.map(Run.compile_ahead, self.runs))
        self.saved, self.rate = time.monotonic(), 0.0
        self.seen = sum(run.pace.done for run in self.runs), 0.0  # network-steps and seconds at the last evaluation
        if self.run_dir is not None and not self.number:
            self.write_first(self.run_dir)

    @property
    def number(self) -> int:
        """Of the present round, from 1; 0 before the first."""
        return max(run.number for run in self.runs)

    @property
    def metric_name(self) -> str:
        """The name of the evaluations' metric."""
        return self.runs[0].metric_name

    @property
    def reasons(self) -> str:
        """Why each engine was chosen."""
        return "; ".join(dict.fromkeys(run.choice.reason for run in self.runs))

    def next_round(self) -> bool:
        """Go on with the present round, or start the next; False if every network has ended."""
        if any(run.open for run in self.runs):
            return True
        begun = [run.next_round() for run in self.runs]
        return any(begun)

    def advance(self, run: Run) -> None:
        """One call of the engine."""
        notes = run.advance()
        if self.first is not None and self.first.done():
            self.finish_first()
        self.seconds = self.before + time.monotonic() - self.begun
        self.rate = run.pace.rate
        self.note(*notes)

    def settle(self) -> None:
        """Wait for all calls."""
        for run in self.runs:
            run.settle()
        self.seconds = self.before + time.monotonic() - self.begun

    def note(self, *notes: str) -> None:
        """Report progress, and notes for the user."""
        self.notes += notes
        paces = [run.pace for run in self.runs]
        done, running = sum(each.done for each in paces), sum(each.running for each in paces)
        progress = Progress(done, self.rate, running, notes)
        self.listeners.tell(lambda reporter: reporter.progress(progress))

    def look(self) -> None:
        """The evaluation at the end of a round."""
        found = [run.look() for run in self.runs]
        if self.search is not None:
            self.search.decide(self.number, self.runs, found)
        status = torch.cat([run.state.status for run in self.runs])
        held_out = [each.held_out for each in found]
        alive, done, steps = status != Status.diverged, sum(run.pace.done for run in self.runs), self.step_seconds

        def spread(values: Iterable[Tensor]) -> dict[str, float]:
            return quantiles(torch.cat([*values])[alive])

        validated = [each for each in held_out if each is not None]
        record = {
            "seconds": self.seconds,
            "round": self.number,
            "step": max(int(run.state.step.max()) for run in self.runs),
            "network_steps_per_second": (done - self.seen[0]) / max(steps - self.seen[1], 1e-6),
            "statuses": counts(status),
            "loss": spread(each.loss for each in found),
            "validation_loss": spread(each.loss for each in validated) if validated else None,
            "metric_name": self.metric_name,
            "metric": spread(each.metric for each in validated) if validated else None,
            "lr": spread(each.lr for each in found),
        }
        self.seen = done, steps
        self.history.append(record)
        self.listeners.tell(lambda reporter: reporter.evaluated(record))

    @property
    def step_seconds(self) -> float:
        """Seconds in steps of all runs."""
        return sum(run.pace.seconds for run in self.runs)

    def save_if_due(self) -> None:
        """Write a checkpoint, if the last one is older than it may be."""
        if self.run_dir is not None and time.monotonic() - self.saved > 60 * self.checkpoint_minutes:
            self.save()

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
        leave = [run.place.leave(self.wait_for_first) for run in self.runs]
        if not all(leave):
            self.write_checkpoint(run_dir)
            return
        notes = self.noted() | {"history": History()}
        pool = ThreadPoolExecutor(1, "gpubp-checkpoint")
        self.first = pool.submit(checkpoint.save, run_dir, [run.saved(at_rest=True) for run in self.runs], notes)
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
        for run in self.runs:
            run.place.gather()
        checkpoint.save(run_dir, [run.saved() for run in self.runs], self.noted())

    def noted(self) -> dict[str, Any]:
        """The loop's notes in a checkpoint."""
        search = None if self.search is None else self.search.to_dict()
        return {
            "number": self.number,
            "history": self.history,
            "seconds": self.seconds,
            "settings": self.settings,
            "search": search,
        }

    def result(self, signals: list[int]) -> Result:
        """Run the final evaluation and write results to the run's directory. -> the Result."""
        figures = [run.figures() for run in self.runs]
        rows = table(
            [Outcome(run.rows, run.state, *each, run.folds) for run, each in zip(self.runs, figures)], self.metric_name
        )
        if news := [note for run in self.runs for note in run.place.news()]:
            self.note(*news)
        if self.run_dir is not None:
            try:
                write(rows, self.run_dir)
            except Exception as error:  # also pyarrow's; the result exists
                why = f"{self.run_dir}: the results cannot be written: {error}"
                self.unsaved = why if self.unsaved is None else f"{self.unsaved}; {why}"
                self.note(why)
        training, held_out = zip(*figures)
        networks = Populations(*zip(*((run.state.population, run.rows) for run in self.runs)))
        in_order, looked = networks.in_order, held_out[0] is not None
        return Result(
            populations=networks,
            loss=in_order([each.loss for each in training]),
            metric=in_order([each.metric for each in training]),
            validation_loss=in_order([each.loss for each in held_out]) if looked else None,
            validation_metric=in_order([each.metric for each in held_out]) if looked else None,
            table=rows,
            history=list(self.history),
            notes=self.notes,
            states=tuple(run.state for run in self.runs),
            engine=", ".join(dict.fromkeys(run.choice.name for run in self.runs)),
            engine_reason=self.reasons,
            seconds=time.monotonic() - self.begun,
            step_seconds=self.step_seconds,
            network_steps=sum(int(run.state.step.sum()) - run.taken for run in self.runs),
            run_dir=self.run_dir,
            interrupted=max(signals, default=None),  # SIGTERM before SIGINT
            unsaved=self.unsaved,
            silenced=self.listeners.silenced,
        )
