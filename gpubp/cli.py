"""The command line: gpubp train | resume | inspect | predict | explain. scripts/train.py is `gpubp train`.

Flags stand over the file of --config, that over the defaults. Results go to standard output, progress to standard
error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

import jsonargparse

from . import commands, runs
from .activations import ACTIVATIONS
from .config import HYPER, TrainConfig
from .errors import GpubpError, nearest
from .initialise import INITIALISERS
from .losses import LOSSES
from .optimizers import OPTIMIZERS
from .schedules import SCHEDULES, WARMUP
from .sources import SOURCES

DEMO = ["--lr", "1e-4..1e-1:log"]  # what `train` adds where it is given nothing: something to look at


class Parser(jsonargparse.ArgumentParser):
    """Errors name the nearest flag."""

    flags: tuple[str, ...] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with status 2 and one line that says what is wrong."""
        wrong = re.search(r"unrecognized arguments: --([\w-]+)|accept option '([\w.-]+)'", message)
        if wrong:
            name = (wrong.group(1) or wrong.group(2)).replace("_", "-")
            message += nearest("--" + name, self.flags)
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(2)


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="gpubp", description="Train very many small neural networks at once.", exit_on_error=True)
    subcommands = top.add_subcommands()
    flags: set[str] = set()
    made = {
        "train": (train_parser(), "train a population"),
        "resume": (resume_parser(), "go on with a run, or make it longer"),
        "inspect": (inspect_parser(), "the best, the worst and the diverged networks of a run"),
        "predict": (predict_parser(), "what a run's networks say to new samples"),
        "explain": (explain_parser(), "one step of one network with every number"),
    }
    for name, (each, about) in made.items():
        subcommands.add_subcommand(name, each, help=about)
        flags |= {option for action in each._actions for option in action.option_strings}
    Parser.flags = tuple(sorted(flags))
    return top


def train_parser() -> Parser:
    """Flags of `gpubp train`."""
    own = Parser(
        usage="gpubp train [--flag value ...]",
        description="Train a population. A hyper-parameter is a number, LOW..HIGH, LOW..HIGH:log, or A,B,C.",
    )
    own.add_argument("--config", action="config", help="a YAML file of these settings; flags stand over it")
    add = own.add_argument
    add("--data", type=str, default="digits", help=f"{', '.join(SOURCES)}, or a .csv, .parquet or .npz file")
    add("--target", type=str | None, default=None, help="the target columns of a file, separated by commas")
    add("--validation", type=float | None, default=None, help="share of the samples held out; 0.2 but for tiny data")
    add("--scale", type=str | None, default=None, help="inputs: none, standard, minmax, or a number to divide by")
    add("--scale-targets", type=str | None, default=None, help="targets that are numbers: none or standard")
    add("--impute", type=str | None, default=None, help="missing values: mean or median; refused by default")
    add("--networks", type=int | None, default=None, help="N; 1000, or 1 for the tutorial")
    add("--widths", type=str | None, default=None, help="of inputs, hidden layers and outputs: 64,32,10")
    add("--hidden", type=str, default="relu", help=f"one activation, or one per layer: {', '.join(ACTIVATIONS)}")
    add("--output", type=str, default="identity", help="activation of the last layer")
    add("--loss", type=str | None, default=None, help=f"by default as the data need: {', '.join(LOSSES)}")
    add("--bias", type=str, default="neuron", help="neuron, layer or none")
    add("--train-bias", type=bool, default=True, help="false freezes the biases")
    add("--init", type=str, default="glorot_uniform", help=", ".join(INITIALISERS))
    add("--init-scale", type=float | str | None, default=None, help="factor of the initial weights")
    add("--seed", type=int, default=0, help="of initial weights, order, dropout, split and sampling")
    notes = dict(re.findall(r"^ {8}(\w+): (.*)$", TrainConfig.__doc__ or "", re.M))
    usual = _usual()
    length = {
        "epochs": " (unless given: 20, or more for 400 steps)",
        "batch_size": " (unless given: 64, or all there are)",
    }
    tables = {"optimizer": list(OPTIMIZERS), "schedule": list(SCHEDULES)}
    for each in fields(TrainConfig):
        flag, note = "--" + each.name.replace("_", "-"), notes.get(each.name, "")
        if each.name in HYPER:
            add(
                flag,
                type=float | str | None,
                default=None,
                help=f"{note} Unless given: {usual[each.name]}.",
            )
        elif each.name in tables:
            add(flag, type=str, default=each.default, help=", ".join(tables[each.name]))
        elif each.name in ("epochs", "steps", "evaluate_every", "batch_size"):
            add(
                flag,
                type=int | None,
                default=None,
                help=note + length.get(each.name, ""),
            )
        elif each.name == "class_weight":
            add(flag, type=str | None, default=None, help="of cross_entropy: a number per class, separated by commas")
        elif each.name != "extra":
            add(flag, type=str, default=each.default, help=note)
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, or cuda:all: all share the networks")
    add("--dtype", type=str | None, default=None, help="float32 or float64; float32, but for the tutorial")
    add("--engine", type=str, default="auto", help="auto, cpu or cuda (compiled), or eager")
    add("--run-dir", type=str | None, default=None, help="a new directory; runs/DATA-DATE-TIME by default")
    add("--tensorboard", type=bool, default=True, help="write curves for TensorBoard, where it is installed")
    add("--checkpoint-minutes", type=float, default=5.0, help="between two checkpoints")
    add("--json", action="store_true", help="one JSON object on standard output, last")
    return own


def _usual() -> dict[str, str]:
    """What each hyper-parameter is where nobody gives it, in words."""
    found: dict[str, list[str]] = {name: [] for name in HYPER}
    defaults = [(name, row.defaults) for name, row in SCHEDULES.items()]
    defaults += [(name, row.defaults) for name, row in LOSSES.items()]
    defaults += [
        (name, {"lr": row.lr, "weight_decay": row.weight_decay, **row.defaults}) for name, row in OPTIMIZERS.items()
    ]
    for row, own in defaults:
        for name, value in own.items():
            found.setdefault(name, []).append(f"{value:g} ({row})")
    for name, value in WARMUP.items():
        found[name].append(f"{value:.4g}")
    return {name: ", ".join(texts) or "off" for name, texts in found.items()}


def _run_parser(about: str) -> Parser:
    own = Parser(description=about)
    own.add_argument("run", type=str, help="the directory of a run")
    return own


def resume_parser() -> Parser:
    """Flags of `gpubp resume`."""
    own = _run_parser("Go on with a run, to the same bits as if it had never stopped.")
    own.add_argument("--epochs", type=int | None, default=None, help="more than before: makes the run longer")
    own.add_argument("--steps", type=int | None, default=None, help="the same, for a run that counts steps")
    own.add_argument("--device", type=str | None, default=None, help="as of train; by default where the run trained")
    own.add_argument("--json", action="store_true", help="one JSON object on standard output, last")
    return own


def inspect_parser() -> Parser:
    """Flags of `gpubp inspect`."""
    own = _run_parser("The best, the worst and the diverged networks of a run, with their hyper-parameters.")
    own.add_argument("--top", type=int, default=5, help="how many of each")
    own.add_argument("--json", action="store_true", help="as one JSON object")
    return own


def predict_parser() -> Parser:
    """Flags of `gpubp predict`."""
    own = _run_parser("Predict the samples of a file, as CSV.")
    own.add_argument("--data", type=str, required=True, help="a file with the input columns of the training")
    own.add_argument("--networks", type=str, default="best", help="best, a number K (mean of the best K), or all")
    own.add_argument("--output", type=str | None, default=None, help="a new .csv file; standard output by default")
    return own


def explain_parser() -> Parser:
    """Flags of `gpubp explain`."""
    own = Parser(description="The next step of one network of a run, with every number; by default the tutorial's.")
    own.add_argument("run", type=str, nargs="?", default="tutorial", help="the directory of a run, or tutorial")
    own.add_argument("--network", type=int, default=0, help="its row")
    own.add_argument("--full", action="store_true", help="every unit and term, however many")
    own.add_argument("--json", action="store_true", help="as one JSON object")
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. -> exit status: 0; 1 for what is refused; 128 + n when signal n ended a training early."""
    given = [_dashed(each) for each in (sys.argv[1:] if arguments is None else arguments)]
    if given == ["train"]:
        sys.stderr.write(f"nothing asked for, so: gpubp train {' '.join(DEMO)}\n")
        given += DEMO
    settings: Any = parser().parse_args(given)
    name = settings.subcommand
    chosen = settings[name].as_dict()
    chosen.pop("config", None)
    try:
        return int(getattr(commands if name in ("train", "resume") else runs, name)(chosen))
    except GpubpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:  # whoever read standard output has gone
        sys.stderr.close()
        return 141


def _dashed(argument: str) -> str:
    """--batch_size is --batch-size."""
    flag, equals, value = argument.partition("=")
    if flag == "--print_config":  # jsonargparse's own
        return argument
    return (flag.replace("_", "-") if flag.startswith("--") else flag) + equals + value
