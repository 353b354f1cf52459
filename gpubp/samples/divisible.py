"""Divisible: how a Dataset divides samples among networks: folds, bootstraps, entities, a held-out share of each.

All samples stay where they are; `rows` divides them: it lists the samples of one position after another. A position is
a fold, a bootstrap or an entity; networks name the position they train on (TrainState.position).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, ShapeError
from ..raw.entities import Entities, by, key_columns, told
from ..system.ambient import neutral
from .folds import Parts, Rows, bootstraps, held_out_of, k_folds, splits


class Divisible:
    """See Dataset, which has these attributes."""

    inputs: Tensor
    targets: Tensor
    sample_weight: Tensor | None
    own: bool
    lengths: tuple[int, int]
    rows: Tensor | None = None
    sizes: Tensor | None = None
    starts: Tensor | None = None
    spread: Tensor | None = None
    entities: Entities | None = None
    folded: bool = False  # whether positions are folds, or bootstraps

    @neutral()
    def folds(
        self, count: int, stratify: bool | None = None, groups: Any = None, repeats: int = 1, seed: int = 0
    ) -> tuple[Self, Self]:
        """`count` folds: the samples to train on and to validate on, those of fold f at position f, for a design's
        column `fold`; count=len(data) leaves one out. stratify: by class, the default without groups for class numbers
        and for one column of two values. groups: a label per sample; no group is on both sides. repeats: more shuffles,
        at positions count and above."""
        if not isinstance(stratify, bool | None):
            raise ConfigError(f"stratify is a {type(stratify).__name__}; True, False or None expected")
        self._shared()
        classes = self.labels if stratify or (stratify is None and groups is None) else None
        if stratify and classes is None:
            given = tuple(self.targets.shape)
            raise ShapeError(f"stratify: class numbers (M,) or one column of two values expected; targets are {given}")
        return self._divided(k_folds(self._many, count, classes, groups, repeats, seed))

    @neutral()
    def bootstrap(self, count: int, seed: int = 0) -> tuple[Self, Self]:
        """`count` bootstraps: at position b, M samples drawn with replacement, and those never drawn to validate on."""
        return self._divided(bootstraps(self._many, count, seed))

    @neutral()
    def by(self, keys: Any, min_samples: int = 1, small: str = "refuse") -> Self:
        """The samples of each entity: entities[n]'s at position n, for network n or a design's column `entity`.

        keys: a value for each sample (text, whole numbers), a tuple of such columns, or columns by name (a mapping, a
        frame). Entities are in ascending order. Entities with fewer samples than min_samples are refused, or left out
        with small="drop". A sample_weight (E, M) stays that of each entity."""
        found = by(key_columns(keys), self._many).at_least(min_samples, small)
        weight, count = self.sample_weight, len(found.entities)
        self._shared(weighed=True)
        if weight is not None and weight.ndim == 2 and len(weight) != count:
            raise ShapeError(f"sample_weight {tuple(weight.shape)}: the keys name {count} entities")
        return self.of(torch.from_numpy(found.rows).split(found.sizes.tolist()), found.entities)

    @neutral()
    def split(self, share: float, seed: int = 0) -> tuple[Self, Self]:
        """The samples of each position to train on, and round(share of them) to validate on, at equal positions. What
        is held out depends only on seed and the position's number of samples."""
        if self.rows is None or self.sizes is None:
            raise DataError("split: the data are the same for all networks; data.by(keys).split(share) expected")
        own = self.parts
        sides = places_of(self.sizes, share, seed, self.entities)
        train, held_out = (self.of([rows[at] for rows, at in zip(own, side)], self.entities) for side in sides)
        return train, held_out

    @property
    def parts(self) -> list[Tensor]:
        """The samples of each position."""
        assert self.rows is not None
        assert self.sizes is not None
        assert self.starts is not None
        return [self.rows[start : start + size] for start, size in zip(self.starts.tolist(), self.sizes.tolist())]

    @property
    def labels(self) -> Tensor | None:
        """The classes (M,) of shared data: class numbers, or which of its two values a single column has."""
        if self.targets.ndim == 1:
            return self.targets
        values, labels = self.targets[:, 0].unique(return_inverse=True)
        return labels if self.targets.shape[1] == 1 and len(values) == 2 else None

    @property
    def _many(self) -> int:
        return self.inputs.shape[-2]

    def _shared(self, weighed: bool = False) -> None:
        """Raise DataError if the data differ between networks, other than in sample weights if `weighed`."""
        weights = self.sample_weight is not None and self.sample_weight.ndim == 2 and not weighed
        if self.own or self.rows is not None or weights:
            raise DataError("the data already differ between networks; data that all share expected")

    def _divided(self, parts: tuple[Parts, Parts]) -> tuple[Self, Self]:
        self._shared()
        sides = self.of(parts[0]), self.of(parts[1])
        for each in sides:
            each.folded = True
        return sides

    def of(self, parts: Parts | Sequence[Tensor], entities: Entities | None = None) -> Self:
        """The same samples, divided among positions as in `parts`."""
        other = self._with({"entities": entities, "spread": None})
        other._select(parts if isinstance(parts, Parts) else Parts.of(parts))
        return other

    def _select(self, parts: Parts) -> None:
        """Give each position its part. Raises DataError if all samples of one weigh 0."""
        self.rows, self.starts, self.sizes = parts
        self.lengths = int(parts.sizes.min()), int(parts.sizes.max())
        if self.sample_weight is None:
            return
        counts, rows = self.sample_weight > 0, parts.rows
        if counts.ndim == 2:  # then no two positions share any
            counts = counts[torch.arange(len(parts.sizes)).repeat_interleave(parts.sizes), rows]
        else:
            counts = counts[rows]
        before = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        none = before[parts.starts + parts.sizes] == before[parts.starts]
        if bool(none.any()):
            at = int(none.nonzero()[0])
            who = f"network {at}" if self.entities is None else told(self.entities, [at])
            raise DataError(f"sample_weight is 0 for all samples of {who}; one or more above 0 expected")

    def _with(self, tensors: Mapping[str, Any]) -> Self:
        """A copy with `tensors` replaced."""
        other = copy.copy(self)
        vars(other).update(tensors)
        return other


def places_of(sizes: Tensor, share: float, seed: int, entities: Entities | None = None) -> Rows:
    """folds.splits(), refusing entities that are too small by name."""
    held = held_out_of(sizes, share)
    few = ((held == 0) | (held == sizes)).nonzero().squeeze(1).tolist()
    if few and share:
        who = f"{len(few):,} networks" if entities is None else told(entities, few)
        raise DataError(
            f"validation {share:g}: of {who} no sample, or every one, would be held out; larger ones expected: "
            "min_samples (--min-samples) leaves smaller ones out"
        )
    return splits(sizes, share, seed)
