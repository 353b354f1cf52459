"""The plots: ratios, sweeps. One colour and one marker per contender, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from .contenders import PEERS

COLOURS = ("#0050b0", "#40a0ff", "#d05000", "#ff9840", "#c02020", "#907000", "#808080", "#107010", "#50c050", "#8030a0",
           "#c060d0", "#303030", "#a08060", "#604020", "#00a0a0", "#d0b000", "#a0d0ff", "#f080a0")  # fmt: skip
LOOKS = dict(zip(dict.fromkeys(["cpu", *PEERS]), zip(COLOURS, "os^v<Dd>PpX*h8H123")))
WORDS = {
    "batch_size": "batch size B (samples per step)",
    "networks": "number of networks N",
    "width": "hidden width",
    "steps_per_call": "steps per call K",
}


def look(name: str) -> tuple[str, str]:
    """Colour and marker of a contender."""
    return LOOKS[name]


def ratios(report: dict[str, Any], path: Path) -> None:
    """The first contender's rate over each peer's: a dot with its interval, a panel per optimizer. The first contender
    is named if it is not the report's."""
    optimizers = list(dict.fromkeys(result["optimizer"] for result in report["results"]))
    figure, panels = plt.subplots(
        1, len(optimizers), figsize=(1.5 + 4.5 * len(optimizers), 7), sharex=True, sharey=True, squeeze=False
    )
    first, firsts = report["first"], {each["workload"]: next(iter(each["contenders"])) for each in report["results"]}
    workloads = list(firsts)
    for panel, optimizer in zip(panels[0], optimizers):
        for result in report["results"]:
            if result["optimizer"] == optimizer:
                peers = list(result["contenders"])[1:]
                for number, name in enumerate(peers):
                    height = workloads.index(result["workload"]) + 0.8 / len(peers) * (number - (len(peers) - 1) / 2)
                    _dot(panel, name, result["contenders"][name]["ratio"], height)
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=30))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.tick_params(axis="x", labelsize=8)
        panel.set_title(optimizer)
        panel.set_yticks(
            range(len(workloads)), [name if each == first else f"{name}: {each}" for name, each in firsts.items()]
        )
        panel.set_xlabel(f"rate of {first} over the peer's (right of 1: {first} is faster)")
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    handles = {name: dot for panel in panels[0] for dot, name in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize="small")
    machine = report["machine"]
    figure.suptitle(f"{first} against its peers, {machine['device']}, threads: {machine['torch_threads']}")
    save(figure, path)


def _dot(panel: Any, name: str, ratio: dict[str, float], height: float) -> None:
    colour, marker = look(name)
    middle = ratio["median"]
    panel.errorbar(
        middle, height, xerr=[[middle - ratio["low"]], [ratio["high"] - middle]],
        color=colour, marker=marker, capsize=3, linestyle="none", label=name,
    )  # fmt: skip


def sweep(report: dict[str, Any], path: Path) -> None:
    """Rate over the swept quantity, both logarithmic, a line per contender, and the measured peak."""
    over, points = report["over"], report["results"]
    optimizers = list(dict.fromkeys(point["optimizer"] for point in points))
    size = (3 + 5 * len(optimizers), 5.5)
    figure, panels = plt.subplots(1, len(optimizers), figsize=size, sharey=True, squeeze=False)
    for panel, optimizer in zip(panels[0], optimizers):
        some = [point for point in points if point["optimizer"] == optimizer]
        values = [point["value"] for point in some]
        for name in dict.fromkeys(name for point in some for name in point["contenders"]):
            colour, marker = look(name)
            there = [point for point in some if name in point["contenders"]]
            rates = [point["contenders"][name]["rate"] for point in there]
            panel.loglog([point["value"] for point in there], rates, color=colour, marker=marker, label=name)
        _peak(panel, report, some, values)
        panel.set_title(optimizer)
        panel.set_xlabel(WORDS[over])
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("network-steps per second")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    fixed = {"widths": "-".join(map(str, points[0]["widths"])), "B": points[0]["batch"], "N": points[0]["networks"]}
    del fixed[{"batch_size": "B", "networks": "N", "width": "widths"}.get(over, "N")]
    steps = sorted({point["steps"] for point in points})
    fixed |= {} if over == "steps_per_call" else {"K": "-".join(map(str, dict.fromkeys((steps[0], steps[-1]))))}
    rest = ", ".join(f"{name} {value}" for name, value in fixed.items())
    figure.suptitle(f"{report['workload']}: {rest}, {report['machine']['device']}, "
                    f"threads: {report['machine']['torch_threads']}")  # fmt: skip
    save(figure, path)


def _peak(panel: Any, report: dict[str, Any], points: Sequence[dict[str, Any]], values: Sequence[float]) -> None:
    peak = report["machine"]["peak_gflops"] * 1e9
    rates = [peak / point["flop"] for point in points]
    panel.loglog(values, rates, color="black", linestyle="--", label=f"peak: {report['machine']['peak_of']}")


def save(figure: Any, path: Path) -> None:
    """Write and close the figure."""
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=110)
    plt.close(figure)
