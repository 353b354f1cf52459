"""Device names, as given to train() and the command line, and the choice of `auto`."""

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import ConfigError, DeviceError
from ..line import counted
from . import gpus

Devices = str | torch.device | Sequence[str | torch.device]
ALL = "cuda:all"
ALLOWED = "auto, cpu, cuda, cuda:1 ..., or cuda:all to train"


def devices(given: Devices) -> list[torch.device]:
    """The devices by name: "cpu", "cuda", "cuda:1", "cuda:all" for every GPU, "auto" for a GPU if there is one, or
    several of one kind. Raises DeviceError for missing devices, ConfigError for CPU and GPU together."""
    if isinstance(given, str) and given == ALL:
        usable("cuda")
        return [torch.device("cuda", number) for number in range(gpus.count())]
    names: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    found = [usable(each) for each in names]
    if len({each.type for each in found}) != 1:
        raise ConfigError(f"device {given!r}: one or more of the same kind expected, GPUs or the CPU")
    return found


def automatic() -> tuple[str, str]:
    """The choice of --device auto, and its sentence: one GPU if there is any; further GPUs must be requested."""
    missing = gpus.missing()
    if missing is not None:
        return "cpu", f"device cpu: {missing}"
    device = usable("cuda")
    others = f"; --device {ALL} uses all {gpus.count()}" if gpus.count() > 1 else ""
    return str(device), f"device {device}: {gpus.name(device)}{others}"


def usable(device: str | torch.device) -> torch.device:
    """`device`, checked; for "auto" a GPU if there is one, or else the CPU. Raises DeviceError with one sentence about
    what is missing."""
    if not isinstance(device, (str, torch.device)):  # torch would read 0 as any accelerator
        raise DeviceError(f"device {device!r}: a name expected, such as 'cpu' or 'cuda:0'; allowed: {ALLOWED}")
    if device == "auto":
        device = "cpu" if gpus.missing() is not None else "cuda"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise DeviceError(f"device {device!r} is unknown; allowed: {ALLOWED}") from None
    if wanted.type == "cuda":
        missing = gpus.missing()
        if missing is not None:
            raise DeviceError(f"device {str(device)!r}: {missing}; use device cpu")
        if (wanted.index or 0) >= gpus.count():
            many = counted(gpus.count(), "GPU")
            raise DeviceError(f"device {str(device)!r}: this machine has {many}, from cuda:0 on")
        return torch.device("cuda", gpus.current() if wanted.index is None else wanted.index)
    if wanted.type != "cpu":
        raise DeviceError(f"device {str(device)!r} is not supported; allowed: {ALLOWED}")
    return torch.device("cpu")
