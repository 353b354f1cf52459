"""answers(): predictions with one model per entity: the networks of a sample's entity answer it.

Samples are computed in blocks of fixed size, each for one network: an answer's bits do not depend on other samples.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backprop import forward
from ..errors import warn
from ..maths.losses import LOSSES
from ..populations import Populations
from ..raw.entities import Entities, Label, label, told
from ..raw.preparation import Preparation
from ..raw.tables import Array, Table

BLOCK = 32  # samples per block, for one network
AT_ONCE = 1 << 12  # blocks computed at once


def speakers(ranked: Tensor, position: Tensor, count: int, most: int | None) -> Tensor:
    """The networks of each of `count` entities, in the order of `ranked` (K,), at most `most`: (networks, count), -1
    where an entity has fewer. position (N,): each network's entity."""
    ranked = ranked[position[ranked].argsort(stable=True)]
    whose = position[ranked]
    sizes = torch.bincount(whose, minlength=count)
    place = torch.arange(len(ranked)) - (sizes.cumsum(0) - sizes)[whose]
    found = torch.full((max(1, int(sizes.max())), count), -1)
    found[place, whose] = ranked
    return found[:most]


def entity_of(table: Table, entities: Entities) -> Tensor:
    """The position of each sample's entity, (M,); -1 if it is not among `entities`."""
    columns = [_spelled(table, name, own) for name, own in zip(entities.names, entities.values)]
    return torch.from_numpy(entities.positions(columns))


def _spelled(table: Table, name: str, own: Sequence[Label]) -> Iterable[Any]:
    """The key column `name`, spelled as the entities' `own` names, which are texts or numbers: a single non-numeric
    cell makes a file's column text. A number matches texts that are all numbers, such as 007, unless these are to be
    read as text."""
    values, number = table.column(name), table.reading.number
    known = {*own}
    if not isinstance(own[0], str):
        if values.dtype != object:
            return values
        read = (None if each is None else number(each) for each in values)
        return (each if found is None else found[0] for each, found in zip(values, read))
    given: list[Any] = values.tolist()
    if values.dtype != object:
        given = [None if (found := label(each)) is None else str(found) for each in given]
    of = {found[0]: each for each in own if (found := number(str(each)))} if name not in table.reading.text else {}
    if len(of) < len(known):
        return given
    read = (None if each is None or each in known else number(each) for each in given)
    return (each if found is None else of.get(found[0]) for each, found in zip(given, read))


def tell_silent(table: Table, entities: Entities, silent: Tensor) -> None:
    """Warn of the samples that no network answers: how many, and the first names of their entities."""
    rows = silent.nonzero().squeeze(1)
    if len(rows):
        columns = [map(label, table.column(name)[rows.numpy()].tolist()) for name in entities.names]
        found = dict.fromkeys(tuple("missing" if each is None else each for each in name) for name in zip(*columns))
        names = Entities(entities.names, tuple(zip(*found)))
        warn(
            f"{table.name}: {len(rows):,} of {table.samples:,} samples, of {told(names, range(len(names)))}, have no "
            f"network for their {', '.join(entities.names)}; their predictions are missing"
        )


def answers(
    populations: Populations, preparation: Preparation, inputs: Tensor, position: Tensor, networks: Tensor
) -> Iterator[Tensor]:
    """The mean expected targets (M, O) of each sample's networks, float64, in pieces; in raw units if scaling differs
    between entities; 0 for a sample without any. inputs (M, I); position (M,): each sample's entity, or -1; networks:
    speakers()."""
    for some, at in zip(inputs.split(BLOCK * AT_ONCE), position.split(BLOCK * AT_ONCE)):
        asked = torch.where(at >= 0, networks[:, at], -1)
        total = sum(_of_each(populations, network, some) for network in asked)
        mean = total / (asked >= 0).sum(0).clamp(min=1)[:, None]
        yield preparation.outputs(mean, at.clamp(min=0)) if preparation.scaled_apart else mean


def _of_each(populations: Populations, network: Tensor, inputs: Tensor) -> Tensor:
    """The expected targets (M, O) of inputs (M, I), each by the network in row `network` (M,); 0 where that is -1."""
    width = populations.each[0].spec.widths[-1]
    found = torch.zeros(len(inputs), width, dtype=torch.float64)
    asked, which = network.unique(return_inverse=True)
    for population, local, place in populations.parts(asked.clamp(min=0)):
        row = torch.full_like(asked, -1)
        row[place] = local
        row[asked < 0] = -1
        spec, link = population.spec, LOSSES[population.spec.loss].inverse_link
        own, index = _blocks(row[which])
        for rows, samples in zip(own.split(AT_ONCE), index.split(AT_ONCE)):
            given = inputs[samples.clamp(min=0).to(inputs.device)]
            out = link(forward(spec, population.params[rows.to(inputs.device)], given).double()).cpu()
            found[samples[samples >= 0]] = out[samples >= 0]
    return found


def _blocks(row: Tensor) -> tuple[Tensor, Tensor]:
    """Samples, whose networks are in `row` (M,), -1 for none, in blocks of one network each: its row (B,), and the
    samples (B, BLOCK), -1 beyond its last."""
    order = row.argsort(stable=True)[int((row < 0).sum()) :]
    rows, sizes = row[order].unique_consecutive(return_counts=True)
    blocks = torch.div(sizes + BLOCK - 1, BLOCK, rounding_mode="floor")
    whose = torch.arange(len(rows)).repeat_interleave(sizes)
    place = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[whose]
    block = (blocks.cumsum(0) - blocks)[whose] + torch.div(place, BLOCK, rounding_mode="floor")
    index = torch.full((int(blocks.sum()), BLOCK), -1)
    index[block, place % BLOCK] = order
    return rows.repeat_interleave(blocks), index


def without(pieces: Iterable[Array], silent: Tensor) -> Iterator[Array]:
    """Predictions, missing for `silent` samples (M,): NaN, or None instead of a label."""
    seen = 0
    for piece in pieces:
        lost = silent[seen : seen + len(piece)].numpy()
        seen += len(piece)
        if lost.any():
            piece = piece.astype(np.float64 if piece.dtype.kind == "f" else object)
            piece[lost] = np.nan if piece.dtype.kind == "f" else None
        yield piece
