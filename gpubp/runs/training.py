"""train(), of one population, and train_many(), of a design: check the arguments and run a Loop (loop.py)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import memory
from ..checkpoints import checkpoint
from ..checkpoints.ended import Ended
from ..checkpoints.history import Records
from ..errors import ConfigError, check_kind, reason
from ..line import quoted
from ..population import Population
from ..populations import Populations
from ..raw.preparation import FILE as PREPARATION
from ..raw.preparation import Preparation
from ..reporters import Reporter, check, watches
from ..results.result import Result, kept
from ..samples import checks
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..state import TrainState
from ..system import arrays, config_file, files, forks, free, lock, machine
from ..system.ambient import HOME, neutral
from ..system.devices import Devices, devices
from .design import DESIGN, Design, Group
from .loop import Loop, Search
from .making import Maker, ready
from .planning import compared, first, in_order, searched, streamed
from .queue import Waiting
from .run import Run, reasons
from .signals import delivered


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
    search: Search | None = None,
    optimizer_state: TrainState | None = None,
) -> Result:
    """Train every network of `population` on `data` with `config`.

    device: by default the population's: "cpu", "cuda", "cuda:1"; "cuda:all", or several, split the networks. The
    result's state and figures are in host memory. validation: samples to evaluate on. reporters: see reporters/, such
    as [gpubp.ConsoleReporter()]; lines: their first output. search: decides which networks continue, such as
    gpubp.search.SuccessiveHalving(). optimizer_state: `state` of an earlier result; networks with the same ids keep
    their optimizer's memory; steps count anew. inplace: also write the trained numbers to population.params. run_dir: a
    new directory for checkpoints (every few minutes, at the end, on Ctrl-C and SIGTERM), results.parquet, results.csv,
    preparation.json (the preparation of `data`, for load()), and config.yaml, for people: `settings`, or else
    specification and configuration; during the run no other process can resume it.

    The result's history has a record per evaluation: one every config.evaluate_every, by default every
    hundredth of the training if anything uses them (validation data, a reporter of evaluations, schedule plateau),
    otherwise one at the end, whose loss is the mean over all steps. A design that streams through slots has ever fewer
    records after the first 1,024, and always the last.

    Ctrl-C and SIGTERM end the run after the present call and save everything; then the previous handler of the signal
    is called. So Ctrl-C raises KeyboardInterrupt, whose `result` is the Result so far, and SIGTERM ends the process,
    unless it has a handler: an exception of the handler carries the `result`; without one, train() returns it. A second
    Ctrl-C ends at once, without a result. Signals are handled only in the main thread. Failed writes, as on a full
    disk, are retried; the result's `unsaved` says if the last one failed.

    Raises, before anything is trained or written, ShapeError, DataError, ConfigError, DeviceError, EngineError,
    OutOfMemoryError.
    """
    call = "train(population, data, config, validation=None, ...)"
    check_kind("population", population, Population, call=call)
    checks.are_datasets(data, validation, call)
    check_kind("config", config, TrainConfig, call=call)
    check_kind("optimizer_state", optimizer_state, TrainState, optional=True, call=call)
    params = population.params
    if inplace and any(step == 0 and size > 1 for step, size in zip(params.stride(), params.shape)):
        raise ConfigError("inplace=True: networks of population.params share memory, as after expand(); clone() them")
    everyone = torch.arange(population.count)
    before = None if optimizer_state is None else optimizer_state.those_of(population)
    result = _trained(
        [Group(everyone, population, config, everyone, before)], data, validation, engine, reporters, run_dir,
        checkpoint_minutes, settings, params.device if device is None else device, lines, search,
    )  # fmt: skip
    with kept(result):
        if inplace:
            with torch.inference_mode():  # so that params made in that mode, or that require grad, can be written
                params.copy_(result.population.params)
        result = replace(result, populations=Populations.of(result.population.to(params.device)))
    return delivered(result)


@neutral()
def train_many(
    design: Any,
    data: Dataset,
    validation: Dataset | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    engine: str = "auto",
    reporters: Sequence[Reporter] = (),
    run_dir: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    settings: Mapping[str, Any] | None = None,
    device: Devices = "cpu",
    lines: Sequence[str] = (),
    search: Search | None = None,
    slots: int | None = None,
    **common: Any,
) -> Result:
    """Train a network for each row of `design`, which may differ in topology, optimizer, loss, batch size and every
    number: a mapping of columns, a list of mappings, a frame, a pyarrow.Table, or the path of a .csv, .parquet, .json
    or .yaml file (design.py lists the columns). common: settings of all rows that do not set them, such as
    loss="cross_entropy", epochs=20.

    Rows that differ only in numbers train as one population. Each network has the same bits as in a design of its row
    alone, with its `seed`, by default its row number. data: for all networks; or, with `rows`, inputs or weights for
    each, those of network n at position n, or at the position in its column `fold` or `entity`. The result has one
    table, in the order of the rows, with a column for whatever differs, except init, init_scale, evaluate_every and
    lengths, which are in the design; result.populations are the populations, result.network(n) is one network. A
    run_dir also holds design.parquet. All else is as in train().

    slots: how many networks train at once; by default, and at most, as many as memory holds. The others take the slots
    of networks that end, which changes no network. The design may be an iterator of mappings, read as slots become
    free, by default 65,536 rows at first. A wrong row among the first is refused like any argument. A later one, or an
    error of the iterator after its first row, ends the training when its slot is free: what is trained is saved, and
    the error carries it as `result`."""
    begin, waiting = first(design, data, validation, seed, dtype, slots, common)
    return delivered(_trained(
        waiting.rows.groups(begin), data, validation, engine, reporters, run_dir, checkpoint_minutes, settings, device,
        lines, search, waiting,
    ))  # fmt: skip


def _trained(
    groups: Sequence[Group], data: Dataset, validation: Dataset | None, engine: str, reporters: Sequence[Reporter],
    run_dir: str | Path | None, checkpoint_minutes: float, settings: Mapping[str, Any] | None, device: Devices,
    lines: Sequence[str], search: Search | None, design: Waiting | None = None,
) -> Result:  # fmt: skip
    """The result of training `groups`, and then the rest of a design; the other arguments are those of train() and
    train_many()."""
    check_arguments(reporters, checkpoint_minutes, settings, lines)
    where, preparation, notes = devices(device), data.preparation, forks.notes()
    waits = design is not None and design.rows.left
    if design is not None and search is not None:
        compared(design, search)
    room = free.available(HOME) if design is None else design.free
    count = groups[0].population.count if design is None else None if design.folds else design.rows.total
    sets = ready([each.spec for each in groups], groups[0].population.params.dtype, data, validation, count)
    if design is not None and waits:
        design.check(sets)
    looks = validation is not None or any(map(watches, reporters)) or search is not None
    folds = data.entities is None and (data.folded or (design is not None and design.folds))
    maker = Maker(sets, engine, where, folds, looks, design.every(looks) if design and waits else None, notes)
    everyone = None
    if search is not None and design is not None and waits:
        search, everyone = streamed(search, design.rows, maker)
    elif search is not None:
        search, groups = searched(search, groups)
    folder = None if run_dir is None else new(files.path("run_dir", run_dir))
    with ExitStack() as stack:
        runs = maker.runs(groups, copy=design is None)  # only the run has a design's networks
        shapes, written = [run.shape for run in runs], folder is not None
        stack.enter_context(memory.explained(shapes, where[0]))
        workspace = max(run.choice.engine.workspace(run.state, sets.data) for run in runs)
        plan = memory.plan(shapes, design is None, room, sets.each, bool(waits), workspace, written)
        queue = design.queue(maker, runs, Ended(folder)) if design is not None and waits else None
        if search is not None:
            notes += search.begin(everyone or runs)
            in_order(search, design and design.rows.design)
            everyone = None  # frees some 140 bytes a network
        chosen = described(runs, search) if settings is None else updated(settings, runs)
        lines = (*lines, *notes, plan)
        if folder is not None:
            rows = design and design.rows.design
            news = stack.enter_context(opened(folder, chosen, reasons(runs), preparation, rows, where))
            notes, lines = [*notes, *news], (*lines, *news)
        given = runs, tuple(reporters), folder, checkpoint_minutes, chosen, lines
        return Loop(*given, notes=notes, search=search, queue=queue).train()


@contextmanager
def opened(
    folder: Path, settings: Mapping[str, Any], reasons: str, preparation: Preparation | None, design: Any,
    where: Sequence[torch.device] = (),
) -> Iterator[list[str]]:  # fmt: skip
    """The new run directory, held by this process, which trains on `where`, with the files that do not change. -> notes
    for the user. Raises ConfigError if it cannot be made."""
    with ExitStack() as stack:
        try:
            lock.file(folder).parent.mkdir(parents=True, exist_ok=True)
            news = stack.enter_context(lock.held(folder, machine=machine.described(where)))
            new(folder)  # another process may have been faster
            config_file.write(folder / config_file.FILE, settings, reasons)
            (folder / PREPARATION).unlink(missing_ok=True)  # left by a run that ended before it saved anything
            if preparation is not None:
                preparation.save(folder)
            if isinstance(design, Design):
                design.save(folder)
        except (OSError, RecursionError) as error:
            why = reason(error, "its path is too deep")
            raise ConfigError(f"run directory {folder} cannot be made: {why}") from None
        yield news


def check_arguments(reporters: Any, checkpoint_minutes: Any, settings: Any, lines: Any) -> None:
    """Raise ConfigError for invalid arguments of train() and resume()."""
    minutes = arrays.real(checkpoint_minutes)
    if minutes is None or minutes < 0:
        raise ConfigError(f"checkpoint_minutes {checkpoint_minutes!r}: a number of 0 or more expected")
    check(reporters)
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f"settings are a {type(settings).__name__}; a dict of plain values by name expected")
    if not isinstance(lines, Sequence) or not all(isinstance(each, str) for each in lines) or isinstance(lines, str):
        raise ConfigError(f"lines are a {type(lines).__name__}; a list of texts expected")


def new(folder: Path) -> Path:
    """`folder`, if a run can begin there. Raises ConfigError."""
    # os.path's, because Path's raises for a name that is too long
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"run directory {folder} is a file; name a new directory")
    if os.path.exists(folder) and any(folder.iterdir()) and not checkpoint.begun(folder):
        raise ConfigError(
            f"run directory {folder} exists already; name a new one, or resume it: gpubp resume {quoted(folder)}, or "
            "gpubp.resume for a run from Python"
        )
    return folder


def described(runs: Sequence[Run], search: Search | None = None) -> dict[str, Any]:
    """The settings of a run from Python."""
    population, config = runs[0].state.population, runs[0].config
    used = {**config.to_dict(), **config.values(population.spec.loss)}
    plain = {name: arrays.in_short(value) for name, value in used.items() if value is not None and name != "extra"}
    alone = {"network": population.spec.to_dict(), "training": plain}
    return config_file.plain(
        {
            **(alone if len(runs) == 1 else {"design": DESIGN}),
            "networks": sum(run.state.population.count for run in runs),
            "seed": population.seed,
            "engine": ", ".join(dict.fromkeys(run.choice.name for run in runs)),
            "engine_reason": reasons(runs),
            **({} if search is None else {"search": _plain(search)}),
        }
    )


def _plain(search: Search) -> dict[str, Any]:
    """The settings of a search, without its decisions."""
    return {name: value for name, value in search.to_dict().items() if not isinstance(value, Records)}


def updated(settings: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """`settings` with what all networks of the run have: the engine, the length. Raises ConfigError for values that are
    not plain."""
    now, engines = config_file.plain(settings), {run.choice.name for run in runs}
    known = {"engine_reason": reasons(runs), **({"engine": engines.pop()} if len(engines) == 1 else {})}
    now |= {name: value for name, value in known.items() if name in now}
    for part in (now, now.get("training")):
        for name in ("epochs", "steps"):
            lengths = {arrays.in_short(each) for run in runs if (each := getattr(run.config, name)) is not None}
            alike = len(lengths) == 1 and isinstance(min(lengths), int)  # else settings say more than one value
            if isinstance(part, dict) and part.get(name) is not None and alike:
                part[name] = lengths.pop()
    return now
