"""The Layout of a network on a GPU, by what fits on the chip: the rules of docs/gpu.md. It changes no bit.

A thread is a network if all of its numbers may fit into registers; the compiler tells whether they do. Otherwise a
block is a network, or a few small ones, with all numbers in shared memory. If these do not fit, the batch is split into
chunks, or the slots go to global memory, or all matrices do, and are streamed. A block whose numbers are in shared
memory is wide (lanes are outputs) if that is estimated to be faster, with the fastest threads, chunk and place of the
slots, and if the compiler finds registers for its gradients. With products on tensor cores, a block is wide if
possible, or else streams.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from ..settings.recipe import EXACT, PRECISIONS
from . import stream, tiled
from .layout import MMA, REACH, WARP, Kind, Layout
from .plan import WAYS
from .program import Program

REGISTERS = 200  # of 4 bytes, for a thread's numbers; the others of its 255 hold addresses and intermediate results
SPILLED = 64  # bytes that a thread may keep in local memory: the compiler spills a few even with registers left
FILLED = 128  # likewise a thread of a block on tensor cores, so that more blocks run at once
THREAD = Layout(Kind.GPU_THREAD, threads=128)
BLOCK = Layout(Kind.GPU_BLOCK, accumulators=32, cols=8)
WIDE = Layout(Kind.GPU_WIDE, registers=4, accumulators=16, cols=2)  # loads of 16 bytes, tiles of 8 x 8
TENSOR = Layout(Kind.GPU_WIDE, registers=2, accumulators=32, cols=8)  # tiles of a warp: 32 x 64, 64 x 32 or less
STREAMED = Layout(Kind.GPU_STREAMED, threads=128, accumulators=16, cols=2)
CLUSTERS = 90  # architectures with clusters of blocks
MOST_PLACES = 16  # places for blocks that one network can have: a cluster of 8, with a multiprocessor each
ALONE = {128: 1.48, 256: 1.27}  # by threads: a lone streamed block's cycles on a multiprocessor, over half those of two
CLUSTER_WAIT = 12_000  # cycles that blocks of a cluster wait for each other in a step, for each layer
STREAMED_CHUNK = 256  # samples that go through a streamed network together at most, unless a batch must stay whole
BANDWIDTH = 12  # bytes of global memory in a cycle, for each multiprocessor
HELD = 100  # gradients that a thread of a wide block holds in registers
TEAM_HELD = 64  # likewise with several networks in a warp
WORTH = 0.92  # of a plain block's cycles: a wide block must be estimated to need less
FAR_WORTH = 0.85  # likewise for a block that streams its matrices, of the better of these two
LEAST_CHUNK, WIDE_CHUNK = 16, 32  # samples that go through the network together at least; in a wide block
PER_THREAD = 16  # numbers of the largest product per thread, at least: a tile of 4 x 4 loads 8 for 16 products
LEAST_THREADS, MOST_THREADS = 8, 256


class Limits(NamedTuple):
    """A device's architecture (90 for sm_90), the most bytes of a block's shared memory, and its multiprocessors."""

    arch: int
    block: int
    processors: int = 132


def places(networks: int, limits: Limits) -> int:
    """How many of the places for STREAMED's blocks, two on each multiprocessor, each of `networks` networks can have; a
    power of two."""
    return 1 << min(MOST_PLACES, max(1, 2 * limits.processors // max(1, networks))).bit_length() - 1


def in_registers(program: Program, limits: Limits) -> Program | None:
    """A thread is a network; None if it has too many numbers."""
    for chunk in (0,) if program.key.trains else _halved(min(WAYS, program.recipe.batch_size)):
        found = program.laid_out(replace(THREAD, chunk=chunk))
        if found.plan.words <= REGISTERS and found.plan.shared <= limits.block:
            return found
    return None


def in_shared_memory(program: Program, limits: Limits) -> Program | None:
    """A block is a network, with exact products: the first layout that fits; None if none does."""
    if program.recipe.precision != EXACT:
        return None
    for layout in _blocks(program):
        found = program.laid_out(replace(layout, threads=WARP))
        if found.plan.shared <= limits.block:
            return _with_threads(found, limits)
    return None


def streamed(program: Program, limits: Limits) -> Program | None:
    """A block is a network, with its matrices in global memory; None if an index cannot address them, or if the few
    numbers that a block must have in shared memory do not fit."""
    found = _spread(_streamed(program), limits)
    plan = found.plan
    largest_index = max(plan.far, plan.batch * max(plan.pitch))
    return found if largest_index <= REACH and plan.shared <= limits.block else None


def _spread(program: Program, limits: Limits) -> Program:
    """A streamed network in a block, or, if so few networks would leave multiprocessors idle, in a block of more
    threads or a cluster of such blocks, if that is estimated to be faster."""
    most, known = places(program.key.networks, limits), program.key.trains and program.dtype == torch.float32
    if most == 1 or not known or program.recipe.precision != EXACT or program.plan.group_far:
        return program
    blocks = [2**power for power in range(most.bit_length() - 1)] if limits.arch >= CLUSTERS else [1]
    larger = [program.laid_out(replace(program.layout, threads=MOST_THREADS, blocks=count)) for count in blocks]
    return min((program, *larger), key=alone_cycles)


def _streamed(program: Program) -> Program:
    batch, chunk = program.recipe.batch_size, 0
    if batch > STREAMED_CHUNK and program.recipe.update_order == "simultaneous":
        chunk = math.ceil(batch / math.ceil(batch / STREAMED_CHUNK))
    if terms := PRECISIONS[program.recipe.precision]:
        streamed = replace(STREAMED, registers=2, accumulators=32, cols=8, tf32=terms)
        return program.laid_out(replace(streamed, chunk=chunk))
    return program.laid_out(replace(STREAMED, registers=16 // program.dtype.itemsize, chunk=chunk))


def better(plain: Program, limits: Limits) -> list[Program]:
    """Blocks to take instead of a plain one, the best first: one that streams its matrices, if worthwhile, then wide
    ones. With products on tensor cores, wide ones instead of a streaming one."""
    if plain.recipe.precision != EXACT:
        return sorted(_wide_blocks(plain, limits), key=lambda each: tensor_cycles(each, limits))[:2]
    if plain.layout.streamed:
        return []
    found, far = wide(plain, limits), streamed(plain, limits)
    shared = bool(found) and resident(found[0], limits) > 1  # several wide blocks on a multiprocessor hide waits
    if shared or far is None or far.plan.chunked or not plain.key.trains or plain.dtype != torch.float32:
        return found
    least = FAR_WORTH * cycles((found or [plain])[0], limits)
    return [far, *found] if streamed_cycles(_streamed(plain)) < least else found


def wide(plain: Program, limits: Limits) -> list[Program]:
    """What to take instead of a block that is not wide, if worthwhile: the best wide one, and one of more threads and
    small chunks, which needs fewer registers."""
    options = [(cycles(each, limits) / each.plan.batch, each) for each in _wide_blocks(plain, limits)]
    least = WORTH * cycles(plain, limits) / plain.plan.batch if plain.key.trains else math.inf
    worth = [option for option in options if option[0] < least]
    ranked = [each for _, each in sorted(worth, key=lambda option: option[0])]
    others = [each for each in ranked if each.layout.threads > ranked[0].layout.threads]
    return ranked[:1] + sorted(others, key=lambda each: (each.layout.threads, each.layout.chunk))[:1]


def _wide_blocks(program: Program, limits: Limits) -> Iterator[Program]:
    """Layouts for float32, the only type that cycles() knows, with gradients that fit into registers, and the rest into
    shared memory; only if a layer has a v of outputs."""
    if program.dtype != torch.float32 or max(program.plan.widths[1:]) < WIDE.registers:
        return
    terms = PRECISIONS[program.recipe.precision]
    wide = replace(TENSOR, tf32=terms) if terms else WIDE
    batch, whole = program.recipe.batch_size, program.recipe.update_order == "layerwise"
    apart = (False, True) if program.recipe.rule.slots else (False,)
    least = WARP if terms else LEAST_THREADS
    threads = [count for count in (LEAST_THREADS << power for power in range(6)) if count >= least]
    for count, power, slots_apart in itertools.product(threads, range(batch.bit_length()), apart):
        fewest = LEAST_CHUNK if count < WARP else WIDE_CHUNK
        if power and (whole or batch < fewest << power):
            continue
        chunk = math.ceil(batch / 2**power)
        teams = max(1, WARP // count)
        found = program.laid_out(replace(wide, chunk=chunk, threads=count, teams=teams, slots_apart=slots_apart))
        found = tiled.dense(found)
        if tiled.held(found) <= (HELD if teams == 1 else TEAM_HELD) and found.plan.shared <= limits.block:
            yield found


def resident(program: Program, limits: Limits) -> int:
    """Networks that a multiprocessor trains at once, estimated: it has registers for tiled.threads(), and places for 32
    blocks."""
    threads, networks = block(program.layout)
    by_registers = tiled.threads(program) // WARP // -(-threads // WARP)
    return networks * max(1, min(32, _by_memory(program, limits), by_registers))


def _by_memory(program: Program, limits: Limits) -> int:
    """How many blocks fit into a multiprocessor's shared memory: it has 1 KB more than a block may use, and each takes
    1 KB besides its own."""
    return (limits.block + 1024) // (program.plan.shared + 1024)


def fuller(program: Program, registers: int, limits: Limits) -> Program | None:
    """The wide program, compiled so as to leave registers for one more warp per scheduler; None if shared memory has no
    room for more blocks than fit with `registers` per thread."""
    layout = program.layout
    warps, of_scheduler = -(-block(layout)[0] // WARP), tiled.SCHEDULER // (-(-registers // 8) * 8)
    if layout.kind != Kind.GPU_WIDE or layout.at_once:
        return None
    if _by_memory(program, limits) <= tiled.SCHEDULERS * of_scheduler // warps:
        return None
    return program.laid_out(replace(layout, at_once=tiled.SCHEDULERS * (of_scheduler + 1) // warps))


def cycles(program: Program, limits: Limits) -> float:
    """Estimated cycles of a multiprocessor for a step of a network, or for the samples that it evaluates together: the
    instructions of its products, which four schedulers issue, and what a network waits for whatever else runs
    (tiled.Waits). A fit to a model of an H100's multiprocessor that runs the compiled code, over 102 kernels
    (docs/gpu.md); four of five estimates are within a fifth of it."""
    plan, layout = program.plan, program.layout
    each, chunks, wide = layout.entries_per_v, math.ceil(plan.batch / plan.chunk), layout.kind == Kind.GPU_WIDE
    if wide and layout.teams > 1 and program.key.trains:
        return tiled.team_cycles(program, limits.block + 1024)
    waits = tiled.WIDE if wide else tiled.PLAIN if layout.teams == 1 else tiled.SHARED
    if not program.key.trains:
        waits = tiled.SHOWN
    issued, numbers = 0.0, 0.0
    for m, n, k, gradient in tiled.products(program):
        tile, (tiles, rounds) = plan.tiles[m, n, k], tiled.rounds(program, m, n, k)
        warps = math.ceil(tiles / WARP) if layout.threads >= WARP else rounds * layout.threads / WARP
        sums = tile.rows * tile.cols * (min(each, *plan.widths[1:]) if n == 1 else each)
        if wide and (m, gradient) == (1, 1):
            sums, rounds = 1, math.ceil(n * each / layout.threads)
            warps = rounds * math.ceil(min(n * each, layout.threads) / WARP)
        issued += chunks * k * warps * (sums + -(-tile.rows // each) + tile.cols + (1 if wide else 0.5))
        slots = 2 * plan.slots * (waits.far if layout.slots_apart else 1)
        numbers += (1 if gradient and wide else chunks) * rounds * sums * (1 + slots if gradient else 1)
    waited = waits.for_all(program, numbers)
    return waits.issue * issued / tiled.SCHEDULERS + waited / resident(program, limits)


def tensor_cycles(program: Program, limits: Limits) -> float:
    """cycles() with products on tensor cores: the longest of products, loads and instructions."""
    plan, layout, waits = program.plan, program.layout, tiled.CORES
    chunks, busy, numbers = math.ceil(plan.batch / plan.chunk), 0.0, 0
    for m, n, k, gradient in tiled.products(program):
        if (m, gradient) == (1, 1):
            continue
        tile, (tiles, rounds) = plan.tiles[m, n, k], tiled.rounds(program, m, n, k)
        loads, multiplied = 2 * (tile.rows + tile.cols), tile.rows // 2 * tile.cols * layout.tf32
        each = max(loads, waits.issue * (loads * (1 + layout.tf32) + multiplied) / 4, MMA / 4 * multiplied)
        busy += chunks * tiles * math.ceil(k / 8) * each
        sums = tile.rows * tile.cols * layout.entries_per_v
        numbers += (1 if gradient else chunks) * rounds * sums * (1 + 2 * plan.slots if gradient else 1)
    return busy + waits.for_all(program, numbers) / resident(program, limits)


def streamed_cycles(program: Program) -> float:
    """cycles() of a block that streams its matrices, two of which run on a multiprocessor: the products and the copies
    to shared memory, or the time of global memory, if that is longer; for a block of a cluster, its part. Fitted like
    cycles(), to ten topologies."""
    plan, threads = program.plan, program.layout.threads
    each, issued, numbers = program.layout.entries_per_v, 0.0, 0
    for (m, n, k), kind in plan.products(plan.chunk):
        if kind == "bias":
            continue
        rows, cols = plan.block_tiles[m, n, k]
        tile, tiles = plan.tiles[rows, cols, stream.DEPTH], math.ceil(m / rows) * math.ceil(n / cols)
        tiles = math.ceil(tiles / program.layout.blocks)
        warps, sums = math.ceil(math.ceil(rows / tile.rows) * math.ceil(cols / tile.cols) / WARP), tile.rows * tile.cols
        copies = stream.DEPTH * (rows / each + cols) / threads
        strips = math.ceil(k / stream.DEPTH) * (25 + 8 * copies) * threads / WARP
        issued += tiles * (warps * k * (sums * each + -(-tile.rows // each) + tile.cols) + strips)
        numbers += tiles * sums * each * (1 + 2 * plan.slots if kind == "gradient" else 1)
    chunks, moved = math.ceil(plan.batch / plan.chunk), (4 + 2 * plan.slots) * plan.weights[-1] * plan.itemsize
    moved //= program.layout.blocks
    return max(chunks * (1.1 * issued / 4 + 6 * numbers) + 6000 + 60 * plan.batch, chunks * moved / BANDWIDTH)


def alone_cycles(program: Program) -> float:
    """Estimated cycles of a step of a streamed network whose blocks have a multiprocessor each: a scheduler with fewer
    warps waits more, and blocks of a cluster for each other."""
    layout = program.layout
    waits = CLUSTER_WAIT * len(program.plan.widths) if layout.blocks > 1 else 0
    return ALONE[layout.threads] * streamed_cycles(program) + waits


def _with_threads(program: Program, limits: Limits) -> Program:
    """As many threads as the network has work for; if they are fewer than a warp, several networks, if these fit."""
    count = threads(program)
    found = program.laid_out(replace(program.layout, threads=count, teams=max(1, WARP // count)))
    return found if found.plan.shared <= limits.block else program


def _blocks(program: Program) -> Iterator[Layout]:
    """The whole batch, smaller and smaller chunks of it, and the same with the slots in global memory."""
    batch = program.recipe.batch_size
    counts = range(1, max(1, batch // LEAST_CHUNK) + 1) if program.recipe.update_order == "simultaneous" else (1,)
    chunks = sorted({math.ceil(batch / count) for count in counts}, reverse=True)
    if not program.key.trains:
        chunks = _halved(batch)
    for slots_apart in (False, True) if program.recipe.rule.slots else (False,):
        for chunk in chunks:
            yield replace(BLOCK, chunk=chunk, slots_apart=slots_apart)


def _halved(batch: int) -> list[int]:
    """A number of samples, and its halves down to 1."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def threads(program: Program) -> int:
    """A network's threads: a quarter of a warp, doubled while each has PER_THREAD numbers of the largest product."""
    chunk = program.layout.chunk
    largest = max(max(i, chunk) * o for i, o in itertools.pairwise(program.spec.widths))
    count = LEAST_THREADS
    while count < MOST_THREADS and largest >= 2 * count * PER_THREAD:
        count *= 2
    return count


def block(layout: Layout) -> tuple[int, int]:
    """Threads and networks of a block."""
    threads = layout.threads * layout.teams
    return threads, layout.teams if layout.kind.block else threads


def wants(program: Program) -> int:
    """Bytes of shared memory that the smallest layout needs."""
    found = [program.laid_out(replace(layout, threads=WARP)) for layout in _blocks(program)]
    return min(each.plan.shared for each in (*found, _streamed(program)))
