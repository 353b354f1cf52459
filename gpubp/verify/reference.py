"""One network in torch.nn and torch.autograd, without formulas of this package, for comparison. A custom rule, which
torch does not have, is its own `value`, from which autograd makes the slope."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..export.modules import MODULES
from ..maths.activations import ACTIVATIONS
from ..maths.losses import LOSSES as LOSS_RULES
from ..maths.spec import NetworkSpec


def _quantile(out: Tensor, target: Tensor, quantile: float = 0.5) -> Tensor:
    missing = target - out
    return torch.where(missing > 0, quantile * missing, (quantile - 1) * missing).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {  # by name, on out (B, O) and target (B, O) or (B,) of one network
    "half_squared_error": lambda out, target: functional.mse_loss(out, target, reduction="sum") / (2 * len(out)),
    "mean_squared_error": functional.mse_loss,
    "mean_absolute_error": functional.l1_loss,
    "huber": functional.huber_loss,
    "log_cosh": lambda out, target: torch.log(torch.cosh(out - target)).mean(),
    "quantile": _quantile,
    "poisson": functional.poisson_nll_loss,
    "hinge": lambda out, target: torch.relu(1 - target * out).mean(),
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
    "cross_entropy": functional.cross_entropy,
}


def leaves(spec: NetworkSpec, row: Tensor) -> list[Tensor]:
    """Weight, bias, weight ... of one network (P,) as leaves of autograd; missing biases are left out, and frozen ones
    are not leaves."""
    parts = []
    for weight, bias in spec.layers(row[None]):
        parts += [
            weight[0].clone().requires_grad_(),
            bias[0].clone().requires_grad_(spec.train_bias and spec.bias != "none"),
        ]
    return parts


def reference_out(spec: NetworkSpec, parts: Sequence[Tensor], inputs: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
    """inputs (B, I) -> out (B, O) of one network, in torch.nn's own operations."""
    out = inputs
    for number, name in enumerate(spec.activations):
        weight, bias = parts[2 * number], parts[2 * number + 1]
        out = functional.linear(out, weight.T, bias.expand(weight.shape[1]) if len(bias) else None)
        out = MODULES[name]()(out) if name in MODULES else ACTIVATIONS[name].value(out)
        if masks and number < len(spec.activations) - 1:
            out = out * masks[number]
    return out


def reference_loss(name: str, out: Tensor, target: Tensor, sample_weight: Tensor | None = None, **hyper: Any) -> Tensor:
    """The loss of one network; with sample weights (B,) sum(weight * loss of the sample) / sum(weight), where the
    weight includes that of the class."""
    rule: Callable[..., Tensor] = LOSSES.get(name) or partial(_custom, name)
    class_weight = hyper.pop("class_weight", None)
    if class_weight is not None:
        hyper["weight"] = class_weight
    if sample_weight is None:
        return rule(out, target, **hyper)
    if class_weight is not None:
        each, total = rule(out, target, **hyper, reduction="none"), sample_weight * class_weight[target]
    else:
        each = torch.stack([rule(out[j : j + 1], target[j : j + 1], **hyper) for j in range(len(out))])
        total = sample_weight
    mean: Tensor = (sample_weight * each).sum() / total.sum()
    return mean


def _custom(name: str, out: Tensor, target: Tensor, **hyper: Any) -> Tensor:
    """A custom loss, with all samples counting the same."""
    rule = LOSS_RULES[name]
    error = rule.value(out, target, **{each: torch.as_tensor(value).to(out) for each, value in hyper.items()})
    each: Tensor = error[0] if rule.classes else error if rule.outputs == "mean" else error.sum(-1)
    return each.mean()


def reference_row(parts: Sequence[Tensor]) -> Tensor:
    """The gradients of `parts` as one row (P,); 0 for frozen parts."""
    return torch.cat([(torch.zeros_like(part) if part.grad is None else part.grad).flatten() for part in parts])
