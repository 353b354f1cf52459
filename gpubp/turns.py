"""Groups of networks that take turns on a device: while one trains, the next comes and the one before goes home.

There are two seats, and a stream for copies beside the one that trains. Each does what it is given in order:

    copies      come 0 | come 1 |        leave 0 | come 2 |        leave 1 | come 3 | ...
    training           | work 0          | work 1         | work 2         | ...

Work waits for its group to have come, and the way home for the work. A group takes the seat of the one but last, which
has left before it in the stream of copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from . import gpus, memory
from .data import Dataset
from .errors import OutOfMemoryError
from .state import TrainState

SEATS = 2
Found = TypeVar("Found")


def fitting(state: TrainState, count: int, device: torch.device, data: Sequence[Dataset]) -> int:
    """How many of `count` networks train at once on `device`: all of them, or half of what it holds, for groups take
    turns in two seats. Raises OutOfMemoryError where it does not hold one."""
    population = state.population
    shape = population.spec, state.recipe
    fit = memory.fit(*shape, population.params.element_size(), device, data)
    if fit < 1:
        raise OutOfMemoryError(memory.message(*shape, count, population.params.element_size(), device, data))
    return count if fit >= count else max(1, fit // SEATS)


def pin(state: TrainState) -> None:
    """Every tensor in memory that a GPU reads and writes by itself: a copy to or from other memory makes the host wait
    for all that its stream has to do before."""
    vars(state).update(vars(state._each(gpus.pinned)))


class Group(NamedTuple):
    """part: which rows of all it is; seat: which rows of the seats it takes."""

    part: slice
    seat: slice


def groups(count: int, size: int) -> list[Group]:
    """`count` networks in groups of up to `size`."""
    found = []
    for number, first in enumerate(range(0, count, size)):
        own, seat = min(size, count - first), number % SEATS * size
        found.append(Group(slice(first, first + own), slice(seat, seat + own)))
    return found


def take_turns(
    everyone: Sequence[Group], device: torch.device, copies: gpus.Copies, come: Callable[[Group], None],
    work: Callable[[Group], Found], leave: Callable[[Group], None],
) -> list[Found]:  # fmt: skip
    """work() of each group, between its come() and leave(), which copy to and from its seat and do nothing else. The
    host waits at the end alone, also where one of them raises: nothing is under way any more."""
    found = []
    try:
        copies.follow()  # the seats were made in the stream that trains
        with copies.beside():
            come(everyone[0])
        copies.lead()
        for number, group in enumerate(everyone):
            with copies.beside():
                for following in everyone[number + 1 : number + 2]:
                    come(following)  # before the work, in which an engine may make the host wait
            found.append(work(group))
            copies.lead()  # the next has come before it trains; the way home of this one, put on below, has time
            copies.follow()
            with copies.beside():
                leave(group)
    finally:
        copies.lead()
        gpus.wait(device)
    return found
