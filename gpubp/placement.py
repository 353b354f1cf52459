"""Where a population trains: where it lies, or with its rows shared over GPUs.

The loop (loop.py) sees one state. Where GPUs train, it is at home in the processor's memory, and each GPU keeps its
share of the rows, and the data of those alone; between calls only what the loop looks at goes to and fro, a few numbers
per network. The rows come home for a checkpoint and at the end. A share that does not fit trains in groups, one after
the other, which wait at home, and each network's own data with them. A network's numbers are its own, so no bit depends
on how many GPUs there are, nor on the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

import torch

from . import cuda, memory
from .data import Dataset
from .engines import Choice, build, graph
from .errors import ConfigError, OutOfMemoryError
from .evaluate import Evaluation, evaluate
from .population import usable
from .state import TrainState

Devices = str | torch.device | Sequence[str | torch.device]
ALL = "cuda:all"
HOME = torch.device("cpu")
ROWS = ("params", "slots")  # what a GPU keeps; the names are those of TrainState.tensors()
LOOPS = ("limit", "plateau")  # what the loop alone changes
CLOCKS = ("columns", "step", "status", "loss", "total", "diverged_step")  # what both may change
Found = TypeVar("Found")


def devices(given: Devices) -> list[torch.device]:
    """The devices by name: "cpu", "cuda", "cuda:1", "cuda:all" for every GPU, or several of one kind. Raises
    DeviceError for what is not here, ConfigError for CPU and GPU together."""
    if isinstance(given, str) and given == ALL:
        usable("cuda")
        return [torch.device("cuda", number) for number in range(cuda.count())]
    names = [given] if isinstance(given, (str, torch.device)) else list(given)
    found = [usable(each) for each in names]
    if len({each.type for each in found}) != 1:
        raise ConfigError(f"device {given!r}: one or more of the same kind expected, GPUs or the CPU")
    return found


def automatic() -> tuple[str, str]:
    """What --device auto takes, and the sentence that says so: a GPU where there is one, so that nobody's other GPUs
    are taken without being asked for."""
    missing = cuda.missing()
    if missing is not None:
        return "cpu", f"device cpu: {missing}"
    device = usable("cuda")
    others = f"; --device {ALL} takes all {cuda.count()}" if cuda.count() > 1 else ""
    return str(device), f"device {device}: {cuda.name(device)}{others}"


class Place(Protocol):
    """What the loop asks for."""

    def run(self, steps: int) -> list[str]:
        """Advance every running network by up to `steps` steps, not beyond its limit. -> what a person should know."""

    def evaluate(self, data: Dataset) -> Evaluation:
        """The networks as they are, on one of the datasets that the place was made with."""

    def news(self) -> list[str]:
        """What a person should know, and was not told."""

    def gather(self) -> None:
        """Bring the rows home."""


def placed(state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device]) -> Place:
    """`state` on the devices `where`, or as it is where that is the one on which it lies. data: to train on, then
    others to evaluate on."""
    if list(where) == [state.population.device]:
        return Home(state, data[0], choice)
    return Shards(state, data, choice, where)


class Home:
    """A population that trains where it lies."""

    def __init__(self, state: TrainState, data: Dataset, choice: Choice) -> None:
        self.state, self.data, self.choice = state, data, choice

    def run(self, steps: int) -> list[str]:
        """See Place."""
        self.choice.run(self.state, self.data, steps)
        return build.news()

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Place."""
        state = self.state
        return evaluate(state.population, data, state.hyper, state.position, self.choice.outs)

    def news(self) -> list[str]:
        """See Place."""
        return build.news()

    def gather(self) -> None:
        """They are here."""


class Shards:
    """A population whose rows are shared over devices, a thread for each."""

    def __init__(
        self, state: TrainState, data: Sequence[Dataset], choice: Choice, where: Sequence[torch.device]
    ) -> None:
        self.state, self.pinned = state, where[0].type != "cuda"  # nothing to pin for a CPU
        count, each = state.population.count, -(-state.population.count // len(where))
        sizes = [_fitting(state, each, device, data) for device in where]
        parts = [slice(first, min(first + each, count)) for first in range(0, count, each)]
        self.shards = [
            Shard(state.rows(part), data, part, choice, device, size) for part, device, size in zip(parts, where, sizes)
        ]
        self.pool = ThreadPoolExecutor(len(self.shards), "gpubp")

    def run(self, steps: int) -> list[str]:
        """See Place."""
        if not self.pinned and any(shard.size < shard.count for shard in self.shards):
            self._pin_rows()
        return [note for notes in self.pool.map(lambda shard: shard.run(steps), self.shards) for note in notes]

    def _pin_rows(self) -> None:
        """From now on some shards have groups, whose rows go to and fro."""
        self.pinned = True
        _pin(self.state)
        for shard in self.shards:
            shard.home = self.state.rows(shard.part)

    def news(self) -> list[str]:
        """See Place."""
        return [note for shard in self.shards for note in shard.news()]

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Place."""
        found = list(self.pool.map(lambda shard: shard.evaluate(data), self.shards))
        return Evaluation(*(torch.cat(each) for each in zip(*found)))

    def gather(self) -> None:
        """See Place."""
        for shard in self.shards:
            shard.gather()


class Shard:
    """Rows of a population, at home in `home` (views of the whole), that train on `device`: all of them at once, and
    then they and their data stay there, or in groups of `size` where memory is short. part: which rows of the whole."""

    def __init__(
        self, home: TrainState, data: Sequence[Dataset], part: slice, choice: Choice, device: torch.device, size: int
    ) -> None:
        self.home, self.part, self.choice, self.device, self.size = home, part, choice, device, size
        self.count = home.population.count
        self.there: TrainState | None = None  # the networks on the device, where they stay
        self.training = data[0]
        self.data = {id(each): each.part(part) for each in data}
        self.sent: dict[int, Dataset] = {}  # what of it is on the device
        self.notes: list[str] = []
        self.reason: str | None = None
        if size < self.count:
            self._tell("memory is short there")

    def run(self, steps: int) -> list[str]:
        """See Place. What was trained when memory ran out is not trained again: a call ends at `until`."""
        until = torch.minimum(self.home.step + steps, self.home.limit)

        def advance(state: TrainState, part: slice) -> None:
            state.limit.copy_(until[part])
            self.choice.run(state, self._data(self.training, part), steps)

        self._each(advance)
        return self.news()

    def news(self) -> list[str]:
        """See Place."""
        sent = self.sent.get(id(self.training))
        why = None if sent is None else graph.reason(sent)
        if why != self.reason and why is not None:
            self.notes.append(f"{self.device}: every operation is launched by itself, without a CUDA graph: {why}")
        self.reason = why
        told, self.notes = [*self.notes, *build.news()], []
        return told

    def evaluate(self, data: Dataset) -> Evaluation:
        """See Place."""
        home = self.home.population.device

        def figures(state: TrainState, part: slice) -> Evaluation:
            there = self._data(data, part)
            found = evaluate(state.population, there, state.hyper, state.position, self.choice.outs)
            return Evaluation(found.loss.to(home), found.metric.to(home))

        return Evaluation(*(torch.cat(each) for each in zip(*self._each(figures))))

    def gather(self) -> None:
        """See Place."""
        if self.there is not None:
            _copy(self.there, self.home, ROWS)
            cuda.wait(self.device)

    def _each(self, work: Callable[[TrainState, slice], Found]) -> list[Found]:
        """work(networks on the device, where they stand at home) for every group; in smaller groups from where memory
        runs out on."""
        while True:
            try:
                with cuda.on(self.device):
                    return [self._group(work, slice(first, first + self.size)) for first in self._firsts()]
            except (torch.OutOfMemoryError, OutOfMemoryError):
                if self.size == 1:
                    raise
            self._halve()  # not before the exception is gone, which holds what could not be held

    def _firsts(self) -> range:
        return range(0, self.count, self.size)

    def _group(self, work: Callable[[TrainState, slice], Found], part: slice) -> Found:
        home = self.home.rows(part)
        if self.there is None:
            state = home.to(self.device)
            state.position = state.position - state.position[0]  # in what _data() gives
        else:
            state = self.there
            _copy(home, state, CLOCKS + LOOPS)
        if self.size >= self.count:
            self.there = state
        found = work(state, part)
        _copy(state, home, CLOCKS if self.there is not None else CLOCKS + ROWS)
        cuda.wait(self.device)
        return found

    def _data(self, whole: Dataset, part: slice) -> Dataset:
        """The data of a group on the device: they stay there, but for those of each network's own where there are
        several groups: these take turns in one place, so that a recording that reads it serves all."""
        key, home = id(whole), self.data[id(whole)]
        turns = self.size < self.count and home.networks is not None
        if turns and key not in self.sent:
            if self.device.type == "cuda":
                self.data[key] = home = home.pinned()
            self.sent[key] = home.room(self.size, self.device)
        elif key not in self.sent:
            self.sent[key] = home.to(self.device, self.home.population.params.dtype)
        if turns:
            self.sent[key].load(home.part(part))
        return self.sent[key]

    def _halve(self) -> None:
        """Smaller groups. What a call has reached so far comes home, each network at its own step."""
        if self.there is not None:
            _copy(self.there, self.home, CLOCKS + ROWS)
            cuda.wait(self.device)
            self.there = None
        self.sent = {key: data for key, data in self.sent.items() if data.networks is None}
        self.size = -(-min(self.size, self.count) // 2)
        cuda.release(self.device)
        self._tell("memory ran out there")

    def _tell(self, why: str) -> None:
        self.notes.append(
            f"{self.device}: {why}; its {self.count:,} networks train in {len(self._firsts())} groups of up to "
            f"{self.size:,}, one after the other; results do not depend on it"
        )


def _fitting(state: TrainState, count: int, device: torch.device, data: Sequence[Dataset]) -> int:
    """How many of `count` networks `device` holds at once. Raises OutOfMemoryError where it does not hold one."""
    population = state.population
    shape = population.spec, state.config
    fit = memory.fit(*shape, population.params.element_size(), device, data)
    if fit < 1:
        raise OutOfMemoryError(memory.message(*shape, count, population.params.element_size(), device, data))
    return min(count, fit)


def _pin(state: TrainState) -> None:
    """The rows in memory that a GPU reads by itself."""
    state.population = replace(state.population, params=cuda.pinned(state.population.params))
    state.slots = [cuda.pinned(slot) for slot in state.slots]


def _copy(source: TrainState, target: TrainState, names: tuple[str, ...]) -> None:
    """The tensors whose names, up to a dot, are `names`."""
    for (name, mine), (_, theirs) in zip(target.tensors(), source.tensors()):
        if name.partition(".")[0] in names:
            mine.copy_(theirs, non_blocking=True)
