"""A network as a drawing (SVG) with the numbers of its steps: a column for each layer, a line for each weight.

Of a wide layer the first units are drawn, as they are listed. All numbers stand in the drawing; which of them show is
up to the page: #shown's data-phase, data-slot (of the sample) and data-step choose by `rules`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .by_step import by_step
from .drawn import PHASES, Drawn, View
from .formula import TOTAL

WIDE, HEAD, ROW, FOOT, PILL, SPACE = 124, 22, 15, 5, 20, 22  # pixels: of a unit, its parts, and the space below it
ABOVE, LAST = 44, 72  # above the columns, and before the last one
HALF = 36  # a number of a line takes twice that
LABELLED = 9  # lines between two layers that all have their numbers; of more, those that are lit have
LABEL = 13  # letters of a unit's label


class Spot(NamedTuple):
    """Where a place is: the upper left corner of its box."""

    x: float
    y: float


def draw(
    values: Mapping[str, Any], steps: Sequence[Drawn], few: Callable[[int], range], labels: Mapping[str, str]
) -> str:
    """The drawing. values: those of the first step's explanation. labels: what inputs and outputs are, by unit."""
    return Drawing(values, steps, few, labels).svg()


def rules(slots: int) -> str:
    """The rules that hide what is not of the chosen phase and sample."""
    hidden = [f'#shown[data-phase="{phase}"] [data-p]:not([data-p="{phase}"])' for phase in PHASES]
    hidden += [f'#shown[data-slot="{slot}"] [data-k]:not([data-k="{slot}"])' for slot in range(slots)]
    return ",\n".join(hidden) + " { display: none; }"


class Drawing:
    """Where the places are, and their elements."""

    def __init__(
        self,
        values: Mapping[str, Any],
        steps: Sequence[Drawn],
        few: Callable[[int], range],
        labels: Mapping[str, str],
    ) -> None:
        self.layers, self.network, self.steps, self.few, self.labels = (
            values["layers"], values["network"], steps, few, labels,
        )  # fmt: skip
        self.units = [[f"i{i + 1}" for i in range(len(values["inputs"][0]))], *(each["units"] for each in self.layers)]
        most = max(len(rows) for step in steps for views in step.rows.values() for rows in views.values())
        self.own_bias = self.network["bias"] == "neuron"
        self.box = HEAD + ROW * most + FOOT
        shown = max(len(few(len(units))) for units in self.units)
        self.pitch = max(self.box + SPACE + (PILL if self.own_bias else 0), 27 * (min(shown, 3) + 1))
        self.spots = dict(self._spots())

    def _column(self, number: int) -> list[str]:
        """The places of a column from above; `more` for the units that are not drawn."""
        units = self.units[number]
        found = [units[k] for k in self.few(len(units))] + (["more"] if len(self.few(len(units))) < len(units) else [])
        if self.network["bias"] == "layer" and number < len(self.layers):
            found += self.layers[number]["bias"]["names"]
        return found

    def _gap(self, number: int) -> float:
        """The space between a column and the next."""
        above = len(self.few(len(self.units[number + 1])))
        return max(100, (HALF + 6) * (above + 1)) if self._labelled(number) else 110

    def _labelled(self, number: int) -> bool:
        """Whether all lines between a column and the next have their numbers."""
        below, above = (len(self.few(len(units))) for units in self.units[number : number + 2])
        return below * above <= LABELLED

    def _spots(self) -> Iterator[tuple[str, Spot]]:
        columns, x = [self._column(number) for number in range(len(self.units))], 1.0
        tallest = max(map(len, columns))
        self.height = ABOVE + tallest * self.pitch
        self.lefts = []
        for number, column in enumerate(columns):
            top = ABOVE + (tallest - len(column)) * self.pitch / 2
            self.lefts.append(x)
            for k, place in enumerate(column):
                yield (f"more{number}" if place == "more" else place), Spot(x, top + k * self.pitch)
            x += WIDE + (self._gap(number) if number < len(self.layers) else LAST)
        self.lefts.append(x)
        yield TOTAL, Spot(x, ABOVE + (tallest - 1) * self.pitch / 2)
        self.width = x + WIDE + 1

    def svg(self) -> str:
        """The whole drawing."""
        boxes = "".join(self._box(place) for place in self.spots)
        return (
            f'<svg id="drawing" role="group" aria-label="The network" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'style="min-width: {0.85 * self.width:.0f}px">{self._titles()}{self._edges()}{boxes}</svg>'
        )

    def _titles(self) -> str:
        """What each column is."""
        names = [("inputs", ""), *((each["name"], each["activation"]) for each in self.layers)]
        names.append(("total error", self.network["loss"]))
        return "".join(
            f'<text class="column" x="{x + WIDE / 2:g}" y="14">{name}</text>'
            f'<text class="rule" x="{x + WIDE / 2:g}" y="30">{html.escape(_short(rule, 20))}</text>'
            for x, (name, rule) in zip(self.lefts, names)
        )

    def _edges(self) -> str:
        """The lines, and on top of all of them their numbers."""
        lines, numbers = [], []
        for number, layer in enumerate(self.layers):
            units, below = self.units[number + 1], self.units[number]
            for u in self.few(len(units)):
                for i in self.few(len(below)):
                    place = layer["weight"]["names"][u][i]
                    lines.append(self._line(place, self._right(below[i]), self._left(units[u])))
                    numbers.append(self._number(place, number, below[i], units[u]))
                if self.network["bias"] == "layer":
                    place = layer["bias"]["names"][0]
                    lines.append(self._line(place, self._right(place), self._left(units[u])))
                lines += self._rest(number, units[u])
        for u in self.few(len(self.units[-1])):
            lines.append(self._line(TOTAL, self._right(self.units[-1][u]), self._left(TOTAL)))
        return "".join(lines) + "".join(numbers)

    def _rest(self, number: int, unit: str) -> Iterator[str]:
        """The line from the units that are not drawn."""
        if f"more{number}" in self.spots:
            (x1, y1), (x2, y2) = self._right(f"more{number}"), self._left(unit)
            yield f'<line class="rest" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'

    def _right(self, place: str) -> Spot:
        return Spot(self.spots[place].x + WIDE, self._middle(place))

    def _left(self, place: str) -> Spot:
        return Spot(self.spots[place].x, self._middle(place))

    def _middle(self, place: str) -> float:
        return self.spots[place].y + self.box / 2

    def _line(self, place: str, start: Spot, end: Spot) -> str:
        ends = f'x1="{start.x:g}" y1="{start.y:g}" x2="{end.x:g}" y2="{end.y:g}"'
        classes = [step.lines.get(place, "fixed") for step in self.steps]
        drawn = by_step(classes, "g", lambda each: f'<line class="{each}" {ends}/>')
        return f'<g class="line" data-place="{place}">{drawn}<line class="near" {ends}/></g>'

    def _number(self, place: str, number: int, below: str, unit: str) -> str:
        """A weight's number on its line, where no two numbers of a layer meet."""
        part = 1 / (len(self.few(len(self.units[number + 1]))) + 1) if self._labelled(number) else 0.5
        start, end = self._right(below), self._left(unit)
        x, y = start.x + part * (end.x - start.x), start.y + part * (end.y - start.y)
        quiet = "" if self._labelled(number) else " quiet"
        text = "".join(
            f'<g{_when(view)}><text class="of" x="{x:g}" y="{y - 3:g}">{label}</text>'
            f'<text class="is" x="{x:g}" y="{y + 9:g}">{by_step(each, "tspan")}</text></g>'
            for view, ((label, each),) in self._views(place)
        )
        return f'<g class="place weight{quiet}" data-place="{place}" role="button" tabindex="-1">{text}</g>'

    def _views(self, place: str) -> Iterator[tuple[View, list[tuple[str, list[str]]]]]:
        """Every view of a place with its rows: the quantity, and its number at each step."""
        for view, rows in self.steps[0].rows[place].items():
            yield (
                view,
                [(label, [step.rows[place][view][k][1] for step in self.steps]) for k, (label, _) in enumerate(rows)],
            )

    def _box(self, place: str) -> str:
        """A unit, a layer's bias, the total error, or how many units are not drawn."""
        x, y = self.spots[place]
        if place.startswith("more"):
            units = self.units[int(place.removeprefix("more"))]
            rest = len(units) - len(self.few(len(units)))
            return f'<text class="more" x="{x + WIDE / 2:g}" y="{y + self.box / 2:g}">and {rest:,} more</text>'
        title = "E total" if place == TOTAL else place
        label = f'<text class="label" x="{x + WIDE - 7:g}" y="{y + 15:g}">{self._label(place)}</text>'
        kind = "total" if place == TOTAL else "bias" if place.startswith("b") else "unit"
        found = self._place(place, kind, Spot(x, y), self.box, title, label)
        return found + (self._pill(place) if self.own_bias and f"b_{place}" in self.steps[0].rows else "")

    def _place(self, place: str, kind: str, at: Spot, high: float, title: str, more: str = "") -> str:
        """A box with its title and the rows of each view."""
        found = "".join(
            f"<g{_when(view)}>"
            + "".join(self._row(at, k, label, each) for k, (label, each) in enumerate(rows))
            + "</g>"
            for view, rows in self._views(place)
        )
        return (
            f'<g class="place {kind}" data-place="{place}" role="button" tabindex="-1">'
            f'<rect x="{at.x:g}" y="{at.y:g}" width="{WIDE}" height="{high:g}" rx="7"/>'
            f'<text class="title" x="{at.x + 8:g}" y="{at.y + 15:g}">{title}</text>{more}{found}</g>'
        )

    @staticmethod
    def _row(at: Spot, k: int, label: str, each: Sequence[str]) -> str:
        y = at.y + HEAD + ROW * (k + 0.75)
        return (
            f'<text class="of" x="{at.x + 8:g}" y="{y:g}">{label}</text>'
            f'<text class="is" x="{at.x + WIDE - 8:g}" y="{y:g}">{by_step(each, "tspan")}</text>'
        )

    def _pill(self, unit: str) -> str:
        """A unit's own bias, below it."""
        place, (x, y) = f"b_{unit}", self.spots[unit]
        y += self.box + 3
        text = "".join(
            f'<g{_when(view)}><text class="of" x="{x + 8:g}" y="{y + 12:g}">{label}</text>'
            f'<text class="is" x="{x + WIDE - 8:g}" y="{y + 12:g}">{by_step(each, "tspan")}</text></g>'
            for view, ((label, each),) in self._views(place)
        )
        rect = f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{PILL - 4}" rx="7"/>'
        return f'<g class="place pill" data-place="{place}" role="button" tabindex="-1">{rect}{text}</g>'

    def _label(self, unit: str) -> str:
        return html.escape(_short(self.labels.get(unit, ""), LABEL))


def _when(view: View) -> str:
    """The attributes by which the page chooses a view."""
    return f' data-p="{view.phase}"' + ("" if view.slot is None else f' data-k="{view.slot}"')


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
