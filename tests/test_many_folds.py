"""Many folds of many samples share one order of the samples, and take little memory."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import DataError
from gpubp.samples import folds

from .helpers import same_bits, samples
from .test_folds import SPEC, data, sides


@pytest.mark.parametrize(
    "settings",
    [{"count": 5, "repeats": 3}, {"count": 53, "seed": 4}, {"count": 3, "groups": [n * n % 7 for n in range(53)]}],
)
def test_folds_that_share_one_order_of_the_samples_have_those_of_their_own_lists(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = data()
    listed = given.folds(**settings)
    monkeypatch.setattr(folds, "MOST", 0)
    shared = given.folds(**settings)
    assert listed[1].fingerprint() == shared[1].fingerprint(), "held out samples need no more memory in any case"
    assert [sorted(train) for train, _ in sides(shared)] == [train for train, _ in sides(listed)]
    assert len(shared[0].rows) == 2 * 53 * settings.get("repeats", 1)
    assert shared[0].lengths == listed[0].lengths


def test_one_of_5000_samples_is_left_out_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 300_000_000)  # the lists would need 400 MB
    train, held_out = data(5000).folds(5000)
    assert sum(each.nbytes(5000) for each in (train, held_out)) < 1_000_000
    common = {"widths": "3,4", "loss": "cross_entropy", "steps": 2, "engine": "eager", "optimizer": "sgd", "lr": 0.1}
    left_out = [*range(0, 5000, 50), 4999]
    rows = [{"fold": fold, "seed": 0} for fold in left_out]
    result = gpubp.train_many(rows, train, held_out, slots=40, **common)
    assert result.validation_loss is not None
    for row in (0, 33, 100):
        mine = [each.parts[left_out[row]] for each in (train, held_out)]
        assert sorted(torch.cat(mine).tolist()) == list(range(5000))
        some, others = (gpubp.Dataset(train.inputs[each], train.targets[each]) for each in mine)
        alone = gpubp.train_many([{"seed": 0}], some, others, **common)
        assert same_bits(result.network(row)[0].weight, alone.network(0)[0].weight)


@pytest.mark.parametrize("most", [folds.MOST, 0])
def test_a_fold_whose_samples_all_weigh_0_is_refused(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "MOST", most)
    inputs, targets = samples(SPEC, 6)
    weight = torch.tensor([0, 0, 1, 0, 0, 0.0])
    with pytest.raises(DataError, match="sample_weight is 0 for all samples of network"):
        gpubp.Dataset(inputs, targets, sample_weight=weight).folds(3)
    weight = torch.tensor([1e-30, 1, 1e30, 1e-30, 1, 1e-30])
    assert gpubp.Dataset(inputs, targets, sample_weight=weight).folds(3)


@pytest.mark.parametrize(("count", "told"), [(3, False), (5, True), (20, True), (40, False)])
def test_a_class_with_fewer_samples_than_folds_is_named(count: int, told: bool, tmp_path: Path) -> None:
    rows = [f"{number % 7},{'rare' if number < 4 else 'often'}" for number in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["x,kind", *rows]) + "\n")
    prepared = gpubp.load_data(tmp_path / "a.csv", target="kind", loss="cross_entropy", folds=count, scale="none")
    sentence = f"class rare has 4 samples: {count - 4} of {count} folds hold out none"
    assert (sentence in prepared.about) == told
    assert told == any("rare has" in each for each in prepared.about)
    without = sum(not bool((prepared.training.targets[part] == 1).any()) for part in prepared.validation.parts)  # type: ignore[union-attr]
    assert without == max(0, count - 4)


def test_folds_whose_copies_do_not_fit_say_what_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("x,z,y\n" + "".join(f"{n},{n % 7},{n % 5}\n" for n in range(200)))
    settings = {"target": "y", "loss": "mean_squared_error", "folds": 200}
    monkeypatch.setattr("gpubp.system.free.available", lambda device: 3_000_000)
    told = "each of folds 200 needs 3.52 MB; 3 MB are free: fewer folds, or scale none (--scale none), which needs no"
    with pytest.raises(DataError, match=re.escape(told)):
        gpubp.load_data(tmp_path / "a.csv", **settings)
    assert len(gpubp.load_data(tmp_path / "a.csv", scale="none", **settings).training.parts) == 200
