"""monitor="metric": its column in the results, R2 that is unknown, and runs without validation. Its decisions are in
test_stopping.py, its ranks in test_ranking.py."""

from pathlib import Path

import pytest
import torch

import gpubp
from gpubp.cli import main
from gpubp.errors import ConfigError

from .helpers import samples

SPEC = gpubp.NetworkSpec((3, 6, 4), "relu", loss="cross_entropy")


def test_the_best_by_the_metric_is_in_the_results_of_networks_that_go_by_it() -> None:
    sets = (gpubp.Dataset(*samples(SPEC, 20)),) * 2
    rows = [{"restore_best": True, "monitor": "metric"}, {}, {"restore_best": True}]
    common = {"widths": "3,6,4", "loss": "cross_entropy", "engine": "eager", "steps": 35, "evaluate_every": 10}
    found = (result := gpubp.train_many(rows, *sets, **common)).table.to_pydict()
    assert found["best_accuracy"] == [found["validation_accuracy"][0], None, None]
    assert found["best_loss"] == [found["validation_loss"][0], None, pytest.approx(found["validation_loss"][2])]
    assert found["monitor"] == ["metric", "loss", "loss"]
    assert result.best_metric.isnan().tolist() == [False, True, True]
    with pytest.raises(ConfigError, match="monitor='metric' needs validation data"):
        gpubp.train_many(rows, sets[0], **common)


def test_a_network_whose_r2_is_unknown_trains_to_its_end() -> None:
    data, same = gpubp.Dataset(torch.rand(9, 3), torch.rand(9)), gpubp.Dataset(torch.rand(2, 3), torch.ones(2))
    common = {"widths": "3,1", "loss": "mean_squared_error", "engine": "eager", "epochs": 9, "min_delta": 0.5}
    for held_out, status in ((data, "stopped"), (same, "finished")):
        result = gpubp.train_many([{"monitor": "metric", "patience": 2}], data, held_out, **common)
        assert result.status_names == [status]


def test_a_run_is_verified_though_nothing_is_validated_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--data xor --networks 2 --epochs 3 --engine eager --tensorboard false"
    status = main(
        ["train", *flags.split(), "--monitor", "metric", "--patience", "2", "--run-dir", str(tmp_path / "no")]
    )
    assert status == 1
    assert "monitor='metric' needs validation data" in capsys.readouterr().err
    given = f"{flags} --data wine --monitor metric --patience 2 --run-dir {tmp_path / 'run'}"
    assert main(["train", *given.split()]) == 0
    assert main(["verify", str(tmp_path / "run")]) == 0
