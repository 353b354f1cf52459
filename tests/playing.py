"""A GPU played by the CPU: the same kernel text compiled by the C++ compiler behind play.h, the module of the driver's
calls replaced by one that records every launch and plays it."""

import ctypes
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gpubp.engines import build, cuda, nvrtc
from gpubp.engines.chip import Limits
from gpubp.engines.device import Function
from gpubp.engines.layout import Layout
from gpubp.placing import shard
from gpubp.samples.data import Dataset
from gpubp.state import TrainState
from gpubp.system import ambient
from gpubp.system import gpus as calls

HEADER = Path(__file__).parent / "play.h"
H100 = Limits(90, 227 << 10)
ONE = threading.Lock()  # play.h plays one grid at a time
WRONG = ("", "a barrier that not all threads came to", "a write beyond the shared memory that was asked for",
         "a turn that never comes")  # fmt: skip
ORDERS = ("ascending", "descending", "shuffled")


class WrongError(Exception):
    """What a player noticed."""


class Launch(NamedTuple):
    """What was launched."""

    text: str
    blocks: int
    threads: int
    shared: int
    job: Any
    end: cuda.End
    device: torch.device
    stream: int | None


class Player:
    """engines/device.py without a device; resident: blocks that run at once; order: the one of ORDERS in which blocks
    begin, or None: each in turn."""

    def __init__(self, limits: Limits = H100, resident: int = 2, order: str | None = None) -> None:
        self.found, self.resident, self.launches, self.present = limits, resident, [], threading.local()
        self.order = order

    def limits(self, device: torch.device) -> Limits:
        return self.found

    def on_a_gpu(self, tensor: Tensor) -> bool:
        return True

    def load(self, code: bytes, threads: int, shared: int, device: torch.device) -> Function:
        assert shared <= self.found.block
        return Function(code.decode(), self.resident)

    def Launch(
        self, function: Function, threads: int, shared: int, given: Sequence[Any], device: torch.device
    ) -> Callable[[int], None]:
        def launch(blocks: int) -> None:
            job, end = given
            copies = type(job).from_buffer_copy(job), cuda.End.from_buffer_copy(end)
            stream = getattr(self.present, "stream", None)
            launched = Launch(function.handle, blocks, threads, shared, *copies, device, stream)
            self.launches.append(launched)
            self.play(launched)

        return launch

    def play(self, launch: Launch) -> None:
        job, end = ctypes.byref(launch.job), ctypes.byref(launch.end)
        order = len(self.launches) % len(ORDERS) if self.order is None else ORDERS.index(self.order)
        with ONE:  # and several GPUs' kernel is compiled once
            played = build.library(f'#include "{HEADER}"\n{launch.text}PLAY\n').play
            played.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4]
            wrong = WRONG[played(job, end, launch.blocks, launch.threads, launch.shared, order)]
        if wrong:
            raise WrongError(wrong)


def flat(text: str) -> str:
    """A kernel's text with the sources of kernel/ in it."""

    def source(match: re.Match[str]) -> str:
        once, text = re.sub(r"\W", "_", match[1]), (build.SOURCES / match[1]).read_text(encoding="utf-8")
        return f"#ifndef {once}\n#define {once}\n{whole(text.replace('#pragma once', ''))}\n#endif\n"

    def whole(text: str) -> str:
        return re.sub(r'#include "([\w/]+\.h)"', source, text)

    return whole(text)


@contextmanager
def playing(player: Player, layout: Layout | None = None, local: int = 0) -> Iterator[Player]:
    """The GPU engine with `player` for a device, and this layout for a while. local: bytes that a thread spills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "device", player)
        patch.setattr(cuda, "KERNELS", {})
        patch.setattr(cuda, "CALLS", type(cuda.CALLS)())
        patch.setattr(cuda, "LAYOUT", layout)
        patch.setattr(nvrtc, "cubin", lambda text, arch: text.encode())
        patch.setattr(nvrtc, "use", lambda code: nvrtc.Use(64, local))
        yield player


class Machine:
    """GPUs whose memory is the processor's. sent: what went to and fro, in order: the names of a state's tensors, or
    "data", and bytes; on: the devices whose work threads took up; pinned: bytes that were pinned."""

    def __init__(self, count: int, free: int) -> None:
        self.count, self.free, self.player = count, free, Player()
        self.sent: list[tuple[Any, int]] = []
        self.on: set[tuple[str, str]] = set()
        self.pinned = 0

    @contextmanager
    def enter(self, device: torch.device, stream: int | None = None) -> Iterator[None]:
        """gpubp.system.gpus.on."""
        present, before = self.player.present, getattr(self.player.present, "stream", None)
        self.on.add((threading.current_thread().name, str(device)))
        present.stream = before if stream is None else stream
        yield
        present.stream = before

    def pin(self, tensor: Tensor) -> Tensor:
        """gpubp.system.gpus.pinned."""
        self.pinned += tensor.nbytes
        return tensor.clone()

    def send(self, state: TrainState, device: torch.device) -> TrainState:
        """TrainState.to."""
        self.sent.append(("state", sum(tensor.nbytes for _, tensor in state.tensors())))
        return state._each(torch.clone)

    def copy(self, source: TrainState, target: TrainState, names: tuple[str, ...]) -> None:
        """compaction.copy, to and from a shard."""
        chosen = [each.nbytes for name, each in target.tensors() if name.partition(".")[0] in names]
        if names:
            self.sent.append((names, sum(chosen)))
        COPY(source, target, names)

    def whole(self, data: Dataset, device: torch.device, dtype: torch.dtype) -> Dataset:
        """Dataset.to."""
        if device.type == "cpu":
            return TO(data, device, dtype)
        self.sent.append(("data", data.nbytes(data.networks or 0)))
        return data._with({name: tensor.clone() for name, tensor in data.each.items()})

    def load(self, data: Dataset, other: Dataset) -> None:
        """Dataset.load."""
        self.sent.append(("data", other.nbytes(other.networks or 0) - other.nbytes(0)))
        LOAD(data, other)


COPY, TO, LOAD, ROOM, COPIES = shard.copy, Dataset.to, Dataset.load, Dataset.room, calls.Copies


@contextmanager
def machine(count: int = 1, free: int = 1 << 40) -> Iterator[Machine]:
    """A machine with `count` GPUs of `free` bytes each, played: cuda:0, ... are devices, engine "cuda" trains there."""
    own = Machine(count, free)
    with pytest.MonkeyPatch.context() as patch, playing(own.player):
        simple = {"missing": None, "count": count, "current": 0, "name": "played", "free": free, "wait": None}
        for name, value in {**simple, "release": None}.items():
            patch.setattr(calls, name, lambda *device, value=value: value)
        patch.setattr(calls, "on", own.enter)
        patch.setattr(calls, "pinned", own.pin)
        patch.setattr(calls, "Copies", lambda device: COPIES(ambient.HOME))
        patch.setattr(calls, "mark", lambda device: lambda: None)
        patch.setattr(shard, "copy", own.copy)
        patch.setattr(TrainState, "to", lambda state, device: own.send(state, device))
        patch.setattr(Dataset, "to", lambda data, device, dtype: own.whole(data, device, dtype))
        patch.setattr(Dataset, "load", lambda data, other: own.load(data, other))
        patch.setattr(Dataset, "room", lambda data, count, device: ROOM(data, count, ambient.HOME))
        yield own
