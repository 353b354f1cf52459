"""The loss and the metric of N networks over a whole dataset, each network over its own samples, without dropout.

The definition, and what engine `eager` does; kernel/show.h is its compiled twin. Networks go in blocks that stay in
cache, samples in chunks of fixed size, sums in float64: a network's figures do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .backprop import errors, outs
from .blocks import CHUNK, blocks, filled, fixed, together
from .data import Batch, Dataset
from .losses import LOSSES
from .population import Population
from .spec import NetworkSpec

AT_ONCE = 1 << 22  # targets that spread() looks at together
FLAT = 1e-28  # of the sum of squares: less is the rounding of the mean
METRICS = {"classes": "accuracy", "sign": "accuracy", "r2": "r2"}


class Evaluation(NamedTuple):
    """loss (N,), penalties left out, and metric (N,), float64: accuracy, or R2, which is NaN where targets are
    constant."""

    loss: Tensor
    metric: Tensor


def metric_name(spec: NetworkSpec) -> str:
    """What the metric of this specification's loss is called: accuracy or r2."""
    return METRICS[LOSSES[spec.loss].metric]


@torch.no_grad()
def evaluate(
    population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor | None = None
) -> Evaluation:
    """population's networks on `data`. hyper: TrainConfig.columns; position (N,): their places in the dataset, 0 to
    N - 1 by default."""
    spec, params = population.spec, population.params
    at = torch.arange(len(params), device=params.device) if position is None else position
    wanted = ("class_weight", *LOSSES[spec.loss].defaults)
    typed = {name: column.to(params.dtype) for name, column in hyper.items() if name in wanted}
    found = []
    for part in blocks(spec, len(params), CHUNK, params.element_size(), params.device):
        some = params[part], {name: column[part] for name, column in typed.items()}, at[part]
        found.append(_block(spec, *some, data))
    return Evaluation(torch.cat([each.loss for each in found]), torch.cat([each.metric for each in found]))


def _block(
    spec: NetworkSpec, params: Tensor, hyper: Mapping[str, Tensor], position: Tensor, data: Dataset
) -> Evaluation:
    """A GPU's sums depend on how many there are, so there they are over a whole group."""
    rule, count = LOSSES[spec.loss], len(params)
    rows: Tensor | slice = slice(None)
    if fixed(params.device):
        rows = filled(params, together(spec, CHUNK, params.element_size(), params.device))
    hyper = {name: column[rows] for name, column in hyper.items()}
    sums: dict[str, Tensor] = {}

    def add(name: str, value: Tensor, weight: Tensor) -> None:
        """The sum over samples; one of weight 0 has no say, not even by an error that is infinite."""
        value = (value.double() * weight).masked_fill(weight == 0, 0).sum(1)
        sums[name] = sums[name] + value if name in sums else value

    for batch in _chunks(data, position[rows]):
        out = outs(spec, params, batch.inputs[:count].expand(count, *batch.inputs.shape[1:]))[rows]
        target = batch.targets.expand(len(out), *batch.targets.shape[1:])
        weight = out.new_ones(out.shape[:2]) if batch.weight is None else batch.weight.expand(len(out), -1)
        error, _, counted = errors(spec, out, target, weight, hyper)
        weight = weight.double()
        wide, one = weight[:, :, None], torch.ones_like(weight)
        add("error", error, weight)
        add("counted", one, weight if counted is None else counted.double())
        add("weight", one, weight)
        if rule.metric == "r2":
            add("missed", (target.double() - rule.inverse_link(out).double()) ** 2, wide)
        elif rule.metric == "classes":
            add("hits", out.argmax(2) == target, weight)
        else:
            add("hits", ((out > 0) == (target > 0.5)).double().mean(2), weight)
    scale = 1 / spec.widths[-1] if rule.outputs == "mean" else 1.0
    if rule.metric == "r2":
        around = spread(data)
        metric = (1 - sums["missed"] / (around if len(around) == 1 else around[position[rows]])).mean(1)
    else:
        metric = sums["hits"] / sums["weight"]
    return Evaluation((sums["error"] * scale / sums["counted"])[:count], metric[:count])


@torch.no_grad()
def spread(data: Dataset) -> Tensor:
    """What R2 divides by: of each output the weighted sum of squares of the targets about their mean, NaN where they
    are constant. -> (1, O) where all networks see the same samples, else (N, O), float64; computed once, and kept with
    the data. Sums go by halves, number by number, so that no bit depends on the device, nor on how many samples other
    networks have."""
    if data.spread is None:
        count, most = data.networks or 1, max(1, AT_ONCE // (data.lengths[1] * data.targets.shape[-1]))
        everyone = torch.arange(count, device=data.targets.device)
        data.spread = torch.cat([_spread(data, some) for some in everyone.split(most)])
    return data.spread


def _spread(data: Dataset, position: Tensor) -> Tensor:
    """Of the networks at `position`. Targets are taken from the first, so that those of a large mean keep their
    digits."""
    place = torch.arange(data.lengths[1], device=position.device)[None]
    inside = place < data.size(position)[:, None]
    index = place if data.rows is None else data.row(position, torch.where(inside, place, 0))
    batch = data.batch(index, position)
    weight = (inside if batch.weight is None else batch.weight.double() * inside).double()[:, :, None]
    apart = batch.targets.double() - batch.targets[:, :1].double()

    def total(value: Tensor) -> Tensor:
        return _by_halves((value * weight).masked_fill(weight == 0, 0))

    apart_from_mean = apart - total(apart) / total(torch.ones_like(apart))
    found, square = total(apart_from_mean * apart_from_mean), total(apart * apart)
    return found.masked_fill(found <= FLAT * square, float("nan")).squeeze(1)


def _by_halves(value: Tensor) -> Tensor:
    """The sum over dimension 1, which stays: first half plus second half, and so on; zeros behind change no bit."""
    while (count := value.shape[1]) > 1:
        half = 1 << (count - 1).bit_length() - 1
        value = torch.cat([value[:, : count - half] + value[:, half:], value[:, count - half : half]], 1)
    return value


def _chunks(data: Dataset, position: Tensor) -> Iterator[Batch]:
    """All samples of the networks at `position`. Where their numbers differ, every piece has CHUNK samples, however
    many the longest network has; beyond its end a network sees its own first sample, with weight 0."""
    longest = data.samples if data.sizes is None else int(data.size(position).max())
    for first in range(0, longest, CHUNK):
        if data.rows is None:
            last = min(first + CHUNK, data.samples)
            yield data.batch(torch.arange(first, last, device=position.device)[None], position)
            continue
        place = torch.arange(first, first + CHUNK, device=position.device)
        inside = place < data.size(position)[:, None]
        index = data.row(position, torch.where(inside, place, 0))
        batch = data.batch(index, position)
        weight = inside.to(batch.inputs.dtype)
        yield batch._replace(weight=weight if batch.weight is None else batch.weight * weight)
