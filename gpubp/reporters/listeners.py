"""Listeners: the reporters of one run."""

from collections.abc import Callable
from contextlib import suppress

from . import Reporter, Start
from .snapshot import Snapshot


class Listeners:
    """silenced: the `reporters` that failed to write, as on a full disk or a closed pipe, and why; they are not called
    again. told: called with each reason."""

    def __init__(self, reporters: tuple[Reporter, ...], told: Callable[[str], None]) -> None:
        self.reporters, self.told = reporters, told
        self.listening = list(reporters)
        self.silenced: list[str] = []

    def start(self, start: Start) -> None:
        """Start all; an error ends the run before its first step."""
        for reporter in self.reporters:
            reporter.start(start)

    def tell(self, what: Callable[[Reporter], None]) -> None:
        """Call every reporter."""
        for reporter in tuple(self.listening):
            if reporter not in self.listening:  # it failed while another's failure was reported
                continue
            try:
                what(reporter)
            except OSError as error:
                self.listening.remove(reporter)
                _give_back(reporter)
                self.silenced.append(f"{type(reporter).__name__} cannot write, and stops reporting: {error}")
                self.told(self.silenced[-1])

    def looked(self, networks: Snapshot) -> None:
        """Tell every reporter of an evaluation."""
        self.tell(lambda reporter: reporter.evaluated(networks.record))
        self.tell(lambda reporter: getattr(reporter, "looked", lambda _: None)(networks))

    def give_back(self) -> None:
        """Let all release the screen and files."""
        for reporter in self.reporters:
            _give_back(reporter)


def _give_back(reporter: Reporter) -> None:
    with suppress(OSError):
        getattr(reporter, "failed", lambda: None)()
