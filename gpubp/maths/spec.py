"""NetworkSpec: the specification of a network, checked once; layout(): the columns of its parameters in a row."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from ..errors import ShapeError, SpecError, check_kind, one_of
from ..line import counted
from ..system import arrays
from .activations import ACTIVATIONS, Activation
from .losses import LOSSES
from .rows import Rule

BIASES = ("neuron", "layer", "none")
OUTPUTS = {  # output activations that suit what a loss takes; other losses accept any
    "logit": ("identity",),
    "log rate": ("identity",),
    "score": ("identity", "tanh", "softsign", "hard_tanh", "sine"),  # symmetric about 0
}


class Layer(NamedTuple):
    """One layer's columns in a row: of its weight, I x O, and of its bias: O, one, or none."""

    inputs: int
    outputs: int
    weight: slice
    bias: slice


def layout(widths: Sequence[int], bias: str) -> list[Layer]:
    """Layer after layer, the weight before the bias, without gaps."""
    layers, start = [], 0
    for inputs, outputs in itertools.pairwise(widths):
        middle = start + inputs * outputs
        end = middle + {"neuron": outputs, "layer": 1, "none": 0}[bias]
        layers.append(Layer(inputs, outputs, slice(start, middle), slice(middle, end)))
        start = end
    return layers


@dataclass(frozen=True)
class NetworkSpec:
    """A fully connected network.

    widths: of the inputs, of every hidden layer, of the outputs. hidden: an activation of ACTIVATIONS, or one per
    hidden layer. output: the activation of the last layer. loss: one of LOSSES. Each is a name, or an Activation or
    Loss, which goes by the name of its function (rows.py). Losses that transform the outs (cross_entropy,
    binary_cross_entropy, poisson) need output="identity", hinge needs outs of both signs (OUTPUTS), all others accept
    any output. bias: one per "neuron", one per "layer" (the tutorial's), or "none". train_bias: False freezes the
    biases. Raises SpecError for invalid specifications.
    """

    widths: tuple[int, ...]
    hidden: Rule | tuple[Rule, ...] = "relu"
    output: Rule = "identity"
    loss: Rule = "mean_squared_error"
    bias: str = "neuron"
    train_bias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", _widths(self.widths))
        if not isinstance(self.hidden, (str, Activation)):
            array = isinstance(self.hidden, np.ndarray) and self.hidden.ndim == 1
            if not array and not isinstance(self.hidden, (list, tuple)):
                raise SpecError(
                    f"hidden {self.hidden!r}: the name of an activation, or a list of one per hidden layer, expected"
                )
            object.__setattr__(self, "hidden", tuple(self.hidden))
            if len(self.hidden) != len(self.widths) - 2:
                raise SpecError(
                    f"hidden names {counted(len(self.hidden), 'activation')}, {', '.join(map(repr, self.hidden))}; "
                    f"widths {self.widths} have {counted(len(self.widths) - 2, 'hidden layer')}: one name for all, or "
                    "one each"
                )
        for name, value in self._named().items():
            object.__setattr__(self, name, value)
        loss = LOSSES[self.loss]
        if self.output not in OUTPUTS.get(loss.takes, (self.output,)):
            allowed = " or ".join(map(repr, OUTPUTS[loss.takes]))
            raise SpecError(
                f"output {self.output!r} with loss {self.loss!r}, which takes a {loss.takes}: {allowed} expected; "
                f"for outs of {self.output!r}, use a loss on numbers such as 'mean_squared_error'"
            )
        one_of(BIASES, self.bias, "bias", SpecError)
        if not isinstance(self.train_bias, bool):
            raise SpecError(f"train_bias {self.train_bias!r}: True or False expected")
        if loss.classes and self.widths[-1] < 2:
            raise SpecError(
                f"loss {self.loss!r} needs an output per class, two or more; widths {self.widths} end in "
                f"{self.widths[-1]}; for one yes-or-no output use binary_cross_entropy"
            )
        object.__setattr__(self, "bias", str(self.bias))  # Python's string from NumPy's, for YAML

    def _named(self) -> dict[str, Any]:
        """Activations and loss by name; raises SpecError for unknown rules, and for two rules with one name."""
        one, given = isinstance(self.hidden, (str, Activation)), self.activations
        places = [f"hidden activation of layer {number + 1}" for number in range(len(given) - 1)]
        names = [ACTIVATIONS.name(each, where, SpecError) for each, where in zip(given, [*places, "output"])]
        different = [str(each) for each in {*names}]
        for name in different:
            if different.count(name) > 1:
                raise SpecError(f"activation {name!r}: several rules have this name; name their functions differently")
        hidden: Any = tuple(names[:-1])
        if one:
            hidden = hidden[0] if hidden else ACTIVATIONS.name(self.hidden, "hidden activation", SpecError)
        return {"hidden": hidden, "output": names[-1], "loss": LOSSES.name(self.loss, "loss", SpecError)}

    @property
    def activations(self) -> tuple[str, ...]:
        """The activation of every layer, the output's last."""
        one = isinstance(self.hidden, (str, Activation))
        hidden = (self.hidden,) * (len(self.widths) - 2) if one else self.hidden
        return (*hidden, self.output)

    @cached_property
    def layout(self) -> list[Layer]:
        """The columns of the layers' weights and biases in a row of parameters."""
        return layout(self.widths, self.bias)

    @property
    def size(self) -> int:
        """P, the number of parameters of one network."""
        return int(self.layout[-1].bias.stop)

    def layers(self, params: Tensor) -> list[tuple[Tensor, Tensor]]:
        """params (N, P) -> per layer views (weight (N, I, O), bias (N, O)); bias (N, 1) if one per layer, (N, 0)
        if there is none. Raises ShapeError for another shape."""
        if params.ndim != 2 or params.shape[1] != self.size:
            raise ShapeError(f"params {tuple(params.shape)}: (N, {self.size}) expected for widths {self.widths}")
        return [(params[:, at.weight].unflatten(1, (at.inputs, at.outputs)), params[:, at.bias]) for at in self.layout]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for YAML and JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: str(value) for name, value in values.items() if isinstance(value, str)}
        hidden = [*map(str, self.hidden)] if isinstance(self.hidden, tuple) else plain["hidden"]
        return values | plain | {"widths": list(self.widths), "hidden": hidden}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From the result of to_dict(); raises SpecError for an unknown name."""
        check_kind("network settings", values, Mapping, error=SpecError)
        known = [field.name for field in fields(cls)]
        for name in values:
            one_of(known, name, "network setting", SpecError)
        if "widths" not in values:
            raise SpecError("network settings lack widths, of inputs, hidden layers and outputs, such as (64, 32, 10)")
        return cls(**values)


def _widths(widths: Any) -> tuple[int, ...]:
    given = (
        []
        if isinstance(widths, (str, bytes)) or not isinstance(widths, Iterable) or getattr(widths, "ndim", 1) != 1
        else list(widths)
    )
    parsed = tuple(width for width in map(arrays.whole, given) if width is not None)
    if len(parsed) < len(given) or len(parsed) < 2 or min(parsed) < 1:
        raise SpecError(
            f"widths {widths!r}: whole numbers of 1 or more expected, of inputs, hidden layers and outputs, such as "
            "(64, 32, 10)"
        )
    return parsed
