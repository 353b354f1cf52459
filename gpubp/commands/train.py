"""gpubp train: train a population on data by name or from a file, or the tutorial's network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, lookup
from ..system.flags import COUNT, FLAGS, INDEX, KINDS, NUMBER, NUMBERS, TEXT, TRUTH, Kind, flag_of
from . import clusters, designs, plans, searches
from .parser import Parser

if TYPE_CHECKING:
    import torch

    from ..results.result import Result
    from ..samples.sources import Prepared
    from ..settings.config import TrainConfig

ABOUT = "train a population"
LENGTH = 20, 400  # the default length of training: epochs or steps, whichever is longer
TUTORIAL = {  # the settings of --data tutorial
    "optimizer": "sgd", "hidden": "sigmoid", "output": "sigmoid", "bias": "layer", "train_bias": False,
    "widths": "2,2,2", "loss": "half_squared_error", "batch_size": 1,
}  # fmt: skip
LACKS = (  # flags that --data tutorial does not take
    "init_scale", "class_weight", "scale", "scale_targets", "target", "impute", "validation", "per", "min_samples",
    "folds", "group", "stratify", "bootstrap", "design", "slots", "hidden_width", "search", "budget", "factor",
    "cluster", "shards", "task", "delimiter", "decimal", "thousands", "encoding", "drop", "text", "dates",
)  # fmt: skip


@cache  # other commands use its kinds
def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        usage="gpubp train [--flag value ...]",
        description="Train a population. NUMBERS are a number for all networks, a range LOW..HIGH or LOW..HIGH:log "
        "that is sampled, or a grid A,B,C.",
    )
    flags.add_argument("--config", action="config", help="a YAML file of these settings; flags override it")
    add, rows = flags.flag, {name: ", ".join(names) for name, names in FLAGS["tables"].items()}
    add("--data", TEXT, f"{rows['data']}, or a .csv, .tsv, .parquet or .npz file", "digits")
    add("--target", TEXT, "the target columns of a file, separated by commas")
    add("--task", TEXT, "classification or regression; by default guessed from the targets, and printed")
    add("--drop", TEXT, "columns of a file to leave out, separated by commas")
    add("--text", TEXT, "columns read as text, whatever they look like: an input per category")
    add("--dates", TEXT, "columns of dates, read as days since 1970; NAME=FORMAT (strptime) if the format is ambiguous")
    add("--delimiter", TEXT, "between columns of text; by default detected: comma, semicolon, tab or |")
    add("--decimal", TEXT, "the decimal point; . by default")
    add("--thousands", TEXT, "the separator of groups of digits; none by default")
    add("--encoding", TEXT, "of a text file: latin-1, cp1252; by default from its byte order mark, or utf-8")
    add("--validation", NUMBER, "fraction of the samples held out; 0.2, or 0 for tutorial and xor")
    add("--folds", COUNT, "cross-validation, instead of --validation: every setting trains a network for each fold")
    add("--group", TEXT, "with --folds: a column, no input, whose values stay in one fold")
    add(
        "--stratify", TRUTH, "with --folds: an equal share of each class in each fold; true for classes without --group"
    )
    add("--bootstrap", COUNT, "resamples, instead of --validation, each validated on the samples it did not draw")
    add("--per", TEXT, "key columns, no inputs, separated by commas: every setting trains a network for each entity")
    add("--min-samples", COUNT, "with --per: entities with fewer are left out")
    add("--scale", TEXT, "inputs: none, standard, minmax, or a number to divide by")
    add("--scale-targets", TEXT, "targets that are numbers: none or standard")
    add("--impute", TEXT, "missing values: mean or median; refused by default")
    add("--networks", COUNT, "N, or settings per fold, bootstrap or entity; 1000, or 1 for --per and the tutorial")
    add("--slots", COUNT, "networks that train at once, while others wait; all, or as many as fit into memory")
    add(
        "--design",
        TEXT,
        "a .csv, .parquet, .json or .yaml file with a row per network: columns are flags from --widths on, but "
        "--hidden-width, and fold or entity; flags are for the rows whose cell is empty",
    )
    add("--widths", TEXT, "of inputs, hidden layers and outputs: 64,32,10; several topologies: 64,32,10;64,16,16,10")
    add("--hidden-width", NUMBERS, "of one hidden layer, instead of --widths: 8..256:log, or 16,32,64")
    add(
        "--hidden",
        TEXT,
        f"an activation, or one per layer: relu,tanh; several: relu;tanh; {rows['activation']}",
        "relu",
    )
    add("--output", TEXT, "activation of the last layer", "identity")
    add("--loss", TEXT, f"by default chosen for the data: {rows['loss']}")
    add("--bias", TEXT, "neuron, layer or none", "neuron")
    add("--train-bias", TRUTH, "whether biases train; true by default", True)
    add("--init", TEXT, rows["init"], "glorot_uniform")
    add("--init-scale", NUMBERS, "factor of the initial weights")
    add("--seed", INDEX, "of initial weights, order, dropout, split and sampling", 0)
    special = {  # help texts that differ from TrainConfig's
        "optimizer": rows["optimizer"],
        "schedule": rows["schedule"],
        "class_weight": "of cross_entropy: a number per class, separated by commas, or balanced",
        "batch_size": "B, samples per step; 64, or all if fewer",
        "epochs": "passes through the samples: ceil(epochs M / B) steps; several: 10,20; 20, or enough for 400 steps",
        "steps": "training steps, instead of epochs; several: 100,1000",
    }
    for name, each in FLAGS["settings"].items():
        default = None if name == "batch_size" else each["default"]  # depends on the number of samples
        add(flag_of(name), KINDS[each["kind"]], special.get(name, each["about"]), default)
    searches.flags(add)
    add("--device", TEXT, "auto, cpu, cuda, cuda:1, or cuda:all to split the networks over all GPUs", "auto")
    clusters.flags(flags)
    add("--dtype", TEXT, "float32 or float64; by default float32, for the tutorial float64")
    add("--engine", TEXT, "auto, cpu or cuda (compiled), or eager", "auto")
    add("--run-dir", TEXT, "a new directory; runs/DATA-DATE-TIME by default")
    add("--tensorboard", TRUTH, "curves for TensorBoard, if installed; true by default", True)
    add("--report", TEXT, "curves for tracking services too: mlflow, wandb, or both, separated by a comma")
    add("--checkpoint-minutes", NUMBER, "between two checkpoints", 5.0)
    flags.switch("--plan", "only say what would train, and what it takes; nothing is trained or written")
    flags.switch("--json", "end standard output with one JSON object")
    return flags


def kinds() -> dict[str, tuple[Kind, Any]]:
    """The kind and the default of each setting."""
    return {each.dest: (each.type, each.default) for each in parser()._actions if isinstance(each.type, Kind)}


def run(settings: dict[str, Any]) -> int:
    """Train the networks of a design on data by name or from a file."""
    from .outcome import report
    from .settings import load_data, name_device

    if settings["plan"]:
        plans.check(settings)
    if settings["data"] == "tutorial":
        return _tutorial(settings)
    clusters.check(settings)
    if settings["cluster"] is None:  # a cluster's machines may have other devices
        name_device(settings)
    prepared = load_data(settings, begins=True)
    settings |= {"loss": prepared.loss, **prepared.settings}
    fill(settings, prepared.typical)
    data, train_many = (prepared.training, prepared.validation), clusters.train_many(settings)
    seed, folds, dtype = settings["seed"], prepared.training.networks, _dtype(settings, "float32")
    with designs.without_rows(settings):
        settings |= designs.used(settings)
        design = designs.design(settings, prepared)
        search = searches.search(settings, lambda: [each.config for each in design.planned(seed, dtype, folds)])
        if settings["plan"]:
            return plans.tell(settings, prepared, design, dtype, search)

        def trained(**given: Any) -> Result:
            return train_many(design, *data, seed=seed, dtype=dtype, search=search, **given)

        result = _train(settings, trained, prepared)
    return report(settings, result)


def fill(settings: dict[str, Any], samples: int) -> None:
    """Default batch size and length."""
    if settings["batch_size"] is None:
        settings["batch_size"] = min(64, samples)
    if settings["epochs"] is None and settings["steps"] is None:
        largest = max(int(each) for each in str(settings["batch_size"]).split(","))
        settings["epochs"] = max(LENGTH[0], -(-LENGTH[1] * min(largest, samples) // samples))


def as_the_tutorial(settings: dict[str, Any]) -> None:
    """Replace the defaults by the tutorial's settings. Raises ConfigError for other settings."""
    from .. import tutorial

    known = kinds()
    for name, own in {**TUTORIAL, **dict.fromkeys(LACKS)}.items():
        if settings[name] not in (own, known[name][1]):
            how = "does not have it" if own is None else f"sets it to {own}"
            raise ConfigError(f"{flag_of(name)} {settings[name]}: --data tutorial {how}")
        settings[name] = own
    for name in designs.LENGTHS:
        if isinstance(settings[name], str):
            raise ConfigError(f"--{name} {settings[name]}: --data tutorial has one length for all networks")
    if settings["epochs"] is None and settings["steps"] is None:
        settings["steps"] = tutorial.ROUNDS
    settings["networks"] = settings["networks"] or 1
    settings["lr"] = 0.5 if settings["lr"] is None else settings["lr"]


def _tutorial(settings: dict[str, Any]) -> int:
    """Train the tutorial's network, then compare its printed figures with ours."""
    from .. import tutorial
    from ..runs.training import train
    from .outcome import report
    from .printing import console
    from .settings import name_device

    as_the_tutorial(settings)
    name_device(settings)
    dtype = _dtype(settings, "float64")
    config = _config(settings)
    population = tutorial.population(settings["networks"], dtype)
    settings["evaluate_every"] = config.interval
    result = _train(settings, lambda **given: train(population, tutorial.dataset(), config, **given), None)
    rows = tutorial.compare()
    console().print(tutorial.table(rows))
    return report(settings, result) or (0 if tutorial.reproduced(rows) else 1)


def _dtype(settings: dict[str, Any], default: str) -> torch.dtype:
    """The requested dtype; the default is put into the settings."""
    from ..population import DTYPES

    settings["dtype"] = settings["dtype"] or default
    return lookup(DTYPES, settings["dtype"], "dtype", ConfigError)


def _config(settings: dict[str, Any]) -> TrainConfig:
    """The tutorial's configuration, with ranges and lists sampled; refused, before anything is allocated, if the
    population would not fit."""
    from .. import memory, tutorial
    from ..population import DTYPES
    from ..settings.config import TrainConfig
    from ..system.ambient import HOME

    plain = TrainConfig(settings["optimizer"], batch_size=settings["batch_size"], steps=1)
    shape = tutorial.SPEC, plain.recipe(tutorial.SPEC), settings["networks"], DTYPES[settings["dtype"]].itemsize
    memory.check([shape], HOME)
    names = ("optimizer", "schedule", "batch_size", "epochs", "steps", "evaluate_every", "monitor", "restore_best",
             "shuffle", "update_order", "precision")  # fmt: skip
    config = TrainConfig.from_dict({**{name: settings[name] for name in names}, **sampled(settings)})
    settings |= designs.used(settings)
    return config


def sampled(settings: dict[str, Any]) -> dict[str, Any]:
    """The given numbers of hyper-parameters and init_scale, with ranges and lists sampled."""
    from ..search import sample
    from ..settings.config import HYPER

    written = {name: settings[name] for name in (*HYPER, "init_scale") if settings[name] is not None}
    return sample(written, settings["networks"], settings["seed"], method=settings["sampling"])


def _train(settings: dict[str, Any], trained: Callable[..., Result], prepared: Prepared | None) -> Result:
    """The result of `trained`, which is called with the arguments that all runs of the command line share."""
    from . import outcome
    from .settings import located

    resolved = {key: value for key, value in settings.items() if key not in ("json", "plan", "run_dir", "config")}
    with _folder(settings):
        folder, run_dir = clusters.folders(settings["run_dir"])
        return outcome.ended(
            run_dir,
            lambda: trained(
                engine=settings["engine"],
                reporters=outcome.reporters(settings, folder),
                run_dir=run_dir,
                checkpoint_minutes=settings["checkpoint_minutes"],
                settings={**resolved, "data": located(settings["data"])},
                device=settings["device"],
                lines=(*(() if prepared is None else prepared.about), *designs.shortfall(settings)),
            ),
            settings["cluster"],
        )


@contextmanager
def _folder(settings: dict[str, Any]) -> Iterator[None]:
    """Without --run-dir, make a directory named by the data and the time; runs that begin in the same second get one
    each. It is removed if the run writes nothing."""
    if settings["run_dir"]:
        yield
        return
    name = f"runs/{Path(settings['data']).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in count(1):
        settings["run_dir"] = f"{name}-{number}" if number > 1 else name
        try:
            os.makedirs(settings["run_dir"])
        except FileExistsError:
            continue
        except OSError:
            pass  # the training says why
        break
    try:
        yield
    finally:
        with suppress(OSError):
            os.removedirs(settings["run_dir"])
