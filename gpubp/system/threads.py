"""How many of torch's threads compute in the calling thread's operations. They wait for each other at the end of every
operation: on a busy machine for a time slice each, up to a hundred times as long as a small operation."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import torch
from threadpoolctl import LibController, ThreadpoolController


def use(number: int) -> int:
    """From now on, torch and the engines' kernels compute in `number` threads for the calling thread; other threads are
    not affected. -> the previous number."""
    before = torch.get_num_threads()
    if number != before:
        for pool in _pools():
            pool.set_num_threads(number)
    return before


@contextmanager
def threads(number: int) -> Iterator[None]:
    """use(), within a context."""
    before = use(number)
    try:
        yield
    finally:
        use(before)


one_thread = partial(threads, 1)  # for operations on a few numbers per network


@cache
def _pools() -> list[LibController]:
    """OpenMP's thread pools in the libraries loaded by now, torch included: each has a number per calling thread.
    ThreadpoolController.limit() first reads all numbers of all libraries, which takes fifty times as long."""
    return list(ThreadpoolController().select(user_api="openmp").lib_controllers)
