"""What a compiled kernel is made for (Key) and what a call gives it (Job of kernel/memory.h), on any device."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..data import Dataset
from ..errors import EngineError, ShapeError
from ..losses import LOSSES
from ..spec import NetworkSpec
from ..state import TrainState
from . import rules
from .program import Layout, Program, Samples


class Key(NamedTuple):
    """What a kernel is made for; config is compared by what matters to it."""

    spec: NetworkSpec
    config: TrainConfig
    names: tuple[str, ...]
    dtype: torch.dtype
    samples: Samples
    networks: int
    predict: bool

    @classmethod
    def of(cls, state: TrainState, data: Dataset) -> Key:
        """For training a population that stands at one step."""
        names, params = tuple(state.hyper) + (("scale",) if state.plateau else ()), state.population.params
        facts = seen(state.config, data)
        return cls(state.population.spec, state.config, names, params.dtype, facts, len(params), False)

    @classmethod
    def to_come(cls, spec: NetworkSpec, config: TrainConfig, dtype: torch.dtype, data: Dataset | None) -> Key:
        """For a training to come, of networks that may stand at different steps: of(state, data).apart of every state
        of it, and of every part of the data. None: the data of which a network takes most."""
        facts = Samples(True, False, False, 2, config.shuffle) if data is None else seen(config, data)
        return cls(spec, config, switched_on(spec, config), dtype, facts, 1, False).apart

    @classmethod
    def of_outs(cls, spec: NetworkSpec, dtype: torch.dtype, shared: bool, count: int) -> Key:
        """For outs alone of `count` networks. shared: all have the same inputs."""
        facts = Samples(own=not shared, rows=False, inputs=not shared, weight=0, shuffle="none")
        return cls(spec, ALONE, switched_on(spec, ALONE), dtype, facts, count, True)

    @property
    def apart(self) -> Key:
        """The same for networks that may stand at different steps."""
        return self._replace(samples=replace(self.samples, own=True))

    def program(self, layout: Layout) -> Program:
        """The kernel's program."""
        return Program(self.spec, self.config, self.names, self.dtype, self.samples, layout, self.predict)

    def identity(self, program: Program, machine: str) -> tuple[Any, ...]:
        """Everything that the kernel's text depends on; of the package's rules, the functions themselves."""
        own = rules.functions(rules.rows(self.spec, self.config))
        config, loss = self.config, LOSSES[self.spec.loss]
        facts = (loss.outputs, config.rule.decoupled, config.rule.absorbing, config.batch_size, config.update_order)
        found = (self.spec, own, facts, self.names, self.dtype, self.samples, self.predict, program.layout, machine)
        return found if rules.fixed(own) else (*found, program.text)


def seen(config: TrainConfig, data: Dataset) -> Samples:
    """What a kernel that trains is told about its data."""
    weight, shuffle = data.sample_weight, config.shuffle if data.samples > 1 else "none"
    own = data.own or data.rows is not None or shuffle == "network"
    return Samples(own, data.rows is not None, data.own, 0 if weight is None else weight.ndim, shuffle)


SAMPLES = 64  # that go through a network at once where outs alone are wanted
ALONE = TrainConfig("sgd", steps=1, batch_size=SAMPLES)


def switched_on(spec: NetworkSpec, config: TrainConfig) -> tuple[str, ...]:
    """The hyper-parameters that a training will have, before there is a state of it."""
    rest = {"class_weight": config.class_weight is not None, "scale": bool(config.timetable.events)}
    return (*config.switched_on(spec.loss), *(name for name, on in rest.items() if on))


def to_predict(engine: str, spec: NetworkSpec, params: Tensor, inputs: Tensor) -> tuple[Key, Tensor, Tensor]:
    """What a kernel is made for that computes the outs of networks (N, P) for inputs (N, B, I), and what it reads: the
    networks, and inputs (B, I) where all have the same. Raises EngineError for other types and places, ShapeError."""
    if inputs.dtype != params.dtype or inputs.device != params.device:
        raise EngineError(
            f'engine "{engine}": networks are {params.dtype} on {params.device}, inputs {inputs.dtype} on '
            f"{inputs.device}; equal types on one device expected"
        )
    if inputs.shape[0] != len(params) or inputs.shape[2] != spec.widths[0]:
        raise ShapeError(f"inputs {tuple(inputs.shape)}: ({len(params)}, B, {spec.widths[0]}) expected")
    shared = inputs.stride(0) == 0 or len(inputs) == 1
    key = Key.of_outs(spec, params.dtype, shared, len(params))
    return key, params.contiguous(), (inputs[0] if shared else inputs).contiguous()


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
           "classes", "weights", "rows", "sizes")  # fmt: skip
    numbers = ("count", "samples", "longest", "seed", "steps", "threads", "check")
    fields: Sequence[tuple[str, Any]] = [
        ("params", pointer), ("slots", pointer * (slots + 1)), ("hyper", pointer * (hyper + 1)),
        ("columns", pointer * (columns + 1)), *((name, pointer) for name in one),
        *((name, integer) for name in numbers), ("taken", pointer), ("outs", pointer),
    ]  # fmt: skip
    return type("Job", (ctypes.Structure,), {"_fields_": fields})


def job_of(program: Program) -> type[ctypes.Structure]:
    """Job as a program has it."""
    rule = program.config.rule
    return job(len(rule.slots), len(program.hyper), len(rule.columns))


def fill_outs(job: Any, spec: NetworkSpec, params: Tensor, inputs: Tensor) -> Tensor:
    """Where the numbers of a prediction stand. -> outs (N, B, O), to be computed."""
    count, batch = len(params), inputs.shape[-2]
    outs = params.new_empty(count, batch, spec.widths[-1])
    job.params, job.inputs, job.outs = params.data_ptr(), inputs.data_ptr(), outs.data_ptr()
    job.count, job.samples = count, batch
    return outs


def fill(job: Any, names: Sequence[str], state: TrainState, data: Dataset) -> None:
    """Where the numbers of a training stand; what differs from call to call is left open. names: the hyper-parameters
    that the kernel reads, in its order."""
    population, hyper = state.population, {**state.hyper, **state.plateau}
    columns = [state.columns[name] for name in state.config.rule.columns]
    for array, tensors in ((job.slots, state.slots), (job.columns, columns)):
        for number, tensor in enumerate(tensors):
            array[number] = tensor.data_ptr()
    for number, name in enumerate(names):
        job.hyper[number] = hyper[name].data_ptr()
    pointers = {
        "params": population.params, "ids": population.ids, "inputs": data.inputs,
        "weights": data.sample_weight, "rows": data.rows, "sizes": data.sizes,
        "class_weight": hyper.get("class_weight"),
        "targets" if data.targets.is_floating_point() else "classes": data.targets,
        **{name: getattr(state, name) for name in ("position", "limit", "end", "step", "status", "loss", "total")},
    }  # fmt: skip
    for name, tensor in pointers.items():
        if tensor is not None:
            setattr(job, name, tensor.data_ptr())
    job.count, job.samples, job.seed = len(population.params), data.samples, population.seed
    job.longest = 0 if data.rows is None else data.rows.shape[1]
