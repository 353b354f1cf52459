"""The parts into which a call on a GPU is divided (kernel/machines/gpu_pieces.h). If more networks train than fit at
once, the last ones are shared among blocks, as most blocks would otherwise end early. It changes no bit."""

import functools
from typing import NamedTuple

from .program import Program

WORTH = 0.97  # of the undivided call's time: shares must be estimated to need less
FLOP_OF_A_BYTE = 7.5  # operations in the time of a byte: an H200's 30 TFLOP/s in a kernel, 4 TB/s
MOST_OF_SHARE = 3  # networks, at most: the end of one, a whole one, the beginning of another
MOST = 16  # pieces of a network, if each is a share


class Parts(NamedTuple):
    """How many parts a call has, how many of them are whole blocks of networks, and the steps of each of the others."""

    all: int
    whole: int
    share: int = 0


def overhead(program: Program) -> float:
    """What a piece costs besides its steps, in steps: rows are read from global memory and written back; a kernel that
    keeps them in global memory also copies them there, and back."""
    spec, rows, weights, plan = program.spec, 1 + len(program.recipe.rule.slots), 0, program.plan
    for inputs, outputs in zip(spec.widths, spec.widths[1:]):
        weights += inputs * outputs
    copied = rows if program.layout.streamed else rows - 1 if program.layout.slots_apart else 0
    moved = 2 * (rows + copied) * spec.size * program.dtype.itemsize
    return FLOP_OF_A_BYTE * moved / (6 * plan.batch * weights)


@functools.lru_cache(1024)
def parts(blocks: int, at_once: int, steps: int, overhead: float, many: bool) -> Parts:
    """The parts of `steps` steps of `blocks` blocks of networks, of which `at_once` run at once. many: whether a block
    takes one part after another, and a share runs from within one network into another; else a share is a piece."""
    turns, rest = divmod(blocks, at_once)
    undivided = Parts(blocks, blocks)
    if not turns or not rest or steps < 2:
        return undivided
    cut = at_once + rest

    def time(share: int) -> float:
        if many:
            return share + MOST_OF_SHARE * overhead
        return -(-cut * -(-steps // share) // at_once) * (share + overhead)

    shares = [-(-cut * steps // at_once)] if many else [-(-steps // count) for count in range(2, MOST + 1)]
    share = min(shares, key=time)
    if (turns - 1) * (steps + overhead) + time(share) > WORTH * (turns + 1) * (steps + overhead):
        return undivided
    count = -(-cut * steps // share) if many else cut * -(-steps // share)
    return Parts(blocks - cut + count, blocks - cut, share)
