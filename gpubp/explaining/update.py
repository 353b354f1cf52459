"""The text of an update: the step's learning rate, the gradient that the optimizer takes, slots, direction, new weight.

Formulas are those of the rules' rows, which steps.py recorded beside their results; a rule without any has only names.
"""

from collections.abc import Callable, Iterator
from typing import Any

from .formula import KEEP, written
from .notation import Heading, Notation, Term

Known = dict[str, tuple[str, str]]  # for a name in a formula: its text and its number


class Update(Notation):
    """The lines of an update. step: the values of the step."""

    def __init__(self, step: dict[str, Any], digits: int, full: bool) -> None:
        super().__init__(digits, full)
        self.step = step
        self.known: Known = {}  # what all parameters share, after rates()

    @staticmethod
    def sides(formula: str, known: Known) -> tuple[str, str]:
        """A formula with names, and with numbers."""
        names, numbers = ({name: each[k] for name, each in known.items()} for k in (0, 1))
        return written(formula, names), written(formula, numbers)

    def rates(self) -> Iterator[Heading | Term]:
        """What all parameters share in the step: the scheduled learning rate, and what the optimizer makes from it."""
        step, n = self.step, self.number
        given = {**step["hyper"], **step["columns"], **step["memory"]}
        given |= {"step": step["number"], "total": step["total"], "scheduled": step["lr"]}
        self.known = {name: (name, n(value)) for name, value in given.items() if not isinstance(value, list)}
        if step["rates"]:
            yield Heading("The Learning Rate")
        if "scheduled" in step["rates"]:
            number, total = n(step["number"]), n(step["total"])
            yield self.term(f"The schedule counts steps from 0: this is step {number} of {total}.")
        for name, each in step["rates"].items():
            shown, value = name + "+" * (name in step["columns"]), n(each["value"])
            yield self.term(shown, *self.sides(each["formula"], self.known), value)
            self.known[name] = shown, value

    def clipped_norm(self) -> Iterator[Term]:
        """The factor on every gradient, if the norm is limited."""
        if "clip" in self.step:
            norm, factor, n = self.step["norm"], self.step["clip"], self.number
            yield self.term("norm", "the norm of the whole gradient", n(norm))
            known = {"norm": ("norm", n(norm)), "limit": ("clip_norm", n(self.step["hyper"]["clip_norm"]))}
            yield self.term("clip", *self.sides("min(limit / (norm + 1e-06), 1)", known), n(factor))

    def update(self, kind: str, part: dict[str, Any], name: str, pick: Callable[[Any], float]) -> Iterator[Term]:
        """The optimizer's update from a gradient."""
        step, n = self.step, self.number

        def number(key: str) -> str:
            return n(pick(part[key]))

        slope, value, grad = f"dE_total/d{name}", number("value"), number("grad")
        changed = self.changed(kind, slope, name)
        if changed != slope:
            yield self.term(f"grad_{name}", changed, self.changed(kind, number("dE"), value), grad)
            slope = f"grad_{name}"
        known = {**self.known, "g": (slope, grad), "direction": (f"direction_{name}", number("direction"))}
        if step["formulas"]:
            known |= {slot: (f"{slot}_{name}", n(pick(rows))) for slot, rows in part["slots"].items()}
            for each, formula in step["formulas"].items():
                if formula == "g":
                    known[each] = known["g"]
                    continue
                rows = part["direction"] if each == "direction" else part["new_slots"][each]
                shown = f"{each}_{name}" + ("" if each == "direction" else "+"), n(pick(rows))
                yield self.term(shown[0], *self.sides(formula, known), shown[1])
                known[each] = shown
        else:
            for slot, rows in part["slots"].items():
                yield self.term(f"{slot}_{name}+", f"{n(pick(part['new_slots'][slot]))} (before: {n(pick(rows))})")
            slots = "".join(f", {slot}_{name}+" for slot in part["slots"])
            yield self.term(f"direction_{name}", f"{step['optimizer']}({slope}{slots})", number("direction"))
        rate, way = self.rate, known["direction"]
        keep = self.known[KEEP] if KEEP in step["rates"] else None
        sides = (
            f"{keep[k]} * {old} - {rate[k]} * {way[k]}" if keep else f"{old} - {rate[k]} * {way[k]}"
            for k, old in enumerate((name, value))
        )
        yield self.term(f"{name}+", *sides, number("new"))

    def changed(self, kind: str, slope: str, param: str) -> str:
        """The gradient with penalties, limits and coupled decay."""
        step, hyper, n = self.step, self.step["hyper"], self.number
        text = slope
        for each, form in (("l2", param), ("l1", f"sign({param})")):
            if kind == "weight" and each in hyper:
                text += f" + {n(hyper[each])} * {form}"
        if "clip_value" in hyper:
            limit = n(hyper["clip_value"])
            text = f"max(-{limit}, min({text}, {limit}))"
        if "clip" in step and step["clip"] != 1:
            text = f"{n(step['clip'])} * {text}" if "clip_value" in hyper else self.times(step["clip"], text)
        if step["decay"] is not None and not step["decoupled"]:
            text += f" + {n(step['decay'])} * {param}"
        return text

    @property
    def rate(self) -> tuple[str, str]:
        """The direction's factor: its name, if it has a formula."""
        named = [name for name in ("rate", "scheduled") if name in self.step["rates"] and self.step["formulas"]]
        number = self.number(self.step["rate"])
        return (named[0] if named else number), number
