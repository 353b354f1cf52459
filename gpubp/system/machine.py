"""described(): the machine that trains, as one line of text: processor, cores, memory, GPUs."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from . import gpus
from .free import size


def described(where: Sequence[torch.device] = ()) -> str:
    """What the system tells about this machine, and the GPUs among the devices `where`: "AMD EPYC 9654, 96 cores, 810
    GB; 2 x NVIDIA H100"."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [each.partition(":")[2].strip() for each in lines if each.startswith("model name")]
    found = [(names or [platform.processor() or platform.machine()])[0], f"{os.cpu_count()} cores"]
    with suppress(OSError, ValueError, AttributeError):  # AttributeError: not on Windows
        found.append(size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    on = Counter(gpus.name(each) for each in where if each.type == "cuda")
    told = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in on.items())
    return ", ".join(found) + (f"; {told}" if told else "")
