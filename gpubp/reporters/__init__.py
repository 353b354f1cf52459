"""Reporters receive the events of a run: start, progress, every evaluation, end.

They get statistics of the population, not of each network: a run of a million networks reports as much as one of ten.
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
    """The start of a run. parameters: of the largest network; steps: network-steps of all networks; done: those before
    a resume; step: the most of one network. lines: notes for the user; settings: the whole configuration by name;
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
    populations: int = 1

    @property
    def text(self) -> str:
        """What is trained, and by what."""
        many = f" in {self.populations} populations, of up to" if self.populations > 1 else " of"
        return f"{self.networks:,} networks{many} {self.parameters:,} parameters. {self.engine_reason}"


class Progress(NamedTuple):
    """The progress of a run. done: network-steps so far; rate: recent network-steps/s, 0 until known; running:
    networks, including those that diverged since the last evaluation; notes: for the user; steps: network-steps of the
    whole run, an estimate while networks wait for others to end."""

    done: int
    rate: float
    running: int
    notes: tuple[str, ...] = ()
    steps: int = 0


class Reporter:
    """Receives events and does nothing: override the methods of interest. Any object with these methods will do."""

    def start(self, start: Start) -> None:
        """Before the first step."""

    def progress(self, progress: Progress) -> None:
        """After every call of the engine, a few times a second, and for every note."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """After every evaluation, with its record in the history."""

    def finish(self, result: Result) -> None:
        """After the last step, when everything is saved that can be (`result.unsaved`)."""

    def failed(self) -> None:
        """The run ends with an error, which is raised next: release the screen and files."""


def check(reporters: Sequence[Reporter]) -> None:
    """Raise ConfigError for anything but a list of reporters, before any is used."""
    if not isinstance(reporters, Sequence) or any(isinstance(each, type) for each in reporters):
        raise ConfigError("reporters: a list of reporters expected, such as [gpubp.ConsoleReporter()]")
    for each in reporters:
        for name in ("start", "progress", "evaluated", "finish"):
            if not callable(getattr(each, name, None)):
                raise ConfigError(f"reporters: {type(each).__name__} has no method {name}(); see gpubp.Reporter")


def watches(reporter: Reporter) -> bool:
    """Whether `reporter` handles evaluations."""
    return getattr(type(reporter), "evaluated", None) is not Reporter.evaluated


def quantiles(values: Tensor) -> dict[str, float]:
    """The quantiles of the finite `values` (N,), by name; empty if none is finite."""
    finite = values[values.isfinite()].double().cpu().numpy()
    if not len(finite):
        return {}
    ranks = {name: round(share * (len(finite) - 1)) for name, share in QUANTILES.items()}
    placed = np.partition(finite, sorted(set(ranks.values())))  # a sort of a million takes five times as long
    return {name: float(placed[rank]) for name, rank in ranks.items()}
