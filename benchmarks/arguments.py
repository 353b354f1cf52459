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
from .sweeps import BASES, VALUES
from .workloads import WORKLOADS, Mixed, Workload, expand

END_TO_END, SCIKIT = "W5b", "scikit_learn"
COMMANDS = ("table", "sweep", "layouts", "calls", "evaluations", "whole")
QUICK = 16  # times fewer networks
GROUPS = list(dict.fromkeys(name.partition("-")[0] for name in WORKLOADS))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; for an unknown name exit with the allowed ones."""
    everything = [*dict.fromkeys([*GROUPS, *WORKLOADS]), END_TO_END]
    peers = [*PEERS, SCIKIT]
    parser = argparse.ArgumentParser("python -m benchmarks", description="gpubp against its peers, on this machine")
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="table", help="layouts: compare "
                        "those of engine cpu; calls: of one step, back to back; whole: the command line part "
                        "by part, and against JAX")  # fmt: skip
    parser.add_argument("--workload", nargs="+", choices=everything, metavar="W", help=f"of {', '.join(everything)}: "
                        f"W3 is all that start with it; {END_TO_END} is the digits against scikit-learn")  # fmt: skip
    parser.add_argument("--peer", nargs="+", choices=peers, metavar="NAME", help=f"of {', '.join(peers)}; ratios "
                        "are to gpubp's first engine on the device, which is added if missing")  # fmt: skip
    parser.add_argument("--optimizer", nargs="+", choices=("sgd", "adam"), help="default: the workload's; in a "
                        "sweep sgd")  # fmt: skip
    parser.add_argument("--over", choices=VALUES, default="batch_size", help="what `sweep` varies")
    parser.add_argument("--networks", type=_count, help="default: the workload's")
    parser.add_argument("--steps", type=_count, help="steps per call, default: the workload's; a "
                        "sweep then has as many at every point")  # fmt: skip
    parser.add_argument("--rounds", type=_count, help="most calls of each contender (15; 5 in a sweep; 3 with "
                        "--quick)")  # fmt: skip
    parser.add_argument("--patience", type=float, default=2.0, metavar="SECONDS", help="limit for the calls of "
                        "one contender on one row; three rounds run in any case")  # fmt: skip
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="of every contender; "
                        "fewer than the cores if other programs are running")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} times fewer networks, 3 rounds: a smoke test")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    chosen = parser.parse_args(arguments)
    try:
        chosen.device = str(usable(chosen.device))
    except DeviceError as error:
        parser.error(str(error))
    if chosen.command == "sweep":
        _check_sweep(parser, chosen)
    if chosen.command == "layouts" and (chosen.device != "cpu" or not compiler()):
        parser.error(f"{chosen.command} measures the engine cpu: a C++ compiler, and --device cpu, expected")
    given = chosen.workload or everything
    chosen.workload = [*expand(given), *([END_TO_END] if END_TO_END in given else [])]
    chosen.peer = _ordered(ours(chosen.device), peers if chosen.peer is None else chosen.peer)
    few = {"sweep": 5, "whole": 7}
    chosen.rounds = chosen.rounds or (3 if chosen.quick else few.get(chosen.command, 15))
    return chosen


def _check_sweep(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    names = expand(chosen.workload or [])
    if chosen.workload and (len(chosen.workload) > 1 or not names):
        parser.error(f"sweep takes one workload, of {', '.join([*GROUPS, *WORKLOADS])}")
    if len(names) > 1:
        parser.error(f"sweep takes one workload, {chosen.workload[0]} is several: {', '.join(names)}")
    chosen.base = (names[0], WORKLOADS[names[0]]) if names else BASES[chosen.over]
    if chosen.over == "width" and isinstance(chosen.base[1], Mixed):
        parser.error(f"sweep --over width: {names[0]} has several widths; another workload expected")


def _ordered(first: str, names: Sequence[str]) -> list[str]:
    """Each name once, `first` in front."""
    return list(dict.fromkeys([first, *names]))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of 1 or more expected")
    return int(text)


def sized(workload: Workload, chosen: argparse.Namespace) -> Workload:
    """The workload with the command line's sizes."""
    networks = chosen.networks or (max(2, workload.networks // QUICK) if chosen.quick else workload.networks)
    return replace(workload, networks=networks, steps=chosen.steps or workload.steps)
