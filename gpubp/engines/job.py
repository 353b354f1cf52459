"""What a compiled kernel is made for (Key) and what a call gives it (Job of kernel/memory.h), on any device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data import Dataset
from ..errors import EngineError
from ..evaluate import Evaluation, spread
from ..losses import LOSSES
from ..population import Population
from ..recipe import Recipe
from ..spec import NetworkSpec
from ..state import TrainState
from . import cache, rules
from .layout import Layout
from .program import Program, Samples


class Key(NamedTuple):
    """What a kernel is made for."""

    spec: NetworkSpec
    recipe: Recipe
    dtype: torch.dtype
    samples: Samples
    networks: int
    task: str

    @classmethod
    def of(cls, state: TrainState, data: Dataset) -> Key:
        """For training a population that stands at one step."""
        spec, params = state.population.spec, state.population.params
        return cls(spec, state.recipe, params.dtype, seen(state.recipe, data), len(params), "train")

    @classmethod
    def to_come(cls, spec: NetworkSpec, recipe: Recipe, dtype: torch.dtype, data: Dataset | None) -> Key:
        """For a training to come, of networks that may stand at different steps: of(state, data).apart of every state
        of it, and of every part of the data. None: the data of which a network takes most."""
        facts = Samples(True, False, False, 2, recipe.shuffle) if data is None else seen(recipe, data)
        return cls(spec, recipe, dtype, facts, 1, "train").apart

    @classmethod
    def of_evaluation(
        cls, spec: NetworkSpec, dtype: torch.dtype, count: int, data: Dataset, hyper: Iterable[str]
    ) -> Key:
        """For loss and metric of `count` networks on `data`. hyper: the names of TrainConfig.columns."""
        known = ("class_weight", *LOSSES[spec.loss].defaults)
        recipe = showing(data.lengths[1], tuple(name for name in hyper if name in known))
        return cls(spec, recipe, dtype, seen(recipe, data), count, "evaluate")

    @property
    def apart(self) -> Key:
        """The same for networks that may stand at different steps."""
        return self._replace(samples=replace(self.samples, own=True))

    def program(self, layout: Layout) -> Program:
        """The kernel's program."""
        return Program(self.spec, self.recipe, self.dtype, self.samples, layout, self.task)

    def identity(self, program: Program, machine: str) -> tuple[Any, ...]:
        """Everything that the kernel's text depends on; of the package's rules, the functions themselves."""
        own = rules.functions(rules.rows(self.spec, self.recipe))
        rule, loss = self.recipe.rule, LOSSES[self.spec.loss]
        facts = (loss.outputs, loss.metric, loss.classes, rule.decoupled, rule.absorbing)
        found = (self.spec, self.recipe, own, facts, self.dtype, self.samples, self.task, program.layout, machine)
        return found if rules.fixed(own) else (*found, program.text)


def seen(recipe: Recipe, data: Dataset) -> Samples:
    """What a kernel that trains is told about its data."""
    weight, shuffle = data.sample_weight, recipe.shuffle if data.samples > 1 else "none"
    own = data.own or data.rows is not None or shuffle == "network"
    return Samples(own, data.rows is not None, data.own, 0 if weight is None else weight.ndim, shuffle)


PIECES, WASTE = range(64, 24, -8), 1.1  # samples that go through a network at once where it does not learn


@lru_cache
def showing(samples: int, hyper: tuple[str, ...] = ()) -> Recipe:
    """For networks that are shown so many samples: the batch is a piece of them, the largest that leaves little of its
    last one empty."""

    def waste(piece: int) -> float:
        return max(WASTE, -(-samples // piece) * piece / samples)

    piece = samples if samples <= PIECES[0] else min(PIECES, key=waste)
    return Recipe(batch_size=piece, hyper=hyper)


def to_evaluate(
    engine: str, population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor
) -> tuple[Key, Tensor, dict[str, Tensor], Tensor]:
    """What a kernel is made for that evaluates networks, and what it reads besides the data: rows (N, P),
    hyper-parameters by name and positions (N,). Raises EngineError for other types and places."""
    params = population.params
    agree(engine, params, data)
    key = Key.of_evaluation(population.spec, params.dtype, len(params), data, hyper)
    return (
        key,
        params.contiguous(),
        {name: hyper[name].contiguous() for name in key.recipe.hyper},
        position.contiguous(),
    )


def agree(engine: str, params: Tensor, data: Dataset) -> None:
    """Raise EngineError unless networks and their data are of one type and on one device: a kernel reads numbers of
    the networks' type wherever it is pointed to."""
    for name in ("inputs", "targets", "sample_weight"):
        each: Tensor | None = getattr(data, name)
        types = (params.dtype, torch.int64) if name == "targets" else (params.dtype,)  # or numbers of classes
        if each is None or (each.dtype in types and each.device == params.device):
            continue
        raise EngineError(
            f'engine "{engine}": networks are {params.dtype} on {params.device}, {name} {each.dtype} on '
            f"{each.device}; equal types on one device expected"
        )


@contextmanager
def contiguous(state: TrainState) -> Iterator[TrainState]:
    """The state, or where its rows do not lie side by side a copy of it, which is then put back."""
    if all(tensor.is_contiguous() for _, tensor in state.tensors()):
        yield state
        return
    everyone = torch.arange(len(state.step), device=state.step.device)
    own = state.rows(everyone)
    yield own
    state.put(everyone, own)


@lru_cache
def job(slots: int, hyper: int, columns: int) -> type[ctypes.Structure]:
    """Job of kernel/memory.h."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    one = ("class_weight", "ids", "position", "limit", "end", "step", "status", "loss", "total", "inputs", "targets",
           "classes", "weights", "spread", "rows", "sizes")  # fmt: skip
    numbers = ("count", "samples", "longest", "seed", "steps", "threads", "check")
    fields: Sequence[tuple[str, Any]] = [
        ("params", pointer), ("slots", pointer * (slots + 1)), ("hyper", pointer * (hyper + 1)),
        ("columns", pointer * (columns + 1)), *((name, pointer) for name in one),
        *((name, integer) for name in numbers), ("taken", pointer), ("figures", pointer),
    ]  # fmt: skip
    return type("Job", (ctypes.Structure,), {"_fields_": fields})


def job_of(program: Program) -> type[ctypes.Structure]:
    """Job as a program has it."""
    rule = program.recipe.rule
    return job(len(rule.slots), len(program.hyper), len(rule.columns))


def fill_evaluation(
    job: Any, spec: NetworkSpec, names: Sequence[str], params: Tensor, data: Dataset, hyper: Mapping[str, Tensor],
    position: Tensor,
) -> Evaluation:  # fmt: skip
    """Where the numbers of an evaluation stand. -> the figures, to be computed."""
    for number, name in enumerate(names):
        job.hyper[number] = hyper[name].data_ptr()
    point(job, data, hyper)
    if LOSSES[spec.loss].metric == "r2":
        job.spread = spread(data).data_ptr()
    figures = params.new_empty(2, len(params), dtype=torch.float64)
    job.params, job.position, job.figures = params.data_ptr(), position.data_ptr(), figures.data_ptr()
    job.count = len(params)
    return Evaluation(*figures)


def point(job: Any, data: Dataset, hyper: Mapping[str, Tensor]) -> None:
    """Where the samples stand, and what the classes weigh."""
    pointers = {
        "inputs": data.inputs, "weights": data.sample_weight, "rows": data.rows, "sizes": data.sizes,
        "class_weight": hyper.get("class_weight"),
        "targets" if data.targets.is_floating_point() else "classes": data.targets,
    }  # fmt: skip
    for name, tensor in pointers.items():
        if tensor is not None:
            setattr(job, name, tensor.data_ptr())
    job.samples, job.longest = data.samples, 0 if data.rows is None else data.rows.shape[1]


def fill(job: Any, names: Sequence[str], state: TrainState, data: Dataset) -> None:
    """Where the numbers of a training stand; what differs from call to call is left open. names: the hyper-parameters
    that the kernel reads, in its order."""
    population, hyper = state.population, {**state.hyper, **state.memory}
    columns = [state.columns[name] for name in state.recipe.rule.columns]
    for array, tensors in ((job.slots, state.slots), (job.columns, columns)):
        for number, tensor in enumerate(tensors):
            array[number] = tensor.data_ptr()
    for number, name in enumerate(names):
        job.hyper[number] = hyper[name].data_ptr()
    point(job, data, hyper)
    pointers = {
        "params": population.params, "ids": population.ids,
        **{name: getattr(state, name) for name in ("position", "limit", "end", "step", "status", "loss", "total")},
    }  # fmt: skip
    for name, tensor in pointers.items():
        setattr(job, name, tensor.data_ptr())
    job.count, job.seed = len(population.params), population.seed


def of_evaluations(state: TrainState, evaluated: Iterable[Dataset]) -> list[Key]:
    """For the evaluations of a population in training."""
    spec, params = state.population.spec, state.population.params
    return [Key.of_evaluation(spec, params.dtype, len(params), each, state.hyper) for each in evaluated]


def side_by_side(compile_one: Callable[[Key], object], training: Key, evaluations: Iterable[Key]) -> None:
    """Compile kernels in threads, and those that failed once more, alone: the system may have ended a compiler because
    memory was short. Raises the error of a second failure."""
    keys = [training, *{(key.recipe.batch_size, key.samples): key for key in evaluations}.values()]
    with ThreadPoolExecutor(len(keys), "gpubp-compile") as pool:
        tried = [(key, pool.submit(compile_one, key)) for key in keys]
    for key, future in tried:
        if why := future.exception():
            compile_one(key)
            cache.NEWS[key] = f"a kernel was compiled at the second try; the first: {why}"
