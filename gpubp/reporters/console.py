"""Console output: on a terminal a progress bar with rate and time left, elsewhere a plain line every few seconds.

rich is imported when a reporter is made, so that `import gpubp` does not wait for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..evaluate import metric_name
from ..line import line
from ..results.result import Result
from ..state import Status
from . import Progress, Reporter, Start, ends

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

PATIENCE = 5.0  # seconds between two plain lines


class ConsoleReporter(Reporter):
    """Progress on standard error, so that standard output holds only results."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, soft_wrap=True)
        self.loss, self.brief = "", ""
        self.begun: float | None = None  # end of the first call, which may compile
        self.spoken = time.monotonic()
        self.bar: Bar | None = None

    def start(self, start: Start) -> None:
        """Say what is trained, and show the bar."""
        for each in (*start.lines, start.text):
            self.say(each)
        if start.history:
            self.evaluated(start.history[-1])
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                BarColumn(bar_width=16),  # the whole line fits 80 columns
                TextColumn("{task.fields[share]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                TextColumn("{task.fields[text]}", markup=False),
                console=self.console,
            )
            self.task = self.bar.add_task("", total=start.steps or None, completed=start.done, text="", share="")
            self.bar.start()

    def progress(self, progress: Progress) -> None:
        """Move the bar; without a terminal, a line every few seconds."""
        for note in progress.notes:
            self.say(note)
        if progress.compiling:
            self.compiling(f"kernels of {progress.compiling:,} populations to compile")
            return
        rate = f"{progress.rate:,.0f} network-steps/s" if progress.rate else "..."
        total = progress.steps
        share = f"{100 * progress.done / total:3.0f} %" if total else f"{progress.done:,} network-steps"
        if self.bar is not None:
            text = rate + self.brief
            self.bar.tasks[0].total = total or None  # update() would take None as no change
            self.bar.update(self.task, completed=progress.done, text=text, share=share)
            return
        now = time.monotonic()
        if self.begun is None:
            self.begun = self.spoken = now
            self.first = progress.done
        elif now - self.spoken >= PATIENCE:
            self.spoken = now
            spent, gone = now - self.begun, progress.done - self.first
            left = f"{spent * (total - progress.done) / gone:,.0f} s left  " if gone and total else ""
            self.say(f"{share}  {rate}  {self.loss}  {left}{progress.running:,} running")

    def compiling(self, text: str) -> None:
        """Show `text` in the bar, or as a line every few seconds."""
        if self.bar is not None:
            self.bar.update(self.task, text=text)
        elif time.monotonic() - self.spoken >= PATIENCE:
            self.spoken = time.monotonic()
            self.say(text)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Keep the figures to show."""
        shown = [f"loss {record['loss']['median']:.4g}"] if record["loss"] else []
        if record.get("validation_loss"):
            shown.append(f"validation {record['validation_loss']['median']:.4g}")
        if record.get("metric"):
            shown.append(
                f"{record['metric_name']} {record['metric']['median']:.4g} (best {record['metric']['max']:.4g})"
            )
        self.loss = "median " + ", ".join(shown) if shown else ""
        self.brief = ", " + shown[-1].split(" (")[0] if shown else ""

    def failed(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()

    def finish(self, result: Result) -> None:
        """Remove the bar and summarise the run, with the figures of its results."""
        if self.bar is not None:
            self.bar.stop()
        alive = result.status != Status.diverged
        metric = result.metric if result.validation_metric is None else result.validation_metric
        figures = {"loss": result.loss, "validation_loss": result.validation_loss, "metric": metric}
        found = {name: None if values is None else ends(values[alive]) for name, values in figures.items()}
        self.evaluated({**found, "metric_name": metric_name(result.populations.each[0].spec)})
        steps, spent = result.network_steps, result.step_seconds
        if steps:
            rate = f"{steps:,} network-steps in {spent:,.1f} s, {steps / max(spent, 1e-9):,.0f}/s"
            self.say(
                f"{rate}; {result.seconds:,.1f} s with evaluations and the rest: {result.fates}. {self.loss}".rstrip()
            )
        else:
            done = "nothing was trained" if result.interrupted else "nothing is left to train: every network has ended"
            self.say(f"{done}: {result.fates}. {self.loss}".rstrip())
        if result.interrupted is not None:
            self.say(f"stopped by {result.stopped_by}")

    def say(self, text: str) -> None:
        """Print a line literally: no markup in brackets, no emoji for :star:."""
        self.console.print(line(text), highlight=False, markup=False, emoji=False)
