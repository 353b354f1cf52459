"""Which layout of kernel/machine.h trains a population fastest on this CPU. It changes the time and no bit.

Lanes are networks, or outputs of one network: the rule counts what each would take, in halves of a cycle of a processor
that starts two multiply-adds and two loads in a cycle, and takes the least. Products count as product.h tiles them;
lanes as outputs pay for widths that do not fill a register, lanes as networks for groups that leave the cache, and both
for threads without work. What was measured to set the constants stands in docs/engine.md.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache

from .program import Layout

OUT_OF_CACHE = 1.1  # how much slower a step is where a group's rows do not fit into L2,
FAR_OUT = 1.4  # and where they are more than four times as large
DEEPER = 1.2  # with lanes as networks, for products of outs, each a vector, where an input is one number for all
LOSS = 4  # half-cycles with lanes as outputs, for every out of the last layer: its lanes change places
TINY = 128  # parameters up to which, with one sample, three registers make a v: latency is what takes the time
TEAM = 40_000  # half-cycles of a step below which threads that share a network wait more than they work
WORTH = 4e5  # half-cycles of work for every thread: beginning one takes 60 us, and 300 on a virtual processor at rest
REACH = 2**31 - 1  # of an index in a kernel, which is an int; memory.h asserts it
SLICE = 32  # samples that go through together, of a batch that is four times as large or more


@cache
def cache_bytes() -> int:
    """A core's L2."""
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):
        size = 0
    return size if size > 0 else 1 << 20


@lru_cache(maxsize=4096)
def best(
    widths: tuple[int, ...], batch: int, slots: int, itemsize: int, count: int, threads: int, vector_bytes: int,
    whole: bool,
) -> Layout:  # fmt: skip
    """The layout for `count` networks on `threads` threads. whole: a batch must not be cut."""
    lanes = plain(itemsize, vector_bytes)
    vector = lanes.vector

    def options() -> Iterator[tuple[float, Layout]]:
        parameters = sum(i * o + o for i, o in itertools.pairwise(widths))
        parts = 3 if batch == 1 and parameters <= TINY and count >= 3 * vector * threads else 1
        group = vector * parts
        rounds = math.ceil(math.ceil(count / group) / threads)
        chunk = batch if batch < 4 * SLICE or whole else piece(batch)
        layout = replace(lanes, parts=parts, chunk=chunk, accumulators=lanes.accumulators // parts)
        yield rounds * parts * step(widths, batch, slots, group * itemsize, 1, layout), layout
        wide = [-(-width // vector) * vector for width in widths[1:]]
        fits = batch * (2 * max(wide) + sum(wide)) * itemsize <= cache_bytes()
        layout = replace(lanes, wide=True, chunk=batch if batch < 4 * SLICE or whole or fits else piece(batch))
        spent = step(widths, batch, slots, itemsize, vector, layout)
        yield math.ceil(count / threads) * spent, layout
        if count < threads and spent > TEAM:
            yield count * spent / threads * 1.25, replace(layout, team=True)

    return min(options(), key=lambda option: (largest_index(widths, batch, slots, option[1]) > REACH, option[0]))[1]


def largest_index(widths: tuple[int, ...], batch: int, slots: int, layout: Layout) -> int:
    """At least the largest index that a kernel takes: every row of a matrix is taken to be padded by two registers."""
    lines, lanes = [width + 2 * layout.vector for width in widths], 1 if layout.wide else layout.vector * layout.parts
    row = sum((i + 1) * o for i, o in zip(widths, lines[1:]))
    return max(row * max(1 + slots, lanes), batch * max(*lines, lanes), (layout.chunk or batch) * sum(lines) * lanes)


def plain(itemsize: int, vector_bytes: int) -> Layout:
    """Lanes are networks, one register of them, and tiles as large as this processor's registers allow."""
    vector = vector_bytes // itemsize
    return Layout(vector, accumulators=24, cols=6) if vector_bytes == 64 else Layout(vector, accumulators=12, cols=4)


def piece(batch: int) -> int:
    """Into how large pieces a batch is cut: equal ones if that can be, of a size that tiles divide well."""
    sizes = range(SLICE, 2 * SLICE + 1)
    return min(sizes, key=lambda size: (batch % size > 0, size % 8 > 0, size))


def step(widths: tuple[int, ...], batch: int, slots: int, itemsize: int, vector: int, layout: Layout) -> float:
    """Half-cycles of a step of a group. itemsize: bytes of an element; vector: outputs in a register."""
    parameters = sum(i * -(-o // vector) * vector for i, o in itertools.pairwise(widths))
    size, rest = (1 + slots) * parameters * itemsize / cache_bytes(), batch % layout.chunk
    spent = batch // layout.chunk * cost(widths, layout.chunk, vector, layout)
    spent += cost(widths, rest, vector, layout) if rest else 0
    spent += batch * LOSS * widths[-1] if layout.wide else 0
    return spent * (1 if size <= 1 else OUT_OF_CACHE if size <= 4 else FAR_OUT)


def crew(group: int, spent: tuple[float, float], count: int, steps: float, most: int) -> int:
    """How many of `most` threads are worth beginning for so many steps of `count` networks, `group` of them at a time.
    spent: work() of a group."""
    groups, (of_step, of_call) = -(-count // group), spent
    return max(1, min(most, int(groups * (steps * of_step + of_call) / WORTH))) if WORTH else most


def work(layout: Layout, widths: tuple[int, ...], batch: int, slots: int) -> tuple[float, float]:
    """Half-cycles that a group takes for a step, and for its way in and out; roughly."""
    numbers = layout.parts * (1 + slots) * sum(i * o + o for i, o in itertools.pairwise(widths))
    products = cost(widths, batch, layout.vector if layout.wide else 1, layout)
    return layout.parts * products + 8 * numbers, 16 * numbers + 600 * layout.parts


def cost(widths: tuple[int, ...], batch: int, vector: int, layout: Layout) -> float:
    """Half-cycles of the products of a step; vector: outputs in a register."""
    total = 0.0
    for layer, (i, o) in enumerate(itertools.pairwise(widths)):
        across, back = -(-o // vector), -(-i // vector)
        spent = _product(batch, across, i, layout) + _product(i, across, batch, layout)
        spent += _product(batch, back, o, layout) if layer else 0
        total += spent * (DEEPER if layer and not layout.wide else 1)
    return total


@cache
def _product(m: int, n: int, k: int, layout: Layout) -> int:
    """tile_for of product.h."""
    return k * min(
        -(-m // rows) * -(-n // cols) * max(8, rows * cols, rows + cols)
        for rows in range(1, min(m, layout.rows) + 1)
        for cols in range(1, min(n, layout.cols, layout.accumulators // rows) + 1)
    )
