"""What a kernel is made for: Key, all that a compiler can know about a training or an evaluation, on any device."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import torch

from ..maths.losses import LOSSES, Loss
from ..maths.spec import NetworkSpec
from ..samples.data import Dataset
from ..settings.recipe import Recipe
from ..state import TrainState
from . import cache

TASKS = ("train", "evaluate")
MANY = 1 << 30  # networks, if their number is not given
PIECES, WASTE = range(64, 24, -8), 1.1  # samples of an evaluation that go through a network together


@dataclass(frozen=True)
class Samples:
    """What a kernel knows about its data.

    own: networks of a group see different samples, or are at different steps. rows: index tensors say which samples a
    network has. inputs: every network has its own inputs and targets. weight: sample weights are absent (0), shared
    (1), or one set per network (2). shuffle: as in TrainConfig.
    """

    own: bool = False
    rows: bool = False
    inputs: bool = False
    weight: int = 0
    shuffle: str = "none"

    @classmethod
    def of(cls, recipe: Recipe, data: Dataset) -> Self:
        """For networks at one step."""
        weight, shuffle = data.sample_weight, recipe.shuffle if data.samples > 1 else "none"
        own = data.own or data.rows is not None or shuffle == "network"
        return cls(own, data.rows is not None, data.own, 0 if weight is None else weight.ndim, shuffle)


class Key(NamedTuple):
    """What a kernel is made for. task: one of TASKS. networks, threads: how many a call has, to choose a layout."""

    spec: NetworkSpec
    recipe: Recipe
    dtype: torch.dtype
    samples: Samples
    networks: int = 1
    task: str = "train"
    threads: int = 1

    @classmethod
    def of(cls, state: TrainState, data: Dataset) -> Self:
        """For training a population whose networks are at one step."""
        spec, params = state.population.spec, state.population.params
        samples = Samples.of(state.recipe, data)
        return cls(spec, state.recipe, params.dtype, samples, len(params), threads=torch.get_num_threads())

    @classmethod
    def to_come(
        cls, spec: NetworkSpec, recipe: Recipe, dtype: torch.dtype, data: Dataset | None, count: int = MANY
    ) -> Self:
        """For a training of `count` networks before its state exists: of(state, data).for_any_steps for every part of
        its networks. data None: as with the data that need the most memory."""
        samples = Samples(True, False, False, 2, recipe.shuffle) if data is None else Samples.of(recipe, data)
        return cls(spec, recipe, dtype, samples, count).for_any_steps

    @classmethod
    def of_evaluation(
        cls, spec: NetworkSpec, dtype: torch.dtype, count: int, data: Dataset, hyper: Iterable[str]
    ) -> Self:
        """For loss and metric of `count` networks on `data`. hyper: the names of TrainConfig.columns."""
        used = ("class_weight", *LOSSES[spec.loss].defaults)
        recipe = showing(data.lengths[1], tuple(name for name in hyper if name in used))
        return cls(spec, recipe, dtype, Samples.of(recipe, data), count, "evaluate", torch.get_num_threads())

    @property
    def for_any_steps(self) -> Self:
        """The same for networks that may be at different steps."""
        return self._replace(samples=replace(self.samples, own=True))

    @property
    def trains(self) -> bool:
        """Whether the kernel trains; else it evaluates."""
        return self.task == "train"

    @property
    def loss(self) -> Loss:
        """The loss's row."""
        return LOSSES[self.spec.loss]

    @property
    def weighted(self) -> bool:
        """Whether samples do not all count the same."""
        return self.samples.weight > 0 or self.class_weight

    @property
    def class_weight(self) -> bool:
        """Whether classes have weights."""
        return "class_weight" in self.recipe.hyper


@lru_cache
def showing(samples: int, hyper: tuple[str, ...] = ()) -> Recipe:
    """The recipe of an evaluation of `samples` samples. Its batch is a piece of them, the largest that leaves little of
    the last piece empty."""

    def waste(piece: int) -> float:
        return max(WASTE, -(-samples // piece) * piece / samples)

    piece = samples if samples <= PIECES[0] else min(PIECES, key=waste)
    return Recipe(batch_size=piece, hyper=hyper)


def of_evaluations(state: TrainState, evaluated: Iterable[Dataset]) -> list[Key]:
    """For the evaluations of a population in training."""
    spec, params = state.population.spec, state.population.params
    return [Key.of_evaluation(spec, params.dtype, len(params), each, state.hyper) for each in evaluated]


def compile_all(compile_one: Callable[[Key], object], training: Key, evaluations: Iterable[Key]) -> None:
    """Compile kernels in parallel, then those that failed once more, one by one: the system may have ended a compiler
    because memory was short. Raises the error of a second failure."""
    keys = [training, *{(key.recipe.batch_size, key.samples): key for key in evaluations}.values()]
    with ThreadPoolExecutor(len(keys), "gpubp-compile") as pool:
        tried = [(key, pool.submit(compile_one, key)) for key in keys]
    for key, future in tried:
        if why := future.exception():
            compile_one(key)
            cache.NEWS[key] = f"a kernel was compiled at the second try; the first: {why}"
