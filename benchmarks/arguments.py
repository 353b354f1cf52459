"""The command line of python -m benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gpubp.errors import DeviceError
from gpubp.system.devices import usable

from .contenders import PEERS, ours
from .limits import compiler
from .sweeps import VALUES
from .workloads import WORKLOADS, Workload

END_TO_END, SCIKIT = "W5b", "scikit_learn"
COMMANDS = ("table", "sweep", "layouts", "calls", "evaluations", "whole")
ROUNDS = {"sweep": 5, "whole": 7}


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
    parser.add_argument("--over", choices=VALUES, default="batch_size", help="what `sweep` varies")
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
