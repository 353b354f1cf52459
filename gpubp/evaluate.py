"""The loss and the metric of N networks over all their samples, without dropout.

This is the definition, and what engine `eager` runs; kernel/show.h is the compiled version. Networks are evaluated in
blocks that stay in cache, samples in chunks of fixed size, sums in float64: a network's figures do not depend on its
neighbours.
"""

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from .backprop import errors, outs
from .maths.blocks import CHUNK, blocks, filled, fixed, together
from .maths.losses import LOSSES, Loss
from .maths.spec import NetworkSpec
from .population import Population
from .samples.data import Batch, Dataset

AT_ONCE = 1 << 22  # targets that spread() reads at once
FLAT = 1e-28  # of the sum of squares: anything less is rounding of the mean
SPREAD = Lock()  # held while spread() computes it
TINY = torch.finfo(torch.float64).tiny  # the smallest probability whose logarithm is taken
METRICS = {"classes": "accuracy", "sign": "accuracy", "r2": "r2"}


class Evaluation(NamedTuple):
    """loss (N,) without penalties, NaN if the classes of all samples have weight 0, and metric (N,), float64: accuracy,
    or R2, which is NaN for constant targets."""

    loss: Tensor
    metric: Tensor


class Round(NamedTuple):
    """The outcome of a training round, per network (N,): mean training loss, NaN for networks that did not train
    through it; the evaluation on the validation data; the learning rate of the next step; the status."""

    loss: Tensor
    held_out: Evaluation | None
    lr: Tensor
    status: Tensor


def metric_name(spec: NetworkSpec) -> str:
    """The name of the loss's metric: accuracy or r2."""
    return METRICS[LOSSES[spec.loss].metric]


@torch.no_grad()
def evaluate(
    population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor | None = None
) -> Evaluation:
    """Evaluate the networks on `data`. hyper: TrainConfig.columns; position (N,): the networks' positions in the
    dataset, 0 to N - 1 by default."""
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
    """On a GPU a whole group is evaluated, as its sums depend on the number of networks."""
    rule, count = LOSSES[spec.loss], len(params)
    rows: Tensor | slice = slice(None)
    if fixed(params.device):
        rows = filled(params, together(spec, CHUNK, params.element_size(), params.device))
    hyper = {name: column[rows] for name, column in hyper.items()}
    sums: dict[str, Tensor] = {}

    def add(name: str, value: Tensor, weight: Tensor) -> None:
        """Sum over samples; samples of weight 0 count as absent, even if their error is infinite."""
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
    error = sums["error"].masked_fill(sums["counted"] == 0, 0)  # from smoothing: a mean over no weight is NaN
    return Evaluation((error * scale / sums["counted"])[:count], metric[:count])


@torch.no_grad()
def spread(data: Dataset) -> Tensor:
    """The denominator of R2: for each output the weighted sum of squares of the targets about their mean, NaN if they
    are constant. -> (1, O) if all networks have the same samples, else (N, O), float64; computed once, and kept with
    the data. Sums are pairwise, so that no bit depends on the device or on the other networks' numbers of samples."""
    with SPREAD:  # several populations are evaluated at once, and kernels hold pointers to it
        if data.spread is None:
            everyone, begin = torch.arange(data.networks or 1, device=data.targets.device), 0
            sizes, order = data.size(everyone).sort(descending=True)  # one may have more than all others
            found = torch.empty(len(order), data.targets.shape[-1], dtype=torch.float64, device=order.device)
            while begin < len(order):
                longest = int(sizes[begin])
                some = order[begin : begin + max(1, AT_ONCE // (longest * data.targets.shape[-1]))]
                found[some] = _spread(data, some, longest)
                begin += len(some)
            data.spread = found
        return data.spread


def _spread(data: Dataset, position: Tensor, longest: int) -> Tensor:
    """spread() of the networks at `position`, which have up to `longest` samples. The first target is subtracted, so
    that targets with a large mean keep their digits."""
    place = torch.arange(longest, device=position.device)[None]
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
    """The pairwise sum over dimension 1, kept: first half plus second half, and so on; trailing zeros change no bit."""
    while (count := value.shape[1]) > 1:
        half = 1 << (count - 1).bit_length() - 1
        value = torch.cat([value[:, : count - half] + value[:, half:], value[:, count - half : half]], 1)
    return value


def _chunks(data: Dataset, position: Tensor) -> Iterator[Batch]:
    """All samples of the networks at `position`. If their numbers differ, every chunk has CHUNK samples, whatever the
    longest network has; past its end a network repeats its first sample with weight 0."""
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


def figures(rule: Loss, mean: Tensor, data: Dataset) -> dict[str, float]:
    """Figures of predictions (M, O) for `data`; samples of weight 0 count as absent."""
    targets, given = data.targets.cpu(), data.sample_weight
    weight = torch.ones(len(mean), dtype=torch.float64) if given is None else given.cpu().double()

    def total(values: Tensor) -> Tensor:
        absent = (weight == 0).reshape(-1, *[1] * (values.ndim - 1))
        return (values.double() * weight.reshape(absent.shape)).masked_fill(absent, 0).sum(0)

    if rule.metric == "r2":
        missed = total((targets.double() - mean) ** 2)
        r2 = (1 - missed / spread(data)[0].cpu()).mean()
        return {"r2": float(r2), "mean_squared_error": float(missed.mean() / weight.sum())}
    if rule.metric == "classes":
        hits, chance = mean.argmax(1) == targets, mean.gather(1, targets[:, None])[:, 0]
        error = -chance.clamp(min=TINY).log()
    else:
        yes, half = targets.double(), 0.5 if rule.takes == "logit" else 0.0
        hits = ((mean > half) == (yes > 0.5)).double().mean(1)
        error = -(yes * mean.clamp(min=TINY).log() + (1 - yes) * (1 - mean).clamp(min=TINY).log()).mean(1)
    found = {"accuracy": float(total(hits) / weight.sum())}
    return found | ({"log_loss": float(total(error) / weight.sum())} if rule.takes == "logit" else {})
