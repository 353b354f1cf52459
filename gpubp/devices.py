"""Names of devices: what train() and the command line are given, what `auto` takes, and how torch multiplies there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from . import cuda
from .engines import Choice
from .errors import ConfigError
from .population import usable

Devices = str | torch.device | Sequence[str | torch.device]
ALL = "cuda:all"


def devices(given: Devices) -> list[torch.device]:
    """The devices by name: "cpu", "cuda", "cuda:1", "cuda:all" for every GPU, "auto" for a GPU where there is one, or
    several of one kind. Raises DeviceError for what is not here, ConfigError for CPU and GPU together."""
    if isinstance(given, str) and given == ALL:
        usable("cuda")
        return [torch.device("cuda", number) for number in range(cuda.count())]
    names: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    found = [usable(each) for each in names]
    if len({each.type for each in found}) != 1:
        raise ConfigError(f"device {given!r}: one or more of the same kind expected, GPUs or the CPU")
    return found


def automatic() -> tuple[str, str]:
    """What --device auto takes, and the sentence that says so: a GPU where there is one, so that nobody's other GPUs
    are taken without being asked for."""
    missing = cuda.missing()
    if missing is not None:
        return "cpu", f"device cpu: {missing}"
    device = usable("cuda")
    others = f"; --device {ALL} takes all {cuda.count()}" if cuda.count() > 1 else ""
    return str(device), f"device {device}: {cuda.name(device)}{others}"


def in_tf32(choice: Choice, dtype: torch.dtype, device: torch.device) -> str | None:
    """That torch rounds the products of float32 that `choice` has it compute; None where it does not."""
    if choice.name != "eager" or dtype != torch.float32 or device.type != "cuda" or not cuda.tf32():
        return None
    return (
        f"{device}: torch was told to multiply in TF32; after "
        'torch.set_float32_matmul_precision("highest") it multiplies in float32'
    )
