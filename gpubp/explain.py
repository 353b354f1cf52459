"""One training step of one network with every number, in the order and words of Matt Mazur's "A Step by Step
Backpropagation Example".

`explain` takes the next step of one row of a state, on a copy and by the engine's own Block, and notes the numbers as
they come by: grads, slots, directions and new weights are the engine's, not computed a second time. The text is made
from the noted numbers alone, so what came back from JSON reads the same.

Units are i1, i2 ...; h1, h2 ..., or h1_1 ... (layer, unit) where there are several hidden layers; o1, o2 ... Weights
are numbered as in the tutorial, w1, w2 ...: all weights into h1 first, then those into h2. So weights are listed
(O, I) here, a unit a row, whereas `NetworkSpec.layers` has them (I, O).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .activations import ACTIVATIONS
from .backprop import Pass, bias_gradient, doubled, errors, forward_layers, loss_and_delta
from .data import Batch, Dataset
from .engines.eager import Block
from .errors import ShapeError
from .losses import LOSSES, cross_entropy_shares
from .numerics import kernel_widths, product
from .schedules import scheduled
from .spec import NetworkSpec
from .state import Status, TrainState

TERMS = 6  # a longer sum shows its first and its last terms
UNITS, FEW = 8, 3  # a longer list of units, weights or samples shows its first three

# How the text writes a rule out; a rule that is not here is written by its name, as are its users'.
SLOPES = {"identity": "1", "sigmoid": "{out} * (1 - {out})", "tanh": "1 - {out} * {out}"}
ERRORS = {
    "half_squared_error": ("1/2 * ({target} - {out})^2", "-({target} - {out})"),
    "mean_squared_error": ("({target} - {out})^2", "-2 * ({target} - {out})"),
}


@dataclass(frozen=True)
class Explanation:
    """The numbers of one step as plain dicts and lists; numbers that are not finite are the strings nan, inf, -inf."""

    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in the precision of the network."""
        return self.values

    def json(self, indent: int | None = None) -> str:
        """to_dict() as JSON."""
        return json.dumps(self.values, indent=indent, allow_nan=False)

    def text(self, full: bool = False) -> str:
        """To be read beside the tutorial. Long sums and lists are cut, and say so, unless `full`."""
        return "\n".join(Text(self.values, full).lines())

    def __str__(self) -> str:
        return self.text()


@torch.no_grad()
def explain(state: TrainState, data: Dataset, network: int = 0) -> Explanation:
    """The next step of the network in row `network` of `state`, on the samples that it takes from `data`.

    The state stays as it is. A network that has ended is shown the step after its last. Raises ShapeError for a row
    that is not there, ShapeError or DataError for data that do not fit.
    """
    population, config = state.population, state.config
    if not 0 <= network < population.count:
        raise ShapeError(f"network {network}: a row from 0 to {population.count - 1} expected")
    data.check(population.spec, data.networks or population.count)
    data = data.to(population.device, population.params.dtype)
    own = state.rows(torch.tensor([network], device=population.device))  # indices: a copy
    place = (population.seed, own.population.ids, own.position, own.step)
    index = data.order(*place, 1, config.batch_size, config.shuffle)
    block = Recorder(own, data.batch(index, own.position))
    block.step(block.batch)
    for layer in block.layers:
        for name in ("weight", "bias"):  # frozen ones never met the optimizer
            layer[name].setdefault("new", layer[name]["value"])
    _, total, loss, _ = block.look()
    number = int(own.step[0])
    return Explanation(
        {
            "network": {"row": network, "id": int(own.population.ids[0]), **population.spec.to_dict(),
                        "dtype": str(population.params.dtype).removeprefix("torch.")},
            "step": {"number": number, "status": Status(int(own.status[0])).name, "samples": index[0].tolist(),
                     "optimizer": config.optimizer, "schedule": config.schedule,
                     "update_order": config.update_order, "decoupled": config.rule.decoupled, **block.noted,
                     "counts": bool(block.leave(own, 0)[0])},
            "inputs": plain(block.batch.inputs[0]),
            "targets": plain(block.batch.targets[0]),
            "layers": block.layers,
            "error": block.error,
            "new_error": {"E_total": plain(total[0]), "loss": plain(loss[0])},
        }
    )  # fmt: skip


class Recorder(Block):
    """The engine's block of a lone network, that notes the numbers of one step."""

    def __init__(self, state: TrainState, batch: Batch) -> None:
        super().__init__(state, kernel_widths(state.population.spec.widths, state.config.batch_size))
        self.batch = batch
        self.dropout = self.masks(batch.inputs.shape[1])
        self.noted: dict[str, Any] = {
            "hyper": {name: plain(each[0] if name == "class_weight" else each[0, 0])
                      for name, each in self.hyper.items()},
            "columns": {name: plain(each[0, 0]) for name, each in self.columns.items()},
        }  # fmt: skip
        self.passed, total, loss, self.delta = self.look()
        self.error, self.out_slope = self._errors()
        self.error |= {"E_total": plain(total[0]), "loss": plain(loss[0])}
        self.layers = [self._forward(number) for number in range(len(self.parts))]

    def look(self) -> tuple[Pass, Tensor, Tensor, Tensor]:
        """The forward pass through the weights as they are now; E_total, the loss with penalties, the outs' delta."""
        inputs = pad(doubled(self.batch.inputs), (0, self.widths[0] - self.spec.widths[0]))
        layers = [(weight.param, bias.param) for weight, bias in self.parts]
        passed = forward_layers(self.spec, layers, inputs, self.dropout)
        weight = None if self.batch.weight is None else doubled(self.batch.weight)
        target = doubled(self.batch.targets)
        loss, delta = loss_and_delta(self.spec, passed.nets[-1], passed.outs[-1], target, weight, self.typed)
        return passed, loss, self.penalised(loss), delta

    def _errors(self) -> tuple[dict[str, Any], Tensor]:
        """The error of every output and sample, and what share of E_total it has; dE_total/dout (N, B, O)."""
        rule, width = LOSSES[self.spec.loss], self.spec.widths[-1]
        out, target = self.passed.outs[-1][:, :, :width], doubled(self.batch.targets)
        weight = None if self.batch.weight is None else doubled(self.batch.weight)
        error, slope, counted = errors(self.spec, out, target, weight, self.typed)
        given = torch.ones_like(error) if weight is None else weight
        whole = (torch.ones_like(error) if counted is None else counted).sum(1, keepdim=True)
        share = given / (whole + (whole == 0)) * (1 / width if rule.outputs == "mean" else 1)
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
        return noted, slope * share[:, :, None]

    def _forward(self, number: int) -> dict[str, Any]:
        """What layer `number` is and what the forward pass leaves in it."""
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
        """(N, B, O) -> the network's numbers, a row for each sample, without padding."""
        return plain(tensor[0, :, :width])

    def cut(self, tensor: Tensor, number: int) -> Any:
        """A weight (N, I, O) or bias (N, O) -> the network's numbers, (O, I) or (O,), without padding."""
        at = self.spec.layout[number]
        return plain(tensor[0, : at.inputs, : at.outputs].T if tensor.ndim == 3 else tensor[0, : at.outputs])

    def gradient(self, number: int, grad_weight: Tensor, grad_bias: Tensor) -> list[Tensor]:
        """Block's, noting the gradients and the deltas that they come from. Called while the weights above are what the
        engine sends the delta back through: the old ones, or in the layerwise order the new ones."""
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
        """Block's, noting the norm and what it was multiplied with."""
        if "clip_norm" in self.typed:
            numbers = torch.cat([grad[0].flatten() for grads in gradients.values() for grad in grads])
            norm = torch.linalg.vector_norm(numbers)
            factor = torch.clamp(self.typed["clip_norm"][0, 0] / (norm + 1e-6), max=1)
            self.noted |= {"norm": plain(norm), "clip": plain(factor)}
        super().clip_norms(gradients)

    def begin_update(self) -> None:
        """Block's, noting the rates."""
        step = self.now[:, None].double()
        lr = scheduled(self.config.timetable, {**self.hyper, **self.plateau}, step, self.total_steps)
        super().begin_update()
        decay = self.rates.decay
        self.noted |= {"lr": plain(lr[0, 0]), "rate": plain(self.rates.direction[0, 0]),
                       "decay": None if decay is None else plain(decay[0, 0]),
                       "arguments": {name: plain(each[0, 0]) for name, each in self.rates.arguments.items()},
                       "new_columns": {name: plain(each[0, 0]) for name, each in self.columns.items()}}  # fmt: skip

    def update_layer(self, number: int, grads: Sequence[Tensor]) -> None:
        """Block's, noting what goes into the optimizer's direction and what comes out."""
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
    """A tensor as numbers in lists; those that are not finite, which JSON has not, as strings."""

    def named(each: Any) -> Any:
        if isinstance(each, list):
            return [named(one) for one in each]
        return each if abs(each) < float("inf") else str(each)

    return tensor.tolist() if bool(tensor.isfinite().all()) else named(tensor.tolist())


def unit_names(spec: NetworkSpec) -> list[list[str]]:
    """The names of the inputs, of every layer's units, the outputs last."""
    last = len(spec.widths) - 1
    first = ["i", *(["h"] if last == 2 else [f"h{number}_" for number in range(1, last)]), "o"]
    return [[f"{name}{unit + 1}" for unit in range(width)] for name, width in zip(first, spec.widths)]


class Text:
    """The lines of an explanation, made from its values alone."""

    def __init__(self, values: dict[str, Any], full: bool) -> None:
        self.values, self.full = values, full
        self.network, self.step, self.layers, self.error = (values[k] for k in ("network", "step", "layers", "error"))
        self.digits = 9 if self.network["dtype"] == "float64" else 7  # what a float32 knows of a number around 1
        self.batch = len(self.step["samples"])

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield from self.heading()
        yield from ("", "The Forward Pass")
        yield from self.each_sample(self.inputs)
        for number, layer in enumerate(self.layers):
            yield from ("", f" {layer['name'].title()}")
            yield from self.each_sample(self.forward, number)
        yield from ("", "Calculating the Total Error")
        yield from self.each_sample(self.errors)
        yield from self.total()
        yield from ("", "The Backwards Pass")
        if "clip" in self.step:
            norm, limit, factor = (self.number(each) for each in (self.step["norm"], self.step["hyper"]["clip_norm"],
                                                                  self.step["clip"]))  # fmt: skip
            yield f"  The whole gradient's norm is {norm}, its limit {limit}: every grad is multiplied with {factor}."
        for number in reversed(range(len(self.layers))):
            yield from ("", f" {self.layers[number]['name'].title()}")
            yield from self.backward(number)
        yield from ("", "The New Error")
        new = self.number(self.values["new_error"]["E_total"])
        yield self.line("E_total", f"{new} on the same samples; it was {self.number(self.error['E_total'])}")
        if not self.step["counts"]:
            yield "  A number is not finite: this step does not count, and the network is diverged."

    def number(self, value: float | str) -> str:
        """Nine decimals as in the tutorial, seven for float32; as many digits where a number is very small or large."""
        if isinstance(value, str):
            return value
        if value == 0:
            return "0"  # not -0
        if 10 ** (5 - self.digits) <= abs(value) < 1e6:
            return f"{value:.{self.digits}f}".rstrip("0").rstrip(".")
        return f"{value:.{self.digits}g}"

    @staticmethod
    def line(*sides: str) -> str:
        """The sides with = between them; none twice in a row."""
        return "  " + " = ".join(side for k, side in enumerate(sides) if not k or side != sides[k - 1])

    def few(self, count: int) -> range:
        """What is shown of `count` units, weights or samples."""
        return range(count if self.full or count <= UNITS else FEW)

    def more(self, count: int, what: str) -> Iterator[str]:
        """The line that says what is not shown."""
        if len(self.few(count)) < count:
            yield f"  ... and {count - FEW} more {what}"

    def sum(self, count: int, term: Callable[[int], str], *more: str) -> str:
        """`count` terms and some more, cut in the middle where they are many."""
        whole = self.full or count <= TERMS
        terms = [term(k) for k in (range(count) if whole else (*range(FEW), count - 1))]
        text = " + ".join([*terms[:FEW], *([] if whole else ["..."]), *terms[FEW:], *more])
        return text if whole else f"{text} ({count + len(more)} terms)"

    def each_sample(self, lines: Callable[..., Iterator[str]], *arguments: Any) -> Iterator[str]:
        """`lines` for every sample shown, which starts each with `at`."""
        for s in self.few(self.batch):
            yield from lines(s, self.at(s), *arguments)
        yield from self.more(self.batch, "samples")

    def at(self, s: int) -> str:
        """Which sample a line is about, where there are several."""
        return f"[sample {self.step['samples'][s]}] " if self.batch > 1 else ""

    def heading(self) -> Iterator[str]:
        """Which network, which step, which rates."""
        network, step = self.network, self.step
        widths, note = "-".join(map(str, network["widths"])), ""
        if step["status"] != "running":
            note = f"; the network is {step['status']}: this would be its next step"
        yield f"Network {network['row']} (id {network['id']}), {widths}, {network['loss']}"
        yield f"Step {step['number'] + 1}{note}"
        yield f"{step['optimizer']}, learning rate {self.number(step['lr'])} (schedule {step['schedule']})"
        rest = {**step["hyper"], **step["arguments"]}
        rest = {name: value for name, value in rest.items() if name != "lr" and not isinstance(value, list)}
        if "warmup" not in rest:
            rest.pop("warmup_start", None)
        if rest:
            yield ", ".join(f"{name} {self.number(value)}" for name, value in rest.items())
        yield {
            "simultaneous": "All weights move together, after every gradient was computed from the original weights.",
            "layerwise": "A layer is updated before the delta below it is computed: that meets the new weights.",
        }[step["update_order"]]

    def inputs(self, s: int, at: str) -> Iterator[str]:
        """The sample's inputs and targets."""
        inputs, target, units = self.values["inputs"][s], self.values["targets"][s], self.layers[-1]["units"]
        text = ", ".join(f"i{k + 1} = {self.number(inputs[k])}" for k in self.few(len(inputs)))
        yield f"  {at}{text}" + ("" if len(self.few(len(inputs))) == len(inputs) else f", ... ({len(inputs)} inputs)")
        if isinstance(target, list):
            yield "  " + at + ", ".join(f"target_{units[k]} = {self.number(target[k])}" for k in self.few(len(target)))
        else:
            yield f"  {at}target = class {target}, unit {units[target]}"

    def forward(self, s: int, at: str, number: int) -> Iterator[str]:
        """Net and out of a layer's units."""
        units = len(self.layers[number]["units"])
        for u in self.few(units):
            yield from self.unit(s, at, number, u)
        yield from self.more(units, "units")

    def unit(self, s: int, at: str, number: int, u: int) -> Iterator[str]:
        """Net and out of one unit, and what dropout leaves of it."""
        layer, n = self.layers[number], self.number
        unit, function, enters = layer["units"][u], layer["activation"], layer["enters"][s]
        names, values, below = layer["weight"]["names"][u], layer["weight"]["value"][u], layer["below"]
        bias, value = (layer["bias"][key][: u + 1][-1:] for key in ("names", "value"))  # its own, the layer's, or none
        net, out = n(layer["net"][s][u]), n(layer["out"][s][u])
        yield self.line(
            f"{at}net_{unit}",
            self.sum(len(below), lambda i: f"{names[i]} * {below[i]}", *(f"{each} * 1" for each in bias)),
            self.sum(len(below), lambda i: f"{n(values[i])} * {n(enters[i])}", *(f"{n(each)} * 1" for each in value)),
            net,
        )
        yield self.line(f"{at}out_{unit}", f"{function}(net_{unit})", f"{function}({net})", out)
        if layer["dropout"]:
            factor, kept = n(layer["dropout"][s][u]), n(self.layers[number + 1]["enters"][s][u])
            yield self.line(f"{at}kept_{unit}", f"{factor} * out_{unit}", f"{factor} * {out}", kept)

    def formula(self, u: int, s: int, slope: bool) -> tuple[str, str]:
        """The error of an output unit, or its slope: in names, and in numbers."""
        unit, loss, n = self.layers[-1]["units"][u], self.network["loss"], self.number
        name = loss + ("'" if slope else "")
        form = ERRORS[loss][slope] if loss in ERRORS else f"{name}({{out}}, {{target}})"
        target, out = self.values["targets"][s][u], self.layers[-1]["out"][s][u]
        return form.format(out=f"out_{unit}", target=f"target_{unit}"), form.format(out=n(out), target=n(target))

    def errors(self, s: int, at: str) -> Iterator[str]:
        """The error of every output, or the chance of every class; their sum."""
        error, units, n = self.error, self.layers[-1]["units"], self.number
        if "outputs" in error:
            outputs = error["outputs"][s]
            for u in self.few(len(units)):
                yield self.line(f"{at}E_{units[u]}", *self.formula(u, s, False), n(outputs[u]))
            yield from self.more(len(units), "outputs")
            names = self.sum(len(units), lambda u: f"E_{units[u]}")
            numbers = self.sum(len(units), lambda u: n(outputs[u]))
        else:
            shifted, targets, whole = error["shifted"][s], error["class_targets"][s], n(error["sums"][s])
            for u in self.few(len(units)):
                unit, power = units[u], n(error["powers"][s][u])
                yield self.line(f"{at}shifted_{unit}", f"out_{unit} - the largest out", n(shifted[u]))
                yield self.line(f"{at}power_{unit}", f"e^shifted_{unit}", f"e^{n(shifted[u])}", power)
                chance = f"power_{unit} / sum of powers", f"{power} / {whole}", n(error["chances"][s][u])
                yield self.line(f"{at}chance_{unit}", *chance)
            yield from self.more(len(units), "classes")
            own = [u for u, target in enumerate(targets) if target]
            names = self.sum(len(own), lambda k: self.times(targets[own[k]], f"-ln(chance_{units[own[k]]})"))
            numbers = self.sum(len(own), lambda k: self.times(targets[own[k]], f"(ln({whole}) - {n(shifted[own[k]])})"))
        if self.batch > 1 or "outputs" not in error:
            yield self.line(f"{at}E", names, numbers, n(error["samples"][s]))
        else:
            share = error["shares"][s]
            yield self.line("E_total", self.times(share, names), self.times(share, numbers), n(error["E_total"]))

    def times(self, factor: float, text: str) -> str:
        """factor * text, brackets around a sum; the text alone where the factor is 1."""
        if factor == 1:
            return text
        return f"{self.number(factor)} * {f'({text})' if ' ' in text else text}"

    def total(self) -> Iterator[str]:
        """E_total of several samples, and what the penalties add."""
        error, n = self.error, self.number
        if self.batch > 1 or "outputs" not in error:
            names = "share of the sample * E" + (f", summed over {self.batch} samples" if self.batch > 1 else "")
            numbers = self.sum(self.batch, lambda s: f"{n(error['shares'][s])} * {n(error['samples'][s])}")
            yield self.line("E_total", names, numbers, n(error["E_total"]))
        if "l1" in self.step["hyper"] or "l2" in self.step["hyper"]:
            yield self.line("loss", "E_total + l1 * sum of |w| + l2 / 2 * sum of w^2", n(error["loss"]))

    def backward(self, number: int) -> Iterator[str]:
        """A layer's deltas, gradients and new weights, unit by unit."""
        layer = self.layers[number]
        units, inputs = layer["units"], len(layer["below"])
        for u in self.few(len(units)):
            yield from self.each_sample(self.delta, number, u)
            for i in self.few(inputs):
                yield from self.weight(layer, u, i)
            yield from self.more(inputs, f"weights into {units[u]}")
            if self.network["bias"] == "neuron":
                yield from self.bias_update(layer, u, [u])
        yield from self.more(len(units), "units")
        if self.network["bias"] == "layer":
            yield from self.bias_update(layer, 0, list(range(len(units))))

    def delta(self, s: int, at: str, number: int, u: int) -> Iterator[str]:
        """dE_total/dout, dout/dnet and their product, dE_total/dnet, of one unit."""
        layer, n = self.layers[number], self.number
        unit, name = layer["units"][u], layer["activation"]
        net, out = n(layer["net"][s][u]), n(layer["out"][s][u])
        arriving, slope, delta = (n(layer[key][s][u]) for key in ("dE/dout", "dout/dnet", "delta"))
        yield from self.through(s, at, number, u) if number < len(self.layers) - 1 else self.out_slope(s, at, u)
        form = SLOPES.get(name, f"{name}'({{net}})")
        names, numbers = form.format(net=f"net_{unit}", out=f"out_{unit}"), form.format(net=net, out=out)
        yield self.line(f"{at}dout_{unit}/dnet_{unit}", names, numbers, slope)
        product = f"dE_total/dout_{unit} * dout_{unit}/dnet_{unit}", f"{arriving} * {slope}", delta
        yield self.line(f"{at}dE_total/dnet_{unit}", *product)

    def out_slope(self, s: int, at: str, u: int) -> Iterator[str]:
        """dE_total/dout of an output unit."""
        layer, error, n = self.layers[-1], self.error, self.number
        unit, share = layer["units"][u], error["shares"][s]
        if "outputs" in error:
            sides = self.formula(u, s, True)
        else:
            targets = error["class_targets"][s]
            sides = (
                f"{self.times(round(sum(targets), self.digits), f'chance_{unit}')} - target_{unit}",
                f"{self.times(round(sum(targets), self.digits), n(error['chances'][s][u]))} - {n(targets[u])}",
            )
        sides = self.times(share, sides[0]), self.times(share, sides[1])
        yield self.line(f"{at}dE_total/dout_{unit}", *sides, n(layer["dE/dout"][s][u]))

    def through(self, s: int, at: str, number: int, u: int) -> Iterator[str]:
        """dE_total/dout of a hidden unit: what comes back through every unit above."""
        layer, above, n = self.layers[number], self.layers[number + 1], self.number
        unit, units, deltas = layer["units"][u], above["units"], above["delta"][s]
        key, mark = ("new", "+") if self.step["update_order"] == "layerwise" else ("value", "")
        names = [f"{row[u]}{mark}" for row in above["weight"]["names"]]
        values = [n(row[u]) for row in above["weight"][key]]
        enters = above["below"][u]
        result = n(layer["dE/dkept" if layer["dropout"] else "dE/dout"][s][u])
        if number == len(self.layers) - 2 and "outputs" in self.error and self.error["shares"][s] == 1:
            parts = layer["dE_o/dout"][s][u]
            for o in self.few(len(units)):
                delta = f"dE_{units[o]}/dnet_{units[o]}"
                sides = f"{delta} * dnet_{units[o]}/d{enters}", f"{delta} * {names[o]}", f"{n(deltas[o])} * {values[o]}"
                yield self.line(f"{at}dE_{units[o]}/d{enters}", *sides, n(parts[o]))
            yield from self.more(len(units), "outputs")
            chain = self.sum(len(units), lambda o: f"dE_{units[o]}/d{enters}")
            numbers = self.sum(len(units), lambda o: n(parts[o]))
        else:
            chain = self.sum(len(units), lambda o: f"dE_total/dnet_{units[o]} * {names[o]}")
            numbers = self.sum(len(units), lambda o: f"{n(deltas[o])} * {values[o]}")
        yield self.line(f"{at}dE_total/d{enters}", chain, numbers, result)
        if layer["dropout"]:
            factor = n(layer["dropout"][s][u])
            kept = f"{factor} * dE_total/d{enters}", f"{factor} * {result}"
            yield self.line(f"{at}dE_total/dout_{unit}", *kept, n(layer["dE/dout"][s][u]))

    def weight(self, layer: dict[str, Any], u: int, i: int) -> Iterator[str]:
        """dE_total/dw and the new weight of one weight."""
        unit, below, name, n = layer["units"][u], layer["below"][i], layer["weight"]["names"][u][i], self.number
        if self.batch == 1:
            enters = n(layer["enters"][0][i])
            yield self.line(f"dnet_{unit}/d{name}", below, enters)
            names = f"dE_total/dout_{unit} * dout_{unit}/dnet_{unit} * dnet_{unit}/d{name}"
            numbers = f"{n(layer['dE/dout'][0][u])} * {n(layer['dout/dnet'][0][u])} * {enters}"
        else:
            names = f"dE_total/dnet_{unit} * {below}, summed over {self.batch} samples"
            numbers = self.sum(self.batch, lambda s: f"{n(layer['delta'][s][u])} * {n(layer['enters'][s][i])}")
        yield self.line(f"dE_total/d{name}", names, numbers, n(layer["weight"]["dE"][u][i]))
        yield from self.update("weight", layer["weight"], name, lambda rows: rows[u][i])

    def bias_update(self, layer: dict[str, Any], at: int, units: Sequence[int]) -> Iterator[str]:
        """dE_total/db and the new bias of bias number `at`, which serves `units`."""
        bias, n = layer["bias"], self.number
        name = bias["names"][at]
        if bias["frozen"]:
            yield f"  {name}+ = {name} = {n(bias['value'][at])}: it is frozen"
            return
        names = self.sum(len(units), lambda k: f"dE_total/dnet_{layer['units'][units[k]]}")
        if self.batch > 1:
            names += f", summed over {self.batch} samples"
        deltas = [layer["delta"][s][u] for s in range(self.batch) for u in units]
        yield self.line(f"dE_total/d{name}", names, self.sum(len(deltas), lambda k: n(deltas[k])), n(bias["dE"][at]))
        yield from self.update("bias", bias, name, lambda row: row[at])

    def update(self, kind: str, part: dict[str, Any], name: str, pick: Callable[[Any], float]) -> Iterator[str]:
        """What the optimizer makes of a gradient."""
        step, n = self.step, self.number
        hyper, grad = step["hyper"], f"dE_total/d{name}"
        changed = grad
        for each, form in (("l2", name), ("l1", f"sign({name})")):
            if kind == "weight" and each in hyper:
                changed += f" + {n(hyper[each])} * {form}"
        if "clip_value" in hyper:
            changed = f"clipped({changed}, {n(hyper['clip_value'])})"
        if "clip" in step:
            changed = self.times(step["clip"], changed)
        if step["decay"] is not None and not step["decoupled"]:
            changed += f" + {n(step['decay'])} * {name}"
        if changed != grad:
            yield self.line(f"grad_{name}", changed, n(pick(part["grad"])))
            grad = f"grad_{name}"
        value, way = n(pick(part["value"])), n(pick(part["direction"]))
        if step["optimizer"] != "sgd":
            for slot, rows in part["slots"].items():
                yield self.line(f"{slot}_{name}+", f"{n(pick(part['new_slots'][slot]))} (before: {n(pick(rows))})")
            slots = "".join(f", {slot}_{name}+" for slot in part["slots"])
            yield self.line(f"direction_{name}", f"{step['optimizer']}({grad}{slots})", way)
            grad = f"direction_{name}"
        keep = f"{n(step['decay'])} * " if step["decay"] is not None and step["decoupled"] else ""
        rate = n(step["rate"])
        numbers = f"{keep}{value} - {rate} * {way}"
        yield self.line(f"{name}+", f"{keep}{name} - {rate} * {grad}", numbers, n(pick(part["new"])))
