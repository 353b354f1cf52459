"""available(): free memory; size(): bytes as text."""

from __future__ import annotations

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


def size(count: float) -> str:
    """Bytes as text: 1.5 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
