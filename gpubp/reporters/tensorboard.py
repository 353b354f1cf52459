"""TensorBoard: curves of the population, as many for any number of networks; configuration and outcome as text.

    training/loss/median             over the minibatches since the last evaluation; best
    validation/accuracy/median       of the held-out samples (or r2); best
    validation/loss/median           the same
    variation/...                    q10 and q90 of these: bands around the median under Custom Scalars
    vitals/...                       learning rate, network-steps/s, diverged networks, final training accuracy

TensorBoard orders groups and cards by name, so these names put the most important first.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..line import line
from ..result import Result
from . import QUANTILES, Reporter, Start, quantiles


class TensorBoardReporter(Reporter):
    """Writes to `folder`. The step axis has training steps of the network that has taken most."""

    def __init__(self, folder: str | Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "gpubp[tensorboard]"') from None
        self.folder, self.make = folder, SummaryWriter

    def start(self, start: Start) -> None:
        """Open the file. Earlier files of a resumed run are hidden and its history is written again, as they may go
        beyond the checkpoint. The file's name is random, so that nobody can plant a link there."""
        _hush()
        try:
            self.writer = self.make(str(self.folder), purge_step=0, filename_suffix=f".{secrets.token_hex(8)}")
        except OSError as error:
            raise ConfigError(f"no curves can be written to {self.folder}: {error.strerror}") from None
        self.metric, self.step, self.charted = start.metric_name, start.step, False
        rows = [f"| {name} | {_cell(value)} |" for name, value in start.settings.items() if value is not None]
        text = "\n\n".join(
            [*map(_cell, (*start.lines, start.text)), "\n".join(["| setting | value |", "| --- | --- |", *rows])]
        )
        self.writer.add_text("configuration", text, 0)
        last = start.history[-1]["seconds"] if start.history else 0.0
        for record in start.history:
            self.write(record, time.time() - last + record["seconds"])
        self.writer.flush()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Add a point to every curve."""
        self.write(record, time.time())
        self.writer.flush()

    def write(self, record: Mapping[str, Any], when: float) -> None:
        """Add `record`, made at time `when`, to the curves."""
        shown = {
            "training/loss": (record["loss"], "min"),
            "validation/loss": (record["validation_loss"], "min"),
            f"validation/{self.metric}": (record["metric"], "max"),
        }
        shown = {name: found for name, found in shown.items() if found[0]}
        if shown and not self.charted:
            self.chart(shown)
        scalars: dict[str, float] = {}
        for name, (found, best) in shown.items():
            scalars |= {f"{name}/best": found[best], f"{name}/median": found["median"]}
            scalars |= {f"variation/{name}/{which}": found[which] for which in ("q10", "q90")}
        if record["lr"]:
            scalars["vitals/learning_rate/median"] = record["lr"]["median"]
        scalars["vitals/networks_diverged"] = record["statuses"].get("diverged", 0)
        scalars["vitals/network_steps_per_second"] = record["network_steps_per_second"]
        self.step = record["step"]
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, self.step, when)

    def chart(self, names: Iterable[str]) -> None:
        """Lay out charts of the population as a band around its median."""
        charts = {
            name: ["Margin", [f"{name}/median", f"variation/{name}/q10", f"variation/{name}/q90"]] for name in names
        }
        self.writer.add_custom_scalars({"population: median, 10 % to 90 %": charts})
        self.charted = True

    def finish(self, result: Result) -> None:
        """Write the final evaluation."""
        figures = {
            "training loss": result.loss,
            f"training {self.metric}": result.metric,
            "validation loss": result.validation_loss,
            f"validation {self.metric}": result.validation_metric,
        }
        found = {name: quantiles(values) for name, values in figures.items() if values is not None}
        if final := found[f"training {self.metric}"]:
            self.writer.add_scalar(f"vitals/training_{self.metric}/median", final["median"], self.step)
        rows = [f"| {name} | " + " | ".join(f"{value:.5g}" for value in each.values()) for name, each in found.items()]
        names = list(QUANTILES)
        table = "\n".join([f"| | {' | '.join(names)} |", "| --- " * (1 + len(names)) + "|", *rows])
        self.writer.add_text("outcome", f"{result.fates}\n\n{table}", self.step)
        self.writer.close()

    def failed(self) -> None:
        """Close the file, if open."""
        if hasattr(self, "writer"):
            self.writer.close()


def _cell(value: Any) -> str:
    """One line of a Markdown table, without markup."""
    plain = line(value).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(plain.split()))


def _hush() -> None:
    """Print no traceback when a SummaryWriter's thread fails: the error is raised where the writer is called."""
    loud = threading.excepthook
    if loud.__module__ == __name__:
        return

    def hush(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            loud(failed)

    threading.excepthook = hush
