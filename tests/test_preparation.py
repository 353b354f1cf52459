"""preparation.py: what is learned about data from their training part."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gpubp.errors import ConfigError, DataError
from gpubp.raw.fitting import fit
from gpubp.raw.text import MANY, Reading
from gpubp.samples.sources import load_data

from .files import Write, refused, table


@pytest.mark.parametrize(
    ("column", "loss", "task"),
    [
        ("a\nb\n", "cross_entropy", "classes"),
        ("5\n2\n", "cross_entropy", "classes"),
        ("true\nfalse\n", "cross_entropy", "classes"),
        ("5.0\n2.0\n", "cross_entropy", "classes"),
        ("1.0\n2.0\n3.0\n" * 5, "cross_entropy", "classes"),
        ("5.5\n2.0\n", "mean_squared_error", "numbers"),
        ("1\n2\n3\n" * 4, "mean_squared_error", "numbers"),
        ("".join(f"{1000 * price}\n" for price in range(25)), "mean_squared_error", "numbers"),
        ("".join(f"{price}\n" for price in range(101)) * 5, "mean_squared_error", "numbers"),
    ],
)
def test_text_truth_values_and_few_whole_numbers_are_classes(write: Write, column: str, loss: str, task: str) -> None:
    lines = "".join(f"1,{value}\n" for value in column.split())
    path = write("a.csv", "x,y\n" + lines)
    data = load_data(path, target="y", validation=0)
    assert (data.loss, data.preparation.task) == (loss, task)
    other = "regression" if task == "classes" else "classification"
    offered = data.about[2].endswith(f"; task {other} (--task) overrides this")
    with nullcontext() if offered else pytest.raises(DataError):
        load_data(path, target="y", validation=0, task=other)


def test_the_task_and_its_reason_are_reported_and_can_be_overridden(write: Write) -> None:
    path = write("a.csv", "x,y\n" + "0,7\n1,8\n0,9\n" * 5)
    data = {task: load_data(path, target="y", task=task) for task in (None, "classification", "regression")}
    assert [each.loss for each in data.values()] == ["cross_entropy", "cross_entropy", "mean_squared_error"]
    assert data[None].about == (
        f"{path}: 15 samples, 12 for training, 3 held out",
        "1 input; numbers, scale standard: x",
        "target: y; task: classification, 3 classes (7, 8, 9); loss: cross_entropy, as y holds 3 different whole "
        "numbers in 15 samples; task regression (--task) overrides this",
    )
    assert data["regression"].about[2] == (
        "target: y; task: regression; loss: mean_squared_error, usual for regression"
    )
    assert load_data(path, target="y", loss="huber").about[2].endswith("task: regression; loss: huber, as requested")
    assert load_data("xor", task="regression").loss == "mean_squared_error"
    assert load_data("xor", task="classification").loss == "binary_cross_entropy"
    for task, loss in (("regression", "cross_entropy"), ("classification", "huber")):
        with pytest.raises(ConfigError, match=f"loss '{loss}' is one of .*, task '{task}'; give one of the two"):
            load_data(path, target="y", task=task, loss=loss)
    with pytest.raises(ConfigError, match="task 'clasification' is unknown; did you mean 'classification'"):
        load_data(path, target="y", task="clasification")


def test_the_reading_of_columns_is_reported(write: Write) -> None:
    rows = "".join(f"{n};red;$5;01.02.20{n:02};{n}\n" for n in range(20, 40))
    path = write("a.csv", "id;colour;cost;day;y\n" + rows)
    reading = Reading(drop=("cost",), dates={"day": ""})
    assert load_data(path, target="y", reading=reading, scale="minmax").about[1:] == (
        "read: delimiter ';'; cost left out; day in days since 1970, dates as %d.%m.%Y",
        "3 inputs; numbers, scale minmax: id, day; texts, an input per category: colour (1)",
        "target: y; task: regression; loss: mean_squared_error, as y holds 20 different whole numbers in 20 samples, "
        "too many for classes; task classification (--task) overrides this",
        "targets are not scaled; scale_targets standard (--scale-targets) trains on mean 0 and variance 1, and "
        "predicts in their units",
        "id numbers the samples; Reading(drop=...) or --drop id leaves it out",
    )
    assert load_data("diabetes").about[0].endswith("in raw units, those of scikit-learn's load_diabetes(scaled=False)")


@pytest.mark.parametrize(
    ("labels", "classes"), [(["b", "a", "b"], ("a", "b")), ([10, 9, 10], (9, 10)), ([True, False, True], (False, True))]
)
def test_classes_are_sorted_encoded_by_the_loss_and_decoded(labels: list[Any], classes: tuple[Any, ...]) -> None:
    raw = table({"x": [1, 2, 3], "y": labels})
    learned = {loss: fit(raw, loss) for loss in ("cross_entropy", "binary_cross_entropy", "hinge")}
    assert all(each.classes == classes for each in learned.values())
    assert learned["cross_entropy"].targets(raw).tolist() == [1, 0, 1]
    assert learned["binary_cross_entropy"].targets(raw).tolist() == [[1.0], [0.0], [1.0]]
    assert learned["hinge"].targets(raw).tolist() == [[1.0], [-1.0], [1.0]]
    assert [each.width_out for each in learned.values()] == [2, 1, 1]
    two, one = torch.tensor([[[0.0, 1], [3, 2], [0, 1]]]), torch.tensor([[[0.5], [-0.5], [0.5]]])
    assert learned["cross_entropy"].decode(two).tolist() == [labels]
    assert learned["binary_cross_entropy"].decode(one.sigmoid()).tolist() == [labels]
    assert learned["hinge"].decode(one.requires_grad_()).tolist() == [labels]
    assert torch.equal(learned["cross_entropy"].outputs(two), two)


def test_whole_floats_may_be_classes_and_shares_may_be_binary_targets() -> None:
    raw = table({"x": [1, 2], "y": [1.0, 3.0]})
    assert fit(raw, "cross_entropy").classes == (1, 3)
    assert fit(raw, "cross_entropy").targets(raw).tolist() == [0, 1]
    shares = table({"x": [1, 2], "y": [0.25, 1.0]})
    assert fit(shares, "binary_cross_entropy").targets(shares).tolist() == [[0.25], [1.0]]
    several = table({"x": [1, 2], "y": [0, 1], "z": [True, False]}, ("y", "z"))
    assert fit(several, "binary_cross_entropy").targets(several).tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("targets", "loss", "message"),
    [
        ({"y": [0.5, 1.0]}, "cross_entropy", "targets y hold 0.5; loss 'cross_entropy' needs classes"),
        ({"y": [1.5, 0.0]}, "binary_cross_entropy", "targets y hold 1.5; loss 'binary_cross_entropy' needs classes"),
        ({"y": ["a", "a"]}, "cross_entropy", "classes a in the training part; loss 'cross_entropy' needs two or more"),
        ({"x": [1, 2, 3], "y": [1, 2, 3]}, "binary_cross_entropy", "classes 1, 2, 3 in the training part; loss 'b"),
        ({"y": ["a", "a"]}, "hinge", "classes a in the training part; loss 'hinge' needs two"),
        ({"y": ["a", "b"]}, "mean_squared_error", "column 'y' holds text, this loss needs numbers"),
        ({"y": [1, 2], "z": [1, 2]}, "cross_entropy", "targets y, z: loss 'cross_entropy' needs one column of classes"),
        ({"y": ["a", None]}, "cross_entropy", "column 'y' lacks 1 of 2 values, the first in sample 1; targets are not"),
        ({"y": [np.nan, 1]}, "huber", "column 'y' lacks 1 of 2 values, the first in sample 0; targets are not imputed"),
        ({"y": [np.inf, 1]}, "huber", "column 'y' holds inf in sample 0, one of 1; finite numbers expected"),
        ({"y": [-np.inf, 1]}, "hinge", "column 'y' holds -inf in sample 0, one of 1; finite numbers expected"),
    ],
)
def test_targets_that_the_loss_cannot_use_are_refused(targets: dict[str, list[Any]], loss: str, message: str) -> None:
    with refused(message):
        fit(table({"x": [1, 2], **targets}, tuple(name for name in targets if name != "x")), loss)


def test_a_class_that_training_did_not_have_is_refused() -> None:
    raw = table({"x": [1, 2, 3], "y": ["a", "b", "c"]})
    with refused("column 'y' has class 'c' in sample 2, not one of the training part: a, b; try another seed"):
        fit(raw, "cross_entropy", rows=np.array([0, 1])).targets(raw)


def test_scaled_targets_are_predicted_in_their_units() -> None:
    raw = table({"x": [1, 2], "y": [10.0, 30.0], "z": [5.0, 5.0]}, ("y", "z"))
    learned = fit(raw, "mean_squared_error", scale_targets="standard")
    assert learned.targets(raw).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    out = torch.tensor([[0.5, 1.0]])
    assert learned.outputs(out).tolist() == learned.decode(out).tolist() == [[25.0, 6.0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"loss": loss, "scale_targets": "standard"}, f"'standard': loss '{loss}' needs unscaled targets")
          for loss in ("cross_entropy", "binary_cross_entropy", "hinge", "poisson")),
        ({"loss": "hinge", "scale_targets": "minmx"}, "scale_targets 'minmx' is unknown"),
        *(({"scale": scale}, "allowed: minmax, none, standard, or a number above 0 to divide by")
          for scale in ("standart", "0", -1, "inf", "nan", True, None)),
        ({"impute": "meen"}, "impute 'meen' is unknown; did you mean 'mean'"),
    ],
)  # fmt: skip
def test_settings_that_there_are_not_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(table({"x": [1, 2], "y": [0, 1]}), **{"loss": "huber", **given})


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [1.0, 3.0, 100.0]),
        ("standard", [-1.0, 1.0, 98.0]),
        ("minmax", [0.0, 1.0, 49.5]),
        ("16", [1 / 16, 3 / 16, 6.25]),
        (2, [0.5, 1.5, 50.0]),
    ],
)
def test_scaling_is_learned_from_the_training_part_alone(scale: str | float, expected: list[float]) -> None:
    raw = table({"x": [1, 3, 100], "y": [10.0, 30.0, 100.0]})
    learned = fit(raw, "mean_squared_error", rows=np.array([0, 1]), scale=scale, scale_targets="standard")
    assert learned.inputs(raw)[:, 0].tolist() == expected
    assert learned.targets(raw).tolist() == [[-1.0], [1.0], [8.0]]


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_a_constant_column_becomes_zero(scale: str) -> None:
    raw = table({"x": [0.1] * 3, "y": [0.5, 1.5, 2.5]})
    assert fit(raw, "huber", scale=scale).inputs(raw).tolist() == [[0.0]] * 3


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_a_column_too_wide_to_scale_is_refused(scale: str) -> None:
    with refused(f"column 'x' holds -1.7e+308 to 1.7e+308, which 64 bits cannot scale by '{scale}'"):
        fit(table({"x": [1.7e308, -1.7e308], "y": [0.5, 1.5]}), "huber", scale=scale)


@pytest.mark.parametrize(("impute", "expected"), [("mean", 4.0), ("median", 2.0)])
def test_missing_values_are_filled_with_what_training_shows(impute: str, expected: float) -> None:
    x, colour = [1.0, 2.0, 9.0, np.nan, 1000.0], ["red", "blue", "blue", None, "red"]
    raw = table({"x": x, "colour": colour, "y": [0.5, 1.5, 2.5, 3.5, 4.5]})
    learned = fit(raw, "huber", rows=np.array([0, 1, 2, 3]), impute=impute)
    assert learned.inputs(raw)[3].tolist() == [expected, 1.0, 0.0]
    assert [column.fill for column in learned.columns] == [expected, "blue"]


def test_missing_truth_values_and_whole_numbers_are_filled(write: Write) -> None:
    text = "x,flag,y\n1,true,0.5\n,false,1.5\n3,,2.5\n"
    data = load_data(write("a.csv", text), target="y", impute="mean", scale="none", validation=0)
    assert data.training.inputs.tolist() == [[1, 1], [2, 0], [3, 0.5]]


def test_a_target_is_not_offered_to_be_left_out(write: Write, tmp_path: Path) -> None:
    texts = "".join(f"{n},name{n}\n" for n in range(20)), "".join(f"{n},{n}.5%\n" for n in range(20)) + "1,-\n2,$3\n"
    days = "".join(f"{n},2020-01-{n + 1:02}\n" for n in range(20))
    pq.write_table(pa.table({"x": [1.0], "y": [[1]]}), tmp_path / "lists.parquet")
    paths = [write(f"{n}.csv", "x,y\n" + rows) for n, rows in enumerate((*texts, days))]
    for path in (*paths, tmp_path / "lists.parquet"):
        for target, offered in (("y", False), ("x", True)):
            with pytest.raises(DataError, match="column 'y' holds") as error:
                load_data(path, target=target, validation=0)
            assert ("Reading(drop=...) or --drop y leaves it out" in str(error.value)) == offered


def test_a_column_without_values_cannot_be_filled(write: Write) -> None:
    with refused("column 'x' has no value in the training part; drop it"):
        load_data(write("a.csv", "x,y\n,a\n,b\n"), target="y", impute="median", validation=0)


def test_infinity_is_refused_even_outside_the_training_part() -> None:
    raw = table({"x": [1.0, 2.0, -np.inf], "y": [0.5, 1.5, 2.5]})
    with refused("column 'x' holds -inf in sample 2, one of 1; finite numbers expected"):
        fit(raw, "huber", rows=np.array([0, 1]), impute="mean")


def test_many_categories_are_accepted_on_request(write: Write) -> None:
    path = write("a.csv", "my x,y\n" + "".join(f"text {number % (MANY + 1)},0.5\n" for number in range(200)))
    asked = f"column 'my x' holds {MANY + 1} different texts in 200 samples, such as 'text 0'; are they names or"
    with refused(
        asked + " measurements? Reading(text=...) or --text 'my x' keeps them as texts, "
        "Reading(drop=...) or --drop 'my x' leaves it out"
    ):
        load_data(path, target="y")
    assert load_data(path, target="y", validation=0, reading=Reading(text=("my x",))).widths_in == MANY + 1


def test_a_column_of_all_different_texts_is_questioned(write: Write) -> None:
    path = write("a.csv", "name,y\n" + "".join(f"N{number},{number}.5\n" for number in range(10)))
    with refused("column 'name' holds 10 different texts in 10 samples, such as 'N0'; are they names or measurements"):
        load_data(path, target="y")
    with refused("column 'name' holds 10 different texts in 10 samples"):
        load_data(path, target="name")
    assert load_data(path, target="y", validation=0, reading=Reading(text=("name",))).widths_in == 10


ROUNDED = {
    "float64": (np.array([0.3, 0.1 * 3]), np.array([1.0, 1 + 1e-9])),
    "float32": (np.array([0.3, np.nextafter(np.float32(0.3), np.float32(1))], np.float32), np.array([0.25, 0.25001])),
    "large": (np.array([1e12 + 0.1, 1e12 + 0.1002]), np.array([1e12 + 1, 1e12 + 2])),
    "whole": (np.array([1e17, 1e17 + 16]), np.array([8388609.0, 8388610.0])),
    "whole float32": (np.array([0.3, 0.1 * 3]), np.array([8388609.0, 8388610.0], np.float32)),
    "half days": (np.array([0.3, 0.1 * 3]), np.array([2459000.5, 2459001.0])),
    "quarters": (np.array([0.3, 0.1 * 3]), np.array([2e6, 2e6 + 0.25])),
    "seconds since 1970": (np.array([0.3, 0.1 * 3]), np.array([1.7e9, 1.7e9 + 1e-4])),
    "written from float32": (np.array([0.3, 0.1 * 3]), np.array([0.30000001192092896, 0.3])),
}


@pytest.mark.parametrize("scale", ["standard", "minmax"])
@pytest.mark.parametrize("kind", ROUNDED)
def test_a_column_of_one_number_rounded_differently_is_shifted_alone_and_named(
    kind: str, scale: str, tmp_path: Path
) -> None:
    same, others = (np.tile(values, 50) for values in ROUNDED[kind])
    frame = pa.table({"one": same, "some": others, "y": same})
    pq.write_table(frame, tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet", "y", "mean_squared_error", scale=scale, scale_targets="standard")
    one, some = data.preparation.columns
    assert (one.factor, data.preparation.target_columns[0].factor) == (1, 1)
    assert 0 < some.factor < 1 or scale == "minmax"
    about = "is one number, rounded differently, in all training samples: it is not scaled"
    assert [each for each in data.about if "rounded" in each] == [f"one {about}", f"y {about}"]


def test_targets_of_two_neighbours_in_float32_are_scaled_if_given_as_float64() -> None:
    days = np.tile([2459000.5, 2459001.0], 50)
    learned = fit(table({"x": np.arange(100.0), "y": days}), "mean_squared_error", scale_targets="standard")
    assert learned.target_columns[0].factor == 0.25
