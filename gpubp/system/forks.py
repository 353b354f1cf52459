"""After a fork a child process has its parent's memory but not its threads.

If the parent has used torch's (OpenMP's) threads, the child would wait for them forever. So the child starts with one
torch thread, like a worker of torch's DataLoader, and says so. Kernels start new threads in every call. A GPU that the
parent used is refused (gpus.py).
"""

import os
import sys

ADVICE = 'start processes by multiprocessing.get_context("spawn")'
FORKED: list[int] = []  # this process's id, if it was forked from one that had imported torch


def _in_child() -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
        FORKED[:] = [os.getpid()]


def notes() -> list[str]:
    """Notes for the user about the threads of this process."""
    return [f"training uses one thread, because this process was forked; for more, {ADVICE}"] if FORKED else []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
