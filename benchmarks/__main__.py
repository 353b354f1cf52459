"""python -m benchmarks: measure, print tables, write JSON and plots. See python -m benchmarks --help."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from . import (
    calls,
    digits,
    layouts,
    machine,
    plots,
    sweeps,
    tables,
    threads,
    whole,
)
from .arguments import END_TO_END, SCIKIT, parse, sized
from .contenders import PEERS, ours
from .harness import Setting, measure, own_kernels
from .workloads import WORKLOADS, Workload

SEED = 0
WIDE = 140  # columns, unless on a terminal
SCIKIT_NETWORKS = 64  # trained by scikit-learn in W5b; all 1,000 would take 16 times as long


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    begun, chosen, console = time.perf_counter(), parse(arguments), Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    limits = threads.limit(chosen.threads, chosen.device)
    with own_kernels():
        _run(chosen, limits, console, begun)


def _run(chosen: argparse.Namespace, limits: dict[str, Any], console: Console, begun: float) -> None:
    report: dict[str, Any] = {"machine": machine.facts(chosen.device, limits), "rounds": chosen.rounds, "seed": SEED}
    report |= {"patience": chosen.patience, "quick": chosen.quick, "first": ours(chosen.device)}
    for name, value in report["machine"].items():
        if name != "all_cpu_flags":
            console.print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}", highlight=False)
    peak = report["machine"]["peak_gflops"] * 1e9
    setting = Setting(chosen.rounds, SEED, chosen.device, peak, chosen.patience)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path, measured = _kind(chosen)
    try:
        measured(report, chosen, setting, console)
    finally:  # keeps what was measured before an error
        report["seconds"] = time.perf_counter() - begun
        path.write_text(json.dumps(report) + "\n")
    for written in (path, *_drawn(report, path)):
        console.print(str(written), highlight=False, soft_wrap=True)
    console.print(f"{report['seconds']:.0f} s in all", highlight=False)


def _kind(chosen: argparse.Namespace) -> tuple[Path, Callable[..., None]]:
    """The report's file, and the function that measures."""
    device = chosen.device.partition(":")[0]
    if chosen.command == "table":
        name, measured = device, _table
    elif chosen.command == "sweep":
        name, measured = f"sweep-{chosen.over}" + ("" if device == "cpu" else f"-{device}"), _sweep
    else:
        commands = {
            "layouts": _layouts, "calls": _calls, "evaluations": _evaluations, "whole": _whole,
        }  # fmt: skip
        name, measured = chosen.command + ("" if device == "cpu" else f"-{device}"), commands[chosen.command]
    return chosen.out / f"{name}.json", measured


def _title(name: str, workload: Workload) -> str:
    return f"{name}: {workload.shape}, B = {workload.batch:,}, N = {workload.networks:,}, K = {workload.steps}"


def _show(console: Console, title: str, result: dict[str, Any]) -> None:
    console.print(tables.rates(title, result))
    for line in tables.absent(result):
        console.print(line, highlight=False)


def _table(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    report |= {"results": [], "end_to_end": None}
    goals = {}
    peers = [name for name in chosen.peer if name in PEERS]
    for name in [name for name in chosen.workload if name in WORKLOADS]:
        workload = sized(WORKLOADS[name], chosen)
        goals |= {(name, each): goal for each, goal in zip(workload.optimizers, workload.goals)}
        for optimizer in chosen.optimizer or workload.optimizers:
            skipped = sweeps.without_room(workload, optimizer, peers, {}, setting)
            result = {"workload": name, **measure(workload, optimizer, peers, setting, skipped)}
            report["results"].append(result)
            _show(console, _title(name, workload), result)
    if report["results"]:
        console.print(f"Peak: {report['machine']['peak_of']}. Compile "
                      "s: not in the rates; pays after: steps of all networks, against eager.")  # fmt: skip
        console.print(tables.summary(report["results"], goals))
    if END_TO_END in chosen.workload and chosen.device != "cpu":
        console.print(f"{END_TO_END}: against scikit-learn, only on the CPU", highlight=False)
    elif END_TO_END in chosen.workload and SCIKIT in chosen.peer:
        _end_to_end(report, chosen, setting, console)


def _end_to_end(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    networks = sized(WORKLOADS["W5"], chosen).networks
    rounds = setting._replace(rounds=min(setting.rounds, 5))
    sample = min(networks, SCIKIT_NETWORKS)
    report["end_to_end"] = digits.race(ours(chosen.device), networks, sample, chosen.threads, rounds)
    console.print(tables.end_to_end(report["end_to_end"]))
    console.print("Initial weights and minibatches differ: each has the epochs that its median network needs for "
                  "that accuracy; `per step` compares whole trainings by their number of steps, whatever the accuracy. "
                  "scikit-learn trains a sample of the networks; ratios are per network.")  # fmt: skip


def _sweep(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    name, workload = chosen.base
    report |= {"workload": name, "over": chosen.over, "results": []}
    peers = [name for name in chosen.peer if name in PEERS]
    for optimizer in chosen.optimizer or ("sgd",):
        base, all_steps = sized(workload, chosen), chosen.steps is not None
        points = sweeps.points(base, chosen.over, optimizer, peers, setting, chosen.quick, all_steps)
        for point in points:
            report["results"].append(point)
            title = f"{name}: {chosen.over} {point['value']:,}, N = {point['networks']:,}, K = {point['steps']}"
            _show(console, title, point)


def _calls(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    report["calls"] = calls.measure(ours(chosen.device), setting)
    console.print(tables.calls(report["calls"]))


def _evaluations(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    report["evaluations"] = calls.evaluations(ours(chosen.device), setting)
    console.print(tables.evaluations(report["evaluations"]))


def _whole(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    report |= {"command_lines": {}, "beside_jax": []}
    count = 1 if chosen.quick else whole.RUNS
    for name, words in whole.command_lines(chosen.device, chosen.networks).items():
        report["command_lines"][name] = whole.runs(words, count, chosen.threads, chosen.device)
        console.print(tables.parts(name, report["command_lines"][name]))
    if reason := whole.without_jax():
        console.print(f"whole trainings against JAX: {reason}", highlight=False)
        return
    for case in whole.CASES[: 1 if chosen.quick else None]:
        networks = chosen.networks or case.networks
        report["beside_jax"].append(whole.beside_jax(case._replace(networks=networks), setting))
    console.print(tables.beside_jax(report["beside_jax"]))


def _layouts(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting, console: Console) -> None:
    report["cases"] = list(layouts.cases(setting, chosen.quick))
    report["sharing"] = list(layouts.sharing(chosen.threads, setting))
    report["registers"] = list(layouts.registers(setting))
    excess = [case["excess"] for case in report["cases"]]
    report["excess"] = {"mean": statistics.mean(excess), "most": max(excess)}
    console.print(tables.lanes(report["cases"], layouts.OPTIMIZERS[-1]))
    mean, most = (f"{report['excess'][name]:.1%}" for name in ("mean", "most"))
    console.print(f"In {len(excess)} cases the chosen layout took {mean} more time than the fastest, at most {most}")
    title = f"One network on {chosen.threads} threads that share it over one thread, adam"
    console.print(tables.gains(title, report["sharing"]))
    console.print(tables.gains("Three registers side by side over one, sgd, one thread", report["registers"]))


def _drawn(report: dict[str, Any], path: Path) -> list[Path]:
    """Plot results with more than one contender, next to the report."""
    if not any(len(result["contenders"]) > 1 for result in report.get("results", [])):
        return []
    picture = path.with_suffix(".png")
    (plots.sweep if "over" in report else plots.ratios)(report, picture)
    return [picture]


if __name__ == "__main__":
    main()
