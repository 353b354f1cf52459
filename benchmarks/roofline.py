"""The roofline: rate over arithmetic intensity (Williams, Waterman and Patterson, 2009), with both measured limits.

Intensity is model FLOP per byte that must move between memory and the processor, at best: contenders that keep a
network in cache read and write weights and slots once per call of K steps; those that step all networks before the next
step do so in every step, and read the weights again for the backward pass. Activations are assumed
to stay in cache, so real traffic is higher and real intensity lower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contenders import PEERS
from .plots import look, plt, save

FLOAT = 4  # bytes


def intensity(result: dict[str, Any], name: str) -> float:
    """FLOP per byte of one contender on one row of the table."""
    widths, steps, size = result["widths"], result["steps"], result["parameters"]
    arrays = {"sgd": 1, "adam": 3}[result["optimizer"]]
    kept = name not in PEERS or PEERS[name].kept
    moved = 2 * arrays if kept else steps * (2 * arrays + 1)
    shared = steps * result["batch"] * (widths[0] + widths[-1]) / result["networks"]
    return steps * result["flop"] / (FLOAT * (moved * size + shared))


def plot(report: dict[str, Any], path: Path) -> None:
    """A dot per workload and contender, under the roof of bandwidth and peak."""
    machine = report["machine"]
    peak, bandwidth = machine["peak_gflops"], machine["copy_gbytes_per_second"]
    figure, panel = plt.subplots(figsize=(9, 6))
    seen: set[str] = set()
    marks = []
    for result in report["results"]:
        for name, figures in result["contenders"].items():
            colour, marker = look(name)
            where, height = intensity(result, name), figures["rate"] * result["flop"] / 1e9
            panel.plot(where, height, marker, color=colour, label=None if name in seen else name)
            seen.add(name)
            marks.append(where)
        first = next(iter(result["contenders"]))
        height = result["contenders"][first]["rate"] * result["flop"] / 1e9
        label = f"{result['workload']} {result['optimizer']}"
        panel.annotate(label, (intensity(result, first), height), (4, 4), textcoords="offset points", fontsize=7)
    low, high = min([*marks, peak / bandwidth]) / 2, max([*marks, peak / bandwidth]) * 2
    panel.plot([low, peak / bandwidth], [low * bandwidth, peak], "k-", linewidth=1)
    panel.plot([peak / bandwidth, high], [peak, peak], "k-", linewidth=1)
    panel.annotate(
        f"{bandwidth:.0f} GB/s, copy", (low, low * bandwidth), (2, 8), textcoords="offset points", fontsize=8
    )
    panel.annotate(f"{peak:.0f} GFLOP/s, {machine['peak_of']}", (peak / bandwidth, peak), (2, 4),
                   textcoords="offset points", fontsize=8)  # fmt: skip
    panel.set(xscale="log", yscale="log", ylabel="GFLOP/s (model FLOP)",
              xlabel="model FLOP per byte that must move (see benchmarks/roofline.py)")  # fmt: skip
    panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(f"Roofline, {machine['device']}, threads: {machine['torch_threads']}")
    save(figure, path)
