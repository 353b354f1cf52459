"""Folds and bootstraps: every sample is where it must be, and networks of a fold are what they are alone."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyarrow import parquet
from sklearn.model_selection import GroupKFold, StratifiedKFold

import gpubp
from gpubp.checkpoints import checkpoint, manifests
from gpubp.errors import ConfigError, DataError, ShapeError
from gpubp.samples import folds

from .commands import Capture, here, run, trained  # noqa: F401
from .helpers import quick, same_bits, samples

# eager shows a network with rows 256 samples at once, in float32
FIGURES = {"cpu": {"rtol": 0.0, "atol": 0.0}, "eager": {"rtol": 1e-6, "atol": 0.0}}
SPEC = gpubp.NetworkSpec((3, 5, 4), "tanh", loss="cross_entropy")


def resource() -> int:
    """The most bytes that this process has held."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def data(size: int = 53) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, size, dtype=torch.float32))


def sides(divided: tuple[gpubp.Dataset, gpubp.Dataset]) -> list[tuple[list[int], list[int]]]:
    """The samples of both sides, by position."""
    return [(train.tolist(), held_out.tolist()) for train, held_out in zip(*(each.parts for each in divided))]


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(("size", "count"), [(53, 5), (20, 2), (12, 12)])
def test_every_sample_is_held_out_once_in_folds_of_equal_sizes(size: int, count: int, stratify: bool) -> None:
    given = data(size)
    found = sides(given.folds(count, stratify=stratify, repeats=3))
    for repeat in range(3):
        part = found[repeat * count : (repeat + 1) * count]
        assert sorted(sample for _, held_out in part for sample in held_out) == list(range(size))
        for train, held_out in part:
            assert sorted([*train, *held_out]) == list(range(size))
        assert {len(held_out) for _, held_out in part} <= {size // count, size // count + 1}
    if count < size:
        assert found[0] != found[count], "each repeat shuffles anew"
        assert found == sides(given.folds(count, stratify=stratify, repeats=3))
        assert found != sides(given.folds(count, stratify=stratify, repeats=3, seed=1))


def test_stratified_folds_have_the_classes_of_scikit_learns() -> None:
    given = data(53)
    labels = given.targets

    def classes(parts: Any) -> list[list[int]]:
        """How many of each class the folds hold out, per class from fewest to most."""
        counts = torch.stack([torch.bincount(labels[held_out], minlength=4) for _, held_out in parts])
        return counts.sort(0).values.tolist()

    theirs = [(train, torch.as_tensor(test)) for train, test in StratifiedKFold(5).split(labels, labels)]
    assert classes(sides(given.folds(5))) == classes(theirs)


@pytest.mark.parametrize("low", [0, -1])
def test_one_column_of_two_labels_is_divided_as_their_class_numbers_are(low: int) -> None:
    inputs, labels = torch.rand(53, 3), torch.arange(53) % 7 // 6
    column = gpubp.Dataset(inputs, torch.where(labels > 0, 1.0, low))
    assert sides(column.folds(5)) == sides(gpubp.Dataset(inputs, labels).folds(5))
    assert sides(column.folds(5, stratify=False)) != sides(column.folds(5))
    both = gpubp.Dataset(inputs, torch.stack([labels, 1 - labels], 1).float())
    assert sides(both.folds(5)) == sides(column.folds(5, stratify=False)), "several labels are not, as in scikit-learn"


def test_folds_of_two_classes_by_name_have_equal_shares_and_older_runs_keep_theirs(capsys: Capture) -> None:
    data = gpubp.load_data("breast_cancer", folds=5)
    assert data.loss == "binary_cross_entropy"
    assert {int(data.validation.targets[part].sum()) for part in data.validation.parts} == {42, 43}
    plain = gpubp.load_data("breast_cancer", folds=5, stratify=False)
    assert 38 in {int(plain.validation.targets[part].sum()) for part in plain.validation.parts}
    with pytest.raises(ConfigError, match="stratify True: only with folds"):
        gpubp.load_data("breast_cancer", stratify=True)
    trained("--data breast_cancer --folds 3 --stratify false --networks 1 --epochs 1 --run-dir run", capsys)
    path = Path("run/checkpoint/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["settings"]["stratify"]
    path.write_text(json.dumps(manifest | {"manifest_sha256": manifests.digest(manifest)}))
    run("resume run --epochs 2", capsys)
    assert checkpoint.settings(Path("run"))["stratify"] is False


def test_a_group_is_on_one_side_and_folds_are_as_even_as_scikit_learns() -> None:
    given, groups = data(53), ["abcdefg"[(number * number) % 7] for number in range(53)]
    found = sides(given.folds(3, groups=groups))
    for train, held_out in found:
        assert {groups[sample] for sample in train}.isdisjoint(groups[sample] for sample in held_out)
    theirs = [len(test) for _, test in GroupKFold(3).split(groups, groups=groups)]
    assert sorted(len(held_out) for _, held_out in found) == sorted(theirs)
    assert sorted(sample for _, held_out in found for sample in held_out) == list(range(53))


def test_a_bootstrap_draws_as_many_samples_as_there_are_and_validates_on_the_others() -> None:
    found = sides(data(200).bootstrap(20))
    for train, held_out in found:
        assert len(train) == 200
        assert sorted({*train, *held_out}) == list(range(200))
        assert {*train}.isdisjoint(held_out)
    share = sum(len(held_out) for _, held_out in found) / 4000
    assert share == pytest.approx((1 - 1 / 200) ** 200, abs=0.02)
    assert len({tuple(train) for train, _ in found}) == 20


@pytest.mark.parametrize(
    ("engine", "most"), quick(product(["eager", "cpu"], [folds.MOST, 0]), [("eager", folds.MOST), ("eager", 0)])
)
def test_networks_of_a_fold_are_what_they_are_on_its_samples_alone(
    engine: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "MOST", most)
    given = data(54)  # whose folds are of one size, which makes fewer kernels
    train, held_out = given.folds(3)
    design = [{"widths": "3,5,4", "lr": lr, "fold": fold, "seed": 7} for lr in (0.01, 0.1) for fold in range(3)]
    common = {"loss": "cross_entropy", "epochs": 4, "batch_size": 8, "engine": engine}
    result = gpubp.train_many(design, train, held_out, **common)  # type: ignore[arg-type]
    assert len(result.populations.each) == 1
    for number, (row, (rows, left)) in enumerate(zip(design, 2 * sides((train, held_out)))):
        some, others = (gpubp.Dataset(given.inputs[each], given.targets[each]) for each in (rows, left))
        alone = gpubp.train_many([{key: row[key] for key in ("widths", "lr", "seed")}], some, others, **common)  # type: ignore[arg-type]
        assert same_bits(result.population.params[number], alone.population.params[0])
        torch.testing.assert_close(result.validation_loss[number], alone.validation_loss[0], **FIGURES[engine])


def test_networks_that_name_no_fold_are_told_how() -> None:
    train, held_out = data(54).folds(3)
    with pytest.raises(ShapeError, match="for 3 networks, the population has 2; a design's column fold says on which"):
        gpubp.train_many([{"lr": 0.1}] * 2, train, held_out, widths="3,4", loss="cross_entropy", epochs=1)


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"count": 1}, ConfigError, "folds 1: a whole number of 2 or more expected"),
        ({"count": 2.5}, ConfigError, "folds 2.5"),
        ({"count": 54}, DataError, "folds 54: more than the 53 samples"),
        ({"count": 3, "groups": [0, 1] * 26 + [0]}, DataError, "folds 3: more than the 2 groups"),
        ({"count": 3, "groups": [0, 1]}, ShapeError, "groups of 2 samples; one label for each of 53 expected"),
        ({"count": 3, "groups": [float("nan")] * 53}, DataError, "groups: a label is missing"),
        ({"count": 3, "groups": dict.fromkeys(range(53))}, ConfigError, "groups is a dict; a label for each"),
        ({"count": 3, "groups": 3}, ConfigError, "groups is a int; a label for each"),
        ({"count": 3, "groups": range(53), "stratify": True}, ConfigError, "one of them expected"),
        ({"count": 3, "repeats": 0}, ConfigError, "repeats 0"),
        ({"count": 3, "groups": pd.array(["a", None, *"b" * 51], dtype="string")}, DataError, "missing in sample 1; a"),
        ({"count": 3, "groups": pd.Series([1, None] * 26 + [2], dtype="Int64")}, DataError, "missing in sample 1"),
        ({"count": 3, "groups": pd.to_datetime(["2024-01-01", *[None] * 52])}, DataError, "missing in sample 1"),
        ({"count": 3, "groups": np.zeros((53, 2))}, ShapeError, r"groups of shape \(53, 2\); one label for each"),
        ({"count": 3, "groups": torch.tensor(3)}, ShapeError, r"groups of shape \(\); one label for each"),
        ({"count": 3, "groups": pd.DataFrame({"a": range(53)})}, ShapeError, r"groups of shape \(53, 1\)"),
        ({"count": 3, "groups": [[1], *range(52)]}, DataError, "groups: a list in sample 0; a number or text expected"),
        ({"count": 3, "groups": {*range(53)}}, ConfigError, "groups is a set; a label for each"),
        ({"count": 3, "stratify": np.ones(53)}, ConfigError, "stratify is a ndarray; True, False or None expected"),
    ],
)
def test_folds_that_cannot_be_are_refused(settings: dict[str, Any], error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        data().folds(**settings)


@pytest.mark.parametrize(
    ("divide", "told"),
    [
        (lambda data: data.folds(53), "folds 53, repeats 1 of 53 samples: .* needs 44.9 KB, and 40 KB"),
        (lambda data: data.folds(5, repeats=30), "repeats 30 of 53 samples: which samples are whose needs 127 KB"),
        (lambda data: data.bootstrap(200), "bootstrap 200 of 53 samples: .* needs 233 KB, and 40 KB are free; few"),
    ],
)
def test_more_folds_than_memory_holds_are_refused_before_any_is_made(
    divide: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = data()
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 40_000)
    monkeypatch.setattr("gpubp.system.free.SMALL", 0)
    assert whole.folds(30)
    with pytest.raises(DataError, match=told):
        divide(whole)


@pytest.mark.cpu("measures memory")
def test_folds_take_the_memory_that_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    whole = data(1000)
    monkeypatch.setattr("gpubp.samples.folds._check_room", lambda what, indices, samples: said.append(16 * indices))
    for divide in (lambda: whole.folds(1000), lambda: whole.bootstrap(700)):
        before = resource()
        divided = divide()
        assert resource() - before < 1.2 * said[-1] + (1 << 23)
        assert 0.3 * said[-1] < sum(each.rows.nbytes for each in divided) < said[-1]


def test_data_that_already_differ_and_numbers_to_stratify_are_refused() -> None:
    inputs, targets = samples(SPEC, 10)
    with pytest.raises(DataError, match="already differ between networks"):
        gpubp.Dataset(inputs, targets, rows=[range(5)]).folds(2)
    with pytest.raises(ShapeError, match="stratify: class numbers"):
        gpubp.Dataset(inputs, inputs).folds(2, stratify=True)
    with pytest.raises(DataError, match="draws all of them"):
        gpubp.Dataset(inputs[:1], targets[:1]).bootstrap(2)


NOTE = (
    "{} settings train on some of the 3 folds alone: figures of different folds do not compare settings; a row for "
    "each setting and fold, with a column fold, does"
)


@pytest.mark.parametrize("way", ["folds", "bootstrap"])
def test_networks_of_folds_say_which_is_theirs_and_a_note_that_settings_are_confounded_with_them(
    way: str, tmp_path: Path
) -> None:
    divided = data().folds(3) if way == "folds" else data().bootstrap(3)
    common = {"widths": "3,5,4", "epochs": 2, "loss": "cross_entropy", "engine": "eager"}
    result = gpubp.train_many({"lr": [0.001, 0.01, 0.1]}, *divided, run_dir=tmp_path / "run", **common)
    assert result.table["fold"].to_pylist() == [0, 1, 2]
    assert [note for note in result.notes if "fold" in note] == [NOTE.format("3 of 3")]
    assert gpubp.resume(tmp_path / "run", *divided).table["fold"].to_pylist() == [0, 1, 2]
    population = gpubp.Population.create(SPEC, 3)
    result = gpubp.train(population, divided[0], gpubp.TrainConfig(epochs=2), divided[1], engine="eager")
    assert result.table["fold"].to_pylist() == [0, 1, 2]
    assert not [note for note in result.notes if "fold" in note], "they differ in nothing else"
    config = gpubp.TrainConfig(epochs=2, lr=torch.tensor([0.1, 0.1, 0.2]))
    result = gpubp.train(population, divided[0], config, divided[1], engine="eager")
    assert [note for note in result.notes if "fold" in note] == [NOTE.format("2 of 2")]
    rows = [{"lr": lr, "fold": fold} for lr in (0.01, 0.1) for fold in range(3)]
    for some, told in ((rows, []), (rows[:-1], [NOTE.format("1 of 2")])):
        result = gpubp.train_many(some, *divided, **common)
        assert [note for note in result.notes if "fold" in note] == told
    result = gpubp.train_many(rows, *divided, slots=4, **common)
    assert not [note for note in result.notes if "fold" in note], "the others join later"


def test_networks_with_samples_of_their_own_have_no_folds() -> None:
    inputs, targets = samples(SPEC, 10)
    own = gpubp.Dataset(inputs, targets, rows=[range(5), range(4)])
    by = gpubp.Dataset(inputs, targets).by([0, 1] * 5)
    for given in (own, by):
        rows = [{"lr": 0.1}, {"lr": 0.2}]
        result = gpubp.train_many(rows, given, widths="3,4", loss="cross_entropy", epochs=1, engine="eager")
        assert "fold" not in result.table.column_names
        assert not [note for note in result.notes if "fold" in note]


def test_folds_that_do_not_belong_together_are_refused() -> None:
    given, common = data(), {"widths": "3,5,4", "loss": "cross_entropy", "steps": 2}
    for design, train, held_out in (
        ([{"fold": fold} for fold in range(5)], given.folds(5)[0], given.folds(3)[1]),
        ([{"fold": fold} for fold in range(5)], given.folds(5)[0], given.folds(7)[1]),
        ([{"fold": 7}], given, None),
        ([{"fold": 4}], given, given.folds(3)[1]),
    ):
        for engine in ("cpu", "eager"):
            with pytest.raises((ShapeError, DataError), match=r"as many expected|data\.folds|fold 4: the data have 3"):
                gpubp.train_many(design, train, held_out, engine=engine, **common)  # type: ignore[arg-type]


def test_inspect_compares_settings_over_folds_and_seeds(capsys: Capture) -> None:
    common = {"widths": "3,5,4", "loss": "cross_entropy", "steps": 9, "engine": "eager"}
    design = [{"lr": lr, "fold": fold, "seed": 0} for lr in (0.001, 0.1) for fold in range(3)]
    train, held_out = data().folds(3)
    gpubp.train_many(design, train, held_out, run_dir="run", **common)  # type: ignore[arg-type]
    gpubp.train_many(design, train, run_dir="blind", **common)  # type: ignore[arg-type]
    assert [each["networks"] for each in json.loads(run("inspect run --json", capsys))["settings"]] == [3, 3]
    assert json.loads(run("inspect blind --json", capsys))["settings"] == []


def test_the_command_line_trains_every_setting_on_every_fold_and_compares_the_settings(capsys: Capture) -> None:
    trained("--data iris --epochs 3 --networks 4 --folds 3 --lr 0.001..0.1 --run-dir run", capsys)
    run("resume run --epochs 4", capsys)
    rows = parquet.read_table("run/results.parquet").to_pylist()
    assert [(row["id"], row["fold"]) for row in rows] == [(setting, fold) for setting in range(4) for fold in range(3)]
    assert len({row["lr"] for row in rows}) == 4
    found = json.loads(run("inspect run --top 9 --json", capsys))["settings"]
    assert [each["networks"] for each in found] == [3] * 4
    best = found[0]
    losses = np.array([row["validation_loss"] for row in rows if row["lr"] == best["lr"]])
    assert best["validation_loss"] == min(each["validation_loss"] for each in found) == pytest.approx(losses.mean())
    assert best["± validation_loss"] == pytest.approx(losses.std(ddof=1) / 3**0.5)
    prepared = gpubp.load_data("iris", folds=3)
    again = gpubp.resume("run", prepared.training, prepared.validation)
    assert again.table.to_pylist() == rows
    for wrong in ("--folds 1", "--folds 3 --validation 0.2", "--folds 151"):
        run(f"train --data iris --epochs 1 {wrong}", capsys, 1)
