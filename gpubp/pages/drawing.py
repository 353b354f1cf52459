"""A network as a drawing (SVG) with the numbers of its steps: a column for each layer, a line for each weight.

Of a wide layer only the first units are drawn, the ones listed. The drawing has all numbers; the page decides which of
them show: #shown's data-phase, data-slot (of the sample) and data-step choose by `rules`.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .by_step import by_step
from .drawn import PHASES, Drawn, View
from .formula import TOTAL

WIDE, ROW, LINE, SPACE = 142, 16, 24, 18  # pixels of a unit, its rows, a box of one line, and between two units
OWN = 92  # pixels of a unit's own bias, beside its name
ABOVE, LAST = 42, 40  # pixels above the columns, and before the last one
NUMBER = 72, 31  # pixels of a line's number, with its name above it
LABELLED = 9  # lines between two layers up to which all have numbers; of more, only lit ones
LABEL = 15  # letters of a unit's label


class Spot(NamedTuple):
    """A place's position: the left end of its middle."""

    x: float
    y: float


def rules(slots: int) -> str:
    """The style rules that hide whatever does not belong to the chosen phase and sample."""
    hidden = [f'#shown[data-phase="{phase}"] [data-p]:not([data-p="{phase}"])' for phase in PHASES]
    hidden += [f'#shown[data-slot="{slot}"] [data-k]:not([data-k="{slot}"])' for slot in range(slots)]
    return ",\n".join(hidden) + " { display: none; }"


class Drawing:
    """The places' positions, and their elements. values: those of the first step's explanation. labels: what inputs and
    outputs are, by unit."""

    def __init__(
        self, values: Mapping[str, Any], steps: Sequence[Drawn], few: Callable[[int], range], labels: Mapping[str, str]
    ) -> None:
        self.layers, self.network, self.steps, self.few, self.labels = (
            values["layers"], values["network"], steps, few, labels,
        )  # fmt: skip
        self.units = [[f"i{i + 1}" for i in range(len(values["inputs"][0]))], *(each["units"] for each in self.layers)]
        self.own_bias = self.network["bias"] == "neuron"
        shown = max(len(few(len(units))) for units in self.units[1:])
        tallest = max(self._height(units[0]) for units in self.units)
        self.pitch = max(tallest + SPACE, NUMBER[1] * (min(shown, 3) + 1))
        self.spots = dict(self._spots())

    def _height(self, place: str) -> float:
        """The height of a place's box: a line with its name, and one for each row; a single row is beside the name."""
        most = max(map(len, self.steps[0].rows[place].values()))
        return LINE + ROW * ((most if most > 1 else 0) + (place in self.labels))

    def _column(self, number: int) -> list[str]:
        """The places of a column from top to bottom; `more` for the units that are not drawn."""
        units = self.units[number]
        found = [units[k] for k in self.few(len(units))] + (["more"] if len(self.few(len(units))) < len(units) else [])
        if self.network["bias"] == "layer" and number < len(self.layers):
            found += self.layers[number]["bias"]["names"]
        return found

    def _gap(self, number: int) -> float:
        """The space between a column and the next."""
        above = len(self.few(len(self.units[number + 1])))
        return (NUMBER[0] / 2 + 4) * (above + 1 if self._labelled(number) else 2)

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
            top = ABOVE + (tallest - len(column) + 1) * self.pitch / 2
            self.lefts.append(x)
            for k, place in enumerate(column):
                yield (f"more{number}" if place == "more" else place), Spot(x, top + k * self.pitch)
            x += WIDE + (self._gap(number) if number < len(self.layers) else LAST)
        self.lefts.append(x)
        yield TOTAL, Spot(x, ABOVE + tallest * self.pitch / 2)
        self.width = x + WIDE + 1

    def svg(self) -> str:
        """The whole drawing."""
        boxes = "".join(self._box(place) for place in self.spots)
        return (
            f'<svg id="drawing" role="group" aria-label="The network" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'style="--wide: {self.width:.0f}px">{self._titles()}{self._edges()}{boxes}</svg>'
        )

    def _titles(self) -> str:
        """The columns' titles."""
        names = [("inputs", ""), *((each["name"], each["activation"]) for each in self.layers)]
        names.append(("total error", self.network["loss"]))
        return "".join(
            f'<text class="column" x="{x + WIDE / 2:g}" y="14">{name}</text>'
            f'<text class="rule" x="{x + WIDE / 2:g}" y="30">{html.escape(_short(rule, 20))}</text>'
            for x, (name, rule) in zip(self.lefts, names)
        )

    def _edges(self) -> str:
        """The lines and, on top of them, their numbers."""
        lines, numbers = [], []
        for number, layer in enumerate(self.layers):
            units, below = self.units[number + 1], self.units[number]
            for u in self.few(len(units)):
                for i in self.few(len(below)):
                    place = layer["weight"]["names"][u][i]
                    lines.append(self._line(place, self._right(below[i]), self.spots[units[u]]))
                    numbers.append(self._number(place, number, below[i], units[u]))
                if self.network["bias"] == "layer":
                    place = layer["bias"]["names"][0]
                    lines.append(self._line(place, self._right(place), self.spots[units[u]]))
                lines += self._rest(number, units[u])
        for u in self.few(len(self.units[-1])):
            lines.append(self._line(TOTAL, self._right(self.units[-1][u]), self.spots[TOTAL]))
        return "".join(lines) + "".join(numbers)

    def _rest(self, number: int, unit: str) -> Iterator[str]:
        """The line from the units that are not drawn."""
        if f"more{number}" in self.spots:
            (x1, y1), (x2, y2) = self._right(f"more{number}"), self.spots[unit]
            yield f'<line class="rest" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'

    def _right(self, place: str) -> Spot:
        return Spot(self.spots[place].x + WIDE, self.spots[place].y)

    def _line(self, place: str, start: Spot, end: Spot) -> str:
        ends = f'x1="{start.x:g}" y1="{start.y:g}" x2="{end.x:g}" y2="{end.y:g}"'
        classes = [step.lines.get(place, "fixed") for step in self.steps]
        drawn = by_step(classes, "g", lambda each: f'<line class="{each}" {ends}/>')
        return f'<g class="line" data-place="{place}">{drawn}<line class="near" {ends}/></g>'

    def _number(self, place: str, number: int, below: str, unit: str) -> str:
        """A weight's number on its line, placed so that no two numbers of a layer meet."""
        part = 1 / (len(self.few(len(self.units[number + 1]))) + 1) if self._labelled(number) else 0.5
        start, end = self._right(below), self.spots[unit]
        x, y = start.x + part * (end.x - start.x), start.y + part * (end.y - start.y)
        quiet = "" if self._labelled(number) else " quiet"
        text = "".join(
            f'<g{_when(view)}><text class="of" x="{x:g}" y="{y - 3:g}">{label}</text>'
            f'<text class="is" x="{x:g}" y="{y + 10:g}">{by_step(each, "tspan")}</text></g>'
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
        """A unit, a layer's bias, the total error, or the number of units not drawn."""
        x, y = self.spots[place]
        if place.startswith("more"):
            units = self.units[int(place.removeprefix("more"))]
            rest = len(units) - len(self.few(len(units)))
            return f'<text class="more" x="{x + WIDE / 2:g}" y="{y + 4:g}">and {rest:,} more</text>'
        high = self._height(place)
        corner = Spot(x, y - high / 2)
        if place.startswith("b"):
            return self._place(place, "bias", corner, WIDE, high)
        found = self._place(place, "total" if place == TOTAL else "unit", corner, WIDE, high)
        if self.own_bias and f"b_{place}" in self.steps[0].rows:
            found += self._place(f"b_{place}", "bias", Spot(x + WIDE - OWN - 4, corner.y + 4), OWN, LINE - 7)
        return found

    def _place(self, place: str, kind: str, at: Spot, wide: float, high: float) -> str:
        """A box with its name, its label and the rows of each view."""
        name = "E total" if place == TOTAL else place
        title = "" if kind == "bias" else f'<text class="title" x="{at.x + 8:g}" y="{at.y + 16:g}">{name}</text>'
        label = html.escape(_short(self.labels.get(place, ""), LABEL))
        if label:
            title += f'<text class="label" x="{at.x + WIDE - 8:g}" y="{at.y + 32:g}">{label}</text>'
        below = 0 if kind == "bias" or place.startswith("i") else 1 + bool(label)  # rows begin there
        y = at.y + (13 if wide == OWN else 16) + ROW * below
        found = "".join(
            f"<g{_when(view)}>"
            + "".join(
                _row(at.x, at.x + wide, y + ROW * k, "b" if wide == OWN else label, each)
                for k, (label, each) in enumerate(rows)
            )
            + "</g>"
            for view, rows in self._views(place)
        )
        return (
            f'<g class="place {kind}" data-place="{place}" role="button" tabindex="-1"><rect x="{at.x:g}" '
            f'y="{at.y:g}" width="{wide}" height="{high:g}" rx="6"/>{title}{found}</g>'
        )


def _row(left: float, right: float, y: float, label: str, each: Sequence[str]) -> str:
    """A quantity's name and its number at every step."""
    return (
        f'<text class="of" x="{left + 8:g}" y="{y:g}">{label}</text>'
        f'<text class="is" x="{right - 8:g}" y="{y:g}">{by_step(each, "tspan")}</text>'
    )


def _when(view: View) -> str:
    """The attributes that let the page choose a view."""
    return f' data-p="{view.phase}"' + ("" if view.slot is None else f' data-k="{view.slot}"')


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
