"""One model per entity: the width of a petal by its length, a network per species of iris beside one for all.

python examples/entities.py --out entities.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_iris

import gpubp


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="entities.png")
    flags.add_argument("--epochs", type=int, default=500)
    chosen = flags.parse_args(arguments)

    iris = load_iris()
    length, width, species = iris.data[:, 2], iris.data[:, 3], iris.target_names[iris.target]
    center, scale = length.mean(), length.std()
    data = gpubp.Dataset((length[:, None] - center) / scale, width[:, None])
    spec = gpubp.NetworkSpec(widths=(1, 8, 1), hidden="tanh", loss="mean_squared_error")
    config = gpubp.TrainConfig(lr=0.01, batch_size=10, epochs=chosen.epochs, patience=20, restore_best=True)

    def trained(keys: Sequence[str]) -> gpubp.Result:
        """A network for each key, on its samples, stopped by some that are held out."""
        training, validation = data.by(keys).split(0.2)
        population = gpubp.Population.create(spec, count=training.networks)
        return gpubp.train(population, training, config, validation)

    def predicted(result: gpubp.Result, row: int, at: np.ndarray) -> np.ndarray:
        inputs = torch.as_tensor((at[:, None] - center) / scale, dtype=torch.float32)
        with torch.no_grad():
            return result.network(row)(inputs)[:, 0].numpy()

    apart, together = trained(species), trained(["all"] * len(species))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    errors = []
    for row, name in enumerate(iris.target_names):  # in ascending order, as the entities are
        here = species == name
        axes.plot(length[here], width[here], ".", color=f"C{row}", markersize=5)
        grid = np.linspace(length[here].min(), length[here].max(), 50)
        axes.plot(grid, predicted(apart, row, grid), color=f"C{row}", label=name)
        errors.append((predicted(apart, row, length[here]) - width[here]) ** 2)
    grid = np.linspace(length.min(), length.max(), 100)
    axes.plot(grid, predicted(together, 0, grid), color="0.4", linestyle="--", label="one for all")
    error = ((predicted(together, 0, length) - width) ** 2).mean()
    axes.set(xlabel="length of a petal (cm)", ylabel="width (cm)")
    each = np.concatenate(errors).mean()
    axes.set_title(f"mean squared error: {each:.4f} with a network per species, {error:.4f} with one for all")
    axes.legend()
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
