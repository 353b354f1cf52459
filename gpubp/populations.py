"""Populations: networks of several specifications, found by their row among all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import arrays
from .ambient import neutral
from .errors import ConfigError, ShapeError
from .population import Population


class Part(NamedTuple):
    """Some networks of one population: local (K,), their rows in it; place (K,), where they are among those asked
    for."""

    population: Population
    local: Tensor
    place: Tensor


@dataclass(frozen=True, eq=False)
class Populations:
    """each: the populations. rows: for each the rows (N,) that its networks have among all."""

    each: tuple[Population, ...]
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, population: Population | Populations) -> Populations:
        """One population alone, or several as they are."""
        if isinstance(population, Populations):
            return population
        return cls((population,), (torch.arange(population.count),))

    @property
    def count(self) -> int:
        """N, of all."""
        return sum(each.count for each in self.each)

    @cached_property
    def only(self) -> Population:
        """The networks in the order of their rows, if all have one specification; else raises ConfigError."""
        first, *others = self.each
        if not others and torch.equal(self.rows[0], torch.arange(first.count)):
            return first
        if any((each.spec, each.seed) != (first.spec, first.seed) for each in others):
            raise ConfigError(
                f"the networks are in {len(self.each)} populations: populations.each, with populations.rows, or "
                "network(row) expected"
            )
        return first.concatenate(*others).take(self.order)

    @cached_property
    def order(self) -> Tensor:
        """(N,): where, population by population, the network of each row is."""
        return torch.cat([*self.rows]).argsort()

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """(N,) both, by row: the number of its population, and its row in that."""
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

    @neutral()
    def network(self, row: int) -> nn.Sequential:
        """The network in a row as torch.nn.Sequential, with copies of its weights."""
        if arrays.whole(row) is None:
            raise ShapeError(f"network({row!r}): a whole number, the network's row, expected")
        (part,) = self.parts(arrays.indices("network", [row], self.count, ShapeError, negative=True))
        return part.population.network(int(part.local))

    def in_order(self, values: Sequence[Tensor]) -> Tensor:
        """(N,) of all networks in the order of their rows, from those of each population."""
        found = torch.cat([*values])
        return found if torch.equal(self.order, torch.arange(len(found))) else found[self.order]
