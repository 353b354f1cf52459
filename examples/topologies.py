"""Which topology? Chosen by cross-validation on diabetes, every network stopping for itself.

python examples/topologies.py --out topologies.png: 5 topologies, 5 folds, 10 seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import gpubp

HIDDEN = ("2", "8", "32", "8,8", "32,32")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, draw, write."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--out", default="topologies.png")
    flags.add_argument("--topologies", type=int, default=len(HIDDEN))
    flags.add_argument("--seeds", type=int, default=10)
    flags.add_argument("--epochs", type=int, default=100)
    chosen = flags.parse_args(arguments)

    data = gpubp.load_data("diabetes", folds=5, scale_targets="standard")
    hidden = HIDDEN[: chosen.topologies]
    design = [
        {"widths": f"{data.widths_in},{each},{data.widths_out}", "fold": fold, "seed": seed}
        for each in hidden for fold in range(5) for seed in range(chosen.seeds)
    ]  # fmt: skip
    result = gpubp.train_many(
        design, data.training, data.validation, loss=data.loss, lr=0.01, epochs=chosen.epochs, evaluate_every=5,
        patience=3, restore_best=True, reporters=[gpubp.ConsoleReporter()],
    )  # fmt: skip

    loss = result.table["validation_loss"].to_numpy().reshape(len(hidden), 5, chosen.seeds)
    folds = loss.mean(2)  # of the seeds
    mean, error = folds.mean(1), folds.std(1, ddof=1) / np.sqrt(5)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(len(hidden)), loss.reshape(len(hidden), -1), ".", color="0.75", markersize=3)
    axes.errorbar(np.arange(len(hidden)), mean, error, fmt="o", capsize=4)
    axes.set_xticks(np.arange(len(hidden)), hidden)
    axes.set(xlabel="hidden widths", ylabel="loss on held-out folds (targets scaled)")
    axes.set_title(f"{loss.size:,} networks; mean and standard error over 5 folds; best: {hidden[int(mean.argmin())]}")
    figure.savefig(chosen.out, dpi=150)


if __name__ == "__main__":
    main()
