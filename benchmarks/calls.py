"""Calls of one step, back to back: the overhead of a call. One network of 2-2-2, and 1,000 of 64-32-10.

On a GPU, host: until the last call returns, while the device is kept busy; device: the device's time for the
calls; whole: from the first call to the end of the last, with nothing else running.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from gpubp.system import gpus

from .harness import PAUSE, Setting
from .limits import wait
from .peers import Engine
from .workloads import WORKLOADS

CASES = {
    "one network 2-2-2": replace(WORKLOADS["W1-K1"], networks=1),
    "1,000 networks 64-32-10": replace(WORKLOADS["W5"], own_lr=False, steps=1),
}
CALLS, SECONDS = 1000, 0.25  # of a sample, whichever is less
AHEAD = 200  # calls queued while the device is busy: its queue holds some thousand launches
SIDE = 8192  # of matrices whose product keeps it busy
PRODUCT = 2 * SIDE**3 / 80e12  # seconds of one, at least


def measure(engine: str, setting: Setting) -> list[dict[str, Any]]:
    """Microseconds of a call of `engine`, by case: medians over rounds of samples, and those of each sample."""
    found = []
    for name, workload in CASES.items():
        contender = Engine(workload.problem("sgd", device=setting.device), engine)
        for _ in range(3):  # compiles
            contender.call()
        count = _count(contender, setting.device)
        samples = [_sample(contender, count, setting.device) for _ in range(setting.rounds)]
        contender.params()
        each = {part: [sample[part] for sample in samples] for part in samples[0]}
        medians = {part: statistics.median(spent) for part, spent in each.items()}
        facts = {"networks": workload.networks, "widths": list(workload.widths), "batch": workload.batch}
        found.append({"case": name, **facts, "engine": engine, "calls": count, "us": medians, "samples_us": each})
    return found


def _count(contender: Engine, device: str) -> int:
    wait(device)
    begun = time.perf_counter()
    for _ in range(10):
        contender.call()
    wait(device)
    return max(10, min(CALLS, int(SECONDS * 10 / (time.perf_counter() - begun))))


def _sample(contender: Engine, count: int, device: str) -> dict[str, float]:
    time.sleep(PAUSE)
    wait(device)
    begun = time.perf_counter()
    for _ in range(count):
        contender.call()
    wait(device)
    spent = {"whole": 1e6 * (time.perf_counter() - begun) / count}
    return spent if device == "cpu" else {**_apart(contender, min(count, AHEAD), spent["whole"], device), **spent}


def _apart(contender: Engine, count: int, us: float, device: str) -> dict[str, float]:
    """Host and device: the device multiplies until the host, even at half speed, has queued all calls."""
    with gpus.on(torch.device(device)):
        first, last = (torch.Event(device, enable_timing=True) for _ in range(2))
        matrix = torch.ones(SIDE, SIDE, device=device)
        for _ in range(1 + int(2e-6 * us * count / PRODUCT)):
            matrix @ matrix
        first.record()
        begun = time.perf_counter()
        for _ in range(count):
            contender.call()
        host = time.perf_counter() - begun
        last.record()
        last.synchronize()
        return {"host": 1e6 * host / count, "device": 1e3 * first.elapsed_time(last) / count}
