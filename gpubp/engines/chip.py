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

from .program import Layout, Program

REGISTERS = 200  # of 4 bytes, that a thread may need by count; of its 255 others hold addresses and what is computed
SPILLED = 64  # bytes that a thread may keep in local memory: the compiler puts a few aside even with registers left
THREAD = Layout(1, threads=128)
BLOCK = Layout(1, team=True, accumulators=32, cols=8)
LEAST_PIECE = 16  # samples that go through together at least
PER_THREAD = 16  # numbers of the largest product that a thread has at least: a tile of 4 x 4 loads 8 for 16 products
WARP, LEAST_THREADS, MOST_THREADS = 32, 8, 256
WAYS = 8  # memory.h's


class Limits(NamedTuple):
    """Of a device: its architecture (90 for sm_90), and the bytes of shared memory that a block may have."""

    arch: int
    block: int


def line(width: int, team: bool) -> int:
    """memory.h's: elements from a row of a matrix to the next."""
    return width | 1 if team else width


def parameters(program: Program, team: bool) -> int:
    """Elements of a row, padded as in a block."""
    spec = program.spec
    return sum(
        i * line(o, team) + {"neuron": o, "layer": 1, "none": 0}[spec.bias] for i, o in itertools.pairwise(spec.widths)
    )


def numbers(program: Program, layout: Layout) -> int:
    """Elements of memory.h's Memory, of a network that a thread or a block trains."""
    spec, recipe, on = program.spec, program.recipe, set(program.hyper)
    widths = [line(width, layout.team) for width in spec.widths]
    batch, chunk = program.batch, layout.chunk or recipe.batch_size
    row, outs, widest = parameters(program, layout.team), chunk * sum(widths[1:]), max(widths[1:])
    learns, judged = program.task == "train", program.task == "evaluate" and program.metric != "r2"
    cut = chunk < batch
    weighted = program.samples.weight or program.class_weight
    targets = 1 if program.classes else spec.widths[-1]
    return (
        row * (1 + (len(recipe.rule.slots) if layout.near else 0))
        + (row if cut or "clip_norm" in on else 0)
        + (chunk * (widths[0] + targets) if layout.team else 0)
        + outs * (1 + program.keep_nets + 2 * ("dropout" in on))
        + (2 * chunk * widest + widest if learns else 0)
        + ((len(spec.widths) - 1) * widest if cut and spec.bias == "layer" else 0)
        + batch
        + (batch if learns and weighted else 0)
        + (batch if judged else 0)
        + (spec.widths[-1] if program.class_weight else 0)
    )


def group(program: Program) -> int:
    """Bytes of memory.h's Group."""
    hyper, columns, itemsize = len(program.hyper) + 1, len(program.recipe.rule.columns) + 1, program.dtype.itemsize
    size = 8 * (hyper + columns + 2) + itemsize * (hyper + max(1, len(program.rates))) + 4 + 2 * 4
    size = -(-size // 8) * 8 + 2 * 8 + 4 * program.batch
    if program.task != "train":
        size = -(-size // 8) * 8 + 8 + 8 * sums(program)
    return -(-size // 64) * 64


def sums(program: Program) -> int:
    """memory.h's SUMS: what an evaluation adds up."""
    if program.task != "evaluate":
        return 0
    weight, outputs = program.samples.weight > 0, program.spec.widths[-1]
    of_r2 = outputs * max(1, WAYS // outputs) if program.metric == "r2" else WAYS
    return WAYS * (1 + (weight or program.class_weight) + weight) + of_r2


def shared(program: Program) -> int:
    """Bytes of shared memory that a block needs; gpu.h holds it against its own count."""
    layout, itemsize = program.layout, program.dtype.itemsize
    if layout.team:
        size = group(program) + numbers(program, layout) * itemsize
        return size if layout.together == 1 else layout.together * 64 * (-(-size // 64) | 1)
    rows = 1 + len(program.recipe.rule.slots)
    return rows * layout.threads * (parameters(program, False) | 1) * itemsize


def in_registers(program: Program, limits: Limits) -> Program | None:
    """A thread is a network, if that can be by count."""
    for piece in (0,) if program.task == "train" else _divided(min(WAYS, program.recipe.batch_size)):
        own = program.laid_out(replace(THREAD, chunk=piece))
        words = numbers(own, own.layout) * own.dtype.itemsize // 4 + 2 * sums(own)
        if words <= REGISTERS and shared(own) <= limits.block:
            return own
    return None


def in_shared_memory(program: Program, limits: Limits) -> Program | None:
    """A block is a network: the first of the layouts that fits; None where none does."""
    for layout in _blocks(program):
        own = program.laid_out(replace(layout, threads=WARP))
        if shared(own) <= limits.block:
            return _with_threads(own, limits)
    return None


def _with_threads(program: Program, limits: Limits) -> Program:
    """A block of as many threads as its network gives work to; of less than a warp, several networks, if they fit."""
    count = threads(program)
    own = program.laid_out(replace(program.layout, threads=count, together=max(1, WARP // count)))
    return own if shared(own) <= limits.block else program


def _blocks(program: Program) -> Iterator[Layout]:
    """The whole batch, pieces of it, and the same with the slots elsewhere."""
    batch = program.recipe.batch_size
    parts = range(1, max(1, batch // LEAST_PIECE) + 1) if program.recipe.update_order == "simultaneous" else (1,)
    pieces = sorted({math.ceil(batch / count) for count in parts}, reverse=True)
    if program.task != "train":
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
    return min(shared(program.laid_out(replace(layout, threads=WARP))) for layout in _blocks(program))
