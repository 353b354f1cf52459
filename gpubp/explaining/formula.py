"""Formulas that rules' rows have beside their code, written with names or numbers; those of a step are computed.

A formula is an expression of Python, with the FUNCTIONS and Piecewise((value, condition), ..., (value, True)).
"""

import ast
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..maths.optimizers import Optimizer
from ..maths.schedules import Schedule

FUNCTIONS: dict[str, Any] = {
    "sqrt": math.sqrt, "cos": math.cos, "floor": math.floor, "min": min, "max": max, "pi": math.pi,
}  # fmt: skip
WARM = {  # the factor of a warm-up, and what replaces step and total in a schedule
    "warm": "warmup_start + (1 - warmup_start)*min(step/warmup, 1)",
    "after": "max(step - warmup, 0)",
    "left": "total - warmup",
}
KEEP = "keep"  # the factor that decoupled weight decay leaves to a parameter
NAME = re.compile(r"\b([A-Za-z]\w*)(\^?)")


def written(formula: str, known: Mapping[str, str]) -> str:
    """The formula in the text's notation, with known values in place of names, in brackets if a power would be
    ambiguous."""

    def filled(name: re.Match[str]) -> str:
        text = known.get(name[1], name[1])
        return f"({text})^" if name[2] and re.search("^-|/", text) else text + name[2]

    return NAME.sub(filled, _spaced(formula))


@cache
def _spaced(formula: str) -> str:
    return ast.unparse(ast.parse(formula)).replace(" ** ", "^")


def of_step(
    schedule: Schedule, rule: Optimizer, values: Mapping[str, float], results: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """The formula and value of each number that all parameters share in a step: of the schedule, of what the optimizer
    prepares, and of decoupled decay. values: hyper-parameters, columns, step and total. results: known results; others
    are computed. A learning rate that does not change has no formula."""
    known, made = {**values}, dict(schedule.formulas)
    if values.get("warmup"):
        made = {name: _renamed(text, step="after", total="left") for name, text in made.items()}
        made |= {"scheduled": f"({made['scheduled']})*warm"} if made else {}
        used = set(re.findall(r"\w+", " ".join(made.values())))
        made = {name: text for name, text in WARM.items() if name in {*used, "warm"}} | made
    lr = "scheduled"
    if made.get(lr) == "lr":
        lr = made.pop(lr)
    made |= {
        name: _renamed(text, lr=lr) for name, text in rule.formulas.items() if name not in (*rule.slots, "direction")
    }
    if rule.decoupled and "weight_decay" in values:
        made[KEEP] = f"1 - {lr}*weight_decay"
    found: dict[str, dict[str, Any]] = {}
    for name, text in made.items():
        chosen = _Chosen(known).visit(ast.parse(text, mode="eval").body)
        known[name] = results[name] if name in results else _computed(chosen, known)
        found[name] = {"formula": ast.unparse(chosen), "value": known[name]}
    return found


def _renamed(formula: str, **others: str) -> str:
    """The formula with other names."""
    return re.sub(rf"\b({'|'.join(others)})\b", lambda name: others[name[1]], formula)


def _computed(formula: ast.expr, known: Mapping[str, float]) -> Any:
    return eval(compile(ast.Expression(formula), "formula", "eval"), {**FUNCTIONS, **known})


class _Chosen(ast.NodeTransformer):
    """Replaces each Piecewise by its value with the first condition that holds."""

    def __init__(self, known: Mapping[str, float]) -> None:
        self.known = known

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) != "Piecewise":
            return self.generic_visit(node)
        pairs = (each.elts for each in node.args if isinstance(each, ast.Tuple))
        return next(value for value, holds in pairs if _computed(holds, self.known))
