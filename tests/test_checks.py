"""Data that were changed after they were made are looked at again: an engine reads where it is pointed to."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError, DataError, ShapeError

SPEC = gpubp.NetworkSpec((3, 4, 2))
CHANGES: dict[str, Callable[[gpubp.Dataset], object]] = {
    "rows beyond the samples": lambda data: data.rows.fill_(10**12),
    "rows below 0": lambda data: data.rows.fill_(-1),
    "sizes beyond the rows": lambda data: data.sizes.fill_(10**9),
    "sizes of 0": lambda data: data.sizes.fill_(0),
    "fewer targets": lambda data: setattr(data, "targets", data.targets[:2]),
    "fewer weights": lambda data: setattr(data, "sample_weight", torch.ones(2)),
    "fewer inputs": lambda data: setattr(data, "inputs", data.inputs[:5]),
}


def data(**more: object) -> gpubp.Dataset:
    return gpubp.Dataset(torch.rand(12, 3), torch.rand(12, 2), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", CHANGES)
def test_data_that_were_changed_are_refused_where_they_do_not_fit(change: str) -> None:
    networks, own = gpubp.Population.create(SPEC, 2), data(rows=[range(6), range(3, 12)])
    CHANGES[change](own)
    for training, validation in ((own, None), (data(), own)):
        with pytest.raises((DataError, ShapeError), match="the data were changed"):
            gpubp.train(networks, training, gpubp.TrainConfig(steps=1), validation)


def test_a_run_without_its_manifests_is_not_restarted(tmp_path: Path) -> None:
    networks, run, config = gpubp.Population.create(SPEC, 2), tmp_path / "run", gpubp.TrainConfig(steps=3)
    gpubp.train(networks, data(), config, run_dir=run, engine="eager")
    for path in run.glob("checkpoint/manifest*"):
        path.unlink()
    before = (run / "results.csv").read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        gpubp.train(networks, data(), config, run_dir=run)
    with pytest.raises(CheckpointError, match="is missing"):
        gpubp.resume(run, data())
    assert (run / "results.csv").read_bytes() == before


def test_a_resume_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    networks, run, given = gpubp.Population.create(SPEC, 2), tmp_path / "run", data()
    gpubp.train(networks, given, gpubp.TrainConfig(steps=3), run_dir=run, engine="eager")
    manifest = (run / "checkpoint/manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="settings"):
        gpubp.resume(run, given, steps=8, settings={"a": object()})
    assert (run / "checkpoint/manifest.json").read_bytes() == manifest


def test_rows_that_share_memory_are_not_trained_in_place() -> None:
    networks = gpubp.Population.create(SPEC, 1)
    many = gpubp.Population(SPEC, networks.params.expand(2, -1), 0, torch.arange(2))
    with pytest.raises(ConfigError, match="share memory"):
        gpubp.train(many, data(), gpubp.TrainConfig(steps=1), inplace=True)


def test_more_samples_than_are_counted_are_refused() -> None:
    rows = [torch.zeros(10**7, dtype=torch.int64)] * 2
    with pytest.raises(ConfigError, match="below 2\\^62"):
        gpubp.train(gpubp.Population.create(SPEC, 2), data(rows=rows), gpubp.TrainConfig(epochs=10**12))
