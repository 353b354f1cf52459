"""The numbers of a step that a drawing shows, by place (see formula.py): from explaining/steps.py, with few digits.

A place shows what belongs to one of the PHASES, and to one sample if it has numbers for each sample.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..explaining.notation import Notation
from .formula import TOTAL

PHASES = ("forward", "backward", "update")
DIGITS = 4
WIDTHS = 4  # widths of lines: a weight's size among those of its layer

Written = Callable[[float | str], str]
Row = tuple[str, str]  # a quantity's name and its number


class View(NamedTuple):
    """When a place's numbers are shown. slot: of a sample; None if they do not depend on it."""

    phase: str
    slot: int | None = None


class Drawn(NamedTuple):
    """For one step: the rows of every place by view; for every weight, the classes of its line."""

    rows: dict[str, dict[View, list[Row]]]
    lines: dict[str, str]


def drawn(values: Mapping[str, Any], few: Callable[[int], range]) -> Drawn:
    """What to draw of the values of an explanation. few: which units or samples, from their number."""
    n, layers = Notation(DIGITS, False).number, values["layers"]
    slots = few(len(values["inputs"]))
    rows: dict[str, dict[View, list[Row]]] = defaultdict(dict)
    lines: dict[str, str] = {}
    for s in slots:
        for i in few(len(values["inputs"][s])):
            rows[f"i{i + 1}"] |= {View(phase, s): [("", n(values["inputs"][s][i]))] for phase in PHASES}
        for number, layer in enumerate(layers):
            for u in few(len(layer["units"])):
                rows[layer["units"][u]] |= _unit(values, number, s, u, n)
        rows[TOTAL] |= _total(values, s, n)
    for layer in layers:
        for names, at in _parameters(layer, few):
            part = layer["weight"] if len(at) == 2 else layer["bias"]
            rows[names] |= _changing(names, part, at, n)
        lines |= _lines(layer, few)
    return Drawn(dict(rows), lines)


def _unit(values: Mapping[str, Any], number: int, s: int, u: int, n: Written) -> dict[View, list[Row]]:
    """The rows of unit `u` of a layer for the sample in slot `s`."""
    layer, error = values["layers"][number], values["error"]
    out = n(layer["out"][s][u])
    forward = [("net", n(layer["net"][s][u])), ("out", out)]
    if number == len(values["layers"]) - 1:
        classes = "outputs" not in error
        if classes:
            forward = [forward[1], ("chance", n(error["chances"][s][u]))]
        forward.append(("target", n((error["class_targets"] if classes else values["targets"])[s][u])))
    elif layer["dropout"]:
        forward.append(("kept", n(values["layers"][number + 1]["enters"][s][u])))
    slopes = [("∂E/∂out", n(layer["dE/dout"][s][u])), ("∂E/∂net", n(layer["delta"][s][u]))]
    return {View("forward", s): forward, View("backward", s): [("out", out), *slopes], View("update", s): []}


def _total(values: Mapping[str, Any], s: int, n: Written) -> dict[View, list[Row]]:
    """The rows of the total error."""
    before, after = n(values["error"]["E_total"]), n(values["new_error"]["E_total"])
    several = [("E", n(values["error"]["samples"][s]))] if len(values["inputs"]) > 1 else []
    rows = [*several, ("E total" if several else "", before)]
    return {View("forward", s): rows, View("backward", s): rows,
            View("update", s): [("before", before), ("after", after)]}  # fmt: skip


def _parameters(layer: Mapping[str, Any], few: Callable[[int], range]) -> list[tuple[str, tuple[int, ...]]]:
    """A layer's weights and biases that are drawn: name, and unit and input, or the bias's number."""
    weights, biases = layer["weight"]["names"], layer["bias"]["names"]
    found: list[tuple[str, tuple[int, ...]]] = [
        (weights[u][i], (u, i)) for u in few(len(weights)) for i in few(len(weights[u]))
    ]
    return found + [(biases[b], (b,)) for b in few(len(biases))]


def _changing(name: str, part: Mapping[str, Any], at: tuple[int, ...], n: Written) -> dict[View, list[Row]]:
    """The rows of a weight or bias: its value, its gradient, its new value."""

    def pick(key: str) -> str:
        found = part[key]
        for each in at:
            found = found[each]
        return n(found)

    gradient = pick("dE") if "dE" in part else "frozen"
    return {View("forward"): [(name, pick("value"))], View("backward"): [(f"∂E/∂{name}", gradient)],
            View("update"): [(f"{name}+", pick("new"))]}  # fmt: skip


def _lines(layer: Mapping[str, Any], few: Callable[[int], range]) -> dict[str, str]:
    """The classes of the lines of a layer's weights: their sign, and their size among those drawn."""
    names, value = layer["weight"]["names"], layer["weight"]["value"]
    found = {names[u][i]: float(value[u][i]) for u in few(len(names)) for i in few(len(names[u]))}
    largest = max(map(abs, found.values()), default=0)
    if not 0 < largest < float("inf"):
        return dict.fromkeys(found, "plus size1")
    return {
        name: f"{'minus' if each < 0 else 'plus'} size{1 + int((WIDTHS - 1) * abs(each) / largest)}"
        for name, each in found.items()
    }
