"""MLflow: quantiles over the networks, networks by status, the settings, and the table of results (service.py)."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .service import Service

LONGEST, MOST = 500, 100  # characters per value and settings per call that every MLflow server accepts


class MLflowReporter(Service):
    """A run of MLflow. experiment: by default MLFLOW_EXPERIMENT_NAME, or gpubp; tracking_uri: as in MLflow."""

    name = "mlflow"

    def __init__(self, experiment: str | None = None, tracking_uri: str | None = None) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError:
            raise ConfigError('MLflow is not installed: pip install "gpubp[mlflow]"') from None
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "gpubp")
        self.uri, self.make, self.metric, self.param = tracking_uri, MlflowClient, Metric, Param

    def open(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """See Service."""
        self.client = self.make(self.uri)
        if run is not None:
            self.client.update_run(run, "RUNNING")
            return run
        known = self.client.get_experiment_by_name(self.experiment)
        place = self.client.create_experiment(self.experiment) if known is None else known.experiment_id
        created = str(self.client.create_run(place).info.run_id)
        params = [self.param(name, str(value)[:LONGEST]) for name, value in settings.items()]
        for at in range(0, len(params), MOST):
            self.client.log_batch(created, params=params[at : at + MOST])
        return created

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See Service."""
        now = int(1000 * time.time())
        self.client.log_batch(self.run, [self.metric(name, value, now, step) for name, value in values.items()])

    def keep(self, path: Path) -> None:
        """See Service."""
        self.client.log_artifact(self.run, str(path))

    def close(self, good: bool) -> None:
        """See Service."""
        self.client.set_terminated(self.run, "FINISHED" if good else "KILLED")
