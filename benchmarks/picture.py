"""The README's picture: a population on the digits. python -m benchmarks.picture docs/population.png"""

import sys

import matplotlib as mpl
import torch

import gpubp
from gpubp.samples import sources

mpl.use("Agg")
import matplotlib.pyplot as plt


def main(path: str) -> None:
    prepared = sources.load_data("digits")
    spec = gpubp.NetworkSpec((64, 32, 10), loss="cross_entropy")
    count = 1000
    rates = torch.logspace(-4, 0, count, dtype=torch.float64)
    config = gpubp.TrainConfig(optimizer="adam", lr=rates, batch_size=64, epochs=20)
    population = gpubp.Population.create(spec, count)
    result = gpubp.train(population, prepared.training, config, validation=prepared.validation)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    steps = [record["step"] for record in result.history]
    for low, high, shade in (("min", "max", 0.12), ("q10", "q90", 0.2), ("q25", "q75", 0.3)):
        bands = ([record["validation_loss"][name] for record in result.history] for name in (low, high))
        left.fill_between(steps, *bands, alpha=shade, color="tab:blue", lw=0, label=f"{low} to {high}")
    left.plot(
        steps, [record["validation_loss"]["median"] for record in result.history], color="tab:blue", label="median"
    )
    left.set(xlabel="training step", ylabel="validation loss", yscale="log", title=f"{count:,} networks in one batch")
    left.legend(loc="lower left", fontsize="small", framealpha=0.6)
    assert result.validation_metric is not None
    right.scatter(rates, result.validation_metric, s=4, color="tab:orange")
    right.set(
        xlabel="learning rate", ylabel="validation accuracy", xscale="log", title="each with its own learning rate"
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
