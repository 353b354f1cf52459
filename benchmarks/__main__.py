"""python -m benchmarks: measure, print a table, write JSON and a plot. python -m benchmarks --help says the rest."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gpubp.errors import DeviceError
from gpubp.population import usable

from . import machine, plots, sampling
from .harness import measure
from .peers import PEERS, SAMPLE
from .workloads import WORKLOADS, Workload

VALUES = {"batch_size": (1, 4, 16, 64, 256, 1024), "networks": (1, 3, 10, 30, 100, 300, 1000, 3000)}
SHUFFLED = ("W2", "W5")
QUICK = 16  # times fewer networks
SEED = 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; it exits with the allowed names where one is unknown."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="gpubp beside its peers, on this machine")
    parser.add_argument("command", nargs="?", choices=("table", "sweep"), default="table")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, metavar="W", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--peer", nargs="+", choices=PEERS, metavar="NAME", help=f"of {', '.join(PEERS)}; "
                        "ratios are to the first; eager is put in front where it is not named")  # fmt: skip
    parser.add_argument("--optimizer", nargs="+", choices=("sgd", "adam"), default=["sgd", "adam"])
    parser.add_argument("--over", choices=VALUES, default="batch_size", help="what `sweep` varies")
    parser.add_argument("--networks", type=_count, help="instead of the workload's own number")
    parser.add_argument("--steps", type=_count, help="steps per call, instead of the workload's own number")
    parser.add_argument("--rounds", type=_count, help="calls of each contender (15; 5 in a sweep; 3 with --quick)")
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="of torch, for all contenders; "
                        "fewer than the cores where other programs are running")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} times fewer networks, 3 rounds: a smoke test")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    chosen = parser.parse_args(arguments)
    try:
        chosen.device = str(usable(chosen.device))
    except DeviceError as error:
        parser.error(str(error))
    if chosen.command == "sweep" and len(chosen.workload or ()) > 1:
        parser.error(f"sweep takes one workload, of {', '.join(WORKLOADS)}")
    chosen.workload = chosen.workload or (["W5"] if chosen.command == "sweep" else list(WORKLOADS))
    chosen.peer = list(PEERS) if chosen.peer is None else list(dict.fromkeys(["eager", *chosen.peer]))
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 5 if chosen.command == "sweep" else 15)
    return chosen


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of 1 or more expected")
    return int(text)


def sized(workload: Workload, chosen: argparse.Namespace) -> Workload:
    """The workload as the command line wants it."""
    networks = chosen.networks or (max(2, workload.networks // QUICK) if chosen.quick else workload.networks)
    return replace(workload, networks=networks, steps=chosen.steps or workload.steps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    chosen, console = parse(arguments), Console()
    torch.set_num_threads(chosen.threads)
    report: dict[str, Any] = {"machine": machine.facts(chosen.device), "rounds": chosen.rounds, "seed": SEED}
    for name, value in report["machine"].items():
        console.print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}", highlight=False)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.command == "sweep":
        path, plot = chosen.out / f"sweep-{chosen.over}", plots.sweep
        _sweep(report, chosen, console)
    else:
        path, plot = chosen.out / chosen.device.partition(":")[0], plots.ratios
        _table(report, chosen, console)
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"\n{path}.json", highlight=False, soft_wrap=True)
    if any(len(result["contenders"]) > 1 for result in report["results"]):
        plot(report, path.with_suffix(".png"))
        console.print(f"{path}.png", highlight=False, soft_wrap=True)


def _measure(workload: Workload, chosen: argparse.Namespace, report: dict[str, Any]) -> list[dict[str, Any]]:
    peak = report["machine"]["matmul_peak_gflops"] * 1e9
    return [
        measure(workload, optimizer, chosen.peer, chosen.rounds, SEED, chosen.device, peak)
        for optimizer in chosen.optimizer
    ]


def _table(report: dict[str, Any], chosen: argparse.Namespace, console: Console) -> None:
    report["results"], report["shuffling"] = [], {}
    for name in chosen.workload:
        workload = sized(WORKLOADS[name], chosen)
        results = [{"workload": name, **result} for result in _measure(workload, chosen, report)]
        report["results"] += results
        shape = "-".join(map(str, workload.widths))
        for result in results:
            console.print(rates(f"{name}: {shape}, B = {workload.batch:,}, N = {workload.networks:,}", result))
        if name in SHUFFLED:
            report["shuffling"][name] = sampling.cost(workload, chosen.rounds, SEED, chosen.device)
    console.print(f"modules trains a sample of {SAMPLE} networks. Peak: the FLOP/s of a large matmul.")
    if report["shuffling"]:
        console.print(shuffling(report["shuffling"]))


def _sweep(report: dict[str, Any], chosen: argparse.Namespace, console: Console) -> None:
    name = chosen.workload[0]
    report |= {"workload": name, "over": chosen.over, "results": []}
    for value in VALUES[chosen.over]:
        field = {"batch_size": "batch"}.get(chosen.over, chosen.over)
        workload = replace(sized(WORKLOADS[name], chosen), **{field: value})
        results = _measure(workload, chosen, report)
        report["results"] += results
        for result in results:
            console.print(rates(f"{name}: {chosen.over} {value:,}", result))


def rates(title: str, result: dict[str, Any]) -> Table:
    """The figures of one workload and optimizer."""
    first = next(iter(result["contenders"]))
    columns = ("network-steps/s", f"{first} / this (95 %)", "of peak")
    table = _table_of(f"{title}, {result['optimizer']}", ("contender",), columns)
    for name, own in result["contenders"].items():
        median, low, high = (_short(own["ratio"][key]) for key in ("median", "low", "high"))
        range_ = "1" if name == first else f"{median} ({low} to {high})"
        table.add_row(name, f"{own['rate']:,.0f}", range_, f"{own['share_of_peak']:.1%}")
    return table


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def shuffling(costs: dict[str, dict[str, Any]]) -> Table:
    """The price of the order, by workload and shuffle."""
    title = f"The order of the samples, {sampling.OPTIMIZER}: beside a step in data order"
    table = _table_of(title, ("workload", "shuffle"), ("ns per position", "order / step", "whole step / step"))
    for workload, cost in costs.items():
        for shuffle, own in cost.items():
            table.add_row(
                workload, shuffle, f"{own['ns_per_position']:.2f}", f"{own['share_of_step']['median']:.1%}",
                f"{own['step_over_unshuffled']['median']:.2f}",
            )  # fmt: skip
    return table


def _table_of(title: str, words: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    main()
