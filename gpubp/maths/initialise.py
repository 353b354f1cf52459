"""INITIALISERS: one row each: how random numbers become the weights of a layer. Names and meanings are torch.nn.init's.

A network's initial weights depend only on (seed, id): weight k of layer l uses number k of the Philox sequence at
layer 2 l, bias k that at layer 2 l + 1. Numbers are drawn and computed in float64 on the CPU, then cast and
moved, so that every device starts from the same bits.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..system import arrays
from . import rng
from .spec import NetworkSpec

BLOCK = 1 << 17  # numbers drawn at once: few enough for a cache, enough that threads seldom wait for Python
ALONE = 1 << 16  # for so few numbers, starting threads takes longer than drawing


class Initialiser(NamedTuple):
    """How the weights of a layer are drawn.

    Attributes:
        draw: rng.uniform, rng.normal, or None for ones.
        bound: I, O -> factor of the weights.
        scale: default of the user's factor.
        weight: numbers (N, I, O) -> weights before the factors.
        bias: whether biases are drawn like weights; otherwise they start at 0.
    """

    draw: Callable[..., Tensor] | None
    bound: Callable[[int, int], float]
    scale: float = 1.0
    weight: Callable[[Tensor], Tensor] = lambda numbers: numbers
    bias: bool = False


def ones(seed: int, ids: Tensor, count: int, layer: int) -> Tensor:
    """Ones instead of random numbers."""
    return torch.ones(len(ids), count, dtype=torch.float64)


def symmetric(numbers: Tensor) -> Tensor:
    """(0, 1) -> (-1, 1)."""
    return 2 * numbers - 1


def orthogonal(numbers: Tensor) -> Tensor:
    """(N, I, O) normal numbers -> orthonormal columns, or rows if O > I; uniform by Haar's measure.

    Gram-Schmidt, twice for full precision, from elementwise operations and sums over rows: the bits of torch.linalg.qr
    depend on the number of matrices. Saxe, McClelland, Ganguli, 2014.
    """
    if numbers.shape[1] < numbers.shape[2]:
        return orthogonal(numbers.mT).mT
    rows = numbers.mT.contiguous()  # (N, O, I): one vector per row
    for number in range(rows.shape[1]):
        vector, before = rows[:, number], rows[:, :number]
        for _ in range(2 if number else 0):
            vector -= ((before * vector[:, None]).sum(2, keepdim=True) * before).sum(1)
        vector /= torch.sqrt((vector * vector).sum(1, keepdim=True))
    return rows.mT


INITIALISERS: dict[str, Initialiser] = {
    "constant": Initialiser(None, lambda i, o: 1.0, scale=0.0),
    "uniform": Initialiser(rng.uniform, lambda i, o: 1.0, scale=0.1, weight=symmetric),
    "normal": Initialiser(rng.normal, lambda i, o: 1.0, scale=0.1),
    "glorot_uniform": Initialiser(rng.uniform, lambda i, o: math.sqrt(6 / (i + o)), weight=symmetric),
    "glorot_normal": Initialiser(rng.normal, lambda i, o: math.sqrt(2 / (i + o))),
    "kaiming_uniform": Initialiser(rng.uniform, lambda i, o: math.sqrt(6 / i), weight=symmetric),
    "kaiming_normal": Initialiser(rng.normal, lambda i, o: math.sqrt(2 / i)),
    "torch_linear": Initialiser(rng.uniform, lambda i, o: 1 / math.sqrt(i), weight=symmetric, bias=True),
    "orthogonal": Initialiser(rng.normal, lambda i, o: 1.0, weight=orthogonal),
}


def initialise(
    spec: NetworkSpec,
    rule: Initialiser,
    seed: int,
    ids: Tensor,
    dtype: torch.dtype,
    scale: float | Tensor | None = None,
) -> Tensor:
    """The parameters (N, P) of the networks `ids` (N,), on the CPU. scale: a factor of all, a number or (N,)."""
    factor = arrays.tensor("init_scale", rule.scale if scale is None else scale, ConfigError).cpu()
    if factor.dtype == torch.bool:
        raise ConfigError("init_scale holds truth values; numbers expected")
    factor = factor.double()
    if factor.ndim > 1 or (factor.ndim == 1 and len(factor) != len(ids)):
        raise ShapeError(f"init_scale {tuple(factor.shape)}: a number or ({len(ids)},) expected")
    if not bool(factor.isfinite().all()):
        raise ConfigError("init_scale holds NaN or infinity; finite numbers expected")
    factor = factor.expand(len(ids))[:, None]
    with torch.inference_mode(False):  # as in the threads that fill the tensor
        params = torch.zeros(len(ids), spec.size, dtype=dtype)

    def fill(number: int, part: slice) -> None:
        """Layer `number` of some networks."""
        layer, some = spec.layout[number], ids[part]
        shape, size = (layer.inputs, layer.outputs), layer.inputs * layer.outputs
        by = rule.bound(*shape) * factor[part]
        weights = rule.weight((rule.draw or ones)(seed, some, size, 2 * number).unflatten(1, shape)).flatten(1)
        params[part, layer.weight] = (weights * by).to(dtype)
        if rule.bias and rule.draw and layer.bias.start < layer.bias.stop:
            numbers = rule.draw(seed, some, layer.bias.stop - layer.bias.start, 2 * number + 1)
            params[part, layer.bias] = (rule.weight(numbers) * by).to(dtype)

    parts = []
    for number, layer in enumerate(spec.layout):
        most = max(1, BLOCK // (layer.inputs * layer.outputs))
        parts += [(number, slice(first, first + most)) for first in range(0, len(ids), most)]
    if params.numel() <= ALONE:
        for part in parts:
            fill(*part)
        return params
    with ThreadPoolExecutor(torch.get_num_threads(), "gpubp-draw") as pool:
        list(pool.map(fill, *zip(*parts)))
    return params
