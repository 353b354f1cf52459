"""resume(): a saved run, checked against its data, back in a Loop (runs/loop.py), perhaps extended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import memory
from ..checkpoints import checkpoint
from ..checkpoints.packing import Saved
from ..checkpoints.stored import is_row
from ..engines import Choice, choose_for_all
from ..errors import CheckpointError, ConfigError, EngineError, GpubpError
from ..line import counted, line
from ..population import Population
from ..raw.preparation import FILE as PREPARATION
from ..reporters import Reporter
from ..results.result import Result
from ..runs.design import DESIGN, Design
from ..runs.loop import Loop, Search
from ..runs.making import Maker, Source, ready
from ..runs.planning import streamed
from ..runs.queue import Queue, Rows
from ..runs.run import Run, Sets, reasons
from ..runs.signals import delivered
from ..runs.training import check_arguments, described, updated
from ..samples.data import Dataset
from ..search import restored
from ..settings.config import TrainConfig
from ..state import Status
from ..system import config_file, files, forks, lock, machine
from ..system.ambient import HOME, neutral
from ..system.devices import Devices, devices


@neutral()
def resume(
    run_dir: str | Path,
    data: Dataset,
    validation: Dataset | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    reporters: Sequence[Reporter] = (),
    device: Devices = "cpu",
    checkpoint_minutes: float = 5.0,
    settings: Mapping[str, Any] | None = None,
    lines: Sequence[str] = (),
    force: bool = False,
    design: Iterator[Any] | None = None,
) -> Result:
    """Resume the run in `run_dir`, with the bits of an uninterrupted run (on another kind of device, up to rounding).
    With more `epochs` or `steps` than before, the bits are those of a run started with as many; the new length is saved
    before the first step. If some networks count epochs and others steps, each extends its own.
    device: as in train(), but by default the CPU, wherever the run started.
    design: the same iterator of rows as in train_many(), for a run that was given one; rows that the run has already
    taken are skipped.
    settings: replace the run's, for reporters and config.yaml. The interval of evaluations does not change.
    Signals, lines: as in train(). force: take over the run from a dead process whose lock remains, as on some network
    file systems.
    Raises CheckpointError if the run or its data differ or another process trains it, DeviceError, EngineError."""
    check_arguments(reporters, checkpoint_minutes, settings, lines)
    folder, where = files.path("run_dir", run_dir), devices(device)
    with lock.held(folder, force, machine.described(where)) as told:
        saved = _saved(folder)
        runs = runs_of(folder, saved, sets_of(saved, data, validation), where)
        search, more = restored(folder, saved.notes["search"])
        lengths = {"epochs": epochs, "steps": steps}
        longer = any(each is not None for each in lengths.values())
        queue = _queue(folder, saved, runs, design)
        if longer and search is not None:
            raise ConfigError(f"{search.name} depends on the length of the training, so the run cannot be extended")
        if search is not None:
            more += _begun(folder, search, runs, queue)
        if longer:
            if saved.notes["queue"] is not None:
                raise ConfigError("this run had more networks than slots: those that have left it cannot be trained on")
            _extend(runs, lengths)
        settings, differs = _settings(folder, saved, runs, settings)
        _write_changes(folder, saved, runs, settings, lengths if longer else {}, data)
        notes = [*saved.told, *differs, *forks.notes(), *told, *more]
        loop = Loop(
            runs, tuple(reporters), folder, checkpoint_minutes, settings, (*lines, *notes), saved.notes["history"],
            saved.notes["seconds"], notes, search=search, queue=queue,
        )  # fmt: skip
        with memory.explained([run.shape for run in runs], where[0]):
            result = loop.train()
    return delivered(result)


def search_of(folder: Path, saved: checkpoint.Checkpoint, data: Dataset, validation: Dataset | None) -> Search | None:
    """The search of a saved run with these data, able to tell how far its networks have come. Raises GpubpError."""
    runs = runs_of(folder, saved, sets_of(saved, data, validation), [HOME])
    search, _ = restored(folder, saved.notes["search"])
    if search is not None:
        _begun(folder, search, runs, _queue(folder, saved, runs, None))
    return search


def _begun(folder: Path, search: Search, runs: Sequence[Run], queue: Queue | None) -> list[str]:
    """Make the search ready to continue. -> what it does. Raises CheckpointError if it is of another run."""
    try:
        return search.begin(runs if queue is None else streamed(search, queue.rows, queue.maker, runs[0].number)[1])
    except GpubpError as error:
        raise CheckpointError(f"{folder}: its search does not fit its networks: {error}") from None


def _saved(folder: Path) -> checkpoint.Checkpoint:
    """The checkpoint of the run in `folder`."""
    if checkpoint.begun(folder):
        raise CheckpointError(
            f"{folder} ended before its first checkpoint; restart it with the same call of train, or from the command "
            f"line with gpubp resume {folder}"
        )
    return checkpoint.load(folder, HOME, is_row)


def sets_of(saved: checkpoint.Checkpoint, data: Dataset, validation: Dataset | None) -> Sets:
    """The data, checked, for the networks of a checkpoint."""
    populations = [each.state.population for each in saved.populations]
    return ready([each.spec for each in populations], populations[0].params.dtype, data, validation, None)


def runs_of(folder: Path, saved: checkpoint.Checkpoint, sets: Sets, where: list[torch.device]) -> list[Run]:
    """The saved runs; raises CheckpointError if their data differ."""
    runs: list[Run] = []
    for each in saved.populations:
        state, config, rows, notes = each
        choice = _going_on(notes, state.population, config, where, sets.data)
        check_data(folder, each, sets)
        runs.append(Run(state, config, sets, choice, where, rows, notes["number"], notes["open"], notes["folds"]))
        _check_progress(folder, runs[-1])
    return runs


def check_data(folder: Path, saved: Saved, sets: Sets) -> None:
    """Raise CheckpointError unless these are the data of a saved population."""
    for name, fingerprint in sets.fingerprints.items():
        if saved.notes[name] != fingerprint:
            what = "data" if name == "data" else f"{name} data"
            raise CheckpointError(f"{folder}: the {what} differ from those that the run started with")
    try:
        for each in sets.each:
            saved.state.check(each)
    except GpubpError as error:
        raise CheckpointError(f"{folder} does not fit its data: {error}") from None


def _queue(folder: Path, saved: checkpoint.Checkpoint, runs: list[Run], given: Iterator[Any] | None) -> Queue | None:
    """The queue of a run, with the remaining rows of its design."""
    notes, first = saved.notes["queue"], runs[0]
    if notes is None:
        return None
    design: Design | Iterator[Any] | None = given
    if notes["total"] is not None:
        design = Design.of(folder / DESIGN)
    elif design is None and notes["left"]:
        raise CheckpointError(f"{folder} was given a stream of rows: resume(..., design=) with the same rows expected")
    population = first.state.population
    positions = {each.networks for each in first.sets.each if each.networks is not None}
    source = Source(population.seed, population.params.dtype, next(iter(positions), None), population.spec)
    rows = Rows(design, notes["common"], source, notes["taken"], notes["last"], first.sets.data.entities)
    if rows.total != notes["total"]:
        raise CheckpointError(f"{folder / DESIGN} has {counted(rows.total or 0, 'row')}, the run {notes['total']}")
    if rows.total is None and not notes["left"]:
        rows.left = bool(rows.first())  # none, unless its last rows were wrong
    maker = Maker(first.sets, notes["engine"], first.where, first.folds, notes["looks"], notes["every"])
    return Queue(rows, maker, notes["slots"], saved.ended, notes["steps"])


def _settings(
    folder: Path, saved: checkpoint.Checkpoint, runs: Sequence[Run], given: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[str]]:
    """`given`, or else the run's settings, with its present length and engine; and notes for the user."""
    path, kept, notes = folder / config_file.FILE, saved.notes["settings"], []
    if kept is None:
        kept = _older_settings(path)
    elif config_file.differs(path, kept):
        notes = [f"{path} is not what the run wrote: it is written again; the checkpoint has the settings"]
    chosen = kept if given is None else given
    return described(runs) if chosen is None else updated(chosen, runs), notes


def _older_settings(path: Path) -> dict[str, Any] | None:
    """The settings of a run whose checkpoint (version 4 or less) has none: from its config.yaml, if readable."""
    try:
        found = config_file.read(path)
    except ConfigError:
        return None
    return found if isinstance(found, dict) else None


def _write_changes(
    folder: Path, saved: checkpoint.Checkpoint, runs: Sequence[Run], settings: Mapping[str, Any],
    lengths: Mapping[str, int | None], data: Dataset,
) -> None:  # fmt: skip
    """Write what has changed since the checkpoint."""
    path = folder / config_file.FILE
    with files.written(folder, CheckpointError):
        saved.notes["history"].save(folder)  # without records after the checkpoint
        digest = checkpoint.digest_of(folder / PREPARATION)
        if data.preparation is not None and saved.preparation not in (None, digest):
            data.preparation.save(folder)
        if lengths:  # so that a run killed later keeps the new length
            checkpoint.save(folder, [run.saved() for run in runs], {**saved.notes, "settings": settings})
            if (folder / DESIGN).is_file():
                Design.of(folder / DESIGN).lengthened(lengths).save(folder)
        if not path.exists() or config_file.differs(path, settings):
            config_file.write(path, settings, reasons(runs))


def _check_progress(folder: Path, run: Run) -> None:
    """Raise CheckpointError if steps and ends do not match the run's round and configuration."""
    state, config, sizes = run.state, run.config, run.sets.data.size(run.state.position)
    elsewhere = state.end != config.lengths(sizes)
    unfinished = (state.status == Status.finished) & (state.step < state.end)
    if bool(((config.rounds.number(state.step, sizes) > run.number) | elsewhere | unfinished).any()):
        raise CheckpointError(
            f"{folder}: the checkpoint is damaged: its networks' steps do not match round {run.number} of its "
            "configuration"
        )


def _going_on(
    notes: Mapping[str, Any], population: Population, config: TrainConfig, where: Sequence[torch.device], data: Dataset
) -> Choice:
    """The engine of a run; on another kind of device the same source compiled for that."""
    begun = notes["engine"]
    name = begun if begun == "eager" else where[0].type
    try:
        dtype, count = population.params.dtype, population.count
        choice = choose_for_all(name, population.spec, config, where, dtype, data, count)
    except EngineError as error:
        raise EngineError(
            f'{error}; but this run started with engine "{begun}", and resumes only where that can train it: name '
            "another device"
        ) from None
    if name != begun:
        return choice._replace(reason=f"{choice.reason}; the run started with engine {begun}")
    if name == "cuda":  # its reason names the present GPU
        return choice
    return choice._replace(reason=line(notes["engine_reason"]))


def _extend(runs: Sequence[Run], lengths: Mapping[str, int | None]) -> None:
    """Extend the training of networks that count in the units of the new lengths. Finished networks resume."""
    counted = {name: [run for run in runs if getattr(run.config, name) is not None] for name in lengths}
    for name, length in lengths.items():
        if length is not None and not counted[name]:
            other = "steps" if name == "epochs" else "epochs"
            raise ConfigError(f"this run counts {other}: give only {other} to extend it")
    for name, length in lengths.items():
        for run in counted[name] if length is not None else ():
            _lengthen(run, name, length)


def _lengthen(run: Run, name: str, length: int | None) -> None:
    state, config = run.state, run.config
    longer = replace(config, epochs=length) if name == "epochs" else replace(config, steps=length)
    end = longer.lengths(run.sets.data.size(state.position))
    shorter = bool((torch.as_tensor(length) < torch.as_tensor(getattr(config, name))).any())
    if shorter or bool((end < state.end).any()):
        raise ConfigError(f"{name} {length} would end networks before their present end; give more than before")
    if config.timetable.whole and bool((end > state.end).any()):
        raise ConfigError(
            f"schedule {config.schedule!r} depends on the length of the training, so the run cannot be extended; "
            "start a new run, or use a schedule that does not, such as step, exponential or inverse_sqrt"
        )
    run.config = longer
    state.end.copy_(end)
    state.status[(state.status == Status.finished) & (state.step < end)] = Status.running
    run.lengthened()
