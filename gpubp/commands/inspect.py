"""gpubp inspect: the best, worst and diverged networks of a run, and statistics over all: the distribution over seeds,
settings over folds and seeds, the effect of every hyper-parameter, and a table by any columns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, GpubpError
from ..line import counted, line, quoted
from ..system.flags import COUNT, TEXT
from .parser import Parser, run_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from torch import Tensor

    from ..checkpoints.checkpoint import Checkpoint
    from ..networks import Outcome
    from ..raw.tables import Array
    from ..state import TrainState
    from ..studies import Study

ABOUT = "the best, worst and diverged networks of a run, and the effect of each setting"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("The best, worst and diverged networks of a run, and the effect of each setting.")
    flags.flag("--top", COUNT, "how many of each", 5)
    flags.flag("--by", TEXT, "only a table by one or two columns, such as lr,hidden_width; max_steps are --steps")
    flags.switch("--json", "as one JSON object")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Print the best, worst and diverged networks and the study of all as tables, or as JSON."""
    from .. import studies
    from . import study_tables
    from .printing import console, print_json

    folder, top = Path(settings["run"]), settings["top"]
    rows = results(folder, early=True)
    study, damage = studies.Study(rows), _damage(folder)
    by = [] if settings["by"] is None else settings["by"].split(",")
    grouped = study.by([name if name in study.results.column_names else name.strip() for name in by]) if by else None
    sys.stderr.writelines(f"warning: {line(each)}\n" for each in damage)
    states = rows["status"].to_pylist()
    statuses = {name: states.count(name) for name in sorted(set(states))}
    if settings["json"]:
        print_json(
            {
                "run": str(folder),
                "networks": rows.num_rows,
                "statuses": statuses,
                "ranked_by": study.figure,
                "damage": damage,
                **picked(study, rows, top),
                "settings": study.settings(top),
                "distributions": study.distributions(),
                "effects": [_plain(effect) for effect in study.effects()],
                "faults": study.faults(),
                **({} if grouped is None else {"by": [_plain(group) for group in grouped]}),
            }
        )
        return 0
    screen = console()
    fates = ", ".join(f"{count:,} {name}" for name, count in statuses.items())
    better = "less" if study.figure.endswith("loss") else "more"
    head = f"{line(folder)}: {counted(rows.num_rows, 'network')}: {fates}; ranked by {study.figure}, {better} is better"
    screen.print(head, highlight=False, soft_wrap=True)
    if grouped is not None:
        study_tables.grouped(screen, study, grouped)
        return 0
    found = study.distributions()
    study_tables.distributions(screen, found)
    study_tables.settings(screen, [] if found else study.settings(top))
    study_tables.effects(screen, study, top)
    study_tables.faults(screen, study.faults())
    lost = statuses.get("diverged", 0)
    many = {"best": rows.num_rows - lost, "worst": rows.num_rows - lost, "diverged": lost}
    study_tables.networks(screen, picked(study, rows, top), many)
    return 0


def picked(study: Study, rows: pa.Table, top: int) -> dict[str, list[dict[str, Any]]]:
    """The best, worst and diverged networks, with all settings that differ."""
    import numpy as np

    from ..results.ranking import order_of
    from ..results.table import DESIGNED, TEXTS
    from ..settings.config import HYPER

    ranked = order_of(rows).numpy()
    groups = {"best": ranked[:top], "worst": ranked[::-1][:top], "diverged": np.flatnonzero(study.diverged)[:top]}
    settings = (*HYPER, *TEXTS, *DESIGNED)
    shown = [
        name
        for name in rows.column_names
        if name in study.varied or not (name in settings or name.startswith("extra."))
    ]
    if rows["id"].equals(rows["network"]):
        shown.remove("id")
    shown = [name for name in shown if rows[name].null_count < rows.num_rows]  # empty: no network diverged, or stopped
    return {name: rows.select(shown).take(index).to_pylist() for name, index in groups.items()}


def _plain(given: Any) -> Any:
    """A named tuple of studies.py as a dict."""
    found = given._asdict()
    return found | {"groups": [_plain(each) for each in found["groups"]]} if "groups" in found else found


def _damage(folder: Path) -> list[str]:
    """What is wrong with a run's checkpoint."""
    from ..checkpoints import checkpoint
    from ..system.ambient import HOME

    try:
        return list(checkpoint.load(folder, HOME).told)
    except CheckpointError as error:
        return [str(error)]


def results(folder: Path, early: bool = False) -> pa.Table:
    """The results of a run, a row per network, with the settings that only its design has. early: also of a run that
    has not ended, as known so far."""
    from ..results.saved import RESULTS, read_results

    path = folder / RESULTS
    found = read_results(path) if path.is_file() else _so_far(folder) if early else None
    if found is None:
        ended = f", or the run has not ended: gpubp resume {quoted(folder)}" if (folder / "checkpoint").exists() else ""
        raise CheckpointError(f"{path} is missing: {folder} is not the directory of a run{ended}")
    return designed(folder, found)


def designed(folder: Path, rows: pa.Table) -> pa.Table:
    """The rows of a run's networks, with the settings DESIGNED from its design."""
    from pyarrow import compute

    from ..raw import tables
    from ..results.table import DESIGNED
    from ..runs.design import DESIGN

    design = tables.parquet(folder / DESIGN) if (folder / DESIGN).is_file() else None
    if design is None or design.num_rows <= compute.max(rows["network"]).as_py():
        return rows
    for name, setting in DESIGNED.items():
        if setting in design.column_names:
            rows = rows.append_column(name, design[setting].take(rows["network"]))
    return rows


def _so_far(folder: Path) -> pa.Table | None:
    """The results of a run that has not ended, from its last checkpoint and evaluations; with a queue, those of the
    networks that have left its slots, if any. None if nothing is saved."""
    from ..checkpoints import checkpoint
    from ..system.ambient import HOME

    try:
        saved = checkpoint.load(folder, HOME)
        left = bool(saved.ended.outcomes())
    except CheckpointError:
        return None
    told = "networks of its last checkpoint, with the steps and losses of their last evaluations"
    told = "networks that have left their slots by its last checkpoint" if left else told
    sys.stderr.write(f"warning: {line(folder)} has not ended: these are the {told}; gpubp resume {quoted(folder)}\n")
    return interim(folder, saved, training=not left)


def interim(folder: Path, saved: Checkpoint, training: bool = True) -> pa.Table:
    """The results table at a checkpoint: of networks that have left their slots and, if `training`, of those that
    train, with the steps and losses of each at its last evaluation, which may be later than the checkpoint, and its
    best loss until then, if it goes by the loss; their metrics are unknown."""
    from copy import copy

    import pyarrow as pa
    import torch

    from ..checkpoints import curves
    from ..evaluate import Evaluation, metric_name
    from ..networks import Outcome
    from ..raw.preparation import Preparation
    from ..results.table import Results

    outcomes = list(saved.ended.outcomes())
    preparation, metric = Preparation.load(folder), metric_name(saved.populations[0].state.population.spec)
    left, missing = len(outcomes), () if outcomes else (metric, f"validation_{metric}")
    everyone = torch.cat([each.rows for each in saved.populations]).tolist()
    known = curves.read(folder, everyone) if training else {}
    for state, _, rows, notes in saved.populations:
        unknown = torch.full((len(rows),), float("nan"), dtype=torch.float64)
        figures, step = [unknown.clone(), unknown.clone()], state.step.clone()
        evaluated, names = copy(state), ("loss", "validation_loss")
        evaluated.memory = {name: column.clone() for name, column in state.memory.items()}
        for place, row in enumerate(rows.tolist()):
            if row in known:
                step[place] = int(known[row]["step"][-1])
                for values, name in zip(figures, names):
                    values[place] = float(known[row][name][-1])
                if state.recipe.tracks and not state.recipe.rated:  # curves have no metrics
                    later = known[row][known[row]["step"] + notes["open"] > int(state.step[place])]
                    _follow(evaluated, place, later["step"], later[names[notes["validation"] is not None]])
        held_out = None if notes["validation"] is None else Evaluation(figures[1], unknown)
        evaluated.step = step
        outcomes.append(Outcome(rows, evaluated, Evaluation(figures[0], unknown), held_out, notes["folds"]))
    entities = None if preparation is None else preparation.entities
    shown = outcomes if training else outcomes[:left]
    found = Results(shown, metric, entities, _decided(folder, saved, outcomes)).whole
    for name in {*missing} & {*found.column_names}:
        place, blank = found.column_names.index(name), pa.nulls(found.num_rows, pa.float64())
        found = found.set_column(place, name, blank)
    return found


def _decided(folder: Path, saved: Checkpoint, networks: Sequence[Outcome]) -> dict[str, Tensor]:
    """What a run's search adds to its results; nothing if the run has no search, or its data are not at hand."""
    from ..resumed.resume import search_of
    from .settings import load_data, settings_of
    from .train import kinds

    if saved.notes["search"] is None:
        return {}
    try:
        prepared = load_data(settings_of(folder, kinds()))
        search = search_of(folder, saved, prepared.training, prepared.validation)
    except (GpubpError, OSError):
        return {}
    return {} if search is None else search.columns(networks)


def _follow(state: TrainState, place: int, steps: Array, losses: Array) -> None:
    """Bring the best loss of the network in a row of `state` up to date with later evaluations, in place."""
    least = float(state.hyper["min_delta"][place]) if "min_delta" in state.hyper else 0.0
    for step, loss in zip(steps.tolist(), losses.tolist()):
        if loss < float(state.memory["best_loss"][place]) - least:
            state.memory["best_loss"][place], state.memory["best_step"][place] = loss, step
