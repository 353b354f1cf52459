"""One training step of one network with every number, in the order and words of Matt Mazur's "A Step by Step
Backpropagation Example".

`explain` takes the next step of one row of a state on a copy, with the engine's Block, and records the numbers on the
way: grads, slots, directions and new weights are the engine's, not computed twice. text.py
makes the text from the recorded numbers.

Units are i1, i2 ...; h1, h2 ..., or h1_1 ... (layer, unit) with several hidden layers; o1, o2 ... Weights
are numbered as in the tutorial, w1, w2 ...: all weights into h1 first, then those into h2. So weights are
(O, I) here, one row per unit, but (I, O) in `NetworkSpec.layers`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..backprop import Pass, bias_gradient, errors, forward_layers, hushed, loss_and_delta, uncounted
from ..engines.block import Block
from ..errors import ShapeError
from ..maths.activations import ACTIVATIONS
from ..maths.blocks import doubled
from ..maths.losses import LOSSES, cross_entropy_shares
from ..maths.numerics import kernel_widths, product
from ..maths.schedules import scheduled
from ..maths.spec import NetworkSpec
from ..samples import checks
from ..samples.data import Batch, Dataset
from ..state import Status, TrainState
from ..system.ambient import neutral
from .faults import NONE, next_faults, quantities
from .formula import KEEP, of_step
from .text import Text


@dataclass(frozen=True)
class Explanation:
    """The numbers of one step as plain dicts and lists; non-finite numbers are the strings nan, inf, -inf."""

    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, in the precision of the network."""
        return self.values

    def json(self, indent: int | None = None) -> str:
        """to_dict() as JSON."""
        return json.dumps(self.values, indent=indent, allow_nan=False)

    def text(self, full: bool = False) -> str:
        """The text to read next to the tutorial. Long sums and lists are cut, and say so, unless `full`."""
        return "\n".join(map(str, Text(self.values, full).lines()))

    def __str__(self) -> str:
        return self.text()


def explain(state: TrainState, data: Dataset, network: int = 0) -> Explanation:
    """The next step of the network in row `network` of `state`, on its next samples from `data`.

    The state does not change. For a finished network it is the step after its last. Raises ShapeError for a missing
    row, ShapeError or DataError for data that do not fit.
    """
    return next(explain_steps(state, data, network))


def explain_steps(
    state: TrainState, data: Dataset, network: int = 0, shown: int | None = None, restored: int | None = None
) -> Iterator[Explanation]:
    """explain() of the next step, the one after it, and so on, without evaluations in between; a step that does not
    count is the last. shown: the row to show in the text, if it differs; restored: the step from which the parameters
    are, if all else is from another step."""
    row, data = _alone(state, data, network)
    counts, joined = True, None if restored is None else {"row": restored, "rest": int(row.step[0])}
    while counts:
        explanation = Explanation(_step(row, data, network if shown is None else shown))
        explanation.values["step"]["restored"] = joined
        counts = explanation.values["step"]["counts"]
        yield explanation


@neutral()
@torch.no_grad()
def _alone(state: TrainState, data: Dataset, network: int) -> tuple[TrainState, Dataset]:
    """A copy of the network's state, and its data as the network computes on them."""
    population = state.population
    if not 0 <= network < population.count:
        raise ShapeError(f"network {network}: a row from 0 to {population.count - 1} expected")
    checks.check(data, population.spec, data.networks or population.count)
    row = state.rows(torch.tensor([network], device=population.device))  # indices: a copy
    return row, data.to(population.device, population.params.dtype)


@neutral()
@torch.no_grad()
def _step(row: TrainState, data: Dataset, network: int) -> dict[str, Any]:
    """Take the next step of the single network of `row`, called `network`. -> its numbers"""
    population, recipe = row.population, row.recipe
    status, number = Status(int(row.status[0])).name, int(row.step[0])
    place = (population.seed, population.ids, row.position, row.step)
    index = data.order(*place, 1, recipe.batch_size, recipe.shuffle)
    block = Recorder(row, data.batch(index, row.position))
    block.step(block.batch)
    for layer in block.layers:
        for name in ("weight", "bias"):  # frozen ones never reach the optimizer
            layer[name].setdefault("new", layer[name]["value"])
    _, total, loss, _ = block.look()
    counts = bool(block.leave(row, 0)[0])
    first = NONE if counts else int(next_faults(row, data)[0])
    row.status[row.running & (row.step == row.end)] = Status.finished
    return {
        "network": {"row": network, "id": int(population.ids[0]), **population.spec.to_dict(),
                    "dtype": str(population.params.dtype).removeprefix("torch.")},
        "step": {"number": number, "status": status, "samples": index[0].tolist(),
                 "optimizer": recipe.optimizer, "schedule": recipe.schedule,
                 "update_order": recipe.update_order, "precision": recipe.precision,
                 "decoupled": recipe.rule.decoupled, **block.noted, "counts": counts,
                 "fault": None if first == NONE else quantities(population.spec, recipe)[first]},
        "inputs": plain(block.batch.inputs[0]),
        "targets": plain(block.batch.targets[0]),
        "layers": block.layers,
        "error": block.error,
        "new_error": {"E_total": plain(total[0]), "loss": plain(loss[0])},
    }  # fmt: skip


class Recorder(Block):
    """The engine's block of a single network, which records the numbers of one step."""

    def __init__(self, state: TrainState, batch: Batch) -> None:
        super().__init__(state, kernel_widths(state.population.spec.widths, state.recipe.batch_size))
        self.batch, self.target = batch, doubled(batch.targets)
        self.weight = None if batch.weight is None else doubled(batch.weight)
        self.dropout = self.masks(batch.inputs.shape[1])
        self.noted: dict[str, Any] = {
            "hyper": {name: plain(each[0] if name == "class_weight" else each[0, 0])
                      for name, each in self.hyper.items()},
            "columns": {name: plain(each[0, 0]) for name, each in self.columns.items()},
            "memory": {name: plain(each[0, 0]) for name, each in self.memory.items()},
            "total": int(self.total_steps[0, 0]),
        }  # fmt: skip
        self.passed, total, loss, self.delta = self.look()
        self.error, self.out_slope = self._errors()
        self.error |= {"E_total": plain(total[0]), "loss": plain(loss[0])}
        self.layers = [self._forward(number) for number in range(len(self.parts))]

    def look(self) -> tuple[Pass, Tensor, Tensor, Tensor]:
        """The forward pass through the present weights; E_total, the loss with penalties, the outs' delta."""
        inputs = pad(doubled(self.batch.inputs), (0, self.widths[0] - self.spec.widths[0]))
        layers = [(weight.param, bias.param) for weight, bias in self.parts]
        passed = forward_layers(self.spec, layers, inputs, self.dropout)
        ends = passed.nets[-1], passed.outs[-1]
        loss, delta = loss_and_delta(self.spec, *ends, self.target, self.weight, self.typed)
        return passed, loss, self.penalised(loss), delta

    def _errors(self) -> tuple[dict[str, Any], Tensor]:
        """The error of every output and sample, and its weight in E_total; dE_total/dout (N, B, O)."""
        rule, width = LOSSES[self.spec.loss], self.spec.widths[-1]
        out, target, weight = self.passed.outs[-1][:, :, :width], self.target, self.weight
        error, slope, counted = errors(self.spec, out, target, weight, self.typed)
        given = torch.ones_like(error) if weight is None else weight
        whole = (torch.ones_like(error) if counted is None else counted).sum(1, keepdim=True)
        share = given * (whole > 0) / (whole + (whole == 0)) * (1 / width if rule.outputs == "mean" else 1)
        noted: dict[str, Any] = {"samples": plain(error[0]), "shares": plain(share[0])}
        arguments = {name: self.typed[name][:, :, None] for name in rule.defaults if name in self.typed}
        if rule.classes:
            shifted = out - out.amax(2, keepdim=True)
            powers = torch.exp(shifted)
            classes = cross_entropy_shares(
                out, target, arguments.get("label_smoothing"), self.typed.get("class_weight")
            )
            if classes is None:
                classes = torch.zeros_like(out).scatter_(2, target[:, :, None], 1)
            noted |= {"shifted": plain(shifted[0]), "powers": plain(powers[0]), "sums": plain(powers.sum(2)[0]),
                      "chances": plain((powers / powers.sum(2, keepdim=True))[0]),
                      "class_targets": plain(classes[0])}  # fmt: skip
        else:
            noted["outputs"] = plain(rule.value(out, target, **arguments)[0])
        return noted, hushed(slope * share[:, :, None], uncounted(target, weight, self.typed))

    def _forward(self, number: int) -> dict[str, Any]:
        """Layer `number` and its values after the forward pass."""
        spec, last, at = self.spec, len(self.parts) - 1, self.spec.layout[number]
        below, units = unit_names(spec)[number : number + 2]
        first = 1 + sum(each.inputs * each.outputs for each in spec.layout[:number])
        rows = [range(first + o * at.inputs, first + (o + 1) * at.inputs) for o in range(at.outputs)]
        names = {"neuron": [f"b_{unit}" for unit in units], "layer": [f"b{number + 1}"], "none": []}[spec.bias]
        enters = ("kept_" if self.dropout else "out_") if number else ""
        slope = ACTIVATIONS[spec.activations[number]].slope(self.passed.nets[number], self.passed.outs[number])
        weight, bias = self.parts[number]
        return {
            "name": "output layer" if number == last else "hidden layer" + (f" {number + 1}" if last > 1 else ""),
            "activation": spec.activations[number],
            "below": [enters + unit for unit in below],
            "units": units,
            "enters": self.units(self.passed.belows[number], at.inputs),
            "net": self.units(self.passed.nets[number], at.outputs),
            "out": self.units(self.passed.outs[number], at.outputs),
            "dropout": self.units(self.dropout[number], at.outputs) if self.dropout and number < last else None,
            "dout/dnet": self.units(slope, at.outputs),
            "weight": {"names": [[f"w{n}" for n in row] for row in rows], "value": self.cut(weight.param, number)},
            "bias": {"names": names, "value": self.cut(bias.param, number), "frozen": not spec.train_bias},
        }

    @staticmethod
    def units(tensor: Tensor, width: int) -> Any:
        """(N, B, O) -> the network's numbers, a row per sample, without padding."""
        return plain(tensor[0, :, :width])

    def cut(self, tensor: Tensor, number: int) -> Any:
        """A weight (N, I, O) or bias (N, O) -> the network's numbers, (O, I) or (O,), without padding."""
        at = self.spec.layout[number]
        return plain(tensor[0, : at.inputs, : at.outputs].T if tensor.ndim == 3 else tensor[0, : at.outputs])

    def gradient(self, number: int, grad_weight: Tensor, grad_bias: Tensor) -> list[Tensor]:
        """Block's, recording the gradients and their deltas. At this point, the weights above are those through which
        the engine propagates the delta: the old ones, or, in layerwise order, the new ones."""
        layer, at = self.layers[number], self.spec.layout[number]
        arriving = self.out_slope
        if number < len(self.parts) - 1:
            above = self.parts[number + 1][0].param
            arriving = product(self.delta, above.mT)
            if number == len(self.parts) - 2:  # a row for each unit: its dE_o1/dout_h1, dE_o2/dout_h1 ...
                each = self.delta[:, :, None] * above[:, None]
                layer["dE_o/dout"] = plain(each[0, :, : at.outputs, : self.spec.widths[-1]])
            if self.dropout:
                layer["dE/dkept"] = self.units(arriving, at.outputs)
                arriving = arriving * self.dropout[number]
            slope = ACTIVATIONS[self.spec.activations[number]].slope(self.passed.nets[number], self.passed.outs[number])
            self.delta = arriving * slope
        layer["dE/dout"], layer["delta"] = self.units(arriving, at.outputs), self.units(self.delta, at.outputs)
        layer["weight"]["dE"] = self.cut(grad_weight, number)
        if self.spec.train_bias:
            layer["bias"]["dE"] = plain(bias_gradient(self.spec, grad_bias[:, : at.outputs])[0])
        return super().gradient(number, grad_weight, grad_bias)

    def clip_norms(self, gradients: dict[int, list[Tensor]]) -> None:
        """Block's, recording the norm and its factor."""
        if "clip_norm" in self.typed:
            numbers = torch.cat([grad[0].flatten() for grads in gradients.values() for grad in grads])
            norm = torch.linalg.vector_norm(numbers)
            factor = torch.clamp(self.typed["clip_norm"][0, 0] / (norm + 1e-6), max=1)
            self.noted |= {"norm": plain(norm), "clip": plain(factor)}
        super().clip_norms(gradients)

    def begin_update(self) -> None:
        """Block's, recording the rates."""
        step = self.now[:, None].double()
        lr = scheduled(self.recipe.timetable, {**self.hyper, **self.memory}, step, self.total_steps)
        super().begin_update()
        decay = self.rates.decay
        self.noted |= {"lr": plain(lr[0, 0]), "rate": plain(self.rates.direction[0, 0]),
                       "decay": None if decay is None else plain(decay[0, 0]),
                       "arguments": {name: plain(each[0, 0]) for name, each in self.rates.arguments.items()},
                       "new_columns": {name: plain(each[0, 0]) for name, each in self.columns.items()}}  # fmt: skip
        values = {**self.noted["hyper"], **self.noted["columns"], **self.noted["memory"],
                  "step": int(self.now[0]), "total": self.noted["total"]}  # fmt: skip
        results = {**self.noted["new_columns"], "scheduled": self.noted["lr"], "rate": self.noted["rate"],
                   KEEP: self.noted["decay"]}  # fmt: skip
        self.noted["rates"] = of_step(self.recipe.timetable, self.rule, values, results)
        own = (*self.rule.slots, "direction")
        self.noted["formulas"] = {name: each for name, each in self.rule.formulas.items() if name in own}

    def update_layer(self, number: int, grads: Sequence[Tensor]) -> None:
        """Block's, recording the optimizer's arguments and results."""
        rule = self.rule
        calls: list[tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]] = []

        def direction(grad: Tensor, *slots: Tensor, **arguments: Tensor) -> Tensor | tuple[Tensor, ...]:
            result = rule.direction(grad, *slots, **arguments)
            calls.append((grad, slots, result if isinstance(result, tuple) else (result,)))
            return result

        self.rule = rule._replace(direction=direction)
        super().update_layer(number, grads)
        self.rule = rule
        for name, part, (grad, before, (way, *after)) in zip(("weight", "bias"), self.parts[number], calls):
            self.layers[number][name] |= {
                "grad": self.cut(grad, number),
                "slots": {slot: self.cut(each, number) for slot, each in zip(rule.slots, before)},
                "direction": self.cut(way, number),
                "new_slots": {slot: self.cut(each, number) for slot, each in zip(rule.slots, after)},
                "new": self.cut(part.param, number),
            }


def plain(tensor: Tensor) -> Any:
    """A tensor as numbers in lists; non-finite ones, which JSON lacks, as strings."""

    def named(each: Any) -> Any:
        if isinstance(each, list):
            return [named(one) for one in each]
        return each if abs(each) < float("inf") else str(each)

    return tensor.tolist() if bool(tensor.isfinite().all()) else named(tensor.tolist())


def unit_names(spec: NetworkSpec) -> list[list[str]]:
    """The names of the inputs and of every layer's units."""
    last = len(spec.widths) - 1
    first = ["i", *(["h"] if last == 2 else [f"h{number}_" for number in range(1, last)]), "o"]
    return [[f"{name}{unit + 1}" for unit in range(width)] for name, width in zip(first, spec.widths)]
