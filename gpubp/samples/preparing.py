"""prepare(): a Table, divided into samples to train on and to validate on, and prepared: shared by all networks, by
entity, in folds or in bootstraps.

Scaling is fitted on training samples alone. Each entity and each fold has its own: for entities it is free, as a sample
belongs to only one, but F folds need F copies of the samples, if there is anything to fit. Bootstraps, being many,
would need a copy each; they share the scaling of all samples. Categories, classes and replacements of missing values
are those of all training samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, DataError
from ..line import counted
from ..raw.entities import by, told
from ..raw.fitting import fit, fit_apart
from ..raw.preparation import Preparation
from ..raw.tables import Array, Table, complete, listed
from ..system import free
from . import folds
from .data import Dataset
from .divisible import places_of


@dataclass(frozen=True)
class Division:
    """per: key columns; each network gets one entity's samples; min_samples: entities with fewer are left out. folds,
    bootstrap: how many; group: a column whose values stay on one side of a fold; stratify: as in Dataset.folds()."""

    per: tuple[str, ...] = ()
    min_samples: int | None = None
    folds: int | None = None
    group: str | None = None
    bootstrap: int | None = None
    stratify: bool | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for options that exclude each other."""
        given = {"per": self.per or None, "folds": self.folds, "bootstrap": self.bootstrap}
        ways = [name for name, value in given.items() if value is not None]
        if len(ways) > 1:
            raise ConfigError(f"{' and '.join(ways)}: one of them expected")
        for name, needs in (("min_samples", "per"), ("group", "folds"), ("stratify", "folds")):
            if getattr(self, name) is not None and needs not in ways:
                raise ConfigError(f"{name} {getattr(self, name)!r}: only with {needs}")

    @property
    def held_out(self) -> str | None:
        """What holds samples out instead of a share of all."""
        given = {"folds": self.folds, "bootstrap": self.bootstrap}
        return next((f"{name} {value}" for name, value in given.items() if value is not None), None)

    @property
    def beside(self) -> tuple[str, ...]:
        """Columns that are not inputs."""
        return self.per if self.group is None else (self.group,)


class Fitted(NamedTuple):
    """What is fitted, as in fitting.fit()."""

    loss: str
    scale: str | float
    impute: str | None
    scale_targets: str

    def on(self, table: Table, rows: Array | slice, beside: Sequence[str] = ()) -> Preparation:
        """The preparation of all samples `rows`."""
        return fit(table, self.loss, rows, self.scale, self.impute, self.scale_targets, beside)

    def apart(self, table: Table, preparation: Preparation, parts: Sequence[Tensor]) -> Preparation:
        """The same with the scaling of each position."""
        return fit_apart(table, preparation, [part.numpy() for part in parts], self.scale, self.scale_targets)


class Divided(NamedTuple):
    """A table, prepared. rows: the samples that some network trains on. about: sentences on the division."""

    training: Dataset
    validation: Dataset | None
    preparation: Preparation
    rows: Array
    about: tuple[str, ...] = ()


def prepare(table: Table, division: Division, fitted: Fitted, share: float, seed: int) -> Divided:
    """The table, divided and prepared. share: of samples to hold out, unless folds or bootstraps do. Raises DataError,
    ConfigError."""
    for name in division.beside:
        if name in table.targets:
            raise table.wrong(name, "is a target, by which samples cannot be divided; a column that is none expected")
        table.column(name)
    if division.per:
        return _by_entity(table, division, fitted, share, seed)
    if division.held_out is not None:
        return _held_out(table, division, fitted, seed)
    rows, held_out = folds.split(table.samples, share, seed)
    preparation = fitted.on(table, rows.numpy())
    inputs, targets = preparation.inputs(table), preparation.targets(table)
    sides = [Dataset(inputs[at], targets[at], preparation=preparation) for at in (rows, held_out) if len(at)]
    return Divided(sides[0], sides[1] if len(held_out) else None, preparation, rows.numpy())


def _held_out(table: Table, division: Division, fitted: Fitted, seed: int) -> Divided:
    """prepare() in folds or bootstraps."""
    everyone = np.arange(table.samples)
    preparation = fitted.on(table, everyone, division.beside)
    shared = Dataset(preparation.inputs(table), preparation.targets(table), preparation=preparation)
    groups = None
    if division.group is not None:
        groups = complete(table, division.group, table.column(division.group), "a group for each sample expected")
    if division.bootstrap is not None:
        sides = shared.bootstrap(division.bootstrap, seed)
    else:
        assert division.folds is not None
        sides = shared.folds(division.folds, division.stratify, groups, seed=seed)
        parts = [side.parts for side in sides]
        apart = fitted.apart(table, preparation, parts[0])
        if apart.scaled_apart:
            need = len(parts[0]) * (4 * shared.inputs.nbytes + 24 * table.samples)  # with what _laid_out() works on
            if (room := free.too_little(need)) is not None:
                raise DataError(
                    f"{table.name}: a copy of the samples, with its own scaling, for each of {division.held_out} needs "
                    f"{free.size(need)}; {free.size(room)} are free: fewer folds, or scale none (--scale none), which "
                    "needs no copies, expected"
                )
            preparation, sides = apart, (_laid_out(table, apart, parts[0]), _laid_out(table, apart, parts[1]))
            for side in sides:
                side.folded = True
    few, most = sides[1].lengths
    each = counted(few, "sample") if few == most else f"{few} to {most} samples"
    count = sides[0].networks or 0
    about = (
        f"{counted(count, 'fold' if division.folds else 'bootstrap')}: a setting trains {counted(count, 'network')}, "
        f"each validated on the {each} that it has not seen"
    )
    return Divided(*sides, preparation, everyone, (about, *_few(shared, preparation, division)))


def _few(data: Dataset, preparation: Preparation, division: Division) -> list[str]:
    """A sentence if some folds by class hold out no sample of some class, unless every class is that small, as when
    single samples are left out."""
    if division.folds is None or division.group is not None or division.stratify is False or not preparation.classes:
        return []
    assert data.labels is not None
    counts = data.labels.bincount()
    few, most = int(counts.min()), int(counts.max())
    if not few < division.folds <= most:
        return []
    name = preparation.classes[int(counts.argmin())]
    return [
        f"class {name} has {counted(few, 'sample')}: {division.folds - few} of {division.folds} folds hold out none"
    ]


def _by_entity(table: Table, division: Division, fitted: Fitted, share: float, seed: int) -> Divided:
    """prepare() of one network per entity."""
    columns, least = {name: table.column(name) for name in division.per}, division.min_samples or 1
    try:
        everyone = by(columns, table.samples)
        found = everyone.at_least(least)
        sizes = torch.from_numpy(found.sizes)
        sides = places_of(sizes, share, seed, found.entities)[: 2 if share else 1]
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from None
    own = torch.from_numpy(found.rows).split(sizes.tolist())
    parts = [[rows[at] for rows, at in zip(own, side)] for side in sides]
    rows = torch.cat(parts[0]).sort().values.numpy()
    preparation = fitted.apart(table, fitted.on(table, rows, division.beside), parts[0])
    preparation = replace(preparation, entities=found.entities)
    data = [_laid_out(table, preparation, each) for each in parts]
    small = (everyone.sizes < least).nonzero()[0]
    few, most = int(sizes.min()), int(sizes.max())
    each = f"{few} to {most} samples" if few < most else counted(few, "sample")
    who = f"{len(sizes):,} entit{'ies' if len(sizes) > 1 else 'y'}"
    about = [f"a network per {listed(division.per)}: {who} of {each}"]
    about += [f"left out, with fewer than {least} samples: {told(everyone.entities, small)}"] * bool(len(small))
    return Divided(data[0], data[1] if share else None, preparation, rows, tuple(about))


def _laid_out(table: Table, preparation: Preparation, parts: Sequence[Tensor]) -> Dataset:
    """The samples of each position, one after the other, with the scaling of their position."""
    sizes, rows = torch.tensor([len(part) for part in parts]), torch.cat([*parts])
    position = torch.arange(len(parts)).repeat_interleave(sizes)
    inputs = preparation.scaled(preparation.plain(table)[rows], position)
    data = Dataset(inputs, preparation.targets(table, position, rows), preparation=preparation)
    return data.of(torch.arange(len(rows)).split(sizes.tolist()), preparation.entities)
