"""Reporters to tracking services: every point once, also after a kill and a resume; a service that fails or hangs stops
no training and changes no bit. MLflow and W&B themselves are tested where they are installed."""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

import gpubp
from gpubp.reporters import service
from gpubp.reporters.service import Service

from .commands import Capture, error, here  # noqa: F401
from .helpers import same_bits
from .short_runs import Crash

DATA = gpubp.Dataset([[0.0], [1.0]], [[0.0], [1.0]])


class Fake(Service):
    """A service in this process. runs: their points and files by id."""

    name = "fake"

    def __init__(self, runs: dict[str, Any], fails: str = "") -> None:
        self.runs, self.fails = runs, fails

    def _told(self, what: str) -> None:
        if what == self.fails:
            raise ConnectionError(f"no network for {what}")

    def open(self, run: str | None, settings: Mapping[str, Any]) -> str:
        self._told("open")
        chosen = run or f"run {len(self.runs)}"
        self.runs.setdefault(chosen, {"settings": settings, "points": [], "tables": []})
        return chosen

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._told("log")
        self.runs[self.run]["points"].append((step, values))

    def keep(self, path: Path) -> None:
        self._told("keep")
        self.runs[self.run]["tables"].append(pyarrow.parquet.read_table(path))

    def close(self, good: bool) -> None:
        self.runs[self.run]["good"] = good


def train(*reporters: gpubp.Reporter, steps: int = 10, **more: Any) -> gpubp.Result:
    population = gpubp.Population.create(gpubp.NetworkSpec((1, 3, 1)), 5)
    config = gpubp.TrainConfig(lr=torch.logspace(-3, -1, 5), steps=steps, evaluate_every=1)
    return gpubp.train(population, DATA, config, DATA, engine="eager", reporters=reporters, **more)


def test_a_killed_and_resumed_run_is_one_run_of_the_service_with_every_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CURVES", (16, 8))
    runs: dict[str, Any] = {}
    with pytest.raises(RuntimeError, match="crashed"):
        train(Fake(runs), Crash(7), run_dir=tmp_path / "run", checkpoint_minutes=1.0)
    assert [step for step, _ in runs["run 0"]["points"]][-1] >= 6, "beyond the checkpoint, that before the first step"
    assert runs["run 0"]["good"] is False
    result = gpubp.resume(tmp_path / "run", DATA, DATA, steps=60, reporters=[Fake(runs)])
    (there,) = runs.values()
    steps = [step for step, _ in there["points"]]
    assert steps[:16] == [*range(1, 17)]
    assert steps[-1] == 60
    assert len(steps) < 35
    assert there["points"][-1][1]["training_loss/median"] == result.history[-1]["loss"]["median"]
    assert there["points"][-1][1]["networks/finished"] == 5
    assert there["tables"][0].equals(result.table)
    assert there["good"] is True
    assert there["settings"]["network.widths"] == [1, 3, 1]
    assert result.silenced == []


def test_without_a_run_directory_the_table_goes_there_too() -> None:
    runs: dict[str, Any] = {}
    result = train(Fake(runs))
    assert runs["run 0"]["tables"][0].equals(result.table)


@pytest.mark.parametrize("what", ["open", "log", "keep"])
def test_a_service_that_fails_is_told_of_once_and_changes_nothing(what: str, tmp_path: Path) -> None:
    plain, result = train(), train(Fake({}, what), run_dir=tmp_path / "run")
    assert result.silenced == [f"Fake cannot write, and stops reporting: fake: no network for {what}"]
    assert result.notes.count(result.silenced[0]) == 1
    assert same_bits(result.population.params, plain.population.params)
    assert result.status_names == ["finished"] * 5


def test_a_service_that_hangs_holds_up_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Hangs(Fake):
        def log(self, values: Mapping[str, float], step: int) -> None:
            over.wait()

    monkeypatch.setattr(service, "PATIENCE", 0.05)
    result = train(Hangs({}))
    over.set()
    assert result.silenced == ["Hangs cannot write, and stops reporting: fake: no answer in 0.05 s"]
    assert len(result.history) == 10


def test_an_unknown_service_and_one_that_is_not_installed_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    train = "train --data xor --networks 2 --steps 2 --device cpu --engine eager --report"
    for name, told in (("mlfow", "did you mean 'mlflow'?"), ("mlflow", 'pip install "gpubp[mlflow]"'),
                       ("wandb", 'pip install "gpubp[wandb]"')):  # fmt: skip
        assert told in error(f"{train} {name}", capsys)
    assert not Path("runs").exists()


SLOW = [pytest.param(store, marks=pytest.mark.slow) for store in ("default", "sqlite")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("store", ["environment", *SLOW])
def test_mlflow_has_settings_curves_and_table_of_a_resumed_run(store: str, tmp_path: Path, monkeypatch: Any) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    from gpubp.reporters.mlflow import MLflowReporter

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if store == "environment":  # a folder, where no database is made
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    place = f"sqlite:///{tmp_path}/our.db" if store == "sqlite" else None
    train(MLflowReporter("study", place), run_dir=tmp_path / "run")
    result = gpubp.resume(tmp_path / "run", DATA, DATA, steps=14, reporters=[MLflowReporter("study", place)])
    assert result.silenced == []
    client = mlflow.MlflowClient(place)
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert (run.info.status, run.data.params["network.widths"]) == ("FINISHED", "[1, 3, 1]")
    points = client.get_metric_history(run.info.run_id, "validation_loss/median")
    assert [(each.step, each.value) for each in points] == [
        (record["step"], pytest.approx(record["validation_loss"]["median"])) for record in result.history
    ]
    path = client.download_artifacts(run.info.run_id, "results.parquet", str(tmp_path))
    assert pyarrow.parquet.read_table(path).equals(result.table)


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_a_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from gpubp.reporters.wandb import WandbReporter

    reporter = lambda: WandbReporter("study", mode="offline", dir=str(tmp_path))  # noqa: E731
    assert train(reporter(), run_dir=tmp_path / "run").silenced == []
    assert gpubp.resume(tmp_path / "run", DATA, DATA, steps=14, reporters=[reporter()]).silenced == []
    files = [*tmp_path.glob("wandb/offline-run-*/run-*.wandb")]
    assert len(files) == 2
    assert len({path.name for path in files}) == 1, "both parts have one id, so that wandb sync joins them"
    whole = b"".join(path.read_bytes() for path in files)
    assert b"validation_loss/median" in whole
    assert b"results.parquet" in whole
