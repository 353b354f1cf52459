"""The machine: processor, threads, versions, and two limits measured in the same run (limits.py)."""

import ctypes
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

ALONE = "--xla_cpu_multi_thread_eigen=false"
PACKAGES = ("torch", "numpy", "jax", "jaxlib", "optax", "tabm", "tabpack-paper", "scikit-learn", "joblib")


def limit(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Set the number of threads of all contenders, before JAX makes its first array. -> the settings by name.

    torch.compile uses torch's number. JAX's CPU client reads PJRT_NPROC once; the calling thread waits meanwhile.
    GNU's OpenMP, shared by compiled kernels outside torch, has a separate number; joblib gets it at each call. On a GPU
    JAX selects its device, and does not reserve memory.
    """
    torch.set_num_threads(threads)
    chosen = {"PJRT_NPROC": str(threads), "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
    if device != "cpu":
        del chosen["JAX_PLATFORMS"]
        chosen["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    flags = os.environ.get("XLA_FLAGS", "")
    if threads == 1 and ALONE not in flags:
        chosen["XLA_FLAGS"] = f"{flags} {ALONE}".strip()
    os.environ.update(chosen)
    try:
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(threads)
    except OSError:  # no GNU OpenMP
        return {"torch": threads, **chosen}
    return {"torch": threads, "openmp": threads, **chosen}


def facts(device: str, threads: dict[str, Any]) -> dict[str, Any]:
    """All facts by name. Rates mean little on another machine; ratios carry over better."""
    flags = _cpuinfo("flags").split()
    peak, of = limits.peak(device, torch.get_num_threads())
    return {
        "cpu": _cpuinfo("model name") or platform.processor(),
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


def _cpuinfo(name: str) -> str:
    """A line of Linux's /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
