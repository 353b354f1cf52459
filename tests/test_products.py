"""Products of matrices keep a network's bits, and where this machine's BLAS does not, sums in order take its place."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from gpubp.maths.numerics import keeps_bits, kernel_widths, padded, product, product_in_order

from .helpers import covering, generator, same_bits, threads
from .tolerances import PRODUCT

DTYPES = [torch.float32, torch.float64]


def shapes() -> Iterator[tuple[int, int, int]]:
    """(B, I, O): B samples, I inputs, O outputs."""
    yield from ((32, 64, 32), (32, 32, 10), (64, 8, 16), (1, 2, 2), (1, 64, 10), (7, 784, 16), (3, 100, 1), (50, 1, 50))
    source = generator(0)
    for _ in range(8):
        yield tuple(int(torch.randint(1, high, (), generator=source)) for high in (70, 130, 70))


def places(count: int) -> Iterator[Tensor]:
    for size in (1, 2, 3, 5):
        yield torch.arange(count - size, count)
    yield torch.arange(count).flip(0)
    yield torch.randperm(count, generator=generator(count))
    yield torch.tensor([4, 0, 4, 2])


@pytest.mark.parametrize(("shape", "dtype"), covering(shapes(), DTYPES, meet=1))
def test_a_product_has_the_same_bits_among_any_networks(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """The three products of a layer, at the widths that kernel_widths chooses."""
    batch, inputs, outputs = shape
    source, count = generator(batch * inputs), 19
    wide_in, wide_out = kernel_widths((inputs, outputs), batch)

    def matrices(rows: int, columns: int, wide_rows: int, wide_columns: int) -> Tensor:
        inner = torch.randn(count, rows, columns, generator=source).to(dtype)
        return pad(inner, (0, wide_columns - columns, 0, wide_rows - rows))

    below, weight = matrices(batch, inputs, batch, wide_in), matrices(inputs, outputs, wide_in, wide_out)
    delta = matrices(batch, outputs, batch, wide_out)
    bias = torch.randn(count, wide_out, generator=source).to(dtype)

    def three(rows: Tensor, view: bool = False) -> list[Tensor]:
        own = rows if len(rows) > 1 else rows.expand(2)
        left, right, top, add = (
            each[own[0] : own[-1] + 1] if view else each[own] for each in (below, weight, delta, bias)
        )
        return [product(left, right, add)[: len(rows)], product(left, right)[: len(rows)],
                product(left.mT, top)[: len(rows)], product(top, right.mT)[: len(rows)]]  # fmt: skip

    whole = three(torch.arange(count))
    for rows in places(count):
        assert all(same_bits(one, other[rows]) for one, other in zip(three(rows), whole)), rows
    assert all(same_bits(one, other[5:12]) for one, other in zip(three(torch.arange(5, 12), view=True), whole))
    for number in (2, 3):
        with threads(number):
            assert all(same_bits(*pair) for pair in zip(three(torch.arange(count)), whole)), number


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize(("batch", "inputs", "outputs"), [(32, 64, 32), (1, 784, 16), (5, 3, 2), (16, 16, 48)])
def test_the_product_in_order_is_the_product(batch: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    source = generator(1)
    left, right = torch.randn(3, batch, inputs, generator=source), torch.randn(3, inputs, outputs, generator=source)
    left, right = left.to(dtype), right.to(dtype)
    for columns in (outputs, 1, 0):
        bias = torch.randn(3, columns, generator=source).to(dtype)
        expected = left.double() @ right.double() + (bias[:, None].double() if columns else 0)
        for multiply in (product, product_in_order):
            torch.testing.assert_close(multiply(left, right, bias).double(), expected, **PRODUCT[str(dtype)[6:]])
    turned = product_in_order(left.mT.contiguous().mT, right.mT.contiguous().mT)
    assert same_bits(turned, product_in_order(left, right)), "its bits do not depend on how the matrices lie"


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A BLAS whose sums depend on how many networks there are."""
    bmm, baddbmm = torch.bmm, torch.baddbmm
    keeps_bits.cache_clear()
    monkeypatch.setattr(torch, "bmm", lambda left, right: bmm(left, right) * (1 + 2**-20 * (len(left) % 3)))
    monkeypatch.setattr(
        torch, "baddbmm", lambda add, left, right: baddbmm(add, left, right) * (1 + 2**-20 * (len(left) % 3))
    )
    yield
    keeps_bits.cache_clear()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
def test_a_product_that_does_not_keep_its_bits_is_noticed(fickle: None, turned: tuple[bool, bool], bias: bool) -> None:
    assert not keeps_bits(32, 64, 16, *turned, bias, torch.float32, "cpu")


@pytest.mark.usefixtures("fickle")
def test_products_fall_back_to_sums_in_order_if_the_blas_cannot_be_trusted() -> None:
    source = generator(2)
    left, right, bias = (torch.randn(7, *shape, generator=source) for shape in ((4, 16), (16, 32), (32,)))
    assert same_bits(product(left, right), product_in_order(left, right))
    whole = product(left, right, bias)
    assert same_bits(whole, product_in_order(left, right, bias))
    for rows in places(7):
        assert same_bits(product(left[rows], right[rows], bias[rows]), whole[rows])


@pytest.mark.parametrize("axis", ["order", "shared"])
def test_other_faults_of_a_blas_are_also_found(axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bmm = torch.bmm

    def by_place(left: Tensor, right: Tensor) -> Tensor:
        return bmm(left, right) * (1 + 2**-20 * (torch.arange(len(left)) == 3))[:, None, None]

    def by_stride(left: Tensor, right: Tensor) -> Tensor:
        return bmm(left, right) * (1 + 2**-20 * (left.stride(0) == 0))

    keeps_bits.cache_clear()
    monkeypatch.setattr(torch, "bmm", by_place if axis == "order" else by_stride)
    assert not keeps_bits(32, 64, 16, False, False, False, torch.float32, "cpu")
    monkeypatch.undo()
    keeps_bits.cache_clear()


def test_this_machines_product_needs_no_fallback_at_common_shapes() -> None:
    """Not a promise but speed: fails where every product would be a slow one."""
    for inputs, outputs in ((64, 32), (32, 16), (784, 128)):
        assert keeps_bits(32, inputs, outputs, False, False, True, torch.float32, "cpu")


def test_kernel_widths_make_every_matrix_a_multiple_of_16_numbers() -> None:
    assert [padded(width) for width in (1, 16, 17, 64)] == [16, 16, 32, 64]
    assert kernel_widths((2, 2, 2), 4) == (2, 2, 2), "a product this small takes a plain loop"
    source = generator(4)
    for _ in range(300):
        widths = tuple(torch.randint(1, 100, (4,), generator=source).tolist())
        batch = int(torch.randint(1, 70, (), generator=source))
        wide = kernel_widths(widths, batch)
        if all(batch * i * o < 400 for i, o in itertools.pairwise(widths)):
            assert wide == widths
            continue
        assert all(w <= v <= padded(w) for w, v in zip(widths, wide))
        assert not any(batch * v % 16 for v in wide)
        assert not any(i * o % 16 for i, o in itertools.pairwise(wide))
