"""What TensorBoard's reporter adds to a run: python -m benchmarks.reporters [--networks N ...] [--widths 2,2,2]
[--data digits] [--epochs E] [--batch B] [--rounds R]. An evaluation after every epoch, on 64 made-up samples or data by
name; with the reporter and without, interleaved: seconds of all processors, the least of the rounds."""

from __future__ import annotations

import argparse
import tempfile
import time

import torch

import gpubp

SAMPLES = 64


def spent(data: gpubp.Prepared | None, given: argparse.Namespace, count: int, *reporters: gpubp.Reporter) -> float:
    """Seconds of all processors for a run."""
    spec = gpubp.NetworkSpec(tuple(map(int, given.widths.split(","))), "tanh", loss="cross_entropy")
    inputs = torch.rand(SAMPLES, spec.widths[0], generator=torch.Generator().manual_seed(0))
    targets = (inputs.sum(1) > spec.widths[0] / 2).long()
    training, validation = gpubp.Dataset(inputs, targets), gpubp.Dataset(inputs, targets)
    if data is not None:
        training, validation = data.training, data.validation
    rates = torch.logspace(-4, -1, count)
    config = gpubp.TrainConfig(lr=rates, batch_size=given.batch, epochs=given.epochs, evaluate_every=1)
    population = gpubp.Population.create(spec, count)
    begun = time.process_time()
    gpubp.train(population, training, config, validation, reporters=list(reporters))
    return time.process_time() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--widths", default="2,2,2")
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    data = None if given.data is None else gpubp.load_data(given.data)
    for count in given.networks:
        with tempfile.TemporaryDirectory() as folder:  # compiles and imports
            spent(data, given, count, gpubp.TensorBoardReporter(folder))
        plain, shown = [], []
        for _ in range(given.rounds):
            with tempfile.TemporaryDirectory() as folder:
                plain.append(spent(data, given, count))
                shown.append(spent(data, given, count, gpubp.TensorBoardReporter(folder)))
        without, beside = min(plain), min(shown)
        each = (beside - without) / given.epochs
        print(f"{count:,} networks of {given.widths}: {without:.3f} s, {beside:.3f} s with it, "
              f"{beside / without:.2f} times; {1e3 * each:.2f} ms an evaluation")  # fmt: skip


if __name__ == "__main__":
    main()
