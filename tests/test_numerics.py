"""What keeps the bits, measured again on this machine and this torch: fails where one of them has changed."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.maths import numerics
from gpubp.maths.losses import cross_entropy, cross_entropy_shares
from gpubp.maths.numerics import finite_rows, row_sums

from .helpers import generator, same_bits, threads

DTYPES = [torch.float32, torch.float64]
NETWORKS, NUMBERS, MANY = 5, 83, 20_001  # in two rows: ATen gives threads 32,768 numbers each


def everything() -> Iterator[Any]:
    """(rule, tensors (N, P), columns (N, 1)) for every row of the tables."""
    for name, activation in gpubp.ACTIVATIONS.items():
        yield pytest.param(activation.value, 1, 0, id=f"activation-{name}")
        yield pytest.param(activation.slope, 2, 0, id=f"slope-{name}")
    for name, loss in gpubp.LOSSES.items():
        if not loss.classes:
            yield pytest.param(loss.value, 2, len(loss.defaults), id=f"loss-{name}")
            yield pytest.param(loss.slope, 2, len(loss.defaults), id=f"loss_slope-{name}")
    for name, optimizer in gpubp.OPTIMIZERS.items():
        yield pytest.param(
            optimizer.direction, 1 + len(optimizer.slots), len(optimizer.arguments), id=f"optimizer-{name}"
        )
    for name, schedule in gpubp.SCHEDULES.items():
        if not schedule.events:
            yield pytest.param(schedule.rate, 3, len(schedule.defaults), id=f"schedule-{name}")


@functools.cache
def numbers(full: int, columns: int, length: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors (N, length) around 0 and columns (N, 1) from 0 to 1."""
    source = generator(full)
    wide = [torch.randn(NETWORKS, length, generator=source, dtype=torch.float64) * 2 for _ in range(full)]
    if full > 2:  # slots: squares and the like are not below 0
        wide[1:] = [each.abs() for each in wide[1:]]
    slim = [torch.rand(NETWORKS, 1, generator=source, dtype=torch.float64) * 0.98 + 0.01 for _ in range(columns)]
    return [each.to(dtype) for each in wide], [each.to(dtype) for each in slim]


def results(rule: Callable[..., Any], *tensors: Tensor) -> list[Tensor]:
    found = rule(*tensors)
    return [found] if isinstance(found, Tensor) else list(found)


def differences(rule: Callable[..., Any], full: int, columns: int, dtype: torch.dtype) -> list[str]:
    """The places at which `rule` gives a number other bits than in the middle of a whole tensor."""
    wide, slim = numbers(full, columns, NUMBERS, dtype)
    whole = results(rule, *wide, *slim)
    found = []

    def compare(where: str, given: list[Tensor], expected: list[Tensor]) -> None:
        if not all(same_bits(*pair) for pair in zip(results(rule, *given), expected)):
            found.append(where)

    for rows in (slice(0, 1), slice(2, 3), slice(3, 5), [4, 0, 2], [2]):
        some = [each[rows] for each in (*wide, *slim)]
        compare(f"rows {rows}", some, [each[rows] for each in whole])
        compare(f"rows {rows} as layers", [each[:, None] for each in some], [each[rows][:, None] for each in whole])
    for first, last in ((0, 1), (0, 33), (1, 8), (1, NUMBERS - 1), (15, NUMBERS - 15)):
        part = [each[:, first:last] for each in wide]
        compare(f"columns {first}:{last}", [*part, *slim], [each[:, first:last] for each in whole])
        one = [each[1:2].contiguous() for each in part] + [each[1:2] for each in slim]
        compare(f"a row of {first}:{last}", one, [each[1:2, first:last] for each in whole])
    for column in (0, 7, NUMBERS - 17, NUMBERS - 1):
        one = [each[1:2, column : column + 1].clone() for each in wide] + [each[1:2] for each in slim]
        compare(f"number {column}", one, [each[1:2, column : column + 1] for each in whole])
    compare("every other", [each[:, ::2] for each in wide] + slim, [each[:, ::2] for each in whole])
    compare("turned", [each.T.contiguous().T for each in wide] + slim, whole)
    compare("spread columns", wide + [each.expand_as(wide[0]).contiguous() for each in slim], whole)
    large = [each[:2] for group in numbers(full, columns, MANY, dtype) for each in group]
    expected = results(rule, *large)
    compare("a row of many", [each[1:2] for each in large], [each[1:2] for each in expected])
    with threads(2):
        compare("two threads", large, expected)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize(("rule", "full", "columns"), [*everything()])
def test_a_number_has_the_same_bits_at_every_position(
    rule: Callable[..., Any], full: int, columns: int, dtype: torch.dtype
) -> None:
    assert differences(rule, full, columns, dtype) == []


def test_a_rule_whose_bits_depend_on_its_place_is_found_out() -> None:
    def tail(net: Tensor) -> Tensor:
        out = torch.exp(net)
        out.flatten()[out.numel() // 8 * 8 :] *= 1 + 2**-22
        return out

    assert differences(tail, 1, 0, torch.float32)
    assert differences(lambda net: net - net.mean() * 2**-20, 1, 0, torch.float32)
    assert not differences(torch.exp, 1, 0, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("outputs", [2, 3, 10, 17, 100])
def test_softmax_has_the_same_bits_at_every_position(outputs: int, dtype: torch.dtype) -> None:
    source = generator(outputs)
    out = torch.randn(40, 9, outputs, generator=source).to(dtype) * 5
    target = torch.randint(outputs, (40, 9), generator=source)
    smoothing, weight = (torch.rand(40, *shape, generator=source).to(dtype) for shape in ((1, 1), (outputs,)))

    def both(rows: Any) -> list[Tensor]:
        shares = cross_entropy_shares(out[rows], target[rows], smoothing[rows], weight[rows])
        return [*cross_entropy(out[rows], target[rows]), *cross_entropy(out[rows], target[rows], shares)]

    whole = both(slice(None))
    for rows in (slice(0, 1), slice(39, 40), slice(3, 20), torch.randperm(40, generator=source)):
        for one, other in zip(both(rows), whole):
            assert same_bits(one, other[rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 33), (32, 10), (64, 128), (256, 3), (700, 100)], ids=str)
def test_sums_over_samples_and_outputs_have_the_same_bits_alone_and_among_others(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    net = torch.randn(9, *shape, generator=generator(6)).to(dtype)
    reductions = (lambda x: x.sum(1), lambda x: x.sum(2), lambda x: x.amax(2), lambda x: x.sum(2).sum(1))
    for reduce in reductions:
        whole = reduce(net)
        for rows in (slice(0, 1), slice(8, 9), slice(3, 5), [7, 2, 4]):
            assert same_bits(reduce(net[rows]), whole[rows])
            assert same_bits(reduce(net[rows].clone()), whole[rows])
        for number in (2, 3):
            with threads(number):
                assert same_bits(reduce(net), whole)


@pytest.mark.parametrize("length", [1, numerics.PIECE - 1, numerics.PIECE, 100_000, 1_000_003])
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_a_sum_over_a_row_has_the_same_bits_alone_and_among_others(length: int, dtype: torch.dtype) -> None:
    rows = torch.randn(7, length, generator=generator(3)).to(dtype)
    whole = row_sums(rows)
    torch.testing.assert_close(whole.double(), rows.double().sum(1), rtol=0, atol=length**0.5 * 1e-4)
    for part in (slice(0, 1), slice(6, 7), slice(2, 5), [3, 1]):
        assert same_bits(row_sums(rows[part]), whole[part])
        assert same_bits(row_sums(rows[part].clone()), whole[part])
    for number in (2, 3):
        with threads(number):
            assert same_bits(row_sums(rows), whole)
            assert same_bits(row_sums(rows[:1]), whole[:1])


def test_finite_rows_are_found_even_if_a_sum_overflows() -> None:
    rows = torch.ones(6, 40)
    rows[1, 3], rows[2, 7], rows[3, 0], rows[4, :2] = float("nan"), float("inf"), -float("inf"), 3e38
    assert finite_rows(rows).tolist() == [True, False, False, False, True, True]
    assert finite_rows(rows[4:]).tolist() == [True, True]
    assert finite_rows(rows[:1]).tolist() == [True]
