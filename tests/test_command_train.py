"""gpubp train, as a person types it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
import yaml

from gpubp import tutorial
from gpubp.checkpoints import checkpoint
from gpubp.cli import main
from gpubp.commands import train
from gpubp.engines import choose, cpu, eager
from gpubp.errors import CheckpointError
from gpubp.samples import sources

from .commands import Capture, columns, here, run, trained  # noqa: F401
from .test_tensorboard import points, text

ROOT = Path(__file__).parent.parent


def test_the_json_object_is_the_last_line_and_says_how_it_went(capsys: Capture) -> None:
    told = trained("--data iris --networks 8 --steps 30 --batch-size 16 --run-dir made", capsys)
    assert set(told) >= {"networks", "steps", "seconds", "network_steps_per_second", "engine", "engine_reason", "loss",
                         "metric", "statuses", "run_dir"}  # fmt: skip
    assert (told["networks"], told["steps"], told["run_dir"]) == (8, 30, "made")
    assert told["engine"] == "eager"
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


def test_the_written_settings_repeat_the_run_and_flags_override_them(capsys: Capture) -> None:
    trained("--data iris --networks 5 --epochs 2 --lr 1e-3..1e-1:log --dropout 0.1 --seed 3 --run-dir one", capsys)
    trained("--config one/config.yaml --run-dir two", capsys)
    told = trained("--config one/config.yaml --networks 3 --run-dir three", capsys)
    one, two, three = (pyarrow.parquet.read_table(f"{name}/results.parquet") for name in ("one", "two", "three"))
    assert one.equals(two)
    assert told["networks"] == 3
    assert one.slice(0, 3).equals(three), "a network is the same among others"
    assert yaml.safe_load(Path("three/config.yaml").read_text())["networks"] == 3


def test_runs_of_one_second_have_a_directory_each_and_one_that_writes_nothing_has_none(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "time", SimpleNamespace(strftime=lambda form: "now"))
    assert main(["train", "--data", "xor", "--engine", "cuda", "--device", "cpu"]) != 0
    assert "engine" in capsys.readouterr().err
    assert not Path("runs").exists()
    for expected in ("runs/xor-now", "runs/xor-now-2"):
        assert trained("--data xor --networks 2 --steps 1", capsys)["run_dir"] == expected
        assert (Path(expected) / "results.parquet").exists()


def test_the_number_of_curves_does_not_depend_on_the_number_of_networks(capsys: Capture) -> None:
    found = {}
    for count in (8, 40):
        asked = f"--data iris --networks {count} --steps 20 --evaluate-every 5 --tensorboard true"
        trained(f"{asked} --run-dir made{count}", capsys)
        found[count] = points(Path(f"made{count}/tensorboard"))
        assert [step for step, _ in found[count]["training/loss/median"]] == [5, 10, 15, 20]
    assert found[8].keys() == found[40].keys()
    assert len(found[8]) < 40
    assert {"training/loss/median", "validation/loss/median", "validation/accuracy/best", "vitals/networks_diverged",
            "variation/validation/accuracy/q90", "vitals/training_accuracy/median", "variation/validation/loss/rank_8",
            "training/log10_loss", "training/log10_gradient_norm", "best", "worst"} <= found[8].keys()  # fmt: skip
    asked, became = (text(found[40], name) for name in ("configuration", "outcome"))
    assert "| data | iris |" in asked
    assert "40 networks of " in asked
    assert "40 finished" in became
    assert all(f"| {part} accuracy | " in became for part in ("training", "validation"))
    trained("--data xor --networks 2 --steps 2 --run-dir none", capsys)
    assert not Path("none/tensorboard").exists()


def test_a_run_whose_last_checkpoint_failed_ends_with_3_and_says_why(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper = checkpoint.save

    def save(*given: Any) -> None:
        if given[-1]["number"]:
            raise CheckpointError("the disk is full")
        proper(*given)

    monkeypatch.setattr(checkpoint, "save", save)
    arguments = "train --data xor --networks 2 --steps 4 --engine eager --run-dir made"
    assert json.loads(run(f"{arguments} --json", capsys, status=3))["unsaved"] == "the disk is full"
    assert main([*arguments[:-4].split(), "again"]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith("error: not saved: the disk is full\n")


def test_underscores_in_flags_are_accepted(capsys: Capture) -> None:
    trained("--data xor --networks 2 --steps 3 --batch_size=2 --evaluate_every 3 --run_dir made", capsys)
    settings = yaml.safe_load(Path("made/config.yaml").read_text())
    assert (settings["batch_size"], settings["evaluate_every"]) == (2, 3)


def test_names_in_a_list_may_follow_a_space() -> None:
    given = ["train", "--data", "iris", "--networks", "2", "--steps", "2", "--engine", "eager"]
    given += ["--tensorboard", "false", "--run-dir"]
    assert main([*given, "made", "--widths", "4, 5, 5, 3", "--hidden", "relu, tanh"]) == 0
    assert main([*given, "mixed", "--widths", "4, 5, 3; 4,3", "--optimizer", "adam, sgd", "--batch-size", "8, 16"]) == 0


@pytest.mark.parametrize(
    ("length", "steps"),
    [("--epochs=1,3", {2, 6}), ("--steps=3..6", {3, 4, 5, 6}), ("--steps=1,9 --search=halving --budget=3", {1, 3, 9})],
)
def test_each_network_may_have_a_length_of_its_own(length: str, steps: set[int], capsys: Capture) -> None:
    given = "train --data iris --networks 16 --engine eager --tensorboard false --run-dir"
    run(f"{given} made --lr 0.1,0.01 {length}", capsys)
    assert {*columns("made")["steps"]} == steps
    run(f"resume made {length.split('=')[0]} 9", capsys, status="search" in length)
    run(f"train --data tutorial {length.split()[0]} --run-dir none", capsys, status=1)


def test_lengths_that_there_are_not_are_refused(capsys: Capture) -> None:
    given = "train --data iris --networks 2 --engine eager --tensorboard false --run-dir"
    run(f"{given} made --epochs 1", capsys)
    for wrong in ("--epochs=0..3", "--epochs=1.5..3:int", "--epochs=5..2", "--epochs=1,3 --design=made/design.parquet"):
        run(f"{given} none {wrong}", capsys, status=1)


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
    for shown in ("--batch-size COUNTS B, samples per step; 64, or all if fewer", "--seed INDEX of initial weights",
                  "sampling (default: 0)", "lion (default: adam)", "--lr NUMBERS learning rate. Default: 0.001",
                  "--train-bias true|false", *sources.SOURCES):  # fmt: skip
        assert shown in words
