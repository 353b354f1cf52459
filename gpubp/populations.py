"""Populations: networks of several specifications, found by their row among all; chosen() and members() select rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import CheckpointError, ConfigError, ShapeError, check_kind
from .line import counted
from .population import Population
from .system import arrays
from .system.ambient import neutral


class Part(NamedTuple):
    """Some networks of one population: local (K,), their rows in it; place (K,), their places among the requested
    rows."""

    population: Population
    local: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class Populations:
    """each: the populations. rows: for each population, the rows (N,) of its networks among all."""

    each: tuple[Population, ...]
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, population: Population | Populations) -> Populations:
        """Wrap a single population; return several as they are."""
        if isinstance(population, Populations):
            return population
        check_kind("populations", population, Population)
        return cls((population,), (torch.arange(population.count),))

    @property
    def count(self) -> int:
        """N, over all populations."""
        return sum(each.count for each in self.each)

    @cached_property
    def only(self) -> Population:
        """The networks in the order of their rows, if all have one specification; else raises ConfigError."""
        first, *others = self.each
        if not others and _in_place(self.rows[0]):
            return first
        if any((each.spec, each.seed) != (first.spec, first.seed) for each in others):
            raise ConfigError(
                f"the networks are in {len(self.each)} populations: populations.each, with populations.rows, or "
                "network(row) expected"
            )
        return first.concatenate(*others).take(self.order)

    @cached_property
    def order(self) -> Tensor:
        """(N,): where the network of each row is when populations follow one another."""
        return torch.cat([*self.rows]).argsort()

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """(N,) each: for every row, the number of its population, and its row in that population."""
        which, local = torch.empty(2, self.count, dtype=torch.int64)
        for number, mine in enumerate(self.rows):
            which[mine], local[mine] = number, torch.arange(len(mine))
        return which, local

    def parts(self, rows: Tensor) -> Iterator[Part]:
        """The networks in these rows (K,), population by population."""
        which, local = (each[rows.cpu()] for each in self._places)
        numbers, counts = which.unique(return_counts=True)
        for number, place in zip(numbers.tolist(), which.argsort(stable=True).split(counts.tolist())):
            yield Part(self.each[number], local[place], place)

    def take(self, rows: Tensor) -> Populations:
        """The networks in these rows (K,), in this order, as copies. Raises ShapeError for rows that do not exist."""
        parts = [*self.parts(arrays.indices("take", rows, self.count, ShapeError, negative=True))]
        return Populations(
            tuple(each.population.take(each.local) for each in parts), tuple(each.place for each in parts)
        )

    @neutral()
    def network(self, row: int) -> nn.Sequential:
        """The network in a row as torch.nn.Sequential, with copies of its weights."""
        if arrays.whole(row) is None:
            raise ShapeError(f"network({row!r}): a whole number, the network's row, expected")
        (part,) = self.parts(arrays.indices("network", [row], self.count, ShapeError, negative=True))
        return part.population.network(int(part.local))

    @neutral()
    def in_order(self, values: Sequence[Tensor]) -> Tensor:
        """The (N,) values of all networks in the order of their rows, from the values of each population."""
        found = torch.cat([*values])
        return found if _in_place(self.order) else found[self.order]


def chosen(name: str, networks: Any, count: int, ranking: Callable[[], Tensor]) -> Tensor:
    """The rows of `count` that `networks` (`name` in messages) selects: "best", a number K for the best K, or "all"
    that did not diverge, in the order of ranking(), best first; or a sequence of rows or a mask. Raises ConfigError."""
    if are_rows(networks):
        rows = arrays.indices(name, networks, count, ConfigError, negative=True)
        if not len(rows):
            raise ConfigError(f"{name}: one row or more expected, got none")
        return rows
    number = arrays.whole(networks)
    if networks not in ("best", "all") and (number is None or number < 1):
        raise ConfigError(f"{name} {networks!r}: best, all, a number of 1 or more, or a sequence of rows expected")
    ranked = ranking()
    if not len(ranked):
        raise CheckpointError("every network diverged; there is none to predict with")
    wanted = {"best": 1, "all": len(ranked)}.get(str(networks)) or number or 0
    if wanted > len(ranked):
        raise ConfigError(f"{name} {wanted}: the run has {counted(len(ranked), 'network')} that did not diverge")
    return ranked[:wanted]


def members(best: Any, rows: Any, count: int, ranking: Callable[[], Tensor], diverged: Tensor | None) -> Tensor:
    """The rows of an ensemble: the `best` of ranking(), `rows` as they are, or, without either, all that did not
    diverge. Raises ConfigError if both are given, and for rows of networks that `diverged` (N,)."""
    if best is not None and rows is not None:
        raise ConfigError(f"ensemble(best={best!r}, rows=...): one of them expected")
    if rows is None:
        return chosen("best", "all" if best is None else best, count, ranking)
    if not are_rows(rows):
        raise ConfigError(f"rows {rows!r}: a sequence of rows, such as [0, 3], or a mask expected")
    found = chosen("rows", rows, count, ranking)
    lost = [] if diverged is None else found[diverged[found]].tolist()
    if lost:
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        names = ", ".join(map(str, lost[:5]))
        raise ConfigError(f"rows: networks {names}{more} diverged; members that did not expected")
    return found


def are_rows(rows: Any) -> bool:
    """Whether these are rows or a mask, not a number or a word; a tensor of no dimension is a number."""
    return isinstance(rows, Iterable) and not isinstance(rows, str) and bool(getattr(rows, "ndim", True))


def _in_place(rows: Tensor) -> bool:
    """Whether the rows are 0, 1, 2 ..."""
    return torch.equal(rows, torch.arange(len(rows), device=rows.device))
