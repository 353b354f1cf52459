"""Calls of an engine, back to back: of one step, the overhead of a call; and evaluations against training.

On a GPU, host: until the last call returns, while the device is kept busy; device: the device's time for the
calls; whole: from the first call to the end of the last, with nothing else running.
"""

import itertools
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from gpubp.engines import ENGINES
from gpubp.system import gpus

from .contenders import excuse
from .harness import Setting, timed
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
EVALUATED = ("W1-K64", "W2", "W3-N256", "W4-N64", "W5")
SAMPLE = 0.05  # seconds of evaluations, or of training, at least


def measure(engine: str, setting: Setting) -> list[dict[str, Any]]:
    """Microseconds of a call of `engine`, by case: medians over rounds of samples, and those of each sample."""
    found = []
    for name, workload in CASES.items():
        contender = Engine(workload.problem("sgd", device=setting.device), engine)
        timed(contender.call, setting.device, 3)  # compiles
        count = max(10, min(CALLS, int(SECONDS * 10 / timed(contender.call, setting.device, 10))))
        samples = [_sample(contender, count, setting.device) for _ in range(setting.rounds)]
        contender.params()
        each = {part: [sample[part] for sample in samples] for part in samples[0]}
        medians = {part: statistics.median(spent) for part, spent in each.items()}
        facts = {"networks": workload.networks, "widths": list(workload.widths), "batch": workload.batch}
        found.append({"case": name, **facts, "engine": engine, "calls": count, "us": medians, "samples_us": each})
    return found


def _sample(contender: Engine, count: int, device: str) -> dict[str, float]:
    whole = {"whole": 1e6 * timed(contender.call, device, count) / count}
    return whole if device == "cpu" else {**_apart(contender, min(count, AHEAD), whole["whole"], device), **whole}


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


def evaluations(engine: str, setting: Setting) -> list[dict[str, Any]]:
    """By workload: milliseconds of an evaluation of all networks, and this over the time of its forward products, 2
    sum(IO) FLOP per sample, at the rate of training, which alternates with it; medians over rounds."""
    found = []
    for name in EVALUATED:
        workload = WORKLOADS[name]
        optimizer = workload.optimizers[0]
        if excuse(engine, workload, optimizer, setting.device):
            continue
        contender = Engine(workload.problem(optimizer, device=setting.device), engine)
        state, data = contender.state, contender.data

        def look(state: Any = state, data: Any = data) -> None:
            ENGINES[engine].evaluate(state.population, data, state.hyper, state.position)

        calls = {look: 0, contender.call: 0}
        for call in calls:
            timed(call, setting.device, 2)  # compiles
            calls[call] = max(1, round(SAMPLE / timed(call, setting.device)))
        rounds = [
            [timed(call, setting.device, count) / count for call, count in calls.items()] for _ in range(setting.rounds)
        ]
        contender.params()
        forward = 2 * data.samples * sum(i * o for i, o in itertools.pairwise(workload.widths))
        share = forward / (workload.flop * workload.steps)
        facts = {"workload": name, "networks": workload.networks, "samples": data.samples, "engine": engine}
        milliseconds = 1e3 * statistics.median(spent for spent, _ in rounds)
        over = statistics.median(spent / (training * share) for spent, training in rounds)
        found.append({**facts, "ms": milliseconds, "over_forward": over, "rounds": rounds})
    return found
