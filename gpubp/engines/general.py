"""General kernels: compiled once for all widths, where a topology's own kernel would take longer to compile than it
saves.

Both have the same bits. A general kernel gets the widths and all that follows from them with every call
(constants.shape()). It takes 1.2 to 1.5 times as long as a topology's own with lanes as outputs, and up to five times
as long as one with lanes as networks. The time lost is counted for every topology, and kept in the cache for later
processes; once it equals the time to compile, the topology gets its own kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from . import cache
from .key import Key
from .layout import Kind, Layout, choices

INF = float("inf")
COMPILING = 2.0  # seconds to compile a topology's kernels; 0: each gets its own at once
HALF_CYCLE = 6e-10  # seconds
SLOWER = 1.2  # factor on products whose sizes the compiler does not know
NOTED = 0.02  # seconds; less is not worth a file


class Chosen(NamedTuple):
    """Layouts for networks: the fastest, and that of a general kernel; loss: seconds that the latter loses in a step of
    all networks; share: the lost part of its time."""

    own: Layout
    general: Layout
    loss: float
    share: float


@lru_cache(maxsize=4096)
def chosen(*given: Any) -> Chosen:
    """The Chosen from layout.choices(*given)."""
    found = choices(*given)
    best, own = min(found.values(), key=lambda each: each[0])
    spent, outputs = found[Kind.CPU_OUTPUTS]
    lost = SLOWER * spent - best
    return Chosen(own, replace(outputs, general=True), HALF_CYCLE * lost, lost / (SLOWER * spent))


@dataclass
class Account:
    """The seconds that a topology has lost in this process, and whether it has its own kernels, which another thread's
    counting cannot undo."""

    lost: float = 0.0
    own: bool = False

    @property
    def general(self) -> bool:
        """Whether a general kernel serves it, for now."""
        return COMPILING == INF or (not self.own and self.lost < COMPILING)


ACCOUNTS: dict[tuple[Any, ...], Account] = {}


def account(key: Key) -> Account:
    """The account of all keys of one topology, which may differ in how samples are given."""
    topology = _topology(key)
    found = ACCOUNTS.get(topology)
    return ACCOUNTS.setdefault(topology, Account()) if found is None else found


def _topology(key: Key) -> tuple[Any, ...]:
    return key.spec, key.recipe, key.dtype, key.task


@contextmanager
def only(one: bool) -> Iterator[None]:
    """A context in which general kernels serve all topologies, or none."""
    global COMPILING
    before, COMPILING = COMPILING, INF if one else 0.0
    try:
        yield
    finally:
        COMPILING = before


def settle(key: Key, seconds: float, *others: Key) -> None:
    """Choose kernels for work in which a general one loses `seconds`: for `key`, and accordingly for the `others`."""
    mine = account(key)
    if COMPILING == INF or not mine.general:
        return
    lost = mine.lost + seconds
    if seconds > NOTED:
        lost = max(lost, cache.add(f"lost-{cache.digest(repr(_topology(key)).encode())[:32]}", seconds))
    if lost >= COMPILING:
        for each in (key, *others):
            account(each).own = True
