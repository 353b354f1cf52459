"""Sweeps: the rate over the batch size, the number of networks, the hidden width, or the steps per call.

A contender skips a point if it would take too long, estimated from its last point and the work of this one,
or if it would not fit in memory with faster ones. The report says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from gpubp.system.free import available

from .contenders import PEERS, excuse
from .harness import Setting, measure
from .workloads import WORKLOADS, Workload

VALUES = {
    "batch_size": (1, 4, 16, 64, 256, 1024, 4096),
    "networks": (1, 2, 4, 10, 30, 100, 1_000, 10_000, 100_000, 1_000_000),
    "width": (2, 4, 8, 16, 32, 64, 128, 256, 512),
    "steps_per_call": (1, 2, 4, 8, 16, 64, 256),
}
BASES = {
    "batch_size": ("W5", replace(WORKLOADS["W5"], networks=100)),
    "networks": ("W2", WORKLOADS["W2"]),
    "width": ("W5", replace(WORKLOADS["W5"], networks=100)),
    "steps_per_call": ("W1", WORKLOADS["W1-K64"]),
}
WORK = 20e9  # model FLOP of a call, at most; beyond, it has fewer steps
SHARE = 0.6  # of available memory
FLOAT = 4  # bytes


def at(workload: Workload, over: str, value: int, all_steps: bool = False) -> Workload:
    """The workload with one thing changed; width is that of every hidden layer. Calls have fewer steps if these are
    more than WORK, unless all_steps."""
    if over == "steps_per_call":
        return replace(workload, steps=value)
    if over == "width":
        widths = workload.widths
        changed = replace(workload, widths=(widths[0], *[value] * (len(widths) - 2), widths[-1]))
    else:
        changed = replace(workload, **{{"batch_size": "batch"}.get(over, over): value})
    if all_steps:
        return changed
    return replace(changed, steps=max(1, min(changed.steps, int(WORK / (changed.networks * changed.flop)))))


def points(
    workload: Workload, over: str, optimizer: str, names: Sequence[str], setting: Setting, all_steps: bool = False
) -> Iterator[dict[str, Any]]:
    """The results along VALUES[over]."""
    last = dict[str, float]()  # seconds per model FLOP
    for value in VALUES[over]:
        point = at(workload, over, value, all_steps)
        skipped = late(point, last, setting.patience)
        skipped |= without_room(point, optimizer, [name for name in names if name not in skipped], last, setting)
        result = measure(point, optimizer, names, setting, skipped)
        for name, figures in result["contenders"].items():
            last[name] = 1 / (figures["rate"] * point.flop)
        yield {"over": over, "value": value, **result}


def late(workload: Workload, last: Mapping[str, float], patience: float) -> dict[str, str]:
    """Reasons for those whose call would take more than `patience`, by their time per model FLOP at the last point."""
    reasons = {}
    for name, spent in last.items():
        seconds = spent * workload.networks * workload.steps * workload.flop
        if seconds > patience:
            reasons[name] = f"a call would take some {seconds:.0f} s; the limit is {patience:g}"
    return reasons


def without_room(
    workload: Workload, optimizer: str, names: Sequence[str], last: Mapping[str, float], setting: Setting
) -> dict[str, str]:
    """Reasons for those that would not fit in memory, which all share; the fast ones have priority."""
    free, taken, reasons = SHARE * (available(torch.device(setting.device)) or float("inf")), 0.0, {}
    for name in sorted(names, key=lambda name: last.get(name, 0.0)):
        if excuse(name, workload, optimizer, setting.device):
            continue
        stays, passes = need(name, workload, optimizer)
        if taken + stays + passes > free:
            reasons[name] = f"{(taken + stays + passes) / 1e9:.1f} GB would be taken, of {free / 1e9:.1f}"
        else:
            taken += stays
    return reasons


def need(name: str, workload: Workload, optimizer: str) -> tuple[float, float]:
    """Bytes of a contender, and further ones during a call: rough, on the high side."""
    networks = workload.networks
    arrays, size = {"sgd": 1, "adam": 3}[optimizer], workload.spec.size
    outs = workload.batch * sum(workload.widths[1:])
    if PEERS[name].kept:
        return FLOAT * networks * size * arrays, FLOAT * networks * size * arrays
    return FLOAT * networks * size * (arrays + 1), FLOAT * networks * (2 * size + 4 * outs)
