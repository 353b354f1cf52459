"""What a worker does with a shard: train it to a meeting point or to its end, give rows to other shards, take theirs.

A shard is a run of its own below the whole run's directory: the usual Loop with the usual checkpoints, from which it
continues wherever it is retried. At a meeting point, the checkpoint is from the end of the round's steps, before the
evaluation: loading it gives the same figures again.
"""

import math
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import memory
from ..checkpoints import checkpoint, curves
from ..checkpoints.curves import Losses
from ..checkpoints.stored import SHARDS, is_row
from ..errors import CheckpointError, DeviceError
from ..resumed.resume import runs_of
from ..runs.loop import Loop
from ..runs.making import Maker
from ..runs.run import Sets
from ..runs.saving import Saving
from ..runs.signals import collected
from ..settings.config import TrainConfig
from ..state import TrainState
from ..system import lock
from ..system.ambient import HOME, neutral
from ..system.devices import devices
from .messages import NONE, Decision, End, Herald, Looked, Message, Report, Tensors, clocks, light
from .shards import Job, Part, Shard, learn
from .storage import Storage


@dataclass(kw_only=True)
class Copied(Saving):
    """A Saving whose checkpoints are copied to the folder `where` of the storage. phase, held: as in push(); rows: of
    each part's networks in the results, as their curves need."""

    storage: Storage
    phase: int
    held: list[str]
    rows: Sequence[Tensor]
    where: str = ""

    @property
    def name(self) -> str:
        """See Saving."""
        return self.storage.path

    def write(self) -> None:
        """Write a checkpoint, and copy it. Raises CheckpointError."""
        super().write()
        self.where = self.storage.push(self.run_dir, self.phase, self.held)

    def draw(self, number: int, found: Iterable[Losses]) -> None:
        """See Saving."""
        super().draw(number, (each._replace(rows=rows) for each, rows in zip(found, self.rows)))


@dataclass(kw_only=True)
class ShardLoop(Loop):
    """The loop of a shard. Its only reporter is a Herald."""

    job: Job
    shard: Shard

    def phase(self, decision: Decision | None, last: int | None) -> Report:
        """Continue from `decision`, which the checkpoint may have already, to the end of the round `last`, or to the
        end. Raises CheckpointError if it cannot be saved: other shards rely on the checkpoint."""
        with collected() as self.signals:
            self.begin()
            if decision is not None and self.number == decision.number and self.at_rest():
                self.apply(decision, [])
            self.rounds(math.inf if last is None else last)
            return self.report(last)

    def report(self, last: float | None) -> Report:
        """Save, evaluate, and report all that others need."""
        self.save()
        looked, over = None, last is None or bool(self.signals)
        if not self.signals:
            self.at_rest()
            looked = self.told(last)
        states = [light(run.state) for run in self.runs]
        end = self.ended() if over else None
        return Report(looked, states, end, self.signals, self.done - self.taken, self.step_seconds, self.notes)

    def ended(self) -> End:
        """What is saved, with its figures."""
        assert isinstance(self.saving, Copied)
        file, digest = checkpoint.tensors(self.saving.run_dir)
        notes = [run.saved().notes for run in self.runs]
        figures = self.crew.each(self.runs, lambda run, tell: self.figures(run), self.called)
        where = f"{SHARDS}/{self.shard.number}/{self.saving.where}"
        named = {"file": f"{where}{file}", "sha256": digest, "networks": self.shard.networks(self.job.shards)}
        return End(figures, notes, named, f"{where}{curves.FILE}")

    def told(self, last: float | None) -> Looked:
        """The evaluation at the end of the round `last`, or of networks that have ended and are in no round."""
        herald = self.reporters[0]
        assert isinstance(herald, Herald)
        if herald.latest is not None and herald.latest.number == last:
            return herald.latest
        found = self.crew.each(self.runs, lambda run, tell: run.look(), self.called)
        return Looked(self.number, [clocks(run.state) for run in self.runs], found, NONE)

    def at_rest(self) -> bool:
        """Evaluate, if the networks are at the end of a round and have not been evaluated. -> whether that was so."""
        complete = any(run.open for run in self.runs) and not any(run.pace.left for run in self.runs)
        if complete:
            self.look()
        return complete

    def apply(self, decision: Decision, rows: Sequence[tuple[int, Tensor, Tensors]]) -> None:
        """Write what was decided, and `rows` of other shards: (part, its networks (K,), their tensors)."""
        for at, run in enumerate(self.runs):

            def change(state: TrainState, at: int = at) -> None:
                mine = dict(state.tensors())
                for name, values in decision.states[at].items():
                    mine[name].copy_(values)
                for _, target, theirs in (each for each in rows if each[0] == at):
                    for name, values in theirs.items():
                        mine[name][target] = values

            run.rewrite(change)
            run.number, run.open, run.pace.running = decision.number, False, int(run.state.running.sum())

    def save(self) -> None:
        """Write a checkpoint. Raises CheckpointError."""
        assert self.saving is not None
        self.saving.save()
        if self.saving.unsaved is not None:
            raise CheckpointError(self.saving.unsaved)


@neutral()
def train(
    job: Job, shard: Shard, sets: Sets, phase: int, decision: Decision | None, last: int | None,
    tell: Callable[[Message], object],
) -> Report:  # fmt: skip
    """Train a shard up to the round `last`, or to its end."""
    with _opened(job, shard, sets, phase, tell) as loop:
        return loop.phase(decision, last)


@neutral()
def show(job: Job, shard: Shard, sets: Sets, phase: int) -> Report:
    """A shard's report as it is, if a signal has ended the run before the shard began, or after it came to rest."""
    with _opened(job, shard, sets, phase, lambda _: None) as loop:
        loop.signals = [signal.SIGINT]
        loop.begin()
        loop.taken = 0  # evaluates what has trained before
        return loop.report(0)


@neutral()
def give(job: Job, shard: Shard, sets: Sets, wanted: Sequence[Mapping[int, Tensor]]) -> Any:
    """Rows of a shard at a meeting point, for each of `wanted`, or the only one: networks (K,) by group."""
    with (job.storage / str(shard.number)).folder() as folder:  # without its lock: the shard may be taking rows itself
        loop = _loop(job, shard, sets, folder, lambda _: None, begun=True)
        loop.begin()
        loop.at_rest()
        for run in loop.runs:
            run.place.gather()
        wide = [{name: each for name, each in run.state.tensors() if is_row(name)} for run in loop.runs]
        at = {group: part for part, group in enumerate(shard.groups)}
        found = [
            {group: {name: each[index] for name, each in wide[at[group]].items()} for group, index in some.items()}
            for some in wanted
        ]
        return found if len(found) > 1 else found[0]


@neutral()
def take(
    job: Job, shard: Shard, sets: Sets, phase: int, decision: Decision, targets: Sequence[Mapping[int, Tensor]],
    *given: Mapping[int, Tensors],
) -> None:  # fmt: skip
    """Take the decision of a meeting point, with rows of other shards for networks (K,) of some groups, and save."""
    at = {group: part for part, group in enumerate(shard.groups)}
    rows = [
        (at[group], index, theirs[group]) for target, theirs in zip(targets, given) for group, index in target.items()
    ]
    with _opened(job, shard, sets, phase, lambda _: None) as loop:
        loop.begin()
        loop.at_rest()
        loop.apply(decision, rows)
        loop.save()


@neutral()
def fit(
    parts: Sequence[Part], sets: Sets, engine: str, device: str, folds: bool, looks: bool, rules: Mapping[str, Any]
) -> tuple[list[tuple[TrainConfig, str, str]], list[str]]:
    """For each group its configuration, fitted to the data, and its engine on this machine, with the reason; and notes
    for the user."""
    learn(rules)
    maker = Maker(sets, engine, _found(device), folds, looks)
    found = []
    for part in parts:
        some = part.take(torch.zeros(1, dtype=torch.int64)).made()
        config, choice = maker.fit(some._replace(config=part.config))
        found.append((config, choice.name, choice.reason))
    return found, maker.notes


def _found(device: str) -> list[torch.device]:
    """See devices(). Raises DeviceError with the name of this machine: others may have what it lacks."""
    try:
        return devices(device)
    except DeviceError as error:
        raise DeviceError(f"machine {socket.gethostname()}: {error}") from None


@contextmanager
def _opened(job: Job, shard: Shard, sets: Sets, phase: int, tell: Callable[[Message], object]) -> Iterator[ShardLoop]:
    """The loop of a shard, which saves itself. A process thought dead that still writes the shard is stopped."""
    storage = job.storage / str(shard.number)
    held = storage.saves()
    with storage.folder() as folder:
        lock.file(folder).parent.mkdir(parents=True, exist_ok=True)
        with lock.held(folder, force=True):
            loop = _loop(job, shard, sets, folder, tell, begun=phase > 0)
            loop.saving = saving = Copied(
                folder, job.minutes, loop.saved, loop.noted, loop.note, storage=storage, phase=phase, held=held,
                rows=shard.rows,
            )  # fmt: skip
            try:
                with memory.explained([run.shape for run in loop.runs], loop.runs[0].where[0]):
                    yield loop
            finally:
                saving.wait()


def _loop(
    job: Job, shard: Shard, sets: Sets, folder: Path, tell: Callable[[Message], object], begun: bool
) -> ShardLoop:
    """The loop of a shard, from its newest checkpoint if there is one; it writes nothing. begun: whether there must be
    one, as decisions have been made. Raises CheckpointError."""
    learn(job.rules)
    where = _found(job.device)
    if where == [HOME]:
        torch.set_num_threads(job.threads)
    settings, more = {"shard": shard.number}, dict[str, Any]()
    if checkpoint.exists(folder):
        saved = checkpoint.load(folder, HOME)
        runs = runs_of(folder, saved, sets, where)
        more = {name: saved.notes[name] for name in ("history", "seconds")} | {"notes": [*saved.told]}
    elif begun:
        raise CheckpointError(
            f"{(job.storage / str(shard.number)).path} has no checkpoint any more: run_dir on storage that all "
            "machines share expected"
        )
    else:
        runs = []
        for part, rows, group in zip(shard.parts, shard.local, shard.groups):
            maker = Maker(sets, job.engines[group], where, job.folds, looks=True)
            runs += maker.runs([part.made()._replace(rows=rows)])
    reporters = (Herald(tell, job.norms),)
    return ShardLoop(runs, reporters, None, job.minutes, settings, **more, job=job, shard=shard)
