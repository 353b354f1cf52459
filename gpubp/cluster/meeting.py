"""Meeting points: what a search (search/) decides about the networks of all shards, in one place.

The driver has everything of a network but its row: clocks, hyper-parameters, what evaluations remember. A search sees
the same runs as without a cluster. If it makes networks copies of others, `source` moves as the rows would, and tells
which rows the shards exchange.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..checkpoints.stored import Rowless
from ..engines import ENGINES, Choice
from ..evaluate import Round
from ..population import Population
from ..runs.run import Run, Sets
from ..settings.config import TrainConfig
from ..state import Status, TrainState
from ..system.ambient import HOME
from .messages import Decision, Looked, Tensors
from .shards import Part, Shard, by_group, joined


@dataclass(eq=False)
class LightState(Rowless):
    """A state as a search needs it. source (N,): the network whose row each network now has."""

    source: Tensor

    @classmethod
    def of(cls, part: Part, config: TrainConfig, sets: Sets) -> Self:
        """The state of a group before the first step."""
        count, dtype = len(part.rows), part.dtype
        none = torch.zeros(1, part.spec.size, dtype=dtype).expand(count, -1)
        population = Population(part.spec, none, part.seed, part.ids.clone())
        state = TrainState.start(population, config, sets.data, part.position.clone(), light=True)
        own = {name: vars(state)[name].contiguous() for name in ("loss", "total")}  # they may be one number for all
        return cls(**vars(state) | own, source=torch.arange(count))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See Rowless."""
        yield from super().tensors()
        yield "source", self.source

    def put_in(self, index: Tensor, values: Tensors) -> None:
        """Write what is known about the networks `index` (K,)."""
        mine = dict(self.tensors())
        for name, each in values.items():
            mine[name][index] = each


class LightRun(Run):
    """A group of networks whose rows are elsewhere, as a search sees it."""

    state: LightState

    def stop(self, some: Tensor) -> None:
        """See Run."""
        self.state.status[self.state.running & some] = Status.stopped

    def rewrite(self, change: Callable[[TrainState], None]) -> None:
        """See Run."""
        change(self.state)


def light_runs(parts: Sequence[Part], engines: Sequence[tuple[str, str]], sets: Sets, folds: bool) -> list[LightRun]:
    """The groups before the first step; engines: names and reasons."""
    return [
        LightRun(LightState.of(part, part.config, sets), part.config, sets, Choice(name, ENGINES[name], why), [HOME],
                 part.rows, folds=folds)
        for part, (name, why) in zip(parts, engines)
    ]  # fmt: skip


def found_in(runs: Sequence[LightRun], shards: Sequence[Shard], looked: Sequence[Looked]) -> list[Round]:
    """An evaluation of all networks, from that of each shard."""
    return [joined(parts) for parts in by_group(shards, (each.found for each in looked), len(runs))]


def decisions(number: int, runs: Sequence[LightRun], shards: Sequence[Shard]) -> list[Decision]:
    """What was decided at the end of the round `number`, for each shard."""
    known = [{name: each for name, each in run.state.tensors() if name != "source"} for run in runs]
    found = []
    for shard in shards:
        parts = [(known[group], index) for group, index in zip(shard.groups, shard.index)]
        found.append(Decision(number, [{name: each[index] for name, each in all_.items()} for all_, index in parts]))
    return found


class Exchange:
    """Rows that go from shard to shard: by (source, target) and group, the networks' places in their shards (K,)."""

    def __init__(self, runs: Sequence[LightRun], shards: Sequence[Shard]) -> None:
        self.given: dict[tuple[int, int], dict[int, Tensor]] = {}
        self.taken: dict[tuple[int, int], dict[int, Tensor]] = {}
        places = ([_places(each.number, index) for index in each.index] for each in shards)
        for group, (run, parts) in enumerate(zip(runs, by_group(shards, places, len(runs)))):
            home, place = joined(parts).unbind(1)
            target = (run.state.source != torch.arange(len(run.rows))).nonzero()[:, 0]
            source = run.state.source[target]
            pairs = torch.stack([home[source], home[target]], 1)
            for pair in pairs.unique(dim=0):
                some = (pairs == pair).all(1)
                key = int(pair[0]), int(pair[1])
                self.given.setdefault(key, {})[group] = place[source[some]]
                self.taken.setdefault(key, {})[group] = place[target[some]]

    def __bool__(self) -> bool:
        return bool(self.given)


def _places(number: int, index: Tensor) -> Tensor:
    """(K, 2): the shard `number` of the networks `index` (K,) of a group, and their places in the part there."""
    return torch.stack([torch.full_like(index, number), torch.arange(len(index))], 1)
