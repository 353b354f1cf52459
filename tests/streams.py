"""The two streams of a GPU, played by the CPU: the one that trains and the one for copies. Each does what it was given
in order, and waits for the other where it was told to; all else is up to it, and so up to the one who plays.

What was given for copies is kept and done later: only copies in place may be among it, which need no memory. For
training, an engine gives the steps of a call; those of one that waits for the GPU are done before it returns.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from gpubp.engines import ENGINES
from gpubp.placing.compaction import Compaction
from gpubp.placing.shard import Shard
from gpubp.samples.data import Dataset
from gpubp.state import TrainState
from gpubp.system import gpus

Act = Callable[[], Any]


class Stream:
    """What was given so far, of which `done` is done. prompt: whether something new is done at once."""

    def __init__(self, prompt: Callable[[], bool]) -> None:
        self.prompt, self.done = prompt, 0
        self.given: list[Act] = []

    def give(self, act: Act) -> None:
        """Do it, some time."""
        self.given.append(act)
        if self.prompt():
            self.reach(len(self.given))

    def reach(self, mark: int) -> None:
        """Do the first `mark` things."""
        while self.done < mark:
            self.done += 1
            with _disable_current_modes():  # of who waits
                self.given[self.done - 1]()

    def wait_for(self, other: Stream) -> None:
        """What is given from now on is done after what the other was given so far."""
        mark = len(other.given)
        self.give(lambda: other.reach(mark))


class Beside(TorchDispatchMode):
    """Copies go to a stream; views are made at once; there is nothing else."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket is torch.ops.aten.copy_:
            self.stream.give(lambda: func(*args, **(kwargs or {})))
            return args[0]
        assert all(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns), func
        return func(*args, **(kwargs or {}))


class Between(TorchDispatchMode):
    """What is done around an engine's steps goes to the training stream: writes to memory that is there already; what
    else reads the networks is done at once, after all that was given. Who runs (bool) the host knows."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, returned = kwargs or {}, [each.alias_info for each in func._schema.returns]
        if any(alias is not None and alias.is_write for alias in returned):
            self.stream.give(lambda: func(*args, **kwargs))
            return kwargs.get("out", args[0])
        if None in returned and args[0].dtype != torch.bool:
            self.stream.reach(len(self.stream.given))
        return func(*args, **kwargs)


class Copies:
    """gpubp.system.gpus.Copies."""

    def __init__(self, streams: Streams) -> None:
        self.streams, self.stream = streams, Stream(streams.copies)

    def beside(self) -> Any:
        return Beside(self.stream)

    def follow(self) -> None:
        self.stream.wait_for(self.streams.training)

    def lead(self) -> None:
        self.streams.training.wait_for(self.stream)


class Streams:
    """copies, trains: whether the stream for copies, and that of a thread which trains, does at once what it is given.
    waits: how often the host waited for a stream, not counting engines and evaluations, which read numbers."""

    copies: Callable[[], bool]
    trains: Callable[[], bool]

    def __init__(self, reads: bool, engine: str) -> None:
        self.reads = reads
        self.made_by: dict[str, Callable[..., Any]] = {
            "to": TrainState.to, "room": Dataset.room, "evaluate": ENGINES[engine].evaluate
        }  # fmt: skip
        self.threads: dict[int, Stream] = {}
        self.waits = 0

    @property
    def training(self) -> Stream:
        """Of the thread that calls."""
        return self.threads.setdefault(threading.get_ident(), Stream(self.trains))

    def read(self) -> None:
        """The host waits for the training."""
        self.training.reach(len(self.training.given))

    def wait(self, device: torch.device) -> None:
        """gpubp.system.gpus.wait."""
        self.waits += 1
        self.read()

    def engine(self, run: Callable[..., None]) -> Callable[..., None]:
        """An engine that gives its steps and goes on; or that waits for them, as eager does, which reads numbers."""

        def give(*given: Any) -> None:
            self.training.give(lambda: run(*given))
            if self.reads:
                self.read()

        return give

    def between(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """A method that works around an engine's steps, in their stream."""

        def give(*given: Any) -> Any:
            with Between(self.training):
                return act(*given)

        return give

    def to(self, state: TrainState, device: torch.device) -> TrainState:
        """TrainState.to: the training stream writes what is new, so it may do so late."""
        made: TrainState = self.made_by["to"](state, device)
        pairs = [(mine, theirs) for (_, mine), (_, theirs) in zip(made.tensors(), state.tensors())]
        self.training.give(lambda: [mine.copy_(theirs) for mine, theirs in pairs])
        return made

    def room(self, data: Dataset, count: int, device: torch.device) -> Dataset:
        """Dataset.room, likewise."""
        made: Dataset = self.made_by["room"](data, count, device)
        self.training.give(lambda: [tensor.zero_() for tensor in made.each.values()])
        return made

    def evaluate(self, *given: Any) -> Any:
        """An evaluation, which reads numbers."""
        self.read()
        return self.made_by["evaluate"](*given)


PLAYERS = {"late copies": (0, 1), "early copies": (1, 0), "all late": (0, 0), "chance": (0.5, 0.5)}


@contextmanager
def streams(player: str, reads: bool = False, engine: str = "eager") -> Iterator[Streams]:
    """The CPU does at once, of copies and of training, the shares that PLAYERS has. reads: the engine waits for its
    steps."""
    played, chance = Streams(reads, engine), random.Random(player)
    played.copies, played.trains = ((lambda share=share: chance.random() < share) for share in PLAYERS[player])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpus, "Copies", lambda device: Copies(played))
        patch.setattr(gpus, "wait", played.wait)
        patch.setattr(TrainState, "to", lambda state, device: played.to(state, device))
        patch.setattr(Dataset, "room", lambda data, count, device: played.room(data, count, device))
        for owner, name in ((Compaction, "compact"), (Compaction, "look"), (Shard, "_take_home")):
            patch.setattr(owner, name, played.between(getattr(owner, name)))
        run = played.engine(ENGINES[engine].run)
        patch.setitem(ENGINES, engine, ENGINES[engine]._replace(run=run, evaluate=played.evaluate))
        yield played
