"""Reporters are told what happens in a run: at its start, now and then, at every evaluation, at its end.

They see numbers of the population, never a network each: a run of a million networks reports as much as one of ten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import ConfigError
from ..result import Result

QUANTILES = {"min": 0.0, "q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9, "max": 1.0}


class Start(NamedTuple):
    """What a run is about to do. steps: network-steps of all networks; done: those taken before a resume; step: the
    most that one network has taken. lines: what a person should know of it; settings: the whole configuration by name;
    history: the records of the evaluations before a resume."""

    networks: int
    parameters: int
    steps: int
    done: int
    step: int
    engine_reason: str
    run_dir: str | None
    metric_name: str = "metric"
    lines: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}
    history: tuple[Mapping[str, Any], ...] = ()


class Progress(NamedTuple):
    """Where a run is. done: network-steps so far; rate: network-steps/s of late, 0 as long as it is not known; running:
    networks; notes: what a person should know. A network that diverged since the last evaluation still counts."""

    done: int
    rate: float
    running: int
    notes: tuple[str, ...] = ()


class Reporter:
    """Hears what happens, and does nothing: override what you want to hear. Any object with these methods will do."""

    def start(self, start: Start) -> None:
        """Before the first step."""

    def progress(self, progress: Progress) -> None:
        """After every call of the engine, a few times a second, and where there is a note."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """After every evaluation: the record that the history keeps."""

    def finish(self, result: Result) -> None:
        """After the last step, everything saved that could be (`result.unsaved`)."""

    def failed(self) -> None:
        """The run ends by an error, which is raised next: give the screen and files back."""


def check(reporters: Sequence[Reporter]) -> None:
    """Raise ConfigError for what is no list of reporters, before any of them is needed."""
    if not isinstance(reporters, Sequence) or any(isinstance(each, type) for each in reporters):
        raise ConfigError("reporters: a list of reporters expected, such as [gpubp.ConsoleReporter()]")
    for each in reporters:
        for name in ("start", "progress", "evaluated", "finish"):
            if not callable(getattr(each, name, None)):
                raise ConfigError(f"reporters: {type(each).__name__} has no method {name}(); see gpubp.Reporter")


def watches(reporter: Reporter) -> bool:
    """Whether it wants to hear of evaluations."""
    return getattr(type(reporter), "evaluated", None) is not Reporter.evaluated


def quantiles(values: Tensor) -> dict[str, float]:
    """The quantiles of those of `values` (N,) that are finite, by name; empty where none is."""
    finite = values[values.isfinite()].double().cpu().numpy()
    if not len(finite):
        return {}
    ranks = {name: round(share * (len(finite) - 1)) for name, share in QUANTILES.items()}
    placed = np.partition(finite, sorted(set(ranks.values())))  # a sort of a million takes five times as long
    return {name: float(placed[rank]) for name, rank in ranks.items()}
