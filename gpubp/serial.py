"""Operations on a few numbers per network, without torch's threads. These wait for each other at the end of every
operation: on a busy machine for a time slice each, up to a hundred times the operation itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the calling thread. Other threads are not affected."""
    with _pools().limit(limits=1, user_api="openmp"):
        yield


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of the libraries loaded by now, torch among them."""
    return ThreadpoolController()
