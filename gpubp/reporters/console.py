"""What a person sees: a progress bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from . import Progress, Start

if TYPE_CHECKING:
    from ..loop import Result

PATIENCE = 5.0  # seconds between two plain lines


class ConsoleReporter:
    """Progress on standard error, so that standard output holds results alone."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True)
        self.loss, self.brief = "", ""
        self.begun: float | None = None  # when the first call, which may compile, was over
        self.bar: Bar | None = None

    def start(self, start: Start) -> None:
        """The head line and the bar."""
        self.console.print(f"{start.networks:,} networks of {start.parameters:,} parameters. {start.engine_reason}")
        self.total = start.steps
        if self.console.is_terminal:
            self.bar = Bar(
                BarColumn(bar_width=16),  # the whole line fits 80 columns
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("left"),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self.task = self.bar.add_task("", total=start.steps, completed=start.done, text="")
            self.bar.start()

    def progress(self, progress: Progress) -> None:
        """Move the bar; without a terminal, a line every few seconds."""
        for note in progress.notes:
            self.console.print(note, highlight=False)
        text = f"{progress.rate:,.0f} network-steps/s  {self.loss}"
        if self.bar is not None:
            brief = f"{progress.rate:,.0f} network-steps/s{self.brief}"
            self.bar.update(self.task, completed=progress.done, text=brief)
            return
        now = time.monotonic()
        if self.begun is None:
            self.begun = self.spoken = now
            self.first = progress.done
        elif now - self.spoken >= PATIENCE:
            self.spoken = now
            spent, gone = now - self.begun, progress.done - self.first
            left = spent * (self.total - progress.done) / gone if gone else float("nan")
            share = 100 * progress.done / self.total
            self.console.print(
                f"{share:3.0f} %  {text}  {left:,.0f} s left  {progress.running:,} running", highlight=False
            )

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Remember what to show."""
        shown = [f"loss {record['loss']['median']:.4g}"] if record["loss"] else []
        if record.get("validation_loss"):
            shown.append(f"validation {record['validation_loss']['median']:.4g}")
        if record.get("metric"):
            shown.append(
                f"{record['metric_name']} {record['metric']['median']:.4g} (best {record['metric']['max']:.4g})"
            )
        self.loss = "median " + ", ".join(shown) if shown else ""
        self.brief = ", " + shown[-1].split(" (")[0] if shown else ""

    def finish(self, result: Result) -> None:
        """Take the bar away and say what became of the networks."""
        if self.bar is not None:
            self.bar.stop()
        rate = result.network_steps / max(result.seconds, 1e-9)
        fates = ", ".join(f"{count:,} {name}" for name, count in result.statuses.items() if count)
        self.console.print(
            f"{result.network_steps:,} network-steps in {result.seconds:,.1f} s, {rate:,.0f}/s: {fates}. {self.loss}",
            highlight=False,
        )
