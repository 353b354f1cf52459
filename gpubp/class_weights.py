"""Weights of classes: how much a sample counts in the loss, by its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import arrays
from .errors import ConfigError, ShapeError
from .losses import LOSSES
from .spec import NetworkSpec


def check(given: Any) -> None:
    """Raise ConfigError for what cannot be weights of any classes."""
    if isinstance(given, Mapping):
        raise ConfigError("class_weight is a dict; a number per class expected, a list in the order of the classes")
    if arrays.tensor("class_weight", given, ConfigError).dtype == torch.bool:
        raise ConfigError(f"class_weight {given!r}: numbers of 0 or more expected")


def columns(given: Any, spec: NetworkSpec, count: int) -> Tensor:
    """Those (O,) of all networks, or (N, O) of each, as (N, O) float64.

    Raises ConfigError for another loss, for negative numbers and for weights that are all 0, ShapeError for a wrong
    number of classes or networks.
    """
    weight, outputs = arrays.tensor("class_weight", given, ConfigError).double(), spec.widths[-1]
    if not LOSSES[spec.loss].classes:
        raise ConfigError(f"class_weight is for loss 'cross_entropy', not for {spec.loss!r}")
    if weight.shape not in ((outputs,), (count, outputs)):
        raise ShapeError(f"class_weight {tuple(weight.shape)}: ({outputs},) or ({count}, {outputs}) expected")
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ConfigError("class_weight: finite numbers of 0 or more expected")
    if not bool((weight.sum(-1) > 0).all()):
        raise ConfigError("class_weight: all classes have weight 0; one or more above 0 expected")
    return weight.expand(count, -1).clone(memory_format=torch.contiguous_format)
