"""How many pieces a call on a GPU is cut into where more networks train than fit there at once (kernel/machines/
gpu_pieces.h): its last blocks are then short, and the GPU idles less. It changes no bit."""

from __future__ import annotations

import functools

from .program import Program

MOST, WORTH = 16, 0.97  # pieces of a call; of the time of the whole call, what is worth pieces
FLOP_OF_A_BYTE = 7.5  # that a device takes meanwhile: an H200's 30 TFLOP/s of a kernel, 4 TB/s


def overhead(program: Program) -> float:
    """What a piece costs besides its steps, in steps: rows come from global memory and go back."""
    spec, rows, weights = program.spec, 1 + len(program.recipe.rule.slots), 0
    for inputs, outputs in zip(spec.widths, spec.widths[1:]):
        weights += inputs * outputs
    moved = 2 * rows * spec.size * program.dtype.itemsize
    return FLOP_OF_A_BYTE * moved / (6 * program.recipe.batch_size * weights)


@functools.lru_cache(1024)
def pieces(teams: int, at_once: int, steps: int, overhead: float) -> tuple[int, int]:
    """-> how many pieces, and the steps of each but the last, for teams of which `at_once` run at once."""

    def time(each: int) -> float:
        return -(-teams * -(-steps // each) // at_once) * (each + overhead)

    if teams <= at_once or steps < 2:
        return 1, max(1, steps)
    each = min((-(-steps // count) for count in range(1, MOST + 1)), key=time)
    if time(each) > WORTH * time(steps):
        each = steps
    return -(-steps // each), each
