"""The tutorial's page: its step with every number, its printed figures beside ours, and the errata."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import gpubp
from gpubp import tutorial
from gpubp.explaining.steps import explain
from gpubp.settings.config import ORDERS
from gpubp.state import TrainState

START, ROUNDS = 3, 10_000
PHASES = {"The Forward Pass": "forward", "Calculating the Total Error": "error", "The Backwards Pass": "backward",
          "The New Error": "after"}  # fmt: skip  # headings of the explanation's text


@cache
def step() -> dict[str, str]:
    """The text of the tutorial's first step, by its phase."""
    data = tutorial.dataset()
    state = TrainState.start(tutorial.population(), tutorial.config(), data)
    found: dict[str, list[str]] = {}
    lines: list[str] = []  # those before the first phase
    for line in explain(state, data).text().splitlines():
        if line in PHASES:
            lines = found[PHASES[line]] = []
        else:
            lines.append(line)
    return {name: "\n".join(lines).strip("\n") for name, lines in found.items()}


def phase(name: str) -> str:
    """A part of the step as it is printed."""
    return f"```text\n{step()[name]}\n```"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def printed() -> str:
    """Every figure of the first step beside ours, with one more decimal."""
    rows = []
    for figure in tutorial.compare(START):
        if figure.printed:
            decimals = len(figure.printed.partition(".")[2]) + 1
            ours = [f"{value:.{decimals}f}" for value in (figure.simultaneous, figure.layerwise)]
            rows.append([f"`{figure.name}`", figure.printed, *ours, verdict(figure.matches)])
    return table(["figure", "printed", *ORDERS, "printed digits from"], rows)


def verdict(matches: tuple[str, ...]) -> str:
    """Which orders give the printed digits."""
    return "both" if len(matches) == 2 else matches[0] if matches else "neither"


def after(order: str, rounds: int) -> tuple[float, list[float]]:
    """The error and the outs after so many rounds."""
    data = tutorial.dataset()
    trained = gpubp.train(tutorial.population(), data, tutorial.config(rounds, order)).population
    error = gpubp.backprop.gradients(trained.spec, trained.params, data.inputs, data.targets)[0]
    out: list[float] = gpubp.backprop.forward(trained.spec, trained.params, data.inputs)[0, 0].tolist()
    return float(error), out


def ends() -> dict[str, tuple[float, float]]:
    """The figures after training, of both orders."""
    last = [after(order, ROUNDS) for order in ORDERS]
    before = [after(order, ROUNDS - 1)[0] for order in ORDERS]
    return {
        "E after 10,000 rounds": (last[0][0], last[1][0]),
        "E after 9,999 rounds": (before[0], before[1]),
        "out_o1 after 10,000 rounds": (last[0][1][0], last[1][1][0]),
        "out_o2 after 10,000 rounds": (last[0][1][1], last[1][1][1]),
    }


def trained() -> str:
    """The figures after 10,000 rounds beside the printed ones."""
    rows: list[list[str]] = []
    for name, values in ends().items():
        shown = tutorial.PRINTED[tutorial.ERRATA.get(name, name)]
        decimals = len(shown.partition(".")[2]) + 3
        matches: Any = tuple(order for order, value in zip(ORDERS, values) if tutorial.agrees(value, shown))
        rows.append([name, shown, *(f"{value:.{decimals}f}" for value in values), verdict(matches)])
    return table(["figure", "printed", *ORDERS, "printed digits from"], rows)


PARTS: dict[str, Callable[[], str]] = {
    **{f"tutorial {name}": lambda name=name: phase(name) for name in PHASES.values()},
    "tutorial figures": printed,
    "tutorial trained": trained,
}
