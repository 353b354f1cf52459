"""train() and resume(): check the arguments and run a Loop (loop.py)."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from . import arrays, checkpoint, checks, files, forks, lock, memory
from .ambient import neutral
from .config import TrainConfig
from .data import Dataset
from .devices import Devices, devices
from .engines import Choice, choose_for_all
from .errors import CheckpointError, ConfigError, EngineError, reason
from .line import line, quoted
from .loop import Loop
from .placement import HOME
from .population import Population
from .reporters import Reporter, check, watches
from .result import Result, kept
from .run import Run
from .signals import delivered
from .state import Status, TrainState


@neutral()
def train(
    population: Population,
    data: Dataset,
    config: TrainConfig,
    validation: Dataset | None = None,
    engine: str = "auto",
    reporters: Sequence[Reporter] = (),
    inplace: bool = False,
    run_dir: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    settings: Mapping[str, Any] | None = None,
    device: Devices | None = None,
    lines: Sequence[str] = (),
) -> Result:
    """Train every network of `population` on `data` with `config`.

    device: by default the population's: "cpu", "cuda", "cuda:1"; "cuda:all", or several, split
    the networks. The result's state and figures are in host memory.
    validation: samples to evaluate on. reporters: see reporters/, such as [gpubp.ConsoleReporter()]; lines: their
    first output. inplace: also write the trained numbers to population.params. run_dir: a new directory for
    checkpoints (every few minutes, at the end, on Ctrl-C and SIGTERM), results.parquet, results.csv, config.yaml, which
    holds `settings` or else specification and configuration, and preparation.json, the preparation of `data`, for
    load(); during the run no other process can resume it.

    The result's history has a record per evaluation: one every config.evaluate_every, by default every
    hundredth of the training if anything uses them (validation data, a reporter of evaluations, schedule plateau),
    otherwise one at the end, whose loss is the mean over all steps.

    Ctrl-C and SIGTERM end the run after the present call and save everything; then the previous handler of the signal
    is called. So Ctrl-C raises KeyboardInterrupt, whose `result` is the Result so far, and SIGTERM ends the
    process, unless it has a handler: exceptions of the handler have the `result`, and if it raises none,
    train() returns it. A second Ctrl-C ends at once, without a result. Signals are handled only in the main
    thread. Failed writes, as on a full disk, are retried, and the result says if the last one failed (`unsaved`).

    Raises, before anything is trained or written, ShapeError, DataError, ConfigError, DeviceError, EngineError,
    OutOfMemoryError.
    """
    for name, given, kind in (("population", population, Population), ("data", data, Dataset),
                              ("config", config, TrainConfig), ("validation", validation, Dataset)):  # fmt: skip
        if not isinstance(given, kind) and not (name == "validation" and given is None):
            raise ConfigError(
                f"{name} is a {type(given).__name__}, {kind.__name__} expected: train(population, data, config, "
                "validation=None, ...)"
            )
    spec, params = population.spec, population.params
    _check(reporters, checkpoint_minutes, settings, lines)
    if inplace and any(step == 0 and size > 1 for step, size in zip(params.stride(), params.shape)):
        raise ConfigError("inplace=True: networks of population.params share memory, as after expand(); clone() them")
    looked_at = validation is not None or config.timetable.events or any(map(watches, reporters))
    every = config.interval if looked_at or config.evaluate_every is not None else config.longest
    config, notes = replace(config, evaluate_every=every).fitted(data)
    notes += forks.notes()
    where = devices(params.device if device is None else device)
    preparation = data.preparation
    data, held_out = _ready(population, data), None
    if validation is not None:
        held_out = _ready(population, validation)
    choice = choose_for_all(engine, spec, config, where, params.dtype, data)
    folder = None if run_dir is None else _new(files.path("run_dir", run_dir))
    recipe = config.recipe(spec)
    memory.check(spec, recipe, population.count, params.element_size(), HOME)
    with memory.explained(spec, recipe, population.count, params.element_size(), where[0]), ExitStack() as stack:
        copied = replace(
            population, params=params.to(HOME, copy=True).contiguous(), ids=population.ids.to(HOME, copy=True)
        )
        state = TrainState.start(copied, config, data)
        state.check(data)
        chosen = _settings(population, config, choice) if settings is None else dict(settings)
        files.as_yaml(chosen)  # refused before anything is written
        run = Run(state, config, data, held_out, choice, where)
        loop = Loop(run, tuple(reporters), folder, checkpoint_minutes, chosen, (*lines, *notes), notes=notes)
        if folder is not None:
            try:
                lock.file(folder).parent.mkdir(parents=True, exist_ok=True)
                news = stack.enter_context(lock.held(folder))
                loop.notes, loop.lines = [*loop.notes, *news], (*loop.lines, *news)
                _new(folder)  # another process may have been faster
                files.write_settings(folder / "config.yaml", chosen, choice.reason)
                # of a run that ended before it saved anything
                (folder / checkpoint.PREPARATION).unlink(missing_ok=True)
                if preparation is not None:
                    preparation.save(folder)
            except (OSError, RecursionError) as error:
                why = reason(error, "its path is too deep")
                raise ConfigError(f"run directory {folder} cannot be made: {why}") from None
        result = loop.train()
    with kept(result):
        if inplace:
            with torch.inference_mode():  # so that params made in that mode, or that require grad, can be written
                params.copy_(state.population.params)
        result = replace(result, population=result.population.to(params.device))
    return delivered(result)


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
) -> Result:
    """Resume the run in `run_dir`, with the bits of an uninterrupted run (on another kind of device, up to
    rounding); with more `epochs` or `steps` than before, those of a run started with as many; the new length
    is saved before the first step. device: as in train(), but by default the CPU, wherever the run started.
    settings: the configuration, for reporters and config.yaml. The interval of evaluations does not change.
    Signals, lines: as in train(). force: take the run from a dead process whose lock remains, as on some
    network file systems.
    Raises CheckpointError if the run or its data differ or another process trains it, DeviceError, EngineError."""
    _check(reporters, checkpoint_minutes, settings, lines)
    folder, where = files.path("run_dir", run_dir), devices(device)
    with lock.held(folder, force) as news:
        loop = _loop(folder, data, validation, epochs, steps, reporters, where, checkpoint_minutes, settings, lines)
        loop.notes, loop.lines = [*loop.notes, *news], (*loop.lines, *news)
        saved = loop.run.state.population
        with memory.explained(saved.spec, loop.run.state.recipe, saved.count, saved.params.element_size(), where[0]):
            result = loop.train()
    return delivered(result)


def _check(reporters: Any, checkpoint_minutes: Any, settings: Any, lines: Any) -> None:
    """Raise ConfigError for invalid arguments of train() and resume()."""
    minutes = arrays.real(checkpoint_minutes)
    if minutes is None or minutes < 0:
        raise ConfigError(f"checkpoint_minutes {checkpoint_minutes!r}: a number of 0 or more expected")
    check(reporters)
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f"settings are a {type(settings).__name__}; a dict of plain values by name expected")
    if not isinstance(lines, Sequence) or not all(isinstance(each, str) for each in lines) or isinstance(lines, str):
        raise ConfigError(f"lines are a {type(lines).__name__}; a list of texts expected")


def _loop(
    folder: Path,
    data: Dataset,
    validation: Dataset | None,
    epochs: int | None,
    steps: int | None,
    reporters: Sequence[Reporter],
    where: list[torch.device],
    checkpoint_minutes: float,
    settings: Mapping[str, Any] | None,
    lines: Sequence[str],
) -> Loop:
    """The run in `folder`, ready to resume."""
    if checkpoint.begun(folder):
        raise CheckpointError(
            f"{folder} ended before its first checkpoint; restart it with the same call of train, or from the command "
            f"line with gpubp resume {folder}"
        )
    saved = checkpoint.load(folder, HOME)
    state, config, notes, preparation = saved.state, saved.config, saved.notes, data.preparation
    data = _ready(state.population, data)
    held_out = None if validation is None else _ready(state.population, validation)
    population = state.population
    choice = _going_on(notes, population, config, where, data)
    news = [*saved.told, *forks.notes()]
    run = Run(state, config, data, held_out, choice, where, notes["number"])
    for name, fingerprint in run.fingerprints.items():
        if notes[name] != fingerprint:
            raise CheckpointError(f"{folder}: the {name} differ from those that the run started with")
    state.check(data)
    _check_progress(folder, run)
    longer = epochs is not None or steps is not None
    if longer:
        _extend(run, epochs, steps)
    chosen = _brought_up(
        _settings(population, run.config, choice) if settings is None else settings, run.config, choice
    )
    files.as_yaml(chosen)  # refused before anything is written
    loop = Loop(
        run, tuple(reporters), folder, checkpoint_minutes, chosen, (*lines, *news), notes["history"],
        notes["seconds"], news,
    )  # fmt: skip
    try:
        loop.history.save(folder)  # without records after the checkpoint
        digest = checkpoint.digest_of(folder / checkpoint.PREPARATION)
        if preparation is not None and saved.preparation not in (None, digest):
            preparation.save(folder)
        if longer:
            checkpoint.save(folder, state, run.config, notes)  # so that a killed run keeps the new length
        _write_down(folder, settings, run.config, choice)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror}") from None
    return loop


def _check_progress(folder: Path, run: Run) -> None:
    """Raise CheckpointError if steps and ends do not match the run's round and configuration."""
    state, config, sizes = run.state, run.config, run.data.size(run.state.position)
    done = torch.minimum(config.rounds.passed(state.step - 1, sizes), state.step - 1)  # a round has one step or more
    elsewhere = state.end != config.lengths(sizes)
    unfinished = (state.status == Status.finished) & (state.step < state.end)
    if bool(((done >= run.number) | elsewhere | unfinished).any()):
        raise CheckpointError(
            f"{folder}: the checkpoint is damaged: its networks' steps do not match round {run.number} of its "
            "configuration"
        )


def _brought_up(settings: Mapping[str, Any], config: TrainConfig, choice: Choice) -> dict[str, Any]:
    """`settings` with the present length and engine of a run."""
    now = copy.deepcopy(dict(settings))
    known = {"engine": choice.name, "engine_reason": choice.reason}
    now |= {name: value for name, value in known.items() if name in now}
    for part in (now, now.get("training")):
        for name in ("epochs", "steps"):
            if isinstance(part, dict) and part.get(name) is not None:
                part[name] = arrays.in_short(getattr(config, name))
    return now


def _write_down(folder: Path, settings: Mapping[str, Any] | None, config: TrainConfig, choice: Choice) -> None:
    """Write `settings`, or the earlier ones, up to date, to config.yaml. Raises OSError."""
    path = folder / "config.yaml"
    try:
        before = files.read_settings(path)
    except ConfigError:  # resuming needs none
        before = None
    chosen = before if settings is None else settings
    if isinstance(chosen, Mapping) and (now := _brought_up(chosen, config, choice)) != before:
        files.write_settings(path, now, choice.reason)


def _ready(population: Population, data: Dataset) -> Dataset:
    """`data`, checked, in host memory, with the networks' dtype."""
    checks.check(data, population.spec, population.count)
    return data.to(HOME, population.params.dtype)


def _going_on(
    notes: Mapping[str, Any], population: Population, config: TrainConfig, where: Sequence[torch.device], data: Dataset
) -> Choice:
    """The engine of a run; on another kind of device the same source compiled for that."""
    begun = notes["engine"]
    name = begun if begun == "eager" else where[0].type
    try:
        choice = choose_for_all(name, population.spec, config, where, population.params.dtype, data)
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


def _new(folder: Path) -> Path:
    # os.path's, because Path's raises for a name that is too long
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"run directory {folder} is a file; name a new directory")
    if os.path.exists(folder) and any(folder.iterdir()) and not checkpoint.begun(folder):
        raise ConfigError(
            f"run directory {folder} exists already; name a new one, or resume it: gpubp resume {quoted(folder)}, or "
            "gpubp.resume for a run from Python"
        )
    return folder


def _settings(population: Population, config: TrainConfig, choice: Choice) -> dict[str, Any]:
    used = {**config.to_dict(), **config.values(population.spec.loss)}
    return {
        "network": population.spec.to_dict(),
        "networks": population.count,
        "seed": population.seed,
        "training": {
            name: arrays.in_short(value) for name, value in used.items() if value is not None and name != "extra"
        },
        "engine": choice.name,
        "engine_reason": choice.reason,
    }


def _extend(run: Run, epochs: int | None, steps: int | None) -> None:
    """Extend the training. Finished networks resume."""
    state, config = run.state, run.config
    name, length = ("epochs", epochs) if steps is None else ("steps", steps)
    if getattr(config, name) is None or (epochs is not None and steps is not None):
        other = "steps" if config.epochs is None else "epochs"
        raise ConfigError(f"this run counts {other}: give only {other} to extend it")
    longer = TrainConfig.from_dict({**config.to_dict(), name: length})
    end = longer.lengths(run.data.size(state.position))
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
