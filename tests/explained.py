"""Pages that explain steps, and what a reader sees of them at a step."""

import math
import re
from functools import cache
from html.parser import HTMLParser
from itertools import islice
from typing import Any

import gpubp
from gpubp import tutorial
from gpubp.explaining.notation import Term
from gpubp.explaining.steps import Explanation, explain_steps
from gpubp.explaining.text import Text
from gpubp.pages.explained import explained
from gpubp.raw.columns import Column
from gpubp.raw.preparation import Preparation
from gpubp.state import TrainState

from .helpers import population, samples, start

SPEC = gpubp.NetworkSpec((3, 4, 2), "tanh")
SETTINGS = {"optimizer": "sgd", "lr": 0.1, "batch_size": 2, "steps": 6}
STEPS = 3
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202e\n"


class Parts(HTMLParser):
    """The tags and texts of a page, in order, by what handles them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Any]] = []
        self.handle_starttag = lambda *given: self.found.append(("starts", given))
        self.handle_startendtag = lambda *given: self.found.append(("is_empty", given))
        self.handle_endtag = lambda *given: self.found.append(("ends", given))
        self.handle_data = lambda *given: self.found.append(("says", given))
        self.feed(page)


@cache
def parts(page: str) -> list[tuple[str, Any]]:
    return Parts(page).found


class Reader:
    """What a page shows at one step: the text of each list item, its sample, and all tags and attributes."""

    def __init__(self, page: str, step: int = 0) -> None:
        self.step, self.open, self.items = str(step), [], []
        self.tags: set[str] = set()
        self.names: set[str] = set()
        for handler, given in parts(page):
            getattr(self, handler)(*given)
        assert not self.open

    def starts(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.add(tag)
        self.names |= given.keys()
        if tag in ("meta", "input"):
            return
        shown = "data-s" not in given or self.step in (given["data-s"] or "").split()
        kind = next((each for each in ("sample", "printed") if each in (given.get("class") or "").split()), "")
        above = self.open[-1][1:] if self.open else (True, "")
        self.open.append((tag, above[0] and shown, above[1] or kind))
        if tag == "li" and self.open[-1][1]:
            self.items.append({"": "", "sample": "", "printed": ""})

    def is_empty(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= dict(attributes).keys()

    def ends(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def says(self, data: str) -> None:
        if self.open and self.open[-1][1] and any(tag == "li" for tag, *_ in self.open):
            self.items[-1][self.open[-1][2]] += data


MEANT = {"e": math.e, "pi": math.pi, "ln": math.log, "sqrt": math.sqrt, "cos": math.cos, "floor": math.floor,
         "max": max, "min": min, "sign": lambda x: (x > 0) - (x < 0)}  # fmt: skip


def value(side: str) -> float | None:
    """The value of a side of a term if it has numbers and no names."""
    if not re.fullmatch(rf"(?:[-+*/()^., \d]|\b(?:{'|'.join(MEANT)})\b|\de[-+]\d)+", side):
        return None
    return float(eval(side.replace("^", "**"), {**MEANT}))


def bare(text: str) -> str:
    """A formula of the text or of the page without what tells them apart."""
    for sign, letter in (("∂", "d"), ("×", "*"), ("−", "-"), ("√", "sqrt")):
        text = text.replace(sign, letter)
    return re.sub(r"[_^\s]", "", text)


def same_terms(explanations: list[Explanation], page: str, full: bool = False) -> None:
    """At each step the page shows the terms of the text, each with its sides and its sample."""
    for step, explanation in enumerate(explanations):
        terms = [each for each in Text(explanation.to_dict(), full).lines() if isinstance(each, Term)]
        shown = Reader(page, step).items[: len(terms)]
        assert [bare(each[""]) for each in shown] == [bare("=".join(each.sides)) for each in terms]
        samples = ["" if each.sample is None else f"sample {each.sample}" for each in terms]
        assert [each["sample"] for each in shown] == samples


def made(spec: gpubp.NetworkSpec = SPEC, steps: int = 2, full: bool = False, **settings: Any) -> str:
    """A page of some steps, compared with their text."""
    data = gpubp.Dataset(*samples(spec, 11))
    state = start(population(spec, 2), data, **{**SETTINGS, **settings})
    explanations = list(islice(explain_steps(state, data, 1), steps))
    page = explained(explanations, "Network 1", full=full)
    same_terms(explanations, page, full)
    return page


def tutorials(steps: int = 1, order: str = "simultaneous") -> list[Explanation]:
    state = TrainState.start(tutorial.population(), tutorial.config(update_order=order), tutorial.dataset())
    return list(islice(explain_steps(state, tutorial.dataset()), steps))


@cache
def of_tutorial() -> str:
    """The page of `gpubp explain --html` for the tutorial's network, of STEPS steps."""
    return explained(tutorials(STEPS), "The tutorial's network, step by step", figures=tutorial.compare())


@cache
def of_deep() -> str:
    """The page of a network with two hidden layers, whose drawing is wide."""
    return made(gpubp.NetworkSpec((13, 5, 4, 3), "tanh", loss="cross_entropy"), 2, batch_size=1)


@cache
def of_large() -> str:
    """The page of a network that is too large to be shown whole."""
    return made(gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy"), 2, optimizer="adam", batch_size=10)


@cache
def hostile() -> str:
    """A page with names that try to become markup."""
    spec = gpubp.NetworkSpec((2, 2, 2), loss="cross_entropy")
    columns = Column(HOSTILE), Column("second", categories=(HOSTILE,))
    preparation = Preparation(columns, (Column("target" + HOSTILE),), "classes", (HOSTILE, "b"))
    data = gpubp.Dataset(*samples(spec, 4), preparation=preparation)
    state = start(population(spec, 1), data, **SETTINGS)
    return explained(islice(explain_steps(state, data), 2), HOSTILE, preparation)
