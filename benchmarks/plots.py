"""The plots. One colour and one marker per contender, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from .peers import PEERS

LOOKS = dict(zip(PEERS, zip(("C0", "C7", "C1", "C3", "C2"), "osD^v")))
WORDS = {"batch_size": "batch size B (samples per step)", "networks": "number of networks N"}


def ratios(report: dict[str, Any], path: Path) -> None:
    """How many times a peer's rate the first contender has: a dot with its interval, a panel per optimizer."""
    optimizers = list(dict.fromkeys(result["optimizer"] for result in report["results"]))
    figure, panels = plt.subplots(
        1, len(optimizers), figsize=(1.5 + 4.5 * len(optimizers), 5), sharex=True, sharey=True, squeeze=False
    )
    workloads = list(dict.fromkeys(result["workload"] for result in report["results"]))
    for panel, optimizer in zip(panels[0], optimizers):
        for result in report["results"]:
            if result["optimizer"] == optimizer:
                first, *peers = result["contenders"]
                for number, name in enumerate(peers):
                    height = workloads.index(result["workload"]) + 0.16 * (number - (len(peers) - 1) / 2)
                    _dot(panel, name, result["contenders"][name]["ratio"], height)
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.tick_params(axis="x", labelsize=8)
        panel.set_title(optimizer)
        panel.set_yticks(range(len(workloads)), workloads)
        panel.set_xlabel(f"rate of {first} over the peer's (right of 1: {first} is faster)")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    handles = {name: dot for panel in panels[0] for dot, name in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    machine = report["machine"]
    figure.suptitle(f"{first} beside its peers, {machine['device']}, threads: {machine['torch_threads']}")
    _save(figure, path)


def _dot(panel: Any, name: str, ratio: dict[str, float], height: float) -> None:
    colour, marker = LOOKS[name]
    middle = ratio["median"]
    panel.errorbar(
        middle, height, xerr=[[middle - ratio["low"]], [ratio["high"] - middle]],
        color=colour, marker=marker, capsize=3, linestyle="none", label=name,
    )  # fmt: skip


def sweep(report: dict[str, Any], path: Path) -> None:
    """Rate over what was swept, both logarithmic, a line per contender, the measured peak on top."""
    over, points = report["over"], report["results"]
    optimizers = list(dict.fromkeys(point["optimizer"] for point in points))
    figure, panels = plt.subplots(1, len(optimizers), figsize=(1 + 5 * len(optimizers), 5), sharey=True, squeeze=False)
    for panel, optimizer in zip(panels[0], optimizers):
        own = [point for point in points if point["optimizer"] == optimizer]
        values = [point[{"batch_size": "batch"}.get(over, over)] for point in own]
        for name in own[0]["contenders"]:
            colour, marker = LOOKS[name]
            rates = [point["contenders"][name]["rate"] for point in own]
            panel.loglog(values, rates, color=colour, marker=marker, label=name)
        _peak(panel, report, own, values)
        panel.set_title(optimizer)
        panel.set_xlabel(WORDS[over])
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("network-steps per second")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    shape = "-".join(map(str, points[0]["widths"]))
    rest = f"B = {points[0]['batch']}" if over == "networks" else f"N = {points[0]['networks']}"
    figure.suptitle(f"{report['workload']}: {shape}, {rest}, {report['machine']['device']}, "
                    f"threads: {report['machine']['torch_threads']}")  # fmt: skip
    _save(figure, path)


def _peak(panel: Any, report: dict[str, Any], points: Sequence[dict[str, Any]], values: Sequence[float]) -> None:
    peak = report["machine"]["matmul_peak_gflops"] * 1e9
    rates = [peak / point["flop"] for point in points]
    panel.loglog(values, rates, color="black", linestyle="--", label="peak of a large matmul")


def _save(figure: Any, path: Path) -> None:
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=110)
    plt.close(figure)
