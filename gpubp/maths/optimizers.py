"""OPTIMIZERS: one row each, in plain torch arithmetic that torch.fx can trace: new = param - lr * rate * direction.

Names, meanings and defaults are torch.optim's, with betas as beta1 and beta2; rules that differ say so.
`prepare` computes what depends only on network and step (Adam's bias correction), once per step in float64:
1 - beta2 in float32 has a relative error of 6e-5. With eps = 0, rules that divide by a root give 0 / 0 for a parameter
whose gradient has always been 0: the network diverges at once, while torch continues with NaN. In rules that
keep squared gradients (adagrad to nadam) the squares overflow from gradients of 2e19 on in float32, 1e154 in
float64: the network diverges and keeps its last row, while torch never moves that parameter again.
Add a row: `gpubp.OPTIMIZERS["name"] = Optimizer(direction, ...)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .numerics import flush
from .rows import Table
from .schedules import names


class Optimizer(NamedTuple):
    """How a gradient becomes a direction: elementwise on any shape, to which hyper-parameters broadcast.

    Attributes:
        direction: grad, *slots, <hyper-parameters and prepared, by name> -> the direction, or (direction, *slots).
        slots: names of the optimizer's tensors, each shaped like the parameters; they start at 0.
        defaults: hyper-parameters besides lr and weight_decay.
        columns: names of the optimizer's numbers, one per network; they start at 1.
        prepare: <columns and hyper-parameters by name> -> {name: column}, (N, 1) float64. Results named in `columns`
            are kept for the next step, the others are for this step; "rate", if present, multiplies lr.
        decoupled: whether weight decay is decoupled from the gradient (AdamW).
        lr: the default learning rate.
        weight_decay: its default.
        formulas: for people, by name in the order of computation: of `columns`, of what the direction needs from
            `prepare`, of "rate" if it is not lr, of `slots` and "direction". g is the gradient; a name with an earlier
            formula means its result. gpubp explain and the site show them; without formulas, only names and results.
            absorbing: a non-finite number in a slot stays non-finite, so an engine needs to check only at the end of
            a call. With other rules it checks the slots after every step.
    """

    direction: Callable[..., Tensor | tuple[Tensor, ...]]
    slots: tuple[str, ...] = ()
    defaults: Mapping[str, float] = {}
    columns: tuple[str, ...] = ()
    prepare: Callable[..., dict[str, Tensor]] | None = None
    decoupled: bool = False
    lr: float = 1e-3
    weight_decay: float = 0.0
    formulas: Mapping[str, str] = {}
    absorbing: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of `direction`'s arguments after the gradient and the slots."""
        return names(self.direction)[1 + len(self.slots) :]


def sgd(grad: Tensor) -> Tensor:
    return grad


def momentum(grad: Tensor, velocity: Tensor, momentum: Tensor) -> tuple[Tensor, ...]:
    velocity = momentum * velocity + grad
    return velocity, velocity


def nesterov(grad: Tensor, velocity: Tensor, momentum: Tensor) -> tuple[Tensor, ...]:
    velocity = momentum * velocity + grad
    return grad + momentum * velocity, velocity


def adagrad(grad: Tensor, total: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
    """Duchi, Hazan, Singer, 2011; without torch's lr_decay, which is a schedule's job."""
    total = torch.addcmul(total, grad, grad)
    return grad / (torch.sqrt(total) + eps), total


def rmsprop_prepare(alpha: Tensor) -> dict[str, Tensor]:
    return {"rest": 1 - alpha}


def rmsprop(grad: Tensor, square: Tensor, rest: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
    """Hinton, Coursera lecture 6e, 2012; torch's with momentum 0 and not centered."""
    square = torch.lerp(square, grad * grad, rest)
    return grad / (torch.sqrt(square) + eps), square


def adadelta_prepare(rho: Tensor) -> dict[str, Tensor]:
    return {"rest": 1 - rho}


def adadelta(grad: Tensor, square: Tensor, moved: Tensor, rest: Tensor, eps: Tensor) -> tuple[Tensor, ...]:
    """Zeiler, 2012."""
    square = torch.lerp(square, grad * grad, rest)
    direction = torch.sqrt(moved + eps) / torch.sqrt(square + eps) * grad
    return direction, square, torch.lerp(moved, direction * direction, rest)


def adam_prepare(power1: Tensor, power2: Tensor, beta1: Tensor, beta2: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """Kingma, Ba, 2015, end of section 2: both corrections in the rate, and in eps to match torch."""
    power1, power2 = power1 * beta1, power2 * beta2
    root = torch.sqrt(1 - power2)
    return {
        "power1": power1,
        "power2": power2,
        "rest1": 1 - beta1,
        "rest2": 1 - beta2,
        "floor": eps * root,
        "rate": root / (1 - power1),
    }


def adam(grad: Tensor, mean: Tensor, square: Tensor, rest1: Tensor, rest2: Tensor, floor: Tensor) -> tuple[Tensor, ...]:
    mean = torch.lerp(mean, grad, rest1)
    square = torch.lerp(square, grad * grad, rest2)
    return mean / (torch.sqrt(square) + floor), mean, square


def amsgrad(
    grad: Tensor, mean: Tensor, square: Tensor, largest: Tensor, rest1: Tensor, rest2: Tensor, floor: Tensor
) -> tuple[Tensor, ...]:
    """Reddi, Kale, Kumar, 2018; like torch, the largest uncorrected square."""
    mean = torch.lerp(mean, grad, rest1)
    square = torch.lerp(square, grad * grad, rest2)
    largest = torch.maximum(largest, square)
    return mean / (torch.sqrt(largest) + floor), mean, square, largest


def nadam_prepare(
    power2: Tensor, drift: Tensor, product: Tensor, beta1: Tensor, beta2: Tensor, momentum_decay: Tensor
) -> dict[str, Tensor]:
    """Dozat, 2016: the momentum of step t is beta1 (1 - 0.96^(t momentum_decay) / 2)."""
    slower = torch.exp(math.log(0.96) * momentum_decay)
    power2, drift = power2 * beta2, drift * slower
    now, following = beta1 * (1 - 0.5 * drift), beta1 * (1 - 0.5 * drift * slower)
    product = product * now
    return {
        "power2": power2,
        "drift": drift,
        "product": product,
        "rest1": 1 - beta1,
        "rest2": 1 - beta2,
        "share": (1 - now) / (1 - product),
        "ahead": following / (1 - product * following),
        "scale": 1 / torch.sqrt(1 - power2),
    }


def nadam(
    grad: Tensor, mean: Tensor, square: Tensor,
    rest1: Tensor, rest2: Tensor, share: Tensor, ahead: Tensor, scale: Tensor, eps: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    mean = torch.lerp(mean, grad, rest1)
    square = torch.lerp(square, grad * grad, rest2)
    return (share * grad + ahead * mean) / (scale * torch.sqrt(square) + eps), mean, square


def lion_prepare(beta1: Tensor, beta2: Tensor) -> dict[str, Tensor]:
    return {"rest1": 1 - beta1, "rest2": 1 - beta2}


def lion(grad: Tensor, mean: Tensor, rest1: Tensor, rest2: Tensor) -> tuple[Tensor, ...]:
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. Not in torch."""
    return torch.sign(torch.lerp(mean, grad, rest1)), torch.lerp(mean, grad, rest2)


ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
POWERS = ("power1", "power2")
VELOCITY = {"velocity": "momentum*velocity + g"}
MEANS = {"mean": "beta1*mean + (1 - beta1)*g", "square": "beta2*square + (1 - beta2)*g**2"}
CORRECTED = {
    "power1": "power1*beta1", "power2": "power2*beta2", "rate": "lr*sqrt(1 - power2)/(1 - power1)", **MEANS,
}  # fmt: skip
ADAMS = {**CORRECTED, "direction": "mean/(sqrt(square) + eps*sqrt(1 - power2))"}
OPTIMIZERS: Table[Optimizer] = Table()
OPTIMIZERS |= {
    name: rule._replace(absorbing=True)
    for name, rule in {
        "sgd": Optimizer(sgd, formulas={"direction": "g"}),
        "momentum": Optimizer(
            momentum, ("velocity",), {"momentum": 0.9}, formulas={**VELOCITY, "direction": "velocity"}
        ),
        "nesterov": Optimizer(
            nesterov, ("velocity",), {"momentum": 0.9}, formulas={**VELOCITY, "direction": "g + momentum*velocity"}
        ),
        "adagrad": Optimizer(
            adagrad, ("total",), {"eps": 1e-10}, lr=1e-2,
            formulas={"total": "total + g**2", "direction": "g/(sqrt(total) + eps)"},
        ),
        "rmsprop": Optimizer(
            rmsprop, ("square",), {"alpha": 0.99, "eps": 1e-8}, prepare=rmsprop_prepare, lr=1e-2,
            formulas={"square": "alpha*square + (1 - alpha)*g**2", "direction": "g/(sqrt(square) + eps)"},
        ),
        "adadelta": Optimizer(
            adadelta, ("square", "moved"), {"rho": 0.9, "eps": 1e-6}, prepare=adadelta_prepare, lr=1.0,
            formulas={
                "square": "rho*square + (1 - rho)*g**2",
                "direction": "sqrt(moved + eps)/sqrt(square + eps)*g",
                "moved": "rho*moved + (1 - rho)*direction**2",
            },
        ),
        "adam": Optimizer(adam, ("mean", "square"), ADAM, POWERS, adam_prepare, formulas=ADAMS),
        "amsgrad": Optimizer(
            amsgrad, ("mean", "square", "largest"), ADAM, POWERS, adam_prepare,
            formulas={
                **CORRECTED,
                "largest": "max(largest, square)",
                "direction": "mean/(sqrt(largest) + eps*sqrt(1 - power2))",
            },
        ),
        "adamw": Optimizer(
            adam, ("mean", "square"), ADAM, POWERS, adam_prepare, decoupled=True, weight_decay=1e-2, formulas=ADAMS
        ),
        "nadam": Optimizer(
            nadam, ("mean", "square"), {**ADAM, "momentum_decay": 4e-3}, ("power2", "drift", "product"),
            nadam_prepare, lr=2e-3,
            formulas={
                "power2": "power2*beta2",
                "drift": "drift*0.96**momentum_decay",
                "now": "beta1*(1 - drift/2)",
                "following": "beta1*(1 - drift*0.96**momentum_decay/2)",
                "product": "product*now",
                **MEANS,
                "direction": "((1 - now)*g/(1 - product) + following*mean/(1 - product*following))"
                "/(sqrt(square/(1 - power2)) + eps)",
            },
        ),
        "lion": Optimizer(
            lion, ("mean",), {"beta1": 0.9, "beta2": 0.99}, prepare=lion_prepare, decoupled=True, lr=1e-4,
            formulas={
                "direction": "sign(beta1*mean + (1 - beta1)*g)",
                "mean": "beta2*mean + (1 - beta2)*g",
            },
        ),
    }.items()
}  # fmt: skip


def prepare(
    rule: Optimizer, hyper: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Arguments of `rule.direction` in this step, the rule's columns after it, and its factor on lr, or None for 1.

    hyper: hyper-parameters; columns: the rule's, before the step. All (N, 1) float64.
    """
    if rule.prepare is None:
        return {name: hyper[name] for name in rule.arguments}, {}, None
    known = {**hyper, **columns}
    prepared = rule.prepare(**{name: known[name] for name in names(rule.prepare)})
    known = {**hyper, **prepared}
    arguments = {name: known[name] for name in rule.arguments}
    return arguments, {name: prepared[name] for name in rule.columns}, prepared.get("rate")


class Rates(NamedTuple):
    """The numbers of one step, (N, 1, ...) each, of the parameters' dtype.

    direction: its factor. decay: weight_decay, or 1 - lr * weight_decay for a decoupled rule; None without decay.
    arguments: of the rule."""

    direction: Tensor
    decay: Tensor | None
    arguments: Mapping[str, Tensor]

    def like(self, grad: Tensor) -> Rates:
        """The columns (N, 1), broadcastable to grad (N, ...)."""

        def shaped(column: Tensor) -> Tensor:
            return column.view(-1, *[1] * (grad.ndim - 1))

        decay = None if self.decay is None else shaped(self.decay)
        return Rates(shaped(self.direction), decay, {name: shaped(each) for name, each in self.arguments.items()})


def rates(
    rule: Optimizer, hyper: Mapping[str, Tensor], columns: Mapping[str, Tensor], lr: Tensor, dtype: torch.dtype
) -> tuple[Rates, dict[str, Tensor]]:
    """The Rates (N, 1) of this step at the scheduled rate `lr`, and the rule's columns after it."""
    arguments, after, rate = prepare(rule, hyper, columns)
    decay = hyper.get("weight_decay")
    if decay is not None and rule.decoupled:
        decay = 1 - lr * decay
    return Rates(
        (lr if rate is None else lr * rate).to(dtype),
        None if decay is None else decay.to(dtype),
        {name: column.to(dtype) for name, column in arguments.items()},
    ), after


def update(rule: Optimizer, param: Tensor, grad: Tensor, slots: Sequence[Tensor], rates: Rates) -> list[Tensor]:
    """One step of `rule` on param (N, ...), in place; grad and slots have its shape. -> the new slots,
    0 where they are nearly denormal (numerics.flush).

    weight_decay * param is added to the gradient; a decoupled rule shrinks param by lr * weight_decay first.
    """
    if rates.decay is not None:
        if rule.decoupled:
            param.mul_(rates.decay)
        else:
            grad = torch.addcmul(grad, rates.decay, param)
    result = rule.direction(grad, *slots, **rates.arguments)
    direction, *after = (result,) if isinstance(result, Tensor) else result
    param.addcmul_(rates.direction, direction, value=-1)
    return [flush(slot) for slot in after]
