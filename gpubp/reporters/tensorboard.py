"""TensorBoard: curves of the population, as many for any number of networks, and the configuration as text.

    training/loss/median             over the minibatches since the last evaluation; q10, q90
    training/accuracy/median         at the end of the run, over all training samples (or r2)
    validation/accuracy/median       of the held-out samples; best, q10, q90
    validation/loss/median           the same
    vitals/...                       learning rate, network-steps/s, networks that diverged

TensorBoard orders groups and cards by name: what is to be seen first comes first. Bands around the median are under
Custom Scalars.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from . import Reporter, Start, quantiles

if TYPE_CHECKING:
    from ..result import Result

BAND = ("median", "q10", "q90")


class TensorBoardReporter(Reporter):
    """Writes to `folder`. On the step axis are training steps, those of the network that has taken the most."""

    def __init__(self, folder: str | Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "gpubp[tensorboard]"') from None
        self.folder, self.make = folder, SummaryWriter

    def start(self, start: Start) -> None:
        """Open the file. What a run that is resumed wrote before is hidden, and its history written again: it may have
        gone on after the checkpoint."""
        self.writer = self.make(str(self.folder), purge_step=0)
        self.metric, self.step = start.metric_name, start.step
        names = ("training/loss", "validation/loss", f"validation/{self.metric}")
        bands = {name: ["Margin", [f"{name}/{which}" for which in BAND]] for name in names}
        self.writer.add_custom_scalars({"population: median, 10 % to 90 %": bands})
        rows = [f"| {name} | {_cell(value)} |" for name, value in start.settings.items() if value is not None]
        told = [*start.lines, f"{start.networks:,} networks of {start.parameters:,} parameters. {start.engine_reason}"]
        text = "\n\n".join([*map(_cell, told), "\n".join(["| setting | value |", "| --- | --- |", *rows])])
        self.writer.add_text("configuration", text, 0)
        last = start.history[-1]["seconds"] if start.history else 0.0
        for record in start.history:
            self.write(record, time.time() - last + record["seconds"])
        self.writer.flush()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """One point on every curve."""
        self.write(record, time.time())
        self.writer.flush()

    def write(self, record: Mapping[str, Any], when: float) -> None:
        """The curves of `record`, which was made at `when`."""
        best = "max"  # of accuracy and R2
        shown = {
            "training/loss": (record["loss"], {}),
            "validation/loss": (record["validation_loss"], {"best": "min"}),
            f"validation/{self.metric}": (record["metric"], {"best": best}),
            "vitals/learning_rate": (record["lr"], {}),
        }
        scalars = {
            f"{name}/{tag}": found[of]
            for name, (found, more) in shown.items()
            if found
            for tag, of in ({each: each for each in BAND} | more).items()
        }
        scalars["vitals/networks_diverged"] = record["statuses"].get("diverged", 0)
        scalars["vitals/network_steps_per_second"] = record["network_steps_per_second"]
        self.step = record["step"]
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.step, when)

    def finish(self, result: Result) -> None:
        """What only the final evaluation knows."""
        for which, value in quantiles(result.metric).items():
            if which in BAND:
                self.writer.add_scalar(f"training/{self.metric}/{which}", value, self.step)
        self.writer.close()


def _cell(value: Any) -> str:
    """One line of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")
