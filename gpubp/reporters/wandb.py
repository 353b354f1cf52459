"""Weights & Biases: quantiles over the networks, networks by status, the settings, and the table of results
(service.py)."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .service import Service


class WandbReporter(Service):
    """A run of W&B. project: by default WANDB_PROJECT, or gpubp; settings: of wandb.init, such as mode="offline"."""

    name = "wandb"

    def __init__(self, project: str | None = None, **settings: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError('Weights & Biases is not installed: pip install "gpubp[wandb]"') from None
        self.wandb, self.settings = wandb, settings
        self.project = project or os.environ.get("WANDB_PROJECT", "gpubp")

    def open(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """See Service. Console output is not captured."""
        own = {"settings": self.wandb.Settings(console="off", silent=True), **self.settings}
        chosen = run or secrets.token_hex(8)
        self.there = self.wandb.init(project=self.project, id=chosen, resume="allow", config=dict(settings), **own)
        return chosen

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Service."""
        self.there.log(dict(values), step=step)

    def keep(self, path: Path) -> None:
        """See Service."""
        table = self.wandb.Artifact(f"results-{self.run}", type="results")
        table.add_file(str(path))
        self.there.log_artifact(table)

    def close(self, good: bool) -> None:
        """See Service."""
        self.there.finish(exit_code=0 if good else 1)
