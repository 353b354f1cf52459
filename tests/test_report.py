"""A report shows the numbers of its run, whatever kind it is, within five megabytes."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import confusion_matrix, mean_absolute_error, r2_score, root_mean_squared_error

import gpubp
from gpubp.checkpoints import checkpoint, curves
from gpubp.cli import main
from gpubp.errors import CheckpointError
from gpubp.pages import figures, predictions
from gpubp.samples import bundled, folds
from gpubp.studies import Study
from gpubp.system import lock, machine

from .commands import Capture, error
from .reports import Reported, data_of, many, page_of, reported  # noqa: F401
from .short_runs import Crash, sealed

FIVE = {"rtol": 1e-4}  # five digits are shown


def results(folder: Path) -> Any:
    return pyarrow.parquet.read_table(folder / "results.parquet")


def raw(name: str, side: int = 1) -> tuple[dict[str, Any], Any]:
    """The raw columns of the samples held out of a data set, and their targets."""
    columns = bundled.columns(name)
    rows = folds.split(len(columns["target"]), 0.2, 0)[side].numpy()
    held_out = {key: np.asarray(values)[rows] for key, values in columns.items()}
    return held_out, held_out.pop("target")


def test_bands_and_statuses_are_those_of_the_history(reported: Reported) -> None:
    folder, page = reported("sweep")
    data, lines = data_of(page), (folder / "history.jsonl").read_text().splitlines()
    history = [json.loads(each) for each in lines]
    assert data["bands"]["at"] == data["statuses"]["at"] == [each["step"] for each in history]
    for name, panel in data["bands"]["panels"].items():
        for quantile, values in panel.items():
            np.testing.assert_allclose(values, [each[name][quantile] for each in history], **FIVE)
    assert set(data["bands"]["panels"]) == {"loss", "validation_loss", "metric"}
    for name, counts in data["statuses"]["counts"].items():
        assert counts == [each["statuses"][name] for each in history]
    assert sum(each[-1] for each in data["statuses"]["counts"].values()) == 40


@pytest.mark.parametrize(
    ("name", "clock"),
    [*zip(("sweep", "halving"), ["training step"] * 2), *zip(("queue", "entities"), ["network-steps"] * 2)],
)
def test_figures_go_by_a_clock_that_rises_and_every_network_has_a_status(
    name: str, clock: str, reported: Reported
) -> None:
    folder, page = reported(name)
    data, networks = data_of(page), len(results(folder))
    assert data["clock"] == clock
    assert len(re.findall(f"<th scope=col[^>]*>{clock}</th>", page)) == 1 + len(data["bands"]["panels"])
    for each in (data["bands"]["at"], data["statuses"]["at"]):
        assert each == sorted({*each})
        assert len(each) > 1
    counts = data["statuses"]["counts"]
    assert ("waiting" in counts) == ("They are those of the networks that have a slot" in page) == (name == "queue")
    assert {sum(at) for at in zip(*counts.values())} == {networks}


def test_a_run_of_before_the_clock_was_kept_has_the_same_figures(reported: Reported, tmp_path: Path) -> None:
    folder = shutil.copytree(reported("queue")[0], tmp_path / "run")
    path = folder / "checkpoint" / "manifest.json"
    kept = json.loads(path.read_text())
    assert kept.pop("clock") == "network_steps"
    path.write_text(sealed(kept))
    assert data_of(page_of(folder))["bands"] == data_of(reported("queue")[1])["bands"]
    kept["clock"] = "sundial"
    path.write_text(sealed(kept))
    path.with_name("manifest.previous.json").unlink()
    with pytest.raises(CheckpointError, match="clock 'sundial'; step or network_steps expected"):
        checkpoint.load(folder, torch.device("cpu"))


def test_every_network_of_a_small_run_is_a_point_with_its_own_numbers(reported: Reported) -> None:
    folder, page = reported("sweep")
    data, table = data_of(page), results(folder)
    points, diverged = data["points"], np.array(table["status"].to_pylist()) == "diverged"
    assert sorted(points["network"]) == list(range(40))
    assert "can be picked" not in page
    assert 3 < diverged.sum() < 37
    ranked = gpubp.results.ranking.order_of(table).tolist()
    for network, rank, figure, lr in zip(points["network"], points["rank"], points["figure"], points["columns"]["lr"]):
        assert lr == pytest.approx(table["lr"][network].as_py(), rel=1e-4)
        assert (rank is None) == (figure is None) == diverged[network]
        if rank is not None:
            assert ranked[rank - 1] == network
            assert figure == pytest.approx(table["validation_loss"][network].as_py(), rel=1e-4)


def test_marginals_are_the_groups_of_the_study(reported: Reported) -> None:
    folder, page = reported("folds")
    found, study = data_of(page)["effects"], Study(results(folder))
    assert [each["name"] for each in found] == [each.name for each in study.effects()]
    for shown, effect in zip(found, study.effects()):
        assert len(shown["groups"]) == len(effect.groups)
        for group, own in zip(shown["groups"], effect.groups):
            assert (group["networks"], group["diverged"]) == (own.networks, own.diverged)
            assert (group["median"], group["mean"]) == pytest.approx((own.median, own.mean), rel=1e-4)
    (lr,) = [each for each in found if each["name"] == "lr"]
    assert lr["numbers"]
    assert lr["log"]


def test_curves_are_those_of_the_run_and_end_at_its_results(reported: Reported) -> None:
    folder, page = reported("sweep")
    data, table, kept = data_of(page), results(folder), curves.read(folder, range(40))
    assert {*map(int, data["curves"])} == kept.keys()
    for network, (steps, loss, *held_out) in data["curves"].items():
        assert steps == kept[int(network)]["step"].tolist()
        np.testing.assert_allclose(loss, kept[int(network)]["loss"], **FIVE)
        for validation_loss in held_out:  # of a network that diverged it may never have been finite
            own = kept[int(network)]["validation_loss"]
            known = np.isfinite(own)
            assert [each is not None for each in validation_loss] == known.tolist()
            np.testing.assert_allclose(np.array(validation_loss, float)[known], own[known], **FIVE)
        if table["status"][int(network)].as_py() == "finished":
            assert held_out[0][-1] == pytest.approx(table["validation_loss"][int(network)].as_py(), rel=1e-4)


def test_a_matrix_counts_the_predictions_of_the_run_on_raw_samples(reported: Reported) -> None:
    folder, page = reported("sweep")
    samples, actual = raw("iris")
    model = gpubp.load(folder)
    best, ensemble = data_of(page)["predictions"]
    assert (best["name"], ensemble["name"]) == ("best network", "ensemble of 10")
    for shown, said in ((best, model.predict(samples)), (ensemble, model.predict(samples, 10))):
        assert shown["matrix"]["labels"] == [*model.classes]
        assert shown["matrix"]["counts"] == confusion_matrix(actual, said, labels=model.classes).tolist()
        assert shown["matrix"]["right"] == (actual == said).sum()
    assert f"{best['matrix']['right']} of 30 samples right" in page


def test_residuals_are_in_the_units_of_the_targets(reported: Reported) -> None:
    folder, page = reported("numbers")
    samples, actual = raw("diabetes")
    model = gpubp.load(folder)
    for each, networks in zip(data_of(page)["predictions"], ("best", 10)):
        (shown,), said = each["targets"], model.predict(samples, networks)
        assert shown["rmse"] == pytest.approx(root_mean_squared_error(actual, said), rel=1e-4)
        assert shown["mae"] == pytest.approx(mean_absolute_error(actual, said), rel=1e-4)
        assert shown["r2"] == pytest.approx(r2_score(actual, said), rel=1e-3)
        assert shown["bias"] == pytest.approx((said - actual).mean(), rel=1e-3)
        np.testing.assert_allclose(sorted(shown["predicted"]), sorted(said), **FIVE)
        assert shown["name"] == "target"


def test_with_folds_every_sample_is_predicted_by_the_best_setting_without_it(reported: Reported) -> None:
    folder, page = reported("folds")
    best, ensemble = data_of(page)["predictions"]
    assert (best["name"], ensemble["name"]) == ("best setting, for each fold", "ensemble of 10, for each fold")
    assert np.sum(best["matrix"]["counts"]) == np.sum(ensemble["matrix"]["counts"]) == 178
    study = Study(results(folder))
    own = study.results.filter(pyarrow.array(study.setting == study.ranking[0]))
    shares = own["validation_accuracy"].to_numpy()[np.argsort(own["fold"].to_numpy())]
    sizes = gpubp.load_data("wine", folds=4).validation.sizes.numpy()
    assert best["matrix"]["right"] == round(shares @ sizes)


def test_an_entity_is_predicted_by_its_own_best_network(reported: Reported) -> None:
    folder, page = reported("entities")
    best, _ = data_of(page)["predictions"]
    assert best["name"] == "best network, for each entity"
    data = gpubp.load_data("diabetes", per=["sex"])
    sizes, factor = data.validation.sizes.numpy(), np.array(data.training.preparation.target_columns[0].factor)
    table = results(folder)
    losses, keys = table["validation_loss"].to_numpy(), table["sex"].to_numpy()
    losses = [losses[keys == key].min() for key in np.unique(keys)]
    square = np.dot(losses * factor**2, sizes) / sizes.sum()
    assert best["targets"][0]["rmse"] ** 2 == pytest.approx(square, rel=1e-3)
    assert best["targets"][0]["samples"] == sizes.sum()
    assert "sex" in [each["name"] for each in data_of(page)["effects"]]


@pytest.mark.parametrize(
    ("name", "told"),
    [("unvalidated", "The run has no validation samples."), ("diverged", "Every network diverged"),
     ("single", "best network"), ("queue", "ensemble of 10"),
     ("halving", "<td class=number>rung</td>|>rung<"), ("pbt", "ensemble of 8")],
)  # fmt: skip
def test_a_run_of_any_kind_has_a_report(name: str, told: str, reported: Reported) -> None:
    folder, page = reported(name)
    assert re.search(told, page)
    data, table = data_of(page), results(folder)
    counts = {state: table["status"].to_pylist().count(state) for state in set(table["status"].to_pylist())}
    for state, count in counts.items():
        assert f"<dt>{state}</dt><dd>{count}</dd>" in page
    assert bool(data["predictions"]) == (name not in ("unvalidated", "diverged"))
    assert len(data["points"]["network"]) == table.num_rows
    assert bool(data["curves"]) == (name != "diverged")


def test_a_report_says_which_machine_trained_if_the_run_does(reported: Reported, tmp_path: Path) -> None:
    folder = shutil.copytree(reported("single")[0], tmp_path / "run")
    path = lock.file(folder)
    process, own = path.read_text().splitlines()
    assert own == machine.described()
    assert f"{os.cpu_count()} cores, " in own
    for kept, told in ((f"{process}\n9 cores; 2 x <GPU>\n", "9 cores; 2 x &lt;GPU&gt;"), (process, None)):
        path.write_text(kept)
        page = page_of(folder)
        assert f"<dt>trained by</dt><dd>{process}</dd>" in page
        assert (f"<dt>machine</dt><dd>{told}</dd>" in page) == ("<dt>machine</dt>" in page) == bool(told)
    path.unlink()
    assert "<dt>trained by</dt>" not in page_of(folder)


def test_a_run_that_crashed_shows_its_last_checkpoint(tmp_path: Path) -> None:
    data = gpubp.load_data("iris")
    design = [{"lr": 0.01 * (1 + at), "widths": "4,6,3" if at % 2 else "4,3"} for at in range(8)]
    with pytest.raises(RuntimeError):
        gpubp.train_many(
            design, data.training, data.validation, loss=data.loss, epochs=6, engine="eager", reporters=[Crash(4)],
            run_dir=tmp_path / "run", checkpoint_minutes=0, evaluate_every=1,
        )  # fmt: skip
    page = page_of(tmp_path / "run")
    shown = data_of(page)
    assert "The run has not ended: figures are those of its last checkpoint, losses and steps of evaluations." in page
    assert "started from Python" in page
    kept = curves.read(tmp_path / "run", range(8))
    assert sorted(shown["points"]["network"]) == list(range(8))
    for network, figure in zip(shown["points"]["network"], shown["points"]["figure"]):
        assert figure == pytest.approx(float(kept[network]["validation_loss"][-1]), rel=1e-4)
    assert {each["name"] for each in shown["effects"]} == {"lr", "widths", "hidden_layers"}


def test_results_of_before_a_resume_are_not_shown(reported: Reported, tmp_path: Path) -> None:
    folder = shutil.copytree(reported("single")[0], tmp_path / "run")
    before = (folder / "results.parquet").read_bytes()
    assert main(["resume", str(folder), "--epochs", "6"]) == 0
    (folder / "results.parquet").write_bytes(before)
    page = page_of(folder)
    assert "The run has gone on since its results were written" in page
    (figure,) = data_of(page)["points"]["figure"]
    assert figure == pytest.approx(float(curves.read(folder, [0])[0]["validation_loss"][-1]), rel=1e-4)


def test_a_run_without_anything_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert "error: " in error(f"report {tmp_path}", capsys)
    assert not (tmp_path / "report.html").exists()


def test_a_page_replaces_a_page_and_nothing_else(reported: Reported, tmp_path: Path, capsys: Capture) -> None:
    folder, page = reported("single")
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html>my own")
    assert "is no page of gpubp; name a new file" in error(f"report {folder} --out {mine}", capsys)
    assert mine.read_text() == "<!doctype html>my own"
    for flag in ("--output", "--out"):
        assert main(["report", str(folder), flag, str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_data_that_changed_are_not_predicted(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    lines = [f"{at % 7},{at % 5},{at % 2}" for at in range(40)]
    file.write_text("\n".join(["a,b,c", *lines]))
    flags = (
        f"--data {file} --target c --networks 2 --epochs 2 --engine eager --tensorboard false --run-dir {tmp_path}/run"
    )
    assert main(["train", *flags.split()]) == 0
    assert data_of(page_of(tmp_path / "run"))["predictions"]
    file.write_text("\n".join(["a,b,c", *lines[::-1]]))
    assert "The data are not those that the run was trained on." in page_of(tmp_path / "run")
    file.unlink()
    assert "The validation samples are not at hand: " in page_of(tmp_path / "run")


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_very_many_networks_take_less_than_five_megabytes(count: int) -> None:
    page = many(count, 1_000)
    assert len(page.encode()) < 5e6
    data = data_of(page)
    assert len(data["points"]["network"]) > 1000
    assert f"{len(data['curves']):,} of {count:,} networks can be picked: evenly by rank" in page
    assert len(data["curves"]) == len(data["points"]["network"])
    assert len(data["bands"]["at"]) <= figures.EVALUATIONS


def test_texts_without_number_are_few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    (widths,) = [each for each in data_of(many(2_000, 3, texts=500))["effects"] if each["name"] == "widths"]
    assert (len(widths["groups"]), widths["left"]) == (figures.CATEGORIES, 480)


def test_many_classes_are_merged_without_losing_a_sample() -> None:
    source = np.random.default_rng(2)
    actual, predicted = source.integers(100, size=(2, 5000)) ** 2 // 100
    found = predictions.matrix(actual, predicted, range(100))
    assert len(found["labels"]) == predictions.CLASSES
    assert found["labels"][-1] == "71 others"
    assert np.sum(found["counts"]) == found["samples"] == 5000
    assert found["right"] == (actual == predicted).sum()
    first = int(found["labels"][0])
    assert found["counts"][0][0] == ((actual == first) & (predicted == first)).sum()


def test_numbers_of_which_each_network_has_its_own_stand_on_an_axis() -> None:
    columns = {"lr": [0.1, 0.01] * 3, "momentum": np.linspace(0.05, 0.9, 6), "dropout": np.linspace(0.1, 0.6, 6)}
    rows = pa.table({"network": range(6), "loss": np.arange(6.0), "status": ["finished"] * 6, **columns})
    found = {each["name"]: (each["numbers"], each["log"]) for each in figures.effects(Study(rows))}
    assert found == {"lr": (False, False), "momentum": (True, True), "dropout": (True, False)}
