"""Measure contenders against each other: in every round each is called once, in a new random order.

Machines warm up, throttle and serve others. A disturbance affects a whole round, so ratios are taken within
a round, and their median over the rounds is reported, with a bootstrap interval (Efron, 1979, the percentile
method). Cf. google/benchmark's random interleaving.

On a CPU a sample is one call. On a GPU it is BURST seconds of back-to-back calls: a single call, after a
pause, is mostly wake-up time. That is measured separately.
"""

import argparse
import inspect
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from gpubp.engines import general

from .contenders import OURS, PEERS, excuse, parity, rows
from .limits import wait
from .peers import Contender, together
from .peers import wait as finish
from .workloads import Workload

RESAMPLED = 2000
LEVEL = 0.95
FEWEST = 3  # rounds of every contender, at any cost
BURST, MOST = 0.05, 4000  # seconds and calls of a sample on a GPU
ALONE = 5  # single calls of each contender, at most
OTHER = 3e-5  # of the distance moved: TF32 products differ by 9e-5 or more, orders of sums by 6e-6 at most, on W1 to W6
PAUSE = 0.03  # seconds before a call: the previous one's threads, which spin for milliseconds, go to sleep


class Setting(NamedTuple):
    """How to measure: maximal rounds, the seed of their order, the device, FLOP/s that count as 100 %, and patience,
    the seconds of a contender's calls after which it drops out of further rounds."""

    rounds: int
    seed: int
    device: str
    peak: float
    patience: float


@contextmanager
def own_kernels() -> Iterator[None]:
    """Every topology has kernels of its own, in a new cache unless GPUBP_CACHE names one, so that compilation is
    measured."""
    with general.only(False), tempfile.TemporaryDirectory(prefix="kernels") as kernels, ExitStack() as after:
        if "GPUBP_CACHE" not in os.environ:
            os.environ["GPUBP_CACHE"] = kernels
            after.callback(os.environ.pop, "GPUBP_CACHE")
        yield


def command(*runs: Callable[..., None], about: str | None = None) -> None:
    """Run what the command line names, if there are several, with flags for its parameters."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True) if len(runs) > 1 else None
    for run in runs:
        flags = kinds.add_parser(run.__name__, description=run.__doc__) if kinds else parser
        flags.set_defaults(run=run)
        for name, given in inspect.signature(run).parameters.items():
            one = given.default[0] if isinstance(given.default, tuple) else given.default
            more = {"action": "store_true"} if one is False else {"type": type(one)}
            more |= {"nargs": "+"} if isinstance(given.default, tuple) else {}
            flags.add_argument(f"--{name.replace('_', '-')}", default=given.default, **more)
    chosen = vars(parser.parse_args())
    chosen.pop("run")(**chosen)


def timed(call: Callable[[], object], device: str, count: int = 1) -> float:
    """Seconds of `count` calls, back to back."""
    time.sleep(PAUSE)
    wait(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    wait(device)
    return time.perf_counter() - start


def cost(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """-> what it returns, and its seconds: of the clock, and of all processors, which other programs hardly change; of
    other processes once these have ended."""
    clock, processors = time.perf_counter(), time.process_time() + sum(os.times()[2:4])
    result = run()
    return result, time.perf_counter() - clock, time.process_time() + sum(os.times()[2:4]) - processors


def interleave(calls: Mapping[str, Callable[[], object]], setting: Setting) -> dict[str, list[float]]:
    """Seconds of every call, by name, one per round; for a contender that ran out of patience only of the first."""
    draw = random.Random(setting.seed)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(setting.rounds):
        order = [name for name in calls if number < FEWEST or sum(seconds[name]) < setting.patience]
        order = [name for name in order if len(seconds[name]) == number]  # dropped out for good
        if number >= FEWEST and (len(order) < 2 and len(calls) > 1):
            break
        draw.shuffle(order)
        for name in order:
            seconds[name].append(timed(calls[name], setting.device))
    return seconds


def burst(contender: Contender, calls: int = 1) -> Callable[[], None]:
    """`calls` back-to-back calls, to the end of the last."""

    def sample() -> None:
        for _ in range(calls):
            contender.call()
        finish(contender)

    return sample


def length(contender: Contender, device: str) -> int:
    """Calls of a sample: on a GPU as many as take BURST seconds, estimated from the last and longest trial."""
    calls, spent = 1, 0.0
    while device != "cpu" and calls < MOST:
        spent = timed(burst(contender, calls), device)
        if spent > BURST / 2:
            break
        calls = min(MOST, 4 * calls)
    return max(1, min(MOST, round(calls * BURST / spent))) if spent else 1


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """The median of over[r] / under[r] over the rounds r of both, and its 95 % interval."""
    both = min(len(over), len(under))
    ratios = numpy.asarray(over[:both]) / numpy.asarray(under[:both])
    drawn = numpy.random.default_rng(0).integers(len(ratios), size=(RESAMPLED, len(ratios)))
    low, high = numpy.quantile(numpy.median(ratios[drawn], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"median": float(numpy.median(ratios)), "low": float(low), "high": float(high)}


def measure(
    workload: Workload, optimizer: str, names: Sequence[str], setting: Setting, skipped: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One row of the table: the workload, parity, and every contender's figures and raw seconds.

    The others are compared with the first that runs. skipped: contenders not to run, and why.
    """
    absent = {name: excuse(name, workload, optimizer, setting.device) for name in names}
    absent |= {name: reason for name, reason in (skipped or {}).items() if name in absent}
    if all(absent.values()):
        raise AssertionError(f"{workload}: no contender runs: {absent}")
    names = [name for name in names if not absent[name]]
    absent |= unable(names, workload, optimizer, setting.device)
    names = [name for name in names if not absent[name]]
    exact = [parity(part, optimizer, names, setting.device) for part in workload.parts]
    problems = [part.problem(optimizer, device=setting.device) for part in workload.parts]
    contenders = {name: together([PEERS[name].make(problem) for problem in problems]) for name in names}
    result = race(workload, optimizer, contenders, setting)
    for name, figures in result["contenders"].items():
        figures["float64_largest_difference"] = max(part[name] for part in exact)
    result["absent"] = {name: reason for name, reason in absent.items() if reason}
    return result


def unable(names: Sequence[str], workload: Workload, optimizer: str, device: str) -> dict[str, str]:
    """Peers that fail on the eight networks of parity, and how: a GPU's compilers do not accept everything. gpubp's
    engines may not fail."""
    reasons = {}
    for name in names:
        try:
            rows(name, workload.tiny(), optimizer, device)
        except AssertionError:
            raise
        except Exception as error:
            if name in OURS:
                raise
            reasons[name] = f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return reasons


def race(workload: Workload, optimizer: str, contenders: Mapping[str, Contender], setting: Setting) -> dict[str, Any]:
    """Warm up and interleave contenders with the same weights. -> the figures of each.

    ratio: the first contender's rate over this one's, round by round. exact: whether its weights after the first call
    equal the first contender's up to float32 rounding. best_peer: the fastest exact one, except gpubp. seconds:
    of a sample of `calls`. seconds_alone: of a single call after a pause, on a GPU.
    """
    first = next(iter(contenders))
    start = contenders[first].params().cpu().clone()
    warm = {name: warm_up(name, contender, setting.device) for name, contender in contenders.items()}
    rows = {name: each[0] for name, each in warm.items()}
    spent_compiling = {name: compiling(name, workload, optimizer, each[1]) for name, each in warm.items()}
    way = {name: _share_of_way(row, rows[first][: len(row)], start[: len(row)]) for name, row in rows.items()}
    calls = {name: length(contender, setting.device) for name, contender in contenders.items()}
    seconds = interleave({name: burst(contender, calls[name]) for name, contender in contenders.items()}, setting)
    alone = dict[str, list[float]]()
    if setting.device != "cpu":
        few = setting._replace(rounds=min(ALONE, setting.rounds))
        alone = interleave({name: burst(contender) for name, contender in contenders.items()}, few)
    for name, contender in contenders.items():
        if not bool(contender.params().isfinite().all()):
            raise AssertionError(f"{name}, {optimizer}: weights are not finite, so the figures mean nothing")
    each = {
        name: [spent / (calls[name] * contender.networks * workload.steps) for spent in seconds[name]]
        for name, contender in contenders.items()
    }
    result: dict[str, Any] = {
        "optimizer": optimizer,
        "widths": list(workload.widths),
        "shape": workload.shape,
        "parameters": workload.parameters,
        "loss": workload.loss,
        "own_lr": workload.own_lr,
        "networks": workload.networks,
        "batch": workload.batch,
        "steps": workload.steps,
        "flop": workload.flop,
        "contenders": {
            name: {
                "networks": contender.networks,
                "rate": 1 / statistics.median(each[name]),
                "share_of_peak": workload.flop / statistics.median(each[name]) / setting.peak,
                "ratio": ratio(each[name], each[first]),
                "compile_seconds": spent_compiling[name],
                "break_even_steps": _break_even(name, each, spent_compiling[name], workload.networks),
                "float32_share_of_way": way[name],
                "exact": way[name] <= OTHER and not (name in PEERS and PEERS[name].rounded),
                "calls": calls[name],
                "seconds": [float(f"{spent:.6g}") for spent in seconds[name]],
                "seconds_alone": [float(f"{spent:.6g}") for spent in alone.get(name, [])],
            }
            for name, contender in contenders.items()
        },
    }
    peers = [name for name in contenders if name not in OURS and result["contenders"][name]["exact"]]
    best = max(peers, key=lambda name: result["contenders"][name]["rate"], default=None)
    result["best_peer"] = best and {"name": best, **result["contenders"][best]["ratio"]}
    return result


def warm_up(name: str, contender: Contender, device: str) -> tuple[Tensor, float | None]:
    """The rows after the first call, and the seconds of compilation, None without any.

    Contenders may report them. For `cpu` and `cuda` they are the first call minus the second.
    """
    first = timed(contender.call, device)
    rows = contender.params().cpu().clone()
    if name not in ("cpu", "cuda"):
        return rows, getattr(contender, "compile_seconds", None)
    return rows, max(0.0, first - timed(contender.call, device))


def compiling(name: str, workload: Workload, optimizer: str, seconds: float | None) -> float | None:
    """Seconds of compilation, also for a kernel that an earlier row compiled in this process."""
    if seconds is None:
        return None
    key = name, optimizer, replace(workload, networks=1, steps=1, goals=())
    COMPILED[key] = max(seconds, COMPILED.get(key, 0.0))
    return COMPILED[key]


COMPILED: dict[Any, float] = {}


def _break_even(name: str, each: Mapping[str, Sequence[float]], seconds: float | None, networks: int) -> float | None:
    """Steps of the whole population after which compiling pays off against eager; None if never."""
    if seconds is None or "eager" not in each or name == "eager":
        return None
    saved = (statistics.median(each["eager"]) - statistics.median(each[name])) * networks
    return seconds / saved if saved > 0 else None


def _share_of_way(rows: Tensor, first: Tensor, start: Tensor) -> float:
    """The distance between the median network's rows, over the distance that it moved. Not the mean or the largest:
    if a gradient is 0 up to rounding, Adam steps by its sign."""
    apart, way = (each.double().norm(dim=1) for each in (rows - first, first - start))
    return float((apart / way.clamp(min=torch.finfo(way.dtype).tiny)).median())
