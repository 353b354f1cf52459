"""gpubp resume, inspect and explain, as a person types them."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gpubp.checkpoints import checkpoint, curves
from gpubp.cli import main
from gpubp.runs import loop
from gpubp.system import gpus

from .commands import Capture, columns, error, here, run, trained  # noqa: F401
from .helpers import failing
from .short_runs import forge


def test_inspect_shows_the_best_the_worst_and_the_diverged(capsys: Capture) -> None:
    trained("--data xor --networks 6 --steps 20 --optimizer sgd --lr 0.1,0.01,1e38 --run-dir made", capsys)
    loss = columns("made")["loss"]
    told = json.loads(run("inspect made --top 2 --json", capsys))
    assert told["networks"] == 6
    assert told["statuses"] == {"diverged": 2, "finished": 4}
    assert [row["network"] for row in told["diverged"]] == [2, 5]
    ranked = sorted((0, 1, 3, 4), key=lambda n: loss[n])
    assert [row["network"] for row in told["best"]] == ranked[:2]
    assert [row["network"] for row in told["worst"]] == ranked[::-1][:2]
    text = run("inspect made --top 2", capsys)
    assert "6 networks: 2 diverged, 4 finished; ranked by loss, less is better" in text
    assert f"{loss[ranked[0]]:.4g}" in text
    assert main(["inspect", "missing"]) == 1


def killed(arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, made, that ends after its third evaluation, which its checkpoint does not have."""
    add = curves.add

    def add_and_end(run_dir: Path, number: int, found: Any) -> None:
        add(run_dir, number, found)
        if number == 3:
            raise ZeroDivisionError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(curves, "add", add_and_end)
        with pytest.raises(ZeroDivisionError, match="killed"):
            main(f"train {arguments} --engine eager --tensorboard false --run-dir made".split())


def test_inspect_shows_a_killed_run_as_its_last_evaluations_have_it(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed("--data iris --networks 8 --epochs 4 --evaluate-every 1 --lr 1e-3..1e-1:log --widths 4,6,3;4,3", monkeypatch)
    capsys.readouterr()
    assert main(["inspect", "made", "--json", "--top", "8"]) == 0
    out, err = capsys.readouterr()
    said = "these are the networks of its last checkpoint, with the steps and losses of their last evaluations"
    assert f"warning: made has not ended: {said}; gpubp resume made\n" in err
    told = json.loads(out)
    assert told["statuses"] == {"running": 8}
    assert told["ranked_by"] == "validation_loss"
    assert "lr" in [each["name"] for each in told["effects"]]
    kept = {network: each[-1] for network, each in curves.read(Path("made"), range(8)).items()}
    assert len(told["best"]) == 8
    for row in told["best"]:
        assert row["validation_loss"] == kept[row["network"]]["validation_loss"]
        assert row["steps"] == kept[row["network"]]["step"] == 6
        assert not {"accuracy", "validation_accuracy"} & row.keys(), "which no evaluation leaves in a file"
    text = run("inspect made", capsys)
    assert "8 networks: 8 running; ranked by validation_loss, less is better" in text
    run("resume made", capsys)
    assert "has not ended" not in error("inspect made", capsys, 0)


@pytest.mark.parametrize(("flags", "name"), [("", "validation_loss"), (" --validation 0 --min-delta 0.05", "loss")])
def test_inspect_shows_the_best_loss_of_a_killed_run_up_to_its_last_evaluation(
    flags: str, name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(f"--data iris --networks 4 --epochs 4 --lr 1e-3,0.1,1,9 --restore-best true{flags}", monkeypatch)
    capsys.readouterr()
    rows, apart = json.loads(run("inspect made --json", capsys))["best"], 0.05 * ("delta" in flags)
    known = curves.read(Path("made"), range(4))
    for row in rows:
        best, step = np.inf, None
        for each in known[row["network"]]:
            if each[name] < best - apart:
                best, step = each[name], each["step"]
        assert (row["best_loss"], row["best_step"]) == (best, step)
    assert len({row["best_step"] for row in rows}) > 1


@pytest.mark.parametrize("search", ["halving", "hyperband --folds 2", "asha --slots 20"])
def test_inspect_and_report_show_how_far_the_networks_of_a_killed_search_have_come(
    search: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = "--data iris --networks 27 --epochs 9 --lr 1e-3..1e-1:log --checkpoint-minutes 0 --budget 1"
    killed(f"{design} --search {search}", monkeypatch)
    run("report made", capsys)
    assert ">rung<" in Path("made/report.html").read_text()
    found = json.loads(run("inspect made --json --top 99", capsys))["best"]
    run("resume made", capsys)
    ended = {row["network"]: row for row in json.loads(run("inspect made --json --top 99", capsys))["best"]}
    came = [name for name in ("bracket", "rung") if name in ended[0]]
    stopped = [row for row in found if row["status"] == "stopped"]
    assert stopped
    assert all(row[name] == ended[row["network"]][name] for row in stopped for name in came)
    assert all(row["rung"] <= ended[row["network"]]["rung"] for row in found)


def test_a_run_that_is_missing_and_a_page_that_cannot_be_are_one_sentence(capsys: Capture) -> None:
    trained("--data xor --networks 2 --steps 2 --run-dir short", capsys)
    said = "error: missing/results.parquet is missing: missing is not the directory of a run\n"
    assert error("inspect missing", capsys) == said
    for page, why in (
        ("page.txt", "--output page.txt: a name that ends in .html expected"),
        ("none/page.html", "none/page.html cannot be written: No such file or directory"),
    ):
        assert error(f"report short --output {page}", capsys) == f"error: {why}\n"
    for command in ("resume", "explain"):
        said = "error: missing/checkpoint/manifest.json is missing: missing is not the directory of a run, or it saved"
        assert error(f"{command} missing", capsys) == f"{said} nothing\n"


def test_a_run_killed_before_its_first_checkpoint_restarts_from_its_settings(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "--data iris --networks 5 --epochs 2 --lr 1e-3..1e-1:log --dropout 0.1 --seed 3 --tensorboard false"
    trained(f"{asked} --run-dir whole", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        assert main(f"train --engine eager {asked} --run-dir made".split()) == 130
    there = ["checkpoint", "config.yaml", "design.parquet", "preparation.json"]
    assert sorted(path.name for path in Path("made").iterdir()) == there
    assert json.loads(run("resume made --json", capsys).splitlines()[-1])["statuses"]["finished"] == 5
    assert columns("made") == columns("whole")
    made, whole = (yaml.safe_load(Path(name, "config.yaml").read_text()) for name in ("made", "whole"))
    assert made == whole

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        assert main(f"train --engine eager {asked} --run-dir short".split()) == 130
    assert "this run counts epochs: give only epochs to extend it" in error("resume short --steps 9", capsys)
    run("resume short --epochs 3", capsys)
    assert set(columns("short")["steps"]) == {6}


def test_a_run_whose_data_moved_resumes_with_their_new_place(capsys: Capture) -> None:
    Path("a.csv").write_text("x,y\n" + "".join(f"{n}.5,{'ab'[n % 2]}\n" for n in range(20)))
    trained("--data a.csv --target y --networks 2 --epochs 2 --run-dir made", capsys)
    shown = run("explain made", capsys)
    Path("a.csv").rename("moved.csv")
    for command in ("resume", "explain", "replay"):
        told = error(f"{command} made", capsys)
        assert "a.csv is missing, which the run was trained on; --data FILE says where" in told
    assert run("explain made --data moved.csv", capsys) == shown
    for command in ("replay", "resume"):
        run(f"{command} made --data moved.csv", capsys)
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    run("resume ../made", capsys)
    Path("../moved.csv").write_text("x,y\n" + "".join(f"{n * n},{'ab'[n % 2]}\n" for n in range(20)))
    for command in ("resume", "explain", "replay"):
        assert "the data differ from those that the run started with" in error(f"{command} ../made", capsys)


@pytest.mark.parametrize("when", ["before the lock", "before the settings"])
def test_a_run_killed_before_it_wrote_anything_restarts_by_the_same_command(when: str, capsys: Capture) -> None:
    Path("made/checkpoint").mkdir(parents=True)
    if when == "before the settings":
        Path("made/checkpoint/lock").touch()
    said = error("resume made", capsys)
    assert "made ended before anything was written; restart it with the same gpubp train" in said
    trained("--data xor --networks 2 --epochs 2 --run-dir made", capsys)


def test_a_longer_run_that_is_killed_at_once_stays_longer(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "--data iris --networks 3 --batch-size 16 --evaluate-every 1"
    trained(f"{asked} --epochs 2 --run-dir made", capsys)
    trained(f"{asked} --epochs 5 --run-dir whole", capsys)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "calls", interrupted)
        assert main(["resume", "made", "--epochs", "5"]) == 130
    assert yaml.safe_load(Path("made/config.yaml").read_text())["epochs"] == 5
    run("resume made", capsys)
    assert columns("made") == columns("whole")


def test_a_changed_preparation_predicts_nothing_until_the_run_is_resumed(capsys: Capture) -> None:
    trained("--data iris --networks 2 --epochs 2 --run-dir made", capsys)
    path = Path("made/preparation.json")
    sound = path.read_text()
    Path("new.csv").write_text("sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5,3,1,0.2\n")
    said = run("predict made --data new.csv", capsys)
    for changed in (sound.replace('"factor": 0.', '"factor": 1.', 1), None):
        path.unlink() if changed is None else path.write_text(changed)
        told = error("predict made --data new.csv", capsys)
        assert "preparation.json is damaged or missing: its SHA-256 is not the one in" in told
        run("resume made", capsys)
        assert path.read_text() == sound
        assert run("predict made --data new.csv", capsys) == said


def test_inspect_says_what_is_damaged(capsys: Capture) -> None:
    trained("--data xor --networks 2 --epochs 2 --run-dir made", capsys)
    assert json.loads(run("inspect made --json", capsys))["damage"] == []
    manifest = Path("made/checkpoint/manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    (said,) = json.loads(run("inspect made --json", capsys))["damage"]
    assert "manifest.json is damaged: its SHA-256 is not the one in it; the previous checkpoint is used" in said
    assert f"warning: {said}" in error("inspect made", capsys, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_curves_are_not_drawn_into_a_linked_directory(capsys: Capture) -> None:
    trained("--data xor --networks 2 --epochs 2 --run-dir made", capsys)
    Path("mine").mkdir()
    Path("made/tensorboard").symlink_to("../mine")
    assert "no curves: made/tensorboard is a link" in error("resume made --epochs 4 --tensorboard true", capsys, 0)
    assert not any(Path("mine").iterdir())


interrupted = failing(KeyboardInterrupt)


def test_resume_moves_a_run_to_another_device_and_records_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    settings = "--data iris --networks 4 --dropout 0.2 --evaluate-every 2 --device cpu"
    trained(f"{settings} --epochs 4 --run-dir short", capsys)
    trained(f"{settings} --epochs 8 --run-dir long", capsys)
    path = Path("short/config.yaml")
    path.write_text(path.read_text().replace("device: cpu", "device: cuda:1"))
    forge(Path("short"), lambda manifest: {"settings": manifest["settings"] | {"device": "cuda:1"}})
    before = path.read_text()
    assert main(["resume", "short", "--epochs", "8"]) == 1, "its own device is the default"
    told = capsys.readouterr()
    assert told.err == "error: device 'cuda:1': torch finds no CUDA driver or no GPU here; use device cpu\n"
    assert (told.out, path.read_text()) == ("", before)
    for device, said in (("auto", "device cpu: torch finds no CUDA driver"), ("cpu", "")):
        again = shutil.copytree("short", device)
        assert main(f"resume {again} --epochs 8 --device {device} --json".split()) == 0
        told = capsys.readouterr()
        last = json.loads(told.out.splitlines()[-1])
        assert (last["device"], last["run_dir"], last["networks"]) == ("cpu", device, 4)
        assert told.err.startswith(said)
        now = yaml.safe_load(Path(again, "config.yaml").read_text())
        assert now == {**yaml.safe_load(before), "device": "cpu", "epochs": 8}
        assert Path(again, "results.csv").read_bytes() == Path("long/results.csv").read_bytes()


def test_explain_without_a_run_is_of_the_tutorial(capsys: Capture) -> None:
    first = json.loads(run("explain tutorial --json", capsys))
    assert first["error"]["E_total"] == pytest.approx(0.298371109, abs=1e-9)
    assert "0.298371109" in run("explain", capsys)
