"""Plan: what a cluster trains, fitted by a worker to its data and machine, and the rounds at which shards meet."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ClusterError, ConfigError, warn
from ..line import line
from ..runs.design import Design
from ..runs.loop import Search
from ..runs.making import remarks
from ..runs.planning import in_order
from ..runs.run import Sets
from ..search import restored
from ..search.method import Method
from ..settings.config import TrainConfig
from . import worker
from .health import WAIT, Lifeline, free
from .meeting import LightRun, light_runs
from .record import Record, digest
from .session import Room
from .shards import Part, rules


@dataclass
class Plan:
    """What is trained: groups, samples, a design and a search, if any. choices: each group's engine, and why."""

    parts: Sequence[Part]
    sets: Sets
    design: Design | None
    search: Search | None
    choices: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        self.rules = rules(self.parts)
        _ = self.sets.fingerprints  # once, for all shards
        data, named = self.sets.data, self.design is not None and "fold" in self.design.names
        self.folds = data.entities is None and (data.folded or named)
        if self.search is not None:
            if not isinstance(self.search, Method):
                raise ConfigError(f"search: {type(self.search).__name__}: one of gpubp.search's expected on a cluster")
            if self.search.streams:
                raise ConfigError(
                    f"{self.search.name}: a cluster trains all networks at the same time: SuccessiveHalving (--search "
                    "halving) expected"
                )
            every = self.search.interval([each.config for each in self.parts])
            self.configure([replace(each.config, evaluate_every=every) for each in self.parts])

    def configure(self, configs: Sequence[TrainConfig]) -> None:
        """Give each group another configuration."""
        self.parts = [each._replace(config=config) for each, config in zip(self.parts, configs)]

    @property
    def engines(self) -> tuple[str, ...]:
        """The engine of each group."""
        return tuple(name for name, _ in self.choices)

    def fit(self, ray: Any, lent: Room, sets: Any, engine: str, device: str, watched: bool) -> list[str]:
        """Let a worker fit the configurations to the data and choose engines, for all workers. -> notes for the user.
        Raises what that raises. watched: whether a reporter handles evaluations."""
        looks = self.sets.validation is not None or watched
        task = ray.remote(**lent.options)(worker.fit)
        asked = task.remote(self.parts, sets, engine, device, self.folds, looks, self.rules)

        def late() -> None:
            if has := free(ray, lent.options):
                warn(f"no worker has looked at the settings after {WAIT:.0f} s: {has}")

        try:
            with closing(Lifeline(ray)) as lifeline:
                found, notes = lifeline.wait(ray, asked, late)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ClusterError(f"no worker can fit the configurations to the data: {line(error)}") from None
        self.configure([config for config, _, _ in found])
        self.choices = [(name, why) for _, name, why in found]
        return list(notes)

    def runs(self) -> list[LightRun]:
        """The groups before the first step."""
        return light_runs(self.parts, self.choices, self.sets, self.folds)

    def digest(self, shards: int) -> str:
        """A digest of all that the shards' bits depend on."""
        search = {} if self.search is None else {name: repr(each) for name, each in self.search.to_dict().items()}
        return digest(self.parts, self.engines, self.sets, shards, search)

    def begin(self, record: Record, keeping: Path, runs: Sequence[LightRun]) -> list[str]:
        """Restore earlier decisions, if any, and begin the search. -> what it does."""
        record.restore(keeping, runs)
        told = remarks(runs)
        if self.search is None:
            return told
        if record.decided:
            self.search, more = restored(keeping, record.search)
            told += more
        assert self.search is not None
        told = [*self.search.begin(runs), *told]
        in_order(self.search, self.design)
        return told

    def meetings(self, runs: Sequence[LightRun]) -> list[int]:
        """The rounds after which the search may change networks."""
        if not isinstance(self.search, Method):
            return []
        configs = [each.config for each in self.parts]
        last = max(-(-each.longest // each.interval) for each in configs)
        return [number for number in range(1, last) if self.search.acts(number, runs)]
