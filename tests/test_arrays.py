"""What a person hands over is read by position: masks select, whole numbers index, and what is neither is refused."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import gpubp
from gpubp.errors import ConfigError, DataError, GpubpError, ShapeError
from gpubp.populations import Populations
from gpubp.system import arrays

from .helpers import population, same_bits, samples

SPEC = gpubp.NetworkSpec((2, 3, 1))
INPUTS, TARGETS = samples(SPEC, 6)
MASKED = np.ma.masked_equal(np.arange(12.0).reshape(6, 2), 3)
SHOP = torch.tensor([0, 2, 1, 0, 2, 2])


def series(values: Any) -> pd.Series:
    """Under labels in another order, as a data frame's column has them after a filter: [0] is a label."""
    return pd.Series(values, index=[3, 0, 7, 1, 5, 2][: len(values)])


def masked(kind: Callable[[torch.Tensor], Any]) -> gpubp.Dataset:
    return gpubp.Dataset(INPUTS, TARGETS, rows=[kind(shop == SHOP) for shop in range(3)])


KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "tensor": lambda mask: mask,
    "numpy": lambda mask: mask.numpy(),
    "list": lambda mask: mask.tolist(),
    "series": lambda mask: series(mask.numpy()),
    "objects": lambda mask: series(mask.numpy().astype(object)),
    "indices": lambda mask: mask.nonzero()[:, 0],
    "int8": lambda mask: mask.nonzero()[:, 0].to(torch.int8),
    "unsigned": lambda mask: mask.nonzero()[:, 0].numpy().astype(np.uint16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_the_samples_selects_and_whole_numbers_index(kind: str) -> None:
    data = masked(KINDS[kind])
    found = [rows.tolist() for rows in data.parts]
    assert found == [[0, 3], [2], [1, 4, 5]]


WRONG: dict[str, tuple[Any, type[GpubpError], str]] = {
    "floats": ([[0.0, 1.0]], DataError, r"rows\[0\]: float64 \(2,\); whole numbers, each a row, or a mask of 6"),
    "a short mask": ([[True, False]], ShapeError, r"rows\[0\]: a mask of 2 truth values; 6, one per row, expected"),
    "a mixture": ([[True, 2, 0, 0, 0, 0]], DataError, r"rows\[0\]: truth values and numbers; whole numbers"),
    "two dimensions": ([[[0, 1]]], ShapeError, r"rows\[0\]: int64 \(1, 2\); whole numbers, each a row"),
    **{f"one mask for all, {name}": (kind(SHOP == 0), ShapeError, r"rows is a \w+ of single values; a list with a mask")
       for name, kind in KINDS.items()},
    "no list": (3, ShapeError, "rows is a int of single values"),
    "a number of NumPy's": (np.float32(3), ShapeError, "rows is a ndarray of single values"),
    "a negative row": ([[0, -1]], DataError, r"rows\[0\] -1: a row from 0 to 5 expected"),
    "a row too far": ([[0], [6, 2]], DataError, r"rows\[1\] 6: a row from 0 to 5 expected"),
    "a mask of none": ([[0], [False] * 6], DataError, r"rows\[1\] selects none of 6 samples; one or more expected"),
    "text": ([["0"]], DataError, r"rows\[0\] holds str '0' at \[0\]; numbers of at most 64 bits"),
    "a dict": ({0: [1]}, DataError, r"rows is a dict; a list in the order of the networks, such as list\(rows.values"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_neither_masks_nor_indices_are_refused(name: str) -> None:
    rows, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        gpubp.Dataset(INPUTS, TARGETS, rows=rows)


def test_rows_of_a_population_are_taken_by_a_mask_and_from_the_end_as_in_a_list() -> None:
    networks = population(SPEC, 4)
    mask = [False, True, False, True]
    for index in (mask, torch.tensor(mask), np.array(mask), [1, 3], [1, -1], range(1, 4, 2), slice(1, None, 2)):
        taken = networks.take(index)
        assert taken.ids.tolist() == [1, 3]
        assert same_bits(taken.params, networks.params[1::2])
    assert len(networks.take([])) == 0
    copied = networks.copy_rows([0, 0], [False, True, False, True])
    assert same_bits(copied.params, networks.params[[0, 0, 2, 0]])
    assert same_bits(networks.network(-1)[0].weight.T.flatten(), networks.params[3, :6])


@pytest.mark.parametrize("index", [True, False, 0.5, "a", [0], slice(1)], ids=repr)
def test_a_network_has_a_row_that_is_a_whole_number(index: Any) -> None:
    for networks in (population(SPEC, 1), Populations.of(population(SPEC, 1))):
        with pytest.raises(ShapeError, match=r"^network\(.*\): a whole number, the network's row, expected$"):
            networks.network(index)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("take", [[True, False]], "take: a mask of 2 truth values; 4, one per row, expected"),
        ("take", [[0.0, 1.0]], r"take: float64 \(2,\); whole numbers, each a row, or a mask of 4 truth values"),
        ("take", [2], r"take: int64 \(\); whole numbers, each a row"),
        ("take", [[4]], "take 4: a row from 0 to 3, or from -4 to -1 from the end, expected"),
        ("take", [[-5]], "take -5: a row from 0 to 3, or from -4 to -1 from the end, expected"),
        ("copy_rows", [[0, 1], [2, -2]], "copy_rows: target has a row twice"),
        ("copy_rows", [[0], [True, False, True, False]], "source of 1 rows, target of 2: equal lengths expected"),
    ],
)
def test_rows_that_a_population_does_not_have_and_two_sources_of_one_are_refused(
    name: str, given: list[Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        getattr(population(SPEC, 4), name)(*given)


@pytest.mark.parametrize("ids", [[True, False], [0.0, 1.0], ["a"], {1: 2}, [[1, 2]], [-1], []])
def test_ids_that_are_not_whole_numbers_are_refused(ids: Any) -> None:
    with pytest.raises(ConfigError, match="ids"):
        gpubp.Population.create(SPEC, ids=ids)


def test_numbers_of_other_libraries_are_numbers() -> None:
    given = gpubp.Population.create(SPEC, np.int64(3), seed=np.int32(3))  # type: ignore[arg-type]
    assert same_bits(given.params, gpubp.Population.create(SPEC, 3, seed=3).params)
    assert type(given.seed) is int
    for ids in ({0, 1, 2}, range(3), np.arange(3, dtype=np.uint8), (each for each in range(3))):
        assert same_bits(gpubp.Population.create(SPEC, ids=ids, seed=3).params, given.params)
    config = gpubp.TrainConfig(lr=np.float64(0.1), l2=np.logspace(-3, -1, 3), steps=np.int64(3), batch_size=np.int8(2))
    assert [type(each) for each in (config.lr, config.l2, config.steps, config.batch_size)] == [
        float, torch.Tensor, int, int
    ]  # fmt: skip


def test_values_are_read_by_position_and_never_by_label() -> None:
    values = [0.1, 0.2, 0.3]
    assert arrays.tensor("x", series(values)).tolist() == values
    weighted = gpubp.Dataset(INPUTS[:3], series([1.0, 2.0, 3.0]).to_frame(), sample_weight=series([1.0, 2.0, 3.0]))
    assert weighted.targets.flatten().tolist() == [1, 2, 3]
    assert weighted.sample_weight.tolist() == [1, 2, 3]
    columns = gpubp.TrainConfig(lr=series(values), steps=series([1, 2, 3])).columns(SPEC, 3, torch.device("cpu"))
    assert columns["lr"].flatten().tolist() == values
    scaled = gpubp.Population.create(SPEC, 3, init_scale=series(values))
    expected = gpubp.Population.create(SPEC, 3, init_scale=torch.tensor(values, dtype=torch.float64))
    assert same_bits(scaled.params, expected.params)


def test_a_list_of_tensors_or_columns_is_a_table() -> None:
    for parts in ([torch.ones(2), torch.zeros(2).requires_grad_()], [series([1.0, 1.0]), series([0.0, 0.0])]):
        assert arrays.tensor("inputs", parts).tolist() == [[1, 1], [0, 0]]
    assert arrays.tensor("ids", [torch.tensor(3), torch.tensor(1)]).tolist() == [3, 1]


def test_columns_of_several_types_are_numbers_where_each_is_one() -> None:
    frame = pd.DataFrame({"a": [True, False], "b": [1.5, 2]})
    assert arrays.tensor("inputs", frame).tolist() == [[1, 1.5], [0, 2]]
    with pytest.raises(DataError, match=r"inputs holds str 'red' at \[1, 1\]; numbers of at most 64 bits"):
        arrays.tensor("inputs", np.array([[True, 1.5], [False, "red"]], dtype=object))
    with pytest.raises(DataError, match=r"inputs holds NoneType None at \[0\]; numbers"):
        arrays.tensor("inputs", [None, 1.0])


def test_numbers_of_numpy_in_every_place_raise_no_warning(tmp_path: Any) -> None:
    frozen = INPUTS.numpy().copy()
    frozen.setflags(write=False)
    rates = np.broadcast_to(np.float64(0.1), 3)
    data = gpubp.Dataset(frozen, frozen[:, :1], sample_weight=np.broadcast_to(np.float32(1), 6))
    config = gpubp.TrainConfig(
        lr=rates, l2=np.float64(0.1), dropout=np.array(0.1), steps=np.int64(2), batch_size=np.uint8(3),
        evaluate_every=np.int32(1), clip_norm=np.float32(1),
    )  # fmt: skip
    networks = gpubp.Population.create(SPEC, np.int64(3), np.uint32(5), init_scale=rates)  # type: ignore[arg-type]
    result = gpubp.train(
        networks, data, config, data, "eager", run_dir=tmp_path / "run", checkpoint_minutes=np.float32(1)
    )
    loaded = gpubp.load(tmp_path / "run")
    assert loaded.predict(frozen, np.array([2])).shape == (6, 1)
    assert loaded.predict(frozen, np.int64(2)).shape == (6, 1)
    assert loaded.network(np.int64(0))(torch.from_numpy(frozen.copy()).float()).shape == (6, 1)
    prepared = gpubp.load_data("iris", scale=np.float64(2), validation=np.float32(0.25), seed=np.int16(1))
    assert result.statuses["finished"] == 3
    assert prepared.settings == {"scale": "2", "scale_targets": "none", "validation": 0.25}


def test_real_accepts_one_finite_number_from_any_library() -> None:
    for one in (0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), Decimal("0.5"), Fraction(1, 2)):
        assert arrays.real(one) == 0.5
    truths, numbers = (True, np.True_, torch.tensor(True)), (math.nan, math.inf, 10**400, 1j)
    for other in (*truths, *numbers, "0.5", b"1", None, [0.5], np.ones(2)):
        assert arrays.real(other) is None


def test_read_only_memory_is_copied_without_a_warning() -> None:
    frozen = np.ones((3, 2))
    frozen.setflags(write=False)
    for array in (frozen, np.arange(4.0)[::-1], np.arange(3, dtype=">f4")):
        assert arrays.tensor("x", array).tolist() == array.tolist()
    own = np.ones(3)
    assert arrays.tensor("x", own).data_ptr() == own.ctypes.data, "what can be shared is"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpubp.TrainConfig(steps=1, lr=[True, False]), "lr .*: a number, or N numbers, expected"),
        (lambda: gpubp.TrainConfig(steps=1, lr="0.1"), "lr is a str; an ordered list"),
        (lambda: gpubp.TrainConfig(steps=2**63), "steps holds 9223372036854775808; numbers of at most 64 bits, with a"),
        (lambda: gpubp.TrainConfig(steps=1, class_weight={0: 1.0}), "class_weight is a dict; a number per class exp"),
        (lambda: gpubp.TrainConfig(steps=1, class_weight=[True, False]), r"class_weight \[True, False\]: numbers of 0"),
        (lambda: gpubp.TrainConfig(steps=1, extra=[1]), r"extra \[1\]: a dict of hyper-parameters by name expected"),
        (lambda: gpubp.TrainConfig(steps=1, lr={0.1, 0.2}), "lr is a set; an ordered list"),
        (lambda: gpubp.TrainConfig(steps=1, lr=torch.ones(2, device="meta")), "lr holds .* on meta; plain numbers"),
        (lambda: gpubp.Dataset(MASKED, TARGETS), "inputs holds masked values; numbers everywhere expected"),
        (lambda: gpubp.Population.create(SPEC, 2, init_scale=True), "init_scale holds truth values; numbers expected"),
        (lambda: gpubp.Population.create(SPEC, 10**12), "count 1000000000000: at most 4,294,967,295 expected"),
        (lambda: gpubp.Dataset(INPUTS, TARGETS, sample_weight=["1"] * 6), "sample_weight holds str '1' at"),
        (lambda: gpubp.Dataset(INPUTS, TARGETS, sample_weight=torch.ones(6, 1)), r"sample_weight \(6, 1\): \(6,\), or"),
    ],
)
def test_values_that_are_not_numbers_are_refused_with_the_name_of_their_argument(call: Any, message: str) -> None:
    with pytest.raises(GpubpError, match=message):
        call()


def test_tensors_that_require_gradients_train_like_others(tmp_path: Any) -> None:
    networks, config = population(SPEC, 2), gpubp.TrainConfig(steps=3, batch_size=6)
    expected = gpubp.train(networks, gpubp.Dataset(INPUTS, TARGETS), config, engine="eager")
    asking = gpubp.Dataset(INPUTS.clone().requires_grad_(), TARGETS.clone().requires_grad_())
    own = gpubp.Population(SPEC, torch.nn.Parameter(networks.params.clone()), networks.seed, networks.ids)
    result = gpubp.train(own, asking, config, engine="eager", run_dir=tmp_path / "run", inplace=True)
    assert same_bits(result.population.params, expected.population.params)
    assert same_bits(own.params, expected.population.params)
