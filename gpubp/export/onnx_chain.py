"""Chain: the layers and activations of an ONNX file's graph, read backwards from a tensor.

A layer is Gemm, or MatMul and Add, with constant weights. What lies between layers becomes text, operators and numbers
in a standard form. Conversions of floats, and of shapes if each sample keeps its numbers, are skipped.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import SpecError
from ..maths.activations import ACTIVATIONS
from .members import Array

Bias = Array | None
DEFAULTS: dict[str, dict[str, Any]] = {  # of attributes
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.673, "gamma": 1.051},
    "Gelu": {"approximate": "none"},
    "Softmax": {"axis": -1},
    "LogSoftmax": {"axis": -1},
}
COMMUTATIVE = ("Add", "Mul", "Max", "Min")
DEEPEST = 16  # nesting of an activation's operators


class Layer(NamedTuple):
    """weight (k, I, O) and bias (k, O) of k networks; given: the layer's input tensor."""

    given: str
    weight: Array
    bias: Bias


class Chain:
    """The nodes of a graph by their output tensors, and its constants."""

    def __init__(self, nodes: Iterable[Any], constants: Mapping[str, Array | str], where: str) -> None:
        self.nodes = {out: node for node in nodes for out in node.output}
        self.constants, self.where = constants, where
        self.widths: dict[str, int] = {}  # widths of samples after changes of shape

    def wrong(self, name: str, what: str) -> SpecError:
        """An error at a tensor."""
        return SpecError(
            f"{self.where}: tensor {name!r} {what}; Gemm, or MatMul and Add, with constant weights, and activations of "
            f"{', '.join(ACTIVATIONS)} expected; start= and end= name the tensors where the layers begin and end"
        )

    def constant(self, name: str) -> Array | None:
        """A constant, or None."""
        found = self.constants.get(name)
        if isinstance(found, str):
            raise SpecError(f"{self.where}: constant {name!r} {found}")
        if found is not None and found.dtype.kind != "f":
            raise SpecError(f"{self.where}: constant {name!r} is of another type than float32 and float64")
        return found

    def through(self, name: str, start: str) -> str:
        """The tensor with the same numbers for each sample, before conversions of floats and of shapes."""
        for _ in self.nodes:
            node = self.nodes.get(name)
            if name == start or node is None or not self._converts(name, node):
                break
            name = node.input[0]
        return name

    def _converts(self, name: str, node: Any) -> bool:
        """Whether a node makes a tensor with the numbers of another; notes the width after a change of shape."""
        settings = {each.name: _value(each) for each in node.attribute}
        kind = node.op_type if node.domain in ("", "ai.onnx", "ai.onnx.ml") and node.input else ""
        shape = self._whole(node.input[1]) if len(node.input) > 1 else [*settings.get("axes", [])]
        if kind == "Squeeze" and shape is not None and {*shape} <= {-1, 1}:
            self.widths |= {name: 1} if shape else {}
            return True
        if kind == "Reshape" and shape:
            width = shape[-1] if len(shape) > 1 else 1  # (M,): samples of one number
            self.widths |= {name: width} if width > 0 else {}
            return True
        floats = kind == "Cast" and settings.get("to") in (1, 11)
        flat = kind == "Flatten" and settings.get("axis", 1) == 1
        return floats or flat or kind in ("Identity", "ZipMap")

    def _whole(self, name: str) -> list[int] | None:
        """A short constant of whole numbers; for a shape whose first part is computed, -1 and the last part."""
        node = self.nodes.get(name)
        if node is not None and node.op_type == "Concat":
            last = self.constants.get(node.input[-1])
            return [-1, *last.tolist()] if isinstance(last, np.ndarray) and last.shape == (1,) else None
        found = self.constants.get(name)
        right = isinstance(found, np.ndarray) and found.dtype.kind == "i" and found.ndim == 1 and len(found) < DEEPEST
        return found.tolist() if right else None  # type: ignore[union-attr]

    def check_widths(self, width: int) -> None:
        """Raise SpecError if a change of shape since the last call leaves samples of other widths than `width`."""
        for name, found in self.widths.items():
            if found != width:
                raise self.wrong(name, f"has samples of {found} numbers; {width} expected")
        self.widths = {}

    def check_samples(self, name: str, start: str) -> None:
        """Raise SpecError for a tensor that is computed from the tensor `start` without any layer."""
        seen: set[str] = set()
        above = [name]
        while above:
            at = above.pop()
            if at in seen:
                continue
            if self.layer(at) is not None:
                return
            seen.add(at)
            above += self.nodes[at].input if at in self.nodes and at != start else ()
        if start in seen:
            raise SpecError(
                f"{self.where}: tensor {name!r} is what {self.nodes[name].op_type} makes of the samples before the "
                f"first layer, which no population does; start={name!r} reads the layers alone, for samples that are "
                "prepared like that"
            )

    def layer(self, name: str) -> Layer | None:
        """The layer that makes a tensor, or None."""
        node = self.nodes.get(name)
        if node is None:
            return None
        given = list(node.input)
        if node.op_type == "Gemm" and len(given) > 1:
            found = {each.name: _value(each) for each in node.attribute}
            if found.get("alpha", 1) != 1 or found.get("beta", 1) != 1 or found.get("transA", 0):
                raise self.wrong(name, "is Gemm with alpha or beta other than 1, or with transA")
            weight, bias = self.constant(given[1]), self.constant(given[2]) if len(given) > 2 else None
            if weight is None or weight.ndim != 2 or (bias is None and len(given) > 2 and given[2]):
                raise self.wrong(name, "is Gemm without a constant weight (I, O) and bias")
            return self._layer(name, given[0], weight.T if found.get("transB") else weight, bias)
        if node.op_type == "MatMul" and len(given) == 2:
            weight = self.constant(given[1])
            return None if weight is None else self._layer(name, given[0], weight, None)
        if node.op_type == "Add" and len(given) == 2:
            for product, other in (given, given[::-1]):
                bias = self.constant(other)
                made = self.nodes.get(product)
                if bias is not None and made is not None and made.op_type == "MatMul":
                    layer = self.layer(product)
                    return None if layer is None else self._layer(name, layer.given, layer.weight, bias)
        return None

    def _layer(self, name: str, given: str, weight: Array, bias: Bias) -> Layer:
        """A layer of these numbers. Raises SpecError for shapes that do not make one."""
        weight = weight[None] if weight.ndim == 2 else weight
        right = weight.ndim == 3 and 0 not in weight.shape
        if right and bias is not None:
            shape = bias.shape[:-2] + bias.shape[-1:] if bias.ndim > 1 and bias.shape[-2] == 1 else bias.shape
            try:
                bias = np.broadcast_to(bias.reshape(shape), (len(weight), weight.shape[2]))
            except ValueError:
                right = False
        parts = [weight] if bias is None else [weight, bias]
        if not right:
            raise self.wrong(
                name, f"has weights {' and '.join(str(each.shape) for each in parts)}, which are no layer's"
            )
        if not all(np.isfinite(each).all() for each in parts):
            raise self.wrong(name, "has weights that are NaN or infinite")
        return Layer(given, weight, bias)

    def expression(self, name: str, start: str, deep: int = 0) -> tuple[str, set[str]]:
        """How a tensor is computed from the layer below, or from `start`: operators and numbers, with x for that input,
        as text in a standard form; and the name of x. Conversions are skipped."""
        if deep > DEEPEST:
            raise self.wrong(name, f"takes more than {DEEPEST} operators")
        name = self.through(name, start)
        value = self.constant(name)
        if value is not None:
            if value.size != 1:
                raise self.wrong(name, f"is a constant {value.dtype} {value.shape} in an activation")
            return f"{float(value.ravel()[0]):.4g}", set()
        if name == start or self.layer(name) is not None:
            return "x", {name}
        node = self.nodes.get(name)
        if node is None:
            raise self.wrong(name, "is an input of the graph")
        parts: list[str] = []
        found: set[str] = set()
        for each in node.input:
            text, names = self.expression(each, start, deep + 1)
            parts, found = [*parts, text], found | names
        settings = {**DEFAULTS.get(node.op_type, {}), **{each.name: _value(each) for each in node.attribute}}
        shown = ",".join(f"{key}={_short(settings[key])}" for key in sorted(settings))
        operator = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        parts = sorted(parts) if operator in COMMUTATIVE else parts
        text = f"{operator}{f'[{shown}]' if shown else ''}({','.join(parts)})"
        if len(text) > 1000:
            raise self.wrong(name, "takes more operators than any activation")
        return text, found


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value(attribute: Any) -> Any:
    """The number, text or whole numbers of an attribute; for others, their kind."""
    kind = {1: "f", 2: "i", 3: "s", 7: "ints"}.get(attribute.type)
    value = getattr(attribute, kind) if kind else f"attribute of kind {attribute.type}"
    return value.decode(errors="replace") if isinstance(value, bytes) else value
