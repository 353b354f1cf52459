"""pytest --device: what tests train by the engines `eager` and `cpu` takes its steps on another device and comes back.

On a GPU `eager` is itself, near to what it is on the CPU, and the engine `cuda` stands for `cpu`, whose bits it has.
"played" is a GPU that the CPU plays, for whoever has none (recorder.py, playing.py).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import pytest
import torch

import gpubp
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
        for module, name, run in ((eager, "eager", eager.run), (cpu, "cpu", cuda.run)):
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
