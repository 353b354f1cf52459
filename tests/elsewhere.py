"""pytest --device: what tests train by the engines `eager` and `cpu` takes its steps on another device and comes back.

On a GPU `eager` is itself, near to what it is on the CPU, and the engine `cuda` stands for `cpu`, whose bits it has.
"played" is a GPU that the CPU plays, for whoever has none (recorder.py, playing.py); its products round otherwise where
`eager` trains, as a GPU's do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp import backprop
from gpubp.engines import ENGINES, cpu, cuda, eager
from gpubp.state import TrainState

from .playing import Player, playing
from .recorder import recorded

PLAYED = "played"
Run = Callable[[TrainState, gpubp.Dataset, int], None]


class Elsewhere(NamedTuple):
    """player: who plays the device, if it is played; calls: the steps of every call that was taken there."""

    player: Player
    calls: list[int]


@contextmanager
def elsewhere(device: str) -> Iterator[Elsewhere]:
    """The engines' steps on `device` for a while."""
    place = Elsewhere(Player(), [])
    with ExitStack() as stack:
        if device == PLAYED:
            stack.enter_context(playing(place.player))
            stack.enter_context(recorded())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        where = torch.device("cpu" if device == PLAYED else device)
        trained = stack.enter_context(_rounding()) if device == PLAYED else eager.run
        for module, name, run in ((eager, "eager", trained), (cpu, "cpu", cuda.run)):
            there = partial(_there, run, where, place.calls)
            patch.setattr(module, "run", there)
            patch.setitem(ENGINES, name, ENGINES[name]._replace(run=there))
        yield place


def _there(
    run: Run, device: torch.device, calls: list[int], state: TrainState, data: gpubp.Dataset, steps: int
) -> None:
    """Train a copy on `device`, and bring its numbers back."""
    copy = state.to(device)
    run(copy, data.to(device, data.inputs.dtype), steps)
    for (_, mine), (_, theirs) in zip(state.tensors(), copy.tensors()):
        mine.copy_(theirs)
    calls.append(steps)


@contextmanager
def _rounding() -> Iterator[Run]:
    """eager for whom every number of a product is the next one, or the one after, while it trains."""
    product, here = backprop.product, threading.local()

    def other(*given: Any) -> Tensor:
        found = product(*given)
        return found * (1 + torch.finfo(found.dtype).eps) if getattr(here, "trains", False) else found

    def run(state: TrainState, data: gpubp.Dataset, steps: int) -> None:
        here.trains = True
        try:
            train(state, data, steps)
        finally:
            here.trains = False

    train = eager.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backprop, "product", other)
        yield run
