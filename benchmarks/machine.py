"""Where the figures come from: processor, threads, versions, and two limits measured in the same run."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

SIDE = 2048  # of the matrices whose product stands for the peak
COPIED = 512 << 20  # bytes; more than the last-level cache of most processors
SECONDS = 1.0  # that each of the two limits is tried for


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def facts(device: str) -> dict[str, Any]:
    """Everything by name. Rates of these figures mean little on another machine; ratios travel better."""
    flags = _cpuinfo("flags").split()
    return {
        "cpu": _cpuinfo("model name") or platform.processor(),
        "cpu_flags": [flag for flag in ("avx2", "fma", "avx512f", "amx_tile") if flag in flags],
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.system(),
        "commit": _commit(),
        "matmul_peak_gflops": matmul_peak(device) / 1e9,
        "copy_gbytes_per_second": copy_rate(device) / 1e9,
    }


def matmul_peak(device: str) -> float:
    """FLOP/s of a large float32 product, a proxy for the FMA peak: the BLAS reaches some 90 % of it."""
    left, right = torch.rand(2, SIDE, SIDE, device=device)
    return 2 * SIDE**3 / _fastest(lambda: left @ right, device)


def copy_rate(device: str) -> float:
    """Bytes/s, read and written, of a large copy."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / _fastest(lambda: target.copy_(source), device)


def _fastest(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest call: a limit is what the machine can do when nobody disturbs it."""
    seconds, end = [], time.perf_counter() + SECONDS
    while len(seconds) < 3 or time.perf_counter() < end:
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _cpuinfo(name: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _commit() -> str | None:
    """The commit that git names, with + where files have changed since; None outside a repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        result = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "") if commit else None
    except FileNotFoundError:  # no git on this machine
        return None
