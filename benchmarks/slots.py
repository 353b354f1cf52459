"""Networks that wait for slots: python -m benchmarks.slots [--networks N]. The whole time of networks with lengths from
100 to 2,000 steps, over that of as many steps at the rate of networks of one length that all train at once."""

from __future__ import annotations

import argparse
import time

import torch

import gpubp


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=100_000)
    count = parser.parse_args().networks
    inputs = torch.linspace(-1, 1, 64)[:, None].repeat(1, 2)
    data = gpubp.Dataset(inputs, torch.sin(3 * inputs))
    common = {"widths": "2,8,2", "batch_size": 8, "optimizer": "sgd"}
    alike = gpubp.train_many({"steps": [2000] * 4096}, data, **common)
    full = alike.network_steps / alike.step_seconds
    steps = torch.randint(100, 2001, (count,), generator=torch.Generator().manual_seed(0))
    print(f"full rate: {full:,.0f} network-steps/s")
    for slots in (1024, 4096, 16384):
        begun = time.perf_counter()
        result = gpubp.train_many({"steps": steps}, data, slots=slots, **common)
        spent = time.perf_counter() - begun
        print(f"{slots:,} slots: {spent:.2f} s, {spent * full / result.network_steps:.2f} times the steps alone")


if __name__ == "__main__":
    main()
