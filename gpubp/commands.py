"""What the commands that train do, train and resume; each takes its settings as a plain dict, gives an exit status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, files, lock, memory, sources, tutorial
from .config import HYPER, TrainConfig
from .data import Dataset
from .devices import ALL, automatic, devices
from .engines import choose_for_all
from .errors import CheckpointError, ConfigError, GpubpError, lookup
from .evaluate import metric_name
from .flags import COUNT, number
from .line import line, quoted
from .placement import HOME
from .population import DTYPES, Population
from .reporters import Reporter, quantiles
from .reporters.console import ConsoleReporter
from .reporters.tensorboard import TensorBoardReporter
from .result import Result
from .runs import OF_READING, console, load_data, print_json, settings_of
from .search import sample
from .spec import NetworkSpec
from .training import resume as resume_run
from .training import train as train_population

Settings = dict[str, Any]
EDITED = "{} was edited: where data and curves are is taken from it, what is trained is as the run began"
UNSAVED = 3  # exit status where a training ended, and not all could be written that it was to leave
LENGTH = 20, 400  # epochs and steps, whichever is longer, of a training for which nobody says how long
TUTORIAL = {  # what --data tutorial sets itself, and what the flags say where nobody uses them
    "optimizer": ("sgd", "adam"),
    "hidden": ("sigmoid", "relu"),
    "output": ("sigmoid", "identity"),
    "bias": ("layer", "neuron"),
    "train_bias": (False, True),
    "widths": ("2,2,2", None),
    "loss": ("half_squared_error", None),
    "batch_size": (1, None),
    **dict.fromkeys(
        ("init_scale", "scale", "scale_targets", "target", "impute", "validation", *OF_READING), (None, None)
    ),
}


def train(settings: Settings) -> int:
    """Train a population on data by name or from a file."""
    if settings["data"] == "tutorial":
        return train_tutorial(settings)
    _device(settings)
    prepared = load_data(settings)
    widths = _widths(settings["widths"], prepared.widths_in, prepared.widths_out)
    hidden = settings["hidden"].split(",")
    spec = NetworkSpec(
        widths,
        hidden=hidden[0] if len(hidden) == 1 else tuple(hidden),
        output=settings["output"],
        loss=prepared.loss,
        bias=settings["bias"],
        train_bias=settings["train_bias"],
    )
    settings |= {
        "widths": ",".join(map(str, widths)),
        "loss": prepared.loss,
        "networks": settings["networks"] or 1000,
    }
    settings |= prepared.settings
    samples = prepared.training.samples
    if settings["batch_size"] is None:
        settings["batch_size"] = min(64, samples)
    if settings["epochs"] is None and settings["steps"] is None:
        settings["epochs"] = max(LENGTH[0], -(-LENGTH[1] * min(settings["batch_size"], samples) // samples))
    dtype = _dtype(settings, "float32")
    config, scale = _config(settings, spec, dtype)
    settings["batch_size"] = config.fitted(prepared.training)[0].batch_size  # as train() will have it, which says so
    config.columns(spec, settings["networks"], HOME)  # refuse before the population is made
    prepared.training.check(spec, settings["networks"])
    population = Population.create(
        spec, settings["networks"], settings["seed"], settings["init"], HOME, dtype, init_scale=scale
    )
    return _report(settings, _train(settings, population, prepared.training, config, prepared))


def train_tutorial(settings: Settings) -> int:
    """The tutorial's network; afterwards every printed figure beside ours."""
    for name, allowed in TUTORIAL.items():
        if settings[name] not in allowed:
            raise ConfigError(f"--{name.replace('_', '-')} {settings[name]}: --data tutorial sets that to {allowed[0]}")
        settings[name] = allowed[0]
    if settings["epochs"] is None and settings["steps"] is None:
        settings["steps"] = tutorial.ROUNDS
    settings["networks"] = settings["networks"] or 1
    settings["lr"] = 0.5 if settings["lr"] is None else settings["lr"]
    _device(settings)
    dtype = _dtype(settings, "float64")
    config, _ = _config(settings, tutorial.SPEC, dtype)
    population = tutorial.population(settings["networks"], dtype)
    result = _train(settings, population, tutorial.dataset(), config, None)
    rows = tutorial.compare()
    console().print(tutorial.table(rows))
    return _report(settings, result) or (0 if tutorial.reproduced(rows) else 1)


def resume(settings: Settings) -> int:
    """Go on with a run of `train`; what is said of it anew goes into its config.yaml."""
    folder = Path(settings["run"])
    if checkpoint.begun(folder) and not (folder / "config.yaml").exists():
        raise CheckpointError(
            f"{folder} ended before anything of it was written; gpubp train, as before, begins it anew"
        )
    before = settings_of(folder)
    now = {**before, **{name: settings[name] for name in ("epochs", "steps", "device") if settings[name] is not None}}
    if checkpoint.begun(folder):
        for name, other in (("epochs", "steps"), ("steps", "epochs")):
            if settings[name] is not None and before[other] is not None:
                raise ConfigError(f"this run counts {other}: give {other}, and nothing else, to make it longer")
        return _begin_anew(settings, now)
    _device(now)
    prepared = None if before["data"] == "tutorial" else load_data(before)
    lines = [EDITED.format(folder / "config.yaml")] if files.edited(folder / "config.yaml") else []
    result = _ended(
        folder,
        lambda: resume_run(
            folder,
            tutorial.dataset() if prepared is None else prepared.training,
            None if prepared is None else prepared.validation,
            settings["epochs"],
            settings["steps"],
            _reporters(before, folder),
            now["device"],
            before["checkpoint_minutes"],
            settings=now,
            lines=lines,
            force=settings["force"],
        ),
    )
    return _report({**settings, **now}, result)


def _begin_anew(settings: Settings, now: Settings) -> int:
    """Train what config.yaml says from the start: the run ended before its first checkpoint."""
    folder = Path(settings["run"])
    with lock.held(folder, settings["force"]):
        pass
    sys.stderr.write(f"{line(folder)} ended before its first checkpoint; it is begun anew, as its config.yaml says\n")
    return train({**now, "run_dir": str(folder), "json": settings["json"]})


def _dtype(settings: Settings, default: str) -> torch.dtype:
    """The precision that was asked for; what nobody said is written down."""
    settings["dtype"] = settings["dtype"] or default
    return lookup(DTYPES, settings["dtype"], "dtype", ConfigError)


def _device(settings: Settings) -> None:
    """Check --device, or say what auto takes, and put the name into the settings."""
    if settings["device"] == "auto":
        settings["device"], told = automatic()
        sys.stderr.write(f"{told}\n")
    named = devices(settings["device"])
    if settings["device"] != ALL:  # a run on all may be resumed where there are others
        settings["device"] = str(named[0])


def _widths(given: str | None, inputs: int, outputs: int) -> tuple[int, ...]:
    if given is None:
        return inputs, 32, outputs
    try:
        widths = tuple(COUNT.read(part) for part in given.replace("-", ",").split(","))
    except (ValueError, ArithmeticError):
        raise ConfigError(f"--widths {given!r}: whole numbers separated by commas expected, such as 64,32,10") from None
    if len(widths) < 2 or widths[0] != inputs or widths[-1] != outputs:
        raise ConfigError(
            f"--widths {given}: the data have {inputs} inputs and need {outputs} outputs: {inputs},...,{outputs}"
        )
    return widths


def _config(settings: Settings, spec: NetworkSpec, dtype: torch.dtype) -> tuple[TrainConfig, Any]:
    """The training's configuration, and the scale of the initial weights, with ranges and lists sampled; refused where
    the population would not fit, before there is anything of it."""
    plain = TrainConfig(settings["optimizer"], batch_size=settings["batch_size"], steps=1)
    memory.check(spec, plain.recipe(spec), settings["networks"], dtype.itemsize, HOME)
    written = {name: settings[name] for name in (*HYPER, "init_scale") if settings[name] is not None}
    values = sample(written, settings["networks"], settings["seed"])
    scale = values.pop("init_scale", None)
    weights = settings["class_weight"]
    try:
        class_weight = None if weights is None else [number(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(f"--class-weight {weights!r}: numbers separated by commas expected") from None
    names = ("optimizer", "schedule", "batch_size", "epochs", "steps", "evaluate_every", "shuffle", "update_order")
    chosen = {name: settings[name] for name in names}
    config = TrainConfig.from_dict({**chosen, "class_weight": class_weight, **values})
    settings |= {name: value for name, value in config.values(spec.loss).items() if settings.get(name) is None}
    return config, scale


def _train(
    settings: Settings, population: Population, data: Dataset, config: TrainConfig, prepared: sources.Prepared | None
) -> Result:
    name = Path(settings["data"]).stem
    given = settings["run_dir"] or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(given)
    resolved = {key: value for key, value in settings.items() if key not in ("json", "run_dir")}
    where = devices(settings["device"])
    choice = choose_for_all(settings["engine"], population.spec, config, where, population.params.dtype, data)
    resolved["engine"] = choice.name
    if settings["data"] not in sources.SOURCES:
        resolved["data"] = str(Path(settings["data"]).absolute())  # a run may be resumed from another folder
    return _ended(
        folder,
        lambda: train_population(
            population,
            data,
            config,
            validation=None if prepared is None else prepared.validation,
            engine=settings["engine"],
            reporters=_reporters(settings, folder),
            run_dir=folder,
            checkpoint_minutes=settings["checkpoint_minutes"],
            settings={**resolved, "evaluate_every": config.interval},
            device=settings["device"],
            lines=() if prepared is None else prepared.about,
        ),
    )


def _ended(folder: Path, training: Callable[[], Result]) -> Result:
    """What `training` returns; the same where a signal ended it, which the exit status then says."""
    try:
        return training()
    except KeyboardInterrupt as stopped:
        if hasattr(stopped, "result"):
            return stopped.result  # type: ignore[no-any-return]
        if (folder / "checkpoint").exists():
            name = line(folder)
            sys.stderr.write(f"{name} holds its last checkpoint; continue with: gpubp resume {quoted(folder)}\n")
        raise


def _reporters(settings: Settings, folder: Path) -> list[Reporter]:
    reporters: list[Reporter] = [ConsoleReporter()]
    curves = folder / "tensorboard"
    if settings["tensorboard"]:
        try:
            if curves.is_symlink():
                raise ConfigError(f"{curves} is a link; the files of another run may lie behind it")
            reporters.append(TensorBoardReporter(curves))
        except GpubpError as missing:
            sys.stderr.write(f"no curves: {missing}\n")
    return reporters


def _report(settings: Settings, result: Result) -> int:
    folder = result.run_dir
    if settings["json"]:
        best = result.ranking()[:1]
        metric = result.metric if result.validation_metric is None else result.validation_metric
        loss = result.loss if result.validation_loss is None else result.validation_loss
        spread, good = quantiles(loss), metric[metric.isfinite()]
        print_json(
            {
                "networks": result.population.count,
                "steps": int(result.state.step.max()),
                "seconds": result.seconds,
                "step_seconds": result.step_seconds,
                "network_steps": result.network_steps,
                "network_steps_per_second": result.network_steps / max(result.step_seconds, 1e-9),
                "engine": result.engine,
                "engine_reason": result.engine_reason,
                "device": settings["device"],
                "notes": result.notes,
                "loss": {"best": spread.get("min"), "median": spread.get("median"), "worst": spread.get("max")},
                "metric": {
                    "name": metric_name(result.population.spec),
                    "best": float(good.max()) if len(good) else None,
                    "median": float(good.median()) if len(good) else None,
                },
                "best_network": int(best[0]) if len(best) else None,
                "statuses": result.statuses,
                "run_dir": str(folder),
                "interrupted": result.stopped_by,
                "unsaved": result.unsaved,
                "silenced": result.silenced,
            }
        )
    elif result.unsaved is None:
        left = result.statuses["running"]
        name = quoted(folder)
        todo = f"{left:,} networks have steps left; go on: gpubp resume {name}\n" if left else ""
        what = "results.csv, results.parquet, config.yaml, checkpoint"
        print(f"{todo}{line(folder)}: {what}; look: gpubp inspect {name}")
    if result.unsaved is not None:
        sys.stderr.write(f"error: not saved: {line(result.unsaved)}\n")
    if result.interrupted is not None:
        return 128 + result.interrupted
    return 0 if result.unsaved is None and not result.silenced else UNSAVED
