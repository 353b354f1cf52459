"""Reporters receive the events of a run: start, progress, every evaluation, end (docs/reporters.md).

What they show does not grow with the number of networks: a run of a million networks reports as much as one of ten.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..line import counted
from ..results.result import Result
from .snapshot import QUANTILES as QUANTILES
from .snapshot import Snapshot
from .snapshot import ends as ends
from .snapshot import quantiles as quantiles


class Start(NamedTuple):
    """The start of a run. parameters: of the largest network; steps: network-steps of all networks, 0 if unknown, as of
    a stream; done: those before a resume; step: the most of any network. lines: notes for the user; settings: the whole
    configuration by name; history: the records of the evaluations before a resume. clock: the number of a record that
    rises from one to the next: `step`, or `network_steps` if networks do not all take their steps together, as in a
    queue."""

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
    clock: str = "step"

    @property
    def text(self) -> str:
        """What is trained, and with what."""
        now = "" if self.steps else " at a time"  # for a stream, whose length is unknown
        many = f" in {self.populations} populations, of up to" if self.populations > 1 else " of"
        return f"{counted(self.networks, 'network')}{now}{many} {self.parameters:,} parameters. {self.engine_reason}"


class Progress(NamedTuple):
    """The progress of a run. done: network-steps so far; rate: recent network-steps/s, 0 until known; running:
    networks, including those that diverged since the last evaluation; notes: for the user; steps: network-steps of the
    whole run, if no further network stops early; an estimate while networks wait for others to end; 0 while their
    number is unknown, as when halving stops some. compiling: before the first step, how many of several populations
    have kernels still to be compiled."""

    done: int
    rate: float
    running: int
    notes: tuple[str, ...] = ()
    steps: int = 0
    compiling: int = 0


class Reporter:
    """Receives events and does nothing: override the methods of interest. Any object with these methods will do."""

    def start(self, start: Start) -> None:
        """Before the first step."""

    def progress(self, progress: Progress) -> None:
        """After every call of the engine, a few times a second, and for every note."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """After every evaluation, with its record in the history."""

    def looked(self, snapshot: Snapshot) -> None:
        """The same, with the networks one by one; its `record` is that of the history. This method is optional."""

    def finish(self, result: Result) -> None:
        """After the last step, when everything that can be saved is saved (`result.unsaved`)."""

    def failed(self) -> None:
        """The run ends with an error, raised after this: release the screen and files."""


def check(reporters: Sequence[Reporter]) -> None:
    """Raise ConfigError for anything but a list of reporters, before any is used."""
    if not isinstance(reporters, Sequence) or any(isinstance(each, type) for each in reporters):
        raise ConfigError("reporters: a list of reporters expected, such as [gpubp.ConsoleReporter()]")
    for each in reporters:
        for name in ("start", "progress", "evaluated", "finish"):
            if not callable(getattr(each, name, None)):
                raise ConfigError(f"reporters: {type(each).__name__} has no method {name}(); see gpubp.Reporter")


def watches(reporter: Reporter, calls: Sequence[str] = ("evaluated", "looked")) -> bool:
    """Whether `reporter` handles evaluations, in one of these `calls`."""
    kind = type(reporter)
    return any(getattr(kind, name, None) not in (None, getattr(Reporter, name)) for name in calls)


def due(number: int, first: int, octave: int) -> bool:
    """Whether evaluation `number`, from 1, is one of the `first`, or later one of `octave` each time numbers double: a
    long run shows log-spaced points, and a resumed run the same ones."""
    return number <= first or int(octave * math.log2(number)) > int(octave * math.log2(number - 1))
