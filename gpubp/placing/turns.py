"""Groups of networks that take turns on a device: while one trains, the next is copied in and the previous one out.

There are two seats (buffers), and a stream for copies besides the one that trains:

    copies      come 0 | come 1 |        leave 0 | come 2 |        leave 1 | come 3 | ...
    training           | work 0          | work 1         | work 2         | ...

Work waits for its group's copy in; the copy out waits for the work. A group takes the seat of the group before the
previous one, whose copy out precedes its copy in on the stream for copies.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from .. import memory
from ..errors import OutOfMemoryError
from ..samples.data import Dataset
from ..state import TrainState
from ..system import gpus

SEATS = 2
Found = TypeVar("Found")


def fitting(state: TrainState, count: int, device: torch.device, data: Sequence[Dataset]) -> int:
    """How many of `count` networks train at once on `device`: all, or half of what fits, because groups take turns in
    two seats. Raises OutOfMemoryError if not even one fits."""
    population = state.population
    shape = population.spec, state.recipe
    fit = memory.fit(*shape, population.params.element_size(), device, data)
    if fit < 1:
        raise OutOfMemoryError(memory.message(*shape, count, population.params.element_size(), device, data))
    return count if fit >= count else max(1, fit // SEATS)


def pin(state: TrainState) -> None:
    """Move every tensor to pinned memory: a copy to or from other memory makes the host wait for the whole stream."""
    vars(state).update(vars(state._each(gpus.pinned)))


class Group(NamedTuple):
    """part: the group's rows among all; seat: its rows in the seats."""

    part: slice
    seat: slice


def groups(count: int, size: int) -> list[Group]:
    """`count` networks in groups of up to `size`."""
    found = []
    for number, first in enumerate(range(0, count, size)):
        members, seat = min(size, count - first), number % SEATS * size
        found.append(Group(slice(first, first + members), slice(seat, seat + members)))
    return found


def take_turns(
    everyone: Sequence[Group], device: torch.device, copies: gpus.Copies, come: Callable[[Group], None],
    work: Callable[[Group], Found], leave: Callable[[Group], None],
) -> list[Found]:  # fmt: skip
    """work() of each group, between its come() and leave(), which only copy to and from its seat. The host waits only
    at the end, even after an error: then nothing is still running."""
    found = []
    try:
        copies.follow()  # the seats were made in the stream that trains
        with copies.beside():
            come(everyone[0])
        copies.lead()
        for number, group in enumerate(everyone):
            with copies.beside():
                for following in everyone[number + 1 : number + 2]:
                    come(following)  # before the work, as an engine may make the host wait there
            found.append(work(group))
            copies.lead()  # the next group's copy precedes its work; this one's copy out, queued below, has time
            copies.follow()
            with copies.beside():
                leave(group)
    finally:
        copies.lead()
        gpus.wait(device)
    return found
