"""Memory that training needs: checked before it starts, explained when it runs out."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow
import torch

from .errors import OutOfMemoryError
from .line import counted
from .maths.blocks import BLOCK, GROUP
from .maths.rng import AT_ONCE, EACH
from .maths.spec import NetworkSpec
from .samples.data import Dataset
from .settings.recipe import Recipe
from .system import free
from .system.free import size
from .system.lean import imports_pandas

RESERVE = 1 << 28  # bytes of a GPU for libraries and the nodes of recordings
RAN_OUT = ("out of memory", "allocate memory", "ALLOC_FAILED", "cublasCreate")
CHIP, CHUNK, STREAMED = 1 << 17, 256, 300  # bytes of rows above which a GPU streams them; samples, networks at once
# Bytes that a process takes for its first results (x86-64): what a first run and its table begin to use,
# pandas, if it is there, as pyarrow loads it, and what writes the files of a run.
LIBRARIES = {"pyarrow": 22_000_000, "pandas": 38_000_000, "parquet": 30_000_000}
FACTOR = 40  # times a block's largest tensor: all that the block works with, on the host
FIGURES, TABLE = 100, (400, 1 << 16)  # bytes per network; bytes of a table's rows, and how many are made at once
COLUMNS = 24  # int64 and float64 numbers per network besides its rows: clocks, hyper-parameters, losses


def needed(
    spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int, gpu: bool = False, data: Sequence[Dataset] = ()
) -> int:
    """Bytes to train `count` networks: the given population (not on a GPU), the trained copy, its slots and a block's
    workspace; on a GPU a group's workspace with the copies that recordings need, their samples, and `data`; for
    streamed networks, also the copies and outs of those that train at once."""
    rows = 1 + len(recipe.rule.slots) + recipe.restore_best
    size, batch = spec.size * itemsize, recipe.batch_size
    largest = max(size, batch * max(spec.widths) * itemsize)
    if not gpu:
        return count * ((rows + 1) * size + COLUMNS * 8) + FACTOR * max(BLOCK, 2 * largest)
    group = max(12 * GROUP, (8 * rows + 32) * largest)  # or two networks, if they need more than a group
    fixed = group + AT_ONCE * EACH + RESERVE
    if rows * size > CHIP:
        fixed += min(count, STREAMED) * (rows * size + 6 * min(batch, CHUNK) * sum(spec.widths) * itemsize)
    return count * (rows * size + COLUMNS * 8) + fixed + sum(each.nbytes(count) for each in data)


def workspace(spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int) -> int:
    """Bytes of host memory for activations and gradients of `count` networks: for many, a block's, as in needed()."""
    network = max(spec.size, max(recipe.batch_size, CHUNK) * max(spec.widths)) * itemsize
    return min(needed(spec, recipe, 0, itemsize), FACTOR * max(2, count) * network)


def each(spec: NetworkSpec, recipe: Recipe, itemsize: int) -> int:
    """Bytes of a network in host memory, as needed() counts them."""
    return needed(spec, recipe, 1, itemsize) - needed(spec, recipe, 0, itemsize)


def fit(spec: NetworkSpec, recipe: Recipe, itemsize: int, device: torch.device, data: Sequence[Dataset] = ()) -> int:
    """How many networks `device` can train at once, on a GPU with `data`; sys.maxsize if free memory is unknown."""
    room, gpu = free.available(device), device.type == "cuda"
    if room is None:
        return sys.maxsize

    def most(begin: int) -> int:
        least, more = (needed(spec, recipe, count, itemsize, gpu, data) for count in (begin, begin + 1))
        return begin + (room - least) // (more - least)

    few = max(0, most(0))
    return few if few <= STREAMED else max(STREAMED, most(STREAMED))


def plan(
    shapes: Sequence[tuple[NetworkSpec, Recipe, int, int]], given: bool, room: int | None, data: Sequence[Dataset] = (),
    waits: bool = False, workspace: int | None = None, files: bool = False,
) -> str:  # fmt: skip
    """A sentence on the host memory that a run's largest network, all networks and their data need, and how many have
    room. given: whether the caller keeps the networks, so that the run makes a copy; room: free bytes before the run
    made any, if known; waits: whether more networks wait for slots; workspace: bytes of activations and gradients, by
    default their maximum; files: whether the results are written."""
    spec, recipe, _, itemsize = max(shapes, key=lambda shape: shape[0].size * (1 + len(shape[1].rule.slots)))
    row = spec.size * itemsize
    parts = {
        f"{spec.size:,} parameters": row,
        "their copy": row * given,
        f"optimizer {recipe.optimizer}": row * len(recipe.rule.slots),
        "best rows": row * recipe.restore_best,
        "hyper-parameters and clocks": COLUMNS * 8,
    }
    listed = ", ".join(f"{name} {size(number)}" for name, number in parts.items() if number)
    theirs = sum(spec.size * count * itemsize for spec, _, count, itemsize in shapes)
    network, steps = sum(parts.values()), max(needed(*each[:2], 0, each[3]) for each in shapes)
    count, samples = sum(each[2] for each in shapes), sum(map(nbytes, data))
    total, workspace = together(shapes) - steps - theirs * (not given), steps if workspace is None else workspace
    tables, design = results(count, files), files and not given  # a design is written before the first step
    all_bytes = total + (workspace + tables if design else max(workspace, tables))
    most, of_these = ("up to ", " of the largest") if len(shapes) > 1 else ("", "")
    if room is None:
        left = ""
    else:
        room += theirs * given
        left = f"; {size(room)} free, room for {max(0, room - steps) // network:,}{of_these}"
    return (
        f"memory: {most}{size(network)} a network ({listed}); {count:,} at once{', while others wait,' * waits} need "
        f"{size(all_bytes)}: {size(total)} of their own, {size(workspace)} for activations and gradients, and "
        f"{'' if design else 'then '}{size(tables)} for libraries and tables of the results; data {size(samples)}{left}"
    )


def results(count: int, files: bool) -> int:
    """Bytes that the results of `count` networks take, with the libraries that make them and write them to files."""
    first = not pyarrow.default_memory_pool().max_memory()  # no table has been made in this process
    there = {"pyarrow": first, "parquet": first and files, "pandas": imports_pandas()}
    each, most = TABLE
    return sum(LIBRARIES[name] for name in LIBRARIES if there[name]) + FIGURES * count + each * min(count, most)


def nbytes(data: Dataset) -> int:
    """Bytes of the data of all networks."""
    return data.nbytes(data.networks or 0)


def together(shapes: Sequence[tuple[NetworkSpec, Recipe, int, int]]) -> int:
    """Bytes of populations that train in one run: their networks, and the largest workspace, which all of the
    processor's threads share, even if several train side by side."""
    workspaces = [needed(spec, recipe, 0, itemsize) for spec, recipe, _, itemsize in shapes]
    return sum(needed(*each) for each in shapes) - sum(workspaces) + max(workspaces)


def check(shapes: Sequence[tuple[NetworkSpec, Recipe, int, int]], device: torch.device) -> None:
    """Raise OutOfMemoryError, before anything is allocated, if populations that train in one run cannot fit."""
    room, total = free.available(device), together(shapes)
    if room is None:
        return
    for each in shapes:
        if needed(*each) > room:
            raise OutOfMemoryError(message(*each, device))
    if total > room:
        count = sum(each[2] for each in shapes)
        raise OutOfMemoryError(
            f"{count:,} networks in {len(shapes)} populations need {size(total)} on {device}; {size(room)} are free: "
            "train fewer networks at once"
        )


def ran_out(error: BaseException | None) -> bool:
    """Whether `error`, or one in its context, means out of memory: allocator, driver and libraries word it
    differently."""
    while error is not None:
        if isinstance(error, (MemoryError, OutOfMemoryError)) or any(word in str(error) for word in RAN_OUT):
            return True
        error = error.__context__
    return False


@contextmanager
def explained(shapes: Sequence[tuple[NetworkSpec, Recipe, int, int]], device: torch.device) -> Iterator[None]:
    """Turn torch's out-of-memory errors into an OutOfMemoryError that says how much the largest population needs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        largest = max(shapes, key=lambda shape: shape[0].size * shape[2] * shape[3])
        told = OutOfMemoryError(message(*largest, device))
        vars(told).update(vars(error))  # its notes, and the result so far (results/result.py)
        raise told from error


def message(
    spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int, device: torch.device, data: Sequence[Dataset] = ()
) -> str:
    """How much is needed, how much is free, and what to change."""
    room, gpu = free.available(device), device.type == "cuda"
    bytes_needed = needed(spec, recipe, count, itemsize, gpu, data)
    each = (bytes_needed - needed(spec, recipe, 0, itemsize, gpu, data)) / count
    slots = len(recipe.rule.slots)
    text = (
        f"{counted(count, 'network')} of {'-'.join(map(str, spec.widths))} with {recipe.optimizer} "
        f"need{'s' * (count == 1)} {size(bytes_needed)} on {device}: {spec.size:,} parameters and {slots} slots of "
        f"{itemsize} bytes each, {size(each)} per network"
    )
    if room is None:
        return f"{text}; train fewer networks at once"
    most = fit(spec, recipe, itemsize, device, data)
    advice = (
        f": train up to {counted(most, 'network')} at once"
        if most
        else ", too little for one: use a smaller batch_size"
    )
    left = None if gpu else free.addresses()
    if left is not None and left <= room + free.SMALL:
        advice = f" under ulimit -v, which counts what libraries only reserve{advice}"
    if slots:
        advice += ", or use an optimizer without slots (sgd)"
    return f"{text}; {size(room)} are free{advice}" + (", or float32" if itemsize == 8 else "")
