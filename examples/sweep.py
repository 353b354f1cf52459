"""Learning rate and width: how they go together on the digits.

python examples/sweep.py --out sweep.png: 600 networks of three topologies in one run, in under a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp.search import design


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="sweep.png")
    flags.add_argument("--networks", type=int, default=600)
    flags.add_argument("--epochs", type=int, default=10)
    chosen = flags.parse_args(arguments)

    data = gpubp.load_data("digits")
    widths = ["64,4,10", "64,16,10", "64,64,10"]
    sweep = design({"widths": widths, "lr": "1e-4..1:log"}, chosen.networks, loss=data.loss, epochs=chosen.epochs)
    result = gpubp.train_many(sweep, data.training, data.validation, reporters=[gpubp.ConsoleReporter()])

    table = result.table
    topology = np.array(table["widths"].to_pylist())
    rate, accuracy = table["lr"].to_numpy(), table["validation_accuracy"].to_numpy()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for each in dict.fromkeys(topology):
        here = topology == each
        axes.scatter(rate[here], accuracy[here], s=8, label=each)
    axes.set(xscale="log", xlabel="learning rate", ylabel="accuracy on held-out digits")
    axes.set_title(f"{len(table):,} networks in one run; the best: {accuracy.max():.1%}")
    axes.legend(title="widths")
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
