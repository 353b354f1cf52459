"""The pages of the maths: of every row of a table its formula, its code, its hyper-parameters, source and picture."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpubp.maths.activations import ACTIVATIONS
from gpubp.maths.initialise import INITIALISERS
from gpubp.maths.losses import LOSSES
from gpubp.maths.optimizers import OPTIMIZERS
from gpubp.maths.schedules import SCHEDULES

from . import formulas, pictures
from .formulas import of, tex

ORDERS = {"mean": "mean over the outputs", "sum": "sum over the outputs"}
METRICS = {"r2": "R2", "sign": "accuracy, by the sign of the out", "classes": "accuracy, by the largest out"}


def math(*lines: str) -> str:
    """Equations one below the other."""
    return "\n\n".join(f"$$\n{line}\n$$" for line in lines)


def code(*functions: Callable[..., object] | None) -> str:
    """The functions as they stand in the package."""
    texts = [textwrap.dedent(inspect.getsource(each)).rstrip() for each in functions if each is not None]
    return "```python\n" + "\n\n\n".join(texts) + "\n```"


def words(source: str, note: str) -> str:
    """The note, and who published the rule."""
    return "\n\n".join(filter(None, [note, source and f"Source: {source}."]))


def numbers(defaults: Mapping[str, float]) -> str:
    """Hyper-parameters and their defaults, on a line."""
    shown = ", ".join(f"`{name}` {value:g}" for name, value in defaults.items())
    return f"Hyper-parameters and defaults: {shown}." if shown else ""


def section(name: str, *parts: str) -> str:
    """A rule's part of a page."""
    return "\n\n".join([f"## {name}", *filter(None, parts)])


def page(table: Mapping[str, Any], each: Callable[[str, Any], str]) -> str:
    """The sections of a table."""
    return "\n\n".join(each(name, row) for name, row in table.items())


def activation(name: str, row: Any) -> str:
    """One activation."""
    formula = of(formulas.ACTIVATIONS, name, "activation")
    equations = math(f"f(x) = {tex(formula.value)}", f"f'(x) = {tex(formula.slope)}")
    return section(
        name, equations, words(formula.source, formula.note), pictures.activation(name, row), code(row.value, row.slope)
    )


def loss(name: str, row: Any) -> str:
    """One loss."""
    formula = of(formulas.LOSSES, name, "loss")
    equations = (
        formulas.CROSS_ENTROPY
        if row.classes
        else (f"E = {tex(formula.value)}", rf"\frac{{\partial E}}{{\partial o}} = {tex(formula.slope)}")
    )
    facts = f"Of a sample: {ORDERS[row.outputs]}. The out is a {row.takes}. Metric: {METRICS[row.metric]}."
    return section(
        name, math(*equations), words(formula.source, formula.note), facts, numbers(row.defaults),
        pictures.loss(name, row), code(row.value, row.slope),
    )  # fmt: skip


def optimizer(name: str, row: Any) -> str:
    """One optimizer."""
    said = of(formulas.OPTIMIZERS, name, "optimizer")
    lines = [rf"{tex(left)} \leftarrow {tex(right)}" for left, right in formulas.steps(row)]
    defaults = {"lr": row.lr, **({"weight_decay": row.weight_decay} if row.decoupled else {}), **row.defaults}
    return section(
        name, math(*lines), words(said.source, said.note), numbers(defaults), pictures.optimizer(name, row),
        code(row.prepare, row.direction),
    )  # fmt: skip


def schedule(name: str, row: Any) -> str:
    """One schedule."""
    said = of(formulas.SCHEDULES, name, "schedule")
    equations = [f"{tex(left)} = {tex(right)}" for left, right in reversed(row.formulas.items())]
    whole = "The rate depends on the length T, so a run with it cannot be extended." if row.whole else ""
    return section(
        name, math(*equations), words(said.source, said.note), numbers(row.defaults), whole,
        pictures.schedule(name, row), code(row.rate),
    )  # fmt: skip


def initialisers() -> str:
    """A table of the initialisers."""

    def rows() -> Iterator[str]:
        for name, row in INITIALISERS.items():
            formula = of(formulas.INITIALISERS, name, "initialiser")
            kind = "ones" if row.draw is None else {"uniform": "uniform on -1 to 1"}.get(row.draw.__name__, "normal")
            yield f"| `{name}` | {kind} | ${tex(formula.value)}$ | {row.scale:g} | {formula.note} | {formula.source} |"

    head = "| name | numbers | times | `init_scale` | | source |\n| --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *rows()])


PARTS: dict[str, Callable[[], str]] = {
    "activations": lambda: page(ACTIVATIONS, activation),
    "losses": lambda: page(LOSSES, loss),
    "optimizers": lambda: page(OPTIMIZERS, optimizer),
    "schedules": lambda: page(SCHEDULES, schedule),
    "initialisers": initialisers,
}
