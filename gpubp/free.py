"""available(): free memory; held(): that of this process; size(): bytes as text."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from . import gpus


def available(device: torch.device) -> int | None:
    """Free bytes on `device`; None if the system does not tell."""
    if device.type == "cuda":
        return gpus.free(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def held() -> dict[str, int]:
    """Bytes that this process holds: host, its resident memory, where the system tells; gpu, what torch has of all."""
    found = {}
    with suppress(OSError):
        found["host"] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if on_gpus := gpus.held():
        found["gpu"] = on_gpus
    return found


def size(count: float) -> str:
    """Bytes as text: 1.5 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
