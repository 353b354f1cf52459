"""Calls of the engine `cpu` right after torch has used its threads, which spin for a while before they sleep."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .harness import Setting, ratio, timed
from .peers import Engine
from .workloads import WORKLOADS

WORKLOAD = replace(WORKLOADS["W2"], networks=1_200)  # a call of some 1.7 ms on two threads
SIDE = 1024  # of the matrix product that wakes torch's threads
CALLS = {"first": 1, "second": 2, "hundredth": 100}


def after_torch(setting: Setting) -> dict[str, Any]:
    """In every round a call at rest, a matrix product of torch, and a hundred calls. -> of those of CALLS the seconds,
    and their ratio to the call at rest, round by round."""
    engine, matrix = Engine(WORKLOAD.problem("sgd"), "cpu"), torch.rand(SIDE, SIDE)
    engine.call()
    rest, spent = [], dict[str, list[float]]((name, []) for name in CALLS)
    for _ in range(setting.rounds):
        rest.append(timed(engine.call, setting.device))
        torch.mm(matrix, matrix)
        row = [_seconds(engine.call) for _ in range(max(CALLS.values()))]
        for name, number in CALLS.items():
            spent[name].append(row[number - 1])
    calls = {"at rest": rest, **spent}
    return {
        name: {"ms": 1e3 * statistics.median(each), "over_rest": ratio(each, rest), "seconds": each}
        for name, each in calls.items()
    }


def _seconds(call: Callable[[], object]) -> float:
    """timed(), without its pause."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
