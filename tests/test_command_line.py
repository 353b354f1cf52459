"""gpubp train, resume, inspect, predict and explain, as a person types them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml

import gpubp
from gpubp import checkpoint, gpus, loop, sources, tutorial
from gpubp.cli import main
from gpubp.engines import choose, cpu, eager
from gpubp.errors import CheckpointError

from .short_runs import sealed

ROOT = Path(__file__).parent.parent
Capture = pytest.CaptureFixture[str]


def run(arguments: str, capsys: Capture, status: int = 0) -> str:
    """Standard output of `gpubp arguments`."""
    assert main(arguments.split()) == status
    return capsys.readouterr().out


def trained(arguments: str, capsys: Capture) -> dict[str, Any]:
    """The JSON object that `gpubp train arguments --json` ends with, by the engine that compiles nothing."""
    return json.loads(run(f"train {arguments} --engine eager --json", capsys).splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_json_object_is_the_last_line_and_says_how_it_went(capsys: Capture) -> None:
    out = run("train --data iris --networks 8 --steps 30 --batch-size 16 --run-dir made --json", capsys)
    told = json.loads(out.splitlines()[-1])
    assert set(told) >= {"networks", "steps", "seconds", "network_steps_per_second", "engine", "engine_reason", "loss",
                         "metric", "statuses", "run_dir"}  # fmt: skip
    assert (told["networks"], told["steps"], told["run_dir"]) == (8, 30, "made")
    assert told["engine"] in ("cpu", "eager")
    assert told["network_steps"] == 8 * 30
    assert told["network_steps_per_second"] == pytest.approx(8 * 30 / told["step_seconds"])
    assert 0 < told["step_seconds"] < told["seconds"]
    assert (told["interrupted"], told["unsaved"]) == (None, None)
    assert told["loss"]["best"] < told["loss"]["median"] < told["loss"]["worst"]
    assert told["metric"]["name"] == "accuracy"
    assert 0 <= told["metric"]["median"] <= told["metric"]["best"] <= 1
    assert told["statuses"] == {"running": 0, "finished": 8, "diverged": 0}
    losses = pyarrow.parquet.read_table("made/results.parquet")["validation_loss"].to_pylist()
    assert (told["loss"]["best"], told["loss"]["worst"]) == (min(losses), max(losses))
    assert told["best_network"] == losses.index(min(losses))


def test_a_run_directory_holds_results_settings_and_curves(capsys: Capture) -> None:
    told = trained("--data xor --networks 6 --steps 20 --lr 1e-4..1e-1:log --run-dir made", capsys)
    rows = pyarrow.parquet.read_table("made/results.parquet")
    assert rows.num_rows == 6
    with Path("made/results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == rows.column_names
    assert [float(row["loss"]) for row in read] == rows["loss"].to_pylist()
    assert told["loss"]["best"] == min(rows["loss"].to_pylist())
    assert json.loads(Path("made/preparation.json").read_text())


def test_the_written_settings_repeat_the_run_and_flags_override_them(capsys: Capture) -> None:
    trained("--data iris --networks 5 --epochs 2 --lr 1e-3..1e-1:log --dropout 0.1 --seed 3 --run-dir one", capsys)
    trained("--config one/config.yaml --run-dir two", capsys)
    told = trained("--config one/config.yaml --networks 3 --run-dir three", capsys)
    one, two, three = (pyarrow.parquet.read_table(f"{name}/results.parquet") for name in ("one", "two", "three"))
    assert one.equals(two)
    assert told["networks"] == 3
    assert one.slice(0, 3).equals(three), "a network is the same among others"
    assert yaml.safe_load(Path("three/config.yaml").read_text())["networks"] == 3


def test_the_number_of_curves_does_not_depend_on_the_number_of_networks(capsys: Capture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for count in (2, 40):
        trained(f"--data iris --networks {count} --steps 20 --evaluate-every 5 --run-dir made{count}", capsys)
        read = events.EventAccumulator(f"made{count}/tensorboard").Reload()
        found[count] = set(read.Tags()["scalars"])
        assert [event.step for event in read.Scalars("training/loss/median")] == [5, 10, 15, 20]
    assert found[2] == found[40]
    assert len(found[2]) < 20
    assert {"training/loss/median", "validation/loss/median", "validation/accuracy/best", "vitals/networks_diverged",
            "variation/validation/accuracy/q90", "vitals/training_accuracy/median"} <= found[2]  # fmt: skip
    texts = [read.Tensors(f"{name}/text_summary")[0] for name in ("configuration", "outcome")]
    asked, became = (text.tensor_proto.string_val[0].decode() for text in texts)
    assert "| data | iris |" in asked
    assert "40 networks of " in asked
    assert "40 finished" in became
    assert all(f"| {part} accuracy | " in became for part in ("training", "validation"))
    trained("--data xor --networks 2 --steps 2 --tensorboard false --run-dir none", capsys)
    assert not Path("none/tensorboard").exists()


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        ("--netwroks 3", "did you mean '--networks'?"),
        ("--config wrong.yaml", "does not accept option 'optimiser'; did you mean '--optimizer'?"),
        ("--networks many", "networks"),
    ],
)
def test_a_wrong_flag_or_setting_is_an_error_that_names_the_near_one(
    arguments: str, near: str, capsys: Capture
) -> None:
    Path("wrong.yaml").write_text("data: xor\noptimiser: adam\n")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", "xor", *arguments.split(), "--run-dir", "made"])
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert near in told.err
    assert told.out == ""
    assert not Path("made").exists()


def test_a_run_whose_last_checkpoint_failed_ends_with_3_and_says_why(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper = checkpoint.save

    def save(*given: Any) -> None:
        if given[-1]["number"]:
            raise CheckpointError("the disk is full")
        proper(*given)

    monkeypatch.setattr(checkpoint, "save", save)
    arguments = "train --data xor --networks 2 --steps 4 --run-dir made"
    assert json.loads(run(f"{arguments} --json", capsys, status=3))["unsaved"] == "the disk is full"
    assert main([*arguments[:-4].split(), "again"]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith("error: not saved: the disk is full\n")


def test_config_yaml_says_what_a_run_that_was_made_longer_and_killed_trained(capsys: Capture) -> None:
    trained("--data xor --networks 2 --epochs 4 --run-dir made", capsys)
    before = Path("made/config.yaml").read_text()
    run("resume made --epochs 8", capsys)
    Path("made/config.yaml").write_text(before)  # as if killed after a checkpoint
    run("resume made", capsys)
    assert yaml.safe_load(Path("made/config.yaml").read_text())["epochs"] == 8


def columns(name: str) -> dict[str, list[float]]:
    return pyarrow.parquet.read_table(f"{name}/results.parquet").to_pydict()  # type: ignore[no-any-return]


def test_ranges_are_sampled_in_their_range_and_a_networks_value_does_not_depend_on_the_others(capsys: Capture) -> None:
    settings = "--data xor --steps 1 --lr 1e-4..1e-1:log --l2 0..1e-3"
    trained(f"{settings} --networks 64 --run-dir many", capsys)
    trained(f"{settings} --networks 5 --run-dir few", capsys)
    trained(f"{settings} --networks 5 --seed 1 --run-dir other", capsys)
    many, few, other = columns("many"), columns("few"), columns("other")
    for name in ("lr", "l2"):
        assert len(set(many[name])) == 64
        assert many[name][:5] == few[name] != other[name]
    assert 1e-4 <= min(many["lr"]) < 1.2e-4
    assert 0.8e-1 < max(many["lr"]) <= 1e-1
    assert 10**-2.6 < np.median(many["lr"]) < 10**-2.4, "uniform in the logarithm"
    assert 0.0004 < np.median(many["l2"]) < 0.0006


def test_lists_form_a_grid(capsys: Capture) -> None:
    trained("--data xor --steps 1 --networks 7 --lr 0.1,0.01,0.001 --l2 0,0.5 --run-dir made", capsys)
    found = columns("made")
    pairs = list(zip(found["lr"], found["l2"]))
    assert pairs[:3] == [(0.1, 0.0), (0.01, 0.0), (0.001, 0.0)]
    assert len(set(pairs[:6])) == 6
    assert pairs[6] == pairs[0]


def test_underscores_in_flags_are_accepted(capsys: Capture) -> None:
    trained("--data xor --networks 2 --steps 3 --batch_size=2 --evaluate_every 3 --run_dir made", capsys)
    settings = yaml.safe_load(Path("made/config.yaml").read_text())
    assert (settings["batch_size"], settings["evaluate_every"]) == (2, 3)


def test_inspect_shows_the_best_the_worst_and_the_diverged(capsys: Capture) -> None:
    run("train --data xor --networks 6 --steps 20 --optimizer sgd --lr 0.1,0.01,1e38 --run-dir made", capsys)
    loss = columns("made")["loss"]
    told = json.loads(run("inspect made --top 2 --json", capsys))
    assert told["networks"] == 6
    assert told["statuses"] == {"diverged": 2, "finished": 4}
    assert [row["network"] for row in told["diverged"]] == [2, 5]
    ranked = sorted((0, 1, 3, 4), key=lambda n: loss[n])
    assert [row["network"] for row in told["best"]] == ranked[:2]
    assert [row["network"] for row in told["worst"]] == ranked[::-1][:2]
    text = run("inspect made --top 2", capsys)
    assert "6 networks: 2 diverged, 4 finished; ranked by loss" in text
    assert f"{loss[ranked[0]]:.5g}" in text
    assert main(["inspect", "missing"]) == 1


def table() -> str:
    """A table of which class is in which place, for predictions: a circle and what is around it."""
    points = np.random.default_rng(3).uniform(-1, 1, (80, 2))
    names = np.where((points**2).sum(1) < 0.5, "inside", "outside")
    return "x,y,where\n" + "".join(f"{x:.6f},{y:.6f},{name}\n" for (x, y), name in zip(points, names))


def test_a_file_with_classes_of_text_goes_from_training_to_prediction(capsys: Capture) -> None:
    Path("table.csv").write_text(table())
    settings = "--data table.csv --target where --networks 6 --epochs 60 --lr 0.02 --batch-size 8"
    assert trained(f"{settings} --run-dir made", capsys)["metric"]["best"] > 0.8
    expected = [line.split(",")[2] for line in table().splitlines()[1:]]
    Path("new.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in table().splitlines()))
    found = {}
    for which in ("best", "3", "all", "all --each", "3 --proba", "2 --proba --each"):
        rows = list(csv.DictReader(io.StringIO(run(f"predict made --data new.csv --networks {which}", capsys))))
        assert len(rows) == 80
        found[which] = rows
    for which in ("best", "3", "all"):
        right = [row["prediction"] == name for row, name in zip(found[which], expected)]
        assert sum(right) > 0.8 * 80
    assert sorted(found["all --each"][0]) == [f"network_{n}" for n in range(6)]
    loss = columns("made")["validation_loss"]
    best, second = (f"network_{loss.index(each)}" for each in sorted(loss)[:2])
    assert [row[best] for row in found["all --each"]] == [row["prediction"] for row in found["best"]]
    assert list(found["3 --proba"][0]) == ["probability_inside", "probability_outside"]
    for row, label in zip(found["3 --proba"], found["3"]):
        inside, outside = map(float, row.values())
        assert inside + outside == pytest.approx(1)
        assert label["prediction"] == ("inside" if inside > outside else "outside")
    names = [f"{network}_{place}" for network in (best, second) for place in ("inside", "outside")]
    assert list(found["2 --proba --each"][0]) == names
    assert run("predict made --data new.csv --output out.csv", capsys) == ""
    assert list(csv.DictReader(io.StringIO(Path("out.csv").read_text()))) == found["best"]
    model = gpubp.load("made")
    assert model.predict("new.csv", 3).tolist() == [row["prediction"] for row in found["3"]]


def test_predict_refuses_other_columns_and_files_that_are_there(capsys: Capture) -> None:
    Path("table.csv").write_text(table())
    Path("wrong.csv").write_text("x,z\n0.1,0.2\n")
    Path("large.csv").write_text("x,y\n0.1,0.2\n3.4e300,0\n")
    trained("--data table.csv --target where --scale none --networks 2 --steps 3 --run-dir made", capsys)
    for arguments, reason in (
        ("--data wrong.csv", "column 'y' is missing"),
        ("--data table.csv --networks 0", "--networks '0': best, all, or a number of 1 or more expected"),
        ("--data table.csv --output wrong.csv", "wrong.csv exists already; name a new file"),
        ("--data large.csv", "column 'x' becomes 3.4e+300 in sample 1, one of 1 numbers that are not finite"),
    ):
        assert main(["predict", "made", *arguments.split()]) == 1
        assert reason in capsys.readouterr().err
    assert Path("wrong.csv").read_text() == "x,z\n0.1,0.2\n"
    for damaged in ("{", "{}"):
        Path("made/preparation.json").write_text(damaged)
        assert main(["predict", "made", "--data", "table.csv"]) == 1
        assert "preparation.json is damaged or missing: " in capsys.readouterr().err


def test_counts_are_predicted_as_rates_and_targets_by_their_names(capsys: Capture) -> None:
    """Rates exp(2 + a) of a from -1 to 1: 2.7 to 20."""
    source = np.random.default_rng(0)
    a = source.uniform(-1, 1, 300)
    Path("counts.csv").write_text("a,n\n" + "".join(f"{x:.4f},{source.poisson(np.exp(2 + x))}\n" for x in a))
    Path("new.csv").write_text("a\n-1\n0\n1\n")
    trained("--data counts.csv --target n --loss poisson --networks 3 --lr 0.02 --epochs 40 --run-dir made", capsys)
    rates = [float(line) for line in run("predict made --data new.csv --networks all", capsys).split()[1:]]
    assert rates == pytest.approx([np.exp(1), np.exp(2), np.exp(3)], rel=0.25)
    assert main(["predict", "made", "--data", "new.csv", "--proba"]) == 1
    assert "loss 'poisson' gives no probabilities" in capsys.readouterr().err
    Path("two.csv").write_text("a,p,q\n" + "".join(f"{x:.4f},{x + 1:.4f},{x - 1:.4f}\n" for x in a))
    trained("--data two.csv --target p,q --networks 2 --steps 2 --run-dir two", capsys)
    for flags, names in (("", '"prediction_p","prediction_q"'), ("--each --networks 1", '"network_0_p","network_0_q"')):
        head = run(f"predict two --data new.csv {flags}", capsys).split()[0]
        assert head == names.replace("network_0", f"network_{int(gpubp.load('two').ranking()[0])}")


def test_a_file_with_local_formats_goes_from_training_to_prediction_and_the_run_reports_its_reading(
    capsys: Capture,
) -> None:
    rows = "".join(f"{n % 28 + 1:02}.{n % 12 + 1:02}.2021;{n},5;{'abc'[n % 3]};{'uv'[n % 2]};{n}\n" for n in range(60))
    Path("sales.csv").write_text("day;size;shop;kind;id\n" + rows, encoding="utf-16")
    settings = "--networks 2 --steps 3 --data sales.csv --target kind --run-dir made --tensorboard false --device cpu"
    flags = "--dates day --decimal , --drop id --batch-size 500 --json"
    assert main(f"train {settings} {flags}".split()) == 0
    told = capsys.readouterr()
    assert [line[:1] for line in told.out.splitlines()] == ["{"]
    assert told.err.splitlines()[:5] == [
        "sales.csv: 60 samples, 48 for training, 12 held out",
        "read: encoding utf-16; delimiter ';'; day in days since 1970, dates as %d.%m.%Y; id left out",
        "5 inputs; numbers, scale standard: day, size; texts, an input per category: shop (3)",
        "target: kind; task: classification, 2 classes (u, v); loss: cross_entropy, as kind holds text; --task "
        "regression overrides this",
        "batch_size 500 is more than the 48 samples: every batch has all of them",
    ]
    Path("new.csv").write_text("shop\tday\tsize\na\t05.03.2021\t5,5\nb\t06.03.2021\t900,5\n")
    assert main(["predict", "made", "--data", "new.csv"]) == 0
    told = capsys.readouterr()
    assert (len(told.out.splitlines()), told.err) == (3, "")
    Path("new.csv").write_text("shop\tday\tsize\na\t05.03.2021\t905,5\nb\t06.03.2021\t900,5\n")
    assert main(["predict", "made", "--data", "new.csv"]) == 0
    assert capsys.readouterr().err == (
        "warning: new.csv: column 'size' holds 900.5 to 905.5, in training 1.5 to 58.5; are the units the same?\n"
    )


def test_resume_makes_a_run_longer_to_the_same_bits(capsys: Capture) -> None:
    settings = "--data iris --networks 4 --lr 1e-3..1e-1:log --dropout 0.2 --evaluate-every 2"
    trained(f"{settings} --epochs 4 --run-dir short", capsys)
    trained(f"{settings} --epochs 8 --run-dir long", capsys)
    told = json.loads(run("resume short --epochs 8 --json", capsys).splitlines()[-1])
    assert (told["run_dir"], told["networks"]) == ("short", 4)
    assert Path("short/results.csv").read_bytes() == Path("long/results.csv").read_bytes()
    for command in ("resume", "explain"):
        assert main([command, "missing"]) == 1
        said = "error: missing/checkpoint/manifest.json is missing: missing is not the directory of a run, or it saved"
        assert capsys.readouterr().err == f"{said} nothing\n"


def test_a_run_killed_before_its_first_checkpoint_restarts_from_its_settings(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "--data iris --networks 5 --epochs 2 --lr 1e-3..1e-1:log --dropout 0.1 --seed 3 --tensorboard false"
    run(f"train {asked} --run-dir whole", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        assert main(f"train {asked} --run-dir made".split()) == 130
    assert {path.name for path in Path("made").iterdir()} == {"checkpoint", "config.yaml", "preparation.json"}
    assert json.loads(run("resume made --json", capsys).splitlines()[-1])["statuses"]["finished"] == 5
    assert columns("made") == columns("whole")
    made, whole = (yaml.safe_load(Path(name, "config.yaml").read_text()) for name in ("made", "whole"))
    assert made == whole

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        assert main(f"train {asked} --run-dir short".split()) == 130
    assert main(["resume", "short", "--steps", "9"]) == 1
    assert "this run counts epochs: give only epochs to extend it" in capsys.readouterr().err
    run("resume short --epochs 3", capsys)
    assert set(columns("short")["steps"]) == {6}


def test_a_config_yaml_that_somebody_edited_decides_nothing_and_is_written_again(capsys: Capture) -> None:
    asked = "--data xor --networks 2 --lr 0.5 --evaluate-every 1 --tensorboard false"
    run(f"train {asked} --steps 3 --run-dir made", capsys)
    run(f"train {asked} --steps 6 --run-dir whole", capsys)
    path = Path("made/config.yaml")
    assert main(["resume", "made"]) == 0
    said = f"{path} is not what the run wrote: it is written again; the checkpoint has the settings"
    assert said not in capsys.readouterr().err
    path.write_text(path.read_text().replace("lr: 0.5", "lr: 0.1").replace("data: xor", "data: iris"))
    assert main(["resume", "made", "--steps", "6"]) == 0
    assert said in capsys.readouterr().err
    assert columns("made") == columns("whole")
    assert path.read_text() == Path("whole/config.yaml").read_text()
    path.unlink()
    assert main(["resume", "made"]) == 0
    assert said not in capsys.readouterr().err
    assert path.read_text() == Path("whole/config.yaml").read_text()


def test_a_run_whose_data_moved_resumes_with_their_new_place(capsys: Capture) -> None:
    Path("a.csv").write_text("x,y\n" + "".join(f"{n}.5,{'ab'[n % 2]}\n" for n in range(20)))
    run("train --data a.csv --target y --networks 2 --epochs 2 --tensorboard false --run-dir made", capsys)
    Path("a.csv").rename("moved.csv")
    assert main(["resume", "made"]) == 1
    assert "a.csv" in capsys.readouterr().err
    run("resume made --data moved.csv", capsys)
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    run("resume ../made", capsys)
    Path("../moved.csv").write_text("x,y\n" + "".join(f"{n * n},{'ab'[n % 2]}\n" for n in range(20)))
    assert main(["resume", "../made"]) == 1
    assert "the data differ from those that the run started with" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["before the lock", "before the settings"])
def test_a_run_killed_before_it_wrote_anything_restarts_by_the_same_command(when: str, capsys: Capture) -> None:
    Path("made/checkpoint").mkdir(parents=True)
    if when == "before the settings":
        Path("made/checkpoint/lock").touch()
    assert main(["resume", "made"]) == 1
    assert "made ended before anything was written; restart it with the same gpubp train" in capsys.readouterr().err
    run("train --data xor --networks 2 --epochs 2 --tensorboard false --run-dir made", capsys)


def test_a_longer_run_that_is_killed_at_once_stays_longer(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "--data iris --networks 3 --batch-size 16 --evaluate-every 1 --tensorboard false"
    run(f"train {asked} --epochs 2 --run-dir made", capsys)
    run(f"train {asked} --epochs 5 --run-dir whole", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "advance", interrupted)
        assert main(["resume", "made", "--epochs", "5"]) == 130
    assert yaml.safe_load(Path("made/config.yaml").read_text())["epochs"] == 5
    run("resume made", capsys)
    assert columns("made") == columns("whole")


def test_a_changed_preparation_predicts_nothing_until_the_run_is_resumed(capsys: Capture) -> None:
    run("train --data iris --networks 2 --epochs 2 --tensorboard false --run-dir made", capsys)
    path = Path("made/preparation.json")
    sound = path.read_text()
    Path("new.csv").write_text("sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5,3,1,0.2\n")
    said = run("predict made --data new.csv", capsys)
    for changed in (sound.replace('"factor": 0.', '"factor": 1.', 1), None):
        path.unlink() if changed is None else path.write_text(changed)
        assert main(["predict", "made", "--data", "new.csv"]) == 1
        assert "preparation.json is damaged or missing: its SHA-256 is not the one in" in capsys.readouterr().err
        run("resume made", capsys)
        assert path.read_text() == sound
        assert run("predict made --data new.csv", capsys) == said


def test_inspect_says_what_is_damaged(capsys: Capture) -> None:
    run("train --data xor --networks 2 --epochs 2 --tensorboard false --run-dir made", capsys)
    assert json.loads(run("inspect made --json", capsys))["damage"] == []
    manifest = Path("made/checkpoint/manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    (said,) = json.loads(run("inspect made --json", capsys))["damage"]
    assert "manifest.json is damaged: its SHA-256 is not the one in it; the previous checkpoint is used" in said
    assert main(["inspect", "made"]) == 0
    assert f"warning: {said}" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_curves_are_not_drawn_into_a_linked_directory(capsys: Capture) -> None:
    run("train --data xor --networks 2 --epochs 2 --tensorboard false --run-dir made", capsys)
    Path("mine").mkdir()
    Path("made/tensorboard").symlink_to("../mine")
    assert main(["resume", "made", "--epochs", "4", "--tensorboard", "true"]) == 0
    assert "no curves: made/tensorboard is a link" in capsys.readouterr().err
    assert not any(Path("mine").iterdir())


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_resume_moves_a_run_to_another_device_and_records_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    settings = "--data iris --networks 4 --dropout 0.2 --evaluate-every 2 --device cpu"
    trained(f"{settings} --epochs 4 --run-dir short", capsys)
    trained(f"{settings} --epochs 8 --run-dir long", capsys)
    path, manifest = Path("short/config.yaml"), Path("short/checkpoint/manifest.json")
    path.write_text(path.read_text().replace("device: cpu", "device: cuda:1"))
    content = json.loads(manifest.read_text())
    manifest.write_text(sealed(content | {"settings": content["settings"] | {"device": "cuda:1"}}))
    before = path.read_text()
    assert main(["resume", "short", "--epochs", "8"]) == 1, "its own device is the default"
    told = capsys.readouterr()
    assert told.err == "error: device 'cuda:1': torch finds no CUDA driver or no GPU here; use --device cpu\n"
    assert (told.out, path.read_text()) == ("", before)
    for device, said in (("auto", "device cpu: torch finds no CUDA driver"), ("cpu", "")):
        again = shutil.copytree("short", device)
        assert main(f"resume {again} --epochs 8 --device {device} --json".split()) == 0
        told = capsys.readouterr()
        assert json.loads(told.out.splitlines()[-1])["device"] == "cpu"
        assert told.err.startswith(said)
        now = yaml.safe_load(Path(again, "config.yaml").read_text())
        assert now == {**yaml.safe_load(before), "device": "cpu", "epochs": 8}
        assert Path(again, "results.csv").read_bytes() == Path("long/results.csv").read_bytes()


def test_explain_shows_the_next_step_of_a_run_and_of_the_tutorial(capsys: Capture) -> None:
    first = json.loads(run("explain tutorial --json", capsys))
    assert first["error"]["E_total"] == pytest.approx(0.298371109, abs=1e-9)
    assert "0.298371109" in run("explain", capsys)
    trained("--data xor --widths 2,3,1 --networks 3 --steps 5 --run-dir made", capsys)
    told = json.loads(run("explain made --network 2 --json", capsys))
    (saved,) = checkpoint.load(Path("made"), torch.device("cpu")).populations
    state = saved.state
    weight = state.population.spec.layers(state.population.params)[0][0][2]
    assert told["layers"][0]["weight"]["value"] == weight.T.tolist(), "a row per unit"
    assert main(["explain", "made", "--network", "3"]) == 1


def test_the_tutorial_prints_every_figure_and_reproduces_them_all(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if choose("auto", tutorial.SPEC, tutorial.config(1), torch.device("cpu")).name == "cpu":
        monkeypatch.setattr(eager, "run", cpu.run)  # which takes these steps faster
    out = run("train --data tutorial --run-dir made --json", capsys)
    for name, printed in tutorial.PRINTED.items():
        assert any(name in line and printed in line for line in out.splitlines()), name
    told = json.loads(out.splitlines()[-1])
    assert (told["networks"], told["steps"]) == (1, 10_000)
    assert told["loss"]["best"] == pytest.approx(0.0000351085, rel=1e-3)


def test_the_script_shows_every_flag_with_its_kind_and_default() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    words = " ".join(done.stdout.split())
    for shown in ("--batch-size COUNT B, samples per step; 64, or all if fewer", "--seed INDEX of initial weights",
                  "sampling (default: 0)", "lion (default: adam)", "--lr NUMBERS learning rate. Default: 0.001",
                  "--train-bias true|false", *sources.SOURCES):  # fmt: skip
        assert shown in words


def test_a_batch_cut_to_the_samples_gives_a_note_and_counts_are_read_alike_everywhere(
    tmp_path: Path, capsys: Capture
) -> None:
    folder, data = tmp_path / "run", tmp_path / "new.csv"
    words = "train --data iris --networks 1e1 --batch-size 1000 --epochs 2 --tensorboard false --json"
    assert main([*words.split(), "--run-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [
        "batch_size 1000 is more than the 120 samples: every batch has all of them"
    ]
    data.write_text("sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5.1,3.5,1.4,0.2\n")
    assert main(["predict", str(folder), "--data", str(data), "--networks", "1e1"]) == 0
    assert capsys.readouterr().out.startswith('"prediction"')
    assert repr(gpubp.load_data("iris")).startswith("Prepared(150 flowers, 4 inputs, 3 classes; iris: 150 samples")
    network, row = gpubp.load(folder).network(3), [[5.1, 3.5, 1.4, 0.2]]
    assert torch.equal(network(np.array(row)), network(torch.tensor(row, dtype=torch.float64)))


def test_non_finite_predictions_give_a_warning_on_standard_error(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("line.csv").write_text("x,y\n1,2\n2,3\n3,4\n4,5\n5,6\n")
    trained("--data line.csv --target y --networks 2 --steps 1 --run-dir made", capsys)
    monkeypatch.setattr("gpubp.model.forward", lambda spec, params, inputs: torch.full((len(params), 5, 1), torch.inf))
    assert main(["predict", "made", "--data", "line.csv"]) == 0
    told = capsys.readouterr()
    assert told.out.split()[1:] == ["inf"] * 5
    assert "warning: 5 of 5 predictions are NaN or infinite" in told.err


def test_a_target_for_data_by_name_is_refused(capsys: Capture) -> None:
    assert main(["train", "--data", "xor", "--target", "zz", "--device", "cpu"]) == 1
    assert "error: target zz: only for files; data 'xor' need none" in capsys.readouterr().err
