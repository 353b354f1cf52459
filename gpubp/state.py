"""TrainState: all that training changes, as plain tensors with N in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError, ShapeError
from .maths.rng import EVERYBODY
from .population import Population
from .samples.data import Dataset
from .settings.config import TrainConfig
from .settings.ranges import numbers_of
from .settings.recipe import MEMORY, RATED, TRACKED, Recipe


class Status(IntEnum):
    """The status of a network: `result.status == Status.diverged` is a mask of the diverged ones."""

    running = 0
    finished = 1
    converged = 2
    stopped = 3
    diverged = 4


RUNNING, FINISHED, CONVERGED, STOPPED, DIVERGED = map(int, Status)  # arrays take microseconds to compare with an enum
NAMES = [each.name for each in Status]  # by value


def numbers(status: Tensor) -> Tensor:
    """How many networks have each status, in the order of Status."""
    return torch.bincount(status.long(), minlength=len(Status))


def counts(status: Tensor, others: Tensor | None = None) -> dict[str, int]:
    """How many networks have each status, by name; statuses that need special settings appear only if a network has
    them. others: numbers() of further networks."""
    found = (numbers(status) if others is None else numbers(status) + others).tolist()
    usual = (RUNNING, FINISHED, DIVERGED)
    return {name: count for number, (name, count) in enumerate(zip(NAMES, found)) if count or number in usual}


class Kind(NamedTuple):
    """The dtype and shape of a state's tensor, checked because engines trust its pointer."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(eq=False)
class TrainState:
    """A population in training. An engine advances `step` (N,), the only clock, up to `limit` (N,), and with it params,
    slots, columns, loss and total, in place; a step with a non-finite result does not count, and its network becomes
    `diverged`. Everything else belongs to the loop (runs/loop.py).
    """

    population: Population
    recipe: Recipe
    hyper: dict[str, Tensor]  # (N, 1) float64 each; class_weight (N, O)
    slots: list[Tensor]  # (N, P) each, in the order of the optimizer's names
    columns: dict[str, Tensor]  # (N, 1) float64: the optimizer's
    memory: dict[str, Tensor]  # (N, 1) float64: kept between evaluations
    kept: dict[str, Tensor]  # (N, P): "best", the row of the best evaluation, if it is to be restored
    position: Tensor  # (N,) int64: each network's position in the dataset
    step: Tensor  # (N,) int64: steps taken
    limit: Tensor  # (N,) int64: the last step of the present round
    end: Tensor  # (N,) int64: the last step of the network's training
    status: Tensor  # (N,) int8
    loss: Tensor  # (N,): of the last minibatch, before its update; NaN before the first step
    total: Tensor  # (N,) float64: sum of the minibatch losses of the present round
    diverged_step: Tensor  # (N,) int64: the step that did not count; -1 if none

    @classmethod
    def start(
        cls, population: Population, config: TrainConfig, data: Dataset, position: Tensor | None = None,
        light: bool = False,
    ) -> TrainState:  # fmt: skip
        """The state before the first step. The population's params are trained in place. position: of each network in
        `data`, by default its row. light: without slots and kept rows, for networks whose rows are stored elsewhere."""
        params, count, recipe = population.params, population.count, config.recipe(population.spec)
        zeros = torch.zeros_like(population.ids)
        position = torch.arange(count, device=params.device) if position is None else position
        end = config.lengths(data.size(position))
        column = params.new_ones(count, 1, dtype=torch.float64)
        return cls(
            population=population,
            recipe=recipe,
            hyper=config.columns(population.spec, count, params.device),
            slots=[] if light else [torch.zeros_like(params) for _ in recipe.rule.slots],
            columns={name: column.clone() for name in recipe.rule.columns},
            memory={name: column * value for name, value in recipe.memory.items()},
            kept={"best": params.clone()} if recipe.restore_best and not light else {},
            position=position,
            step=zeros.clone(),
            limit=zeros.clone(),
            end=end,
            status=zeros.to(torch.int8),
            loss=torch.full_like(params[:, 0], float("nan")),
            total=torch.zeros_like(params[:, 0], dtype=torch.float64),
            diverged_step=zeros - 1,
        )

    def remember(self, before: TrainState) -> None:
        """Begin with the optimizer's memory (slots and columns) from the end of an earlier training of these networks.
        Raises ConfigError if that used another optimizer or other networks."""
        mine, theirs = ((each.population.spec, each.recipe.optimizer, each.population.count) for each in (self, before))
        if mine != theirs:
            raise ConfigError(
                f"optimizer_state: of {theirs[2]} networks {'-'.join(map(str, theirs[0].widths))} with optimizer "
                f"{theirs[1]!r}; of {mine[2]} networks {'-'.join(map(str, mine[0].widths))} with optimizer {mine[1]!r} "
                "expected, their activations and loss too"
            )
        for slot, old in zip(self.slots, before.slots):
            slot.copy_(old)
        for name, column in self.columns.items():
            column.copy_(before.columns[name])

    def those_of(self, population: Population) -> TrainState:
        """The states of the networks of `population`, by their ids; a network that is not here gets no optimizer's
        memory. Raises ConfigError if none is here, or if an id occurs twice here and the ids are not the same."""
        mine = self.population.ids
        ids = population.ids.to(mine.device)
        if torch.equal(ids, mine):
            return self
        order = mine.argsort()
        place = order[torch.searchsorted(mine[order], ids).clamp(max=len(mine) - 1)]
        new = mine[place] != ids
        if bool(new.all()):
            raise ConfigError(
                f"optimizer_state: it has no network of the population, with ids such as {int(mine[0])} and "
                f"{int(ids[0])}; the same ids expected"
            )
        if len(mine.unique()) < len(mine):
            raise ConfigError("optimizer_state: several of its networks have one id; the population's ids expected")
        found = self.rows(place)
        for each in found.slots:
            each[new] = 0
        for column in found.columns.values():
            column[new] = 1
        return found

    @property
    def running(self) -> Tensor:
        """(N,) bool: which networks still train."""
        return self.status == RUNNING

    @property
    def left(self) -> Tensor:
        """(N,) int64: steps to the end of the round; 0 for networks that have ended."""
        return (self.limit - self.step) * self.running

    @property
    def expected(self) -> int:
        """Steps of all networks, in host memory, at their ends, if no further network stops early."""
        return int(np.where(self.status.numpy() == RUNNING, self.end.numpy(), self.step.numpy()).sum())

    def rows(self, part: slice | Tensor) -> TrainState:
        """The networks of `part` as a separate state: views for a slice, copies for indices (see put())."""
        return self._each(lambda tensor: tensor[part])

    def concatenate(self, *others: TrainState) -> TrainState:
        """These networks, then the others', of the same specification, recipe and seed; copies."""
        each = [dict(one.tensors()) for one in (self, *others)]
        names = {id(tensor): name for name, tensor in each[0].items()}
        return self._each(lambda tensor: torch.cat([one[names[id(tensor)]] for one in each]))

    def to(self, device: torch.device) -> TrainState:
        """The same networks as copies on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True, copy=True))

    def on(self, device: torch.device) -> TrainState:
        """The same networks on `device`; not copied if they are there."""
        return self if self.population.device == device else self.to(device)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainState:
        """The state with `change` applied to every tensor."""

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: change(each) for name, each in value.items()}
            return [change(each) for each in value] if isinstance(value, list) else change(value)

        mine = self.population
        population = replace(mine, params=change(mine.params), ids=change(mine.ids))
        names = (each.name for each in fields(self) if each.name not in ("population", "recipe"))
        rest: dict[str, Any] = {name: changed(getattr(self, name)) for name in names}
        return TrainState(population=population, recipe=self.recipe, **rest)

    def at_rest(self) -> TrainState:
        """The same rows, with copies of everything else: all but the rows keeps changing."""
        rows = {id(each) for each in (self.population.params, *self.slots, *self.kept.values())}
        return self._each(lambda tensor: tensor if id(tensor) in rows else tensor.clone())

    def put(self, part: Tensor, other: TrainState) -> None:
        """Write back `other`, made by rows(part) and trained since, with copies in place: they need no memory, so that
        no network is written in part."""
        for (_, mine), (_, theirs) in zip(self.tensors(), other.tensors()):
            mine.index_copy_(0, part, theirs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name, in a fixed order: the content of a checkpoint."""
        yield "params", self.population.params
        yield "ids", self.population.ids
        for name, slot in zip(self.recipe.rule.slots, self.slots):
            yield f"slots.{name}", slot
        for group in ("kept", "hyper", "columns", "memory"):
            for name, column in sorted(getattr(self, group).items()):
                yield f"{group}.{name}", column
        for name in ("position", "step", "limit", "end", "status", "loss", "total", "diverged_step"):
            yield name, getattr(self, name)

    def kinds(self) -> dict[str, Kind]:
        """The required Kind of each tensor of tensors()."""
        population, recipe = self.population, self.recipe
        count, dtype = len(population.params), population.params.dtype
        row, column = Kind(dtype, (count, population.spec.size)), Kind(torch.float64, (count, 1))
        clock = Kind(torch.int64, (count,))
        columns = {"hyper": recipe.hyper, "columns": recipe.rule.columns, "memory": recipe.memory}
        weights = {"hyper.class_weight": Kind(torch.float64, (count, population.spec.widths[-1]))}
        return {
            "params": row,
            "ids": clock,
            **{f"slots.{name}": row for name in recipe.rule.slots},
            **({"kept.best": row} if recipe.restore_best else {}),
            **{f"{group}.{name}": column for group, names in columns.items() for name in names},
            **(weights if "class_weight" in recipe.hyper else {}),
            **dict.fromkeys(("position", "step", "limit", "end", "diverged_step"), clock),
            "status": Kind(torch.int8, (count,)),
            "loss": Kind(dtype, (count,)),
            "total": Kind(torch.float64, (count,)),
        }

    def fit(self) -> None:
        """Raise ShapeError unless every tensor is present, of its kind and on the networks' device; unused columns
        are allowed."""
        found, kinds, device = dict(self.tensors()), self.kinds(), self.population.device
        missing = kinds.keys() - found.keys()
        if missing or len(self.slots) != len(self.recipe.rule.slots):
            odd = f"{', '.join(sorted(missing))} missing" if missing else f"{len(self.slots)} slots"
            raise ShapeError(f"state: {odd}; {', '.join(kinds)} expected")
        kinds = dict.fromkeys(found, Kind(torch.float64, (self.population.count, 1))) | kinds
        for name, tensor in found.items():
            if (tensor.dtype, tensor.shape, tensor.device) != (*kinds[name], device):
                raise ShapeError(
                    f"state: {name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; {kinds[name].dtype} "
                    f"{kinds[name].shape} on {device} expected"
                )

    def check(self, data: Dataset | None = None) -> None:
        """Raise ShapeError or ConfigError unless an engine can use these tensors: of their kinds, within
        their ranges, and at positions of `data`."""
        self.fit()
        self.bound(data)

    def bound(self, data: Dataset | None = None) -> None:
        """Raise ConfigError unless everything but the rows is within its range, and at positions of `data`."""
        networks, last, inf = None if data is None else data.networks, (1 << 63) - 1, float("inf")
        ranges: dict[str, tuple[float, float | Tensor]] = {
            "ids": (0, EVERYBODY - 1),
            "position": (0, last if networks is None else networks - 1),
            "end": (0, last // self.recipe.batch_size),
            "limit": (0, self.end),
            "step": (0, self.limit),
            "diverged_step": (-1, self.step),
            "status": (0, max(Status)),
            "hyper.class_weight": (0, torch.finfo(torch.float64).max),
            **{f"memory.{name}": (0, inf) for name in {**MEMORY, **TRACKED}},
            **{f"memory.{name}": (-inf, inf) for name in ("best", "best_loss", "last_loss", *RATED)},
            "memory.best_step": (-1, self.step[:, None]),
        }
        tensors = dict(self.tensors())
        found = {name: tensors[name] for name in ranges if name in tensors}
        sound = [((each >= ranges[name][0]) & (each <= ranges[name][1])).all() for name, each in found.items()]
        for name, good in zip(found, torch.stack(sound).tolist()):
            if not good:
                low, high = ranges[name]
                most = "the end of its network's round or training" if isinstance(high, Tensor) else f"{high:,}"
                least, largest = found[name].min().item(), found[name].max().item()
                raise ConfigError(f"state: {name} is {least:,} to {largest:,}; {low:,} to {most} expected")
        for name in self.hyper.keys() - {"class_weight"}:
            numbers_of(name, self.hyper[name][:, 0])
