"""Operations on a few numbers of each network, without torch's threads, which wait for each other at the end of every
operation: on a machine whose processors have other work, for a time slice each, up to a hundred times what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the thread that asks. Other threads keep theirs."""
    with _pools().limit(limits=1, user_api="openmp"):
        yield


@cache
def _pools() -> ThreadpoolController:
    """Those of the libraries that are loaded by now, torch among them."""
    return ThreadpoolController()
