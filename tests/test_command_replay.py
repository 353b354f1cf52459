"""gpubp replay, as a person types it: the proof, the explanation, the exit status."""

import contextlib
import json
import re
import resource
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.cli import main
from gpubp.commands import settings, verify
from gpubp.resumed.replay import replay

from .apart import APART
from .commands import Capture, columns, here, refused, run, trained  # noqa: F401
from .helpers import quick
from .replays import resealed

RUNS = {
    "scaled": "--data iris --networks 4 --epochs 3 --lr 1e-3..1:log --init normal --init-scale 0.5..2",
    "tutorial": "--data tutorial --networks 3 --steps 20 --dtype float32",
    "folds": "--data iris --networks 2 --folds 3 --epochs 3 --lr 1e-3..1:log --init normal,orthogonal",
    "entities": "--data diabetes --per sex --networks 2 --epochs 3 --patience 1 --restore-best true --init-scale 0.5,2",
    "slots": "--data iris --networks 6 --slots 2 --epochs 3 --lr 1e-3..1:log --hidden-width 3..9",
    "design": "--data iris --design rows.csv --epochs 3 --slots 2",
    "pbt": "--data iris --networks 8 --epochs 8 --search pbt --budget 2 --lr 1e-3..1:log --weight-decay 0.01,0.1",
    "halving": "--data iris --networks 8 --epochs 8 --search halving --factor 2 --budget 2 --lr 1e-3..1:log",
}


UNLIKE_OTHERS = ("scaled", "folds", "entities", "design")


@pytest.mark.parametrize("kind", quick(RUNS, UNLIKE_OTHERS))
def test_a_run_of_the_command_line_knows_how_its_networks_began(kind: str, capsys: Capture) -> None:
    Path("rows.csv").write_text("lr,widths,init,init_scale\n0.1,4-3,,\n0.2,4-5-3,normal,\n0.3,,,0.5\n0.2,4-5-3,,2\n")
    trained(f"{RUNS[kind]} --tensorboard false --run-dir made", capsys)
    for row in (2, 1):
        found = json.loads(run(f"replay made --network {row} --step 3 --json", capsys))
        assert (found["network"], found["same"], found["proven"], found["difference"]) == (row, True, True, None)
        assert {"row", "end", "results"} <= found["parts"].keys()
        assert all(part["run"] == part["replay"] for part in found["parts"].values())
        assert found["explanation"]["step"]["number"] == 2


def train() -> None:
    """A run of a file of data."""
    rows = "".join(f"{n % 7 / 3},{n % 5 - 1},{n % 3}\n" for n in range(40))
    flags = "--data some.csv --target class --networks 3 --epochs 4 --batch-size 10 --engine eager --tensorboard false"
    Path("some.csv").write_text(f"a,b,class\n{rows}")
    assert main(f"train {flags} --run-dir made".split()) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With that run, and one that was started from Python."""
    with contextlib.chdir(tmp_path_factory.mktemp("replay")):
        train()
        population = gpubp.Population.create(gpubp.NetworkSpec((2, 1)), 1)
        data = gpubp.Dataset(torch.zeros(2, 2), torch.zeros(2, 1))
        gpubp.train(population, data, gpubp.TrainConfig(steps=1), run_dir="python", engine="eager")
        return Path.cwd()


@pytest.fixture(name="made")
def a_run(folder: Path) -> Path:
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    return Path("made")


def test_the_proof_comes_before_the_terms_of_the_last_step(made: Path, capsys: Capture) -> None:
    told = run("replay made --network 1", capsys)
    proof, _, terms = told.partition("\n\n")
    first, row, *_, last = proof.splitlines()
    assert first == "Network 1 (id 1), finished after 13 steps: the same bits as in the run"
    assert row.split()[0] == "row"
    assert len(row.split()[1]) == 64
    assert last == "Step 13 is proven"
    assert terms.startswith("Network 1 (id 1), 2-32-3, cross_entropy\nStep 13\n")
    assert len(run("replay made --network 1 --full", capsys)) > len(told)
    assert run("replay made", capsys).startswith("Network 0 (id 0)"), "as explain does"


def test_a_page_shows_the_step_and_those_after_it(made: Path, capsys: Capture) -> None:
    told = run("replay made --network 1 --step 5 --html step.html --steps 2", capsys)
    assert told.splitlines()[-1].startswith("step.html: 0.")
    page = Path("step.html").read_text()
    assert "Network 1 of made, from step 5" in page
    assert all(re.search(rf"[Ss]tep {n}\b", page) for n in (5, 6, 7))


def test_a_row_that_is_another_networks_fails(made: Path, capsys: Capture) -> None:
    path = made / "checkpoint" / json.loads((made / "checkpoint/manifest.json").read_text())["tensors"]
    content = load_file(path)
    content["0.params"][1] = content["0.params"][2]
    save_file(content, path)
    resealed(made)
    for flags in ([], ["--json"], ["--html", "step.html"]):
        assert main(["replay", "made", "--network", "1", *flags]) == 4
        told = capsys.readouterr()
        assert told.err.startswith(
            "error: network 1, trained alone for 13 steps, is not the run's: different are its row;"
        )
        assert len(told.err.splitlines()) == 1
        assert "The Forward Pass" not in told.out
    assert not Path("step.html").exists()
    assert run("replay made --network 0", capsys)


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        ("replay made --network 3", 1, "network 3: a row from 0 to 2 of the results expected"),
        ("replay made --step 14", 1, "step 14: network 0 is finished after 13 steps; 1 to 13 expected"),
        ("replay made --step 0", 2, "--step 0: a whole number of 1 or more expected"),
        ("replay made --network best", 2, "--network best: a whole number of 0 or more expected"),
        ("replay missing", 1, "missing/checkpoint/manifest.json is missing: missing is not the directory of a"),
        ("replay python", 1, "the run was started from Python; replay it there: gpubp.replay"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(
    asked: str, code: int, message: str, made: Path, capsys: Capture
) -> None:
    assert message in refused(asked, capsys, code)


def measured(arguments: list[str], most_seconds: float, most_bytes: float) -> None:
    """A command within these limits, besides what the libraries take."""
    replay(Path("few"), 1, data=gpubp.load_data("xor").training)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert main(arguments) == 0
    assert time.process_time() - begun < most_seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < most_bytes


@pytest.mark.slow
def test_a_replay_of_one_of_many_networks_takes_seconds_and_the_memory_of_the_checkpoint(capsys: Capture) -> None:
    for count, name in ((2, "few"), (300_000, "many")):
        run(
            f"train --data xor --widths 2,2,1 --networks {count} --steps 20 --tensorboard false --run-dir {name}",
            capsys,
        )
    size = max(path.stat().st_size for path in Path("many/checkpoint").glob("tensors-*"))
    process = APART.Process(target=measured, args=(["replay", "many", "--network", "123456"], 10.0, 3.0 * size))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("flags", ["--data iris --bootstrap 2", "--data shops.csv --per shop"])
def test_explain_shows_the_step_that_a_longer_run_takes_next(flags: str, capsys: Capture) -> None:
    """On the samples of the network's own bootstrap, which is a fold, or entity."""
    rows = "".join(f"{'ab'[n % 2]},{n % 7}.5,{n % 5}.5\n" for n in range(40))
    Path("shops.csv").write_text("shop,x,y\n" + rows)
    target = " --target y" if "shops" in flags else ""
    for steps in (4, 5):
        trained(f"{flags}{target} --networks 2 --batch-size 4 --steps {steps} --run-dir made{steps}", capsys)
    seen = set()
    for row in range(4):
        explained = json.loads(run(f"explain made4 --network {row} --json", capsys))
        replayed = json.loads(run(f"replay made5 --network {row} --step 5 --json", capsys))["explanation"]
        explained["step"] |= {"status": "running", "total": 5}
        assert explained == replayed
        seen.add(json.dumps(explained["inputs"]))
    assert len(seen) == 4


@pytest.mark.parametrize("flags", ["", " --slots 1"])
def test_explain_says_that_a_restored_row_and_the_optimizers_memory_are_of_different_steps(
    flags: str, capsys: Capture
) -> None:
    common = "--data iris --networks 2 --batch-size 4 --lr 0.3,1 --steps 9 --evaluate-every 1 --restore-best true"
    trained(f"{common}{flags} --run-dir made", capsys)
    found = columns("made")
    for row, (best, last, status) in enumerate(zip(found["best_step"], found["steps"], found["status"])):
        note = f"the network is {status}: this would be its next step"
        if best < last:
            note = f"from the restored row, of step {best}, with the optimizer's memory of step {last}: not of the run"
        assert f"Step {last + 1}; {note}\n" in run(f"explain made --network {row}", capsys)
    assert min(found["best_step"]) < min(found["steps"])


def test_a_run_whose_flags_did_nothing_with_a_parquet_file_goes_on_without_them(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame({"day": [0, 1, 2, 1] * 5, "kind": ["3", "4"] * 10, "shop": [1, 2] * 10, "y": range(20)})
    frame.to_parquet("data.parquet")
    flags = "--text day,kind,shop --per shop --delimiter ; --encoding latin-1 --widths 3,4,1 --epochs 1 --networks 2"
    with monkeypatch.context() as patch:  # as version 0.1.0 read them
        patch.setattr(settings, "_reading", lambda given: gpubp.Reading(text="kind"))
        trained(f"--data data.parquet --target y {flags} --run-dir old", capsys)
    preparation = gpubp.load("old").preparation
    assert preparation is not None
    assert [each.categories for each in preparation.columns] == [None, ("3", "4")]
    about = verify._subject({"run": "old", "config": None, "device": "cpu"}).about
    assert about == ["4 of 4 networks, 3-4-1", "16 of 16 samples"]
    commands = "replay old", "report old", "resume old --epochs 2", "resume old --epochs 3", "replay old"
    for command in (*commands, "inspect old", "predict old --data data.parquet"):
        run(command, capsys)
    assert gpubp.load("old").predict(frame.drop(columns="y")).shape == (20,)
    told = refused(f"train --device cpu --data data.parquet --target y {flags}", capsys)
    assert told == "delimiter ';': only for files that end in .csv or .tsv, not for data.parquet"


def test_a_run_goes_on_where_its_data_are_a_parquet_file_now_and_its_preparation_is_damaged(capsys: Capture) -> None:
    frame = pd.DataFrame({"day": [0, 1, 2, 1] * 5, "x": [0.5, 1.5] * 10, "y": range(20)})
    frame.to_csv("data.csv", index=False, sep=":")
    frame.to_parquet("data.parquet", index=False)
    flags = "--target y --text day --delimiter : --widths 4,3,1 --epochs 1 --networks 2"
    trained(f"--data data.csv {flags} --run-dir made", capsys)
    before = Path("made/preparation.json").read_text()
    Path("made/preparation.json").write_text("{")
    run("resume made --data data.parquet --epochs 2", capsys)
    assert Path("made/preparation.json").read_text() == before.replace('":"', "null")
    run("replay made", capsys)
    run("predict made --data data.parquet", capsys)
    run("resume made --data data.csv --epochs 3", capsys)
