"""Operations on a few numbers of each network, without torch's threads, which wait for each other at the end of every
operation: on a machine whose processors have other work, for a time slice each, up to a hundred times what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in the thread that asks. (A thread of yours that uses torch for the first time meanwhile would do
    so for ever: set torch.set_num_threads() there.)"""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
