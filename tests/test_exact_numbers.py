"""Numbers are held as they are or refused: whole ones, those beside half precision, what a type cannot hold."""

import re
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.errors import DataError


@pytest.mark.parametrize(
    ("inputs", "target", "square"),
    [
        (torch.ones(1, 1).half(), torch.tensor([[1234.567]], dtype=torch.float64), 1233.567**2),
        (torch.ones(1, 1).bfloat16(), torch.tensor([[257.0]]), 256.0**2),
        (torch.ones(1, 1), torch.tensor([[16777217.0]], dtype=torch.float64), 16777216.0**2),
        (torch.tensor([[2**24 + 1]]), torch.tensor([[2.0**24]]).double(), 1.0),
        (torch.ones(1, 1).half(), torch.tensor([[1e5]]).double(), 99999.0**2),
    ],
)
def test_targets_and_whole_numbers_are_not_rounded_to_the_type_of_the_inputs(
    inputs: torch.Tensor, target: torch.Tensor, square: float
) -> None:
    one = gpubp.Population(
        gpubp.NetworkSpec((1, 1), bias="none"), torch.ones(1, 1).double(), 0, torch.zeros(1, dtype=torch.int64)
    )
    config = gpubp.TrainConfig("sgd", lr=0.0, steps=1)
    result = gpubp.train(one, gpubp.Dataset(inputs, target), config, engine="eager")
    assert float(result.loss) == pytest.approx(square, rel=1e-15)


LOST = 2**24 + 1  # the least whole number that float32 cannot hold


def dataset_of(name: str, values: Any, **more: Any) -> gpubp.Dataset:
    given = {"inputs": torch.ones(2, 1), "targets": torch.ones(2, 1), **more, name: values}
    return gpubp.Dataset(**given)


@pytest.mark.parametrize("name", ["inputs", "targets", "sample_weight"])
def test_whole_numbers_are_held_exactly_or_refused(name: str) -> None:
    values = np.array([[3], [LOST]]) if name != "sample_weight" else np.array([3, LOST])
    place = "[1, 0]" if name != "sample_weight" else "[1]"
    wide = dataset_of(name, values).to(torch.device("cpu"), torch.float64)
    assert getattr(wide, name).tolist() == values.tolist()
    for dtype, most in ((torch.float32, LOST), (torch.float64, 2**53 + 1)):
        lost = re.escape(f"{name}{place} is {most}, one of 1 whole numbers that float{8 * dtype.itemsize} cannot hold")
        with pytest.raises(DataError, match=lost):
            dataset_of(name, np.where(values == 3, 3, most)).to(torch.device("cpu"), dtype)
    rounded = dataset_of(name, values.astype(np.float64)).to(torch.device("cpu"), torch.float32)
    assert getattr(rounded, name).flatten().tolist() == [3.0, LOST - 1.0], "floats are rounded, as ever"


def test_weights_whose_sum_overflows_are_refused() -> None:
    weight = torch.tensor([3e38, 3e38], dtype=torch.float64)
    data = dataset_of("sample_weight", weight)
    with pytest.raises(DataError, match="infinite sum as torch"):
        data.to(torch.device("cpu"), torch.float32)


def test_a_population_refuses_inputs_as_a_dataset_does() -> None:
    spec = gpubp.NetworkSpec((1, 1), bias="none")
    one = gpubp.Population(spec, torch.full((1, 1), 2.0), 0, torch.tensor([0]))
    with pytest.raises(DataError, match=rf"inputs\[1, 0\] is {LOST}, one of 1 whole numbers that float32"):
        one.predict(torch.tensor([[1], [LOST]]))
    with pytest.raises(DataError, match=r"inputs\[1, 0\] is nan"):
        one.predict([[1.0], [float("nan")]])
    with pytest.raises(DataError, match=r"as torch.float32, inputs\[0, 0\] is inf"):
        one.predict(torch.tensor([[1e300]], dtype=torch.float64))
    assert one.predict([[True]]).item() == 2
    assert one.predict(torch.tensor([[3e38]])).isinf().all(), "outs may be infinite"


def test_floats_of_eight_bits_are_refused() -> None:
    with pytest.raises(DataError, match=r"inputs holds torch.float8_e4m3fn; torch.float64, .* expected"):
        gpubp.Dataset(torch.ones(1, 1).to(torch.float8_e4m3fn), torch.ones(1, 1))
