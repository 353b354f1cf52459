"""train() and train_many() on a cluster: check the arguments, let a Driver train shards, and join them into one run."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..checkpoints.manifests import MANIFEST
from ..checkpoints.stored import SHARDS
from ..errors import CheckpointError, ConfigError
from ..line import line
from ..maths.rng import check_seed
from ..population import Population
from ..populations import Populations
from ..reporters import Reporter, watches
from ..reporters.listeners import Listeners
from ..reporters.tensorboard import SAMPLED
from ..results.result import Result, kept
from ..results.table import Results
from ..runs.design import Design, Group
from ..runs.loop import Search
from ..runs.making import Source, ready
from ..runs.planning import own
from ..runs.run import reasons, start_of, together
from ..runs.signals import collected, delivered
from ..runs.training import check_arguments, described, new, opened, updated
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..system import files
from ..system.ambient import HOME, neutral
from .driver import Driver, Signalled
from .meeting import LightRun
from .merge import Joining, draw, outcomes, saved, with_rows
from .messages import Report
from .plan import Plan
from .progress import Together
from .record import RECORD, Record, check
from .session import room, session
from .shards import Job, Part, dealt
from .storage import Storage


@neutral()
def train(
    population: Population, data: Dataset, config: TrainConfig, validation: Dataset | None = None, *,
    run_dir: str | Path, cluster: str = "auto", shards: int | None = None, engine: str = "auto",
    reporters: Sequence[Reporter] = (), checkpoint_minutes: float = 5.0, settings: Mapping[str, Any] | None = None,
    device: str = "auto", lines: Sequence[str] = (), search: Search | None = None,
) -> Result:  # fmt: skip
    """gpubp.train() on a cluster; see train_many(). The rows of `population` are sent to the shards."""
    everyone = torch.arange(population.count)
    group = Group(everyone, population.to(HOME), config, everyone)
    wanted = Wanted(run_dir, cluster, shards, engine, reporters, checkpoint_minutes, settings, device, lines, search)
    return _trained([group], data, validation, wanted, population.count, None)


@neutral()
def train_many(
    design: Any, data: Dataset, validation: Dataset | None = None, *, run_dir: str | Path, cluster: str = "auto",
    shards: int | None = None, seed: int = 0, dtype: torch.dtype = torch.float32, engine: str = "auto",
    reporters: Sequence[Reporter] = (), checkpoint_minutes: float = 5.0, settings: Mapping[str, Any] | None = None,
    device: str = "auto", lines: Sequence[str] = (), search: Search | None = None, **common: Any,
) -> Result:  # fmt: skip
    """gpubp.train_many() on a cluster: its networks, dealt to `shards`, train as tasks of Ray, with the same bits.

    cluster: the address of a Ray cluster; "auto" is RAY_ADDRESS or the cluster that runs here, or else "local", a
    cluster on this machine started for the run. shards: how many; by default one for each GPU, or without GPUs one for
    each machine; shards wait until resources are free. Each has a GPU or an equal part of the CPUs; device: "cpu",
    "cuda", "auto". run_dir: new, on storage that all machines share, or a URL for fsspec. Shards save themselves below
    it; if a worker dies, its shard continues elsewhere from its last checkpoint. In the end there is one run, as from
    one machine. If it ends early, by an error, Ctrl-C or SIGTERM, which let shards save first, or because this process
    dies, repeating the call continues; a signal is raised again, with the result so far as `result`. Rows of a result
    are read from the run when used (population, network(), states), and take memory from then on; those of a run that
    ended early only until it continues.

    Custom rules, in a table or not, are sent to the workers. Refused, by an error before any training: streams of rows
    and `slots` (give more shards). Also raises what gpubp.train_many() raises."""
    if "slots" in common:
        raise ConfigError(f"slots {common['slots']!r}: not on a cluster, where more `shards` wait for their turn")
    if isinstance(design, Iterator):
        raise ConfigError("design: an iterator of rows; a cluster deals all at the start: a list or a table expected")
    positions = data.networks if validation is None or data.networks is not None else validation.networks
    rows = Design.of(design, entities=data.entities, **common)
    source = Source(check_seed(seed), dtype, positions)
    wanted = Wanted(run_dir, cluster, shards, engine, reporters, checkpoint_minutes, settings, device, lines, search)
    return _trained(source.planned(rows), data, validation, wanted, None if "fold" in rows.names else len(rows), rows)


class Wanted(NamedTuple):
    """The arguments that train() and train_many() have in common."""

    run_dir: str | Path
    cluster: str
    shards: int | None
    engine: str
    reporters: Sequence[Reporter]
    minutes: float
    settings: Mapping[str, Any] | None
    device: str
    lines: Sequence[str]
    search: Search | None


def _trained(
    parts: Sequence[Part], data: Dataset, validation: Dataset | None, wanted: Wanted, count: int | None,
    design: Design | None,
) -> Result:  # fmt: skip
    """The result of training the groups `parts`."""
    check_arguments(wanted.reporters, wanted.minutes, wanted.settings, wanted.lines)
    storage, search = Storage.of(wanted.run_dir), None if wanted.search is None else own(wanted.search)
    if storage.local is not None:
        new(storage.local)
    elif storage.holds(f"checkpoint/{MANIFEST}"):
        raise ConfigError(f"run directory {storage.path} exists already; name a new one")
    plan = Plan(parts, ready([each.spec for each in parts], parts[0].dtype, data, validation, count), design, search)
    listeners = Listeners(tuple(wanted.reporters), lambda *_: None)
    try:
        with ExitStack() as stack:
            folder = storage.local or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpubp-")))
            keeping = stack.enter_context((storage / SHARDS / "driver").folder())
            result = _shared(plan, wanted, storage, folder, keeping, listeners)
    except BaseException:
        listeners.give_back()
        raise
    return delivered(result, f"{line(storage.path)} has all that is saved; the same call goes on")


def _shared(plan: Plan, wanted: Wanted, storage: Storage, folder: Path, keeping: Path, listeners: Listeners) -> Result:
    """The result of training on the cluster. folder: of the run; keeping: of the driver's record."""
    with ExitStack() as stack:
        with session(wanted.cluster, plan.sets) as (ray, lines):
            seen, before = files.found(keeping / RECORD), Record.load(keeping)
            asked = before.shards if before is not None and wanted.shards is None else wanted.shards
            device, lent = room(ray, wanted.device, asked)
            sets = ray.put(plan.sets)
            lines += plan.fit(ray, lent, sets, wanted.engine, device, any(map(watches, wanted.reporters)))
            runs, shown = plan.runs(), plan.runs()
            shards, mine = list(dealt(plan.parts, lent.shards)), plan.digest(lent.shards)
            record = check(before or Record(mine, lent.shards), mine, lent.shards, storage.path)
            record.restore(keeping, shown)
            lines += plan.begin(record, keeping, runs)
            meetings = plan.meetings(runs)
            chosen = described(runs, plan.search) if wanted.settings is None else updated(wanted.settings, runs)
            chosen |= {"shards": lent.shards}
            held = opened(folder, chosen, reasons(runs), plan.sets.data.preparation, plan.design)
            lines += stack.enter_context(held)
            if files.found(keeping / RECORD) != seen:  # changed before this process had the lock
                raise CheckpointError(f"{storage.path}: another process has just gone on with it: call again")
            record.save(keeping)
            stops = bool(getattr(plan.search, "stops", False))
            left, waited = meetings[record.decided :], record.waited(keeping)
            told = Together(shown, shards, listeners, record.history, record.seconds, left, waited, stops)
            listeners.told = told.tell
            lines = [*wanted.lines, *lines, f"{lent}"]
            listeners.start(start_of(runs, storage.path, lines, chosen, told.history))
            norms = -(-SAMPLED // len(shards)) if any(watches(each, ["looked"]) for each in wanted.reporters) else 0
            job = Job(
                storage / SHARDS, plan.engines, device, plan.folds, lent.threads, wanted.minutes, plan.rules,
                len(shards), norms,
            )  # fmt: skip
            driver = Driver(ray, job, shards, sets, lent.options, told, record, storage, keeping)
            began, number = time.monotonic(), None
            with collected() as driver.signals, closing(driver):
                try:
                    reports = driver.train(runs, plan.search, meetings)
                except Signalled as ended:
                    reports, number = ended.reports, ended.number
                    driver.bring(runs, reports)
            spent = time.monotonic() - began
        result = _result(plan, driver, reports, runs, chosen, folder, spent, number)
        result = replace(result, run_dir=None if storage.local is None else Path(wanted.run_dir))
        if number is None and result.unsaved is None:
            if storage.local is None:
                storage.put(folder)
            try:
                job.storage.keep(_files(reports))
            except CheckpointError as error:
                told.tell(f"{error}; files that nobody needs are left there")
        with kept(result):
            listeners.tell(lambda reporter: reporter.finish(result))
    return result


def _files(reports: Sequence[Report]) -> set[str]:
    """The files that have the shards' rows, by their names there."""
    return {each.end.file["file"].removeprefix(f"{SHARDS}/") for each in reports if each.end is not None}


def _result(
    plan: Plan, driver: Driver, reports: Sequence[Report], runs: Sequence[LightRun], settings: dict[str, Any],
    folder: Path, spent: float, number: int | None,
) -> Result:  # fmt: skip
    """The result of the shards; unless signal `number` has ended them early, also saved as the run in `folder`."""
    told, search, storage = driver.together, plan.search, driver.root
    ends = [each.end for each in reports if each.end is not None]
    networks = saved(runs, plan.parts, driver.shards, ends)
    notes = {
        "number": max(each.notes["number"] for each in networks),
        "history": told.history,
        "clock": "step" if together(runs) else "network_steps",
        "seconds": told.seconds,
        "settings": settings,
        "search": None if search is None else search.to_dict(),
        "queue": None,
    }
    saving = Joining(
        folder, driver.job.minutes, lambda: networks, lambda: notes, told.tell, rows=[each.file for each in ends]
    )
    found = outcomes(networks, driver.shards, ends, plan.folds)
    more = {} if search is None else search.columns(found)
    results = Results(found, runs[0].metric_name, plan.sets.data.entities, more)
    if number is None:
        driver.job.storage.check(_files(reports))
        try:
            draw(storage, [each.curves for each in ends], folder)
        except (OSError, CheckpointError) as error:
            told.tell(f"{storage.path}: the curves of networks cannot be written: {error}")
        saving.results(results)
        if saving.unsaved is None:  # otherwise repeating the call continues here
            saving.save()
    found = with_rows(found, ends, storage)
    return Result(
        populations=Populations(*zip(*((each.state.population, each.rows) for each in found))),
        outcomes=found,
        results=results,
        history=list(told.history),
        notes=told.notes,
        engine=", ".join(dict.fromkeys(plan.engines)),
        engine_reason=reasons(runs),
        seconds=told.seconds - told.before,
        step_seconds=spent,
        network_steps=driver.steps,
        run_dir=folder,
        interrupted=number,
        unsaved=saving.unsaved,
        silenced=told.listeners.silenced,
        search=search,
        preparation=plan.sets.data.preparation,
    )
