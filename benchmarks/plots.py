"""The plots: ratios, sweeps. One colour and one marker per contender, everywhere."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

from .contenders import PEERS

MARKERS = "os^v<Dd>PpX*h8H123"
LOOKS = {
    name: {"color": colour, "marker": marker}
    for name, colour, marker in zip(dict.fromkeys(["cpu", *PEERS]), plt.get_cmap("tab20").colors, MARKERS)
}
WORDS = {
    "batch_size": "batch size B (samples per step)",
    "networks": "number of networks N",
    "width": "hidden width",
    "steps_per_call": "steps per call K",
}


def ratios(report: dict[str, Any], path: Path) -> None:
    """The first contender's rate over each peer's: a dot with its interval, a panel per optimizer. The first contender
    is named if it is not the report's."""
    first, firsts = report["first"], {each["workload"]: next(iter(each["contenders"])) for each in report["results"]}
    workloads = [*firsts]
    figure, panels = _panels(report, 4.5, 7)
    for panel, results in panels:
        for result in results:
            _, *peers = result["contenders"]
            for number, name in enumerate(peers):
                ratio = result["contenders"][name]["ratio"]
                reach = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
                row = workloads.index(result["workload"]) + 0.8 / len(peers) * (number - (len(peers) - 1) / 2)
                panel.errorbar(ratio["median"], row, xerr=reach, capsize=3, ls="none", label=name, **LOOKS[name])
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=30))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        names = [name if own == first else f"{name}: {own}" for name, own in firsts.items()]
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel(f"rate of {first} over the peer's (right of 1: {first} is faster)")
    panels[0][0].invert_yaxis()
    _save(figure, f"{first} against its peers", report, path)


def sweep(report: dict[str, Any], path: Path) -> None:
    """Rate over the swept quantity, both logarithmic, a line per contender, and the measured peak."""
    over, peak, first = report["over"], report["machine"]["peak_gflops"] * 1e9, report["results"][0]
    figure, panels = _panels(report, 6, 5.5)
    for panel, points in panels:
        values = [point["value"] for point in points]
        for name in dict.fromkeys(name for point in points for name in point["contenders"]):
            there = [(own["value"], own["contenders"][name]["rate"]) for own in points if name in own["contenders"]]
            panel.loglog(*zip(*there), label=name, **LOOKS[name])
        rates = [peak / point["flop"] for point in points]
        panel.loglog(values, rates, color="black", linestyle="--", label=f"peak: {report['machine']['peak_of']}")
        panel.set(xlabel=WORDS[over], ylabel="network-steps per second")
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
    steps = sorted({point["steps"] for point in report["results"]})
    fixed = {
        "width": f"widths {first['shape']}", "batch_size": f"B {first['batch']}", "networks": f"N {first['networks']}",
        "steps_per_call": f"K {'-'.join(map(str, dict.fromkeys((steps[0], steps[-1]))))}",
    }  # fmt: skip
    rest = ", ".join(words for name, words in fixed.items() if name != over)
    _save(figure, f"{report['workload']}: {rest}", report, path)


def _panels(report: dict[str, Any], width: float, height: float) -> tuple[Any, list[tuple[Any, list[dict[str, Any]]]]]:
    """A figure, and a panel for the results of each optimizer."""
    optimizers = dict.fromkeys(result["optimizer"] for result in report["results"])
    size = (2 + width * len(optimizers), height)
    figure, (panels,) = plt.subplots(1, len(optimizers), figsize=size, sharex=True, sharey=True, squeeze=False,
                                     layout="constrained")  # fmt: skip
    for panel, optimizer in zip(panels, optimizers):
        panel.set_title(optimizer)
        panel.grid(alpha=0.3)
    results = [[own for own in report["results"] if own["optimizer"] == optimizer] for optimizer in optimizers]
    return figure, [*zip(panels, results)]


def _save(figure: Any, title: str, report: dict[str, Any], path: Path) -> None:
    """With a title and a legend."""
    handles = {name: dot for panel in figure.axes for dot, name in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(f"{title}, {report['machine']['device']}, threads: {report['machine']['torch_threads']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
