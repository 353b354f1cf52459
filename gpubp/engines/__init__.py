"""Engines advance a TrainState. choose() names one and says why; it looks at specification, configuration and device,
never at the number of networks or free memory, so that a network gets the same engine alone and among others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..config import TrainConfig
from ..data import Dataset
from ..errors import EngineError, unknown
from ..spec import NetworkSpec
from ..state import TrainState
from . import eager

ENGINES: dict[str, Callable[[TrainState, Dataset, int], None]] = {"eager": eager.run}


class Choice(NamedTuple):
    """An engine: its name, run(state, data, steps), and the sentence that says why it was chosen."""

    name: str
    run: Callable[[TrainState, Dataset, int], None]
    reason: str


def choose(name: str, spec: NetworkSpec, config: TrainConfig, device: torch.device) -> Choice:
    """The engine `name`, or for "auto" the best there is. Raises EngineError for a name that is none."""
    if name not in ("auto", *ENGINES):
        raise EngineError(unknown("engine", name, ("auto", *ENGINES)))
    if name == "auto":
        return Choice("eager", eager.run, f"eager: raw torch operations, which run everything on {device.type}")
    return Choice(name, ENGINES[name], f"{name}: asked for by name")
