"""The Layout of a network on a GPU, by what fits on the chip: the rules of docs/gpu.md. It changes no bit.

A thread is a network if all of its numbers may fit into registers; the compiled kernel tells whether they do. Else a
block is a network, or a few small ones, with all numbers in shared memory; if these do not fit, the batch is split into
chunks, or the slots are in global memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .layout import WARP, Layout
from .plan import WAYS
from .program import Program

REGISTERS = 200  # of 4 bytes, for a thread's numbers; the others of its 255 hold addresses and intermediate results
SPILLED = 64  # bytes that a thread may keep in local memory: the compiler spills a few even with registers left
THREAD = Layout(1, threads=128)
BLOCK = Layout(1, team=True, accumulators=32, cols=8)
LEAST_CHUNK = 16  # samples that go through the network together at least
PER_THREAD = 16  # numbers of the largest product per thread, at least: a tile of 4 x 4 loads 8 for 16 products
LEAST_THREADS, MOST_THREADS = 8, 256


class Limits(NamedTuple):
    """Of a device: its architecture (90 for sm_90), and the most bytes of shared memory of a block."""

    arch: int
    block: int


def in_registers(program: Program, limits: Limits) -> Program | None:
    """A thread is a network; None if its numbers are too many."""
    for chunk in (0,) if program.key.trains else _halved(min(WAYS, program.recipe.batch_size)):
        found = program.laid_out(replace(THREAD, chunk=chunk))
        if found.plan.words <= REGISTERS and found.plan.shared <= limits.block:
            return found
    return None


def in_shared_memory(program: Program, limits: Limits) -> Program | None:
    """A block is a network: the first layout that fits; None if none does."""
    for layout in _blocks(program):
        found = program.laid_out(replace(layout, threads=WARP))
        if found.plan.shared <= limits.block:
            return _with_threads(found, limits)
    return None


def _with_threads(program: Program, limits: Limits) -> Program:
    """As many threads as the network has work for; if these are less than a warp, several networks, if they fit."""
    count = threads(program)
    found = program.laid_out(replace(program.layout, threads=count, together=max(1, WARP // count)))
    return found if found.plan.shared <= limits.block else program


def _blocks(program: Program) -> Iterator[Layout]:
    """The whole batch, smaller and smaller chunks of it, and the same with the slots in global memory."""
    batch = program.recipe.batch_size
    counts = range(1, max(1, batch // LEAST_CHUNK) + 1) if program.recipe.update_order == "simultaneous" else (1,)
    chunks = sorted({math.ceil(batch / count) for count in counts}, reverse=True)
    if not program.key.trains:
        chunks = _halved(batch)
    for near in (True, False) if program.recipe.rule.slots else (True,):
        for chunk in chunks:
            yield replace(BLOCK, chunk=chunk, near=near)


def _halved(batch: int) -> list[int]:
    """A number of samples, and its halves down to 1."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def threads(program: Program) -> int:
    """Of a network: a quarter of a warp, doubled while each thread has PER_THREAD numbers of the largest product."""
    chunk = program.layout.chunk
    largest = max(max(i, chunk) * o for i, o in itertools.pairwise(program.spec.widths))
    count = LEAST_THREADS
    while count < MOST_THREADS and largest >= 2 * count * PER_THREAD:
        count *= 2
    return count


def block(layout: Layout) -> tuple[int, int]:
    """Threads and networks of a block."""
    threads = layout.threads * layout.together
    return threads, layout.together if layout.team else threads


def wants(program: Program) -> int:
    """Bytes of shared memory that the smallest layout needs."""
    return min(program.laid_out(replace(layout, threads=WARP)).plan.shared for layout in _blocks(program))
