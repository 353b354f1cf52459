"""A page that explains steps of one network: a drawing beside the terms, each with its formula, numbers and result.

It shows the numbers of explaining/steps.py in the words of explaining/text.py; its script chooses what shows, and
computes nothing. Unless `full`, wide layers and large batches list only the first units, weights and samples, as in the
text; a page of more than LIMIT characters is refused.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..explaining.notation import Notation
from ..explaining.steps import Explanation
from ..explaining.text import Text
from ..line import line
from ..raw.preparation import Preparation
from ..tutorial import Figure
from . import drawing
from .by_step import by_step, rules
from .drawn import PHASES, Drawn, drawn
from .formula import markup
from .page import embedded, page, text
from .printed import Printed
from .terms import Terms, keyed, parts

LIMIT = 10_000_000
CHART = 300, 30  # pixels of the chart of errors


class Step(NamedTuple):
    """What the page shows of one step."""

    number: int
    about: list[str]
    terms: Terms
    drawn: Drawn
    samples: list[int]
    error: float | str
    said: str


def explained(
    explanations: Iterable[Explanation],
    title: str,
    preparation: Preparation | None = None,
    full: bool = False,
    figures: Sequence[Figure] = (),
) -> str:
    """The page. explanations: of one or more consecutive steps. figures: the tutorial's, if this is its network. Raises
    ConfigError if the page would be larger than LIMIT."""
    each = iter(explanations)
    first = next(each)
    few = Notation(0, False).few
    steps = [_step(first, full, few), *(_step(other, full, few) for other in each)]
    made = Page(first.to_dict(), steps, title, few, _labels(preparation), Printed(figures) if figures else None).html()
    if len(made) > LIMIT:
        raise _too_large(len(made), len(steps), full)
    return made


def _step(explanation: Explanation, full: bool, few: Callable[[int], range]) -> Step:
    """What to show of a step."""
    values = explanation.to_dict()
    written = Text(values, full)
    lines = list(written.lines())
    if (size := sum(len(str(each)) for each in lines)) > LIMIT:
        raise _too_large(size, 1, full)
    about = [each for each in lines if isinstance(each, str) and not re.fullmatch(r"Step \d+", each)]
    number, before, after = values["step"]["number"], values["error"]["E_total"], values["new_error"]["E_total"]
    said = f"step {number + 1}: E_total {written.number(before)}, after the step {written.number(after)}"
    return Step(number, about, keyed(lines), drawn(values, few), values["step"]["samples"], before, said)


def _too_large(size: int, steps: int, full: bool) -> ConfigError:
    less = "fewer --steps, or no --full," if full else "fewer --steps"
    shown = f"{steps} steps" if steps > 1 else "one step"
    return ConfigError(f"a page of {shown} has {size / 1e6:.0f} MB, {LIMIT / 1e6:.0f} at most: {less} expected")


def _labels(preparation: Preparation | None) -> dict[str, str]:
    """What inputs and outputs are, by their units."""
    if preparation is None:
        return {}
    inputs: list[str] = []
    for column in preparation.columns:
        each = column.categories
        inputs += [column.name] if each is None else [f"{column.name} = {category}" for category in each]
    targets = [column.name for column in preparation.target_columns]
    if preparation.task == "classes":
        targets = [str(label) for label in preparation.classes]
    elif preparation.classes:
        targets = [f"{targets[0]} = {preparation.classes[1]}"]
    units = {f"i{k + 1}": name for k, name in enumerate(inputs)} | {f"o{k + 1}": name for k, name in enumerate(targets)}
    return {unit: line(name) for unit, name in units.items()}


class Page:
    """The parts of the page."""

    def __init__(
        self,
        values: Mapping[str, Any],
        steps: Sequence[Step],
        title: str,
        few: Callable[[int], range],
        labels: Mapping[str, str],
        printed: Printed | None,
    ) -> None:
        self.values, self.steps, self.title, self.few, self.labels = values, steps, line(title), few, labels
        self.printed = printed if steps[0].number == 0 else None
        self.slots = len(few(len(values["inputs"])))

    def html(self) -> str:
        """The whole page."""
        styles = [text("explained.css"), rules(len(self.steps)), drawing.rules(self.slots)]
        figures = "" if self.printed is None else self.printed.section()
        beside = (lambda *_: "") if self.printed is None else self.printed.beside
        terms = "".join(parts([step.terms for step in self.steps], beside))
        body = (
            '<div id="shown" data-step="0" data-phase="forward" data-slot="0" '
            f'data-order="{self.values["step"]["update_order"]}"><header><h1>{html.escape(self.title)}</h1>{self._about()}</header>'
            f'<main><div class="beside"><div class="panel">{self._panel()}</div>'
            f'<div class="parts">{terms}</div></div>{figures}</main><footer>{self._bounds()}</footer>'
            '<p id="said" class="unseen" role="status"></p></div>'
            + embedded("steps", [each.said for each in self.steps])
        )
        return page(self.title, body, styles=styles, scripts=[text("explained.js")])

    def _vary(self, write: Callable[[Step], str | None], tag: str = "span") -> str:
        return by_step([write(step) for step in self.steps], tag)

    def _about(self) -> str:
        """The sentences at the top."""
        most = max(len(step.about) for step in self.steps)
        lines = (
            self._vary(lambda step, k=k: line(step.about[k]) if k < len(step.about) else None)  # type: ignore[misc]
            for k in range(most)
        )
        return "".join(f"<p>{each}</p>" for each in lines)

    def _panel(self) -> str:
        """The choice of step, the choice of what the drawing shows, and the drawing."""
        number = self._vary(lambda step: f"{step.number + 1:,}")
        error = self._vary(lambda step: Notation(9, False).number(step.error), "b")
        picture = drawing.Drawing(self.values, [step.drawn for step in self.steps], self.few, self.labels).svg()
        wide = f'<div class="wide" tabindex="0" role="region" aria-label="Drawing">{picture}</div>'
        return (
            f'<p class="now"><b>Step {number}</b> E<sub>total</sub> = {error}</p>{self._choices()}'
            f'<div class="stuck">{self._slider()}{wide}</div><p class="hint screen">Solid lines are positive weights, '
            "dashed ones negative, thick ones large. Point at a term or at a number, or move with Tab and the arrow "
            f"keys: each lights the other; Enter goes there.</p>{self._names()}"
        )

    def _slider(self) -> str:
        """A slider over the steps, with their errors as a line below it."""
        last = len(self.steps) - 1
        if not last:
            return ""
        return (
            f'<div class="slider screen"><label for="step">Step</label><div><input id="step" type="range" min="0" '
            f'max="{last}" value="0" aria-valuetext="{self.steps[0].said}">{self._chart()}</div></div>'
        )

    def _choices(self) -> str:
        """What the drawing shows: a phase, and one of several samples."""
        phases = "".join(_radio("phase", phase, phase.title()) for phase in PHASES)
        samples = "".join(
            _radio("slot", str(slot), self._vary(lambda step, slot=slot: str(step.samples[slot])))  # type: ignore[misc]
            for slot in range(self.slots)
        )
        one = self.slots == 1
        return (
            f'<div class="choices screen"><fieldset><legend>Numbers</legend>{phases}</fieldset>'
            + ("" if one else f"<fieldset><legend>Sample</legend>{samples}</fieldset>")
            + "</div>"
        )

    def _chart(self) -> str:
        """The errors of all steps as a line."""
        errors = [float(step.error) for step in self.steps]
        low, high = min(errors), max(errors)
        if not high - low < float("inf"):
            return ""
        wide, tall = CHART
        points = [
            f"{wide * k / (len(errors) - 1):.1f} {tall * (high - error) / (high - low or 1):.1f}"
            for k, error in enumerate(errors)
        ]
        dots = by_step(points, "g", lambda point: f'<path class="dot" d="M{point}h0"/>')
        return (
            f'<svg class="chart" viewBox="0 0 {wide} {tall}" aria-hidden="true" preserveAspectRatio="none">'
            f'<path d="M{"L".join(points)}"/>{dots}</svg>'
        )

    def _names(self) -> str:
        """What inputs and outputs are."""
        names = "".join(
            f"<div><dt>{markup(unit)}</dt><dd>{html.escape(name)}</dd></div>" for unit, name in self.labels.items()
        )
        return (
            f'<details class="names"><summary>What the units are</summary><dl>{names}</dl></details>' if names else ""
        )

    def _bounds(self) -> str:
        """What the page leaves out."""
        counts = {"samples": len(self.values["inputs"]), "inputs": len(self.values["inputs"][0])}
        counts |= {f"units of the {layer['name']}": len(layer["units"]) for layer in self.values["layers"]}
        cut = [
            f"{len(self.few(all_))} of {all_:,} {what}" for what, all_ in counts.items() if len(self.few(all_)) < all_
        ]
        if not cut:
            return ""
        return f"<p>The drawing has {', '.join(cut)}. Long lists and sums of terms are cut, and say so.</p>"


def _radio(name: str, value: str, label: str) -> str:
    """A choice; the first one is selected."""
    made = " checked" if value in (PHASES[0], "0") else ""
    return f'<label><input type="radio" name="{name}" value="{value}"{made}><span>{label}</span></label>'
