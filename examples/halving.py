"""Successive halving on the digits: the worst two thirds stop at each rung.

python examples/halving.py --out halving.png: 243 settings, of which 3 train to the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp.search import SuccessiveHalving, design


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="halving.png")
    flags.add_argument("--networks", type=int, default=243)
    flags.add_argument("--epochs", type=int, default=81)
    chosen = flags.parse_args(arguments)

    data = gpubp.load_data("digits")
    space = {"lr": "1e-4..1:log", "weight_decay": "1e-6..1e-1:log"}
    sweep = design(space, chosen.networks, widths="64,32,10", loss=data.loss, epochs=chosen.epochs)
    result = gpubp.train_many(
        sweep, data.training, data.validation, search=SuccessiveHalving(factor=3), reporters=[gpubp.ConsoleReporter()]
    )

    columns = {name: result.table[name].to_numpy() for name in ("lr", "weight_decay", "rung", "steps")}
    full = columns["steps"].max() * len(result.table)
    best = int(result.ranking()[0])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    dots = axes.scatter(
        columns["lr"], columns["weight_decay"], s=10 + 12 * columns["rung"], c=columns["rung"], cmap="viridis_r"
    )
    axes.plot(columns["lr"][best], columns["weight_decay"][best], "*", color="tab:red", markersize=14, label="best")
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="weight decay")
    axes.set_title(f"{len(result.table)} settings with {result.network_steps / full:.0%} of the steps of a whole sweep")
    figure.colorbar(dots, label="rungs that it passed", ticks=np.unique(columns["rung"]))
    axes.legend()
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
