"""What a step costs a block, or a thread that is a network: the compiled loop's instructions times how often they run,
beside a count by hand. python -m tests.gpu_steps prints the tables of docs/gpu.md.

Counted are instructions that a warp issues. Compiled: nvdisasm's text of the loop over steps, cut at its barriers into
phases; a phase's body is issued by the warps that have items, the loop over k once for every turn. Not counted is what
ordinary numbers jump over: calls for a root or quotient out of range, the key of a pass that begins, a walk beyond the
first. By hand: HAND, for what the phases have to do, with every lane of a warp at work.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from gpubp.engines import cuda
from gpubp.engines.program import Program

from . import gpu_budgets
from .gpu_budgets import H100, Instruction, instructions, program, step

BLOCKS = ("64-32-10, batch 64, adam", "16-64-64-4, batch 128, sgd", "16-64-64-4, batch 128, adam")
THREADS = {"2-2-2, batch 1, sgd, in order": False, "2-2-2, batch 1, sgd": True}  # and whether it has an order
WARP = 32
MULTIPROCESSORS, CYCLES = 132, 1.7e9  # of a device of the H100's class; a second's
FLOATS, MOVED = ("FFMA", "FMUL", "FADD"), ("LDS", "STS")
PHILOX, SHORT = "0x2daee0ad", 10  # a multiplier of Philox, negative; instructions of a call with its moves, at most

HAND = {  # instructions of a thread
    "exp": 18,         # bounds 3, reduction and polynomial 9, the power of two 6
    "log": 42,         # of a denormal 4, exponent and mantissa 7, quotient 11, polynomial and sum 14, domain 6
    "quotient": 10,    # estimate, five multiply-adds, the look whether they suffice 4
    "root": 10,        # estimate, two products, two multiply-adds, the look 5
    "relu": 1,
    "slope of relu": 2,
    "update by sgd": 3,    # load, multiply-add, store
    "update by adam": 33,  # loads and stores 6, moments 5, root 10, quotient 10, floor and rate 2
    "rates": 62,       # of adam, in double: loads and stores 15, root 16, quotient 18, products and sums 9, rounding 4
    "walk": 120,       # 12 rounds of 10
    "place": 35,       # of a sample in its pass: two quotients of whole numbers 15 each, number and store 5
    "gathered": 7,     # index, address 2, place 2, load, store
    "phase": 4,        # of every warp: who has items 3, the barrier
}  # fmt: skip


class Phase(NamedTuple):
    """What lies between two barriers. items: independent ones; hand: instructions of all warps; of a product, k and the
    numbers of its tile."""

    name: str
    items: int
    hand: float
    k: int = 0
    tile: int = 0


def warps(items: float) -> float:
    """How many have work, filled but for a lone one."""
    return max(1, items / WARP)


def shape(m: int, n: int, own: Program) -> tuple[int, int]:
    """network.h's tile_for with the cost of a GPU's block."""
    layout = own.layout

    def cost(rows: int, cols: int) -> tuple[int, int]:
        tiles = -(-m // rows) * -(-n // cols)
        alone, together = rows * cols + rows + cols, max(rows * cols, 4 * (rows + cols))
        return 4 * -(-tiles // layout.threads) * alone + -(-tiles // WARP) * together, -rows * cols

    return min(
        ((rows, cols) for rows in range(1, min(m, layout.rows) + 1)
         for cols in range(1, min(n, layout.cols, layout.accumulators // rows) + 1)),
        key=lambda tile: cost(*tile),
    )  # fmt: skip


def product(name: str, sizes: tuple[int, int, int], each: float, own: Program) -> Phase:
    """C (m, n) = sum over k: a tile's multiply-adds, its loads by four numbers, 5 of the loop for 4 of k, 8 to begin;
    `each` number then takes so many."""
    m, n, k = sizes
    rows, cols = shape(m, n, own)
    tiles = m * n / (rows * cols)
    hand = k * rows * cols + (rows + cols + 5) * k / 4 + 8 + rows * cols * each
    return Phase(name, -(-m // rows) * -(-n // cols), warps(tiles) * hand, k, rows * cols)


def phases(own: Program) -> list[Phase]:
    """Of a step, in order, of networks of relu in one piece, with an order of their own."""
    each = own.layout.threads / WARP * HAND["phase"]
    return [phase._replace(hand=phase.hand + each) for phase in work(own)]


def work(own: Program) -> Iterator[Phase]:
    """The phases, without what each costs where it has no items."""
    spec, batch, wide = own.spec, own.config.batch_size, list(itertools.pairwise(own.spec.widths))
    adam, targets = own.config.optimizer == "adam", 1 if own.classes else spec.widths[-1]
    update = HAND["update by adam" if adam else "update by sgd"]
    yield Phase("samples", batch, warps(batch) * (HAND["place"] + HAND["walk"]) + own.layout.threads / WARP * 20)
    if adam:
        yield Phase("rates", 1, HAND["rates"])
    fetched = batch * (spec.widths[0] + targets)
    yield Phase("gather", batch * spec.widths[0], warps(fetched) * HAND["gathered"])
    for layer, (i, o) in enumerate(wide):
        value = HAND["relu"] if layer + 1 < len(wide) else 0
        yield product(f"forward {i}-{o}", (batch, o, i), 2 + value, own)
    yield Phase("loss", batch, warps(batch) * loss(own))
    for layer, (i, o) in reversed(list(enumerate(wide))):
        if layer:
            yield product(f"delta {i}-{o}", (batch, i, o), 3 + HAND["slope of relu"], own)
        yield product(f"gradient {i}-{o}", (i, o, batch), update, own)
        yield Phase(f"bias {i}-{o}", o, warps(o) * (2 * batch + update), batch, 1)
    yield Phase("sum of losses", WARP, 1.25 * batch + 4)


def loss(own: Program) -> float:
    """Of one sample: loads, the sum, and what is stored."""
    outs = own.spec.widths[-1]
    if not own.classes:
        return 7 * outs + 4
    largest, powers, deltas = 2 * outs, outs * (HAND["exp"] + 4), 5 * outs
    return largest + powers + HAND["log"] + HAND["quotient"] + deltas + 6


def jumped(part: Sequence[Instruction]) -> set[int]:
    """Addresses of what ordinary numbers jump over."""
    found: set[int] = set()
    for jump in part:
        body = [each for each in part if jump.address < each.address < jump.target]
        rare = len(body) <= SHORT and any(each.name == "CALL" for each in body)
        if (rare or any(PHILOX in each.text for each in body)) and not _whole(part, jump):
            found |= {each.address for each in body}
    return found


def _whole(part: Sequence[Instruction], jump: Instruction) -> bool:
    """Whether a jump leaves out what a phase is for: over it go the warps that have no items."""
    left_out = sum(jump.address < each.address < jump.target for each in part)
    return left_out > len(part) / 2 or jump.target >= part[max(0, len(part) - 4)].address


def turns(loop: Sequence[Instruction], phase: Phase) -> float:
    """How often a warp goes through a loop over k, by its multiply-adds; or all of them through one over items, by its
    loads."""
    names = Counter(each.name for each in loop)
    if names["LDG"]:
        return math.ceil(phase.items / WARP) / names["LDG"]
    if not phase.tile:
        return 0  # another walk
    assert names["FFMA"] % phase.tile == 0, phase
    return phase.k // (names["FFMA"] // phase.tile)


def issued(part: Sequence[Instruction], phase: Phase, count: int) -> Counter[str]:
    """Instructions of a phase by name that `count` warps issue together."""
    cold, busy, total = jumped(part), min(count, math.ceil(phase.items / WARP)), Counter[str]()
    guard = next((jump for jump in part if jump.target > jump.address and _whole(part, jump)), None)
    loops = [
        [each for each in part if jump.target <= each.address <= jump.address]
        for jump in part
        if part[0].address <= jump.target <= jump.address
    ]
    for each in part:
        if each.address in cold:
            continue
        times: float = busy if guard and guard.address < each.address < guard.target else count
        for loop in loops:
            if loop[0].address <= each.address <= loop[-1].address:
                far = any(other.name == "LDG" for other in loop)
                times = turns(loop, phase) * (1 if far else busy)
        total[each.name] += round(times)
    return total


def parts(loop: Sequence[Instruction]) -> list[list[Instruction]]:
    """The loop over steps, cut behind its barriers; what follows the last belongs to the last."""
    found: list[list[Instruction]] = [[]]
    for each in loop:
        found[-1].append(each)
        if each.name == "BAR":
            found.append([])
    rest = found.pop()
    found[-1] += [each for each in rest if each.target < 0]
    return found


def thread(order: bool) -> int:
    """By hand, a step of 2-2-2 with one sample, sigmoids and sgd, in a thread."""
    products, updates, others = 8 + 4 + 4, 2 * 12, 30  # and the biases; a number to every parameter; counters and sums
    sigmoids, losses, slopes = 4 * (HAND["exp"] + 1 + HAND["quotient"]), 2 * 8, 2 * 3
    return products + updates + others + sigmoids + losses + slopes + order * (HAND["place"] + HAND["walk"])


def issued_by_a_thread(loop: Sequence[Instruction]) -> Counter[str]:
    """Instructions of a step by name where a thread is a network."""
    inner, cold = loop[:-1], jumped(loop)  # the last goes to the next step
    for jump in inner:
        if 0 <= jump.target < jump.address:  # another walk
            cold |= {each.address for each in inner if jump.target <= each.address <= jump.address}
    return Counter(each.name for each in loop if each.address not in cold)


@cache
def by_phases(name: str) -> list[tuple[Phase, Counter[str]]]:
    """Every phase of a workload whose block is a network, and what its warps issue."""
    kernel = cuda._best(program(name), H100)
    own, loop = kernel.program, step(instructions(kernel.code))
    planned, found = phases(own), parts(loop)
    assert len(planned) == len(found), (len(planned), len(found))
    return [(phase, issued(part, phase, own.layout.threads // WARP)) for phase, part in zip(planned, found)]


def steps() -> dict[str, tuple[float, Counter[str], int]]:
    """Of every workload a step by hand, as it is issued, and how many networks that is."""
    found: dict[str, tuple[float, Counter[str], int]] = {
        name: (thread(order), issued_by_a_thread(step(instructions(cuda._best(program(name), H100).code))), WARP)
        for name, order in THREADS.items()
    }
    for name in BLOCKS:
        each = by_phases(name)
        found[name] = (sum(phase.hand for phase, _ in each), sum((counts for _, counts in each), Counter()), 1)
    return found


def cycles(counts: Counter[str]) -> dict[str, float]:
    """Of a multiprocessor, if one thing alone took time: it starts four instructions of warps in a cycle, four warps'
    multiply-adds, one warp's load or store of shared memory, half of one warp's estimates."""
    return {
        "issue": sum(counts.values()) / 4,
        "multiply-adds": sum(counts[name] for name in FLOATS) / 4,
        "shared memory": sum(counts[name] for name in MOVED),
        "estimates": 2 * counts["MUFU"],
    }


def row(*cells: object) -> str:
    """Of a table in Markdown; numbers in groups of three."""
    return f"| {' | '.join(f'{cell:,.0f}' if isinstance(cell, (int, float)) else str(cell) for cell in cells)} |"


def kernels() -> list[str]:
    """The table of what kernels take, as gpu_budgets.json has it."""
    found = json.loads(gpu_budgets.TABLE.read_text(encoding="utf-8"))["workloads"]
    who = {"a thread each": "a thread", 1: "a block", 2: "half a warp", 4: "a quarter of a warp"}
    columns = ("threads", "registers", "local", "shared", "step", "FFMA", "MUFU", "LDS")
    return [row(name, who[own["networks"]], *(own[each] for each in columns)) for name, own in found.items()]


def overview() -> list[str]:
    """The table of steps, and what bounds them."""
    rows = []
    for name, (hand, counts, networks) in steps().items():
        total, spent = sum(counts.values()), cycles(counts)
        most = max(spent, key=lambda each: spent[each])
        rate = MULTIPROCESSORS * CYCLES / spent[most] * networks
        rows.append(row(name, hand, total, f"{total / hand:.2f}", *spent.values(), most, f"{rate:.2g}"))
    return rows


def detail(name: str) -> list[str]:
    """The table of a workload's phases."""
    return [
        row(phase.name, phase.hand, sum(counts.values()), counts["FFMA"], counts["LDS"])
        for phase, counts in by_phases(name)
    ]


if __name__ == "__main__":
    for lines in (kernels(), overview(), *map(detail, BLOCKS[:2])):
        print("\n".join(lines), end="\n\n")
