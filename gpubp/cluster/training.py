"""train() and train_many() on a cluster: check the arguments, let a Driver train shards, and make one run of them."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..ambient import HOME, neutral
from ..checkpoint import SHARDS
from ..config import TrainConfig
from ..data import Dataset
from ..design import Design, Group
from ..errors import CheckpointError, ConfigError
from ..loop import Search
from ..making import Source
from ..population import Population
from ..populations import Populations
from ..reporters import Reporter, Start, watches
from ..reporters.listeners import Listeners
from ..reporters.table import Results
from ..result import Result
from ..rng import check_seed
from ..run import Sets, reasons, together
from ..saving import Saving
from ..search import restored
from ..search.method import Method
from ..signals import collected
from ..training import check_arguments, described, new, opened, own, ready, updated
from . import worker
from .driver import Driver, Ended
from .meeting import LightRun, light_runs
from .merge import merged, outcomes
from .progress import Together
from .record import Record, check, digest
from .session import Room, room, session
from .shards import Job, Part, dealt, rules
from .storage import Storage
from .worker import Report


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
    """gpubp.train_many() on a cluster: its networks, dealt to `shards`, train as tasks of Ray, to the same bits.

    cluster: the address of a Ray cluster; "auto" is RAY_ADDRESS or the one that runs here, or else "local", one of this
    machine that starts for the run. shards: how many; by default one for each GPU, or without GPUs one for each
    machine; those that find no place wait. Each has a GPU or an equal part of the CPUs; device: "cpu", "cuda", "auto".
    run_dir: new, on storage that all machines share, or a URL of fsspec's. Shards save themselves below it, and one
    whose worker dies goes on elsewhere from its last checkpoint. In the end there is one run, as of one machine. If it
    ends early, by an error, Ctrl-C or SIGTERM, which let shards save first, or by the death of this process, the same
    call goes on. The signal is then raised again, without a result.

    Refused, by an error before any training: streams of rows and `slots` (give more shards), and custom rules that are
    in no table. Raises also what gpubp.train_many() does."""
    positions = data.networks if validation is None or data.networks is not None else validation.networks
    rows, source = Design.of(design, **common), Source(check_seed(seed), dtype, positions)
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
    plan = Plan(parts, ready([each.spec for each in parts], parts[0].dtype, data, validation, count), design, search)
    listeners = Listeners(tuple(wanted.reporters), lambda *_: None)
    try:
        with ExitStack() as stack:
            folder = storage.local or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpubp-")))
            keeping = stack.enter_context((storage / SHARDS / "driver").folder())
            return _shared(plan, wanted, storage, folder, keeping, listeners)
    except Ended as ended:
        listeners.give_back()
        signal.raise_signal(ended.number)
        raise CheckpointError(f"{storage.path}: {ended}; all is saved, and the same call goes on") from None
    except BaseException:
        listeners.give_back()
        raise


def _shared(plan: Plan, wanted: Wanted, storage: Storage, folder: Path, keeping: Path, listeners: Listeners) -> Result:
    """The result of training on the cluster. folder: of the run; keeping: of the driver's record."""
    with ExitStack() as stack:
        with session(wanted.cluster, plan.sets) as (ray, lines):
            before = Record.load(keeping)
            asked = before.shards if before is not None and wanted.shards is None else wanted.shards
            device, lent = room(ray, wanted.device, asked)
            sets = ray.put(plan.sets)
            lines += plan.fit(ray, lent, sets, wanted, device)
            runs, shown = plan.runs(), plan.runs()
            mine = plan.digest(lent.shards)
            record = check(before or Record(mine, lent.shards), mine, lent.shards, storage.path)
            record.restore(keeping, shown)
            lines += plan.begin(record, keeping, runs)
            chosen = described(runs, plan.search) if wanted.settings is None else updated(wanted.settings, runs)
            chosen |= {"shards": lent.shards}
            held = opened(folder, chosen, reasons(runs), plan.sets.data.preparation, plan.design)
            lines += stack.enter_context(held)
            record.save(keeping)
            shards = list(dealt(plan.parts, lent.shards))
            meetings = plan.meetings(runs)
            told = Together(shown, shards, listeners, record.history, record.seconds, meetings[record.decided :])
            listeners.told = told.tell
            lines = [*wanted.lines, *lines, f"{lent}"]
            listeners.start(_start(runs, told, lines, chosen, storage.path))
            job = Job(storage / SHARDS, plan.engines, device, plan.folds, lent.threads, wanted.minutes, plan.rules)
            driver = Driver(ray, job, shards, sets, lent.options, told, record, storage / SHARDS / "driver", keeping)
            began = time.monotonic()
            with collected() as driver.signals, closing(driver):
                reports = driver.train(runs, plan.search, meetings)
            spent = time.monotonic() - began
        result = _whole(plan, driver, reports, runs, chosen, folder, spent)
        if storage.local is None:
            storage.put(folder)
        result = replace(result, run_dir=None if storage.local is None else Path(wanted.run_dir))
        if result.unsaved is None:
            job.storage.remove()
        listeners.tell(lambda reporter: reporter.finish(result))
    return result


@dataclass
class Plan:
    """What is trained: groups, samples, the design, if it is one, and a search. choices: of each group its engine, and
    why."""

    parts: Sequence[Part]
    sets: Sets
    design: Design | None
    search: Search | None
    choices: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        self.rules = rules(self.parts)
        _ = self.sets.fingerprints  # once, for all shards
        self.folds = self.design is not None and "fold" in self.design.names and self.sets.data.entities is None
        if self.search is not None:
            if not isinstance(self.search, Method):
                raise ConfigError(f"search: {type(self.search).__name__}: one of gpubp.search's expected on a cluster")
            every = self.search.interval([each.config for each in self.parts])
            self.configure([replace(each.config, evaluate_every=every) for each in self.parts])

    def configure(self, configs: Sequence[TrainConfig]) -> None:
        """Give each group another configuration."""
        self.parts = [each._replace(config=config) for each, config in zip(self.parts, configs)]

    @property
    def engines(self) -> tuple[str, ...]:
        """Of each group."""
        return tuple(name for name, _ in self.choices)

    def fit(self, ray: Any, lent: Room, sets: Any, wanted: Wanted, device: str) -> list[str]:
        """Let a worker fit the configurations to the data and choose engines, for all workers. -> notes for the user.
        Raises what that does."""
        looks = self.sets.validation is not None or any(map(watches, wanted.reporters))
        task = ray.remote(**lent.options)(worker.fit)
        try:
            found, notes = ray.get(task.remote(self.parts, sets, wanted.engine, device, self.folds, looks, self.rules))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        self.configure([config for config, _, _ in found])
        self.choices = [(name, why) for _, name, why in found]
        return list(notes)

    def runs(self) -> list[LightRun]:
        """The groups before the first step."""
        return light_runs(self.parts, self.choices, self.sets, self.folds)

    def digest(self, shards: int) -> str:
        """Of all that the shards' bits depend on."""
        search = {} if self.search is None else {name: repr(each) for name, each in self.search.to_dict().items()}
        return digest(self.parts, self.engines, self.sets, shards, search)

    def begin(self, record: Record, keeping: Path, runs: Sequence[LightRun]) -> list[str]:
        """Bring back what was decided, if anything was, and begin the search. -> what it does."""
        record.restore(keeping, runs)
        if self.search is None:
            return []
        told: list[str] = []
        if record.decided:
            self.search, told = restored(keeping, record.search)
        assert self.search is not None
        return [*self.search.begin(runs), *told]

    def meetings(self, runs: Sequence[LightRun]) -> list[int]:
        """The rounds after which the search may change networks."""
        if not isinstance(self.search, Method):
            return []
        configs = [each.config for each in self.parts]
        last = max(-(-each.longest // each.interval) for each in configs)
        return [number for number in range(1, last) if self.search.acts(number, runs)]


def _start(
    runs: Sequence[LightRun], told: Together, lines: Sequence[str], settings: Mapping[str, Any], run_dir: str
) -> Start:
    """What reporters are told first."""
    populations = [run.state.population for run in runs]
    return Start(
        networks=sum(each.count for each in populations),
        parameters=max(each.spec.size for each in populations),
        steps=sum(int(run.state.end.sum()) for run in runs),
        done=sum(int(run.state.step.sum()) for run in runs),
        step=max(int(run.state.step.max()) for run in runs),
        engine_reason=reasons(runs),
        run_dir=run_dir,
        metric_name=runs[0].metric_name,
        lines=tuple(lines),
        settings=settings,
        history=tuple(told.history),
        populations=len(runs),
        clock="step" if together(runs) else "network_steps",
    )


def _whole(
    plan: Plan, driver: Driver, reports: Sequence[Report], runs: Sequence[LightRun], settings: dict[str, Any],
    folder: Path, spent: float,
) -> Result:  # fmt: skip
    """The run of all shards, in `folder`."""
    told, search = driver.together, plan.search
    saved = merged(driver.job, driver.shards, plan.parts, folder)
    notes = {
        "number": max(each.notes["number"] for each in saved),
        "history": told.history,
        "seconds": told.seconds,
        "settings": settings,
        "search": None if search is None else search.to_dict(),
        "queue": None,
    }
    saving = Saving(folder, driver.job.minutes, lambda: saved, lambda: notes, told.tell)
    saving.save()
    found = outcomes(saved, driver.shards, reports, plan.folds)
    more = {} if search is None else search.columns(runs)
    results = Results(found, runs[0].metric_name, plan.sets.data.entities, more)
    saving.results(results)
    return Result(
        populations=Populations(*zip(*((each.state.population, each.rows) for each in found))),
        outcomes=found,
        results=results,
        history=list(told.history),
        notes=told.notes,
        engine=", ".join(dict.fromkeys(plan.engines)),
        engine_reason=reasons(runs),
        seconds=told.seconds,
        step_seconds=spent,
        network_steps=driver.steps,
        run_dir=folder,
        interrupted=None,
        unsaved=saving.unsaved,
        silenced=told.listeners.silenced,
        search=search,
    )
