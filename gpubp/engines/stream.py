"""If a GPU's block streams its matrices (kernel/machines/gpu_stream.h): the part of a product that the block computes
at once, and the memory of the strips that this takes. Nothing here changes a bit.
"""

import itertools
import math
from functools import cache

from .layout import WARP, Layout, Tile, tiles

DEPTH = 16  # of k in a strip
STAGES = 3  # strips in shared memory at once: one in use, two on their way
FEW = 512  # numbers of a vector that stays in shared memory
COPY, TILE = 0.5, 4000  # quarters of a cycle: to copy a v of a strip; for each tile of a block

MATRICES = ("params", "slots", "grad", "outs", "nets", "dropped", "masks", "delta", "delta_below")

Shape = tuple[int, int, int]  # m, n, k of a product (m, k) @ (k, n), n counted in v


def is_far(name: str, numbers: int, layout: Layout) -> bool:
    """Whether an array of Memory is in a GPU's global memory, as is everything that blocks of a cluster share."""
    if not layout.streamed:
        return name == "slots" and layout.slots_apart
    return name in MATRICES or numbers > FEW or (layout.blocks > 1 and name != "class_weight")


@cache
def block_tile(shape: Shape, layout: Layout) -> tuple[int, int]:
    """Rows, and columns in v, whose sums a block computes at once, one tile per thread, at the least cost."""
    m, n, k = shape

    def spent(block: tuple[int, int]) -> tuple[float, int]:
        each = of_thread(block, layout)
        if each is None:
            return math.inf, 0
        products = k * (each.cost + COPY * (block[0] / layout.entries_per_v + block[1]))
        tiles = math.ceil(m / block[0]) * math.ceil(n / block[1])
        return math.ceil(tiles / layout.blocks) * (products + TILE), -math.prod(block)

    down, across = ({min(2**power, size) for power in range(8)} for size in (m, n))
    unit, each = layout.pitch_unit, layout.entries_per_v  # copied at once
    down = {rows for rows in down if rows == m or rows % unit == 0}
    across = {cols for cols in across if cols == n or cols * each % unit == 0}
    return min(itertools.product(down, across), key=spent)


@cache
def of_thread(block: tuple[int, int], layout: Layout) -> Tile | None:
    """The tile that each of a block's threads computes; None if there are too few threads."""
    found = [each for each in tiles(*block, layout) if each.tiles * (WARP if layout.tf32 else 1) <= layout.threads]
    return min(found, key=lambda each: (each.cost, -each.rows * each.cols), default=None)


def entries(block: tuple[int, int], kind: str, layout: Layout) -> int:
    """Entries of the strips of both matrices. Rows along k are padded, others only if tensor cores read them."""
    rows, cols = block[0], block[1] * layout.entries_per_v
    along = layout.odd_pitch(DEPTH)

    def across(width: int) -> int:
        each = layout.entries_per_v
        return layout.odd_pitch(width) if layout.tf32 else -(-width // each) * each

    left = DEPTH * across(rows) if kind == "gradient" else rows * along
    return left + (cols * along if kind == "delta" else DEPTH * across(cols))
