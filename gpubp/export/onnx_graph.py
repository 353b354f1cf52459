"""Graph: the nodes and constants of an ONNX file; FUNCTIONS: a row for each activation, the operators that compute it.

Operators are those of opset 19. ONNX Runtime has some of them only in float32: a network in float64 gets the same
function from other operators, and for gelu erf in float32.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..maths.activations import ALPHA, CUBE, HALF_ROOT, LEAK, ROOT, SCALE
from .members import Array


def needed() -> None:
    """Raise ConfigError if the package onnx is missing."""
    if find_spec("onnx") is None:
        raise ConfigError('ONNX files need the package onnx: pip install "gpubp[onnx]"')


class Graph:
    """Nodes and constants in the order of their computation; each method returns the name of a tensor."""

    def __init__(self) -> None:
        from onnx import helper

        self.helper = helper
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.single = True  # whether numbers are float32

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node."""
        out = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def keep(self, values: Any, name: str | None = None) -> str:
        """A constant."""
        array = np.asarray(values)
        out = name or f"constant_{len(self.constants)}"
        self.constants[out] = array
        return out

    def number(self, value: float) -> str:
        """A number of the networks' type."""
        array = np.asarray(value, np.float32 if self.single else np.float64)
        return self.keep(array, f"{array.dtype}_{float(value)!r}")

    def cast(self, given: str, dtype: Any, name: str | None = None) -> str:
        """`given` as another type."""
        return self.add("Cast", given, name=name, to=self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def value(self, name: str, dtype: Any, *shape: int) -> Any:
        """An input or output of the graph, (M, *shape)."""
        kind = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.helper.make_tensor_value_info(name, kind, ["M", *shape])


Rule = Callable[[Graph, str], str]


def _operator(rule: Rule, operator: str, **attributes: Any) -> Rule:
    """In float32 an operator that equals `rule`, as ONNX Runtime has it in no other type; in other types `rule`."""
    return lambda graph, net: graph.add(operator, net, **attributes) if graph.single else rule(graph, net)


def _negative(graph: Graph, net: str) -> str:
    """exp(net) - 1 below 0, else 0."""
    power = graph.add("Exp", graph.add("Min", net, graph.number(0)))
    return graph.add("Sub", power, graph.number(1))


def _elu(graph: Graph, net: str) -> str:
    return graph.add("Add", graph.add("Relu", net), _negative(graph, net))


def _selu(graph: Graph, net: str) -> str:
    below = graph.add("Mul", _negative(graph, net), graph.number(ALPHA))
    return graph.add("Mul", graph.add("Add", graph.add("Relu", net), below), graph.number(SCALE))


def _gelu(graph: Graph, net: str) -> str:
    scaled = graph.add("Mul", net, graph.number(HALF_ROOT))
    share = graph.add("Erf", scaled if graph.single else graph.cast(scaled, np.float32))
    share = share if graph.single else graph.cast(share, np.float64)
    half = graph.add("Mul", graph.add("Add", share, graph.number(1)), graph.number(0.5))
    return graph.add("Mul", net, half)


def _gelu_tanh(graph: Graph, net: str) -> str:
    cube = graph.add("Mul", graph.add("Mul", graph.add("Mul", net, net), net), graph.number(CUBE))
    share = graph.add("Tanh", graph.add("Mul", graph.add("Add", net, cube), graph.number(ROOT)))
    half = graph.add("Mul", graph.add("Add", share, graph.number(1)), graph.number(0.5))
    return graph.add("Mul", net, half)


def _softplus(graph: Graph, net: str) -> str:
    power = graph.add("Exp", graph.add("Neg", graph.add("Abs", net)))
    return graph.add("Add", graph.add("Relu", net), graph.add("Log", graph.add("Add", power, graph.number(1))))


FUNCTIONS: dict[str, Rule] = {
    "identity": lambda graph, net: net,
    "sigmoid": lambda graph, net: graph.add("Sigmoid", net),
    "tanh": lambda graph, net: graph.add("Tanh", net),
    "relu": lambda graph, net: graph.add("Relu", net),
    "leaky_relu": _operator(
        lambda graph, net: graph.add("Max", net, graph.add("Mul", net, graph.number(LEAK))), "LeakyRelu", alpha=LEAK
    ),
    "elu": _operator(_elu, "Elu"),
    "selu": _operator(_selu, "Selu"),
    "silu": lambda graph, net: graph.add("Mul", net, graph.add("Sigmoid", net)),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _operator(_softplus, "Softplus"),
    "softsign": _operator(
        lambda graph, net: graph.add("Div", net, graph.add("Add", graph.add("Abs", net), graph.number(1))), "Softsign"
    ),
    "hard_tanh": lambda graph, net: graph.add("Clip", net, graph.number(-1), graph.number(1)),
    "sine": lambda graph, net: graph.add("Sin", net),
}
LINKS: dict[str, Rule] = {
    "identity": FUNCTIONS["identity"],
    "sigmoid": FUNCTIONS["sigmoid"],
    "hard_tanh": FUNCTIONS["hard_tanh"],
    "exp": lambda graph, out: graph.add("Exp", out),
    "softmax": lambda graph, out: graph.add("Softmax", out, axis=-1),
}
