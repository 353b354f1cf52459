"""plan(): what the training of a design would be, and what it would take, before any network is made."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from .. import memory
from ..errors import ConfigError, ShapeError
from ..line import counted
from ..maths.rng import check_seed
from ..population import Population, precise
from ..results.table import described
from ..samples import checks
from ..samples.data import Dataset
from ..state import TrainState
from ..system import free
from ..system.ambient import HOME, neutral
from ..system.devices import Devices, devices
from ..system.free import size
from .design import Design, Group, Planned
from .loop import Search
from .making import Maker, Source, ready, remarks
from .queue import Rows, Waiting, limit
from .room import Room
from .run import Run, reasons

Kind = TypeVar("Kind", Group, Planned)


class Part(NamedTuple):
    """Networks of a plan that share a kernel. settings: what they have in common, as the columns of results have it;
    parameters: of one network; network_steps: of all together, if none stops early; engine: its name; bytes: of one
    network while it trains, and in a checkpoint."""

    settings: dict[str, Any]
    networks: int
    parameters: int
    network_steps: int
    engine: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What plan() returns. at_once: how many networks train at the same time, while the others wait for slots. memory:
    what those that train need, and how much is free, as text. notes: on the settings, for the user."""

    parts: list[Part]
    at_once: int
    memory: str
    engine_reason: str
    notes: list[str]

    @property
    def networks(self) -> int:
        """The number of networks."""
        return sum(each.networks for each in self.parts)

    @property
    def network_steps(self) -> int:
        """Steps of all networks, if none stops early."""
        return sum(each.network_steps for each in self.parts)

    @property
    def saved(self) -> int:
        """Bytes of a checkpoint of all networks."""
        return sum(each.networks * each.bytes for each in self.parts)

    @property
    def differing(self) -> list[str]:
        """The settings that differ between parts, and always widths."""
        settings = [each.settings for each in self.parts]
        return [name for name in settings[0] if name == "widths" or len({each[name] for each in settings}) > 1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        sums = {name: getattr(self, name) for name in ("networks", "network_steps", "saved")}
        return {**asdict(self), **sums, "parts": [each._asdict() for each in self.parts]}

    def __str__(self) -> str:
        waits = self.at_once < self.networks
        compiled = any(each.engine != "eager" for each in self.parts)
        files = "when all have left their slots" if waits else "a checkpoint, of which two are kept"
        return "\n".join([
            *self.notes,
            f"{counted(self.networks, 'network')} in {counted(len(self.parts), 'population')}"
            f"{f', {self.at_once:,} at once' * waits}: {self.network_steps:,} network-steps, if none stops early; "
            f"{self.engine_reason}{'; kernels are compiled unless they are cached' * compiled}",
            self.memory,
            f"run directory: up to {size(self.saved)} {files}",
        ])  # fmt: skip


def first(
    design: Any, data: Dataset, validation: Dataset | None, seed: int, dtype: torch.dtype, slots: int | None,
    common: dict[str, Any],
) -> tuple[Design, Waiting]:  # fmt: skip
    """The rows of a design that train first, and all of them; arguments as in train_many()."""
    checks.are_datasets(data, validation, "train_many(design, data, validation=None, ...)")
    positions = {each.networks for each in (data, validation) if each is not None and each.networks is not None}
    if len(positions) > 1:
        one, other = sorted(positions)
        raise ShapeError(f"data and validation are for {one} and for {other} networks or folds: as many expected")
    source = Source(check_seed(seed), precise(dtype), next(iter(positions), None))
    given = design if isinstance(design, Iterator) else Design.of(design, entities=data.entities, **common)
    rows = Rows(given, common, source, entities=data.entities)
    most, room = limit(rows, slots), free.available(HOME)
    begin = rows.next(most, Room(room))
    if begin is None:
        raise ConfigError("the design has no rows; one or more networks expected")
    return begin, Waiting(rows, most, "fold" in begin.names, room)


def own(search: Any) -> Search:
    """A copy of the search, for the run alone. Raises ConfigError for anything but a search."""
    if not isinstance(search, Search) or isinstance(search, type):
        raise ConfigError(
            f"search {search!r}: a gpubp.search.SuccessiveHalving, Hyperband, AsynchronousHalving or PopulationBased "
            "expected"
        )
    return copy.copy(search)


def searched(search: Any, groups: Sequence[Kind]) -> tuple[Search, list[Kind]]:
    """own(), and the groups of a run, with the evaluations that the search needs."""
    search = own(search)
    every = search.interval([each.config for each in groups])
    return search, [each._replace(config=replace(each.config, evaluate_every=every)) for each in groups]


def in_order(search: Search, design: Any) -> None:
    """Raise ConfigError if a search that has begun takes networks for one setting (the k-th of each fold) whose initial
    weights have different scales: it does not see those."""
    setting = getattr(search, "setting", None)
    if setting is None or not isinstance(design, Design) or "init_scale" not in design.columns:
        return
    scale = np.array([1.0 if each is None else each for each in design.cells("init_scale")])
    first = np.unique(setting, return_index=True)[1][setting]  # for each network, the first row of its setting
    if (other := scale[first] != scale).any():
        row = int(other.argmax())
        raise ConfigError(
            f"search: rows {first[row]} and {row} would be of one setting, of init_scale {scale[first[row]]:g} and "
            f"{scale[row]:g}: rows of settings in the same order for each fold expected"
        )


def streamed(search: Any, rows: Rows, maker: Maker, number: int = 0) -> tuple[Search, list[Run]]:
    """own(), and all rows of a design as runs, in round `number`, of networks that take no memory: for a search whose
    networks come and go. The networks that `maker` makes are evaluated as often as the search needs."""
    assert isinstance(rows.design, Design)
    search, groups = searched(search, rows.source.planned(rows.design))
    runs = [_blank(replace(maker, every=None, notes=[]), each, number) for each in groups]
    maker.every = {"epochs" if runs[0].config.steps is None else "steps": runs[0].config.interval}
    return search, runs


def compared(waiting: Waiting, search: Search) -> None:
    """Raise ConfigError unless all networks of a design train at the same time, if the search needs that."""
    if not waiting.rows.left:
        return
    if getattr(search, "streams", False):
        if isinstance(waiting.rows.design, Iterator):
            raise ConfigError("search: the design is an iterator; one that has all its rows, such as a list, expected")
        return
    many = waiting.rows.taken
    why = f"there are {many:,} slots, fewer than networks: give as many slots, or fewer networks"
    if many < waiting.slots and waiting.free is not None:
        why = f"memory has room for {many:,} of them, with {size(waiting.free)} free: give fewer networks"
    if isinstance(waiting.rows.design, Design) and (not waiting.folds or waiting.rows.entities is not None):
        why += "; or search=AsynchronousHalving() (--search asha)"
    raise ConfigError(f"search: it compares all networks at the same time, and {why}")


@neutral()
def plan(
    design: Any,
    data: Dataset,
    validation: Dataset | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    engine: str = "auto",
    device: Devices = "cpu",
    search: Search | None = None,
    slots: int | None = None,
    **common: Any,
) -> Plan:
    """What train_many() would make of these arguments: its populations, steps, engines, memory and files. No network is
    made and nothing is written. Raises what train_many() raises before training, and ConfigError for an iterator."""
    if isinstance(design, Iterator):
        raise ConfigError("plan: the design is an iterator; one that has all its rows, such as a list, expected")
    waiting = first(design, data, validation, seed, dtype, slots, common)[1]
    return planned(waiting, data, validation, engine, device, search)


def planned(
    waiting: Waiting, data: Dataset, validation: Dataset | None, engine: str, device: Devices, search: Search | None
) -> Plan:
    """plan(), from what first() returns."""
    rows, where = waiting.rows, devices(device)
    assert isinstance(rows.design, Design)
    groups = rows.source.planned(rows.design)
    if search is not None:
        compared(waiting, search)
    count = None if waiting.folds else rows.total
    sets = ready([each.spec for each in groups], rows.source.dtype, data, validation, count)
    if search is not None:
        search, groups = searched(search, groups)
    folds = data.entities is None and (data.folded or waiting.folds)
    maker = Maker(sets, engine, where, folds, looks=True, every={} if rows.left else None)
    some = rows.source.planned(rows.design.part(0, rows.taken)) if rows.left else []  # engines are chosen for this many
    begins = [_blank(maker, each) for each in some]
    runs = [_blank(maker, each) for each in groups]
    shapes = [run.shape for run in begins or runs]
    memory.check(shapes, HOME)
    workspaces = (run.choice.engine.workspace(run.state, sets.data) for run in begins or runs)
    told = memory.plan(shapes, False, waiting.free, sets.each, bool(rows.left), max(workspaces), files=True)
    notes = maker.notes + ([] if rows.left else remarks(runs))
    if search is not None:
        notes += search.begin(runs)
        in_order(search, rows.design)
    return Plan([_part(run) for run in runs], rows.taken, told, reasons(runs), notes)


def _blank(maker: Maker, group: Planned, number: int = 0) -> Run:
    """A run of networks that take no memory."""
    params = torch.zeros(1, dtype=group.dtype).expand(len(group.rows), group.spec.size)
    population = Population(group.spec, params, group.seed, group.ids)
    config, choice = maker.fit(Group(group.rows, population, group.config, group.position))
    state = TrainState.start(population, config, maker.sets.data, group.position, light=True)
    return Run(state, config, maker.sets, choice, maker.where, group.rows, number, folds=maker.folds)


def _part(run: Run) -> Part:
    spec, recipe, count, itemsize = run.shape
    own = memory.each(spec, recipe, itemsize) - spec.size * itemsize  # which counts a copy
    return Part(described(spec, recipe), count, spec.size, int(run.state.end.sum()), run.choice.name, own)
