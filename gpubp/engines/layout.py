"""Layout: how a machine arranges the numbers of networks; choices() has those for a population on this CPU, of which
the fastest is taken. It changes the time but no bit.

Lanes are networks, or outputs of one network. The rule estimates the cost of both in half-cycles of a processor that
starts two multiply-adds and two loads per cycle, and takes the cheaper. Products cost what their tiles do; lanes as
outputs pay for widths that do not fill a register, lanes as networks for groups that leave the cache, and both for idle
threads. docs/engine.md has the measurements behind the constants.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import NamedTuple

OUT_OF_CACHE = 1.1  # factor on the cost of a step if a group's rows do not fit into L2,
FAR_OUT = 1.4  # and if they are more than four times as large
DEEPER = 1.2  # factor on a deeper layer's products if lanes are networks: it reads a vector for each out below
LOSS = 4  # half-cycles if lanes are outputs, for every out of the last layer, whose lanes are transposed
TINY = 128  # most parameters for which, with one sample, three registers make a v: these steps wait for results
TEAM = 40_000  # half-cycles of a step below which threads that share a network wait more than they work
WORTH = 4e5  # half-cycles of work per thread: starting one takes 60 us, and 300 on an idle virtual processor
REACH = 2**31 - 1  # largest index in a kernel, where indices are int; memory.h asserts it
MMA = 6  # quarters of a cycle for 16 x 8 x 8 multiply-adds on tensor cores: 63 % of the peak, as measured
WARP, L1 = 32, 32768  # threads of a GPU's warp; bytes of a CPU's L1 cache
SLICE = 32  # samples of a chunk, if the batch is at least four times as large


class Kind(Enum):
    """What a lane is, and where the numbers of a network are: the table in kernel/machine.h."""

    CPU_NETWORKS, CPU_OUTPUTS, CPU_TEAM, GPU_THREAD, GPU_BLOCK, GPU_WIDE, GPU_STREAMED = range(7)

    @property
    def lanes_are_outputs(self) -> bool:
        """Whether lanes are one network's outputs; else they are networks."""
        return self in (Kind.CPU_OUTPUTS, Kind.CPU_TEAM, Kind.GPU_WIDE, Kind.GPU_STREAMED)

    @property
    def block(self) -> bool:
        """Whether a GPU's block, or a part of its one warp, trains a network."""
        return self in (Kind.GPU_BLOCK, Kind.GPU_WIDE, Kind.GPU_STREAMED)


@dataclass(frozen=True)
class Layout:
    """How a machine (kernel/machines) arranges the numbers of networks.

    vector: numbers in a register. registers: in a v. chunk: samples of a batch that go through the network together;
    0: the whole batch. accumulators, rows, cols: the most that a tile of a product may have, counted in v. threads: on
    a GPU, those that train a network, or those of a block if a thread is a network; 0 on a CPU. teams: networks that
    share a block, each with `threads` threads. blocks: that train a network together, a cluster; each has `threads`
    threads. at_once: blocks that must find registers on a multiprocessor; 0 if the compiler chooses.
    slots_apart: the slots are in global memory, the parameters in shared memory. general: sizes are not constants of
    the kernel, which serves networks of any widths. tf32: how many products of tensor cores make one
    (recipe.PRECISIONS); a tile is then a warp's, `rows` and `cols` of it eights of rows and of columns.
    """

    kind: Kind = Kind.CPU_NETWORKS
    vector: int = 1
    registers: int = 1
    chunk: int = 0
    accumulators: int = 12
    rows: int = 8
    cols: int = 6
    threads: int = 0
    teams: int = 1
    blocks: int = 1
    at_once: int = 0
    slots_apart: bool = False
    general: bool = False
    tf32: int = 0

    @property
    def entries_per_v(self) -> int:
        """Numbers of one network that make a v."""
        return self.vector * self.registers if self.kind.lanes_are_outputs else 1

    @property
    def pitch_unit(self) -> int:
        """A row of a GPU's matrix is an odd multiple of these numbers: a v, or 16 bytes for tensor cores."""
        return 4 if self.tf32 else self.entries_per_v

    def aligned(self, numbers: int) -> int:
        """Rounded up to where a matrix may begin: whole v or, with tensor cores too, 16 bytes, which one copy moves."""
        return -(-numbers // self.pitch_unit) * self.pitch_unit

    def odd_pitch(self, width: int) -> int:
        """Numbers from one row to the next, so that neighbouring rows begin in different banks of shared memory."""
        return (-(-width // self.pitch_unit) | 1) * self.pitch_unit

    def pitch(self, width: int) -> int:
        """Of a block's matrix: odd_pitch(), or 1 for a single column in a wide block, which reads a v of it at once."""
        return 1 if width == 1 and self.kind == Kind.GPU_WIDE and not self.tf32 else self.odd_pitch(width)

    @property
    def networks(self) -> int:
        """Networks of a group, side by side in a v."""
        return self.vector * self.registers // self.entries_per_v

    @property
    def streamed(self) -> bool:
        """Whether a block keeps all matrices in global memory."""
        return self.kind == Kind.GPU_STREAMED


class Tile(NamedTuple):
    """Rows and columns of a product that one thread computes together (on tensor cores, one of every eight); cost: of
    the whole product, per k; tiles: how many it has."""

    rows: int
    cols: int
    cost: int
    tiles: int


@cache
def tile(m: int, n: int, k: int, layout: Layout, itemsize: int) -> Tile:
    """The cheapest tile of a product (m, k) @ (k, n), n counted in v. Among equals the largest; or, if the left matrix
    does not fit in L1, the one with the most rows, which reads it least often."""
    far = layout.kind in (Kind.CPU_OUTPUTS, Kind.CPU_TEAM) and m * k * itemsize > L1
    return min(tiles(m, n, layout), key=lambda each: (each.cost, -each.rows if far else -each.rows * each.cols))


def tiles(m: int, n: int, layout: Layout) -> Iterator[Tile]:
    """All possible tiles."""
    each, least = (8, 2) if layout.tf32 else (1, 1)
    down, across = math.ceil(m / each), math.ceil(n * (layout.entries_per_v if layout.tf32 else 1) / each)
    rows_of = range(least, min(max(down + down % least, least), layout.rows) + 1, least)
    for rows, cols in itertools.product(rows_of, range(1, min(across, layout.cols) + 1)):
        if rows * cols <= layout.accumulators:
            count = math.ceil(down / rows) * math.ceil(across / cols)
            yield Tile(rows, cols, cost(count, rows, cols, layout), count)


def cost(tiles: int, rows: int, cols: int, layout: Layout) -> int:
    """Cost of `tiles` tiles, per k."""
    if not layout.kind.block:
        # In half-cycles of a processor that does two multiply-adds and two loads per cycle; a multiply-add has a
        # latency of four.
        return tiles * max(8, rows * cols, rows + cols)
    # In quarters of a cycle: what a thread issues, tile after tile, and what the block takes of its multiprocessor,
    # which does the multiply-adds of four warps, or one warp's load of a number from shared memory, per cycle; a load
    # of 16 bytes, which pairs of threads share, takes two.
    each = layout.entries_per_v
    if layout.tf32:  # of a warp, for 8 of k: each number is loaded and rounded, in three instructions for two parts
        loads, multiplied = 2 * (rows + cols), rows // 2 * cols * layout.tf32
        alone = loads * (1 + layout.tf32) + multiplied
        return 4 * math.ceil(tiles * WARP / layout.threads) * alone + tiles * max(alone, 4 * loads, MMA * multiplied)
    sums, loads = rows * cols * each, -(-rows // each) + cols
    alone, together = sums + loads, max(sums, (4 if each == 1 else 8) * loads)
    return 4 * math.ceil(tiles / layout.threads) * alone + math.ceil(tiles / WARP) * together


def products(
    widths: Sequence[int], padded: Sequence[int], chunks: Iterable[int], trains: bool
) -> Iterator[tuple[tuple[int, int, int], str]]:
    """m, n, k and the kind of every product (m, k) @ (k, n), n counted in v, for chunks of these sizes: forward, the
    gradients of weights and biases, the delta below. padded: widths in v."""
    for rows, layer in itertools.product(chunks, range(len(widths) - 1)):
        (i, o), (down, across) = widths[layer : layer + 2], padded[layer : layer + 2]
        yield (rows, across, i), "forward"
        if trains:
            yield from (((i, across, rows), "gradient"), ((1, across, rows), "bias"))
        if trains and layer:
            yield (rows, down, o), "delta"


@cache
def cache_bytes() -> int:
    """The size of a core's L2."""
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):
        size = 0
    return size if size > 0 else 1 << 20


def choices(
    widths: tuple[int, ...], batch: int, slots: int, itemsize: int, count: int, threads: int, vector_bytes: int,
    whole: bool,
) -> dict[Kind, tuple[float, Layout]]:  # fmt: skip
    """For `count` networks on `threads` threads, the layout of each kind, and half-cycles of a step of all networks.
    whole: a batch must not be split."""
    lanes = plain(itemsize, vector_bytes)
    vector = lanes.vector

    def options() -> Iterator[tuple[float, Layout]]:
        parameters = sum(i * o + o for i, o in itertools.pairwise(widths))
        registers = 3 if batch == 1 and parameters <= TINY and count >= 3 * vector * threads else 1
        group = vector * registers
        rounds = math.ceil(math.ceil(count / group) / threads)
        chunk = batch if batch < 4 * SLICE or whole else chunk_of(batch)
        layout = replace(lanes, registers=registers, chunk=chunk, accumulators=lanes.accumulators // registers)
        yield rounds * registers * step_cost(widths, batch, slots, group * itemsize, 1, layout), layout
        padded = [-(-width // vector) * vector for width in widths[1:]]
        fits = batch * (2 * max(padded) + sum(padded)) * itemsize <= cache_bytes()
        layout = replace(
            lanes, kind=Kind.CPU_OUTPUTS, chunk=batch if batch < 4 * SLICE or whole or fits else chunk_of(batch)
        )
        spent = step_cost(widths, batch, slots, itemsize, vector, layout)
        yield math.ceil(count / threads) * spent, layout
        if count < threads and spent > TEAM:
            yield count * spent / threads * 1.25, replace(layout, kind=Kind.CPU_TEAM)

    fit = [each for each in options() if largest_index(widths, batch, slots, each[1]) <= REACH] or [*options()]
    return {each[1].kind: each for each in fit}


def largest_index(widths: tuple[int, ...], batch: int, slots: int, layout: Layout) -> int:
    """An upper bound of a kernel's largest index: as if every row of a matrix were padded by two registers."""
    lines, lanes = [width + 2 * layout.vector for width in widths], layout.networks
    row = sum((i + 1) * o for i, o in zip(widths, lines[1:]))
    return max(row * max(1 + slots, lanes), batch * max(*lines, lanes), (layout.chunk or batch) * sum(lines) * lanes)


def plain(itemsize: int, vector_bytes: int) -> Layout:
    """Lanes are networks, one register of them; tiles are as large as this processor's registers allow."""
    vector = vector_bytes // itemsize
    accumulators, cols = (24, 6) if vector_bytes == 64 else (12, 4)
    return Layout(vector=vector, accumulators=accumulators, cols=cols)


def chunk_of(batch: int) -> int:
    """The size of a batch's chunks: equal if possible, and such that tiles divide it well."""
    sizes = range(SLICE, 2 * SLICE + 1)
    return min(sizes, key=lambda size: (batch % size > 0, size % 8 > 0, size))


def step_cost(widths: tuple[int, ...], batch: int, slots: int, itemsize: int, vector: int, layout: Layout) -> float:
    """Half-cycles of a step of a group. itemsize: bytes of an element; vector: outputs in a register."""
    parameters = sum(i * -(-o // vector) * vector for i, o in itertools.pairwise(widths))
    size, rest = (1 + slots) * parameters * itemsize / cache_bytes(), batch % layout.chunk
    spent = batch // layout.chunk * products_cost(widths, layout.chunk, vector, layout)
    spent += products_cost(widths, rest, vector, layout) if rest else 0
    spent += batch * LOSS * widths[-1] if layout.kind.lanes_are_outputs else 0
    return spent * (1 if size <= 1 else OUT_OF_CACHE if size <= 4 else FAR_OUT)


def thread_count(group: int, spent: tuple[float, float], count: int, steps: float, most: int) -> int:
    """How many of `most` threads are worth starting for `steps` steps of `count` networks, `group` of them at a time.
    spent: group_cost()."""
    groups, (of_step, of_call) = -(-count // group), spent
    return max(1, min(most, int(groups * (steps * of_step + of_call) / WORTH))) if WORTH else most


@contextmanager
def threads_for_any_work() -> Iterator[None]:
    """A context in which threads start for any work."""
    global WORTH
    before, WORTH = WORTH, 0.0
    try:
        yield
    finally:
        WORTH = before


def group_cost(layout: Layout, widths: tuple[int, ...], batch: int, slots: int) -> tuple[float, float]:
    """Approximate half-cycles of a step of a group, and of moving the group in and out."""
    numbers = layout.registers * (1 + slots) * sum(i * o + o for i, o in itertools.pairwise(widths))
    products = products_cost(widths, batch, layout.entries_per_v, layout)
    return layout.registers * products + 8 * numbers, 16 * numbers + 600 * layout.registers


def products_cost(widths: tuple[int, ...], batch: int, vector: int, layout: Layout) -> float:
    """Half-cycles of the products of a step; vector: outputs in a register."""
    total = 0.0
    for layer, (i, o) in enumerate(itertools.pairwise(widths)):
        across, back = -(-o // vector), -(-i // vector)
        products = [(batch, across, i), (i, across, batch), *([(batch, back, o)] if layer else [])]
        spent = sum(k * tile(m, n, k, layout, 4).cost for m, n, k in products)
        total += spent * (DEEPER if layer and not layout.kind.lanes_are_outputs else 1)
    return total
