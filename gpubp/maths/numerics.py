"""The few operations whose bits must not depend on position, neighbours or number of networks.

In torch's batched product, the bits of a matrix depend on its alignment, and on whether it is alone. Cure: every matrix
of a product holds a multiple of 16 numbers, so that all have the same alignment, and there are at least two of them
(measured on torch 2.13, MKL, AVX-512: 280 shapes in float32 and float64, with different N, order, views and thread
counts, without a difference; without the cure a third of the shapes differ). `kernel_widths` chooses such widths,
`product` multiplies. A product whose B I O is below 400 takes ATen's plain loop and needs no cure.

`product` tests the BLAS: it tries the first product of every shape on this machine with different numbers and orders of
networks; if the bits differ, it falls back to a sum of elementwise products in the order of k, slower but
right on every machine. On a GPU there is no test: there every batch has the same size (blocks.fixed).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ALIGN = 16  # numbers: 64 bytes of float32, a cache line and the widest vector
PLAIN = 400  # multiplications; below, ATen takes its plain loop for every N
PIECE = 1 << 14  # numbers; longer rows are summed in pieces, because torch splits them differently at N = 1


def flush(values: Tensor) -> Tensor:
    """`values`, with 0 for those so small that products of them would be denormal (up to 2^26 times the smallest normal
    number): a CPU takes a hundred cycles for a denormal."""
    return torch.nn.functional.hardshrink(values, torch.finfo(values.dtype).tiny * 2.0**26)


def padded(width: int) -> int:
    """`width` rounded up to a multiple of 16."""
    return -(-width // ALIGN) * ALIGN


def kernel_widths(widths: Sequence[int], batch: int) -> tuple[int, ...]:
    """The widths to compute with for B = `batch`: those of the network, rounded up to a multiple of 16 where a matrix
    would not hold a multiple of 16 numbers."""
    if all(batch * i * o < PLAIN for i, o in itertools.pairwise(widths)):
        return tuple(widths)
    wide = [w if batch * w % ALIGN == 0 else padded(w) for w in widths]
    for number in range(1, len(wide)):
        if wide[number - 1] * wide[number] % ALIGN:
            wide[number] = padded(wide[number])
    return tuple(wide)


def product(
    left: Float[Tensor, "N B I"], right: Float[Tensor, "N I O"], bias: Float[Tensor, "N _"] | None = None
) -> Float[Tensor, "N B O"]:
    """left @ right [+ bias], for two or more networks. bias: (N, O), (N, 1) for one per layer, or (N, 0) for none."""
    if bias is not None and not bias.shape[1]:
        bias = None
    key = (*left.shape[1:], right.shape[2], left.stride(1) == 1, right.stride(1) == 1, bias is not None)
    if left.device.type == "cpu" and not keeps_bits(*key, left.dtype, "cpu"):
        return product_in_order(left, right, bias)
    return _batched(left, right, bias)


def _batched(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias[:, None], left, right)


def product_in_order(
    left: Float[Tensor, "N B I"], right: Float[Tensor, "N I O"], bias: Float[Tensor, "N _"] | None = None
) -> Float[Tensor, "N B O"]:
    """The same from elementwise operations, in the order of k: equal bits at every position."""
    total = left.new_zeros(left.shape[0], left.shape[1], right.shape[2])
    if bias is not None and bias.shape[1]:
        total += bias[:, None]
    for k in range(left.shape[2]):
        total = torch.addcmul(total, left[:, :, k : k + 1], right[:, k : k + 1])
    return total


@cache
def keeps_bits(
    batch: int, inputs: int, outputs: int, left_turned: bool, right_turned: bool, bias: bool,
    dtype: torch.dtype, device: str,
) -> bool:  # fmt: skip
    """Whether this machine's batched product of one shape gives a network the same bits for all numbers, orders and
    positions of networks, and with a shared left operand. Tried on seven networks, once per shape."""
    left = _numbers((7, batch, inputs), left_turned, dtype, device)
    right = _numbers((7, inputs, outputs), right_turned, dtype, device)
    add = _numbers((7, 1, outputs), False, dtype, device)[:, 0]
    everyone = torch.arange(7, device=device)
    orders = (everyone, everyone[:2], everyone[4:], everyone.flip(0), everyone[[5, 0, 3]])
    tried = [(some, _taken(left, some, left_turned)) for some in orders]
    tried.append((everyone, tried[0][1][:1].expand(7, -1, -1)))
    full, *others, shared = (
        _batched(some_left, _taken(right, some, right_turned), add[some] if bias else None) for some, some_left in tried
    )
    same = all(torch.equal(found, full[some]) for found, some in zip(others, orders[1:]))
    return same and torch.equal(shared[:1], full[:1])


def _numbers(shape: tuple[int, int, int], turned: bool, dtype: torch.dtype, device: str) -> Tensor:
    """Numbers in [-1, 1], of `shape`; turned: each column is contiguous."""
    networks, rows, columns = shape
    flat = torch.sin(torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64) * 1.7).to(dtype).to(device)
    return flat.view(networks, columns, rows).mT if turned else flat.view(shape)


def _taken(matrices: Tensor, some: Tensor, turned: bool) -> Tensor:
    """A copy of the matrices at `some`, with the same memory layout."""
    return matrices.mT[some].mT if turned else matrices[some]


def row_sums(rows: Float[Tensor, "N P"]) -> Float[Tensor, "N"]:
    """The sum of each row, in pieces: the same bits for every N, number of threads and length of rows."""
    whole = rows.shape[1] // PIECE * PIECE
    if not whole:
        return rows.sum(1)
    pieces = rows[:, :whole].unflatten(1, (-1, PIECE)).sum(2)
    return row_sums(torch.cat((pieces, rows[:, whole:].sum(1, keepdim=True)), 1))


def finite_rows(rows: Float[Tensor, "N P"]) -> Bool[Tensor, "N"]:
    """Which rows hold only finite numbers. A finite sum proves finite terms in one pass; only if a sum is not finite,
    the terms are checked, as it may have overflowed. On a GPU they are always checked, as reading a sum would wait."""
    if rows.device.type != "cpu":
        return rows.isfinite().all(1)
    finite = rows.sum(1).isfinite()
    return finite if bool(finite.all()) else rows.isfinite().all(1)
