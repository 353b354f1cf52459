"""The same number of threads for everybody. To be called before JAX makes its first array."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch

ALONE = "--xla_cpu_multi_thread_eigen=false"


def limit(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Set them. -> how, by name, for the record.

    On a GPU, JAX looks for its own device, and leaves memory to the others.

    torch.compile takes torch's number. JAX's CPU client reads PJRT_NPROC once; the calling thread waits meanwhile.
    GNU's OpenMP, which compiled kernels outside torch share, takes its own. joblib is told at each call.
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
    except OSError:  # no GNU OpenMP, so nobody uses it
        return {"torch": threads, **chosen}
    return {"torch": threads, "openmp": threads, **chosen}
