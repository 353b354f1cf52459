"""What the commands that read a run do: inspect, predict, explain; and what all commands print."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from rich.console import Console
from rich.table import Table

from . import checkpoint, files, sources, tables, tutorial
from .backprop import forward
from .config import HYPER
from .errors import CheckpointError, ConfigError, DataError
from .explain import explain as explain_step
from .line import line
from .preparation import Preparation
from .result import ranking
from .spec import NetworkSpec
from .state import TrainState
from .text import Reading

Settings = dict[str, Any]


def load_data(settings: Settings) -> sources.Prepared:
    """The data that the settings of `train` name, ready for training."""
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
        task=settings["task"],
        reading=_reading(settings),
    )


def _reading(settings: Settings) -> Reading:
    """How the flags say that a file is to be read."""
    sign = settings["delimiter"]
    dates = (each.partition("=") for each in _listed(settings["dates"]))
    return Reading(
        delimiter="\t" if sign in ("\\t", "tab") else sign,
        decimal=settings["decimal"] or ".",
        thousands=settings["thousands"],
        encoding=settings["encoding"],
        drop=_listed(settings["drop"]),
        text=_listed(settings["text"]),
        dates={name: form for name, _, form in dates},
    )


def _listed(names: str | None) -> tuple[str, ...]:
    return () if names is None else tuple(names.split(","))


def settings_of(folder: Path) -> Settings:
    """The config.yaml of a run of `train`; raises CheckpointError where there is none."""
    path = folder / "config.yaml"
    try:
        settings = files.read_settings(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; resume it there: gpubp.resume")
    return settings


def console() -> Console:
    """Standard output, where brackets are brackets; wide enough for whole numbers where nobody says how wide it is."""
    return Console(markup=False) if sys.stdout.isatty() else Console(markup=False, width=160)


def print_json(values: Mapping[str, Any]) -> None:
    """One object on one line; what JSON cannot say, NaN and infinity, is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(dict(values)), allow_nan=False))


def inspect(settings: Settings) -> int:
    """The best, the worst and the diverged networks, and how the run went."""
    folder, top = Path(settings["run"]), settings["top"]
    if top < 1:
        raise ConfigError(f"--top {top}: a whole number of 1 or more expected")
    rows, key = _results(folder)
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
        print_json({"run": str(folder), "networks": rows.num_rows, "statuses": statuses, **picked})
        return 0
    screen = console()
    fates = ", ".join(f"{count:,} {name}" for name, count in statuses.items())
    screen.print(f"{line(folder)}: {rows.num_rows:,} networks: {fates}; ranked by {key}", highlight=False)
    for name, entries in picked.items():
        if not entries:
            continue
        table = Table(title=f"{name} of {int(diverged.sum()) if name == 'diverged' else len(ranked):,}")
        for column in shown:
            table.add_column(line(column), justify="left" if column == "status" else "right")
        for entry in entries:
            table.add_row(*(_shown(entry[column]) for column in shown))
        screen.print(table)
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
    samples = tables.read(settings["data"], reading=preparation.reading)
    for each in preparation.strange(samples):
        sys.stderr.write(f"warning: {settings['data']}: {each}\n")
    population = state.population
    inputs = preparation.inputs(samples).to(population.params.dtype)
    ranked = _ranking(folder, state)
    if chosen.isdecimal() and int(chosen) > len(ranked):
        raise ConfigError(f"--networks {chosen}: the run has {len(ranked)} networks that did not diverge")
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
        before = settings_of(folder)
        state = checkpoint.load(folder, torch.device("cpu")).state
        data = tutorial.dataset() if before["data"] == "tutorial" else load_data(before).training
        data = data.to(torch.device("cpu"), state.population.params.dtype)
    told = explain_step(state, data, settings["network"])
    print(told.json() if settings["json"] else told.text(full=settings["full"]))
    return 0


def _results(folder: Path) -> tuple[pa.Table, str]:
    """The results of a run, a row per network, and the column that ranks them."""
    path = folder / "results.parquet"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not there: {folder} is not the directory of a run, or it has not ended: gpubp resume {folder}"
        )
    rows = pa.parquet.read_table(path)
    return rows, "validation_loss" if "validation_loss" in rows.column_names else "loss"


def _ranking(folder: Path, state: Any) -> torch.Tensor:
    """Rows of the networks by the losses that the run ended with."""
    rows, key = _results(folder)
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
    return f"{value:.5g}" if isinstance(value, float) else line(value)
