"""Shard: some rows of a population on one device.

The device keeps them, and only their data. Between calls, only what the loop reads is copied, a few numbers per
network; the rows are copied to host memory ("home") for a checkpoint and at the end. Rows that do not fit train in
groups, one after another, which wait at home with their data and are copied while another group trains (turns.py); no
bit depends on it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .. import memory
from ..engines import Choice, cache, graph
from ..errors import OutOfMemoryError
from ..evaluate import Evaluation
from ..samples.data import Dataset
from ..state import TrainState
from ..system import gpus
from .compaction import CLOCKS, LOOPS, ROWS, Compaction, copy
from .turns import SEATS, Found, Group, groups, take_turns

Names = tuple[str, ...]
CHANGED = ("params", "slots", *CLOCKS)  # by training a group
TRAINED = (*CHANGED, *LOOPS, "ids", "hyper", "end")  # needed to train a group
SEEN = ("params", "hyper")  # needed by an evaluation


class Shard:
    """Rows of a population, in host memory in `home` (views of the whole), that train on `device`: all at once, staying
    there with their data, or in groups of `size` that take turns if memory is short. part: their rows in the whole;
    stream: the number of the stream in which they train, None for the present one."""

    def __init__(
        self, home: TrainState, data: Sequence[Dataset], part: slice, choice: Choice, device: torch.device, size: int,
        stream: int | None = None,
    ) -> None:  # fmt: skip
        self.home, self.part, self.choice = home, part, choice
        self.device, self.size, self.stream, self.count = device, size, stream, home.population.count
        self.until = home.limit.clone()  # the last step of a call
        self.copies = gpus.Copies(device)
        self.there: TrainState | None = None  # the networks on the device, or the seats of two groups
        self.networks: Compaction | None = None  # of `there`, if all networks are on the device
        self.training = data[0]
        unique, inverse = home.position.unique(return_inverse=True)
        # whether some networks share data, such as a fold's, that not all have; such data stay on the device
        self.shared = len(unique) < self.count and any(each.networks is not None for each in data)
        self.data = {id(each): each.take(unique if self.shared else home.position) for each in data}
        self.position = inverse if self.shared else torch.arange(self.count)  # in the data on the device
        self.sent: dict[int, Dataset] = {}  # its parts on the device
        self.ahead = False  # whether rows on the device are newer than at home
        self.under_way: deque[Callable[[], None]] = deque()  # waits for the last calls, not yet seen at home
        self.read: Callable[[], object] = lambda: None  # see Shards.leave
        self.notes: list[str] = []
        self.reason: str | None = None
        if not self.stays:
            self._tell("memory is short there")
        if told := in_tf32(choice, home.population.params.dtype, device):
            self.notes.append(told)

    @property
    def stays(self) -> bool:
        """Whether all rows are on the device at once."""
        return self.size >= self.count

    def run(self, steps: int) -> list[str]:
        """See Shards. After memory ran out no step is repeated: a call ends at `until`."""
        self.ahead = True
        if self.stays and self.choice.name == "cuda" and self._launch(steps):
            return self.news()
        torch.minimum(self.home.step + steps, self.home.limit, out=self.until)
        self._each(lambda networks, data: networks.advance(data, steps), self.training, TRAINED, CHANGED)
        return self.news()

    def _launch(self, steps: int) -> bool:
        """A call of an engine that does not wait, with the clocks where they are now: at home before the first call and
        after look(), else on the device. -> False if memory ran out: nothing was trained."""
        try:
            with gpus.on(self.device, self.stream):
                networks, data = self._networks(), self._data(self.training)
                if not self.under_way:
                    copy(self.home, networks.state, CLOCKS + LOOPS)
                    networks.compact(self.home.running)
                networks.advance(data, steps)
                self.under_way.append(gpus.mark(self.device))
                if len(self.under_way) > 2:  # the host is at most two calls ahead
                    self.under_way.popleft()()
                return True
        except (RuntimeError, MemoryError, OutOfMemoryError) as error:
            if not memory.ran_out(error):
                raise
        self.look()
        self._halve()
        return False

    def news(self) -> list[str]:
        """See Shards."""
        why = graph.reason(sent) if (sent := self.sent.get(id(self.training))) else None
        if why != self.reason and why is not None:
            self.notes.append(f"{self.device}: operations are launched one by one, without a CUDA graph: {why}")
        self.reason = why
        news, self.notes = [*self.notes, *cache.news()], []
        return news

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Shards."""
        home = self.home.population.device

        def figures(networks: Compaction, there: Dataset) -> Evaluation:
            found = networks.evaluate(there)
            return Evaluation(found.loss.to(home), found.metric.to(home))

        return Evaluation(*(torch.cat(each) for each in zip(*self._each(figures, data, SEEN, ()))))

    def look(self) -> None:
        """See Shards."""
        away = bool(self.under_way)
        while self.under_way:
            self.under_way.popleft()()  # waits for the worker's stream, not this thread's
        if self.networks is not None and away:
            with gpus.on(self.device, self.stream):
                self._take_home(self.networks, CLOCKS)

    def _take_home(self, networks: Compaction, names: Names) -> None:
        """Bring these tensors of all networks to host memory."""
        networks.gather() if set(ROWS) <= set(names) else networks.look()
        copy(networks.state, self.home, names)
        gpus.wait(self.device)

    def gather(self) -> None:
        """See Shards."""
        self.look()
        if self.networks is not None and self.ahead:
            with gpus.on(self.device, self.stream):
                self._take_home(self.networks, ROWS)
        self.ahead = False

    def sample(self, most: int) -> TrainState:
        """See Shards."""
        with gpus.on(self.device):
            found = self._present().sample(most)
            gpus.wait(self.device)
        return found

    def keep(self, better: Tensor) -> None:
        """See Shards."""
        with gpus.on(self.device, self.stream):
            self._present().keep(better)

    def exchange(self, some: Tensor) -> None:
        """See Shards."""
        with gpus.on(self.device, self.stream):
            self._present().exchange(some)
        self.ahead = True

    def _present(self) -> Compaction:
        """The networks where their present rows are: on the device, or at home if they take turns there."""
        return self.networks or Compaction(self.home, self.choice)

    def _each(
        self, work: Callable[[Compaction, Dataset], Found], data: Dataset, come: Names, leave: Names
    ) -> list[Found]:
        """work(networks on the device, with home's steps, their data there) for every group; in smaller groups after
        memory runs out. come, leave: the tensors copied in and out; if all rows stay, only clocks."""
        while True:
            try:
                with gpus.on(self.device, self.stream):
                    return self._turns(work, data, come, leave)
            except (RuntimeError, MemoryError, OutOfMemoryError) as error:
                if self.size == 1 or not memory.ran_out(error):
                    raise
            self._halve()  # only now, as the exception keeps tensors alive

    def _turns(
        self, work: Callable[[Compaction, Dataset], Found], data: Dataset, come: Names, leave: Names
    ) -> list[Found]:
        """See _each()."""
        if self.stays:
            come = tuple(name for name in come if name in CLOCKS + LOOPS)
            leave = tuple(name for name in leave if name in CLOCKS)
        home, there, sent = replace(self.home, limit=self.until), self._seats(), self._data(data)
        own = self.data[id(data)]

        def bring(group: Group) -> None:
            copy(home.rows(group.part), there.rows(group.seat), come)
            if self.stays:
                return
            if self.shared:
                there.rows(group.seat).position.copy_(self.position[group.part], non_blocking=True)
            elif own.networks is not None:
                sent.part(group.seat).load(own.part(group.part))

        def working(group: Group) -> Found:
            if not self.stays:
                return work(Compaction(there.rows(group.seat), self.choice), sent)
            networks = self._networks()
            if come:
                networks.compact(home.running)
            found = work(networks, sent)
            networks.look()
            return found

        def take_home(group: Group) -> None:
            copy(there.rows(group.seat), home.rows(group.part), leave)

        return take_turns(groups(self.count, self.size), self.device, self.copies, bring, working, take_home)

    def _networks(self) -> Compaction:
        """All networks, on the device."""
        if self.networks is None:
            self.networks = Compaction(self._seats(), self.choice)
        return self.networks

    def _seats(self) -> TrainState:
        """The networks on the device: all, or the buffers of two groups."""
        if self.there is None:
            there = self.home.rows(slice(0, SEATS * self.size)).to(self.device)
            there.position.copy_(self.position[: len(there.position)])
            self.there = there
        return self.there

    def _data(self, whole: Dataset) -> Dataset:
        """The data on the device, which stay there; or, if groups take turns, a buffer with two seats for separate
        data, so that one recording serves all groups."""
        key, home = id(whole), self.data[id(whole)]
        if key not in self.sent and (self.stays or self.shared or home.networks is None):
            self.sent[key] = home.to(self.device, self.home.population.params.dtype)
        elif key not in self.sent:
            if self.device.type == "cuda":
                self.data[key] = home = home.pinned()
            self.sent[key] = home.room(min(SEATS * self.size, self.count), self.device)
        return self.sent[key]

    def _halve(self) -> None:
        """Halve the groups. The progress of the call so far is copied home, each network at its step."""
        self.read()
        if self.networks is not None:
            self._take_home(self.networks, CLOCKS + ROWS)
        self.there = self.networks = None
        self.sent = {key: data for key, data in self.sent.items() if data.networks is None}
        self.size = -(-min(self.size, self.count) // 2)
        gpus.release(self.device)
        self._tell("memory ran out there")

    def _tell(self, why: str) -> None:
        number = len(groups(self.count, self.size))
        self.notes.append(
            f"{self.device}: {why}; its {self.count:,} networks train in {number} groups of up to {self.size:,}, one "
            "after the other; results do not depend on it"
        )


def in_tf32(choice: Choice, dtype: torch.dtype, device: torch.device) -> str | None:
    """A note if torch rounds the float32 products of `choice` to TF32, else None."""
    if choice.name != "eager" or dtype != torch.float32 or device.type != "cuda" or not gpus.tf32():
        return None
    return (
        f"{device}: torch is set to multiply in TF32; after "
        'torch.set_float32_matmul_precision("highest") it multiplies in float32'
    )
