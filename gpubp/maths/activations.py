"""ACTIVATIONS: one row each, value and slope side by side, in plain torch arithmetic that torch.fx can trace.

Add a custom row: `gpubp.ACTIVATIONS["mish"] = Activation(value, slope)`. The bits of these formulas do not depend on a
number's position: torch.sigmoid, softplus, gelu, silu, elu and selu have a vector body and a scalar
tail that differ in the last bit (tests/test_numerics.py). Names, meanings and constants are torch.nn.functional's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .rows import Table


class Activation(NamedTuple):
    """An elementwise function and its derivative; the slope may use net, out or both, whatever is cheapest.

    value: net -> out. slope: net, out -> dout/dnet. Any shape; results keep it. No Python control flow on tensors.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def positive(net: Tensor) -> Tensor:
    """1 above 0, else 0. On a CPU torch.where costs as much as 30 multiplications, sign and clamp one each."""
    return torch.sign(torch.clamp(net, min=0))


def identity(net: Tensor) -> Tensor:
    return net


def identity_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.ones_like(net)


def sigmoid(net: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-net))


def sigmoid_slope(net: Tensor, out: Tensor) -> Tensor:
    return out * (1 - out)


def tanh(net: Tensor) -> Tensor:
    return torch.tanh(net)


def tanh_slope(net: Tensor, out: Tensor) -> Tensor:
    return 1 - out * out


def relu(net: Tensor) -> Tensor:
    return torch.clamp(net, min=0)


def relu_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.sign(out)


LEAK = 0.01


def leaky_relu(net: Tensor) -> Tensor:
    return torch.maximum(net, LEAK * net)


def leaky_relu_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.clamp(positive(net), min=LEAK)


def elu(net: Tensor) -> Tensor:
    return torch.clamp(net, min=0) + torch.expm1(torch.clamp(net, max=0))


def elu_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.clamp(out, max=0) + 1


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., "Self-Normalizing Neural Networks", 2017


def selu(net: Tensor) -> Tensor:
    return SCALE * torch.clamp(net, min=0) + SCALE * ALPHA * torch.expm1(torch.clamp(net, max=0))


def selu_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.clamp(out, max=0) + SCALE * (ALPHA + (1 - ALPHA) * positive(net))


def silu(net: Tensor) -> Tensor:
    return net * sigmoid(net)


def silu_slope(net: Tensor, out: Tensor) -> Tensor:
    share = sigmoid(net)
    return share + out * (1 - share)


HALF_ROOT, NORMAL = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


def normal_share(net: Tensor) -> Tensor:
    """The standard normal distribution function."""
    return 0.5 + 0.5 * torch.erf(net * HALF_ROOT)


def gelu(net: Tensor) -> Tensor:
    return net * normal_share(net)


def gelu_slope(net: Tensor, out: Tensor) -> Tensor:
    return normal_share(net) + net * NORMAL * torch.exp(-0.5 * net * net)


CUBE, ROOT = 0.044715, math.sqrt(2 / math.pi)  # Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016


def gate(near: Tensor) -> Tensor:
    return torch.tanh(ROOT * (near + CUBE * near * near * near))


def gelu_tanh(net: Tensor) -> Tensor:
    return 0.5 * net * (1 + gate(net))


def gelu_tanh_slope(net: Tensor, out: Tensor) -> Tensor:
    near = torch.clamp(net, -10, 10)  # saturated beyond, where 0 times an infinite square would be NaN
    share = gate(near)
    return 0.5 * (1 + share) + 0.5 * near * (1 - share * share) * ROOT * (1 + 3 * CUBE * near * near)


def softplus(net: Tensor) -> Tensor:
    return torch.clamp(net, min=0) + torch.log1p(torch.exp(-torch.abs(net)))


def softplus_slope(net: Tensor, out: Tensor) -> Tensor:
    return sigmoid(net)


def softsign(net: Tensor) -> Tensor:
    return net / (1 + torch.abs(net))


def softsign_slope(net: Tensor, out: Tensor) -> Tensor:
    rest = 1 / (1 + torch.abs(net))
    return rest * rest


def hard_tanh(net: Tensor) -> Tensor:
    return torch.clamp(net, -1, 1)


def hard_tanh_slope(net: Tensor, out: Tensor) -> Tensor:
    return positive(1 - torch.abs(net))


def sine(net: Tensor) -> Tensor:
    return torch.sin(net)


def sine_slope(net: Tensor, out: Tensor) -> Tensor:
    return torch.cos(net)


ACTIVATIONS: Table[Activation] = Table()
ACTIVATIONS |= {
    "identity": Activation(identity, identity_slope),
    "sigmoid": Activation(sigmoid, sigmoid_slope),
    "tanh": Activation(tanh, tanh_slope),
    "relu": Activation(relu, relu_slope),
    "leaky_relu": Activation(leaky_relu, leaky_relu_slope),
    "elu": Activation(elu, elu_slope),
    "selu": Activation(selu, selu_slope),
    "silu": Activation(silu, silu_slope),
    "gelu": Activation(gelu, gelu_slope),
    "gelu_tanh": Activation(gelu_tanh, gelu_tanh_slope),
    "softplus": Activation(softplus, softplus_slope),
    "softsign": Activation(softsign, softsign_slope),
    "hard_tanh": Activation(hard_tanh, hard_tanh_slope),
    "sine": Activation(sine, sine_slope),
}
