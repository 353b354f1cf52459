"""Which layout of kernel/machine.h trains a population fastest on this CPU. It changes the time and no bit.

Lanes are networks, or outputs of one network: the rule counts what each would take, in halves of a cycle of a processor
that starts two multiply-adds and two loads in a cycle, and takes the least. Products count as network.h tiles them;
lanes as outputs pay for widths that do not fill a register, lanes as networks for groups that leave the cache, and both
for threads without work. What was measured to set the constants stands in docs/log.md.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache

from .program import Layout

OUT_OF_CACHE = 1.3  # how much slower lanes as networks are where a group does not fit
TINY = 128  # parameters up to which, with one sample, three registers make a v: latency is what takes the time
TEAM = 20_000  # half-cycles of a step below which threads that share a network wait more than they work
SLICE = 16  # samples of a chunk at least


@cache
def cache_bytes() -> int:
    """Three quarters of a core's L2: what a group may take, beside what else passes through."""
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (ValueError, OSError):
        size = 0
    return (size if size > 0 else 1 << 20) // 4 * 3


@lru_cache(maxsize=4096)
def best(
    widths: tuple[int, ...], batch: int, slots: int, itemsize: int, count: int, threads: int, vector_bytes: int,
    whole: bool, gathered: bool,
) -> Layout:  # fmt: skip
    """The layout for `count` networks on `threads` threads. whole: a batch must not be cut. gathered: lanes as networks
    need copies of their samples."""
    vector = vector_bytes // itemsize
    plain = Layout(vector, accumulators=24, cols=6) if vector_bytes == 64 else Layout(vector, accumulators=12, cols=4)

    def options() -> Iterator[tuple[float, Layout]]:
        parameters = sum(i * o + o for i, o in itertools.pairwise(widths))
        parts = 3 if batch == 1 and parameters <= TINY and count >= 3 * vector * threads else 1
        group = vector * parts
        per_sample = 2 * max(widths[1:]) + sum(widths[1:]) + (widths[0] if gathered else 0)
        chunk, fits = _chunk(parameters * (1 + slots), parameters, per_sample, batch, group * itemsize, whole)
        layout = replace(plain, parts=parts, chunk=chunk, accumulators=plain.accumulators // parts)
        rounds = math.ceil(math.ceil(count / group) / threads)
        yield rounds * cost(widths, chunk, 1, layout) * batch / chunk * parts * (1 if fits else OUT_OF_CACHE), layout
        wide = [-(-width // vector) * vector for width in widths[1:]]
        padded = sum(i * o + o for i, o in zip(widths, wide))
        chunk, _ = _chunk(padded * (1 + slots), padded, 2 * max(wide) + sum(wide), batch, itemsize, whole)
        layout = replace(plain, wide=True, chunk=chunk)
        step = cost(widths, chunk, vector, layout) * batch / chunk
        yield math.ceil(count / threads) * step, layout
        if count < threads and step > TEAM:
            yield count * step / threads * 1.25, replace(layout, team=True)

    return min(options(), key=lambda option: option[0])[1]


def _chunk(rows: int, grad: int, per_sample: int, batch: int, item: int, whole: bool) -> tuple[int, bool]:
    """Samples that go through at once, so that rows and activations of a group fit, and whether they do."""
    room = cache_bytes() // item
    if whole or batch <= SLICE or rows + batch * per_sample <= room:
        return batch, rows + batch * per_sample <= room
    pieces = next((n for n in range(2, batch // SLICE + 1) if rows + grad + -(-batch // n) * per_sample <= room), 0)
    if pieces:
        return -(-batch // pieces), True
    return (
        (batch, False) if batch * per_sample <= 4 * (rows + grad) else (max(SLICE, (rows + grad) // per_sample), False)
    )


def cost(widths: tuple[int, ...], batch: int, vector: int, layout: Layout) -> int:
    """Half-cycles of the products of a step; vector: outputs in a register."""
    total = 0
    for layer, (i, o) in enumerate(itertools.pairwise(widths)):
        across, back = -(-o // vector), -(-i // vector)
        total += _product(batch, across, i, layout) + _product(i, across, batch, layout)
        total += _product(batch, back, o, layout) if layer else 0
    return total


@cache
def _product(m: int, n: int, k: int, layout: Layout) -> int:
    """network.h's tile_for."""
    return k * min(
        -(-m // rows) * -(-n // cols) * max(8, rows * cols, rows + cols)
        for rows in range(1, min(m, layout.rows) + 1)
        for cols in range(1, min(n, layout.cols, layout.accumulators // rows) + 1)
    )
