"""Into which parts a call on a GPU is divided (kernel/machines/gpu_pieces.h). Where more networks train than fit there
at once, the last ones are shared out, or most blocks would end early. It changes no bit."""

import functools
from typing import NamedTuple

from .program import Program

WORTH = 0.97  # of the time of whole calls: shares must be estimated to need less
FLOP_OF_A_BYTE = 7.5  # that a device takes meanwhile: an H200's 30 TFLOP/s of a kernel, 4 TB/s
MOST_OF_SHARE = 3  # networks, at most: the end of one, one whole, the beginning of another
MOST = 16  # pieces of a network, where each is a share


class Parts(NamedTuple):
    """How many parts a call has, how many of them are whole blocks of networks, and the steps of each other one."""

    all: int
    whole: int
    share: int = 0


def overhead(program: Program) -> float:
    """What a piece costs besides its steps, in steps: rows come from global memory and go back, there also into a copy
    and back, where a kernel has them in global memory."""
    spec, rows, weights, plan = program.spec, 1 + len(program.recipe.rule.slots), 0, program.plan
    for inputs, outputs in zip(spec.widths, spec.widths[1:]):
        weights += inputs * outputs
    copied = rows if program.layout.streamed else rows - 1 if program.layout.slots_apart else 0
    moved = 2 * (rows + copied) * spec.size * program.dtype.itemsize
    return FLOP_OF_A_BYTE * moved / (6 * plan.batch * weights)


@functools.lru_cache(1024)
def parts(blocks: int, at_once: int, steps: int, overhead: float, many: bool) -> Parts:
    """Of `steps` of so many blocks of networks, of which `at_once` run at once. many: whether a block takes one part
    after the other, and a share has networks from the end of one to the beginning of another; else it is a piece."""
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
