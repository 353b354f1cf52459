"""Driver: the process that hands shards to workers, hears from them, and lets a search decide at meeting points.

A shard whose worker or machine dies is retried elsewhere, from its checkpoint, and a board that dies is made again. An
error of a shard is raised once, after the others have saved. The driver keeps a record (record.py), so that repeating
the call continues after the driver's death.
"""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, ClusterError, GpubpError, OutOfMemoryError
from ..line import line
from ..runs.loop import Search
from . import worker
from .board import Inbox, Letter, Outbox, board
from .health import TICK, Lifeline, Tries, free
from .meeting import Exchange, LightRun, decisions, found_in
from .messages import Begun, Decision, Looked, Report
from .progress import Together
from .record import Record
from .shards import Job, Shard
from .storage import Storage

RETRIES = 100  # of a task that sends no messages, after deaths of its workers


class Signalled(Exception):  # noqa: N818 - not an error
    """Signal `number` has ended the run early; all shards have saved, and these are their reports."""

    def __init__(self, number: int, reports: list[Report]) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.reports = number, reports


def _train(job: Job, shard: Shard, sets: Any, phase: int, decision: Any, last: int | None, board: Any) -> Report:
    """worker.train(), as a task, which ends once the board has all its messages."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; Ray cancels tasks with SIGINT
        signal.signal(signal.SIGINT, signal.default_int_handler)
    outbox = Outbox(board, shard.number)
    report = worker.train(job, shard, sets, phase, decision, last, outbox.tell)
    return report._replace(letters=outbox.rest())


class Driver:
    """shards: their networks and samples are in the object store, as `stored` and `sets`. signals: those that should
    end the run; root: of the run; folder: of the record; steps: network-steps of all tasks that returned."""

    def __init__(
        self, ray: Any, job: Job, shards: Sequence[Shard], sets: Any, options: dict[str, Any], together: Together,
        record: Record, root: Storage, folder: Path,
    ) -> None:  # fmt: skip
        self.ray, self.job, self.shards, self.sets, self.together = ray, job, shards, sets, together
        self.record, self.root, self.folder = record, root, folder
        self.signals, self.steps, self.inbox = list[int](), 0, Inbox()
        self.stored = [ray.put(each) for each in shards]
        node = ray.get_runtime_context().get_node_id()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        again = {"max_restarts": -1, "max_task_retries": -1}  # workers send again what it had not passed on
        self.board = ray.remote(num_cpus=0, scheduling_strategy=here, **again)(board()).remote()
        self.options, self.lifeline, self.tries = options, Lifeline(ray), Tries(0, together.tell, False)
        self.task = ray.remote(**options, max_retries=0)(_train)
        self.taking = ray.remote(**options, max_retries=0)(worker.take)
        lasting = {"max_retries": RETRIES, "retry_exceptions": False}
        self.giving = ray.remote(**options, **lasting)(worker.give)
        self.showing = ray.remote(**options, **lasting)(worker.show)
        self.storage, self.saved = job.storage / "driver", time.monotonic()
        self.held = self.storage.saves()

    def train(self, runs: Sequence[LightRun], search: Search | None, meetings: Sequence[int]) -> list[Report]:
        """Train all shards to their ends, and let `search` decide about all networks at the rounds `meetings`. Raises
        Signalled, or the error of a shard, or CheckpointError if the storage cannot be written."""
        self.keep()
        for number in meetings[self.record.decided :]:
            looked = [each.looked for each in self.phase(runs, number)]
            assert search is not None
            self.decide(runs, search, number, [each for each in looked if each is not None])
        reports = self.phase(runs, None)
        self.keep()
        return reports

    def close(self) -> None:
        """End whatever serves only this run."""
        self.lifeline.close()
        self.ray.kill(self.board)

    def decide(self, runs: Sequence[LightRun], search: Search, number: int, looked: Sequence[Looked]) -> None:
        """Let the search decide, and write the decision down."""
        for run in runs:
            run.number, run.state.source = number, torch.arange(len(run.rows))
        search.decide(number, runs, found_in(runs, self.shards, looked))
        self.together.decided(number, runs)
        exchange = Exchange(runs, self.shards)
        self.record.decide(self.folder, number, runs, search, exchanged=not exchange)
        self.push()

    def phase(self, runs: Sequence[LightRun], last: int | None) -> list[Report]:
        """Train all shards from the last decision to the round `last`, or to their ends."""
        decided, record = [*decisions(self.record.number, runs, self.shards)], self.record
        given: list[Decision | None] = [*decided] if record.decided else [None] * len(self.shards)
        if not record.exchanged:
            self.exchange(Exchange(runs, self.shards), decided)
        stored = [self.ray.put(each) for each in given]

        def start(at: int) -> Any:
            what = self.job, self.stored[at], self.sets, record.decided, stored[at], last, self.board
            return self.task.remote(*what)

        reports: list[Report] = self.gather(start, self.ended, heard=True)
        self.bring(runs, reports)
        return reports

    def bring(self, runs: Sequence[LightRun], reports: Sequence[Report]) -> None:
        """Bring the networks' new states into `runs`."""
        for shard, report in zip(self.shards, reports):
            for group, index, state in zip(shard.groups, shard.index, report.states):
                runs[group].state.put_in(index, state)

    def exchange(self, exchange: Exchange, decided: Sequence[Decision]) -> None:
        """Give rows of shards to other shards, which save them before any shard continues."""
        phase = self.record.decided
        sources, targets = (sorted({pair[side] for pair in exchange.given}) for side in (0, 1))
        rows: dict[tuple[int, int], Any] = {}
        for source in sources:
            takers = [target for target in targets if (source, target) in exchange.given]
            wanted = [exchange.given[source, target] for target in takers]
            giving = self.giving.options(num_returns=len(takers))
            found = giving.remote(self.job, self.stored[source], self.sets, wanted)
            rows |= {(source, target): each for target, each in zip(takers, found if len(takers) > 1 else [found])}

        def start(at: int) -> Any:
            of = [source for source in sources if (source, at) in exchange.taken]
            taken = [exchange.taken[source, at] for source in of]
            what = self.job, self.stored[at], self.sets, phase, decided[at], taken
            return self.taking.remote(*what, *(rows[source, at] for source in of))

        self.gather(start, lambda at, _: None)
        self.record.exchanged = True
        self.keep()

    def ended(self, at: int, report: Report) -> None:
        """A shard has come to the end of a phase."""
        if report.looked is not None:
            self.together.rest(at, report.states, report.looked)

    def gather(self, start: Callable[[int], Any], ended: Callable[[int, Any], None], heard: bool = False) -> list[Any]:
        """What the tasks of all shards return, in order. heard: whether they tell the board that they have begun."""
        self.tries = Tries(len(self.shards), self.together.tell, heard)
        tasks = {start(at): at for at in range(len(self.shards))}
        found: list[Any] = [None] * len(tasks)
        errors, stopping = list[tuple[int, Exception]](), False
        while tasks:
            done, _ = self.ray.wait([*tasks], num_returns=len(tasks), timeout=TICK)
            self.lifeline.check()
            self.hear()
            self.tries.look(tasks.values(), lambda: free(self.ray, self.options))
            if (self.signals or errors) and not stopping:
                stopping = True
                for each in tasks:
                    self.ray.cancel(each, force=False, recursive=False)  # for a worker this is like Ctrl-C: it saves
            for each in done:
                at = tasks.pop(each)
                try:
                    found[at] = self.ray.get(each)
                except self.ray.exceptions.TaskCancelledError:
                    continue
                except Exception as error:
                    raised = isinstance(error, self.ray.exceptions.RayTaskError)
                    died = isinstance(error, self.ray.exceptions.RayError) and not raised
                    given_up = self.tries.died(at, error) if died and not stopping else None
                    if not died or given_up is not None:
                        errors.append((at, given_up or error))
                    elif not stopping:
                        tasks[start(at)] = at
                    continue
                report = found[at] if isinstance(found[at], Report) else None
                if report is not None:
                    self.steps += report.steps
                    self.open(report.letters)
                if report is not None and report.signals and not stopping:  # only the worker got the signal
                    tasks[start(at)] = at
                elif not stopping:
                    ended(at, found[at])
        if errors or self.signals:
            self.try_to_keep()
        if errors:
            raise self.told(*errors[0])
        if self.signals:
            raise Signalled(max(self.signals), self.shown(found))  # SIGTERM before SIGINT
        return found

    def shown(self, found: Sequence[Any]) -> list[Report]:
        """The reports of all shards; `found` already has some."""
        ended = {at: each for at, each in enumerate(found) if isinstance(each, Report) and each.end is not None}
        others = [at for at in range(len(found)) if at not in ended]
        tasks = [self.showing.remote(self.job, self.stored[at], self.sets, self.record.decided) for at in others]
        for at, task in zip(others, tasks):
            try:
                ended[at] = self.lifeline.wait(self.ray, task)
            except self.ray.exceptions.RayError as error:
                raise self.told(at, error) from None
        return [ended[at] for at in range(len(found))]

    def told(self, at: int, error: Exception) -> Exception:
        """The error of a shard, with its number."""
        if isinstance(error, ClusterError):
            return error
        if not isinstance(error, self.ray.exceptions.RayTaskError):
            return ClusterError(f"shard {at}: its worker died again and again: {line(error)}")
        cause: Exception = error.cause
        if isinstance(cause, GpubpError):
            more = "; more shards, which wait for their turn, are smaller" * isinstance(cause, OutOfMemoryError)
            return type(cause)(f"shard {at}: {cause}{more}")
        cause.add_note(f"in shard {at}")
        return cause

    def hear(self) -> None:
        """Report the shards' messages, and keep the record now and then."""
        self.open(self.lifeline.wait(self.ray, self.board.taken.remote(self.inbox.receipts())))
        self.together.tell()
        if time.monotonic() - self.saved > 60 * self.job.minutes:
            self.try_to_keep()

    def open(self, letters: Iterable[Letter]) -> None:
        """Take in the shards' messages."""
        for number, message in self.inbox.sorted(letters):
            if isinstance(message, Begun):
                self.tries.begin(number, *message)
            self.together.hear(number, message)

    def try_to_keep(self) -> None:
        """Write the record, or say why not: shards report themselves whether they can be saved."""
        try:
            self.keep()
        except CheckpointError as error:
            self.together.tell(f"{error}; it is retried as long as training continues")
            self.saved = time.monotonic()

    def keep(self) -> None:
        """Write the record."""
        self.record.history, self.record.seconds = self.together.history, self.together.seconds
        self.record.wait(self.folder, self.together.rounds)
        self.record.save(self.folder)
        self.push()
        self.saved = time.monotonic()

    def push(self) -> None:
        """Copy the record to the storage."""
        self.storage.push(self.folder, self.record.decided, self.held)
