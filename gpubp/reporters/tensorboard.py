"""TensorBoard scalars of the population: quantiles, counts, rates. The number of tags does not depend on N."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from . import Progress, Start

if TYPE_CHECKING:
    from ..loop import Result

BANDS = ("q10", "median", "q90")  # of a chart with a band: the line's place in it comes from these


class TensorBoardReporter:
    """Writes to `folder`. On the step axis are training steps, those of the network that has taken the most."""

    def __init__(self, folder: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "gpubp[tensorboard]"') from None
        self.folder, self.make = folder, SummaryWriter

    def start(self, start: Start) -> None:
        """Open the file, and lay out charts that show the population as a band around its median."""
        # What a killed run wrote after its last checkpoint comes again: hide the first time.
        self.writer = self.make(str(self.folder), purge_step=start.step + 1 if start.done else None)
        charts = {}
        for name in ("loss", "validation_loss", "metric"):
            charts[name] = ["Margin", [f"{name}/{BANDS[1]}", f"{name}/{BANDS[0]}", f"{name}/{BANDS[2]}"]]
        self.writer.add_custom_scalars({"population (median, 10 % to 90 %)": charts})

    def progress(self, progress: Progress) -> None:
        """Nothing: evaluations are often enough."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """One point on every curve."""
        scalars = {"speed/network_steps_per_second": record["network_steps_per_second"]}
        for name in ("loss", "validation_loss", "metric", "lr"):
            scalars |= {f"{name}/{which}": value for which, value in (record.get(name) or {}).items()}
        scalars |= {f"status/{name}": count for name, count in record["statuses"].items()}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()

    def finish(self, result: Result) -> None:
        """Close the file."""
        self.writer.close()
