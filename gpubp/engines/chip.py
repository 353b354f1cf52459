"""What of a network fits on a GPU's chip, and the Layout that follows: the rules of docs/gpu.md.

A thread is a network where its numbers may all be registers; whether they are, the compiled kernel says. Else a block
is a network, or a few small ones, with all of its numbers in shared memory: the batch in pieces, or the slots in global
memory, where they do not fit. The choice changes no bit.
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

REGISTERS = 200  # of 4 bytes, that a thread may need by count; of its 255 others hold addresses and what is computed
SPILLED = 64  # bytes that a thread may keep in local memory: the compiler puts a few aside even with registers left
THREAD = Layout(1, threads=128)
BLOCK = Layout(1, team=True, accumulators=32, cols=8)
LEAST_PIECE = 16  # samples that go through together at least
PER_THREAD = 16  # numbers of the largest product that a thread has at least: a tile of 4 x 4 loads 8 for 16 products
LEAST_THREADS, MOST_THREADS = 8, 256


class Limits(NamedTuple):
    """Of a device: its architecture (90 for sm_90), and the bytes of shared memory that a block may have."""

    arch: int
    block: int


def in_registers(program: Program, limits: Limits) -> Program | None:
    """A thread is a network, if that can be by count."""
    for piece in (0,) if program.key.trains else _divided(min(WAYS, program.recipe.batch_size)):
        own = program.laid_out(replace(THREAD, chunk=piece))
        if own.plan.words <= REGISTERS and own.plan.shared <= limits.block:
            return own
    return None


def in_shared_memory(program: Program, limits: Limits) -> Program | None:
    """A block is a network: the first of the layouts that fits; None where none does."""
    for layout in _blocks(program):
        own = program.laid_out(replace(layout, threads=WARP))
        if own.plan.shared <= limits.block:
            return _with_threads(own, limits)
    return None


def _with_threads(program: Program, limits: Limits) -> Program:
    """A block of as many threads as its network gives work to; of less than a warp, several networks, if they fit."""
    count = threads(program)
    own = program.laid_out(replace(program.layout, threads=count, together=max(1, WARP // count)))
    return own if own.plan.shared <= limits.block else program


def _blocks(program: Program) -> Iterator[Layout]:
    """The whole batch, pieces of it, and the same with the slots elsewhere."""
    batch = program.recipe.batch_size
    parts = range(1, max(1, batch // LEAST_PIECE) + 1) if program.recipe.update_order == "simultaneous" else (1,)
    pieces = sorted({math.ceil(batch / count) for count in parts}, reverse=True)
    if not program.key.trains:
        pieces = _divided(batch)
    for near in (True, False) if program.recipe.rule.slots else (True,):
        for piece in pieces:
            yield replace(BLOCK, chunk=piece, near=near)


def _divided(batch: int) -> list[int]:
    """A piece of samples that networks are shown, and what is left of it, halved again and again, where that does not
    fit."""
    pieces = [batch]
    while pieces[-1] > 1:
        pieces.append(-(-pieces[-1] // 2))
    return pieces


def threads(program: Program) -> int:
    """Of a network: a quarter of a warp, doubled while each of them has many numbers of the largest product."""
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
    """Bytes of shared memory of the smallest layout: what a network that is refused would need."""
    return min(program.laid_out(replace(layout, threads=WARP)).plan.shared for layout in _blocks(program))
