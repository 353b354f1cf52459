"""The shards of a run: parts of its groups, dealt like cards, so that all shards cost the same.

A network keeps its seed, id and position in the data, and the configuration of its group is cut, not made anew: so a
shard's networks have the same recipe, kernel and rounds as in the whole run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from ..line import counted
from ..runs.cells import TABLES
from ..runs.design import Group, Planned
from ..runs.making import named_rules
from .storage import Storage

Part = Group | Planned
T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """number: from 0. groups: the numbers of the whole run's groups that the shard has parts of; index: for each, the
    networks (K,) of the group."""

    number: int
    groups: tuple[int, ...]
    index: tuple[Tensor, ...]
    parts: tuple[Part, ...]

    def networks(self, shards: int) -> list[list[int]]:
        """For each part, its group, and the first and the step of its networks' numbers there, with `shards` shards."""
        return [[group, int(index[0]), shards] for group, index in zip(self.groups, self.index)]

    @cached_property
    def rows(self) -> list[Tensor]:
        """For each part, its networks' rows in the results."""
        return [each.rows for each in self.parts]

    @cached_property
    def local(self) -> list[Tensor]:
        """For each part, its networks' rows in the shard's own run."""
        counts = [len(each.rows) for each in self.parts]
        return list(torch.arange(sum(counts)).split(counts))


class Job(NamedTuple):
    """What all shards have in common. engines: of each group; rules: those needed, by name, which a process on another
    machine may lack; threads: of a shard on a CPU; minutes: between two checkpoints; shards: how many; norms: the most
    gradient norms that a shard sends at an evaluation."""

    storage: Storage
    engines: tuple[str, ...]
    device: str
    folds: bool
    threads: int
    minutes: float
    rules: dict[str, dict[str, Any]]
    shards: int
    norms: int


def by_group(shards: Iterable[Shard], of_shards: Iterable[Iterable[T]], groups: int) -> list[list[tuple[Tensor, T]]]:
    """For each group, what `of_shards` has of its parts, each with the part's networks (K,) of the group."""
    found: list[list[tuple[Tensor, T]]] = [[] for _ in range(groups)]
    for shard, each in zip(shards, of_shards):
        for group, index, mine in zip(shard.groups, shard.index, each):
            found[group].append((index, mine))
    return found


def joined(parts: Sequence[tuple[Tensor, Any]]) -> Any:
    """The same for a whole group: numbers (N, ...), or a named tuple of such, or None if parts have none."""
    first = parts[0][1]
    if isinstance(first, Tensor):
        whole = first.new_empty(sum(len(index) for index, _ in parts), *first.shape[1:])
        for index, each in parts:
            whole[index] = each
        return whole
    if first is None:
        return None
    return first._make(joined([(index, each[at]) for index, each in parts]) for at in range(len(first)))


def dealt(parts: Sequence[Part], number: int) -> Iterator[Shard]:
    """The networks of all groups, one after another, dealt to `number` shards in turn."""
    if number > (many := sum(len(each.rows) for each in parts)):
        raise ConfigError(f"shards {number}: the run has {counted(many, 'network')}")
    for mine in range(number):
        before, found = 0, []
        for at, part in enumerate(parts):
            index = torch.arange((mine - before) % number, len(part.rows), number)
            before += len(part.rows)
            if len(index):
                found.append((at, index, part.take(index)))
        groups, places, taken = zip(*found)
        yield Shard(mine, groups, places, taken)


def rules(parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """The rules that the networks need, by their names in checkpoints. Raises ConfigError for two of one name."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in TABLES}
    for spec, config in ((each.spec, each.config) for each in parts):
        for kind, name in named_rules(spec, config):
            if found[kind].setdefault(str(name), row := TABLES[kind][name]) != row:
                raise ConfigError(f"{kind} {str(name)!r}: two rules of one name, which a cluster keeps apart by names")
    return found


def learn(rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the `rules` of another process to the tables of this one, which may have trained another run before."""
    for kind, rows in rules.items():
        TABLES[kind].update(rows)
