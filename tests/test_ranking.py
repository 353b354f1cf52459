"""Ranking: by loss where the networks have one, else by metric; the same in a result, a model and what is printed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.cli import main
from gpubp.commands.inspect import picked
from gpubp.results.ranking import order_of
from gpubp.results.saved import read_results

from .test_design import data, train

NUMBERED = gpubp.Dataset(torch.rand(40, 3), torch.rand(40, 2) ** 3)
UNLIKE = {
    "losses": [{"loss": loss} for loss in ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh")],
    "a loss's own numbers": [{"loss": "huber", "delta": delta} for delta in (0.001, 1.0, 0.01, 0.1)],
    "a default and a number": [{"loss": "quantile", "quantile": quantile} for quantile in (0.01, None, 0.9, 0.5)],
}


@pytest.mark.parametrize("name", UNLIKE)
def test_networks_whose_losses_cannot_be_compared_are_ranked_by_their_metric(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    design = [{"widths": "3,9,2", "lr": lr, **row} for row in UNLIKE[name] for lr in (1e-4, 0.05)]
    common = {"engine": "eager", "epochs": 4, "batch_size": 8}
    for validation in (None, NUMBERED):
        folder = tmp_path / f"run{validation is None}"
        result = gpubp.train_many(design, NUMBERED, validation, run_dir=folder, **common)
        metric = "r2" if validation is None else "validation_r2"
        by_metric = sorted(range(8), key=lambda row: -result.table[metric][row].as_py())
        by_loss = sorted(range(8), key=lambda row: float(result.loss[row]))
        assert result.ranking().tolist() == by_metric != by_loss
        model = gpubp.load(folder)
        assert model.ranking().tolist() == by_metric
        inputs = torch.rand(5, 3)
        np.testing.assert_array_equal(model.predict(inputs), model.predict(inputs, networks=by_metric[:1]))
        assert f"best {metric.replace('_', ' ')} {result.table[metric][by_metric[0]].as_py():.4g}" in repr(result)
        assert main(["inspect", str(folder)]) == 0
        assert f"ranked by {metric}" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["label_smoothing", "class_weight"])
def test_classes_that_are_weighed_or_smoothed_differently_are_ranked_by_accuracy(setting: str) -> None:
    given = [0.0, 0.3] if setting == "label_smoothing" else ["1,1,1,1", "1,2,3,4"]
    result = train([{"widths": "3,6,4", setting: each} for each in given], data())
    assert "best validation accuracy" in repr(result)
    alike = train([{"widths": "3,6,4", setting: given[1], "lr": lr} for lr in (0.1, 0.2)], data())
    assert "best validation loss" in repr(alike)


def test_networks_that_all_monitor_the_metric_are_ranked_by_it_and_equal_ones_by_the_loss(tmp_path: Path) -> None:
    design = [{"widths": "3,6,4", "seed": seed} for seed in range(12)]
    given = {"loss": "cross_entropy", "engine": "eager", "epochs": 6, "lr": 0.01, "restore_best": True}
    few = data().take(range(4))
    result = gpubp.train_many(design, data(), few, monitor="metric", run_dir=tmp_path / "run", **given)
    accuracy, loss = result.validation_metric, result.validation_loss
    expected = sorted(range(12), key=lambda row: (-float(accuracy[row]), float(loss[row])))
    assert len(accuracy.unique()) < 12
    assert gpubp.load(tmp_path / "run").ranking().tolist() == result.ranking().tolist() == expected
    assert gpubp.studies.Study(result.table).figure == "validation_accuracy"
    searched = gpubp.train_many(
        design, data(), few, monitor="metric", search=gpubp.search.SuccessiveHalving(min_resources=1), **given
    )
    first = gpubp.train_many(design, data(), few, **{**given, "epochs": 1})
    metric, loss = first.validation_metric, first.validation_loss
    best = sorted(range(12), key=lambda row: (-float(metric[row]), float(loss[row])))[:4]
    assert {*(searched.state.step > searched.state.step.min()).nonzero()[:, 0].tolist()} == {*best}
    assert {*best} != {*metric.argsort(descending=True, stable=True)[:4].tolist()}
    assert {*best} != {*loss.argsort()[:4].tolist()}
    mixed = gpubp.train_many([{}, {"monitor": "metric"}], data(), few, widths="3,6,4", **given).table
    assert gpubp.studies.Study(mixed).figure == "validation_loss"
    assert gpubp.studies.Study(mixed.slice(1)).figure == "validation_accuracy"


def steep(out: Any, target: Any, power: Any) -> Any:
    return power * (out - target) * (out - target)


def steep_slope(out: Any, target: Any, power: Any) -> Any:
    return 2 * power * (out - target)


def test_hyper_parameters_of_a_loss_of_ones_own_set_networks_apart_in_ranks_and_studies(tmp_path: Path) -> None:
    """Also where no table has the loss, as in a command that reads the results."""
    design = [{"extra.power": power, "seed": seed} for power in (0.01, 1.0, 100.0) for seed in range(2)]
    own = gpubp.Loss(steep, steep_slope, defaults={"power": 1.0})
    common = {"widths": "3,9,2", "loss": own, "engine": "eager", "epochs": 2, "optimizer": "sgd"}
    result = gpubp.train_many(design, NUMBERED, run_dir=tmp_path / "run", **common)
    by_metric = sorted(range(6), key=lambda row: -float(result.metric[row]))
    assert result.ranking().tolist() == by_metric != sorted(range(6), key=lambda row: float(result.loss[row]))
    assert repr(result).split("; ")[1].startswith("best r2")
    saved = read_results(tmp_path / "run" / "results.parquet")
    assert order_of(saved).tolist() == by_metric
    assert saved["extra.power"].to_pylist() == [each["extra.power"] for each in design]
    study = gpubp.studies.Study(saved)
    assert repr(study) == "Study(6 networks by r2; extra.power varied)"
    assert [each["extra.power"] for each in study.settings(9)] == [
        design[2 * each]["extra.power"] for each in study.ranking
    ]
    assert [effect.name for effect in study.effects()] == ["extra.power"]
    assert study.distributions() == {}
    alike = gpubp.train_many([{"extra.power": 2.0}] * 2, NUMBERED, **common)
    assert "best loss" in repr(alike)
    assert [*picked(gpubp.studies.Study(alike.table), alike.table, 1)["best"][0]] == [
        "network", "status", "steps", "loss", "r2"
    ]  # fmt: skip
