"""Rows from ONNX files: the networks in a graph that is a chain of layers and activations.

A layer is Gemm, or MatMul and Add, with constant weights; an activation is an operator, or several, that compute one of
ACTIVATIONS: any that onnx.py writes, and those of VARIANTS. The graph is read backwards from the tensor `end` to the
tensor `start`, so what prepares samples and what turns outs into labels may stand before and behind them.

Refused: files that are no ONNX, weights outside the file, weights of other types than float32 and float64, and, by the
name of the operator and its tensor, all else. Nothing in a file is executed, and no path in it is opened.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import files
from ..activations import ACTIVATIONS
from ..errors import SpecError, lookup, reason
from ..losses import LOSSES
from ..spec import NetworkSpec
from .members import Array
from .onnx import INPUTS, MOST, OUTS
from .onnx_graph import FUNCTIONS, Graph, needed

Bias = Array | None
DEFAULTS: dict[str, dict[str, Any]] = {  # of attributes
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.673, "gamma": 1.051},
    "Gelu": {"approximate": "none"},
    "Softmax": {"axis": -1},
}
COMMUTATIVE = ("Add", "Mul", "Max", "Min")
VARIANTS = {  # activations as other libraries write them, in the form of Chain.expression()
    "Gelu[approximate=none](x)": "gelu",
    "Gelu[approximate=tanh](x)": "gelu_tanh",
    "Mul(0.5,Mul(Add(1,Erf(Div(x,1.414))),x))": "gelu",
    "Clip[max=1,min=-1](x)": "hard_tanh",
}
OUTPUTS = {  # functions that the loss has already, in place of an activation of the output
    "cross_entropy": ("Softmax[axis=-1](x)", "Softmax[axis=1](x)"),
    "binary_cross_entropy": ("Sigmoid(x)",),
    "poisson": ("Exp(x)",),
}
DEEPEST = 16  # operators within operators of an activation


class Layer(NamedTuple):
    """weight (k, I, O) and bias (k, O) of k networks; given: the tensor that it takes."""

    given: str
    weight: Array
    bias: Bias


class Chain:
    """The nodes of a graph by the tensors that they make, and its constants."""

    def __init__(self, nodes: Iterable[Any], constants: Mapping[str, Array | str], where: str) -> None:
        self.nodes = {out: node for node in nodes for out in node.output}
        self.constants, self.where = constants, where

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
        return found

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
        """A layer of these numbers. Raises SpecError for shapes that are none."""
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
        """What computes a tensor from the layer below, or from `start`: operators and numbers, with x for that, as text
        of one form; and the name of x. Conversions of floats are no operators."""
        if deep > DEEPEST:
            raise self.wrong(name, f"takes more than {DEEPEST} operators")
        value = self.constant(name)
        if value is not None:
            if value.size != 1 or value.dtype.kind != "f":
                raise self.wrong(name, f"is a constant {value.dtype} {value.shape} in an activation")
            return f"{float(value.ravel()[0]):.4g}", set()
        if name == start or self.layer(name) is not None:
            return "x", {name}
        node = self.nodes.get(name)
        if node is None:
            raise self.wrong(name, "is an input of the graph")
        floats = all(_value(each) in (1, 11) for each in node.attribute)  # Cast's
        if node.op_type in ("Identity", "Cast") and floats and len(node.input) == 1:
            return self.expression(node.input[0], start, deep + 1)
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
    """A number or a text of an attribute; of others their kind."""
    kind = {1: "f", 2: "i", 3: "s"}.get(attribute.type)
    value = getattr(attribute, kind) if kind else f"attribute of kind {attribute.type}"
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _known() -> dict[str, str]:
    """The names of activations by their expressions."""
    found = dict(VARIANTS)
    for name, function in FUNCTIONS.items():
        for single in (True, False):
            graph = Graph()
            graph.single = single
            out = function(graph, "x")
            found.setdefault(Chain(graph.nodes, graph.constants, name).expression(out, "x")[0], name)
    return found


def rows(
    paths: Iterable[str | Path], loss: str, start: str | None = None, end: str | None = None
) -> tuple[NetworkSpec, Tensor]:
    """The networks of several files, of one topology: their specification and rows (N, P)."""
    found: list[tuple[NetworkSpec, Tensor]] = []
    lookup(LOSSES, loss, "loss")
    if isinstance(paths, (str, Path)):
        raise SpecError(f"from_onnx takes several files: [path], not {paths!r} itself")
    for path in (files.path("paths", each) for each in paths):
        found.append(_rows(path, loss, start, end))
        (first, row), (spec, other) = found[0], found[-1]
        if (spec, other.dtype) != (first, row.dtype):
            raise SpecError(
                f"{path} is {spec}, {other.dtype}; the first is {first}, {row.dtype}; one topology expected"
            )
    if not found:
        raise SpecError("from_onnx needs one file or more, got none")
    return found[0][0], torch.cat([row for _, row in found])


def _rows(path: Path, loss: str, start: str | None, end: str | None) -> tuple[NetworkSpec, Tensor]:
    model = _read(path)
    chain = Chain(model.graph.node, _constants(model.graph), str(path))
    start, end = _ends(model, chain, start, end)
    layers: list[Layer] = []
    names: list[str] = []
    known, at = _known(), end
    while at != start or not layers:
        text, base = chain.expression(at, start)
        layer = chain.layer(next(iter(base))) if len(base) == 1 else None
        name = "identity" if not layers and text in OUTPUTS.get(loss, ()) else known.get(text)
        if name is None or layer is None or len(layers) > len(model.graph.node):
            what = "is an activation of several tensors" if len(base) > 1 else f"is {text}, where x is {[*base]}"
            raise chain.wrong(at, what)
        names.append(name)
        layers.append(layer)
        at = layer.given
    layers, names = layers[::-1], names[::-1]
    for before, after in itertools.pairwise(layers):
        if before.weight.shape[::2] != (len(after.weight), after.weight.shape[1]):
            raise SpecError(
                f"{path}: a layer {before.weight.shape} is followed by one of {after.weight.shape}; (networks, inputs, "
                "outputs) that fit expected"
            )
    bias = {layer.bias is not None for layer in layers}
    if len(bias) > 1:
        raise SpecError(f"{path}: some layers have a bias and some have none; all or none expected")
    widths = (layers[0].weight.shape[1], *(layer.weight.shape[2] for layer in layers))
    spec = NetworkSpec(widths, tuple(names[:-1]), names[-1], loss, "neuron" if bias.pop() else "none")
    parts = [each.reshape(len(each), -1) for layer in layers for each in layer[1:] if each is not None]
    if len({each.dtype for each in parts}) > 1:
        raise SpecError(f"{path}: layers in float32 and in float64; one type expected")
    return spec, torch.from_numpy(np.concatenate(parts, 1))


def _ends(model: Any, chain: Chain, start: str | None, end: str | None) -> tuple[str, str]:
    """The tensors where the layers begin and end."""
    inputs = [each.name for each in model.graph.input if each.name not in chain.constants]
    outputs = [each.name for each in model.graph.output]
    if model.producer_name == "gpubp" and {INPUTS, OUTS} <= {*inputs, *chain.nodes}:
        inputs, outputs = [INPUTS], [OUTS]
    for word, given, names in (("start", start, inputs), ("end", end, outputs)):
        if given is None and len(names) != 1:
            raise SpecError(f"{chain.where} has {word}s {', '.join(names[:9])}; {word}= with one of them expected")
        if given is not None and given not in {*inputs, *chain.nodes}:
            raise SpecError(f"{chain.where}: {word} {given!r} is no tensor of the graph")
    return start or inputs[0], end or outputs[0]


def _read(path: Path) -> Any:
    """The onnx.ModelProto of a file."""
    needed()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        files.regular(path)
        if path.stat().st_size > MOST:
            raise SpecError(f"{path} has {path.stat().st_size:,} bytes; an ONNX file of at most 2 GB expected")
        model = onnx.ModelProto.FromString(files.read(path))
    except (OSError, DecodeError) as error:
        raise SpecError(f"{path} cannot be read: {reason(error, 'it is no ONNX file')}") from None
    if not model.graph.node:
        raise SpecError(f"{path} has no nodes: it is no ONNX file of a network")
    return model


def _constants(graph: Any) -> dict[str, Array | str]:
    """The constants of a graph: arrays, or why one cannot be read."""
    tensors = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            found = [each.t for each in node.attribute if each.name == "value"]
            tensors |= dict.fromkeys(node.output, found[0]) if found else {}
    return {name: _array(each) for name, each in tensors.items()}


def _array(tensor: Any) -> Array | str:
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        return "is outside the file, in another one that it names, which is never opened; weights inside expected"
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return "is of another type than float32 and float64"
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return "has other data than its shape says"
    return array
