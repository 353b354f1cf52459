"""READ THIS FIRST. Forward and backward of N networks at once, in raw torch operations, no autograd.

    net = below @ weight + bias            out = value(net)             loss = mean of error(out, target)
    delta = dloss/dnet = dloss/dout * slope(net, out)
    grad_weight = below^T @ delta          grad_bias = sum of delta over the samples
    dloss/dout of the layer below = delta @ weight^T

Words as in Matt Mazur's "A Step by Step Backpropagation Example". Shapes: below (N, B, I), net, out and delta (N, B,
O), weight (N, I, O), bias (N, O). `layers` holds (weight, bias) of every layer, possibly padded to the widths of
numerics.kernel_widths: a padding unit may have an out, but its outgoing weights are 0 and it gets no delta. Only the
gradient of its outgoing weights is not 0; it is cut off when gradients are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from .errors import ConfigError, ShapeError, unknown
from .maths.activations import ACTIVATIONS
from .maths.blocks import CHUNK, Layers, blocks, check, spread, whole, widen
from .maths.losses import LOSSES, cross_entropy_shares
from .maths.numerics import flush, kernel_widths, product
from .maths.spec import NetworkSpec
from .system.ambient import neutral


class Pass(NamedTuple):
    """The results of a forward pass that the backward pass needs, a tensor per layer."""

    belows: list[Tensor]  # (N, B, I): the layer's inputs: the network's, or the outs below after dropout
    nets: list[Tensor]  # (N, B, O)
    outs: list[Tensor]  # (N, B, O)


def forward_layers(
    spec: NetworkSpec,
    layers: Layers,
    inputs: Float[Tensor, "N B I"],
    masks: Sequence[Tensor] = (),
    silent: Bool[Tensor, "N B"] | None = None,
) -> Pass:
    """Nets and outs of every layer. masks: dropout's factor for the outs of each hidden layer, (N, B, O) each. silent:
    the samples that do not count (`uncounted`), whose nets and outs are 0, even if they overflow."""
    belows, nets, outs = [inputs], [], []
    for number, (name, (weight, bias)) in enumerate(zip(spec.activations, layers)):
        net = product(belows[-1], weight, bias)
        nets.append(hushed(net, silent))
        outs.append(hushed(ACTIVATIONS[name].value(net), silent))
        if number < len(layers) - 1:
            belows.append(outs[-1] * masks[number] if masks else outs[-1])
    return Pass(belows, nets, outs)


def backward_layers(
    spec: NetworkSpec,
    layers: Layers,
    passed: Pass,
    delta: Float[Tensor, "N B O"],
    masks: Sequence[Tensor] = (),
    silent: Bool[Tensor, "N B"] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (number, grad_weight (N, I, O), grad_bias (N, O)), the last layer first; delta is the output layer's.

    The delta below is computed when the caller asks for the next layer, from the weights at that time: changing
    them in between gives the tutorial's "layerwise" order.
    """
    for number in reversed(range(len(layers))):
        yield number, product(passed.belows[number].mT, delta), delta.sum(1)
        if number:
            delta = product(delta, layers[number][0].mT)
            if masks:
                delta *= masks[number - 1]
            delta *= ACTIVATIONS[spec.activations[number - 1]].slope(passed.nets[number - 1], passed.outs[number - 1])
            delta = hushed(delta, silent)


def loss_and_delta(
    spec: NetworkSpec,
    net: Float[Tensor, "N B O"],
    out: Float[Tensor, "N B O"],
    target: Tensor,
    weight: Float[Tensor, "N B"] | None = None,
    hyper: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N B O"]]:
    """The loss of each network, and the delta of the output layer, padded as net and out are.

    target: (N, B, O), or class numbers (N, B). weight: of each sample; if all of a network's are 0, so are its loss
    and delta. hyper: the loss's hyper-parameters, (N, 1) each; class_weight (N, O).
    """
    rule, width, wide, batch = LOSSES[spec.loss], spec.widths[-1], out.shape[2], out.shape[1]
    net, out = net[:, :, :width], out[:, :, :width]
    error, slope, counted = errors(spec, out, target, weight, hyper)
    scale = 1 / width if rule.outputs == "mean" else 1.0
    silent = uncounted(target, weight, hyper)
    if counted is None:
        loss, delta = error.sum(1) * (scale / batch), slope * (scale / batch)
    else:
        # A minibatch of weight 0 does not count: its shares are 0, not 0 / 0.
        total = counted.sum(1, keepdim=True)
        share = scale / (total + (total == 0))
        share = share.expand(error.shape) if weight is None else weight * share
        loss, delta = hushed(error * share, silent).sum(1), slope * share[:, :, None]
    if spec.output != "identity":
        delta = delta * ACTIVATIONS[spec.output].slope(net, out)
    delta = hushed(flush(delta) if rule.exponential else delta, silent)
    return loss, pad(delta, (0, wide - width)) if wide > width else delta


def errors(
    spec: NetworkSpec,
    out: Float[Tensor, "N B O"],
    target: Tensor,
    weight: Float[Tensor, "N B"] | None,
    hyper: Mapping[str, Tensor] | None,
) -> tuple[Float[Tensor, "N B"], Float[Tensor, "N B O"], Float[Tensor, "N B"] | None]:
    """The error of each sample, summed over its outputs, its slope, and each sample's part of the mean's
    divisor: its weight, times its class's weight if classes have one; None if all are 1. Parameters as in
    loss_and_delta, without padding."""
    rule, hyper = LOSSES[spec.loss], hyper or {}
    arguments = {name: hyper[name][:, :, None] for name in rule.defaults if name in hyper}
    if not rule.classes:
        assert rule.slope is not None  # only a loss on classes returns value and slope together
        return rule.value(out, target, **arguments).sum(2), rule.slope(out, target, **arguments), weight
    class_weight = hyper.get("class_weight")
    shares = cross_entropy_shares(out, target, arguments.get("label_smoothing"), class_weight)
    error, slope = rule.value(out, target, shares)
    if class_weight is None:
        return error, slope, weight
    counted = class_weight.gather(1, target)
    return error, slope, counted if weight is None else weight * counted


def uncounted(
    target: Tensor, weight: Float[Tensor, "N B"] | None, hyper: Mapping[str, Tensor] | None
) -> Bool[Tensor, "N B"] | None:
    """Which samples do not count: those of weight 0, and those of a class of weight 0 unless labels are smoothed and
    another sample has weight; None if all count. Parameters as in loss_and_delta."""
    silent, class_weight = None if weight is None else weight == 0, (hyper or {}).get("class_weight")
    if class_weight is not None:
        counted = class_weight.gather(1, target) * (1 if weight is None else weight)
        nothing = counted == 0
        if hyper and "label_smoothing" in hyper:
            nothing &= (hyper["label_smoothing"] == 0) | nothing.all(1, keepdim=True)
        silent = nothing if silent is None else silent | nothing
    return silent


def hushed(values: Tensor, silent: Bool[Tensor, "N B"] | None) -> Tensor:
    """values (N, B) or (N, B, O) with 0 for every sample in `silent`: 0 times an overflow would be NaN."""
    return values if silent is None else values.masked_fill(silent if values.ndim == 2 else silent[:, :, None], 0)


def store(spec: NetworkSpec, grad: Float[Tensor, "N P"], number: int, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Store one layer's gradients, without padding, in their columns of the rows."""
    at = spec.layout[number]
    grad[:, at.weight].unflatten(1, (at.inputs, at.outputs)).copy_(grad_weight[:, : at.inputs, : at.outputs])
    grad[:, at.bias] = bias_gradient(spec, grad_bias[:, : at.outputs])


def bias_gradient(spec: NetworkSpec, grad_bias: Float[Tensor, "N O"]) -> Float[Tensor, "N _"]:
    """(N, O), summed to (N, 1) for one bias per layer; (N, 0) for none; 0 if frozen."""
    if spec.bias == "none":
        return grad_bias[:, :0]
    if not spec.train_bias:
        grad_bias = torch.zeros_like(grad_bias)
    return grad_bias if spec.bias == "neuron" else grad_bias.sum(1, keepdim=True)


@neutral()
@torch.no_grad()
def forward(spec: NetworkSpec, params: Float[Tensor, "N P"], inputs: Float[Tensor, "*N B I"]) -> Float[Tensor, "N B O"]:
    """The outs of N networks. inputs: (B, I) for all, or (N, B, I). Raises ShapeError for any other shape.

    Samples are computed in chunks of 256 and networks in blocks that stay in cache, without dropout.
    """
    check(spec, params, inputs)
    count, batch = len(params), inputs.shape[-2]
    inputs = spread(count, "inputs", inputs, 2)
    result = params.new_empty(count, batch, spec.widths[-1])
    for part in blocks(spec, count, min(batch, CHUNK), params.element_size(), params.device):
        for first in range(0, batch, CHUNK):
            piece = slice(first, min(first + CHUNK, batch))
            result[part, piece] = outs(spec, params[part], inputs[part, piece])
    return result


def outs(spec: NetworkSpec, params: Float[Tensor, "N P"], inputs: Float[Tensor, "N B I"]) -> Float[Tensor, "N B O"]:
    """The outs of one block of networks on one chunk of samples; the caller checks shapes."""
    (count, batch), widths = inputs.shape[:2], kernel_widths(spec.widths, inputs.shape[1])
    filled = whole(spec, params, batch)
    layers = widen(spec.layers(filled(params)), widths)
    passed = forward_layers(spec, layers, pad(filled(inputs), (0, widths[0] - spec.widths[0])))
    return passed.outs[-1][:count, :, : spec.widths[-1]]


@neutral()
@torch.no_grad()
def gradients(
    spec: NetworkSpec,
    params: Float[Tensor, "N P"],
    inputs: Float[Tensor, "*N B I"],
    targets: Float[Tensor, "..."] | Int[Tensor, "..."],
    sample_weight: Float[Tensor, "..."] | None = None,
    hyper: Mapping[str, float | Tensor] | None = None,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N P"]]:
    """The loss of N networks on one minibatch and its gradient with respect to their rows.

    inputs (B, I), targets (B, O) or class numbers (B,), sample_weight (B,), or each with N in front. hyper: the
    loss's hyper-parameters, numbers or (N,), for instance {"delta": 2.0} for huber; class_weight (O,) or (N, O). The
    gradient of frozen biases is 0. Raises ShapeError for wrong shapes. Networks are computed in blocks that stay in
    cache, so memory is needed only for loss and gradient, and for one block.
    """
    check(spec, params, inputs)
    count, rule = len(params), LOSSES[spec.loss]
    inputs = spread(count, "inputs", inputs, 2)
    batch, width = inputs.shape[1], spec.widths[-1]
    targets = spread(count, "targets", targets, 1 if rule.classes else 2)
    if targets.shape[1:] != ((batch,) if rule.classes else (batch, width)):
        wanted = f"(B,) class numbers, B = {batch}" if rule.classes else f"(B, O) = ({batch}, {width})"
        raise ShapeError(f"targets {tuple(targets.shape[1:])} for each network: {wanted} expected")
    weight = None if sample_weight is None else spread(count, "sample_weight", sample_weight, 1)
    if weight is not None and weight.shape[1] != batch:
        raise ShapeError(f"sample_weight {tuple(weight.shape[1:])} for each network: ({batch},) expected")
    for name in hyper or {}:
        if name not in rule.defaults and not (name == "class_weight" and rule.classes):
            raise ConfigError(unknown(f"hyper-parameter of loss {spec.loss!r}", name, rule.defaults))
    columns = {name: _column(name, value, params) for name, value in {**rule.defaults, **(hyper or {})}.items()}

    loss, grad = params.new_empty(count), params.new_empty(count, spec.size)
    for part in blocks(spec, count, batch, params.element_size(), params.device):
        some = params[part], inputs[part], targets[part], None if weight is None else weight[part]
        loss[part], grad[part] = _gradients(spec, *some, {name: column[part] for name, column in columns.items()})
    return loss, grad


def _gradients(
    spec: NetworkSpec, params: Tensor, inputs: Tensor, targets: Tensor, weight: Tensor | None, hyper: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """`gradients` of one block, N in front of everything."""
    count, batch = inputs.shape[:2]
    filled, widths = whole(spec, params, batch), kernel_widths(spec.widths, batch)
    layers = widen(spec.layers(filled(params)), widths)
    targets, weight = filled(targets), None if weight is None else filled(weight)
    hyper = {name: filled(column) for name, column in hyper.items()}
    silent = uncounted(targets, weight, hyper)
    passed = forward_layers(spec, layers, pad(filled(inputs), (0, widths[0] - spec.widths[0])), silent=silent)
    loss, delta = loss_and_delta(spec, passed.nets[-1], passed.outs[-1], targets, weight, hyper)
    grad = params.new_empty(len(loss), spec.size)
    for number, grad_weight, grad_bias in backward_layers(spec, layers, passed, delta, silent=silent):
        store(spec, grad, number, grad_weight, grad_bias)
    return loss[:count], grad[:count]


def _column(name: str, value: float | Tensor, params: Tensor) -> Tensor:
    given = torch.as_tensor(value).to(params)
    if name == "class_weight":
        return given.expand(len(params), -1)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != len(params)):
        raise ShapeError(f"{name} {tuple(given.shape)}: a number or ({len(params)},) expected")
    return given.expand(len(params))[:, None]
