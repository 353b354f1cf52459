"""A page that explains steps of one network: a drawing beside the terms, each with its formula, numbers and result.

It shows the numbers of explain.py in the words of explain_text.py; its script chooses what is seen, and computes
nothing. Of wide layers and large batches the first units, weights and samples are listed, as in the text, unless
`full`; a page of more than LIMIT characters is refused.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..explain import Explanation
from ..explain_notation import Heading, Notation, Term
from ..explain_text import Text
from ..line import line
from ..preparation import Preparation
from ..tutorial import Figure
from . import drawing
from .by_step import attribute, by_step, rules
from .drawn import PHASES, Drawn, drawn
from .formula import TOTAL, markup, places
from .page import embedded, page, text
from .printed import Printed

LIMIT = 10_000_000
MANY = 100  # terms; of more, the parts are folded
CHART = 300, 44  # pixels of the chart of errors

Key = tuple[str, str, str, int]  # part, layer, name of a term, and which of those that have this name


class Step(NamedTuple):
    """What is shown of one step."""

    number: int
    about: list[str]
    terms: dict[Key, Term]
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
    """The page. explanations: of steps that follow each other, one or more. figures: of the tutorial, if it is its
    network. Raises ConfigError if the page were larger than LIMIT."""
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
    about = [each for each in lines if isinstance(each, str)]
    number, before, after = values["step"]["number"], values["error"]["E_total"], values["new_error"]["E_total"]
    said = f"step {number + 1}: E_total {written.number(before)}, after the step {written.number(after)}"
    return Step(number, about, _keyed(lines), drawn(values, few), values["step"]["samples"], before, said)


def _too_large(size: int, steps: int, full: bool) -> ConfigError:
    less = "fewer --steps, or no --full," if full else "fewer --steps"
    shown = f"{steps} steps" if steps > 1 else "one step"
    return ConfigError(f"a page of {shown} has {size / 1e6:.0f} MB, {LIMIT / 1e6:.0f} at most: {less} expected")


def _keyed(lines: Iterable[Heading | Term | str]) -> dict[Key, Term]:
    """The terms under keys that are the same at every step."""
    found: dict[Key, Term] = {}
    part = layer = ""
    seen: Counter[tuple[str, str, str]] = Counter()
    for each in lines:
        if isinstance(each, Heading):
            part, layer = (each.title, "") if each.level == 1 else (part, each.title)
        elif isinstance(each, Term):
            place = part, layer, each.sides[0] if len(each.sides) > 1 else ""
            found[*place, seen[place]] = each
            seen[place] += 1
    return found


def _labels(preparation: Preparation | None) -> dict[str, str]:
    """What inputs and outputs are, by their units."""
    if preparation is None:
        return {}
    inputs: list[str] = []
    for column in preparation.columns:
        each = column.categories
        inputs += [column.name] if each is None else [f"{column.name} = {category}" for category in each]
    targets = [column.name for column in preparation.target_columns]
    if preparation.task != "numbers":
        targets = [str(label) for label in preparation.classes[-len(targets) if preparation.task != "classes" else 0 :]]
    units = {f"i{k + 1}": name for k, name in enumerate(inputs)} | {f"o{k + 1}": name for k, name in enumerate(targets)}
    return {unit: line(name) for unit, name in units.items()}


def _merged(steps: Sequence[Step]) -> list[Key]:
    """The keys of all steps, each after those before it."""
    order = list(steps[0].terms)
    for step in steps[1:]:
        if missing := step.terms.keys() - set(order):
            at = 0
            for key in step.terms:
                if key in missing:
                    order.insert(at, key)
                at = order.index(key) + 1
    return order


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
        self.keys = _merged(steps)

    def html(self) -> str:
        """All of it."""
        styles = [text("explained.css"), rules(len(self.steps)), drawing.rules(self.slots)]
        figures = "" if self.printed is None else self.printed.section()
        body = (
            f'<div id="shown" data-step="0" data-phase="forward" data-slot="0"><header>'
            f"<h1>{html.escape(self.title)}</h1>{self._about()}</header>"
            f'<main><div class="beside"><div class="panel">{self._controls()}{self._drawing()}</div>'
            f'<div class="parts">{"".join(self._parts())}</div></div>{figures}</main><footer>{self._bounds()}</footer>'
            '<p id="said" class="unseen" role="status"></p></div>'
            + embedded("steps", [each.said for each in self.steps])
        )
        return page(self.title, body, styles=styles, scripts=[text("explained.js")])

    def _vary(self, write: Callable[[Step], str | None], tag: str = "span") -> str:
        return by_step([write(step) for step in self.steps], tag)

    def _about(self) -> str:
        """The sentences at the head."""
        most = max(len(step.about) for step in self.steps)
        lines = (
            self._vary(lambda step, k=k: line(step.about[k]) if k < len(step.about) else None)  # type: ignore[misc]
            for k in range(most)
        )
        return "".join(f"<p>{each}</p>" for each in lines)

    def _controls(self) -> str:
        """The slider over steps, and what the drawing shows."""
        last = len(self.steps) - 1
        number = self._vary(lambda step: f"{step.number + 1:,}", "b")
        error = self._vary(lambda step: Notation(9, False).number(step.error), "b")
        phases = "".join(
            f'<label><input type="radio" name="phase" value="{phase}"{" checked" if phase == PHASES[0] else ""}>'
            f"<span>{phase.title()}</span></label>"
            for phase in PHASES
        )
        samples = "".join(
            f'<label><input type="radio" name="slot" value="{slot}"{"" if slot else " checked"}>'
            f"<span>{self._vary(lambda step, slot=slot: str(step.samples[slot]))}</span></label>"  # type: ignore[misc]
            for slot in range(self.slots if self.slots > 1 else 0)
        )
        return (
            (
                f'<div class="slider screen"><label for="step">Step</label>'
                f'<input id="step" type="range" min="0" max="{last}" value="0" aria-valuetext="{self.steps[0].said}">'
                f"</div>{self._chart()}"
                if last
                else ""
            )
            + f'<p class="now">Step {number}: E<sub>total</sub> = {error}</p>'
            f'<div class="choices screen"><fieldset><legend>Numbers</legend>{phases}</fieldset>'
            + (f"<fieldset><legend>Sample</legend>{samples}</fieldset>" if samples else "")
            + "</div>"
        )

    def _chart(self) -> str:
        """The errors of all steps as a line, below the slider."""
        errors = [float(step.error) for step in self.steps]
        low, high = min(errors), max(errors)
        if not high - low < float("inf"):
            return ""
        wide, tall = CHART
        points = [
            (5 + (wide - 10) * k / (len(errors) - 1), 5 + (tall - 10) * (high - error) / (high - low or 1))
            for k, error in enumerate(errors)
        ]
        course = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dots = by_step([f"{x:.1f},{y:.1f}" for x, y in points], "g", _dot)
        return (
            f'<svg class="chart screen" viewBox="0 0 {wide} {tall}" aria-hidden="true" preserveAspectRatio="none">'
            f'<polyline points="{course}"/>{dots}</svg>'
        )

    def _drawing(self) -> str:
        picture = drawing.draw(self.values, [step.drawn for step in self.steps], self.few, self.labels)
        names = "".join(
            f"<div><dt>{markup(unit)}</dt><dd>{html.escape(name)}</dd></div>" for unit, name in self.labels.items()
        )
        return (
            f'<figure><div class="wide" tabindex="0" role="region" aria-label="Drawing">{picture}</div>'
            "<figcaption>Solid lines are positive weights, dashed ones negative, thick ones large. Point at a term or "
            "at a number, or move with Tab and the arrow keys: each lights the other; Enter goes there.</figcaption>"
            "</figure>"
            + (
                f'<details class="names"><summary>What the units are</summary><dl>{names}</dl></details>'
                if names
                else ""
            )
        )

    def _parts(self) -> Iterator[str]:
        """The terms, part by part, and in them layer by layer."""
        folded = len(self.keys) > MANY
        for part, keys in groupby(self.keys, lambda key: key[0]):
            inner = ""
            for layer, terms in groupby(keys, lambda key: key[1]):
                rows = "".join(self._term(key) for key in terms)
                inner += (
                    f"<details{'' if folded else ' open'}><summary><h3>{layer}</h3></summary><ol>{rows}</ol></details>"
                    if layer
                    else f"<ol>{rows}</ol>"
                )
            yield f"<section><h2>{part}</h2>{inner}</section>"

    def _term(self, key: Key) -> str:
        """A term: its name, a line for each side, the result."""
        part, _, name, _ = key
        terms = [step.terms.get(key) for step in self.steps]
        one = next(term for term in terms if term is not None)
        there = attribute([step for step, term in enumerate(terms) if term is not None], len(terms))
        sample = self._vary(lambda step: None if key not in step.terms else f"sample {step.terms[key].sample}")
        sample = "" if one.sample is None else f'<span class="sample">{sample}</span>'
        if not name:
            sentence = by_step([None if term is None else term.sides[0] for term in terms], write=markup)
            return f'<li class="sentence"{there}>{sample}{sentence}</li>'
        own, phase = places(name)[-1:], _phase(part, name)
        uses = [place for place in places(name, *one.sides[1:]) if place not in (*own, TOTAL)]
        sides = "".join(
            f'<span class="side"><i>=</i> {by_step([_side(term, k) for term in terms], write=markup)}</span>'
            for k in range(1, max(len(term.sides) for term in terms if term is not None) - 1)
        )
        result = by_step([None if term is None else term.sides[-1] for term in terms], write=markup)
        printed = "" if self.printed is None else self.printed.beside(name, part == "The New Error")
        return (
            f'<li class="term" tabindex="0" data-own="{" ".join(own)}" data-uses="{" ".join(uses)}" '
            f'data-phase="{phase}" data-slot="{one.slot}"{there}>{sample}<span class="name">{markup(name)}</span>'
            f'{sides}<span class="result"><i>=</i> {result}</span>{printed}</li>'
        )

    def _bounds(self) -> str:
        """What the page leaves out."""
        units = [len(self.values["inputs"][0]), *(len(layer["units"]) for layer in self.values["layers"])]
        counts = {"samples": len(self.values["inputs"])} | {f"units of layer {k}": each for k, each in enumerate(units)}
        cut = [f"{len(self.few(count))} of {count:,} {what}" for what, count in counts.items()
               if len(self.few(count)) < count]  # fmt: skip
        said = f"Drawn: {', '.join(cut)}. Longer lists and sums of terms are cut, and say so." if cut else ""
        return f"<p>{said}</p>" if said else ""


def _side(term: Term | None, k: int) -> str | None:
    """Side `k`, if the term has it before its result."""
    return None if term is None or k > len(term.sides) - 2 else term.sides[k]


def _phase(part: str, name: str) -> str:
    """In which phase the drawing shows the place of a term."""
    if name.endswith("+") or name.startswith("direction_") or part == "The New Error":
        return "update"
    return "backward" if part == "The Backwards Pass" else "forward"


def _dot(at: str) -> str:
    x, y = at.split(",")
    return f'<circle cx="{x}" cy="{y}" r="4"/>'
