"""Measure contenders beside each other: rounds in which each is called once, in an order drawn anew for every round.

Machines warm up, throttle and serve other people. What disturbs a round disturbs all of it, so a ratio is taken within
a round, and the median over the rounds is what is reported, with a bootstrap interval (Efron, 1979, the percentile
method). Cf. google/benchmark's random interleaving.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from torch import Tensor

from .machine import wait
from .peers import PEERS, names_for, parity
from .workloads import Workload

RESAMPLED = 2000
LEVEL = 0.95
PATIENCE, FEWEST = 20.0, 3  # seconds; rounds. On a busy machine threads that wait for each other take 100 times as long


def interleave(calls: Mapping[str, Callable[[], None]], rounds: int, seed: int, device: str) -> dict[str, list[float]]:
    """Seconds of every call, by name, one per round; fewer rounds where they would take longer than PATIENCE."""
    draw, order, end = random.Random(seed), list(calls), time.perf_counter() + PATIENCE
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        if number >= FEWEST and time.perf_counter() > end:
            break
        draw.shuffle(order)
        for name in order:
            wait(device)
            start = time.perf_counter()
            calls[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The median of over[r] / under[r] over the rounds r, and where it lies with 95 % confidence."""
    ratios = numpy.asarray(over) / numpy.asarray(under)
    drawn = numpy.random.default_rng(0).integers(len(ratios), size=(RESAMPLED, len(ratios)))
    low, high = numpy.quantile(numpy.median(ratios[drawn], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"median": float(numpy.median(ratios)), "low": float(low), "high": float(high)}


def measure(
    workload: Workload, optimizer: str, names: Sequence[str], rounds: int, seed: int, device: str, peak: float
) -> dict[str, Any]:
    """One row of the table: what was trained, parity, and of every contender its figures and raw seconds.

    ratio: the first contender's rate over this one's, round by round. peak: FLOP/s that count as 100 %.
    """
    names = names_for(workload, list(names))
    exact = parity(workload, optimizer, names, device)
    problem = workload.problem(optimizer, device=device)
    contenders = {name: PEERS[name](problem) for name in names}
    for contender in contenders.values():
        contender.call()  # warm-up; parity in float32 is of its end
    rows = {name: contender.params() for name, contender in contenders.items()}
    drift = {name: _distance(own, rows[names[0]][: len(own)]) for name, own in rows.items()}
    seconds = interleave({name: contender.call for name, contender in contenders.items()}, rounds, seed, device)
    for name, contender in contenders.items():
        if not bool(contender.params().isfinite().all()):
            raise AssertionError(f"{name}, {optimizer}: weights that are not finite, so the figures mean nothing")
    each = {
        name: [spent / (contender.networks * workload.steps) for spent in seconds[name]]
        for name, contender in contenders.items()
    }
    return {
        "optimizer": optimizer,
        "widths": list(workload.widths),
        "loss": workload.loss,
        "own_lr": workload.own_lr,
        "networks": workload.networks,
        "batch": workload.batch,
        "steps": workload.steps,
        "flop": workload.flop,
        "contenders": {
            name: {
                "networks": contenders[name].networks,
                "rate": 1 / statistics.median(each[name]),
                "share_of_peak": workload.flop / statistics.median(each[name]) / peak,
                "ratio": ratio(each[name], each[names[0]]),
                "float64_largest_difference": exact[name],
                "float32_relative_distance": drift[name],
                "seconds": [float(f"{spent:.6g}") for spent in seconds[name]],
            }
            for name in names
        },
    }


def _distance(own: Tensor, first: Tensor) -> float:
    """How far the rows lie apart, as a share of their length."""
    return float((own.double() - first.double()).norm() / first.double().norm())
