"""Pictures of rules as SVG that stands in a page: text stays text, and the colours suit a light and a dark page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gpubp.maths import optimizers, schedules
from gpubp.maths.activations import Activation
from gpubp.maths.losses import Loss
from gpubp.maths.optimizers import Optimizer
from gpubp.maths.schedules import Schedule

BLUE, ORANGE, GREY = "#2f81c7", "#d9752b", "#8a8f98"
STYLE = {
    "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "axes.grid": True, "grid.color": GREY,
    "grid.alpha": 0.25, "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "text.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip
POINTS = 201
VALLEY = 1.0, 12.0  # the curvature along both axes of the valley that optimizers go down
RATES = {"sgd": 0.12, "momentum": 0.02, "nesterov": 0.02, "adagrad": 0.5, "rmsprop": 0.06, "adadelta": 30.0,
         "lion": 0.06}  # fmt: skip  # at which the path shows what is special; 0.15 for the others
STEPS = 40
SHOWN = {  # hyper-parameters of schedules whose defaults are for longer trainings than the picture's
    "step": {"step_size": 250.0, "gamma": 0.5}, "exponential": {"gamma": 0.997}, "inverse_sqrt": {"timescale": 100.0},
}  # fmt: skip
TOTAL = 1000  # steps of the picture of a schedule


def svg(label: str, curves: Mapping[str, tuple[Any, Any]], axes: tuple[str, str], draw: Any = None) -> str:
    """A picture of curves by name: x and y of each. `draw` may add to its axes. label: for those who cannot see it."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=(4.6, 2.6))
        FigureCanvasSVG(figure)
        place = figure.add_axes((0.15, 0.17, 0.83, 0.8))
        for colour, (name, (x, y)) in zip((BLUE, ORANGE), curves.items()):
            place.plot(x, y, color=colour, label=name)
        place.set(xlabel=axes[0], ylabel=axes[1])
        if draw:
            draw(place)
        if len(curves) > 1:
            place.legend()
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"\n\s*", " ", text).strip()  # a blank line would end the HTML of a page in Markdown
    return text.replace("<svg ", f'<svg class="rule" role="img" aria-label="{escape(label)}" ', 1)


def activation(name: str, rule: Activation) -> str:
    """Value and slope."""
    net = torch.linspace(-4, 4, POINTS, dtype=torch.float64)
    out = rule.value(net)
    curves = {"out": (net, out), "slope": (net, rule.slope(net, out))}
    return svg(f"{name} and its slope from -4 to 4", curves, ("net", ""))


def loss(name: str, rule: Loss) -> str:
    """Error and slope by the out, for one target."""
    out = torch.linspace(-3, 3, POINTS, dtype=torch.float64)
    if rule.classes:
        outs = torch.stack((out, torch.zeros_like(out), torch.zeros_like(out)), 1)
        error, slopes = rule.value(outs, torch.zeros(POINTS, dtype=torch.int64))
        slope, target = slopes[:, 0], "class 1 of 3; the other outs are 0"
        axes = "out of class 1", ""
    else:
        number = {"hinge": 1.0, "binary_cross_entropy": 1.0, "poisson": 2.0}.get(name, 0.0)
        given = {each: torch.tensor(0.8 if each == "quantile" else value) for each, value in rule.defaults.items()}
        aim = torch.full_like(out, number)
        assert rule.slope is not None
        error, slope = rule.value(out, aim, **given), rule.slope(out, aim, **given)
        target = ", ".join([f"target {number:g}", *(f"{each} {float(value):g}" for each, value in given.items())])
        axes = "out", ""
    curves = {f"error, {target}": (out, error), "slope": (out, slope)}
    return svg(f"{name} and its slope by the out, {target}", curves, axes)


def path(rule: Optimizer, lr: float, start: Sequence[float]) -> np.ndarray[Any, Any]:
    """The places (STEPS + 1, 2) of one network of two weights on its way down the valley."""
    place = torch.tensor([start], dtype=torch.float64)
    slots = [torch.zeros_like(place) for _ in rule.slots]
    columns = {name: torch.ones(1, 1, dtype=torch.float64) for name in rule.columns}
    hyper = {name: torch.full((1, 1), value, dtype=torch.float64) for name, value in rule.defaults.items()}
    places = [place.clone()]
    for _ in range(STEPS):
        gradient = place * torch.tensor(VALLEY, dtype=torch.float64)
        rates, after = optimizers.rates(rule, hyper, columns, torch.full((1, 1), lr).double(), torch.float64)
        slots, columns = optimizers.update(rule, place, gradient, slots, rates), columns | after
        places.append(place.clone())
    return torch.cat(places).numpy()


def optimizer(name: str, rule: Optimizer) -> str:
    """The way down a valley that is steeper across than along."""
    lr = RATES.get(name, 0.15)
    places = path(rule, lr, (-2.5, 1.0))

    def valley(axes: Any) -> None:
        x, y = np.meshgrid(np.linspace(-3, 1.5, 60), np.linspace(-1.4, 1.4, 60))
        levels = np.array([0.02, 0.1, 0.3, 0.8, 1.8, 3.5, 6, 10])
        axes.contour(x, y, (VALLEY[0] * x**2 + VALLEY[1] * y**2) / 2, levels, colors=GREY, alpha=0.35, linewidths=0.8)
        axes.plot(*places.T, ".", color=BLUE, markersize=4)
        axes.plot(0, 0, "+", color=ORANGE)
        axes.grid(visible=False)
        axes.set(xlim=(-3, 1.5), ylim=(-1.4, 1.4))

    label = f"{STEPS} steps of {name} down a valley, lr = {lr:g}"
    return svg(label, {name: (places[:, 0], places[:, 1])}, ("first weight", "second weight"), valley)


def schedule(name: str, rule: Schedule) -> str:
    """The rate over the steps of a training."""
    step = torch.arange(TOTAL, dtype=torch.float64)[:, None]
    given = rule.defaults | SHOWN.get(name, {})
    columns = {each: torch.full_like(step, float(value)) for each, value in given.items()} | {
        "lr": torch.full_like(step, 0.1)
    }
    if rule.events:
        columns["scale"] = 0.1 ** torch.floor(step / 400)
    rate = schedules.scheduled(rule, columns, step, torch.full_like(step, TOTAL))
    return svg(
        f"learning rate of {name} over {TOTAL} steps", {name: (step[:, 0], rate[:, 0])}, ("step", "learning rate")
    )
