"""A GPU played by the CPU: the same kernel text compiled by the C++ compiler behind play.h, the module of the driver's
calls replaced by one that records every launch and plays it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gpubp.engines import build, cuda, nvrtc
from gpubp.engines.chip import Limits
from gpubp.engines.device import Function
from gpubp.engines.program import Layout

HEADER = Path(__file__).parent / "play.h"
H100 = Limits(90, 227 << 10)
WRONG = ("", "a barrier that not all threads came to", "a write beyond the shared memory that was asked for")


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


class Player:
    """engines/device.py without a device; resident: blocks that run at once."""

    def __init__(self, limits: Limits = H100, resident: int = 2) -> None:
        self.found, self.resident, self.launches = limits, resident, []

    def limits(self, device: torch.device) -> Limits:
        return self.found

    def here(self, tensor: Tensor) -> bool:
        return True

    def load(self, code: bytes, threads: int, shared: int, device: torch.device) -> Function:
        assert shared <= self.found.block
        return Function(code.decode(), self.resident)

    def launch(
        self, function: Function, blocks: int, threads: int, shared: int, given: Sequence[Any], device: torch.device
    ) -> None:
        job, end = given
        copies = type(job).from_buffer_copy(job), cuda.End.from_buffer_copy(end)
        self.launches.append(Launch(function.handle, blocks, threads, shared, *copies, device))
        self.play(self.launches[-1])

    def play(self, launch: Launch) -> None:
        played = build.library(f'#include "{HEADER}"\n{launch.text}PLAY\n').play
        played.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3]
        job, end = ctypes.byref(launch.job), ctypes.byref(launch.end)
        wrong = WRONG[played(job, end, launch.blocks, launch.threads, launch.shared)]
        if wrong:
            raise WrongError(wrong)


def flat(text: str) -> str:
    """A kernel's text with the sources of kernel/ in it."""
    seen = set()

    def source(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return whole((build.SOURCES / match[1]).read_text(encoding="utf-8").replace("#pragma once", ""))

    def whole(text: str) -> str:
        return re.sub(r'#include "(\w+\.h)"', source, text)

    return whole(text)


@contextmanager
def playing(player: Player, layout: Layout | None = None, local: int = 0) -> Iterator[Player]:
    """The GPU engine with `player` for a device, and this layout for a while. local: bytes that a thread spills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "device", player)
        patch.setattr(cuda, "KERNELS", {})
        patch.setattr(cuda, "LAYOUT", layout)
        patch.setattr(nvrtc, "cubin", lambda text, arch: text.encode())
        patch.setattr(nvrtc, "use", lambda code: nvrtc.Use(64, local))
        yield player
