"""What early stopping saves: python -m benchmarks.stopping [--networks N] [--rounds 5]. A sweep of learning rates over
the digits, validated after every epoch, with patience and without: the time of the one over that of the other, and the
steps likewise. Interleaved, in seconds of all processors, which other programs hardly change, and of the clock."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import torch

import gpubp

EPOCHS, PATIENCE, BATCH = 60, 3, 64


class Cost(NamedTuple):
    """Of a run."""

    steps: int
    processors: float
    clock: float


def run(data: gpubp.Prepared, count: int, patience: int | None) -> Cost:
    """Train the sweep."""
    spec = gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy")
    config = gpubp.TrainConfig(
        lr=torch.logspace(-4, -1, count), epochs=EPOCHS, batch_size=BATCH, patience=patience, evaluate_every=1
    )
    population = gpubp.Population.create(spec, count, seed=0)
    processors, clock = time.process_time(), time.perf_counter()
    result = gpubp.train(population, data.training, config, data.validation)
    return Cost(result.network_steps, time.process_time() - processors, time.perf_counter() - clock)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    data = gpubp.load_data("digits", validation=0.2)
    run(data, 64, PATIENCE)  # compiles
    pairs = [[run(data, chosen.networks, patience) for patience in (PATIENCE, None)] for _ in range(chosen.rounds)]
    steps = pairs[0][0].steps / pairs[0][1].steps
    print(f"{chosen.networks:,} networks of 64-32-10, patience {PATIENCE} of {EPOCHS} epochs: {steps:.3f} of the steps")
    for name in ("processors", "clock"):
        ratios = [getattr(some, name) / getattr(whole, name) for some, whole in pairs]
        print(f"{name}: {statistics.median(ratios):.3f} of the time, {statistics.median(ratios) / steps:.2f} of the "
              f"steps' share ({', '.join(f'{each / steps:.2f}' for each in ratios)})")  # fmt: skip


if __name__ == "__main__":
    main()
