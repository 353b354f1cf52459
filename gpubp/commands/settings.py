"""The settings of a run, and the data that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import checkpoint, config_file, sources
from ..errors import CheckpointError, ConfigError, unknown
from ..flags import Kind, RefusedError
from ..text import Reading


def load_data(settings: dict[str, Any]) -> sources.Prepared:
    """The data of the settings of `train`, ready for training."""
    target, folds = settings["target"], settings["folds"]
    if folds is not None and settings["validation"]:
        raise ConfigError(f"--validation {settings['validation']:g} and --folds {folds}: one of them expected")
    prepared = sources.load(
        settings["data"],
        target=None if target is None else target.split(","),
        loss=settings["loss"],
        scale=settings["scale"],
        impute=settings["impute"],
        validation=settings["validation"] if folds is None else 0,
        seed=settings["seed"],
        scale_targets=settings["scale_targets"],
        task=settings["task"],
        reading=_reading(settings),
    )
    if folds is None:
        return prepared
    training, held_out = prepared.training.folds(folds, seed=settings["seed"])
    few, most = held_out.lengths
    each = f"{few}" if few == most else f"{few} to {most}"
    told = (
        f"{folds} folds: a setting trains {folds} networks, each validated on the {each} samples that it has not seen"
    )
    return replace(prepared, training=training, validation=held_out, about=(*prepared.about, told))


def located(data: str) -> str:
    """The name of data, or the absolute path of their file: a run may be resumed from another folder."""
    return data if data in sources.SOURCES else str(Path(data).absolute())


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


def settings_of(folder: Path, flags: Mapping[str, tuple[Kind, Any]]) -> dict[str, Any]:
    """The settings of a run of `train`, whose flags have these kinds and defaults: its checkpoint's, or, before the
    first one and up to version 4, those of its config.yaml. Raises CheckpointError if there are none."""
    path = folder / "checkpoint" / checkpoint.MANIFEST
    begun = checkpoint.begun(folder)
    settings = None if begun else checkpoint.settings(folder)
    if settings is None:
        path = folder / config_file.FILE
        try:
            settings = config_file.read(path)
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; resume it there: gpubp.resume")
    return _checked(path, settings, flags, whole=begun)


def _checked(
    path: Path, settings: dict[str, Any], flags: Mapping[str, tuple[Kind, Any]], whole: bool
) -> dict[str, Any]:
    """The settings of a run, checked as flags of `train`, with the defaults of those that an older version did not
    have, unless the file must be `whole`, because the run restarts from it; raises CheckpointError for invalid ones."""
    flags = {name: flag for name, flag in flags.items() if name != "run_dir"}
    for name in settings:
        if name not in flags:
            raise CheckpointError(f"{path}: {unknown('the setting', name, flags)}")
    for name, (kind, default) in flags.items():
        if whole and name not in settings:
            raise CheckpointError(f"{path} has no setting {name!r}: it is incomplete")
        try:
            settings[name] = kind(settings.get(name, default))
        except RefusedError as error:
            raise CheckpointError(f"{path}: {name} {error}") from None
    return settings
