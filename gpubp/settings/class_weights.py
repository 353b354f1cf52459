"""Weights of classes: how much a sample counts in the loss, by its class. BALANCED weights follow from each network's
samples, as in scikit-learn: M / (C m), for a class with m of M samples, among C classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from ..samples.data import Dataset
from ..system import arrays

BALANCED = "balanced"
AT_ONCE = 1 << 22  # samples counted at once


def plain(given: Any) -> Any:
    """`given` as a checkpoint can hold it. Raises ConfigError if it cannot be class weights."""
    if given is None or isinstance(given, str):
        if given not in (None, BALANCED):
            raise ConfigError(f"class_weight {given!r}: {BALANCED!r}, or a number per class, expected")
        return given
    if isinstance(given, Mapping):
        raise ConfigError("class_weight is a dict; a number per class expected, a list in the order of the classes")
    if arrays.tensor("class_weight", given, ConfigError).dtype == torch.bool:
        raise ConfigError(f"class_weight {given!r}: numbers of 0 or more expected")
    return arrays.plain("class_weight", given, ConfigError)


def check_loss(spec: NetworkSpec) -> None:
    """Raise ConfigError for a loss without classes."""
    if not LOSSES[spec.loss].classes:
        raise ConfigError(f"class_weight is for loss 'cross_entropy', not for {spec.loss!r}")


def fitted(given: Any, spec: NetworkSpec, data: Dataset, position: Tensor) -> Any:
    """`given`; if it is BALANCED, the numbers: (O,) if all networks have the same samples, else (N, O) for those at
    `position` (N,); 1 for a class that does not occur. Raises ConfigError for a loss without classes."""
    if not isinstance(given, str):
        return given
    check_loss(spec)
    if data.networks is None:
        return _balanced(data.targets.bincount(minlength=spec.widths[-1]))
    places, which = position.to(data.targets.device).unique(return_inverse=True)
    parts = places.split(max(1, AT_ONCE // data.lengths[1]))
    return _balanced(torch.cat([_counts(data, part, spec.widths[-1]) for part in parts])[which])


def are_balanced(weight: Tensor, spec: NetworkSpec, data: Dataset, position: Tensor) -> bool:
    """Whether the weights (N, O) of networks at `position` (N,) are the ones that BALANCED gives."""
    return torch.equal(weight.cpu(), fitted(BALANCED, spec, data, position).expand(weight.shape))


def _counts(data: Dataset, position: Tensor, classes: int) -> Tensor:
    """How many samples of each class the networks at `position` (N,) have, (N, classes)."""
    sizes = data.size(position)
    network = torch.arange(len(position), device=position.device).repeat_interleave(sizes)
    place = torch.arange(len(network), device=position.device) - (sizes.cumsum(0) - sizes)[network]
    sample = place if data.rows is None else data.row(position[network], place[:, None])[:, 0]
    target = data.targets[position[network], sample] if data.own else data.targets[sample]
    return (network * classes + target).bincount(minlength=len(position) * classes).view(-1, classes)


def _balanced(counts: Tensor) -> Tensor:
    """The weights (..., O) of classes with `counts` (..., O) samples."""
    classes = (counts > 0).sum(-1, keepdim=True)
    weight = counts.sum(-1, keepdim=True).double() / (classes * counts)
    return torch.where(counts > 0, weight, 1.0).cpu()


def columns(given: Any, spec: NetworkSpec, count: int) -> Tensor:
    """Weights (O,) for all networks, or (N, O) for each, as (N, O) float64.

    Raises ConfigError for a loss without classes, negative numbers and weights that are all 0, ShapeError for a wrong
    number of classes or networks.
    """
    check_loss(spec)
    if isinstance(given, str):
        raise ConfigError(f"class_weight {given!r}: of samples, which are not given here; a number per class expected")
    weight, outputs = arrays.tensor("class_weight", given, ConfigError).double(), spec.widths[-1]
    if weight.shape not in ((outputs,), (count, outputs)):
        raise ShapeError(f"class_weight {tuple(weight.shape)}: ({outputs},) or ({count}, {outputs}) expected")
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ConfigError("class_weight: finite numbers of 0 or more expected")
    if not bool((weight.sum(-1) > 0).all()):
        raise ConfigError("class_weight: all classes have weight 0; one or more above 0 expected")
    return weight.expand(count, -1).clone(memory_format=torch.contiguous_format)
