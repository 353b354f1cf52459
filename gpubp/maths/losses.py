"""LOSSES: one row each: the error of one output and its slope, in plain torch arithmetic that torch.fx can trace.

The loss of a network is the mean over samples; over a sample's outputs it is the mean, or the sum if the row says so.
With sample weights, it is sum(weight * error) / sum(weight). Names, defaults and meanings are torch.nn.functional's if
it has the loss; half_squared_error (the tutorial's: the sum over outputs of (target - out)^2 / 2) and hinge (targets -1
and +1) differ. Losses of logits take the net of an identity output and accept any finite one. Errors of nearly right
networks do not cancel: they still learn, in float32 too.

The expected target is the inverse link of the out: the rate for poisson, the probability for a logit, the out itself
for most losses.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .activations import sigmoid
from .rows import Table


def same(out: Tensor) -> Tensor:
    """Identity link: the out is the expected target."""
    return out


def rate(out: Tensor) -> Tensor:
    """Log link: the out is the logarithm of the expected target."""
    return torch.exp(out)


def margin(out: Tensor) -> Tensor:
    """From -1 to 1: hinge does not distinguish margins beyond 1, so one very sure network cannot outvote many."""
    return torch.clamp(out, -1, 1)


def probabilities(out: Tensor) -> Tensor:
    """Softmax over the classes, the last dimension."""
    return torch.softmax(out, -1)


class Loss(NamedTuple):
    """An error and its derivative.

    Attributes:
        value: out, target, <hyper-parameters by name> -> error of each output.
        slope: the same -> dvalue/dout, shape of out.
        outputs: how the errors of one sample's outputs combine, "mean" or "sum".
        classes: the targets are class numbers and the rule is not elementwise: `value` returns both the error of each
            sample and its slope (cross_entropy).
        defaults: hyper-parameters and their values.
        metric: reported with the loss: accuracy by the largest of the "classes" or by the "sign" of the
            out, or "r2".
        takes: what an out means: a "number"; a "logit" or a "log rate", any real number that the rule transforms;
            or a "score", whose sign is the class.
        inverse_link: out (..., O) -> the expected target, the same shape; an ensemble predicts its mean over networks.
    """

    value: Callable[..., Any]
    slope: Callable[..., Tensor] | None
    outputs: str = "mean"
    classes: bool = False
    defaults: Mapping[str, float] = {}
    metric: str = "r2"
    takes: str = "number"
    inverse_link: Callable[[Tensor], Tensor] = same

    @property
    def exponential(self) -> bool:
        """Whether the slope is a difference of powers of e, which vanish as a network becomes sure."""
        return self.takes in ("logit", "log rate")


def half_squared_error(out: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (out - target) * (out - target)


def half_squared_error_slope(out: Tensor, target: Tensor) -> Tensor:
    return out - target


def mean_squared_error(out: Tensor, target: Tensor) -> Tensor:
    return (out - target) * (out - target)


def mean_squared_error_slope(out: Tensor, target: Tensor) -> Tensor:
    return 2 * (out - target)


def mean_absolute_error(out: Tensor, target: Tensor) -> Tensor:
    return torch.abs(out - target)


def mean_absolute_error_slope(out: Tensor, target: Tensor) -> Tensor:
    return torch.sign(out - target)


def huber(out: Tensor, target: Tensor, delta: Tensor) -> Tensor:
    gap = torch.abs(out - target)
    near = torch.minimum(gap, delta)
    return near * (gap - 0.5 * near)


def huber_slope(out: Tensor, target: Tensor, delta: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(out - target, delta), -delta)


def log_cosh(out: Tensor, target: Tensor) -> Tensor:
    """log(cosh(gap)), where cosh(x) - 1 = grown^2 / (2 (grown + 1)); linear from 20 on, even in float64."""
    gap = torch.abs(out - target)
    near = torch.clamp(gap, max=20)
    grown = torch.expm1(near)
    return (gap - near) + torch.log1p(0.5 * grown * (grown / (grown + 1)))


def log_cosh_slope(out: Tensor, target: Tensor) -> Tensor:
    return torch.tanh(out - target)


def quantile(out: Tensor, target: Tensor, quantile: Tensor) -> Tensor:
    """Koenker, Bassett, "Regression Quantiles", 1978: quantile times a shortfall, 1 - quantile times an excess."""
    over = out - target
    return torch.maximum((1 - quantile) * over, -quantile * over)


def quantile_slope(out: Tensor, target: Tensor, quantile: Tensor) -> Tensor:
    over = 0.5 + 0.5 * torch.sign(out - target)
    return (1 - quantile) * over - quantile * (1 - over)


def poisson(out: Tensor, target: Tensor) -> Tensor:
    """out is the logarithm of the rate; the term that depends only on the target is omitted, as in torch."""
    return torch.exp(out) - target * out


def poisson_slope(out: Tensor, target: Tensor) -> Tensor:
    return torch.exp(out) - target


def hinge(out: Tensor, target: Tensor) -> Tensor:
    return torch.clamp(1 - target * out, min=0)


def hinge_slope(out: Tensor, target: Tensor) -> Tensor:
    return -target * torch.sign(hinge(out, target))


def binary_cross_entropy(out: Tensor, target: Tensor) -> Tensor:
    """out is a logit, target from 0 to 1."""
    wrong = torch.clamp(out, min=0) * (1 - target) - torch.clamp(out, max=0) * target
    return wrong + torch.log1p(torch.exp(-torch.abs(out)))


def binary_cross_entropy_slope(out: Tensor, target: Tensor) -> Tensor:
    """sigmoid(out) - target = (1 - target) sigmoid(out) - target sigmoid(-out), with the exponential in `value`."""
    power, positive = torch.exp(-torch.abs(out)), 0.5 + 0.5 * torch.sign(out)
    more = 1 / (1 + power)
    less = power * more
    return (1 - target) * (less + positive * (more - less)) - target * (less + (1 - positive) * (more - less))


def cross_entropy_shares(
    out: Tensor, target: Tensor, label_smoothing: Tensor | None, class_weight: Tensor | None
) -> Tensor | None:
    """The weight of each class in each sample's error (..., O), or None if only the target's class counts.

    (1 - smoothing) weight[target] for the target's class, plus smoothing / O * weight[class] for every class.
    """
    if label_smoothing is None and class_weight is None:
        return None
    classes = out.shape[-1]
    weight = out.new_ones(()) if class_weight is None else class_weight.unsqueeze(-2)
    full = out.new_ones(out.shape) * weight
    if label_smoothing is None:
        return torch.zeros_like(full).scatter_add_(-1, target[..., None], full.gather(-1, target[..., None]))
    each = full * (label_smoothing / classes)
    return each.scatter_add_(-1, target[..., None], ((1 - label_smoothing) * full).gather(-1, target[..., None]))


def cross_entropy(out: Tensor, target: Tensor, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (..., O), class numbers (...), shares (..., O) or None -> the error of each sample (...), and its slope
    (..., O), softmax minus target. They share the powers.

    The target's power is summed apart from the others': next to its 1, a sure network's small error would be lost.
    """
    index, shifted = target[..., None], out - out.amax(-1, keepdim=True)
    powers = torch.exp(shifted)
    power = powers.gather(-1, index)
    others = powers.scatter(-1, index, 0).sum(-1, keepdim=True)
    log_total, total = torch.log1p(others + (power - 1)), others + power
    gap = powers.scatter_(-1, index, -others) / total  # softmax minus one-hot
    if shares is None:
        return (log_total - shifted.gather(-1, index)).squeeze(-1), gap
    whole = shares.sum(-1, keepdim=True)
    error = (shares * (log_total - shifted)).masked_fill(shares == 0, 0)  # a logit far below the others may be -inf
    return error.sum(-1), whole * gap - shares.scatter_add(-1, index, -whole)


LOSSES: Table[Loss] = Table()
LOSSES |= {
    "half_squared_error": Loss(half_squared_error, half_squared_error_slope, outputs="sum"),
    "mean_squared_error": Loss(mean_squared_error, mean_squared_error_slope),
    "mean_absolute_error": Loss(mean_absolute_error, mean_absolute_error_slope),
    "huber": Loss(huber, huber_slope, defaults={"delta": 1.0}),
    "log_cosh": Loss(log_cosh, log_cosh_slope),
    "quantile": Loss(quantile, quantile_slope, defaults={"quantile": 0.5}),
    "poisson": Loss(poisson, poisson_slope, takes="log rate", inverse_link=rate),
    "hinge": Loss(hinge, hinge_slope, metric="sign", takes="score", inverse_link=margin),
    "binary_cross_entropy": Loss(
        binary_cross_entropy, binary_cross_entropy_slope, metric="sign", takes="logit", inverse_link=sigmoid
    ),
    "cross_entropy": Loss(
        cross_entropy,
        None,
        outputs="sum",
        classes=True,
        defaults={"label_smoothing": 0.0},
        metric="classes",
        takes="logit",
        inverse_link=probabilities,
    ),
}
