"""Designs of many topologies: python -m benchmarks.mixed [--topologies G] [--networks N] [--epochs E] [--digits].
Seconds of a whole run, the first time, which compiles unless the cache has the kernels, and later; and of the
processor. Data: 64 samples of a sine, or the digits."""

from __future__ import annotations

import argparse
import time

import torch

import gpubp

from .harness import own_kernels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topologies", type=int, default=24)
    parser.add_argument("--networks", type=int, default=4, help="of each topology")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--digits", action="store_true")
    given = parser.parse_args()
    inputs = torch.linspace(-1, 1, 64)[:, None].repeat(1, 2)
    data, loss = gpubp.Dataset(inputs, torch.sin(3 * inputs)), "mean_squared_error"
    if given.digits:
        digits = gpubp.load_data("digits")
        data, loss = digits.training, digits.loss
    first, last = (2, 2) if loss == "mean_squared_error" else (64, 10)
    design = [
        {"widths": f"{first},{8 + number % 8},{8 + number // 8},{last}", "lr": 0.001 * (1 + n % 5)}
        for number in range(given.topologies)
        for n in range(given.networks)
    ]
    common = {"loss": loss, "batch_size": 8 if last == 2 else 32, "optimizer": "adam", "epochs": given.epochs}
    every = max(1, given.epochs // given.evaluations)

    def spent() -> tuple[float, float, int]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = gpubp.train_many(design, data, evaluate_every=every, **common)
        return time.perf_counter() - wall, time.process_time() - cpu, result.network_steps

    with own_kernels():
        wall, _, _ = spent()
        print(f"{given.topologies} topologies, {given.networks} networks each; the first time {wall:.2f} s")
        whole = [spent() for _ in range(given.rounds)]
        cpu, steps = min(each[1] for each in whole), whole[0][2]
        print(f"later {min(whole)[0]:.2f} s, {cpu:.2f} s of the processor, {steps:,} steps")


if __name__ == "__main__":
    main()
