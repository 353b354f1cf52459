"""TrainState: everything that training changes; plain tensors, N in front of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from .config import TrainConfig
from .data import Dataset
from .population import Population


class Status(IntEnum):
    """What became of a network."""

    running = 0
    finished = 1
    converged = 2
    stopped = 3
    diverged = 4


@dataclass(eq=False)
class TrainState:
    """A population in training. An engine advances `step` (N,), the only clock, up to `limit` (N,), and with it
    params, slots, columns, loss and total, in place; a step that leaves a number that is not finite does not count,
    and makes the network `diverged`. Everything else belongs to the loop (loop.py).
    """

    population: Population
    config: TrainConfig
    hyper: dict[str, Tensor]  # (N, 1) float64 each; class_weight (N, O)
    slots: list[Tensor]  # (N, P) each, in the order of the optimizer's names
    columns: dict[str, Tensor]  # (N, 1) float64: the optimizer's
    plateau: dict[str, Tensor]  # (N, 1) float64: the schedule's memory of evaluations; empty for the others
    position: Tensor  # (N,) int64: each network's place in the dataset
    step: Tensor  # (N,) int64: steps taken
    limit: Tensor  # (N,) int64: where the present round ends
    end: Tensor  # (N,) int64: where the network's training ends
    status: Tensor  # (N,) int8
    loss: Tensor  # (N,): of the last minibatch, before its update; NaN before the first
    total: Tensor  # (N,): sum of the minibatch losses of the present round
    diverged_step: Tensor  # (N,) int64: the step that did not count; -1 where all did

    @classmethod
    def start(cls, population: Population, config: TrainConfig, data: Dataset) -> TrainState:
        """Before the first step. The population's params are trained in place."""
        params, count = population.params, population.count
        zeros = torch.zeros_like(population.ids)
        position = torch.arange(count, device=params.device)
        end = config.lengths(data.size(position))
        column = params.new_ones(count, 1, dtype=torch.float64)
        memory = {"scale": 1.0, "best": float("inf"), "bad": 0.0, "cooling": 0.0} if config.timetable.events else {}
        return cls(
            population=population,
            config=config,
            hyper=config.columns(population.spec, count, params.device),
            slots=[torch.zeros_like(params) for _ in config.rule.slots],
            columns={name: column.clone() for name in config.rule.columns},
            plateau={name: column * value for name, value in memory.items()},
            position=position,
            step=zeros.clone(),
            limit=zeros.clone(),
            end=end,
            status=zeros.to(torch.int8),
            loss=torch.full_like(params[:, 0], float("nan")),
            total=torch.zeros_like(params[:, 0]),
            diverged_step=zeros - 1,
        )

    @property
    def running(self) -> Tensor:
        """(N,) bool: which networks still train."""
        return self.status == Status.running

    @property
    def left(self) -> Tensor:
        """(N,) int64: steps to the end of the round; 0 for networks that train no more."""
        return (self.limit - self.step) * self.running

    def rows(self, part: slice | Tensor) -> TrainState:
        """The networks of `part` as a state of their own: views for a slice, copies for indices (put them back)."""
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> TrainState:
        """The same networks as copies on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True, copy=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainState:
        """Every tensor changed."""

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: change(each) for name, each in value.items()}
            return [change(each) for each in value] if isinstance(value, list) else change(value)

        mine = self.population
        population = replace(mine, params=change(mine.params), ids=change(mine.ids))
        names = (each.name for each in fields(self) if each.name not in ("population", "config"))
        rest: dict[str, Any] = {name: changed(getattr(self, name)) for name in names}
        return TrainState(population=population, config=self.config, **rest)

    def at_rest(self) -> TrainState:
        """The same rows, with copies of everything else, which changes on while the rows do not."""
        rows = {id(each) for each in (self.population.params, *self.slots)}
        return self._each(lambda tensor: tensor if id(tensor) in rows else tensor.clone())

    def put(self, part: Tensor, other: TrainState) -> None:
        """`other`, made by rows(part) and trained since, back into its place: by copies in place, which need no memory,
        so that no network comes back in part."""
        for (_, mine), (_, theirs) in zip(self.tensors(), other.tensors()):
            mine.index_copy_(0, part, theirs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name, in a fixed order: what a checkpoint holds."""
        yield "params", self.population.params
        yield "ids", self.population.ids
        for name, slot in zip(self.config.rule.slots, self.slots):
            yield f"slots.{name}", slot
        for group in ("hyper", "columns", "plateau"):
            for name, column in sorted(getattr(self, group).items()):
                yield f"{group}.{name}", column
        for name in ("position", "step", "limit", "end", "status", "loss", "total", "diverged_step"):
            yield name, getattr(self, name)
