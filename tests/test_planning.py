"""A plan says, before any network is made, what the training then is, does and writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.cli import main
from gpubp.errors import ConfigError, GpubpError

from .helpers import samples
from .short_runs import hears

SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
DESIGN = [
    {"widths": widths, "optimizer": optimizer, "batch_size": 8, "steps": 10 + number}
    for number in range(3)
    for widths in ("3,6,2", "3,9,5,2")
    for optimizer in ("adam", "sgd")
]
Capture = pytest.CaptureFixture[str]


def data(count: int = 40, **given: Any) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, count, dtype=torch.float32), **given)


@pytest.fixture
def nothing_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gpubp.runs.design.initialise", "gpubp.population.initialise"):
        monkeypatch.setattr(name, lambda *given: pytest.fail("networks are made"))


def without_free(text: str) -> str:
    return text.rpartition("; data")[0]


@pytest.mark.parametrize("slots", [None, 5])
def test_a_plan_is_what_the_training_becomes(slots: int | None, tmp_path: Path) -> None:
    folds = data().folds(3) if slots else (data(), data(9))
    design = [{**row, "fold": number % 3} for number, row in enumerate(DESIGN)] if slots else DESIGN
    plan, lines = gpubp.plan(design, *folds, slots=slots, engine="eager"), list[str]()
    result = gpubp.train_many(
        design, *folds, slots=slots, engine="eager", run_dir=tmp_path / "run",
        reporters=[hears(start=lambda start: lines.extend(start.lines))], search=None,
    )  # fmt: skip
    assert (plan.networks, plan.at_once) == (12, slots or 12)
    assert plan.network_steps == result.network_steps
    assert [each.settings["widths"] for each in plan.parts] == ["3,6,2", "3,6,2", "3,9,5,2", "3,9,5,2"]
    assert {each.settings["optimizer"] for each in plan.parts} == {"adam", "sgd"}
    assert [(each.networks, each.engine) for each in plan.parts] == [(3, "eager")] * 4
    by_width = {each.spec.widths: each.spec.size for each in result.populations.each}
    widths = [tuple(map(int, each.settings["widths"].split(","))) for each in plan.parts]
    assert [each.parameters for each in plan.parts] == [by_width[each] for each in widths]
    assert without_free(plan.memory) == without_free(lines[-1])
    if slots is None:
        states = sum(tensor.nbytes for state in result.states for _, tensor in state.tensors())
        assert 0.9 * states < plan.saved < 1.2 * states


def test_no_network_is_made_and_nothing_is_written(nothing_is_made: None) -> None:
    plan = gpubp.plan({"lr": torch.logspace(-4, -1, 1_000_000)}, data(), widths="3,6,2", epochs=5)
    assert plan.networks == 1_000_000
    assert plan.network_steps == 1_000_000 * -(-5 * 40 // 32)
    assert not [*Path().iterdir()]
    assert "1,000,000 networks in 1 population" in str(plan)


@pytest.mark.parametrize(
    ("design", "common", "given"),
    [
        ([{"widths": "3,6,2"}, {"widths": "4,6,2"}], {"epochs": 1}, data()),
        ([{"widths": "3,6,2", "momentum": 0.5}], {"epochs": 1}, data()),
        ([{"widths": "4,6,2"}], {"epochs": 1}, data()),
        ([{"widths": "3,6,2", "fold": 4}], {"epochs": 1}, data()),
        ([], {"epochs": 1}, data()),
        ([{"widths": "3,6,2"}], {"epochs": 1, "engine": "cuda"}, data()),
    ],
    ids=["sides", "hyper-parameter", "inputs", "fold", "rows", "engine"],
)
def test_what_the_training_refuses_the_plan_refuses_likewise(
    design: Any, common: dict[str, Any], given: gpubp.Dataset
) -> None:
    told = []
    for call in (gpubp.plan, gpubp.train_many):
        with pytest.raises(GpubpError) as caught:
            call(design, given, **common)
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]


def test_a_stream_has_no_plan() -> None:
    with pytest.raises(ConfigError, match="plan: the design is an iterator; one that has all its rows"):
        gpubp.plan(iter(DESIGN), data())


def test_settings_that_do_nothing_are_told_of() -> None:
    """By a plan and by the training; a warm-up of some network that ends is none of them."""
    common: dict[str, Any] = {"widths": "3,6,2", "steps": 10}
    late = [{"warmup": 20, "patience": 20}, {"warmup": 10, "patience": 20, "optimizer": "sgd"}]
    for call in (gpubp.plan, gpubp.train_many):
        told = call(late, data(), engine="eager", **common).notes
        assert any("patience never stops a network" in each for each in told)
        assert "warmup never ends: it takes 20 steps, and the training has 10" in told
        told = call([late[0], {"warmup": 9}], data(), engine="eager", **common).notes
        assert not any("warmup" in each for each in told)
    assert "patience never stops a network" in str(gpubp.plan(late, data(), **common))


@pytest.mark.parametrize(
    ("given", "other", "told"),
    [
        ({"schedule": "step"}, {"step_size": 9}, "learning rate: it takes 1,000 steps, and the training has 10"),
        ({"schedule": "step", "step_size": 10}, {"step_size": 9}, "learning rate: it takes 10 steps"),
        ({"schedule": "step", "step_size": 7, "warmup": 3}, {"warmup": 2}, "learning rate: it takes 10 steps"),
        ({"widths": "3,2", "dropout": 0.5}, {"widths": "3,4,2"}, "dropout does nothing: it is of hidden layers, and"),
        ({"warmup_start": 0.5}, {"warmup": 2}, "warmup_start does nothing: there is no warmup"),
        ({"schedule": "step", "step_size": 9.5}, {"step_size": 8.5}, "learning rate: it takes 10 steps"),
        ({"schedule": "step", "warmup": 20}, {"warmup": 2, "step_size": 1}, "warmup never ends: it takes 20 steps"),
        ({"schedule": "plateau", "evaluate_every": 1, "plateau_patience": 8}, {"plateau_patience": 7},
         "schedule plateau never reduces a learning rate: it takes 10 evaluations, one every 1 step, and"),
        ({"schedule": "plateau", "evaluate_every": 1}, {"plateau_patience": 2}, "it takes 12 evaluations"),
    ],
)  # fmt: skip
def test_schedules_and_dropout_that_do_nothing_are_told_of(
    given: dict[str, Any], other: dict[str, Any], told: str
) -> None:
    """Unless they do something in another network."""
    common: dict[str, Any] = {"widths": "3,6,2", "steps": 10, "engine": "eager"}
    for call in (gpubp.plan, gpubp.train_many):
        (note,) = call([given], data(), **common).notes
        assert told in note
        assert not call([given, given | other], data(), **common).notes


def test_what_is_off_in_every_network_does_nothing_that_is_told_of() -> None:
    off = torch.zeros(2)
    for settings, told in (
        ({"dropout": off}, []),
        ({"warmup": off, "warmup_start": 0.5}, ["warmup_start does nothing"]),
    ):
        config = gpubp.TrainConfig(steps=10, batch_size=8, **settings)
        population = gpubp.Population.create(gpubp.NetworkSpec((3, 2)), 2)
        notes = gpubp.train(population, data(), config, engine="eager").notes
        assert [each.partition(":")[0] for each in notes] == told


def test_settings_that_folds_do_not_compare_are_told_of() -> None:
    design = {"widths": ["3,6,2"] * 3, "lr": [0.1, 0.1, 0.2], "fold": [0, 1, 1]}
    (note,) = gpubp.plan(design, *data().folds(2), steps=10, batch_size=8).notes
    assert note.startswith("1 of 2 settings train on some of the 2 folds alone")


def test_the_memory_that_is_free_is_told_of_as_it_is(
    nothing_is_made: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 10**9)
    assert main([*IRIS[:-1], "100000", "--plan"]) == 0
    assert "; 1 GB free, room for" in capsys.readouterr().out


IRIS = ["train", "--data", "iris", "--engine", "eager", "--networks", "12"]


@pytest.mark.parametrize(
    "given", ["", "--optimizer adam,sgd", "--slots 7", "--folds 3", "--search halving", "--search pbt --lr 0.01..0.1"]
)
def test_the_command_line_says_what_its_run_then_says(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [*IRIS, *given.split(), "--epochs", "3"]
    assert main([*flags, "--plan"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert not [*tmp_path.iterdir()]
    assert main([*flags, "--plan", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert main([*flags, "--run-dir", "run", "--json"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    place = next(place for place, each in enumerate(lines) if each.startswith("memory: "))
    assert without_free(lines[place]) in {without_free(each) for each in told}
    assert without_free(lines[place]) == without_free(values["memory"])
    assert {*lines[1:place]} <= {*told}, "of the data, the search, and what does nothing"
    found = json.loads(out.splitlines()[-1])
    assert values["networks"] == found["networks"]
    assert (values["network_steps"] == found["network_steps"]) == ("halving" not in flags)
    assert "plan" not in (tmp_path / "run" / "config.yaml").read_text()


def test_many_populations_are_cut_and_flags_that_do_not_go_together_refused(
    nothing_is_made: None, capsys: Capture
) -> None:
    assert main([*IRIS[:-1], "60", "--hidden-width", "4..60", "--plan"]) == 0
    assert "populations more: --json has all" in capsys.readouterr().out
    for flags, why in (
        (["--data", "tutorial"], "--plan: --data tutorial does not have it"),
        (["--cluster", "local"], "--plan and --cluster local: one of them expected"),
        (["--search", "halving", "--epochs", "2"], "goes on for 3 times as long, and the training has 2"),
        (["--search", "pbt", "--slots", "5"], "it compares all networks at the same time, and there are 5 slots"),
    ):
        assert main([*IRIS, *flags, "--plan"]) == 1
        assert why in capsys.readouterr().err
