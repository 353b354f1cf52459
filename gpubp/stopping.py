"""What evaluations change in training: the plateau schedule's memory. A network sees its own losses alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .state import TrainState


def plateau(state: TrainState, loss: Tensor, due: Tensor | None = None) -> None:
    """One evaluation's losses (N,): torch's ReduceLROnPlateau (mode min, threshold_mode rel, eps 0) for every running
    network, or every one of them that is `due` (N,), in place. A loss that is not finite is not better than any."""
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
