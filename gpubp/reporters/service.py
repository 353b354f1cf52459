"""Service: what reporters to a tracking service have in common (mlflow.py, wandb.py).

A thread talks to the service, so that a slow service holds up no step. The first failure ends the reporter: it is
reported once, and training continues. RUN/NAME.json has the id of the service's run and its last step: a resumed run
continues the same run there, without repeating points.
"""

import json
import queue
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyarrow import parquet

from ..checkpoints.history import SHOWN
from ..line import line
from ..results.result import Result
from ..results.saved import RESULTS
from ..system import files
from . import Reporter, Start, due

CURVES = 256, 32  # of due(): at most 1,000 points in 2^31 evaluations
PATIENCE = 60.0  # seconds that an ended training waits for the service


class Service(Reporter):
    """name: of the file with the id. Subclasses say how to open a run, log numbers and a file, and close it."""

    name: str

    @abstractmethod
    def open(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run with these settings, or continue `run`. -> its id."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to each curve."""

    @abstractmethod
    def keep(self, path: Path) -> None:
        """Store a file with the run."""

    @abstractmethod
    def close(self, good: bool) -> None:
        """End the run. good: whether training has come to its end."""

    def start(self, start: Start) -> None:
        """Open the run, and send it the points that it lacks."""
        self.kept = None if start.run_dir is None else Path(start.run_dir) / f"{self.name}.json"
        self.clock, self.hidden = start.clock, dict[str, Any]()
        self.failure: Exception | None = None
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"gpubp-{self.name}", daemon=True)
        self.thread.start()
        about = {**_flat(start.settings), "networks": start.networks, "engine_reason": start.engine_reason}
        self.jobs.put(lambda: self._open(about))
        for record in start.history:
            self.evaluated(record)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Add a point to the curves."""
        self._check()
        self.hidden = {} if due(record["round"], *CURVES) else dict(record)
        if not self.hidden and self.clock in record:
            self.jobs.put(lambda: self._log(record))

    def finish(self, result: Result) -> None:
        """Add the last point and the table of results, and wait for the service."""
        if self.hidden:
            self.jobs.put(lambda last=self.hidden: self._log(last))  # type: ignore[misc]
        self.jobs.put(lambda: self._keep(result))
        self._end(good=result.interrupted is None, patience=PATIENCE)
        self._check()

    def failed(self) -> None:
        """End the service's run."""
        if hasattr(self, "thread"):
            self._end(good=False, patience=1.0)

    def _end(self, good: bool, patience: float) -> None:
        self.jobs.put(lambda: self.close(good))
        self.jobs.put(None)
        self.thread.join(patience)
        if self.thread.is_alive() and self.failure is None:
            self.failure = TimeoutError(f"no answer in {patience:g} s")

    def _work(self) -> None:
        """Do the jobs, up to the first failure."""
        try:
            while (job := self.jobs.get()) is not None:
                job()
        except Exception as error:
            self.failure = error

    def _check(self) -> None:
        """Raise a failure as a failed write, which ends only this reporter (listeners.py)."""
        if self.failure is not None:
            raise OSError(f"{self.name}: {self.failure}") from self.failure

    def _open(self, settings: Mapping[str, Any]) -> None:
        run, self.last = None, -1
        if self.kept is not None and self.kept.exists():
            found = json.loads(files.read(self.kept))
            run, self.last = str(found["run"]), int(found["step"])
        self.run = self.open(run, settings)

    def _log(self, record: Mapping[str, Any]) -> None:
        if record[self.clock] > self.last:
            self.last = record[self.clock]
            self.log(numbers(record), self.last)
            if self.kept is not None:
                told = json.dumps({"run": self.run, "step": self.last})
                files.write(self.kept, lambda beside: beside.write_text(told), sync=False)

    def _keep(self, result: Result) -> None:
        if result.run_dir is not None and result.unsaved is None:
            self.keep(result.run_dir / RESULTS)
            return
        with tempfile.TemporaryDirectory() as folder:
            parquet.write_table(result.table, Path(folder) / RESULTS)
            self.keep(Path(folder) / RESULTS)


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name: quantiles, networks by status, the rate."""
    named = {"loss": "training_loss", "metric": f"validation_{record['metric_name']}"}
    found = {
        f"{named.get(name, name)}/{which}": value
        for name in ("loss", "validation_loss", "metric", "lr")
        for which, value in (record[name] or {}).items()
        if which in SHOWN
    }
    found |= {f"networks/{status}": count for status, count in record["statuses"].items()}
    return found | {
        "network_steps": record["network_steps"],
        "network_steps_per_second": record["network_steps_per_second"],
    }


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by one name each: network.widths."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if value is not None:
            shown = line(value) if isinstance(value, str) else value
            found |= (
                _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{line(name)}": shown}
            )
    return found
