"""Ranking: by loss where the networks have one, else by metric; the same in a result, a model and what is printed."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gpubp
from gpubp.cli import main

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
    common = {"engine": "eager", "epochs": 9, "batch_size": 8}
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
