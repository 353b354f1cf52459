"""Decisions from evaluations: the plateau schedule's memory. They depend only on a network's losses."""

from __future__ import annotations

import torch
from torch import Tensor

from .state import TrainState


def plateau(state: TrainState, loss: Tensor, due: Tensor | None = None) -> None:
    """Apply torch's ReduceLROnPlateau (mode min, threshold_mode rel, eps 0) with an evaluation's losses (N,) to every
    running network, or to those that are `due` (N,), in place. A non-finite loss is never better."""
    if not state.recipe.timetable.events:
        return
    hyper, memory = state.hyper, state.memory
    now = loss[:, None].double()
    better = now < memory["best"] * (1 - hyper["plateau_threshold"])
    better |= memory["best"].isinf() & now.isfinite()
    best = torch.where(better, now, memory["best"])
    bad = torch.where(better, torch.zeros_like(now), memory["bad"] + 1)
    cooling = torch.clamp(memory["cooling"] - 1, min=0)
    bad = torch.where(memory["cooling"] > 0, torch.zeros_like(bad), bad)
    enough = bad > hyper["plateau_patience"]
    fresh = {
        "scale": torch.where(enough, memory["scale"] * hyper["plateau_factor"], memory["scale"]),
        "best": best,
        "bad": torch.where(enough, torch.zeros_like(bad), bad),
        "cooling": torch.where(enough, hyper["plateau_cooldown"], cooling),
    }
    at = state.running if due is None else state.running & due
    for name, value in fresh.items():
        memory[name].copy_(torch.where(at[:, None], value, memory[name]))
