"""A deep ensemble knows where it has seen nothing: progression of diabetes by body mass index.

python examples/ensemble.py --out ensemble.png: 100 networks, each on a bootstrap of the samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes

import gpubp


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="ensemble.png")
    flags.add_argument("--networks", type=int, default=100)
    flags.add_argument("--epochs", type=int, default=100)
    chosen = flags.parse_args(arguments)

    inputs, progression = load_diabetes(return_X_y=True, scaled=False)
    index = inputs[:, 2]  # body mass index
    center, scale = index.mean(), index.std()
    data = gpubp.Dataset(
        (index[:, None] - center) / scale, ((progression - progression.mean()) / progression.std())[:, None]
    )
    design = [{"fold": network} for network in range(chosen.networks)]
    result = gpubp.train_many(
        design, *data.bootstrap(chosen.networks), widths="1,32,32,1", hidden="tanh", loss="mean_squared_error", lr=0.01,
        epochs=chosen.epochs, reporters=[gpubp.ConsoleReporter()],
    )  # fmt: skip

    ensemble = result.ensemble()
    grid = np.linspace(index.min() - 12, index.max() + 12, 200)
    scaled = (grid[:, None] - center) / scale
    mean, std = (each * progression.std() for each in (ensemble.predict(scaled)[:, 0], ensemble.std(scaled)[:, 0]))
    mean = mean + progression.mean()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(index, progression, ".", color="0.6", markersize=4, label=f"{len(index)} patients")
    axes.plot(grid, mean, label="mean of the ensemble")
    axes.fill_between(grid, mean - 2 * std, mean + 2 * std, alpha=0.25, label="two standard deviations of the networks")
    axes.set(xlabel="body mass index", ylabel="progression after a year", ylim=(0, 400))
    axes.set_title(f"{chosen.networks} networks differ most where there are few patients, or none")
    axes.legend()
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
