"""Networks that wait for slots: python -m benchmarks.slots [--networks N] [--slots 1024 4096 16384] [--watched]. The
whole time of networks with lengths from 100 to 2,000 steps, over that of as many steps of networks of one length that
all train at once; by the clock, and in seconds of all processors, which other programs hardly change. --watched: a
reporter looks at every evaluation of both."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import gpubp


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=100_000)
    parser.add_argument("--slots", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--watched", action="store_true")
    chosen = parser.parse_args()
    inputs = torch.linspace(-1, 1, 64)[:, None].repeat(1, 2)
    data = gpubp.Dataset(inputs, torch.sin(3 * inputs))
    common: dict[str, Any] = {"widths": "2,8,2", "batch_size": 8, "optimizer": "sgd"}
    common |= {"reporters": [Watching()]} if chosen.watched else {}
    gpubp.train_many({"steps": [20] * 4096}, data, **common)  # compiles
    alike, full, full_processors = timed({"steps": [2000] * 4096}, data, common)
    steps = torch.randint(100, 2001, (chosen.networks,), generator=torch.Generator().manual_seed(0))
    print(f"full rate: {alike / full:,.0f} network-steps/s")
    for slots in chosen.slots:
        taken, spent, processors = timed({"steps": steps}, data, {**common, "slots": slots})
        more = spent / taken * alike / full, processors / taken * alike / full_processors
        print(f"{slots:,} slots: {spent:.2f} s, {more[0]:.2f} times the steps alone; of processors {more[1]:.2f} times")


class Watching(gpubp.Reporter):
    """Is told of every evaluation."""

    def evaluated(self, record: Any) -> None:
        """Nothing comes of it."""


def timed(design: dict[str, Any], data: gpubp.Dataset, common: dict[str, Any]) -> tuple[int, float, float]:
    """Network-steps of a run, and its seconds: by the clock and of all processors."""
    begun, before = time.perf_counter(), time.process_time()
    result = gpubp.train_many(design, data, **common)
    return result.network_steps, time.perf_counter() - begun, time.process_time() - before


if __name__ == "__main__":
    main()
