"""What a training takes in memory, before it is tried and after it failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .blocks import BLOCK, GROUP
from .data import Dataset
from .errors import OutOfMemoryError
from .free import available, size
from .recipe import Recipe
from .rng import AT_ONCE, EACH
from .spec import NetworkSpec

RESERVE = 1 << 28  # bytes of a GPU for what libraries load and for the nodes of recordings
RAN_OUT = ("out of memory", "allocate memory", "ALLOC_FAILED", "cublasCreate")
COLUMNS = 24  # int64 and float64 numbers per network beside its rows: clocks, hyper-parameters, losses


def needed(
    spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int, gpu: bool = False, data: Sequence[Dataset] = ()
) -> int:
    """Bytes to train `count` networks: the population that came, which no GPU holds, the one in training, its slots, a
    block's workspace; on a GPU that of a group with the copies that recordings need, their samples, and `data`."""
    rows = 1 + len(recipe.rule.slots)
    size, batch = spec.size * itemsize, recipe.batch_size
    largest = max(size, batch * max(spec.widths) * itemsize)
    if not gpu:
        return count * ((rows + 1) * size + COLUMNS * 8) + 40 * max(BLOCK, 2 * largest)
    group = max(12 * GROUP, (8 * rows + 32) * largest)  # of two networks where these are more than a group's bytes
    fixed = group + AT_ONCE * EACH + RESERVE
    return count * (rows * size + COLUMNS * 8) + fixed + sum(each.nbytes(count) for each in data)


def fit(spec: NetworkSpec, recipe: Recipe, itemsize: int, device: torch.device, data: Sequence[Dataset] = ()) -> int:
    """How many networks `device` can train at once, `data` with them on a GPU; any number where it does not say."""
    free, gpu = available(device), device.type == "cuda"
    if free is None:
        return sys.maxsize
    none, one = (needed(spec, recipe, count, itemsize, gpu, data) for count in (0, 1))
    return max(0, (free - none) // (one - none))


def check(spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int, device: torch.device) -> None:
    """Raise OutOfMemoryError, before anything is allocated, for a population that cannot fit."""
    free = available(device)
    if free is not None and needed(spec, recipe, count, itemsize) > free:
        raise OutOfMemoryError(message(spec, recipe, count, itemsize, device))


def ran_out(error: BaseException | None) -> bool:
    """Whether memory is what was missing, for `error` or for one that it came after: allocator, driver and libraries
    say it in words of their own."""
    while error is not None:
        if isinstance(error, (MemoryError, OutOfMemoryError)) or any(word in str(error) for word in RAN_OUT):
            return True
        error = error.__context__
    return False


@contextmanager
def explained(spec: NetworkSpec, recipe: Recipe, count: int, itemsize: int, device: torch.device) -> Iterator[None]:
    """Turn what torch raises when memory runs out into an OutOfMemoryError that says what was needed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemoryError(message(spec, recipe, count, itemsize, device)) from error


def message(
    spec: NetworkSpec,
    recipe: Recipe,
    count: int,
    itemsize: int,
    device: torch.device,
    data: Sequence[Dataset] = (),
) -> str:
    """What was needed, what there is, and what to change."""
    free, gpu = available(device), device.type == "cuda"
    bytes_needed = needed(spec, recipe, count, itemsize, gpu, data)
    each = (bytes_needed - needed(spec, recipe, 0, itemsize, gpu, data)) / count
    slots = len(recipe.rule.slots)
    text = (
        f"{count:,} networks of {'-'.join(map(str, spec.widths))} with {recipe.optimizer} need {size(bytes_needed)} on "
        f"{device}: {spec.size:,} parameters and {slots} slots of {itemsize} bytes each, {size(each)} per network"
    )
    if free is None:
        return f"{text}; train fewer networks at once"
    most = fit(spec, recipe, itemsize, device, data)
    advice = f": train up to {most:,} networks at once" if most else ", too few for one: take a smaller batch_size"
    if slots:
        advice += ", or take an optimizer without slots (sgd)"
    return f"{text}; {size(free)} are free{advice}" + (", or float32" if itemsize == 8 else "")
