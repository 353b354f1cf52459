"""How much of a result is luck? The same network from many seeds, with two optimizers, on breast cancer.

python examples/seeds.py --out seeds.png: 1,000 networks; the bands are 95 % bootstrap intervals of the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import gpubp
from gpubp.studies import bootstrap


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="seeds.png")
    flags.add_argument("--networks", type=int, default=500, help="of each optimizer, from the same seeds")
    flags.add_argument("--epochs", type=int, default=20)
    chosen = flags.parse_args(arguments)

    data = gpubp.load_data("breast_cancer")
    rates = {"adam": 0.003, "sgd": 0.1}
    design = [
        {"optimizer": name, "lr": lr, "seed": seed} for name, lr in rates.items() for seed in range(chosen.networks)
    ]
    widths = f"{data.widths_in},16,{data.widths_out}"
    result = gpubp.train_many(
        design, data.training, data.validation, widths=widths, loss=data.loss, epochs=chosen.epochs,
        reporters=[gpubp.ConsoleReporter()],
    )  # fmt: skip

    optimizer = np.array(result.table["optimizer"].to_pylist())
    loss = result.table["validation_loss"].to_numpy()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(loss.min(), np.quantile(loss, 0.99), 50)
    for name, colour in zip(rates, ("tab:blue", "tab:orange")):
        losses = loss[optimizer == name]
        axes.hist(losses, edges, alpha=0.5, color=colour, label=f"{name}, lr {rates[name]:g}")
        low, high = bootstrap(losses)["mean_interval"]
        axes.axvspan(low, high, color=colour, alpha=0.6)
    axes.set(xlabel="loss on held-out samples", ylabel="networks")
    axes.set_title(f"{len(loss):,} networks, two optimizers from the same seeds; bands: 95 % intervals of the mean")
    axes.legend()
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
