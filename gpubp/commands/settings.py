"""The settings of a run, and the data that they name."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..checkpoints import checkpoint, manifests
from ..errors import CheckpointError, ConfigError, DataError, unknown
from ..raw.preparation import Preparation
from ..raw.text import Reading
from ..samples import sources
from ..samples.sources import TEXT_FILES, is_parquet
from ..system import config_file
from ..system.devices import ALL, automatic, devices
from ..system.flags import Kind, RefusedError


def load_data(settings: dict[str, Any], begins: bool = False) -> sources.Prepared:
    """The data of the settings of `train`, ready for training. begins: for a new run, which refuses idle flags."""
    names = ("loss", "scale", "impute", "validation", "seed", "scale_targets", "task", "min_samples", "folds", "group",
             "bootstrap", "stratify")  # fmt: skip
    return sources.load_data(
        settings["data"],
        target=_listed(settings["target"]) or None,
        reading=_reading(settings if begins else readable(settings)),
        per=_listed(settings["per"]),
        **{name: settings[name] for name in names},
    )


def located(data: str) -> str:
    """The name of data, or their file's absolute path: a run may be resumed from another folder."""
    return data if data in sources.SOURCES else str(Path(data).absolute())


def of_run(settings: dict[str, Any], now: str | None) -> dict[str, Any]:
    """The settings of a run, with its data at `now`, or where they were. Raises DataError for a file that is gone."""
    found = located(settings["data"] if now is None else now)
    if now is None and found not in sources.SOURCES and not Path(found).exists():
        raise DataError(f"{found} is missing, which the run was trained on; --data FILE says where it is now")
    return settings | {"data": found}


def readable(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, without text files' flags if its data are no text file: up to 0.1.0 they did nothing."""
    return settings | dict.fromkeys(TEXT_FILES if is_parquet(settings["data"]) else (), None)


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


def settings_of(folder: Path, flags: Mapping[str, tuple[Kind, Any]], call: str = "resume") -> dict[str, Any]:
    """The settings of a run of `train`, whose flags have these kinds and defaults: from its checkpoint, or, before the
    first one and up to version 4, from its config.yaml. call: the function that a run from Python takes instead. Raises
    CheckpointError if there are none."""
    path = folder / "checkpoint" / manifests.MANIFEST
    begun = checkpoint.begun(folder)
    settings = None if begun else checkpoint.settings(folder)
    if settings is None:
        path = folder / config_file.FILE
        try:
            settings = config_file.read(path)
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
    if not isinstance(settings, dict) or "data" not in settings:
        raise CheckpointError(f"{path} names no data: the run was started from Python; {call} it there: gpubp.{call}")
    if "stratify" not in settings and settings.get("folds") is not None:  # up to 0.1.0, only by class numbers
        settings["stratify"] = settings.get("loss") == "cross_entropy" and settings.get("group") is None
    settings = _checked(path, settings, flags, whole=begun)
    with suppress(CheckpointError):  # a damaged preparation is written again
        prepared = None if settings["text"] is None else Preparation.load(folder)
        if prepared is not None:  # up to 0.1.0, numbers in Parquet files stayed numbers
            texts = [name for name in _listed(settings["text"]) if name in prepared.reading.text]
            settings["text"] = ",".join(texts) or None
    return settings


def _checked(
    path: Path, settings: dict[str, Any], flags: Mapping[str, tuple[Kind, Any]], whole: bool
) -> dict[str, Any]:
    """The settings of a run, checked as flags of `train`; settings that an older version lacked get defaults, unless
    the file must be `whole`, because the run restarts from it. Raises CheckpointError for invalid settings."""
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


def name_device(settings: dict[str, Any]) -> None:
    """Check --device, or report the choice of auto, and put the name into the settings."""
    if settings["device"] == "auto":
        settings["device"], sentence = automatic()
        sys.stderr.write(f"{sentence}\n")
    named = devices(settings["device"])
    if settings["device"] != ALL:  # a run on all may be resumed with other GPUs
        settings["device"] = str(named[0])
