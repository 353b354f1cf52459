"""What the commands of cli.py do; each takes its settings as a plain dict and gives an exit status."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
import yaml
from rich.console import Console
from rich.table import Table

from . import checkpoint, memory, sources, tables, tutorial
from .backprop import forward
from .config import HYPER, TrainConfig
from .data import Dataset
from .errors import CheckpointError, ConfigError, DataError, GpubpError, lookup
from .evaluate import metric_name
from .explain import explain as explain_step
from .population import DTYPES, Population, usable
from .preparation import Preparation
from .reporters import Reporter, quantiles
from .reporters.console import ConsoleReporter
from .reporters.tensorboard import TensorBoardReporter
from .search import sample
from .spec import NetworkSpec
from .state import TrainState
from .train import Result, ranking
from .train import resume as resume_run
from .train import train as train_population

Settings = dict[str, Any]
FIXED = ("widths", "loss", "init_scale", "scale", "scale_targets", "target", "impute", "validation")  # by the tutorial


def train(settings: Settings) -> int:
    """Train a population on data by name or from a file."""
    if settings["data"] == "tutorial":
        return train_tutorial(settings)
    device = _device(settings["device"])
    prepared = _load(settings)
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
        "networks": _networks(settings["networks"], 1000),
    }
    config, scale = _config(settings, spec)
    dtype = lookup(DTYPES, settings["dtype"], "dtype", ConfigError)
    config.columns(spec, settings["networks"], device)  # refuse before the population is made
    prepared.training.check(spec, settings["networks"])
    memory.check(spec, config, settings["networks"], dtype.itemsize, device)
    population = Population.create(
        spec, settings["networks"], settings["seed"], settings["init"], device, dtype, init_scale=scale
    )
    return _report(settings, _train(settings, population, prepared.training, config, prepared))


def train_tutorial(settings: Settings) -> int:
    """The tutorial's network; afterwards every printed figure beside ours."""
    for name in FIXED:
        if settings[name] is not None:
            raise ConfigError(f"--{name.replace('_', '-')} {settings[name]}: --data tutorial sets that itself")
    if settings["epochs"] is None and settings["steps"] is None:
        settings["steps"] = tutorial.ROUNDS
    settings |= {"networks": _networks(settings["networks"], 1), "optimizer": "sgd"}
    settings |= {"batch_size": 1, "lr": 0.5 if settings["lr"] is None else settings["lr"], "dtype": "float64"}
    device = _device(settings["device"])
    config, _ = _config(settings, tutorial.SPEC)
    population = tutorial.population(settings["networks"]).to(device)
    result = _train(settings, population, tutorial.dataset(), config, None)
    rows = tutorial.compare()
    _console().print(tutorial.table(rows))
    return _report(settings, result) or (0 if tutorial.reproduced(rows) else 1)


def resume(settings: Settings) -> int:
    """Go on with a run of `train`."""
    folder = Path(settings["run"])
    before = _settings_of(folder)
    prepared = None if before["data"] == "tutorial" else _load(before)
    result = resume_run(
        folder,
        tutorial.dataset() if prepared is None else prepared.training,
        None if prepared is None else prepared.validation,
        settings["epochs"],
        settings["steps"],
        _reporters(before, folder),
        _device(before["device"]),
        before["checkpoint_minutes"],
    )
    return _report({**before, **settings}, result)


def inspect(settings: Settings) -> int:
    """The best, the worst and the diverged networks, and how the run went."""
    folder, top = Path(settings["run"]), settings["top"]
    path = folder / "results.parquet"
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: {folder} is not the directory of a run, or it has not ended yet")
    rows = pa.parquet.read_table(path)
    key = "validation_loss" if "validation_loss" in rows.column_names else "loss"
    values = np.nan_to_num(rows[key].to_numpy(), nan=np.inf)
    diverged = np.array([status == "diverged" for status in rows["status"].to_pylist()])
    order = np.argsort(values, kind="stable")
    ranked = order[~diverged[order]]
    groups = {"best": ranked[:top], "worst": ranked[::-1][:top], "diverged": np.flatnonzero(diverged)[:top]}
    shown = [name for name in rows.column_names if name not in HYPER or len(set(rows[name].to_pylist())) > 1]
    if rows["id"].equals(rows["network"]):
        shown.remove("id")
    if not diverged.any():
        shown.remove("diverged_step")
    statuses = {name: rows["status"].to_pylist().count(name) for name in sorted(set(rows["status"].to_pylist()))}
    picked = {name: rows.select(shown).take(pa.array(index)).to_pylist() for name, index in groups.items()}
    if settings["json"]:
        _print_json({"run": str(folder), "networks": rows.num_rows, "statuses": statuses, **picked})
        return 0
    console = _console()
    fates = ", ".join(f"{count:,} {name}" for name, count in statuses.items())
    console.print(f"{folder}: {rows.num_rows:,} networks: {fates}; ranked by {key}", highlight=False)
    for name, entries in picked.items():
        if not entries:
            continue
        table = Table(title=f"{name} of {int(diverged.sum()) if name == 'diverged' else len(ranked):,}")
        for column in shown:
            table.add_column(column, justify="left" if column == "status" else "right")
        for entry in entries:
            table.add_row(*(_shown(entry[column]) for column in shown))
        console.print(table)
    return 0


def predict(settings: Settings) -> int:
    """A CSV with a row per sample of a file."""
    folder, chosen = Path(settings["run"]), settings["networks"]
    state = checkpoint.load(folder, torch.device("cpu")).state
    path = folder / "preparation.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: the run was trained on data that take no file")
    try:
        preparation = Preparation.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # a GpubpError is a ValueError
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if chosen not in ("best", "all") and not (chosen.isdecimal() and int(chosen) > 0):
        raise ConfigError(f"--networks {chosen!r}: best, all, or a number of 1 or more expected")
    samples = tables.read(settings["data"], text=preparation.text)
    population = state.population
    inputs = preparation.inputs(samples).to(population.params.dtype)
    ranked = _ranking(folder, state)
    some = ranked[: {"best": 1, "all": len(ranked)}.get(chosen) or int(chosen)]
    out = forward(population.spec, population.take(some).params, inputs)
    columns: dict[str, Any] = {}
    if chosen == "all":
        columns = {f"network_{int(row)}": preparation.decode(each) for row, each in zip(some, out)}
    else:
        columns = {"prediction": preparation.decode(_mean(population.spec, out))}
    flat = {}
    for name, values in columns.items():
        wide = values.ndim == 2 and values.shape[1] > 1
        for number in range(values.shape[1] if values.ndim == 2 else 1):
            flat[f"{name}_{number}" if wide else name] = values[:, number] if values.ndim == 2 else values
    table = pa.table({name: pa.array(values) for name, values in flat.items()})
    if settings["output"] is None:
        pa.csv.write_csv(table, sys.stdout.buffer)
    else:
        target = Path(settings["output"])
        if target.exists():
            raise ConfigError(f"{target} exists already; name a new file")
        try:
            pa.csv.write_csv(table, target)
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error}") from None
    return 0


def explain(settings: Settings) -> int:
    """One step of one network, as text or JSON."""
    if settings["run"] == "tutorial":
        data = tutorial.dataset()
        state = TrainState.start(tutorial.population(), tutorial.config(), data)
    else:
        folder = Path(settings["run"])
        before = _settings_of(folder)
        state = checkpoint.load(folder, torch.device("cpu")).state
        data = tutorial.dataset() if before["data"] == "tutorial" else _load(before).training
        data = data.to(torch.device("cpu"), state.population.params.dtype)
    told = explain_step(state, data, settings["network"])
    print(told.json() if settings["json"] else told.text(full=settings["full"]))
    return 0


def _load(settings: Settings) -> sources.Prepared:
    target = settings["target"]
    return sources.load(
        settings["data"],
        target=None if target is None else target.split(","),
        loss=settings["loss"],
        scale=settings["scale"],
        impute=settings["impute"],
        validation=settings["validation"],
        seed=settings["seed"],
        scale_targets=settings["scale_targets"],
    )


def _networks(given: int | None, usual: int) -> int:
    if given is not None and given < 1:
        raise ConfigError(f"--networks {given}: a whole number of 1 or more expected")
    return usual if given is None else given


def _device(name: str) -> torch.device:
    if name != "auto":
        return usable(name)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def _widths(given: str | None, inputs: int, outputs: int) -> tuple[int, ...]:
    if given is None:
        return inputs, 32, outputs
    try:
        widths = tuple(int(part) for part in given.replace("-", ",").split(","))
    except ValueError:
        raise ConfigError(f"--widths {given!r}: whole numbers separated by commas expected, such as 64,32,10") from None
    if len(widths) < 2 or widths[0] != inputs or widths[-1] != outputs:
        raise ConfigError(
            f"--widths {given}: the data have {inputs} inputs and need {outputs} outputs: {inputs},...,{outputs}"
        )
    return widths


def _config(settings: Settings, spec: NetworkSpec) -> tuple[TrainConfig, Any]:
    """The training's configuration, and the scale of the initial weights, with ranges and lists sampled."""
    written = {name: settings[name] for name in (*HYPER, "init_scale") if settings[name] is not None}
    values = sample(written, settings["networks"], settings["seed"])
    scale = values.pop("init_scale", None)
    weights = settings["class_weight"]
    if settings["epochs"] is None and settings["steps"] is None:
        settings["epochs"] = 20
    try:
        class_weight = None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(f"--class-weight {weights!r}: numbers separated by commas expected") from None
    names = ("optimizer", "schedule", "batch_size", "epochs", "steps", "evaluate_every", "shuffle", "update_order")
    chosen = {name: settings[name] for name in names}
    config = TrainConfig.from_dict({**chosen, "class_weight": class_weight, **values})
    config.values(spec.loss)
    return config, scale


def _train(
    settings: Settings, population: Population, data: Dataset, config: TrainConfig, prepared: sources.Prepared | None
) -> Result:
    name = Path(settings["data"]).stem
    given = settings["run_dir"] or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(given)
    resolved = {key: value for key, value in settings.items() if key not in ("json", "run_dir")}
    if settings["data"] not in sources.SOURCES:
        resolved["data"] = str(Path(settings["data"]).absolute())  # a run may be resumed from another folder
    return train_population(
        population,
        data,
        config,
        validation=None if prepared is None else prepared.validation,
        engine=settings["engine"],
        reporters=(*_reporters(settings, folder), *([] if prepared is None else [Learned(folder, prepared)])),
        run_dir=folder,
        checkpoint_minutes=settings["checkpoint_minutes"],
        settings={**resolved, "evaluate_every": config.interval},
    )


class Learned:
    """A reporter that saves, at the start, what was learned from the training part of the data."""

    def __init__(self, folder: Path, prepared: sources.Prepared) -> None:
        self.folder, self.prepared = folder, prepared

    def start(self, start: Any) -> None:
        """Write preparation.json."""
        text = json.dumps(self.prepared.preparation.to_dict(), indent=1)
        (self.folder / "preparation.json").write_text(text + "\n", encoding="utf-8")

    def progress(self, progress: Any) -> None:
        """Nothing."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, result: Result) -> None:
        """Nothing."""


def _reporters(settings: Settings, folder: Path) -> list[Reporter]:
    reporters: list[Reporter] = [ConsoleReporter()]
    if settings["tensorboard"]:
        try:
            reporters.append(TensorBoardReporter(folder / "tensorboard"))
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
        _print_json(
            {
                "networks": result.population.count,
                "steps": int(result.state.step.max()),
                "seconds": result.seconds,
                "network_steps_per_second": result.network_steps / max(result.seconds, 1e-9),
                "engine": result.engine,
                "engine_reason": result.engine_reason,
                "loss": {"best": spread.get("min"), "median": spread.get("median"), "worst": spread.get("max")},
                "metric": {
                    "name": metric_name(result.population.spec),
                    "best": float(good.max()) if len(good) else None,
                    "median": float(good.median()) if len(good) else None,
                },
                "best_network": int(best[0]) if len(best) else None,
                "statuses": result.statuses,
                "run_dir": str(folder),
            }
        )
    else:
        print(f"{folder}: results.csv, results.parquet, config.yaml, checkpoint; look: gpubp inspect {folder}")
    return 0 if result.interrupted is None else 128 + result.interrupted


def _settings_of(folder: Path) -> Settings:
    path = folder / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; resume it there: gpubp.resume")
    return settings


def _ranking(folder: Path, state: Any) -> torch.Tensor:
    """Rows of the networks by the losses that the run ended with."""
    path = folder / "results.parquet"
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: the run has not ended yet; gpubp resume {folder}")
    rows = pa.parquet.read_table(path)
    key = "validation_loss" if "validation_loss" in rows.column_names else "loss"
    ranked = ranking(state, torch.tensor(rows[key].to_numpy()))
    if not len(ranked):
        raise CheckpointError(f"{folder}: every network diverged; there is none to predict with")
    return ranked


def _mean(spec: NetworkSpec, out: torch.Tensor) -> torch.Tensor:
    """The mean of networks (K, M, O) -> (M, O): of probabilities where the outs are logits of classes."""
    if spec.loss == "cross_entropy" and len(out) > 1:
        return torch.log(torch.softmax(out.double(), 2).mean(0))
    return out.mean(0)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _console() -> Console:
    """Standard output; wide enough for whole numbers where nobody says how wide it is."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _print_json(values: Mapping[str, Any]) -> None:
    """One object on one line; what JSON cannot say, NaN and infinity, is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(dict(values)), allow_nan=False))
