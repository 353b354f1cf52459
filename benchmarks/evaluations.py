"""Evaluation against training: the time of one over the time of its forward products at the rate of training, both of
the same networks, alternating.

Model FLOP: 2 sum(IO) per sample forward; for a step Workload.flop.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from gpubp.engines import ENGINES

from .contenders import excuse
from .harness import PAUSE, Setting
from .limits import wait
from .peers import Engine
from .workloads import WORKLOADS

NAMES = ("W1-K64", "W2", "W3-N256", "W4-N64", "W5")
SAMPLE = 0.05  # seconds of back-to-back calls, at least


def measure(engine: str, setting: Setting) -> list[dict[str, Any]]:
    """By workload: milliseconds of an evaluation of all networks, and the ratio; medians over rounds."""
    found = []
    for name in NAMES:
        workload = WORKLOADS[name]
        optimizer = workload.optimizers[0]
        if excuse(engine, workload, optimizer, setting.device):
            continue
        contender = Engine(workload.problem(optimizer, device=setting.device), engine)
        state, data, evaluate = contender.state, contender.data, ENGINES[engine].evaluate

        def look(state: Any = state, data: Any = data, evaluate: Any = evaluate) -> None:
            evaluate(state.population, data, state.hyper, state.position)

        forward = 2 * data.samples * sum(i * o for i, o in itertools.pairwise(workload.widths))
        step, calls = workload.flop * workload.steps, {look: 0, contender.call: 0}
        for call in calls:
            calls[call] = _count(call, setting.device)
        rounds = [
            [_seconds(call, count, setting.device) for call, count in calls.items()] for _ in range(setting.rounds)
        ]
        contender.params()
        seconds = statistics.median(spent for spent, _ in rounds)
        ratio = statistics.median(spent / (training * forward / step) for spent, training in rounds)
        facts = {"workload": name, "networks": workload.networks, "samples": data.samples, "engine": engine}
        found.append({**facts, "ms": 1e3 * seconds, "over_forward": ratio, "rounds": rounds})
    return found


def _count(call: Callable[[], None], device: str) -> int:
    """Calls of a sample, after the first ones, which compile."""
    for _ in range(2):
        call()
    return max(1, round(SAMPLE / _seconds(call, 1, device)))


def _seconds(call: Callable[[], None], count: int, device: str) -> float:
    time.sleep(PAUSE)
    wait(device)
    begun = time.perf_counter()
    for _ in range(count):
        call()
    wait(device)
    return (time.perf_counter() - begun) / count
