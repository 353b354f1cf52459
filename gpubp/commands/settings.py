"""The settings of a run in its config.yaml, and the data that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import config_file, sources
from ..errors import CheckpointError, ConfigError, unknown
from ..flags import Kind, RefusedError
from ..text import Reading

OF_READING = ("task", "delimiter", "decimal", "thousands", "encoding", "drop", "text", "dates")  # not in older files


def load_data(settings: dict[str, Any]) -> sources.Prepared:
    """The data of the settings of `train`, ready for training."""
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


def _reading(settings: dict[str, Any]) -> Reading:
    """How a file is read, from the flags."""
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


def settings_of(folder: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The config.yaml of a run of `train`, with every setting of its kind; raises CheckpointError if there is none."""
    path = folder / config_file.FILE
    if not path.exists() and not (folder / "checkpoint").is_dir():
        raise CheckpointError(f"{path} is missing: {folder} is not the directory of a run")
    try:
        settings = config_file.read(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; resume it there: gpubp.resume")
    return _checked(path, {**dict.fromkeys(OF_READING), **settings}, kinds)


def _checked(path: Path, settings: dict[str, Any], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The settings of a run, checked as flags of `train`; raises CheckpointError for invalid ones."""
    kinds = {name: kind for name, kind in kinds.items() if name != "run_dir"}
    for name in settings:
        if name not in kinds:
            raise CheckpointError(f"{path}: {unknown('the setting', name, kinds)}")
    for name, kind in kinds.items():
        if name not in settings:
            raise CheckpointError(f"{path} has no setting {name!r}: it is incomplete")
        try:
            settings[name] = kind(settings[name])
        except RefusedError as error:
            raise CheckpointError(f"{path}: {name} {error}") from None
    return settings
