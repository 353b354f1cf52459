"""Reporters are told what happens in a run: at its start, now and then, at every evaluation, at its end.

They see numbers of the population, never a network each: a run of a million networks reports as much as one of ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..loop import Result

QUANTILES = {"min": 0.0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "max": 1.0}


class Start(NamedTuple):
    """What a run is about to do. steps: network-steps of all networks; done: those taken before a resume; step: the
    most that one network has taken."""

    networks: int
    parameters: int
    steps: int
    done: int
    step: int
    engine_reason: str
    run_dir: str | None


class Progress(NamedTuple):
    """Where a run is. done: network-steps so far; rate: network-steps/s of this call; running: networks; notes: what
    this call met that a person should know."""

    done: int
    rate: float
    running: int
    notes: tuple[str, ...] = ()


class Reporter(Protocol):
    """What train() calls; any object with these methods will do."""

    def start(self, start: Start) -> None:
        """Before the first step."""

    def progress(self, progress: Progress) -> None:
        """After every call of the engine, a few times a second."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """After every evaluation: the record that the history keeps."""

    def finish(self, result: Result) -> None:
        """After the last step, everything saved."""


def quantiles(values: Tensor) -> dict[str, float]:
    """The quantiles of those of `values` (N,) that are finite, by name; empty where none is."""
    finite = values[values.isfinite()].double().cpu().sort().values
    if not len(finite):
        return {}
    last = len(finite) - 1
    return {name: float(finite[round(share * last)]) for name, share in QUANTILES.items()}


def counts(status: Tensor) -> dict[str, int]:
    """How many networks have each status, by name."""
    from ..state import Status

    found = torch.bincount(status.long(), minlength=len(Status)).tolist()
    return {each.name: found[each.value] for each in Status}
