"""Rows from ONNX files: the networks in a graph that is a chain of layers and activations.

A layer is Gemm, or MatMul and Add, with constant weights; an activation is one or several operators that compute one of
ACTIVATIONS: any that onnx.py writes, and those of VARIANTS. Conversions of floats, and of shapes if each sample keeps
its numbers, may be anywhere. The graph is read backwards from the tensor `end` to the tensor `start`, so preparation of
samples may come before `start`, and operators that turn outs into labels after `end`.

Refused: weights of other types than float32 and float64, and, by the name of the operator and its tensor, all else,
such as a scaler of the samples. Nothing in a file is executed.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SpecError, lookup
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from ..system import files
from .modules import alike, check_several
from .onnx import INPUTS, OUTS
from .onnx_chain import Chain, Layer
from .onnx_file import constants, read
from .onnx_graph import FUNCTIONS, Graph

VARIANTS = {  # activations as other libraries write them, in the form of Chain.expression()
    "Gelu[approximate=none](x)": "gelu",
    "Gelu[approximate=tanh](x)": "gelu_tanh",
    "Mul(0.5,Mul(Add(1,Erf(Div(x,1.414))),x))": "gelu",
    "Clip[max=1,min=-1](x)": "hard_tanh",
    "Where(Greater(x,20),x,Softplus(x))": "softplus",
}
OUTPUTS = {  # functions that belong to the loss here, where others have an output activation
    "Softmax[axis=-1](x)": "cross_entropy",
    "Softmax[axis=1](x)": "cross_entropy",
    "LogSoftmax[axis=-1](x)": "cross_entropy",
    "LogSoftmax[axis=1](x)": "cross_entropy",
    "Sigmoid(x)": "binary_cross_entropy",
    "Concat[axis=1](Sub(1,Sigmoid(x)),Sigmoid(x))": "binary_cross_entropy",  # of both classes
    "Exp(x)": "poisson",
}


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
    lookup(LOSSES, loss, "loss")
    if isinstance(paths, (str, Path)):
        raise SpecError(f"from_onnx takes several files: [path], not {paths!r} itself")
    check_several("from_onnx takes several files: [path]", paths)
    named = (files.path("paths", each) for each in paths)
    return alike("from_onnx", "file", ((str(path), *_rows(path, loss, start, end)) for path in named))


def _rows(path: Path, loss: str, start: str | None, end: str | None) -> tuple[NetworkSpec, Tensor]:
    model = read(path)
    chain = Chain(model.graph.node, constants(model.graph, path), str(path))
    start, end = _ends(model, chain, start, end)
    layers: list[Layer] = []
    names: list[str] = []
    known, at = _known(), end
    while at != start or not layers:
        if layers:
            chain.check_samples(at, start)
        text, base = chain.expression(at, start)
        layer = chain.layer(next(iter(base))) if len(base) == 1 else None
        name = "identity" if not layers and OUTPUTS.get(text) == loss else known.get(text)
        if name is None or layer is None or len(layers) > len(model.graph.node):
            what = "is an activation of several tensors" if len(base) > 1 else f"is {text}, where x is {[*base]}"
            raise chain.wrong(at, what + (f", as loss {OUTPUTS[text]!r} has it" if text in OUTPUTS else ""))
        chain.check_widths(layer.weight.shape[2])
        names.append(name)
        layers.append(layer)
        at = chain.through(layer.given, start)
    chain.check_widths(layers[-1].weight.shape[1])
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
    if len(outputs) > 1:
        labels = {each.name for each in model.graph.output if each.type.tensor_type.elem_type in (7, 8)}  # whole, text
        outputs = [name for name in outputs if name not in labels]
    ours = [name for name in chain.nodes if name.split("_")[0] == OUTS] if model.producer_name == "gpubp" else []
    if ours:  # one for each topology
        outputs = ours
        own = f"{INPUTS}{(end or ours[0]).removeprefix(OUTS)}"
        inputs = [name for name in (own, INPUTS) if name in {*inputs, *chain.nodes}][:1] or inputs
    for word, given, names in (("end", end, outputs), ("start", start, inputs)):
        if given is None and len(names) != 1:
            many = f"{len(ours)} topologies, and a population has one: " * (names == ours)
            what = f"{word}s {', '.join(names[:9])}; {word}= with one of them expected"
            raise SpecError(f"{chain.where} has {many}{what}")
        if given is not None and given not in {*inputs, *chain.nodes}:
            raise SpecError(f"{chain.where}: {word} {given!r} is no tensor of the graph")
    return start or inputs[0], end or outputs[0]
