"""The terms of steps as HTML lists, part by part and, within parts, layer by layer: each with its formula, the formula
with numbers, and the result, at every step.

A term names the places of the network that it is about (data-own) and that it uses (data-uses), and the phase and
sample in which the drawing shows them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from ..explaining.notation import Heading, Term
from .by_step import attribute, by_step
from .formula import TOTAL, markup, places

UPDATE = "The Learning Rate", "The New Error"
NEW = UPDATE[-1]
MANY = 100  # terms; with more, the layers are folded

Key = tuple[str, str, str, int]  # part, layer, a term's name, and its number among terms of this name
Terms = dict[Key, Term]


def keyed(lines: Iterable[Heading | Term | str]) -> Terms:
    """The terms among the lines of a step, under keys that are the same at every step."""
    found: Terms = {}
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


def merged(steps: Sequence[Terms]) -> list[Key]:
    """The keys of all steps, each after those before it."""
    order = list(steps[0])
    for terms in steps[1:]:
        if missing := terms.keys() - set(order):
            at = 0
            for key in terms:
                if key in missing:
                    order.insert(at, key)
                at = order.index(key) + 1
    return order


def parts(steps: Sequence[Terms], printed: Callable[[str, bool], str]) -> Iterator[str]:
    """The parts of the page. printed: what to show beside a term of the first step, from its name and whether it is
    about the new error."""
    order = merged(steps)
    folded = "" if len(order) > MANY else " open"
    for part, keys in groupby(order, lambda key: key[0]):
        inner = ""
        for layer, those in groupby(keys, lambda key: key[1]):
            rows = f"<ol>{''.join(_list(list(those), steps, printed))}</ol>"
            inner += f"<details{folded}><summary><h3>{layer}</h3></summary>{rows}</details>" if layer else rows
        yield f"<section><h2>{part}</h2>{inner}</section>"


def _list(keys: Sequence[Key], steps: Sequence[Terms], printed: Callable[[str, bool], str]) -> Iterator[str]:
    before: list[str] = []
    for key in keys:
        part, _, name, _ = key
        terms = [found.get(key) for found in steps]
        own = places(name)[-1:]
        if name:
            first = " first" if own != before else ""
            yield f"{_term(name, part, own, terms, first)}{printed(name, part == NEW)}</li>"
        else:
            yield f'<li class="sentence"{_there(terms)}>{_sample(terms)}{_side(terms, 0)}</li>'
        before = own


def _term(name: str, part: str, own: Sequence[str], terms: Sequence[Term | None], first: str) -> str:
    """A term without its end."""
    one = next(term for term in terms if term is not None)
    uses = [place for place in places(name, *one.sides[1:]) if place not in (*own, TOTAL)]
    middle = range(1, max(len(term.sides) for term in terms if term is not None) - 1)
    sides = "".join(f'<span class="side"{_there(terms, k + 1)}><i>=</i> {_side(terms, k)}</span>' for k in middle)
    return (
        f'<li class="term{first}" tabindex="0" data-own="{" ".join(own)}" data-uses="{" ".join(uses)}" '
        f'data-phase="{_phase(part, name)}" data-slot="{one.slot}"{_there(terms)}><span class="name">{markup(name)}'
        f'</span>{_sample(terms)}{sides}<span class="result"><i>=</i> {_side(terms, -1)}</span>'
    )


def _side(terms: Sequence[Term | None], k: int) -> str:
    """Side `k` of the terms, from the end if negative, for terms that have it as a side other than the last."""
    sides = [None if term is None or 0 < len(term.sides) - 1 <= k else term.sides[k] for term in terms]
    return by_step(sides, write=markup)


def _there(terms: Sequence[Term | None], sides: int = 0) -> str:
    """The attribute of an element that shows at the steps whose term has more than `sides` sides."""
    return attribute([step for step, term in enumerate(terms) if term and len(term.sides) > sides], len(terms))


def _sample(terms: Sequence[Term | None]) -> str:
    samples = [None if term is None or term.sample is None else f"sample {term.sample}" for term in terms]
    return f'<span class="sample">{by_step(samples)}</span>' if any(samples) else ""


def _phase(part: str, name: str) -> str:
    """The phase in which the drawing shows what a term is about."""
    if name.endswith("+") or name.startswith("direction_") or part in UPDATE:
        return "update"
    return "backward" if part == "The Backwards Pass" else "forward"
