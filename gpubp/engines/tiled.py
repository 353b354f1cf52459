"""A GPU thread's part of the sums of products, and how long a step takes if networks share a warp."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from .layout import WARP, Kind
from .program import Program

SMALL_CHUNK = 8  # samples; up to these, a block that is not wide takes fewer registers
FEW_HELD = 16  # gradients that a thread holds and that leave registers for many threads
MANY_HELD = 48  # which, between chunks, leave some for few, beside the sums of a product
FEW = 24  # gradients that a thread of 16 holds, and
FEW_SAMPLES = 16  # samples of a chunk, for which it finds 96 registers, so that
AT_ONCE = 20  # warps run on a multiprocessor, five for each scheduler
SCHEDULERS = 4  # of a multiprocessor
SCHEDULER = 512  # registers of a scheduler, per thread of a warp
REGISTERS = 65_536  # of a multiprocessor


class Waits(NamedTuple):
    """What the estimates of chip.py count for a kind of block."""

    issue: float  # for an instruction of a product: the ones between are in it
    step: int  # that a network waits in a step, whatever else runs
    number: float  # that it waits for each number that a thread has of a product's result, and twice for each slot
    far: float  # times as long for a slot in global memory
    barriers: int  # that it waits in a block of several warps, for each layer and chunk
    sample: int  # and for each sample

    def for_all(self, program: Program, numbers: float) -> float:
        """All that a network waits in a step, with `numbers` per thread."""
        plan, waited = program.plan, self.step + self.number * numbers + self.sample * program.plan.batch
        if program.layout.threads > WARP:
            waited += self.barriers * math.ceil(plan.batch / plan.chunk) * (len(plan.widths) - 1)
        return waited


SHARED = Waits(1.47, 4740, 54, 1, 0, 77)  # of plain networks that share a warp
CORES = Waits(1.43, 1500, 40, 1, 1300, 5)  # of chip.tensor_cycles(): a fit to twelve layouts of two topologies
PLAIN, WIDE = Waits(1.68, 5810, 62, 2, 1440, 48), Waits(1.3, 6080, 36, 1.3, 270, 74)
SHOWN = Waits(0.7, 2870, 73, 1, 60, 69)  # of wide blocks that evaluate, for each chunk


def products(program: Program) -> Iterator[tuple[int, int, int, int]]:
    """The products of a chunk and, in training, of gradients: rows, columns in v, depth; 1 if it is a gradient's, else
    0."""
    for shape, kind in program.plan.products(program.plan.chunk):
        yield *shape, int(kind in ("gradient", "bias"))


def rounds(program: Program, m: int, n: int, k: int) -> tuple[int, int]:
    """The tiles of a product, and how many of them a thread computes, one after another."""
    tiles, layout = program.plan.tiles[m, n, k].tiles, program.layout
    return tiles, math.ceil(tiles * (WARP if layout.tf32 else 1) / layout.threads)


def held(program: Program) -> int:
    """How many gradients a thread holds."""
    held = 0
    for m, n, k, gradient in products(program):
        tile = program.plan.tiles[m, n, k]
        held += gradient * rounds(program, m, n, k)[1] * tile.rows * tile.cols
    return held * program.layout.entries_per_v


def largest(program: Program) -> int:
    """The largest number of sums of a chunk's product that a thread holds at once."""
    found = [(program.plan.tiles[m, n, k], rounds(program, m, n, k)[1]) for m, n, k, g in products(program) if not g]
    return max(min(times, 2) * tile.rows * tile.cols for tile, times in found) * program.layout.entries_per_v


def threads(program: Program) -> int:
    """The estimated number of threads of such blocks for which a multiprocessor has registers."""
    plan, layout = program.plan, program.layout
    if layout.kind != Kind.GPU_WIDE:
        return 768 if plan.chunk <= SMALL_CHUNK else 640
    if not program.key.trains:
        return int(REGISTERS / (40 + 1.35 * largest(program)))
    if layout.tf32:
        return 384
    if layout.slots_apart or (plan.chunked and held(program) > MANY_HELD):
        return 256
    return 768 if layout.teams == 1 and not plan.chunked and held(program) <= FEW_HELD else 384


def dense(program: Program) -> Program:
    """The program of a wide block, compiled with few registers if its threads can do with them."""
    layout = program.layout
    few = layout.teams == 2 and program.plan.chunk <= FEW_SAMPLES and held(program) <= FEW
    return program.laid_out(replace(layout, at_once=AT_ONCE)) if few and not layout.slots_apart else program


def team_cycles(program: Program, room: int) -> float:
    """Estimated cycles of a multiprocessor for a step of a network when several share a warp: the instructions of its
    products, activations, samples and updates, and a scheduler's time for one, by its number of warps, which registers
    and `room` bytes of shared memory limit. A fit like that of chip.cycles()."""
    plan, layout = program.plan, program.layout
    each, chunks, issued = layout.entries_per_v, math.ceil(plan.batch / plan.chunk), 0.0
    for m, n, k, gradient in products(program):
        tile, (_, times) = plan.tiles[m, n, k], rounds(program, m, n, k)
        numbers = tile.rows * tile.cols * (min(each, *plan.widths[1:]) if n == 1 else each)
        if (m, gradient) == (1, 1):
            numbers, times = 1, math.ceil(n * each / layout.threads)
        issued += chunks * k * times / layout.teams * (numbers + math.ceil(tile.rows / each) + tile.cols + 1)
    registers = math.ceil((80 + held(program) + largest(program)) / 8) * 8
    by_registers = layout.at_once or max(4, SCHEDULER // registers * 4)
    warps = max(1, min(32, by_registers, room // (plan.shared + 1024)))
    rest = 60 + 20 * plan.slots + plan.batch * (9.4 + 0.7 * sum(plan.widths[1:-1]))
    rest += plan.rows[-1] * (8 + 22 * plan.slots) / WARP
    return (issued + rest) * (0.247 + (2.7 if layout.slots_apart else 2.06) / warps)
