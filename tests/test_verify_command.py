"""gpubp verify as a person types it: its table and exit statuses, runs, files of settings, wrong arguments."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import gpubp
from gpubp.commands import printing
from gpubp.commands import verify as command
from gpubp.engines import build
from gpubp.verify import gradients, promises
from gpubp.verify.comparing import CAUGHT, FAILS, HOLDS, MISSED, NONE, Row
from gpubp.verify.subject import Subject

from .commands import Capture, here, run, trained  # noqa: F401
from .files import status as ended
from .helpers import FAST, needs_compiler
from .libraries import wrapper
from .verified import PROMISE, some_rules


@pytest.mark.slow  # test_verify.py has every promise and its fault
def test_what_is_promised_holds_and_every_planted_fault_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The command as a person types it, with its process that is killed; all compile fast, and to the same files."""
    needs_compiler()
    compiler = wrapper(tmp_path / "compiler", f'exec {" ".join(build.compiler())} "$@" {" ".join(FAST)}')
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(build, "FLAGS", tuple(flag for flag in build.FLAGS if flag not in FAST))
    some = some_rules()  # test_gradient.py has all
    monkeypatch.setattr(gradients, "tables", lambda: iter(some))
    found = json.loads(run("verify --device cpu --json", capsys))
    assert (found["holds"], found["device"]) == (True, "cpu")
    assert found["about"] == [
        "a small example; gpubp verify RUN takes a run's", "9 of 9 networks, 8-16-4", "96 synthetic samples"
    ]  # fmt: skip
    rows = found["promises"]
    assert [(row["verdict"], row["control"], row["good"]) for row in rows if "cuda" not in row["compared"]] == [
        (HOLDS, CAUGHT, True)
    ] * 12
    assert (found["checked"], found["unchecked"]) == (12, 3)
    gpu = [row for row in rows if "cuda" in row["compared"]]
    assert [(row["verdict"], row["good"], bool(row["reason"])) for row in gpu] == [(NONE, True, True)] * 3
    assert all(row["numbers"] >= 70 for row in rows if row["verdict"] == HOLDS)


@pytest.mark.parametrize(
    ("row", "status", "told"),
    [
        (replace(PROMISE, verdict=HOLDS, control=CAUGHT, numbers=5, largest=3e-9), 0, "3e-09 of 1e-08"),
        (replace(PROMISE, verdict=HOLDS, control=MISSED, numbers=5), 4, "a fault: NOT CAUGHT"),
        (replace(PROMISE, verdict=FAILS, reason="of a reason"), 4, "a promise: DOES NOT HOLD: of a reason"),
        (PROMISE.without("no GPU"), 0, "a promise: not checked: no GPU"),
    ],
)
def test_the_exit_status_says_whether_all_is_as_promised(
    row: Row, status: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(promises, "promises", lambda subject: iter([row]))
    printed = run("verify --device cpu", capsys, status)
    assert told in printed
    checked = "1 of 1 rows checked, 1 of them not" if status else "1 of 1 rows checked, all"
    assert ("0 of 1 rows checked; 1 could not" if row.verdict == NONE else checked) in printed
    assert json.loads(run("verify --device cpu --json", capsys, status))["holds"] == (status == 0)


def subject_of(arguments: dict[str, Any]) -> Subject:
    return command._subject({"run": None, "config": None, "device": "cpu", **arguments})


def test_a_run_and_its_file_of_settings_name_the_same_networks(capsys: Capture) -> None:
    trained("--data iris --networks 30 --lr 0.001..0.1:log --dropout 0.1 --widths 4,6,3 --steps 3 --run-dir r", capsys)
    of_run, of_file = subject_of({"run": "r"}), subject_of({"config": "r/config.yaml"})
    assert of_run.about == of_file.about == ["9 of 30 networks, 4-6-3", "96 of 120 samples"]
    assert of_run.design.table().equals(of_file.design.table())
    table = of_run.design.table().to_pydict()
    assert table["seed"] == [0, 4, 7, 11, 14, 18, 22, 25, 29]
    assert table["lr"][0] != table["lr"][1]
    assert set(table["dropout"]) == {0.1}
    assert of_run.engine == "eager"
    Path("r/config.yaml").write_text("data: iris\nsearch: halving\nsteps: 200\nhidden_width: 2..9:int\nnetworks: 90\n")
    assert subject_of({"config": "r/config.yaml"}).about[:2] == [
        "without --search halving, which compares networks with each other", "3 of 8 populations",
    ]  # fmt: skip


def test_networks_of_a_run_whose_data_are_gone_have_synthetic_samples(capsys: Capture) -> None:
    Path("own.csv").write_text("a,b,y\n" + "".join(f"{n},{n % 3},{n * 0.5}\n" for n in range(40)))
    trained("--data own.csv --target y --task regression --networks 4 --steps 3 --folds 2 --run-dir r", capsys)
    assert subject_of({"run": "r"}).about == ["8 of 8 networks, 2-32-1", "40 of 40 samples"]
    Path("own.csv").unlink()
    own = subject_of({"run": "r"})
    assert own.about[0].startswith("the data cannot be read: ")
    assert own.about[-1] == "96 synthetic samples"
    assert own.data.inputs.shape == (96, 2)


def test_a_run_from_python_is_verified_by_what_its_checkpoint_knows() -> None:
    spec = gpubp.NetworkSpec((3, 5, 2), ("sine",), loss="cross_entropy")
    data = gpubp.Dataset(torch.randn(20, 3), torch.randint(2, (20,)))
    config = gpubp.TrainConfig(lr=[0.1, 0.2, 0.3], class_weight=[1.0, 2.0], batch_size=5, steps=[3, 4, 5], l2=0.1)
    gpubp.train(gpubp.Population.create(spec, ids=[5, 7, 9], seed=3), data, config, engine="eager", run_dir="r")
    own = subject_of({"run": "r"})
    assert own.about == [
        "r was started from Python, so its data are not known", "3 of 3 networks, 3-5-2", "96 synthetic samples"
    ]  # fmt: skip
    group = own.groups()[0]
    assert group.population.spec == spec
    assert (group.population.ids.tolist(), own.seed, own.dtype) == ([5, 7, 9], 3, torch.float32)
    assert group.config.lr.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert torch.as_tensor(group.config.class_weight).flatten().tolist()[:2] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("verify nowhere", 1, "nowhere"),
        ("verify r --config c.yaml", 1, "RUN and --config: one of them expected"),
        ("verify --config nowhere.yaml", 2, "nowhere.yaml: a readable file of settings expected"),
        ("verify --config c.yaml", 2, "did you mean 'networks'?"),
        ("verify --config d.yaml", 1, "data 'iriss' is unknown; did you mean 'iris'?"),
        ("verify --device cuda:77", 1, "cuda:77"),
        ("verify --devise cpu", 2, "did you mean '--device'?"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: str, status: int, message: str, capsys: Capture) -> None:
    Path("c.yaml").write_text("netwroks: 5\n")
    Path("d.yaml").write_text("data: iriss\n")
    assert ended(arguments.split()) == status
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(("columns", "blocks"), [(30, True), (160, False)])
def test_a_narrow_screen_has_lines_for_each_row(
    columns: int, blocks: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    row = replace(PROMISE, verdict=HOLDS, control=CAUGHT, networks=1, numbers=5, largest=3e-9)
    monkeypatch.setattr(promises, "promises", lambda subject: iter([row]))
    monkeypatch.setattr(printing, "console", lambda: Console(width=columns, markup=False))
    printed = run("verify --device cpu", capsys)
    wanted = "a promise: holds\n  one and another\n  1 network, 5 numbers, 3e-09\n  of 1e-08\n  a fault: caught\n"
    assert (wanted in printed) == blocks
    assert ("verdict" in printed) != blocks


def test_an_engine_that_this_machine_does_not_have_is_told() -> None:
    Path("c.yaml").write_text("data: iris\nengine: cuda\nnetworks: 3\n")
    assert (
        subject_of({"config": "c.yaml"})
        .about[-1]
        .startswith('engine cuda cannot be had here, and another is verified: engine "cuda" trains on a GPU')
    )
