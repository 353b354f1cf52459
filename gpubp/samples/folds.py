"""Which samples train and which validate: a share held out, k folds, bootstraps; selected(), the samples of each
network. Pure functions of seed and sizes that never change.

A row is one way to divide the samples, and trains as many networks as name it (state.position). Fold sizes differ by
one at most; if stratified, so do each class's counts; with groups, no group is on both sides, and the largest groups
are dealt first, each to the fold with the fewest samples. Training samples ascend within a fold, unless their indices
outnumber MOST, as when one of 5,000 is left out: then all folds share one order of the samples, fold after fold, then
repeated; a fold trains on what lies between its own samples and their copy. That takes 16 bytes a sample.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError, ShapeError
from ..line import counted as told
from ..maths.rng import EVERYBODY, SEARCH, check_seed, counted, words
from ..system import arrays, free

FOLDS, BOOTSTRAP = 2, 3  # layers of the search stream, distinct from those of a search
SPLIT = 1 << 16  # that of split()
MOST = 1 << 24  # training indices; with more, the folds share one list
Rows = tuple[list[Tensor], list[Tensor]]


class Parts(NamedTuple):
    """The samples of each position: sizes (N,) of them, from starts (N,) in rows; positions may share samples."""

    rows: Tensor
    starts: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> Self:
        """Each position's samples after those of the one before."""
        sizes = torch.tensor([len(part) for part in parts])
        return cls(torch.cat([*parts]), sizes.cumsum(0) - sizes, sizes)


def selected(rows: Any, samples: int) -> list[Tensor]:
    """The samples of each network, from a mask of M truth values or indices for each. Raises DataError, ShapeError."""
    if isinstance(rows, Mapping):
        raise DataError("rows is a dict; a list in the order of the networks, such as list(rows.values()), expected")
    if hasattr(rows, "__array__") and not isinstance(rows, Tensor):
        rows = np.asarray(rows)  # iterating over a frame gives names of columns
    given = list(rows) if isinstance(rows, Iterable) and getattr(rows, "ndim", True) else [rows]
    if any(not (isinstance(part, Iterable) and getattr(part, "ndim", True)) for part in given):
        raise ShapeError(
            f"rows is a {type(rows).__name__} of single values; a list with a mask or indices for each network "
            "expected: rows=[mask] for one network"
        )
    parts = [arrays.indices(f"rows[{number}]", part, samples) for number, part in enumerate(given)]
    if not parts:
        raise DataError("rows: an index tensor for each network expected, got none")
    for number, part in enumerate(parts):
        if not len(part):
            raise DataError(f"rows[{number}] selects none of {samples} samples; one or more expected")
    return parts


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The samples to train on and those held out, both ascending, int64; a pure function that never changes.

    The round(share * count) samples with the smallest words of the search stream are held out. Raises ConfigError, and
    DataError if a part would be empty; a share of 0 holds nothing out.
    """
    held_out, everybody = int(held_out_of(torch.tensor(count), share)), torch.tensor([EVERYBODY])
    order = words(check_seed(seed), everybody, count, SPLIT, SEARCH)[0].argsort(stable=True)
    if share and not 0 < held_out < count:
        raise DataError(
            f"validation {share:g} of {told(count, 'sample')}: {count - held_out} to train, {held_out} held out; one "
            "or more of each expected, or a share of 0"
        )
    return order[held_out:].sort().values, order[:held_out].sort().values


def held_out_of(sizes: Tensor, share: float) -> Tensor:
    """The number of samples that split() holds out of `sizes`; raises ConfigError for an invalid share."""
    part = arrays.real(share)
    if part is None or not 0 <= part < 1:
        raise ConfigError(f"validation {share!r}: a share from 0 to below 1 expected")
    return (part * sizes.double() + 0.5).floor().long()


def splits(sizes: Tensor, share: float, seed: int) -> Rows:
    """split() within each position, which has `sizes` (N,) samples: their places."""
    of_size = {size: split(size, share, seed) for size in sizes.unique().tolist()}
    train, held_out = zip(*(of_size[size] for size in sizes.tolist()))
    return [*train], [*held_out]


def k_folds(
    samples: int, count: int, classes: Tensor | None, groups: Any, repeats: int, seed: int
) -> tuple[Parts, Parts]:
    """For each repeat and each of `count` folds, the samples outside the fold, and those in it, ascending. classes,
    groups: (M,), of each sample, or None. Raises ConfigError, DataError, ShapeError."""
    count, repeats = counted("folds", count, 2), counted("repeats", repeats)
    if classes is not None and groups is not None:
        raise ConfigError("stratify and groups: one of them expected")
    units = torch.arange(samples) if groups is None else _groups(groups, samples)
    number = int(units.max()) + 1
    if count > number:
        what = told(samples, "sample") if groups is None else told(number, "group")
        raise DataError(f"folds {count}: more than the {what}")
    listed = samples * (count - 1) * repeats <= MOST
    indices = samples * repeats * (count if listed else 3)
    _check_room(f"folds {count}, repeats {repeats}", indices, samples)
    train, orders, sizes = [], [], []
    for repeat in range(repeats):
        order = words(check_seed(seed), torch.tensor([repeat]), number, FOLDS, SEARCH)[0].argsort(stable=True)
        fold = _dealt(order, units, count, classes)[units]
        orders.append(fold.argsort(stable=True))
        sizes.append(fold.bincount(minlength=count))
        if listed:
            train += [(fold != each).nonzero().squeeze(1) for each in range(count)]
    size = torch.cat(sizes)
    ends = size.cumsum(0)
    held_out = Parts(torch.cat(orders), ends - size, size)
    if listed:
        return Parts.of(train), held_out
    before = torch.arange(repeats).repeat_interleave(count) * samples
    return Parts(torch.stack(orders).repeat(1, 2).flatten(), before + ends, samples - size), held_out


def _dealt(order: Tensor, units: Tensor, count: int, classes: Tensor | None) -> Tensor:
    """The fold of each unit: a sample, or a group of samples."""
    sizes = torch.bincount(units)
    fold = torch.empty_like(order)
    if len(order) == len(units):
        if classes is not None:  # class after class, each shuffled
            order = order[classes[order].argsort(stable=True)]
        fold[order] = torch.arange(len(order)) % count
        return fold
    held = torch.zeros(count, dtype=torch.int64)
    for unit in order[sizes[order].argsort(descending=True, stable=True)].tolist():
        fold[unit] = least = int(held.argmin())
        held[least] += sizes[unit]
    return fold


def _groups(given: Any, samples: int) -> Tensor:
    """Numbers of groups from labels of any kind."""
    if isinstance(given, Mapping | str | bytes | set | frozenset) or not isinstance(given, Iterable):
        raise ConfigError(f"groups is a {type(given).__name__}; a label for each of {samples} samples expected")
    if (shape := getattr(given, "shape", None)) is not None and len(shape) != 1:
        raise ShapeError(f"groups of shape {tuple(shape)}; one label for each of {samples} samples expected")
    labels = arrays.listed(given)
    for sample, label in enumerate(labels):
        missing = label is None or type(label).__name__ in ("NAType", "NaTType")
        if missing or (isinstance(label, float | np.floating) and label != label):
            raise DataError(f"groups: a label is missing in sample {sample}; a label for each sample expected")
        if not isinstance(label, Hashable):
            raise DataError(f"groups: a {type(label).__name__} in sample {sample}; a number or text expected")
    if len(labels) != samples:
        raise ShapeError(f"groups of {len(labels)} samples; one label for each of {samples} expected")
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return torch.tensor([known[label] for label in labels])


def _check_room(what: str, indices: int, samples: int) -> None:
    """Raise DataError if that many sample indices do not fit in memory, made and then concatenated."""
    need = 2 * 8 * indices
    if (room := free.too_little(need)) is not None:
        raise DataError(
            f"{what} of {samples:,} samples: which samples are whose needs {free.size(need)}, and {free.size(room)} "
            "are free; fewer expected"
        )


def bootstraps(samples: int, count: int, seed: int) -> tuple[Parts, Parts]:
    """For each of `count` bootstraps, M samples drawn with replacement, ascending, and those never drawn. Raises
    ConfigError, and DataError if a bootstrap draws every sample."""
    number = counted("bootstrap", count)
    _check_room(f"bootstrap {number}", samples * number * 11 // 8, samples)  # a share of 1 / e is not drawn
    train, held_out = [], []
    for each in range(number):
        drawn = words(check_seed(seed), torch.tensor([each]), samples, BOOTSTRAP, SEARCH)[0]
        picked = torch.div(drawn * samples, 1 << 32, rounding_mode="floor").sort().values
        left = torch.ones(samples, dtype=torch.bool).index_fill(0, picked, value=False).nonzero().squeeze(1)
        if not len(left):
            raise DataError(f"bootstrap {each} of {samples} samples draws all of them; more samples expected")
        train.append(picked)
        held_out.append(left)
    return Parts.of(train), Parts.of(held_out)
