"""Loop: advance runs (run.py) round by round, report, save, until every network has ended or a signal comes.

Everything that depends on the clock (progress, timed checkpoints, Ctrl-C) only cuts a call short, which changes no bit.
A failed write of a checkpoint, results or a reporter's file is only reported; checkpoints are retried.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..checkpoints.history import History
from ..checkpoints.packing import Saved
from ..evaluate import Round
from ..networks import Figures, Outcome
from ..populations import Populations
from ..reporters import Progress, Reporter, due
from ..reporters.listeners import Listeners
from ..reporters.snapshot import Snapshot
from ..results.result import Result, kept
from ..results.saved import RESULTS
from ..results.table import Results
from ..settings.config import TrainConfig
from ..settings.ranges import LONGEST
from ..system.threads import one_thread
from .queue import Queue
from .run import Run, gradient_norms, reasons, start_of
from .saving import Saving
from .side_by_side import Crew, Tell
from .signals import collected

RECORDS = 1 << 10, 1 << 10  # of due(): a queue's million rounds leave 11,000 records of 3 KB, reporters' included


@runtime_checkable
class Search(Protocol):
    """Decides about all networks together, between rounds, by their evaluations alone (search/)."""

    def interval(self, configs: Sequence[TrainConfig]) -> int:
        """Epochs, or steps, between evaluations of networks with these configurations."""

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """Look at the networks before the first round, or after a resume. -> what the search will do, for the user.
        Raises ConfigError."""

    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """After the evaluation of round `number`, from 1: stop networks (Run.stop), or rewrite them (Run.rewrite)."""

    def columns(self, networks: Sequence[Outcome]) -> dict[str, Tensor]:
        """What the results table says about the search: (N,) whole numbers by name, in the order of rows."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings and its decisions so far, as plain values and Records, from which a resume continues."""


@dataclass
class Loop:
    """settings and lines: for reporters (see Start)."""

    runs: list[Run]
    reporters: tuple[Reporter, ...]
    run_dir: Path | None
    checkpoint_minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    history: History = field(default_factory=History)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    search: Search | None = None
    queue: Queue | None = None

    def __post_init__(self) -> None:
        self.listeners = Listeners(self.reporters, self.note)
        self.signals: list[int] = []
        self.crew = Crew(self.runs[0].where, lambda left: self.note(compiling=left))
        self.step_seconds, self.saving = 0.0, None
        if self.run_dir is not None:
            self.saving = Saving(self.run_dir, self.checkpoint_minutes, self.saved, self.noted, self.note)

    def train(self) -> Result:
        """Train until every network has ended, or until a signal, which the result names."""
        try:
            return self.to_the_end()
        except BaseException:
            self.listeners.give_back()
            raise
        finally:
            if self.saving is not None:
                self.saving.wait()

    def to_the_end(self) -> Result:
        """train(), without telling reporters of errors."""
        with collected() as signals:
            self.signals = signals
            self.begin()
            self.rounds()
            if not signals:
                self.history.end()
            if self.saving is not None:
                self.saving.save()
            result = self.result(signals)
            with kept(result):
                self.listeners.tell(lambda reporter: reporter.finish(result))
        return result

    def rounds(self, last: float = math.inf) -> None:
        """Train until every network has ended, until a signal, or through the steps of the round `last`."""
        while not self.signals and self.next_round():
            self.steps()
            if self.signals or self.number >= last:
                break
            self.look()
            self.save_if_due()

    def begin(self) -> None:
        """Start runs and reporters; write the checkpoint from which a run killed early restarts."""
        self.begun, self.before = time.monotonic(), self.seconds
        self.crew.signals = self.signals
        self.crew.begin(self.runs, self.runs)
        self.taken = self.done
        start = start_of(self.runs, self.run_dir, self.lines, self.settings, self.history)
        if self.queue is not None:
            total = self.queue.rows.total or start.networks
            start = start._replace(networks=total, steps=self.expected, done=self.taken, clock="network_steps")
        self.clock = start.clock
        self.listeners.start(start)
        self.rate, self.seen = 0.0, (self.taken, 0.0)  # network-steps and seconds at the last evaluation
        self.crew.compile_ahead(self.runs)
        if self.saving is not None:
            self.saving.last = time.monotonic()
            if not self.number:
                self.save_first(self.saving)

    @property
    def number(self) -> int:
        """The present round's number, from 1; 0 before the first."""
        return max(run.number for run in self.runs)

    @property
    def done(self) -> int:
        """Network-steps so far."""
        return sum(run.pace.done for run in self.runs) + (0 if self.queue is None else self.queue.steps)

    @property
    def trained(self) -> bool:
        """Whether a step has been taken in this call, even if every network diverged in it, or no signal has come."""
        ended = any(run.pace.running < run.ran for run in self.runs)
        return not self.signals or self.done > self.taken or ended

    def figures(self, run: Run) -> Figures:
        """A run's figures at the end; unknown if a signal came before its first step: kernels may not be compiled."""
        begun = run.pace.done > 0 or run.pace.running < len(run.rows)  # all may diverge in the first step
        return run.figures(not self.signals or (self.trained and begun))

    @property
    def expected(self) -> int:
        """Network-steps of the whole training, if no further network stops early."""
        if self.queue is not None:
            return self.queue.expected(self.runs)
        return sum(run.pace.whole for run in self.runs)

    def next_round(self) -> bool:
        """Go on with the present round, or start the next; False if every network has ended."""
        if any(run.open for run in self.runs):
            return True
        most = LONGEST
        if self.queue is not None:
            self.refill(self.queue)
            most = self.queue.most(self.runs)
        with one_thread():
            begun = [run.next_round(most) for run in self.runs]
        return any(begun)

    def refill(self, queue: Queue) -> None:
        """Let waiting networks take free slots. After a wrong row, or if memory runs out, everything is saved, and the
        error carries the result so far."""
        try:
            queue.fill(self.runs, queue.next(self.runs), self.crew)
        except Exception:
            if self.saving is not None:
                self.saving.save()
            with kept(self.result([]), early=True):
                raise
        while queue.ended.notes:
            self.note(queue.ended.notes.pop())

    def steps(self) -> None:
        """The calls of the present round, to its end or a signal."""
        while not self.signals and (left := [run for run in self.runs if run.open and run.pace.left]):
            begun = time.monotonic()
            self.crew.each(left, self.calls, self.called)
            self.step_seconds += time.monotonic() - begun
            self.seconds = self.before + time.monotonic() - self.begun
            self.save_if_due()

    def calls(self, run: Run, tell: Tell) -> None:
        """The calls of one run, until the round ends, a checkpoint is due, a signal comes or another run fails."""
        while run.pace.left and not self.signals and not self.crew.over:
            tell(run.advance())
            if self.saving is not None and self.saving.due:
                break
        run.settle()

    def called(self, notes: list[str]) -> None:
        """A call has returned."""
        if self.saving is not None and (first := self.saving.first) is not None and first.done():
            self.saving.finish_first()
        self.seconds = self.before + time.monotonic() - self.begun
        self.rate = sum(run.pace.rate for run in self.crew.under_way)
        self.note(*notes)

    def note(self, *notes: str, compiling: int = 0) -> None:
        """Report progress, and notes for the user. compiling: populations that have no kernels yet."""
        self.notes += notes
        running = sum(run.pace.running for run in self.runs)
        whole = 0 if getattr(self.search, "stops", False) else self.expected
        progress = Progress(self.done, self.rate, running, notes, whole, compiling)
        self.listeners.tell(lambda reporter: reporter.progress(progress))

    def look(self) -> None:
        """The evaluation at the end of a round."""
        found = self.crew.each(self.runs, lambda run, tell: run.look(), self.called)
        if self.queue is not None and self.queue.unwatched(self.runs):
            return
        if self.saving is not None:
            self.saving.draw(self.number, map(Run.losses, self.runs, found))
        done, steps = self.done, self.step_seconds
        rate = (done - self.seen[0]) / max(steps - self.seen[1], 1e-6)
        if self.search is not None:
            if self.saving is not None:
                self.saving.wait()  # the first checkpoint may be reading rows
            self.search.decide(self.number, self.runs, found)
            self.taken += self.done - done  # steps that a copy in a diverged network's place takes over from its source
            found = [each._replace(lr=run.learning_rate()) for run, each in zip(self.runs, found)]
        states, rows = [run.state for run in self.runs], [run.rows for run in self.runs]
        networks = Snapshot(states, rows, found, lambda most: gradient_norms(self.runs, most))
        others = None if self.queue is None else self.queue.ended.statuses
        with one_thread():
            networks.describe(self.number, self.seconds, self.done, rate, self.runs[0].metric_name, others)
        self.seen = self.done, steps
        shown = self.queue is None or self.queue.over(self.runs) or due(self.number, *RECORDS)
        self.history.add(networks.record, shown)
        try:
            self.listeners.looked(networks)
        except Exception:
            if self.saving is not None:  # the run resumes from its last checkpoint
                raise
            with kept(self.result([]), early=True):
                raise

    def save_if_due(self) -> None:
        """Write a checkpoint if one is due."""
        if self.saving is not None and self.saving.due:
            self.saving.save()

    def save_first(self, saving: Saving) -> None:
        """Write the checkpoint before the first step, during the first calls if the rows in host memory do not change.
        Raises CheckpointError if it fails, now or soon."""
        leave = [run.place.leave(saving.wait) for run in self.runs]
        if all(leave):
            saving.write_beside([run.saved(at_rest=True) for run in self.runs])
        else:
            saving.write()

    def saved(self) -> list[Saved]:
        """The networks in a checkpoint."""
        for run in self.runs:
            run.place.gather()
        return [run.saved() for run in self.runs]

    def noted(self) -> dict[str, Any]:
        """The loop's notes in a checkpoint."""
        return {
            "number": self.number,
            "history": self.history,
            "clock": self.clock,
            "seconds": self.seconds,
            "settings": self.settings,
            "search": None if self.search is None else self.search.to_dict(),
            "queue": None if self.queue is None else self.queue.to_dict(),
        }

    def result(self, signals: list[int]) -> Result:
        """Run the final evaluation and write results to the run's directory. -> the Result."""
        figures = self.crew.each(self.runs, lambda run, tell: self.figures(run), self.called)
        outcomes = [Outcome.of(run.rows, run.state, found, run.folds) for run, found in zip(self.runs, figures)]
        if news := [note for run in self.runs for note in run.place.news()]:
            self.note(*news)
        if self.queue is not None:
            outcomes += self.queue.ended.outcomes()
            outcomes.sort(key=lambda each: int(each.rows.min()))
        more = {} if self.search is None else self.search.columns(outcomes)
        data = self.runs[0].sets.data
        results = Results(outcomes, self.runs[0].metric_name, data.entities, more)
        if self.saving is not None and (self.trained or not (self.saving.run_dir / RESULTS).exists()):
            self.saving.results(results)
        return Result(
            populations=Populations(*zip(*((each.state.population, each.rows) for each in outcomes))),
            outcomes=outcomes,
            results=results,
            history=list(self.history),
            notes=self.notes,
            engine=", ".join(dict.fromkeys(run.choice.name for run in self.runs)),
            engine_reason=reasons(self.runs),
            seconds=time.monotonic() - self.begun,
            step_seconds=self.step_seconds,
            network_steps=self.done - self.taken,
            run_dir=self.run_dir,
            interrupted=max(signals, default=None),  # SIGTERM before SIGINT
            unsaved=None if self.saving is None else self.saving.unsaved,
            silenced=self.listeners.silenced,
            search=self.search,
            waiting=0 if self.queue is None else self.queue.rows.waiting,
            preparation=data.preparation,
        )
