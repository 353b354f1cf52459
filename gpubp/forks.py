"""After a fork: a child process has its parent's memory and none of its threads.

A child of a process that has used torch's own threads (OpenMP's) would wait for them without end. So a child begins
with one torch thread, as a worker of torch's DataLoader does, and says so. Kernels start their threads anew in every
call. A GPU that the parent used is refused (gpus.py).
"""

from __future__ import annotations

import os
import sys

ADVICE = 'start processes by multiprocessing.get_context("spawn")'
FORKED: list[int] = []  # this process, where it was forked from one that had torch


def _in_child() -> None:
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
        FORKED[:] = [os.getpid()]


def notes() -> list[str]:
    """What a person should know of the threads of this process."""
    return [f"one thread trains, for this process was forked; for more, {ADVICE}"] if FORKED else []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
