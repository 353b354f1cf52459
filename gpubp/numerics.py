"""The few operations whose bits must not depend on position, neighbours or number of networks.

torch's batched product gives a matrix other bits at another alignment, and a lone matrix others than one of several.
Cure (measured on torch 2.13, MKL, AVX-512: 280 shapes in float32 and float64, other N, order, views and thread counts,
without a difference; without the cure a third of the shapes differ): every matrix of a product holds a multiple of 16
numbers, so that all start at the same alignment, and there are at least two of them. `kernel_widths` chooses widths for
which this holds, `product` multiplies. A product whose B I O is below 400 takes ATen's plain loop and needs no cure.

`product` trusts nobody: the first product of every shape is tried on this machine with other numbers and orders of
networks; where the BLAS behaves otherwise, a sum of elementwise products in the order of k takes its place, slower and
right on every machine. On a GPU it does trust: there every batch has the same size (blocks.fixed).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ALIGN = 16  # numbers: 64 bytes of float32, a cache line and the widest vector
PLAIN = 400  # multiplications; below, ATen takes its plain loop whatever N is
PIECE = 1 << 14  # numbers; sums over longer rows are cut here, because torch splits them differently at N = 1


def padded(width: int) -> int:
    """`width` rounded up to a multiple of 16."""
    return -(-width // ALIGN) * ALIGN


def kernel_widths(widths: Sequence[int], batch: int) -> tuple[int, ...]:
    """The widths to compute with for B = `batch`: a network's own where every matrix holds a multiple of 16 numbers,
    the next multiple of 16 where one would not."""
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
    """left @ right [+ bias], of at least two networks. bias: (N, O), (N, 1) for one per layer, or (N, 0) for none."""
    if bias is not None and not bias.shape[1]:
        bias = None
    key = (*left.shape[1:], right.shape[2], left.stride(1) == 1, right.stride(1) == 1, bias is not None)
    if left.device.type == "cpu" and not keeps_bits(*key, left.dtype, "cpu"):
        return product_in_order(left, right, bias)
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias[:, None], left, right)


def product_in_order(
    left: Float[Tensor, "N B I"], right: Float[Tensor, "N I O"], bias: Float[Tensor, "N _"] | None = None
) -> Float[Tensor, "N B O"]:
    """The same by elementwise operations alone, in the order of k: equal bits wherever a network stands."""
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
    """Whether this machine's batched product of one shape gives a network the same bits for other numbers and orders of
    networks, at other places, with a shared left operand. Tried on seven networks, once per shape."""

    def numbers(*shape: int, turned: bool = False) -> Tensor:
        count = torch.Size(shape).numel()
        flat = torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * 1.7).to(dtype).to(device)
        return flat.view(shape[0], shape[2], shape[1]).mT if turned else flat.view(shape)

    def call(own: Tensor, left: Tensor) -> Tensor:
        if bias:
            return torch.baddbmm(add[own][:, None], left, right_of(own))
        return torch.bmm(left, right_of(own))

    def pick(tensor: Tensor, own: Tensor, turned: bool) -> Tensor:
        return tensor.mT[own].mT if turned else tensor[own]

    def right_of(own: Tensor) -> Tensor:
        return pick(right, own, right_turned)

    left, right = numbers(7, batch, inputs, turned=left_turned), numbers(7, inputs, outputs, turned=right_turned)
    add = numbers(7, outputs, 1)[:, :, 0]
    everyone = torch.arange(7, device=device)
    full = call(everyone, left)
    for some in (everyone[:2], everyone[4:], everyone.flip(0), everyone[[5, 0, 3]]):
        if not torch.equal(call(some, pick(left, some, left_turned)), full[some]):
            return False
    shared = pick(left, everyone[:1], left_turned).expand(7, -1, -1)
    return torch.equal(call(everyone, shared)[:1], full[:1])


def row_sums(rows: Float[Tensor, "N P"]) -> Float[Tensor, "N"]:
    """The sum of each row, in pieces: the same bits for every N and number of threads, however long the rows."""
    whole = rows.shape[1] // PIECE * PIECE
    if not whole:
        return rows.sum(1)
    pieces = rows[:, :whole].unflatten(1, (-1, PIECE)).sum(2)
    return row_sums(torch.cat((pieces, rows[:, whole:].sum(1, keepdim=True)), 1))


def finite_rows(rows: Float[Tensor, "N P"]) -> Bool[Tensor, "N"]:
    """Which rows hold finite numbers alone. A finite sum proves finite terms, at the price of one pass; only a sum that
    is not is looked into, for it may have overflowed. On a GPU all are looked into: it would be waited for."""
    if rows.device.type != "cpu":
        return rows.isfinite().all(1)
    finite = rows.sum(1).isfinite()
    return finite if bool(finite.all()) else rows.isfinite().all(1)
