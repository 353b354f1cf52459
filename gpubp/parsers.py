"""The flags of every command, and train_kinds(): what each setting of a training may be, in a file as on the command
line. A value that is refused, and a flag that is none, ends with one line and status 2.
"""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, Action
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from . import files
from .errors import GpubpError, nearest, unknown
from .flags import COUNT, FLAGS, INDEX, KINDS, NUMBER, NUMBERS, TEXT, TRUTH, Kind
from .line import line, short


class Help(jsonargparse.DefaultHelpFormatter):
    """What a flag is, and its default where it has one."""

    def _get_help_string(self, action: Action) -> str:
        plain = action.default in (None, SUPPRESS) or isinstance(action.default, bool)
        return (action.help or "") + ("" if plain else f" (default: {action.default})")


class Parser(jsonargparse.ArgumentParser):
    """Errors are one line, and name the nearest flag."""

    commands: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **settings)

    def flag(self, name: str, kind: Kind, about: str, default: Any = None) -> None:
        """Add --name; without a default it may be null, as in a file that says nothing of it."""
        known = kind.or_null() if default is None else kind
        self.add_argument(name, type=known, default=default, help=about, metavar=kind.name)

    def switch(self, name: str, about: str) -> None:
        """Add --name, which takes no value."""
        self.add_argument(name, action="store_true", help=about)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with status 2 and one line that says what is wrong."""
        sys.stderr.write(f"error: {short(self.reworded(line(message)))}\n")
        raise SystemExit(2)

    def parse_path(self, path: Any, *arguments: Any, **settings: Any) -> Any:
        """The file of --config, refused where it is not plain: jsonargparse would go through all that it refers to."""
        try:
            found = files.read_settings(Path(path))
        except GpubpError as error:
            self.error(str(error))
        if not isinstance(found, dict):
            self.error(f"{path}: settings by name expected, such as networks: 100")
        return super().parse_path(path, *arguments, **settings)

    def reworded(self, message: str) -> str:
        """What argparse or jsonargparse says, in our words."""
        if found := re.match(r"argument subcommand: invalid choice: '(.*?)'", message):
            return unknown("command", found[1], self.commands)
        if message.startswith('expected "subcommand"'):
            return f"a command expected: {', '.join(self.commands)}; gpubp --help"
        if found := re.match(r"argument ([\w-]+): (.*)", message):
            return f"{found[1]} {found[2]}"
        if found := re.match(r"""Parser key "config": (?:File|Path) .*?: '(.*)'""", message):
            return f"--config {found[1]}: a file of settings, one that can be read, expected"
        if found := re.match(r'Parser key "(\w+)": (.*)', message):  # of a file
            return f"{found[1]} {found[2]}"
        if found := re.search(r"unrecognized arguments: --([\w-]+)|accept option '([\w.-]+)'", message):
            name = (found[1] or found[2]).replace("_", "-")
            return message + nearest("--" + name, self.flags)
        return message


def train_parser() -> Parser:
    """Flags of `gpubp train`."""
    own = Parser(
        usage="gpubp train [--flag value ...]",
        description="Train a population. NUMBERS are a number for all networks, a range LOW..HIGH or LOW..HIGH:log to "
        "sample, or a grid A,B,C.",
    )
    own.add_argument("--config", action="config", help="a YAML file of these settings; flags override it")
    add, rows = own.flag, {name: ", ".join(names) for name, names in FLAGS["tables"].items()}
    add("--data", TEXT, f"{rows['data']}, or a .csv, .tsv, .parquet or .npz file", "digits")
    add("--target", TEXT, "the target columns of a file, separated by commas")
    add("--task", TEXT, "classification or regression; by default judged from the targets, and printed")
    add("--drop", TEXT, "columns of a file to leave out, separated by commas")
    add("--text", TEXT, "columns that hold text, whatever it looks like: an input per category, however many")
    add(
        "--dates",
        TEXT,
        "columns of dates, read as days since 1970; NAME=FORMAT (strptime) where the format is ambiguous",
    )
    add("--delimiter", TEXT, "between columns of text; by default as the file shows: comma, semicolon, tab or |")
    add("--decimal", TEXT, "the point of numbers; . by default")
    add("--thousands", TEXT, "what stands between groups of digits; nothing by default")
    add("--encoding", TEXT, "of a file of text: latin-1, cp1252; by default its byte order mark, or utf-8")
    add("--validation", NUMBER, "fraction of the samples held out; 0.2, or 0 for tutorial and xor")
    add("--scale", TEXT, "inputs: none, standard, minmax, or a number to divide by")
    add("--scale-targets", TEXT, "targets that are numbers: none or standard")
    add("--impute", TEXT, "missing values: mean or median; refused by default")
    add("--networks", COUNT, "N; 1000, or 1 for the tutorial")
    add("--widths", TEXT, "of inputs, hidden layers and outputs: 64,32,10")
    add("--hidden", TEXT, f"one activation, or one per layer: {rows['activation']}", "relu")
    add("--output", TEXT, "activation of the last layer", "identity")
    add("--loss", TEXT, f"by default chosen for the data: {rows['loss']}")
    add("--bias", TEXT, "neuron, layer or none", "neuron")
    add("--train-bias", TRUTH, "whether biases train; true by default", True)
    add("--init", TEXT, rows["init"], "glorot_uniform")
    add("--init-scale", NUMBERS, "factor of the initial weights")
    add("--seed", INDEX, "of initial weights, order, dropout, split and sampling", 0)
    special = {  # of the command line, beside TrainConfig's own words
        "optimizer": rows["optimizer"],
        "schedule": rows["schedule"],
        "class_weight": "of cross_entropy: a number per class, separated by commas",
        "batch_size": "B, samples per step; 64, or all there are",
        "epochs": "passes through the samples: ceil(epochs M / B) steps; 20, or as many as make 400 steps",
        "steps": "training steps, instead of epochs",
    }
    for name, each in FLAGS["settings"].items():
        default = None if name == "batch_size" else each["default"]  # by how many samples there are
        add("--" + name.replace("_", "-"), KINDS[each["kind"]], special.get(name, each["about"]), default)
    add("--device", TEXT, "auto, cpu, cuda, cuda:1, or cuda:all: all share the networks", "auto")
    add("--dtype", TEXT, "float32 or float64; float32, but for the tutorial")
    add("--engine", TEXT, "auto, cpu or cuda (compiled), or eager", "auto")
    add("--run-dir", TEXT, "a new directory; runs/DATA-DATE-TIME by default")
    add("--tensorboard", TRUTH, "curves for TensorBoard, where it is installed; true by default", True)
    add("--checkpoint-minutes", NUMBER, "between two checkpoints", 5.0)
    own.switch("--json", "one JSON object on standard output, last")
    return own


def _run_parser(about: str) -> Parser:
    own = Parser(description=about)
    own.add_argument("run", type=TEXT, help="the directory of a run")
    return own


def resume_parser() -> Parser:
    """Flags of `gpubp resume`."""
    own = _run_parser("Go on with a run, to the same bits as if it had never stopped.")
    own.flag("--epochs", COUNT, "more than before: makes the run longer")
    own.flag("--steps", COUNT, "the same, for a run that counts steps")
    own.flag("--device", TEXT, "as of train; by default where the run trained")
    own.switch("--force", "take over a run whose process is gone but whose lock remains")
    own.switch("--json", "one JSON object on standard output, last")
    return own


def inspect_parser() -> Parser:
    """Flags of `gpubp inspect`."""
    own = _run_parser("The best, the worst and the diverged networks of a run, with their hyper-parameters.")
    own.flag("--top", COUNT, "how many of each", 5)
    own.switch("--json", "as one JSON object")
    return own


def predict_parser() -> Parser:
    """Flags of `gpubp predict`."""
    own = _run_parser("Predict the samples of a file, as CSV.")
    own.add_argument(
        "--data", type=TEXT, required=True, metavar="TEXT", help="a file with the training's input columns"
    )
    own.flag("--networks", TEXT, "best, a number K for the best K, or all: their mean", "best")
    own.switch("--proba", "the probability of each class instead of the class")
    own.switch("--each", "each network in a column of its own instead of the mean")
    own.flag("--output", TEXT, "a new .csv file; standard output by default")
    return own


def explain_parser() -> Parser:
    """Flags of `gpubp explain`."""
    own = Parser(description="The next step of one network of a run, with every number; by default the tutorial's.")
    own.add_argument("run", type=TEXT, nargs="?", default="tutorial", help="the directory of a run, or tutorial")
    own.flag("--network", INDEX, "its row", 0)
    own.switch("--full", "every unit and term, however many")
    own.switch("--json", "as one JSON object")
    return own


def train_kinds() -> dict[str, Kind]:
    """What the settings of `gpubp train` take, by name."""
    return {action.dest: action.type for action in train_parser()._actions if isinstance(action.type, Kind)}
