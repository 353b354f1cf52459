"""The text of an explanation, to read next to Matt Mazur's "A Step by Step Backpropagation Example".

It is made only from the plain values of `Explanation.to_dict()`, so values read back from JSON give the same text. The
parts follow the tutorial: the forward pass, the total error, the backwards pass from the last layer to the first, the
new error.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..settings.recipe import EXACT
from .notation import ERRORS, SLOPES, Heading, Term
from .update import Update


class Text(Update):
    """The lines of an explanation, from its values."""

    def __init__(self, values: dict[str, Any], full: bool) -> None:
        self.values = values
        self.network, self.layers, self.error = (values[k] for k in ("network", "layers", "error"))
        digits = 9 if self.network["dtype"] == "float64" else 7  # the digits of a float32 near 1
        super().__init__(values["step"], digits, full)
        self.batch = len(self.step["samples"])

    def lines(self) -> Iterator[Heading | Term | str]:
        """All lines."""
        yield from self.heading()
        yield Heading("The Forward Pass")
        yield from self.each_sample(self.inputs)
        for number, layer in enumerate(self.layers):
            yield Heading(layer["name"].title(), 2)
            yield from self.each_sample(self.forward, number)
        yield Heading("Calculating the Total Error")
        yield from self.each_sample(self.errors)
        yield from self.total()
        yield from self.rates()
        yield Heading("The Backwards Pass")
        yield from self.clipped_norm()
        for number in reversed(range(len(self.layers))):
            yield Heading(self.layers[number]["name"].title(), 2)
            yield from self.backward(number)
        yield Heading("The New Error")
        new = self.number(self.values["new_error"]["E_total"])
        yield self.term("E_total", f"{new} on the same samples; it was {self.number(self.error['E_total'])}")
        if not self.step["counts"]:
            first = f", the first in {self.step['fault']}" if self.step.get("fault") else ""
            yield self.term(f"A number is not finite{first}: this step does not count, and the network has diverged.")

    def each_sample(self, lines: Callable[..., Iterator[Term]], *arguments: Any) -> Iterator[Term]:
        """`lines` of every sample shown, each naming its sample if there are several."""
        for s in self.few(self.batch):
            sample = self.step["samples"][s] if self.batch > 1 else None
            yield from (term._replace(sample=sample, slot=s) for term in lines(s, *arguments))
        yield from self.more(self.batch, "samples")

    def heading(self) -> Iterator[str]:
        """The network, the step, the hyper-parameters."""
        network, step = self.network, self.step
        widths, note = "-".join(map(str, network["widths"])), ""
        if joined := step.get("restored"):
            row, rest = joined["row"], joined["rest"]
            note = f"; from the restored row, of step {row}, with the optimizer's memory of step {rest}: not of the run"
        elif step["status"] != "running":
            note = f"; the network is {step['status']}: this would be its next step"
        yield f"Network {network['row']} (id {network['id']}), {widths}, {network['loss']}"
        yield f"Step {step['number'] + 1}{note}"
        yield f"{step['optimizer']}, learning rate {self.number(step['lr'])} (schedule {step['schedule']})"
        rest = {**step["hyper"], **({} if step["formulas"] else step["arguments"])}
        rest = {name: value for name, value in rest.items() if name != "lr" and not isinstance(value, list)}
        if "warmup" not in rest:
            rest.pop("warmup_start", None)
        if rest:
            yield ", ".join(f"{name} {self.number(value)}" for name, value in rest.items())
        yield {
            "simultaneous": "All weights are updated together, with gradients computed from the original weights.",
            "layerwise": "A layer is updated before the delta below it is computed, from the new weights.",
        }[step["update_order"]]
        if step["precision"] != EXACT:
            yield f"In training its products are of precision {step['precision']}; here they are exact: numbers differ."

    def inputs(self, s: int) -> Iterator[Term]:
        """The sample's inputs and targets."""
        inputs, target, units = self.values["inputs"][s], self.values["targets"][s], self.layers[-1]["units"]
        text = ", ".join(f"i{k + 1} = {self.number(inputs[k])}" for k in self.few(len(inputs)))
        yield self.term(text + ("" if len(self.few(len(inputs))) == len(inputs) else f", ... ({len(inputs)} inputs)"))
        if isinstance(target, list):
            yield self.term(", ".join(f"target_{units[k]} = {self.number(target[k])}" for k in self.few(len(target))))
        else:
            yield self.term(f"target = class {target}, unit {units[target]}")

    def forward(self, s: int, number: int) -> Iterator[Term]:
        """Net and out of a layer's units."""
        units = len(self.layers[number]["units"])
        for u in self.few(units):
            yield from self.unit(s, number, u)
        yield from self.more(units, "units")

    def unit(self, s: int, number: int, u: int) -> Iterator[Term]:
        """Net and out of one unit, and out after dropout."""
        layer, n = self.layers[number], self.number
        unit, function, enters = layer["units"][u], layer["activation"], layer["enters"][s]
        names, values, below = layer["weight"]["names"][u], layer["weight"]["value"][u], layer["below"]
        bias, value = (
            layer["bias"][key][: u + 1][-1:] for key in ("names", "value")
        )  # the unit's bias, the layer's, or none
        net, out = n(layer["net"][s][u]), n(layer["out"][s][u])
        yield self.term(
            f"net_{unit}",
            self.sum(len(below), lambda i: f"{names[i]} * {below[i]}", *(f"{each} * 1" for each in bias)),
            self.sum(len(below), lambda i: f"{n(values[i])} * {n(enters[i])}", *(f"{n(each)} * 1" for each in value)),
            net,
        )
        yield self.term(f"out_{unit}", f"{function}(net_{unit})", f"{function}({net})", out)
        if layer["dropout"]:
            factor, kept = n(layer["dropout"][s][u]), n(self.layers[number + 1]["enters"][s][u])
            yield self.term(f"kept_{unit}", f"{factor} * out_{unit}", f"{factor} * {out}", kept)

    def formula(self, u: int, s: int, slope: bool) -> tuple[str, str]:
        """The error of an output unit, or its slope: with names, and with numbers."""
        unit, loss, n = self.layers[-1]["units"][u], self.network["loss"], self.number
        name = loss + ("'" if slope else "")
        form = ERRORS[loss][slope] if loss in ERRORS else f"{name}({{out}}, {{target}})"
        target, out = self.values["targets"][s][u], self.layers[-1]["out"][s][u]
        return form.format(out=f"out_{unit}", target=f"target_{unit}"), form.format(out=n(out), target=n(target))

    def errors(self, s: int) -> Iterator[Term]:
        """The error of every output, or the probability of every class; their sum."""
        error, units, n = self.error, self.layers[-1]["units"], self.number
        if "outputs" in error:
            outputs = error["outputs"][s]
            for u in self.few(len(units)):
                yield self.term(f"E_{units[u]}", *self.formula(u, s, False), n(outputs[u]))
            yield from self.more(len(units), "outputs")
            names = self.sum(len(units), lambda u: f"E_{units[u]}")
            numbers = self.sum(len(units), lambda u: n(outputs[u]))
        else:
            shifted, targets, whole = error["shifted"][s], error["class_targets"][s], n(error["sums"][s])
            for u in self.few(len(units)):
                unit, power = units[u], n(error["powers"][s][u])
                yield self.term(f"shifted_{unit}", f"out_{unit} - the largest out", n(shifted[u]))
                yield self.term(f"power_{unit}", f"e^shifted_{unit}", f"e^{n(shifted[u])}", power)
                chance = f"power_{unit} / sum of powers", f"{power} / {whole}", n(error["chances"][s][u])
                yield self.term(f"chance_{unit}", *chance)
            yield from self.more(len(units), "classes")
            some = [u for u, target in enumerate(targets) if target]
            names = self.sum(len(some), lambda k: self.times(targets[some[k]], f"-ln(chance_{units[some[k]]})"))
            logs = [f"(ln({whole}) - {n(each)})" for each in shifted]
            numbers = self.sum(len(some), lambda k: self.times(targets[some[k]], logs[some[k]]))
        if self.batch > 1 or "outputs" not in error:
            yield self.term("E", names, numbers, n(error["samples"][s]))
        else:
            share = error["shares"][s]
            yield self.term("E_total", self.times(share, names), self.times(share, numbers), n(error["E_total"]))

    def total(self) -> Iterator[Term]:
        """E_total of several samples, and the loss with penalties."""
        error, n = self.error, self.number
        if self.batch > 1 or "outputs" not in error:
            names = "share of the sample * E" + (f", summed over {self.batch} samples" if self.batch > 1 else "")
            numbers = self.sum(self.batch, lambda s: f"{n(error['shares'][s])} * {n(error['samples'][s])}")
            yield self.term("E_total", names, numbers, n(error["E_total"]))
        names, numbers = "E_total", n(error["E_total"])
        for name, what, term in (("l1", "l1 * sum of |w|", abs), ("l2", "l2 / 2 * sum of w^2", lambda w: w * w)):
            if name in self.step["hyper"]:
                rows = (float(w) for layer in self.layers for row in layer["weight"]["value"] for w in row)
                factor, whole = n(self.step["hyper"][name]), n(sum(map(term, rows)))
                names, numbers = f"{names} + {what}", f"{numbers} + {factor}{' / 2' * (name == 'l2')} * {whole}"
        if names != "E_total":
            yield self.term("loss", names, numbers, n(error["loss"]))

    def backward(self, number: int) -> Iterator[Term]:
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

    def delta(self, s: int, number: int, u: int) -> Iterator[Term]:
        """dE_total/dout, dout/dnet and their product, dE_total/dnet, of one unit."""
        layer, n = self.layers[number], self.number
        unit, name = layer["units"][u], layer["activation"]
        net, out = n(layer["net"][s][u]), n(layer["out"][s][u])
        arriving, slope, delta = (n(layer[key][s][u]) for key in ("dE/dout", "dout/dnet", "delta"))
        yield from self.through(s, number, u) if number < len(self.layers) - 1 else self.out_slope(s, u)
        form = SLOPES.get(name, f"{name}'({{net}})")
        names, numbers = form.format(net=f"net_{unit}", out=f"out_{unit}"), form.format(net=net, out=out)
        yield self.term(f"dout_{unit}/dnet_{unit}", names, numbers, slope)
        product = f"dE_total/dout_{unit} * dout_{unit}/dnet_{unit}", f"{arriving} * {slope}", delta
        yield self.term(f"dE_total/dnet_{unit}", *product)

    def out_slope(self, s: int, u: int) -> Iterator[Term]:
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
        yield self.term(f"dE_total/dout_{unit}", *sides, n(layer["dE/dout"][s][u]))

    def through(self, s: int, number: int, u: int) -> Iterator[Term]:
        """dE_total/dout of a hidden unit: the sum over every unit above."""
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
                yield self.term(f"dE_{units[o]}/d{enters}", *sides, n(parts[o]))
            yield from self.more(len(units), "outputs")
            chain = self.sum(len(units), lambda o: f"dE_{units[o]}/d{enters}")
            numbers = self.sum(len(units), lambda o: n(parts[o]))
        else:
            chain = self.sum(len(units), lambda o: f"dE_total/dnet_{units[o]} * {names[o]}")
            numbers = self.sum(len(units), lambda o: f"{n(deltas[o])} * {values[o]}")
        yield self.term(f"dE_total/d{enters}", chain, numbers, result)
        if layer["dropout"]:
            factor = n(layer["dropout"][s][u])
            kept = f"{factor} * dE_total/d{enters}", f"{factor} * {result}"
            yield self.term(f"dE_total/dout_{unit}", *kept, n(layer["dE/dout"][s][u]))

    def weight(self, layer: dict[str, Any], u: int, i: int) -> Iterator[Term]:
        """dE_total/dw and the new weight of one weight."""
        unit, below, name, n = layer["units"][u], layer["below"][i], layer["weight"]["names"][u][i], self.number
        if self.batch == 1:
            enters = n(layer["enters"][0][i])
            yield self.term(f"dnet_{unit}/d{name}", below, enters)
            names = f"dE_total/dout_{unit} * dout_{unit}/dnet_{unit} * dnet_{unit}/d{name}"
            numbers = f"{n(layer['dE/dout'][0][u])} * {n(layer['dout/dnet'][0][u])} * {enters}"
        else:
            names = f"dE_total/dnet_{unit} * {below}, summed over {self.batch} samples"
            numbers = self.sum(self.batch, lambda s: f"{n(layer['delta'][s][u])} * {n(layer['enters'][s][i])}")
        yield self.term(f"dE_total/d{name}", names, numbers, n(layer["weight"]["dE"][u][i]))
        yield from self.update("weight", layer["weight"], name, lambda rows: rows[u][i])

    def bias_update(self, layer: dict[str, Any], at: int, units: Sequence[int]) -> Iterator[Term]:
        """dE_total/db and the new value of bias number `at`, shared by `units`."""
        bias, n = layer["bias"], self.number
        name = bias["names"][at]
        if bias["frozen"]:
            yield self.term(f"{name}+", name, f"{n(bias['value'][at])}: it is frozen")
            return
        names = self.sum(len(units), lambda k: f"dE_total/dnet_{layer['units'][units[k]]}")
        if self.batch > 1:
            names += f", summed over {self.batch} samples"
        deltas = [layer["delta"][s][u] for s in range(self.batch) for u in units]
        yield self.term(f"dE_total/d{name}", names, self.sum(len(deltas), lambda k: n(deltas[k])), n(bias["dE"][at]))
        yield from self.update("bias", bias, name, lambda row: row[at])
