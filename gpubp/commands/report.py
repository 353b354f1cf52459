"""gpubp report: a run as one self-contained page: its training, networks, settings, predictions and configuration."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError, GpubpError
from ..line import line
from ..system import files
from ..system.flags import TEXT
from . import train
from .explain import html
from .inspect import designed, interim, picked, results
from .parser import Parser, run_parser

if TYPE_CHECKING:
    import pyarrow as pa

    from ..checkpoints.checkpoint import Checkpoint
    from ..samples.data import Dataset

ABOUT = "a run as a page of HTML that needs no network: curves, settings, predictions"
FILE = "report.html"
OURS = b'<meta name="generator" content="gpubp '  # the beginning of every page
TOP = 5  # networks of each kind, in tables


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("Write a run as one page of HTML that needs no network.")
    flags.flag("--output", TEXT, f"the page's file, new or an earlier page; by default RUN/{FILE}", also=["--out"])
    return flags


def run(settings: dict[str, Any]) -> int:
    """Write the page, and print where it is."""
    from ..pages.report import report

    folder = Path(settings["run"])
    target = folder / FILE if settings["output"] is None else html("--output", settings["output"])
    if target.exists() and (target.is_dir() or OURS not in files.read(target, first=1000)):
        raise ConfigError(f"{target} exists, and is no page of gpubp; name a new file")
    page = report(facts(folder))
    with files.written(target, ConfigError):
        files.write_text(target, page)
    print(f"{line(target)}: {len(page.encode()) / 1e6:.2f} MB")
    return 0


def facts(folder: Path) -> Any:
    """The content of a run's report. Raises CheckpointError."""
    import torch

    from ..checkpoints import checkpoint, curves
    from ..checkpoints.stored import predicts
    from ..pages.figures import shown
    from ..pages.predictions import Trained, predictions
    from ..pages.report import Facts
    from ..populations import Populations
    from ..studies import Study
    from ..system.ambient import HOME

    saved = checkpoint.load(folder, HOME, predicts)
    states, of_all = zip(*saved.everybody)
    networks = Populations(tuple(state.population for state in states), of_all)
    rows, told = _rows(folder, saved, networks)
    study, told = Study(rows), [*saved.told, *told]
    singly = [row for some in shown(study) for row in some]
    try:
        kept = curves.read(folder, singly)
    except OSError as error:
        kept, told = {}, [*told, f"{folder / curves.FILE} cannot be read: {error.strerror}"]
    found, why = [], ""
    try:
        validation, preparation = _validation(folder, saved)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trained = Trained(networks, networks.in_order([state.position for state in states]), study, preparation)
            found = predictions(trained, validation)
        told += [str(each.message) for each in caught]
        why = "" if found else "Every network diverged: there is none to predict with."
    except GpubpError as error:
        why = str(error)
    return Facts(
        name=folder.resolve().name,
        study=study,
        picked=picked(study, rows, TOP),
        history=saved.notes["history"],
        curves=kept,
        predictions=found,
        unknown=why,
        settings=saved.notes["settings"] or {},
        about=_about(folder, saved, torch.__version__),
        told=told,
        clock=_clock(saved.notes),
        networks=max(rows.num_rows, (saved.notes["queue"] or {}).get("total") or 0),
    )


def _clock(notes: dict[str, Any]) -> str:
    """The number of records that rises with training, also in older runs' records."""
    known = notes["clock"] or ("step" if notes["queue"] is None else "network_steps")
    return known if all(known in each for each in notes["history"]) else "step"


def _rows(folder: Path, saved: Checkpoint, networks: Any) -> tuple[pa.Table, list[str]]:
    """A row per network: the run's results, or, if it has not ended or has been resumed, what is known at its last
    checkpoint. -> the rows, and notes for the reader."""
    steps = networks.in_order([state.step for state, _ in saved.everybody]).tolist()
    try:
        rows = results(folder)
        if rows["steps"].to_pylist() == steps:
            return rows, []
        why = "has gone on since its results were written"
    except CheckpointError as error:
        why = "has not ended" if "is missing" in str(error) else f"has results that cannot be read ({error})"
    told = f"The run {why}: figures are those of its last checkpoint, losses and steps of evaluations."
    return designed(folder, interim(folder, saved)), [told]


def _validation(folder: Path, saved: Checkpoint) -> tuple[Dataset, Any]:
    """The run's validation samples and their preparation. Raises GpubpError if they are not known."""
    from ..resumed.resume import sets_of
    from .settings import load_data, settings_of

    if saved.populations[0].notes["validation"] is None:
        raise ConfigError("The run has no validation samples.")
    try:
        prepared = load_data(settings_of(folder, train.kinds()))
    except GpubpError as error:
        raise ConfigError(f"The validation samples are not at hand: {error}") from None
    sets = sets_of(saved, prepared.training, prepared.validation)
    if sets.validation is None or sets.fingerprints["validation"] != saved.populations[0].notes["validation"]:
        raise ConfigError("The data are not those that the run was trained on.")
    return sets.validation, prepared.training.preparation


def _about(folder: Path, saved: Checkpoint, torch_version: str) -> dict[str, Any]:
    """Engine, machine and rate."""
    from .. import __version__
    from ..system import lock

    states = [state for state, _ in saved.everybody]
    steps, seconds = sum(int(state.step.sum()) for state in states), saved.notes["seconds"]
    settings = saved.notes["settings"] or {}
    try:
        process = files.read(lock.file(folder)).decode(errors="replace").splitlines()
    except OSError:
        process = []
    host, machine = (*map(str.strip, process), None, None)[:2]
    found = {
        "parameters of a network": max(state.population.spec.size for state in states),
        "network-steps": steps,
        "seconds": seconds,
        "network-steps/s": steps / seconds if seconds else None,
        "engine": "; ".join(dict.fromkeys(str(each.notes["engine_reason"]) for each in saved.populations)),
        "device": settings.get("device"),
        "dtype": str(states[0].population.params.dtype).removeprefix("torch."),
        "trained by": host or None,
        "machine": machine or None,
        "report by": f"gpubp {__version__}, torch {torch_version}, Python {platform.python_version()}",
    }
    return {name: value for name, value in found.items() if value is not None}
