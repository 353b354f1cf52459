"""What reporters receive from all shards together: one progress, and a record of each evaluation of all networks.

A record is made when every shard has come to the end of its round, or of its training; figures wait until then. Figures
sent to a driver that has ended since are lost, as are the records that need them; networks are not.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..checkpoints.history import History
from ..reporters import Progress
from ..reporters.listeners import Listeners
from ..reporters.snapshot import Snapshot
from ..state import Status
from .meeting import LightRun, decisions, found_in
from .messages import Begun, Looked, Message, Tensors
from .shards import Shard


class Together:
    """runs: for reporters alone, as they were at the latest record; seconds: of training before this process. meetings:
    rounds whose records need a search's decisions, not yet taken; rounds: evaluations that some shards have sent
    already; stops: whether a search stops networks, so that the number of steps left is unknown."""

    def __init__(
        self, runs: Sequence[LightRun], shards: Sequence[Shard], listeners: Listeners, history: History, seconds: float,
        meetings: Iterable[int], rounds: Mapping[int, Mapping[int, Looked]], stops: bool = False,
    ) -> None:  # fmt: skip
        self.runs, self.shards, self.listeners, self.history = runs, shards, listeners, history
        self.progress, self.stops = [_at_rest(each.states) for each in decisions(0, runs, shards)], stops
        self.rounds = {number: dict(each) for number, each in rounds.items()}
        self.latest: list[Looked | None] = [None] * len(shards)
        for number in sorted(rounds):
            for shard, looked in rounds[number].items():
                self.latest[shard] = looked
        self.ended = [False] * len(shards)
        self.notes: list[str] = []
        self.meetings, self.number, self.after = {*meetings}, 0, runs
        self.begun, self.before = time.monotonic(), seconds
        self.seen = 0, self.seconds  # network-steps and seconds at the last evaluation, or when this process began
        self.taken = dict[int, int]()  # each shard's network-steps then

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.before + time.monotonic() - self.begun

    def hear(self, number: int, message: Message) -> None:
        """Take in a shard's message."""
        if isinstance(message, Begun):  # perhaps again, from its last checkpoint
            self.progress[number] = self.progress[number]._replace(done=message.done, rate=0.0)
            if number not in self.taken:
                self.taken[number], self.seen = message.done, (self.seen[0] + message.done, self.seen[1])
            return
        if isinstance(message, Progress):
            self.progress[number] = message
            new = [each for each in message.notes if each not in self.notes]
            self.tell(*new)
            return
        last = self.latest[number]
        if last is None or last.number < message.number:
            self.latest[number], self.ended[number] = message, False
        self.rounds.setdefault(message.number, {})[number] = message
        self.records()

    def rest(self, number: int, states: Sequence[Tensors], last: Looked) -> None:
        """A shard has come to the end of a phase, or of its training, with figures that stay."""
        self.progress[number] = _at_rest(states)
        if not self.progress[number].running:
            self.latest[number], self.ended[number] = last, True
            self.records()

    def tell(self, *notes: str) -> None:
        """Report progress, and notes for the user."""
        self.notes += notes
        done, rate, running, _, steps, left = zip(*self.progress)
        compiling = sum(left) * all(left)  # unless a shard trains already
        total = Progress(sum(done), sum(rate), sum(running), notes, 0 if self.stops else sum(steps), compiling)
        self.listeners.tell(lambda reporter: reporter.progress(total))

    def records(self) -> None:
        """Report the evaluations that all shards have had."""
        while self.rounds:
            number = min(self.rounds)
            told, stale = self.rounds[number], bool(self.history) and number <= self.history[-1]["round"]
            silent = [at for at in range(len(self.shards)) if at not in told]
            passed = [at for at in silent if (last := self.latest[at]) is not None and last.number >= number]
            waits = number in self.meetings or not all(self.ended[at] for at in silent)
            if waits and not (stale or passed):
                return
            del self.rounds[number]
            if not (stale or passed):
                ended = {at: last for at in silent if (last := self.latest[at]) is not None}
                self.record(number, [{**told, **ended}[at] for at in range(len(self.shards))])

    def record(self, number: int, looked: Sequence[Looked]) -> None:
        """Report the evaluation at the end of a round."""
        for shard, each in zip(self.shards, looked):
            for group, index, clocks in zip(shard.groups, shard.index, each.clocks):
                self.runs[group].state.put_in(index, clocks)
        found = found_in(self.runs, self.shards, looked)
        if number == self.number:
            self.rewrite()
            found = [each._replace(lr=run.learning_rate()) for run, each in zip(self.runs, found)]
        states = [run.state for run in self.runs]
        norms = torch.cat([each.norms for each in looked])
        networks = Snapshot(states, [run.rows for run in self.runs], found, lambda most: _some(norms, most))
        done, seconds = sum(int(each.step.sum()) for each in states), self.seconds
        rate = (done - self.seen[0]) / max(seconds - self.seen[1], 1e-6)
        self.seen = done, seconds
        networks.describe(number, seconds, done, rate, self.runs[0].metric_name)
        self.history.append(networks.record)
        self.listeners.looked(networks)

    def decided(self, number: int, runs: Sequence[LightRun]) -> None:
        """A search has changed networks at the end of the round `number`."""
        self.meetings.discard(number)
        self.number, self.after = number, runs
        self.records()
        self.rewrite()

    def rewrite(self) -> None:
        """Bring decisions into `runs`."""
        for mine, theirs in zip(self.runs, self.after):
            mine.state.put_in(torch.arange(len(mine.rows)), dict(theirs.state.tensors()))


def _at_rest(states: Sequence[Tensors]) -> Progress:
    """The progress of a shard whose networks, in these states, do not train at present."""
    step, end, status = (torch.cat([each[name] for each in states]) for name in ("step", "end", "status"))
    running = status == Status.running
    return Progress(int(step.sum()), 0.0, int(running.sum()), steps=int(torch.where(running, end, step).sum()))


def _some(norms: Tensor, most: int) -> Tensor:
    """Up to `most` of the norms, evenly spaced."""
    count = min(most, len(norms))
    return norms[torch.arange(count) * len(norms) // max(1, count)]
