"""A design, a row per network: each network is what it is alone, whatever trains beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import gpubp
from gpubp import placement
from gpubp.cli import main
from gpubp.design import Design
from gpubp.errors import ConfigError, DataError, GpubpError, SpecError

from .helpers import same_bits, samples
from .short_runs import Stop, same_state, stopped, told

SHAPE = gpubp.NetworkSpec((3, 4), loss="cross_entropy")
FOLDS = [range(0, 30), range(10, 40), [*range(0, 10), *range(20, 50)]]
ROWS: list[dict[str, Any]] = [
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.01, "hidden": "relu"},
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.3, "hidden": "relu", "epochs": 9},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 0.5, "hidden": "relu", "dropout": 0.2},
    {"widths": "3,6,4", "optimizer": "adam", "lr": 0.02, "hidden": "relu", "seed": 90},
    {"widths": "3,5,5,4", "hidden": "tanh,relu", "batch_size": 16, "patience": 1, "lr": 0.2},
    {"widths": "3,5,5,4", "hidden": "tanh,relu", "batch_size": 16, "patience": 3, "lr": 0.2, "fold": 2},
    {"widths": "3,4", "optimizer": "momentum", "momentum": 0.5, "schedule": "cosine", "shuffle": "shared"},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 0.1, "hidden": "relu", "dropout": 0.4, "init": "orthogonal"},
    {"widths": "3,6,4", "optimizer": "sgd", "lr": 1e38, "hidden": "relu", "steps": 20},
]


def data(seed: int = 1, **more: Any) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SHAPE, 50, dtype=torch.float32, seed=seed), **more)


def train(design: Any, given: gpubp.Dataset | None = None, **more: Any) -> gpubp.Result:
    chosen = {"loss": "cross_entropy", "epochs": 6, "batch_size": 8, "seed": 3, "engine": "eager"}
    given = data(rows=FOLDS) if given is None else given
    return gpubp.train_many(design, given, data(9), **{**chosen, **more})


def rows() -> list[dict[str, Any]]:
    """ROWS with what is their row's written out."""
    return [{"seed": number, "fold": number % 3, **row} for number, row in enumerate(ROWS)]


def same(one: gpubp.Result, other: gpubp.Result, history: bool = True) -> None:
    for mine, theirs in zip(one.states, other.states, strict=True):
        same_state(mine, theirs)
    assert repr(one.table.to_pydict()) == repr(other.table.to_pydict())
    assert not history or told(one) == told(other)


@pytest.mark.parametrize("engine", ["eager", "cpu"])
def test_every_network_is_what_it_is_alone_and_stands_in_its_row(engine: str) -> None:
    result = train(rows(), engine=engine)
    assert len(result.populations.each) == 6, "rows that differ in numbers alone train together"
    assert result.table["network"].to_pylist() == list(range(len(ROWS)))
    for number, row in enumerate(rows()):
        alone = train([row], engine=engine)
        assert same_bits(result.loss[number], alone.loss[0])
        assert result.status_names[number] == alone.status_names[0]
        for mine, theirs in zip(result.network(number).parameters(), alone.network(0).parameters(), strict=True):
            assert same_bits(mine.data, theirs.data), number
        known = result.table.slice(number, 1).to_pylist()[0]
        for name, value in alone.table.to_pylist()[0].items():
            assert name == "network" or repr(known[name]) == repr(value), name
    assert {"finished", "stopped", "diverged"} == set(result.status_names)


def test_a_row_is_the_network_of_train_with_that_id() -> None:
    result = train([{**row, "seed": number} for number, row in enumerate(ROWS[:2])], data())
    spec = gpubp.NetworkSpec((3, 6, 4), "relu", loss="cross_entropy")
    config = gpubp.TrainConfig(lr=[0.01, 0.3], epochs=[6, 9], batch_size=8)
    alone = gpubp.train(gpubp.Population.create(spec, 2, seed=3), data(), config, data(9), engine="eager")
    assert same_bits(result.population.params, alone.population.params)


@pytest.mark.parametrize("fit", [99, 2], ids=["memory", "little memory"])
def test_shares_and_groups_that_take_turns_change_no_bit(fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = data(rows=[range(number, 20 + 3 * number) for number in range(len(ROWS))])
    design = [{name: value for name, value in row.items() if name != "fold"} for row in rows()]
    whole, ragged = train(rows()), train(design, apart)
    monkeypatch.setattr("gpubp.run.placed", placement.Shards)
    monkeypatch.setattr("gpubp.placement.fitting", lambda *_: fit)
    same(train(rows(), device=["cpu"] * 2), whole)
    same(train(design, apart, device=["cpu"] * 2), ragged)


@pytest.mark.parametrize("call", [1, 4, 9, 16, 23])
def test_a_stopped_run_resumes_to_the_same_networks(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubp.run.CALL", 100.0)
    monkeypatch.setattr("gpubp.run.MOST", 3)
    whole, folder = train(rows(), engine="eager"), tmp_path / "run"
    stopped(lambda: train(rows(), run_dir=folder, checkpoint_minutes=0.0, reporters=[Stop(call, 2)]))
    same(gpubp.resume(folder, data(rows=FOLDS), data(9)), whole)
    model = gpubp.load(folder)
    inputs = torch.rand(5, 3)
    each = model.predict_proba(inputs, networks=[6, 4, 0], each=True)
    for row, told_of in zip((6, 4, 0), each):
        np.testing.assert_allclose(told_of, whole.network(row)(inputs).softmax(1).detach(), rtol=1e-5)
    mean = model.predict_proba(inputs, networks=[6, 4, 0])
    np.testing.assert_allclose(mean, np.mean(each, 0), rtol=1e-12)


def test_more_epochs_end_as_a_run_begun_with_so_many(tmp_path: Path) -> None:
    design = [row for row in rows() if "schedule" not in row and not {"steps", "epochs"} & row.keys()]
    train(design, run_dir=tmp_path / "run", evaluate_every=1)
    longer = gpubp.resume(tmp_path / "run", data(rows=FOLDS), data(9), epochs=10)
    same(longer, train(design, epochs=10, evaluate_every=1), history=False)


def test_a_design_may_come_in_any_form_and_is_kept_with_the_run(tmp_path: Path) -> None:
    columns = {
        "widths": ["3,6,4", "3,5,5,4"],
        "lr": [0.01, 0.3],
        "batch_size": [8, None],
        "restore_best": [True, False],
    }
    expected = Design.of(columns)
    table = pa.table(columns)
    parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('widths,lr,batch_size,restore_best\n"3,6,4",0.01,8,true\n3-5-5-4,0.3,,false\n')
    forms = [table, table.to_pylist(), iter(table.to_pylist()),
             tmp_path / "a.parquet", str(tmp_path / "a.csv"), expected,
             {**columns, "lr": np.array([0.01, 0.3]), "widths": [(3, 6, 4), [3, 5, 5, 4]]},
             {**columns, "lr": torch.tensor([0.01, 0.3], dtype=torch.float64)}]  # fmt: skip
    for form in forms:
        assert Design.of(form).table() == expected.table()
    train(columns, data(), run_dir=tmp_path / "run")
    assert (
        Design.of(tmp_path / "run" / "design.parquet").table()
        == Design.of(columns, loss="cross_entropy", epochs=6, batch_size=8).table()
    )


@pytest.mark.parametrize(
    ("design", "more", "error", "told"),
    [
        ([], {}, ConfigError, "the design has no rows"),
        (7, {}, ConfigError, "design is a int; a mapping of columns"),
        ({"lr": 0.1}, {}, ConfigError, "column 'lr' is a float; a list of values expected"),
        ({"lr": [0.1], "widths": ["3,4", "3,4"]}, {}, ConfigError, "columns of 1 to 2 rows; equal lengths expected"),
        ([{"width": "3,4"}], {}, ConfigError, "column 'width' is unknown; did you mean 'widths'"),
        ([{"lr": 0.1}], {}, ConfigError, "row 0: widths are missing"),
        (
            [{"widths": "3,4"}, {"widths": "3,x,4"}],
            {},
            ConfigError,
            "widths '3,x,4' in row 1: whole numbers separated by commas expected",
        ),
        (
            [{"widths": "3,4"}, {"widths": "3,4", "lr": "big"}],
            {},
            ConfigError,
            "lr 'big' in row 1: a number in \\[0, inf\\) expected",
        ),
        ([{"widths": "3,4"}, {"widths": "3,4", "momentum": 1}], {}, ConfigError, "row 1: momentum is not a hyper-par"),
        ([{"widths": "3,4", "hidden": "relo"}], {}, SpecError, "row 0: .*'relo' is unknown; did you mean 'relu'"),
        ([{"widths": "2,4"}], {}, GpubpError, "the last size must be 2"),
        ([{"widths": "3,4", "fold": 3}], {}, DataError, "row 0: fold 3: the data have 3, from 0 to 2"),
        ([{"widths": "3,4", "seed": -1}], {}, ConfigError, "seed -1 in row 0"),
        ([{"widths": "3,4"}] * 4, {}, GpubpError, "row 3|fold 3|the data are for 3 networks"),
        ([{"widths": "3,4", "init": "glorot"}], {}, ConfigError, "row 0: init 'glorot' is unknown; did you mean"),
        ([{"widths": "3,4", "batch_size": 2.5}], {}, ConfigError, "batch_size 2.5 in row 0: a whole number from 1 to"),
        ([{"widths": "3,4"}, {"widths": "3,9"}], {}, ConfigError, "from 3 to 4 and from 3 to 9: the same inputs"),
        ([{"widths": "3,4", "restore_best": "perhaps"}], {}, ConfigError, "true or false expected"),
        ([{"widths": "3,4"}], {"momentum": 3}, ConfigError, "momentum"),
    ],
)
def test_a_design_that_cannot_be_is_refused_with_its_row(design: Any, more: Any, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        train(design, **more)


def test_losses_with_different_metrics_are_two_runs() -> None:
    given = gpubp.Dataset(torch.rand(20, 3), torch.ones(20, 1))
    with pytest.raises(ConfigError, match="losses with different metrics, accuracy and r2"):
        gpubp.train_many([{"widths": "3,1", "loss": loss} for loss in ("hinge", "huber")], given, epochs=2)


def test_the_command_line_trains_lists_of_topologies_and_optimizers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--data", "iris", "--epochs", "4", "--engine", "eager", "--tensorboard", "false", "--run-dir"]
    lists = [
        "--widths",
        "4,5,3;4,3,3,3",
        "--optimizer",
        "adam,momentum",
        "--momentum",
        "0.5,0.9",
        "--batch-size",
        "8,16",
    ]
    assert main(["train", *common, "run", "--networks", "16", *lists]) == 0
    assert main(["resume", "run", "--epochs", "6"]) == 0
    capsys.readouterr()
    assert main(["inspect", "run", "--top", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["best"]
    assert {(row["widths"], row["optimizer"], row["batch_size"], row["momentum"]) for row in found} == {
        (widths, optimizer, batch, momentum if optimizer == "momentum" else None)
        for widths in ("4,5,3", "4,3,3,3") for optimizer in ("adam", "momentum") for batch in (8, 16)
        for momentum in (0.5, 0.9)
    }  # fmt: skip
    (tmp_path / "two.csv").write_text('widths,lr\n"4,5,3",0.01\n"4,7,3",\n')
    assert main(["train", *common, "designed", "--design", "two.csv", "--lr", "0.2"]) == 0
    (tmp_path / "lengths.csv").write_text('widths,steps,restore_best\n"4,5,3",2,true\n"4,7,3",,\n')
    lengths = [each for each in common if each not in ("--epochs", "4")]
    assert main(["train", *lengths, "long", "--design", "lengths.csv"]) == 0
    assert parquet.read_table("long/results.parquet")["steps"].to_pylist()[0] == 2
    table = parquet.read_table("designed/results.parquet")
    assert table["lr"].to_pylist() == [0.01, 0.2]
    assert main(["train", *common, "ranged", "--networks", "9", "--hidden-width", "2..40:log"]) == 0
    hidden = [
        int(widths.split(",")[1]) for widths in parquet.read_table("ranged/results.parquet")["widths"].to_pylist()
    ]
    assert len(set(hidden)) > 5
    assert 2 <= min(hidden) < max(hidden) <= 40
    for wrong in (["--momentum", "0.5"], ["--widths", "4,5,3", "--hidden-width", "5"], ["--widths", "4,5,3;4,5"],
                  ["--design", "two.csv", "--networks", "3"], ["--design", "none.csv"], ["--hidden", "relu;"],
                  ["--hidden-width", "0..5"], ["--hidden-width", "2.5,3"], ["--init", "x,y"]):  # fmt: skip
        assert main(["train", *common, "wrong", "--optimizer", "adam,sgd", *wrong]) == 1
