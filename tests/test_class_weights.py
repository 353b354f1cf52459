"""Balanced weights of classes are scikit-learn's of each network's samples, and train as those numbers do."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import gpubp
from gpubp.errors import ConfigError
from gpubp.results.ranking import order_of, ranked_by

from .commands import Capture, columns, here, run, trained  # noqa: F401
from .helpers import generator, quick, same_bits

INPUTS = torch.rand(60, 3, generator=generator(0))
CLASSES = (torch.rand(60, generator=generator(1)) ** 3 * 3).long()  # 42, 12 and 6 of them
SHARED = gpubp.Dataset(INPUTS, CLASSES)
SPEC = gpubp.NetworkSpec((3, 4, 3), loss="cross_entropy")

DATA: dict[str, gpubp.Dataset] = {
    "shared": SHARED,
    "folds": SHARED.folds(4, stratify=False)[0],
    "entities": SHARED.by({"shop": (torch.arange(60) % 4).tolist()}),
    "own inputs": gpubp.Dataset(INPUTS.view(4, 15, 3), CLASSES.view(4, 15)),
    "own inputs, rows": gpubp.Dataset(INPUTS.view(4, 15, 3), CLASSES.view(4, 15), rows=[[0, 1, 1, 14]] * 4),
}


def expected(data: gpubp.Dataset, position: int) -> list[float]:
    """Of the samples of one network; 1 of classes that it has not."""
    targets = (data.targets[position] if data.own else data.targets).numpy()
    targets = targets if data.rows is None else targets[data.parts[position].numpy()]
    found = np.unique(targets)
    weights = dict(zip(found.tolist(), compute_class_weight("balanced", classes=found, y=targets)))
    return [weights.get(each, 1.0) for each in range(3)]


@pytest.mark.parametrize("name", DATA)
def test_weights_are_those_of_each_networks_samples(name: str) -> None:
    data, population = DATA[name], gpubp.Population.create(SPEC, count=4)
    common: dict[str, Any] = {"lr": 0.1, "epochs": 2, "batch_size": 8}
    balanced = gpubp.train(population, data, gpubp.TrainConfig(class_weight="balanced", **common), engine="eager")
    weights = torch.tensor([expected(data, position) for position in range(4)], dtype=torch.float64)
    torch.testing.assert_close(balanced.state.hyper["class_weight"], weights, rtol=1e-15, atol=0)
    numbers = gpubp.train(population, data, gpubp.TrainConfig(class_weight=weights, **common), engine="eager")
    assert same_bits(balanced.population.params, numbers.population.params)


def test_a_design_has_balanced_numbers_and_no_weights_side_by_side(tmp_path: Path) -> None:
    data, held_out = SHARED.folds(4, stratify=False)
    each = [{"fold": 2, "class_weight": "balanced"}, {"fold": 0, "class_weight": "balanced"},
            {"fold": 1, "class_weight": "1,2,3"}, {"fold": 1}]  # fmt: skip
    given: dict[str, Any] = {"widths": "3,4,3", "loss": "cross_entropy", "lr": 0.1, "epochs": 2, "batch_size": 8}
    given["engine"] = "eager"
    result = gpubp.train_many(each, data, held_out, **given, run_dir=tmp_path / "run")
    found = [
        None if cell is None else [*map(float, cell.split(","))] for cell in result.table["class_weight"].to_pylist()
    ]
    assert found == [pytest.approx(expected(data, 2)), pytest.approx(expected(data, 0)), [1, 2, 3], None]
    assert gpubp.replay(tmp_path / "run", 1, data=data, validation=held_out).same
    numbers = [row | {"class_weight": weight} for row, weight in zip(each, found)]
    again = gpubp.train_many(numbers, data, held_out, **given)
    for row in range(4):
        assert all(map(torch.equal, result.network(row).parameters(), again.network(row).parameters()))


@pytest.mark.parametrize("kind", ["folds", "entities"])
def test_balanced_weights_of_folds_and_entities_are_of_one_setting(kind: str) -> None:
    """Beside networks without weights, and for a search, which compares settings."""
    sets = DATA[kind], None
    if kind == "folds":
        sets = SHARED.folds(4, stratify=False)
    design = [
        {"lr": lr, "fold": fold, "class_weight": weight, "seed": 0}
        for lr in (0.01, 0.1) for weight in ("balanced", None, "1,2,3") for fold in range(4)
    ]  # fmt: skip
    given: dict[str, Any] = {"widths": "3,4,3", "loss": "cross_entropy", "batch_size": 8, "engine": "eager"}
    result = gpubp.train_many(design, *sets, **given, epochs=2)
    assert not [note for note in result.notes if "settings train on some" in note]
    assert len({*result.table["class_weight"].to_pylist()}) > 4, "numbers of each"
    study = gpubp.studies.Study(result.table)
    assert {"lr", "class_weight"} <= {*study.varied}
    found = {(each["lr"], each["class_weight"]): each["networks"] for each in study.settings(99)}
    ways = {"folds": "by fold", "entities": "by shop"}[kind], None, "1,2,3"
    assert found == {(lr, way): 4 for lr in (0.01, 0.1) for way in ways}
    alone = gpubp.train_many([row for row in design if row["class_weight"] == "balanced"], *sets, **given, epochs=2)
    study = gpubp.studies.Study(alone.table)
    assert {*study.varied} - {"fold"} == {"lr"}
    assert ranked_by(study.results) == study.figure
    assert order_of(study.results).tolist() == alone.ranking().tolist(), "so that the report has it"
    if kind == "folds":
        searched = gpubp.train_many(design, *sets, **given, epochs=4, search=gpubp.search.SuccessiveHalving(2))
        assert searched.notes[0].startswith(
            "successive halving: 6 settings, of which these go on: 3 after 1, 1 after 2"
        )
        rungs = searched.table["rung"].to_pylist()
        assert [len({*rungs[first : first + 4]}) for first in range(0, 24, 4)] == [1] * 6, "a setting ends together"


def test_the_command_line_takes_it_and_resumes(capsys: Capture) -> None:
    for folder, more in (("one", "--epochs 3"), ("long", "--epochs 4"), ("folds", "--epochs 3 --folds 3")):
        trained(f"--data iris --networks 2 --class-weight balanced {more} --run-dir {folder}", capsys)
    run("resume one --epochs 4", capsys)
    assert columns("one")["loss"] == columns("long")["loss"]
    assert len(columns("folds")["loss"]) == 6


def test_a_loss_without_classes_and_another_word_are_refused() -> None:
    with pytest.raises(ConfigError, match="class_weight 'equal': 'balanced', or a number per class, expected"):
        gpubp.TrainConfig(class_weight="equal", epochs=1)
    numbers, rows = gpubp.Dataset(INPUTS, INPUTS), [{"widths": "3,4,3"}]
    with pytest.raises(ConfigError, match="row 0: class_weight is for loss 'cross_entropy', not for 'mean_squared"):
        gpubp.train_many(rows, numbers, class_weight="balanced", epochs=1)
    population = gpubp.Population.create(gpubp.NetworkSpec((3, 4, 3)), count=2)
    with pytest.raises(ConfigError, match="class_weight is for loss 'cross_entropy', not for 'mean_squared"):
        gpubp.train(population, numbers, gpubp.TrainConfig(class_weight="balanced", epochs=1))


@pytest.mark.parametrize(
    ("engine", "smoothing"),
    quick(product(("eager", "cpu"), (0.0, 0.1)), [("eager", 0.0), ("eager", 0.1), ("cpu", 0.1)]),
)
def test_samples_whose_classes_have_no_weight_have_a_loss_of_nan_as_torch_has_it(engine: str, smoothing: float) -> None:
    weight, none = [0.0, 1.0, 1.0], gpubp.Dataset(INPUTS, torch.zeros(60, dtype=torch.long))
    config = gpubp.TrainConfig(class_weight=weight, label_smoothing=smoothing, steps=2, batch_size=5)
    found = gpubp.train(gpubp.Population.create(SPEC, 2), SHARED, config, none, engine=engine)
    expected = torch.nn.functional.cross_entropy(
        torch.rand(60, 3), none.targets, torch.tensor(weight), label_smoothing=smoothing
    )
    assert expected.isnan()
    assert found.validation_loss.isnan().all()
