"""The same number of threads for all contenders. Call it before JAX makes its first array."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch

ALONE = "--xla_cpu_multi_thread_eigen=false"


def limit(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Set the number of threads. -> the settings by name, for the record.

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
