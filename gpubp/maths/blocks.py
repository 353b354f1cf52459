"""Which networks are computed together: blocks that stay in cache, on a GPU groups of one size.

And padding up to what products need (numerics.py): wider layers, a second network or more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ShapeError, SpecError, check_kind
from .numerics import kernel_widths
from .spec import NetworkSpec

CHUNK = 256  # samples of one product in `forward`; part of the arithmetic: other sizes may change bits
BLOCK = 1 << 22  # bytes of the largest tensor of a block of networks: fits cache and allocator (2 to 8 MB alike)
GROUP = 40 << 20  # bytes of a group on a GPU, part of the arithmetic there: an A100's L2, less than an H100's
FIXED = ("cuda",)  # kinds of device for `fixed`
MOST = 1 << 16  # networks of a group at most, to limit the cost of a single one

Layers = Sequence[tuple[Tensor, Tensor]]  # (weight (N, I, O), bias (N, O)) of each


def blocks(spec: NetworkSpec, count: int, batch: int, itemsize: int, device: torch.device) -> Iterator[slice]:
    """The networks that are computed together, as parts of their rows."""
    size = together(spec, batch, itemsize, device)
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def together(spec: NetworkSpec, batch: int, itemsize: int, device: torch.device) -> int:
    """How many networks to compute together, so that they stay in cache. Bits do not depend on it on a CPU; on a
    GPU they may, so there it depends on the specification and the batch alone: parameters, gradient, three slots, nets
    and outs fit, or there are two networks."""
    if fixed(device):
        wide = kernel_widths(spec.widths, batch)
        parameters = sum(i * o + o for i, o in itertools.pairwise(wide))
        return max(2, min(MOST, GROUP // ((5 * parameters + 2 * batch * sum(wide)) * itemsize)))
    largest = max(max(i * o for i, o in zip(spec.widths, spec.widths[1:])), batch * max(spec.widths)) * itemsize
    return max(2, BLOCK // largest)


def fixed(device: torch.device) -> bool:
    """Whether networks are computed in groups of one size, padded if there are fewer: a GPU's libraries choose
    a kernel, and so the bits, by the size of the whole batch."""
    return device.type in FIXED


def filled(params: Tensor, size: int) -> Tensor:
    """Row indices that pad a group to `size` networks by repeating the last one."""
    return torch.arange(size, device=params.device).clamp_(max=len(params) - 1)


def doubled(tensor: Tensor) -> Tensor:
    """A single network twice, because products need two (numerics.py). N > 1 is unchanged."""
    return tensor if len(tensor) > 1 else tensor.expand(2, *tensor.shape[1:])


def whole(spec: NetworkSpec, params: Tensor, batch: int) -> Callable[[Tensor], Tensor]:
    """-> pads a tensor of a block's networks, N in front, to as many as products need; its own come first."""
    if not fixed(params.device):
        return doubled
    rows = filled(params, max(len(params), together(spec, batch, params.element_size(), params.device)))
    return lambda tensor: tensor[rows]


def widen(layers: Layers, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Contiguous copies of the layers (N, I, O), (N, O), with zeros up to `widths`."""
    wide = []
    for (weight, bias), inputs, outputs in zip(layers, widths, widths[1:]):
        below, here = inputs - weight.shape[1], outputs - weight.shape[2]
        if bias.shape[1] == weight.shape[2] and here:
            bias = pad(bias, (0, here))
        wide.append((pad(weight, (0, here, 0, below)) if below or here else weight.clone(), bias.clone()))
    return wide


def spread(count: int, name: str, tensor: Tensor, shared: int) -> Tensor:
    """A shared tensor (of `shared` dimensions) gets a first dimension N; a separate one must have it."""
    check_kind(name, tensor, Tensor, error=ShapeError)
    if tensor.ndim == shared:
        return tensor.expand(count, *tensor.shape)
    if tensor.ndim != shared + 1 or len(tensor) != count:
        raise ShapeError(f"{name} {tuple(tensor.shape)}: {shared} dimensions expected, or {count} networks in front")
    return tensor


def check(spec: NetworkSpec, params: Tensor, inputs: Tensor) -> None:
    """Raise SpecError or ShapeError unless params is (N, P) and inputs (B, I) or (N, B, I) of the same dtype."""
    check_kind("spec", spec, NetworkSpec, error=SpecError)
    for name, tensor in (("params", params), ("inputs", inputs)):
        check_kind(name, tensor, Tensor, error=ShapeError)
    spec.layers(params)
    if inputs.ndim not in (2, 3) or inputs.shape[-1] != spec.widths[0]:
        raise ShapeError(f"inputs {tuple(inputs.shape)}: (B, {spec.widths[0]}) or (N, B, {spec.widths[0]}) expected")
    if not inputs.shape[-2]:
        raise ShapeError(f"inputs {tuple(inputs.shape)}: one sample or more expected")
    if inputs.dtype != params.dtype:
        raise ShapeError(f"inputs are {inputs.dtype}, params {params.dtype}: the same dtype expected")
