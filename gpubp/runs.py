"""What the commands that read a run do: inspect, predict, explain; and what all commands print."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table

from . import checkpoint, files, sources, tutorial
from .config import HYPER
from .errors import CheckpointError, ConfigError, DataError, unknown
from .explain import explain as explain_step
from .flags import COUNT, RefusedError
from .line import line, quoted
from .model import RESULTS, load, order_of, ranked_by, read_results
from .parsers import train_kinds
from .preparation import FILE
from .state import TrainState
from .tables import write_csv
from .text import Reading

Settings = dict[str, Any]
OF_READING = ("task", "delimiter", "decimal", "thousands", "encoding", "drop", "text", "dates")  # not in older files


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
    if not path.exists() and not (folder / "checkpoint").is_dir():
        raise CheckpointError(f"{path} is not there: {folder} is not the directory of a run")
    try:
        settings = files.read_settings(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; resume it there: gpubp.resume")
    return _checked(path, {**dict.fromkeys(OF_READING), **settings})


def _checked(path: Path, settings: Settings) -> Settings:
    """The settings of a run, each as a flag of `train` takes it; raises CheckpointError for a file with others."""
    kinds = {name: kind for name, kind in train_kinds().items() if name != "run_dir"}
    for name in settings:
        if name not in kinds:
            raise CheckpointError(f"{path}: {unknown('the setting', name, kinds)}")
    for name, kind in kinds.items():
        if name not in settings:
            raise CheckpointError(f"{path} has no setting {name!r}: it is not whole")
        try:
            settings[name] = kind(settings[name])
        except RefusedError as error:
            raise CheckpointError(f"{path}: {name} {error}") from None
    return settings


def console() -> Console:
    """Standard output, where brackets are brackets and :star: is no star; wide enough for whole numbers where nobody
    says how wide it is."""
    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)


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
    damage = _damage(folder)
    sys.stderr.writelines(f"warning: {line(each)}\n" for each in damage)
    diverged = np.array([status == "diverged" for status in rows["status"].to_pylist()])
    ranked = order_of(rows).numpy()
    groups = {"best": ranked[:top], "worst": ranked[::-1][:top], "diverged": np.flatnonzero(diverged)[:top]}
    shown = [name for name in rows.column_names if name not in HYPER or len(set(rows[name].to_pylist())) > 1]
    if rows["id"].equals(rows["network"]):
        shown.remove("id")
    if not diverged.any():
        shown.remove("diverged_step")
    statuses = {name: rows["status"].to_pylist().count(name) for name in sorted(set(rows["status"].to_pylist()))}
    picked = {name: rows.select(shown).take(pa.array(index)).to_pylist() for name, index in groups.items()}
    if settings["json"]:
        print_json({"run": str(folder), "networks": rows.num_rows, "statuses": statuses, "damage": damage, **picked})
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


@contextmanager
def spoken() -> Iterator[None]:
    """What is warned of within goes to standard error, a line each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for warning in told:
        sys.stderr.write(f"warning: {line(warning.message)}\n")


def predict(settings: Settings) -> int:
    """A CSV with a row per sample of a file: what the chosen networks predict together, or each in a column."""
    folder, chosen, each = Path(settings["run"]), settings["networks"], settings["each"]
    with spoken():
        model = load(folder)
    if model.preparation is None:
        raise CheckpointError(f"{folder / FILE} is not there: the run was trained on data that take no file")
    if chosen not in ("best", "all"):
        try:
            chosen = COUNT.read(chosen)
        except (ValueError, ArithmeticError):
            raise ConfigError(f"--networks {chosen!r}: best, all, or a number of 1 or more expected") from None
    target = None if settings["output"] is None else Path(settings["output"])
    if target is not None and os.path.lexists(target):
        raise ConfigError(f"{target} exists already; name a new file")
    rows = model.chosen(chosen)
    with spoken():
        pieces = model.pieces(settings["data"], rows, each, settings["proba"])
    word = "probability" if settings["proba"] else "prediction"
    heads = [f"network_{row}" for row in rows.tolist()] if each else [word]
    parts = model.classes if settings["proba"] and model.classes else [c.name for c in model.preparation.target_columns]
    tables = (_columns(piece if each else piece[None], heads, parts) for piece in pieces)
    with spoken():
        if target is None:
            _print_csv(tables)
            return 0
        try:
            files.write(target, lambda beside: write_csv(tables, beside))
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error.strerror or error}") from None
    return 0


def _columns(said: np.ndarray, heads: Sequence[str], parts: Sequence[Any]) -> pa.Table:
    """What each of K networks, or all together, say of M samples, (K, M) or (K, M, parts), as columns with names."""
    if said.ndim == 2:
        return pa.Table.from_arrays([pa.array(values) for values in said], list(heads))
    names = [f"{head}_{part}" for head in heads for part in parts]
    return pa.Table.from_arrays([pa.array(values) for each in said for values in each.T], names)


def _print_csv(tables: Iterable[pa.Table]) -> None:
    """As a file has it; what would move a terminal's cursor is shown there as Python escapes it."""
    if not sys.stdout.isatty():
        write_csv(tables, sys.stdout.buffer)
        return
    text = io.BytesIO()
    write_csv(tables, text)
    print(*map(line, text.getvalue().decode().rstrip("\n").split("\n")), sep="\n")


def explain(settings: Settings) -> int:
    """One step of one network, as text or JSON."""
    if settings["run"] == "tutorial":
        data = tutorial.dataset()
        state = TrainState.start(tutorial.population(), tutorial.config(), data)
    else:
        folder = Path(settings["run"])
        before = settings_of(folder)
        saved = checkpoint.load(folder, torch.device("cpu"))
        sys.stderr.writelines(f"warning: {line(each)}\n" for each in saved.told)
        state = saved.state
        data = tutorial.dataset() if before["data"] == "tutorial" else load_data(before).training
        data = data.to(torch.device("cpu"), state.population.params.dtype)
    told = explain_step(state, data, settings["network"])
    print(told.json() if settings["json"] else told.text(full=settings["full"]))
    return 0


def _damage(folder: Path) -> list[str]:
    """What is wrong with a run's checkpoint."""
    try:
        return list(checkpoint.load(folder, torch.device("cpu")).told)
    except CheckpointError as error:
        return [str(error)]


def _results(folder: Path) -> tuple[pa.Table, str]:
    """The results of a run, a row per network, and the column that ranks them."""
    path = folder / RESULTS
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not there: {folder} is not the directory of a run, or it has not ended: gpubp resume "
            f"{quoted(folder)}"
        )
    rows = read_results(path)
    return rows, ranked_by(rows)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else line(value)
