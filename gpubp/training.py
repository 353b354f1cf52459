"""train() and resume(): what was asked for, checked, becomes a Loop (loop.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from . import checkpoint, memory
from .config import TrainConfig
from .data import Dataset
from .devices import Devices, devices
from .engines import Choice, choose_for_all
from .errors import CheckpointError, ConfigError, EngineError
from .loop import Loop, Result
from .placement import HOME
from .population import Population
from .reporters import Reporter
from .state import Status, TrainState


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
) -> Result:
    """Train every network of `population` on `data`, as `config` says.

    device: where to train, by default where the population is: "cpu", "cuda", "cuda:1"; "cuda:all", or several, share
    the networks. The result's state and figures are in the processor's memory.
    validation: samples to evaluate on. reporters: see reporters/. inplace: write the trained numbers over
    population.params too. run_dir: a new directory for checkpoints (every few minutes, at the end, on Ctrl-C and
    SIGTERM), results.parquet, results.csv, config.yaml, which holds `settings` or else specification and
    configuration, and preparation.json, the preparation of `data`, for load(). Ctrl-C and SIGTERM end the run after the
    present call; a second Ctrl-C at once.

    Raises, before anything is trained or written, ShapeError, DataError, ConfigError, DeviceError, EngineError,
    OutOfMemoryError.
    """
    spec, params = population.spec, population.params
    if not checkpoint_minutes >= 0:
        raise ConfigError(f"checkpoint_minutes {checkpoint_minutes}: 0 or more expected")
    config = replace(config, evaluate_every=config.interval)
    where = devices(params.device if device is None else device)
    preparation = data.preparation
    data, held_out = _ready(population, data), None
    if validation is not None:
        held_out = _ready(population, validation)
    choice = choose_for_all(engine, spec, config, where, params.dtype, data)
    folder = None if run_dir is None else _new(Path(run_dir))
    memory.check(spec, config, population.count, params.element_size(), HOME)
    with memory.explained(spec, config, population.count, params.element_size(), where[0]):
        own = replace(
            population, params=params.to(HOME, copy=True).contiguous(), ids=population.ids.to(HOME, copy=True)
        )
        state = TrainState.start(own, config, data)
        loop = Loop(state, data, held_out, choice, where, tuple(reporters), folder, checkpoint_minutes)
        if folder is not None:
            chosen = _settings(population, config, choice) if settings is None else dict(settings)
            try:
                folder.mkdir(parents=True)
                text = f"# {choice.reason}\n{yaml.safe_dump(chosen, sort_keys=False)}"
                (folder / "config.yaml").write_text(text, encoding="utf-8")
                if preparation is not None:
                    preparation.save(folder)
            except OSError as error:
                raise ConfigError(f"run directory {folder} cannot be made: {error.strerror}") from None
        result = loop.run()
        if inplace:
            params.copy_(state.population.params)
        return replace(result, population=result.population.to(params.device))


def resume(
    run_dir: str | Path,
    data: Dataset,
    validation: Dataset | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    reporters: Sequence[Reporter] = (),
    device: Devices = "cpu",
    checkpoint_minutes: float = 5.0,
) -> Result:
    """Go on with the run in `run_dir`, to the same bits as if it had never stopped (on a device of another kind than
    before, to rounding); with `epochs` or `steps`, more of them than before, as if it had been begun with so many.
    device: as in train(), but the CPU unless another is named, wherever the run was begun.
    Raises CheckpointError where run or data are not those, DeviceError, EngineError."""
    folder, where = Path(run_dir), devices(device)
    saved = checkpoint.load(folder, HOME)
    state, notes = saved.state, saved.notes
    data = _ready(state.population, data)
    held_out = None if validation is None else _ready(state.population, validation)
    own = state.population
    choice = _going_on(notes, own, state.config, where, data)
    loop = Loop(state, data, held_out, choice, where, tuple(reporters), folder, checkpoint_minutes)
    for name, fingerprint in loop.fingerprints.items():
        if notes[name] != fingerprint:
            raise CheckpointError(f"{folder}: the {name} are not those that the run was begun with")
    if epochs is not None or steps is not None:
        _extend(state, data, epochs, steps)
    loop.number, loop.history, loop.seconds = notes["number"], notes["history"], notes["seconds"]
    shape = state.population.spec, state.config, state.population.count, state.population.params.element_size()
    with memory.explained(*shape, where[0]):
        return loop.run()


def _ready(population: Population, data: Dataset) -> Dataset:
    """`data`, checked, at home, as precise as the networks are."""
    data.check(population.spec, population.count)
    return data.to(HOME, population.params.dtype)


def _going_on(
    notes: Mapping[str, Any], population: Population, config: TrainConfig, where: Sequence[torch.device], data: Dataset
) -> Choice:
    """The engine that a run was begun with; on a device of another kind the same source compiled for that."""
    begun = notes["engine"]
    name = begun if begun == "eager" else where[0].type
    try:
        choice = choose_for_all(name, population.spec, config, where, population.params.dtype, data)
    except EngineError as error:
        raise EngineError(
            f'{error}; but this run was begun by engine "{begun}", and goes on where that can train it: name another '
            "device"
        ) from None
    if name != begun:
        return choice._replace(reason=f"{choice.reason}; the run was begun by engine {begun}")
    return choice if name == "cuda" else choice._replace(reason=notes["engine_reason"])  # cuda's is of the GPU at hand


def _new(folder: Path) -> Path:
    if folder.exists():
        raise ConfigError(
            f"run directory {folder} exists already; name a new one, or go on with it: gpubp resume {folder}"
        )
    return folder


def _settings(population: Population, config: TrainConfig, choice: Choice) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        many = torch.as_tensor(value) if isinstance(value, (Tensor, list, tuple)) else None
        if many is not None and many.numel() > 1:
            return f"{many.numel()} numbers from {float(many.min()):g} to {float(many.max()):g}"
        return value.item() if isinstance(value, Tensor) else value

    used = {**config.to_dict(), **config.values(population.spec.loss)}
    return {
        "network": population.spec.to_dict(),
        "networks": population.count,
        "seed": population.seed,
        "training": {name: plain(value) for name, value in used.items() if value is not None and name != "extra"},
        "engine": choice.name,
        "engine_reason": choice.reason,
    }


def _extend(state: TrainState, data: Dataset, epochs: int | None, steps: int | None) -> None:
    """Move the end of the training. A network that was finished goes on."""
    name, length = ("epochs", epochs) if steps is None else ("steps", steps)
    if getattr(state.config, name) is None or (epochs is not None and steps is not None):
        other = "steps" if state.config.epochs is None else "epochs"
        raise ConfigError(f"this run counts {other}: give {other}, and nothing else, to make it longer")
    longer = TrainConfig.from_dict({**state.config.to_dict(), name: length})
    end = longer.lengths(data.size(state.position))
    shorter = bool((torch.as_tensor(length) < torch.as_tensor(getattr(state.config, name))).any())
    if shorter or bool((end < state.end).any()):
        raise ConfigError(f"{name} {length} would end networks before where they are to end; give more than before")
    if state.config.timetable.whole and bool((end > state.end).any()):
        raise ConfigError(
            f"schedule {state.config.schedule!r} depends on the length of the training: a longer run is another run; "
            "train anew, or use a schedule that does not, such as step, exponential or inverse_sqrt"
        )
    state.config = longer
    state.end.copy_(end)
    state.status[(state.status == Status.finished) & (state.step < end)] = Status.running
