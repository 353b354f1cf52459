"""The machine: processor, threads, versions, and two limits measured in the same run (limits.py)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpubp.system import gpus

from . import limits

PACKAGES = ("torch", "numpy", "jax", "jaxlib", "optax", "tabm", "tabpack-paper", "scikit-learn", "joblib")


def facts(device: str, threads: dict[str, Any]) -> dict[str, Any]:
    """All facts by name. Rates mean little on another machine; ratios carry over better."""
    flags = limits.cpuinfo("flags").split()
    peak, of = limits.peak(device, torch.get_num_threads())
    return {
        "cpu": limits.cpuinfo("model name") or platform.processor(),
        "cpu_flags": [flag for flag in ("avx2", "fma", "avx512f", "amx_tile") if flag in flags],
        "all_cpu_flags": flags,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "threads": threads,
        "device": gpus.name(torch.device(device)) if device.startswith("cuda") else "cpu",
        "system": platform.system(),
        "python": platform.python_version(),
        "compiler": _words(*(limits.compiler() or ["g++"]), "--version").partition("\n")[0] or None,
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "peak_gflops": peak / 1e9,
        "peak_of": of,
        "matmul_peak_gflops": limits.matmul_peak(device) / 1e9,
        "copy_gbytes_per_second": limits.copy_rate(device) / 1e9,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _words(program: str, *arguments: str) -> str:
    """The output of a program; empty if it fails or is missing."""
    if shutil.which(program) is None:
        return ""
    here = Path(__file__).parent
    result = subprocess.run([program, *arguments], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _commit() -> str | None:
    """git's commit, with + if files have changed since; None outside a repository."""
    commit = _words("git", "rev-parse", "--short", "HEAD")
    changed = _words("git", "status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if changed else "") if commit else None
