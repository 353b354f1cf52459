"""pytest --device: whatever a test trains by `eager.run` or `cpu.run` takes its steps on another device and comes back.

On a GPU `eager` is itself, and the engine `cuda` stands for `cpu`, whose bits it has. "played" is a GPU that
the CPU plays, for whoever has none (recorder.py, playing.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import torch

import gpubp
from gpubp.engines import cpu, cuda, eager
from gpubp.state import TrainState

from .playing import Player, playing
from .recorder import recorded

PLAYED = "played"
Run = Callable[[TrainState, gpubp.Dataset, int], None]


@contextmanager
def elsewhere(device: str) -> Iterator[Player]:
    """The engines' steps on `device` for a while. -> who plays it, if it is played."""
    player = Player()
    with ExitStack() as stack:
        if device == PLAYED:
            stack.enter_context(playing(player))
            stack.enter_context(recorded())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        where = torch.device("cpu" if device == PLAYED else device)
        for module, run in ((eager, eager.run), (cpu, cuda.run)):
            patch.setattr(module, "run", partial(_there, run, where))
        yield player


def _there(run: Run, device: torch.device, state: TrainState, data: gpubp.Dataset, steps: int) -> None:
    """Train a copy on `device`, and bring its numbers back."""
    copy = state.to(device)
    run(copy, data.to(device, data.inputs.dtype), steps)
    for (_, mine), (_, theirs) in zip(state.tensors(), copy.tensors()):
        mine.copy_(theirs)
