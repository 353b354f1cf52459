"""OPTIMIZERS: a row each, in plain torch arithmetic that torch.fx can trace: new = param - lr * rate * direction.

Names, meanings and defaults are torch.optim's, betas as beta1 and beta2; where a convention differs, the rule says so.
What depends on network and step alone (Adam's bias correction) is computed by `prepare`, in float64, once per step:
in float32 1 - beta2 would lose 6e-5 of itself. With eps = 0, a parameter whose gradient has been 0 from the start gets
0 / 0 from every rule that divides by a root: its network diverges at once, where torch's goes on with NaN. Rules that
keep squares of gradients (adagrad to nadam) cannot keep what overflows: from gradients of 2e19 on in float32, 1e154 in
float64, the network diverges, and its row stays as it was, where torch's never moves that parameter again.
Add a row: `gpubp.OPTIMIZERS["name"] = Optimizer(direction, ...)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .schedules import names


class Optimizer(NamedTuple):
    """How a gradient becomes a direction; elementwise, any shape, hyper-parameters broadcast along it.

    Attributes:
        direction: grad, *slots, <hyper-parameters and prepared, by name> -> the direction, or (direction, *slots).
        slots: names of tensors like the parameters that a network carries along; they start at 0.
        defaults: hyper-parameters besides lr and weight_decay.
        columns: names of numbers of each network that start at 1.
        prepare: <columns and hyper-parameters by name> -> {name: column}, (N, 1) float64. What it returns under a name
            of `columns` is kept for the next step, the rest is for this one; "rate", if it is there, multiplies lr.
        decoupled: weight decay beside the gradient (AdamW), not inside it.
        lr: the default learning rate.
        weight_decay: its default.
        absorbing: a slot's number that is not finite stays so; an engine may then look for such numbers at the end of
            a call. Of other rules it looks at the slots after every step.
    """

    direction: Callable[..., Tensor | tuple[Tensor, ...]]
    slots: tuple[str, ...] = ()
    defaults: Mapping[str, float] = {}
    columns: tuple[str, ...] = ()
    prepare: Callable[..., dict[str, Tensor]] | None = None
    decoupled: bool = False
    lr: float = 1e-3
    weight_decay: float = 0.0
    absorbing: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names that `direction` takes after the gradient and the slots."""
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
    """Duchi, Hazan, Singer, 2011; without torch's lr_decay, which a schedule does."""
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
    """Kingma, Ba, 2015, the second form of their section 2: both corrections in the rate, and in eps to match torch."""
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
    """Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023. torch has none."""
    return torch.sign(torch.lerp(mean, grad, rest1)), torch.lerp(mean, grad, rest2)


ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
POWERS = ("power1", "power2")
OPTIMIZERS: dict[str, Optimizer] = {
    name: rule._replace(absorbing=True)
    for name, rule in {
        "sgd": Optimizer(sgd),
        "momentum": Optimizer(momentum, ("velocity",), {"momentum": 0.9}),
        "nesterov": Optimizer(nesterov, ("velocity",), {"momentum": 0.9}),
        "adagrad": Optimizer(adagrad, ("total",), {"eps": 1e-10}, lr=1e-2),
        "rmsprop": Optimizer(rmsprop, ("square",), {"alpha": 0.99, "eps": 1e-8}, prepare=rmsprop_prepare, lr=1e-2),
        "adadelta": Optimizer(
            adadelta, ("square", "moved"), {"rho": 0.9, "eps": 1e-6}, prepare=adadelta_prepare, lr=1.0
        ),
        "adam": Optimizer(adam, ("mean", "square"), ADAM, POWERS, adam_prepare),
        "amsgrad": Optimizer(amsgrad, ("mean", "square", "largest"), ADAM, POWERS, adam_prepare),
        "adamw": Optimizer(adam, ("mean", "square"), ADAM, POWERS, adam_prepare, decoupled=True, weight_decay=1e-2),
        "nadam": Optimizer(
            nadam,
            ("mean", "square"),
            {**ADAM, "momentum_decay": 4e-3},
            ("power2", "drift", "product"),
            nadam_prepare,
            lr=2e-3,
        ),
        "lion": Optimizer(
            lion, ("mean",), {"beta1": 0.9, "beta2": 0.99}, prepare=lion_prepare, decoupled=True, lr=1e-4
        ),
    }.items()
}  # fmt: skip


def prepare(
    rule: Optimizer, hyper: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """What `rule` needs in this step, its columns after it, and what it multiplies lr with, or None for 1.

    hyper: the hyper-parameters; columns: the rule's own, of before the step. All (N, 1) float64.
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

    direction: what the direction is multiplied with. decay: weight_decay, or for a decoupled rule 1 - lr *
    weight_decay; None without decay. arguments: of the rule."""

    direction: Tensor
    decay: Tensor | None
    arguments: Mapping[str, Tensor]

    def like(self, grad: Tensor) -> Rates:
        """The columns (N, 1) with as many dimensions as grad (N, ...)."""

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
    """One step of `rule` on param (N, ...), in place; grad and every slot like it. -> the new slots.

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
    return after
