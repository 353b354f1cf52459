"""python -m benchmarks: measure, print tables, write JSON and plots. See python -m benchmarks --help."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gpubp.errors import DeviceError
from gpubp.system.devices import usable

from . import calls, digits, layouts, machine, plots, sweeps, tables, whole
from .contenders import PEERS, excuse, ours
from .harness import Setting, measure, own_kernels
from .limits import compiler
from .workloads import WORKLOADS, Workload

END_TO_END, SCIKIT = "W5b", "scikit_learn"
ROUNDS = {"sweep": 5, "whole": 7}
SEED = 0
PATIENCE = 2.0  # seconds of the calls of one contender on one row; three rounds run in any case
SCIKIT_NETWORKS = 64  # trained by scikit-learn in W5b; all 1,000 would take 16 times as long
CONSOLE = tables.screen()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    begun, chosen = time.perf_counter(), parse(arguments)
    limits = machine.limit(chosen.threads, chosen.device)
    report: dict[str, Any] = {"machine": machine.facts(chosen.device, limits), "rounds": chosen.rounds, "seed": SEED}
    report |= {"patience": PATIENCE, "first": ours(chosen.device)}
    for name, value in report["machine"].items():
        if name != "all_cpu_flags":
            say(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    peak = report["machine"]["peak_gflops"] * 1e9
    setting = Setting(chosen.rounds, SEED, chosen.device, peak, PATIENCE)
    path = _file(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with own_kernels():
            COMMANDS[chosen.command](report, chosen, setting)
    finally:  # keeps what was measured before an error
        report["seconds"] = time.perf_counter() - begun
        path.write_text(json.dumps(report) + "\n")
    say(str(path))
    if any(len(result["contenders"]) > 1 for result in report.get("results", [])):
        picture = path.with_suffix(".png")
        (plots.sweep if "over" in report else plots.ratios)(report, picture)
        say(str(picture))
    say(f"{report['seconds']:.0f} s in all")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; for an unknown name exit with the allowed ones."""
    everything, peers = [*WORKLOADS, END_TO_END], [*PEERS, SCIKIT]
    parser = argparse.ArgumentParser("python -m benchmarks", description="gpubp against its peers, on this machine")
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="table", help="layouts: compare "
                        "those of engine cpu; calls: of one step, back to back; whole: the command line part "
                        "by part, and against JAX")  # fmt: skip
    parser.add_argument("--workload", nargs="+", choices=everything, metavar="W", help=f"of {', '.join(everything)}; "
                        f"{END_TO_END} is the digits against scikit-learn; a sweep has one of the others")  # fmt: skip
    parser.add_argument("--peer", nargs="+", choices=peers, metavar="NAME", help=f"of {', '.join(peers)}; ratios "
                        "are to gpubp's first engine on the device, which is added if missing")  # fmt: skip
    parser.add_argument("--optimizer", nargs="+", choices=("sgd", "adam"), help="default: the workload's; in a "
                        "sweep sgd")  # fmt: skip
    parser.add_argument("--over", choices=sweeps.VALUES, default="batch_size", help="what `sweep` varies")
    parser.add_argument("--networks", type=_count, help="default: the workload's")
    parser.add_argument("--steps", type=_count, help="steps per call, default: the workload's; a "
                        "sweep then has as many at every point")  # fmt: skip
    parser.add_argument("--rounds", type=_count, help="most calls of each contender (15; 5 in a sweep)")
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="of every contender; "
                        "fewer than the cores if other programs are running")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    chosen = parser.parse_args(arguments)
    try:
        chosen.device = str(usable(chosen.device))
    except DeviceError as error:
        parser.error(str(error))
    if chosen.command == "sweep" and chosen.workload:
        (name, *others), over = chosen.workload, chosen.over
        if others or name not in WORKLOADS or (over == "width" and WORKLOADS[name].mixed):
            parser.error(f"sweep --over {over}: one workload expected, not {END_TO_END}, nor for widths W6-mixed")
    if chosen.command == "layouts" and (chosen.device != "cpu" or not compiler()):
        parser.error(f"{chosen.command} measures the engine cpu: a C++ compiler, and --device cpu, expected")
    chosen.peer = list(dict.fromkeys([ours(chosen.device), *(chosen.peer or peers)]))
    chosen.rounds = chosen.rounds or ROUNDS.get(chosen.command, 15)
    return chosen


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of 1 or more expected")
    return int(text)


def sized(workload: Workload, chosen: argparse.Namespace) -> Workload:
    """The workload with the command line's sizes."""
    return replace(workload, networks=chosen.networks or workload.networks, steps=chosen.steps or workload.steps)


def say(line: str) -> None:
    """A line of text."""
    CONSOLE.print(line, highlight=False, soft_wrap=True)


def _file(chosen: argparse.Namespace) -> Path:
    """The report's."""
    device = chosen.device.partition(":")[0]
    named = {"table": device, "sweep": f"sweep-{chosen.over}"}.get(chosen.command, chosen.command)
    return chosen.out / f"{named}{'' if device in ('cpu', named) else f'-{device}'}.json"


def _show(title: str, result: dict[str, Any]) -> None:
    CONSOLE.print(tables.rates(title, result))
    for line in tables.absent(result):
        say(line)


def _table(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    report |= {"results": [], "end_to_end": None}
    goals = {}
    peers, names = [name for name in chosen.peer if name in PEERS], chosen.workload or [*WORKLOADS, END_TO_END]
    for name in [name for name in names if name in WORKLOADS]:
        workload = sized(WORKLOADS[name], chosen)
        goals |= {(name, each): goal for each, goal in zip(workload.optimizers, workload.goals)}
        title = f"{name}: {workload.shape}, B = {workload.batch:,}, N = {workload.networks:,}, K = {workload.steps}"
        for optimizer in chosen.optimizer or workload.optimizers:
            skipped = sweeps.without_room(workload, optimizer, peers, {}, setting)
            result = {"workload": name, **measure(workload, optimizer, peers, setting, skipped)}
            report["results"].append(result)
            _show(title, result)
    if report["results"]:
        CONSOLE.print(f"Peak: {report['machine']['peak_of']}. Compile "
                      "s: not in the rates; pays after: steps of all networks, against eager.")  # fmt: skip
        CONSOLE.print(tables.summary(report["results"], goals))
    if END_TO_END in names and chosen.device != "cpu":
        say(f"{END_TO_END}: against scikit-learn, only on the CPU")
    elif END_TO_END in names and SCIKIT in chosen.peer:
        _end_to_end(report, chosen, setting)


def _end_to_end(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    networks = sized(WORKLOADS["W5"], chosen).networks
    rounds = setting._replace(rounds=min(setting.rounds, 5))
    sample = min(networks, SCIKIT_NETWORKS)
    report["end_to_end"] = digits.race(ours(chosen.device), networks, sample, chosen.threads, rounds)
    CONSOLE.print(tables.end_to_end(report["end_to_end"]))
    CONSOLE.print("Initial weights and minibatches differ: each has the epochs that its median network needs for "
                  "that accuracy; `per step` compares whole trainings by their number of steps, whatever the accuracy. "
                  "scikit-learn trains a sample of the networks; ratios are per network.")  # fmt: skip


def _sweep(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    name, workload = sweeps.BASES[chosen.over]
    if chosen.workload:
        name, workload = chosen.workload[0], WORKLOADS[chosen.workload[0]]
    report |= {"workload": name, "over": chosen.over, "results": []}
    peers = [name for name in chosen.peer if name in PEERS]
    for optimizer in chosen.optimizer or ("sgd",):
        all_steps = chosen.steps is not None
        for point in sweeps.points(sized(workload, chosen), chosen.over, optimizer, peers, setting, all_steps):
            report["results"].append(point)
            _show(f"{name}: {chosen.over} {point['value']:,}, N = {point['networks']:,}, K = {point['steps']}", point)


def _calls(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    report["calls"] = calls.measure(ours(chosen.device), setting)
    CONSOLE.print(tables.calls(report["calls"]))


def _evaluations(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    report["evaluations"] = calls.evaluations(ours(chosen.device), setting)
    CONSOLE.print(tables.evaluations(report["evaluations"]))


def _whole(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    report |= {"command_lines": {}, "beside_jax": []}
    for name, words in whole.command_lines(chosen.device, chosen.networks).items():
        found = whole.runs(words, min(whole.RUNS, chosen.rounds), chosen.threads, chosen.device)
        report["command_lines"][name] = found
        CONSOLE.print(tables.parts(name, found))
    if reason := excuse("jax_first", WORKLOADS["W2"], "sgd", chosen.device):
        say(f"whole trainings against JAX: {reason}")
        return
    for case in whole.CASES:
        networks = chosen.networks or case.networks
        report["beside_jax"].append(whole.beside_jax(case._replace(networks=networks), setting))
    CONSOLE.print(tables.beside_jax(report["beside_jax"]))


def _layouts(report: dict[str, Any], chosen: argparse.Namespace, setting: Setting) -> None:
    report["cases"] = list(layouts.cases(setting))
    report["sharing"] = list(layouts.sharing(chosen.threads, setting))
    report["registers"] = list(layouts.registers(setting))
    excess = [case["excess"] for case in report["cases"]]
    report["excess"] = {"mean": statistics.mean(excess), "most": max(excess)}
    CONSOLE.print(tables.lanes(report["cases"], layouts.OPTIMIZERS[-1]))
    mean, most = (f"{report['excess'][name]:.1%}" for name in ("mean", "most"))
    say(f"In {len(excess)} cases the chosen layout took {mean} more time than the fastest, at most {most}")
    title = f"One network on {chosen.threads} threads that share it over one thread, adam"
    CONSOLE.print(tables.gains(title, report["sharing"]))
    CONSOLE.print(tables.gains("Three registers side by side over one, sgd, one thread", report["registers"]))


COMMANDS: dict[str, Callable[[dict[str, Any], argparse.Namespace, Setting], None]] = {
    "table": _table, "sweep": _sweep, "layouts": _layouts, "calls": _calls, "evaluations": _evaluations,
    "whole": _whole,
}  # fmt: skip


if __name__ == "__main__":
    main()
