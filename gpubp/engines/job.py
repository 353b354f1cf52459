"""What a call gives a compiled kernel: Job, which points to the tensors of a state and its data, and, on a GPU, End.

Only this file declares their members: for ctypes, and printed into the kernel's text.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import EngineError
from ..evaluate import Evaluation, spread
from ..samples.data import Dataset
from ..state import TrainState
from .key import Key


class Member(NamedTuple):
    """A pointer or an integer of a structure; or `constant` + 1 pointers, as an array needs at least one."""

    kind: str
    name: str
    what: str
    constant: str = ""


class Struct(NamedTuple):
    """A structure that a kernel is given by value or by reference."""

    name: str
    what: str
    members: tuple[Member, ...]


JOB = Struct(
    "Job",
    "what a call is given: arrays of TrainState and Dataset; N networks, M samples",
    (
        Member("real *", "params", "(N, P)"),
        Member("real *", "slots", "(N, P) each: of the optimizer", "SLOTS"),
        Member("const double *", "hyper", "(N) each: hyper-parameters", "HYPERS"),
        Member("double *", "network_slots", "(N) each: of the optimizer", "NETWORK_SLOTS"),
        Member("const double *", "class_weight", "(N, O)"),
        Member("const int64_t *", "ids", "(N)"),
        Member("const int64_t *", "position", "(N): of each network in the data"),
        Member("const int64_t *", "limit", "(N): the last step of the round"),
        Member("const int64_t *", "end", "(N): the last step of the training"),
        Member("int64_t *", "step", "(N): steps taken"),
        Member("const int8_t *", "status", "(N): 0 of a network that trains"),
        Member("real *", "loss", "(N): of the last step, before its update"),
        Member("double *", "total", "(N): the sum of the losses of the round"),
        Member("const real *", "inputs", "(M, I) or (N, M, I)"),
        Member("const real *", "targets", "(M, O) or (N, M, O)"),
        Member("const int64_t *", "classes", "(M) or (N, M): targets that are class numbers"),
        Member("const real *", "weights", "(M) or (N, M): of the samples"),
        Member("const double *", "spread", "(1, O) or (N, O): Dataset.spread, of R2"),
        Member(
            "const int64_t *", "subset", "the samples of each network by their numbers, one network after the other"
        ),
        Member("const int64_t *", "starts", "(N): where a network's begin in subset"),
        Member("const int64_t *", "sizes", "(N): how many they are"),
        Member("int64_t ", "count", "N"),
        Member("int64_t ", "samples", "M"),
        Member("int64_t ", "seed", "Population.seed"),
        Member("int64_t ", "steps", "of this call, at most"),
        Member("int64_t ", "threads", "of a CPU"),
        Member("int64_t ", "dry_run", "whether to look for non-finite numbers after every step, and change nothing"),
        Member("int64_t *", "taken", "(N): -t if a number is not finite after step t; else, with `dry_run`, t"),
        Member("double *", "figures", "(2, N): loss and metric, of an evaluation"),
        Member("const int32_t *", "shape", "of a general kernel's networks (constants.shape())"),
    ),
)
END = Struct(
    "End",
    "what else a GPU's call is given",
    (
        Member("int8_t *", "status", "(N): Job.status"),
        Member("int64_t *", "diverged", "(N): the step that did not count"),
        Member("real *", "far", "(blocks, TEAMS_PER_BLOCK, FAR_ENTRIES): arrays of Memory in global memory"),
        Member("int64_t *", "turn", "(blocks of networks): pieces that are done; 0 before and after a call"),
        Member("unsigned *", "tickets", "(1): parts that are taken, 0 before and after a call; null without shares"),
        Member("int64_t ", "parts", "of the call"),
        Member("int64_t ", "whole", "parts that are a block of networks each, the first ones; the others are shares"),
        Member("int64_t ", "share", "steps of a share; the last one has what remains"),
    ),
)


def declared(struct: Struct) -> list[str]:
    """A structure in C++."""
    dims = {each.name: f"[{each.constant} + 1]" if each.constant else "" for each in struct.members}
    members = [f"  {each.kind}{each.name}{dims[each.name]};  // {each.what}" for each in struct.members]
    return [f"struct {struct.name} {{  // {struct.what}", *members, "};"]


@lru_cache
def structure(struct: Struct, counts: tuple[tuple[str, int], ...] = ()) -> Any:
    """A structure for ctypes. counts: the constants that its members name."""
    sizes = dict(counts)

    def kind(member: Member) -> Any:
        one = ctypes.c_void_p if "*" in member.kind else ctypes.c_int64
        return one * (sizes[member.constant] + 1) if member.constant else one

    fields = [(each.name, kind(each)) for each in struct.members]
    return type(struct.name, (ctypes.Structure,), {"_fields_": fields})


def agree(engine: str, params: Tensor, data: Dataset) -> None:
    """Raise EngineError unless networks and their data have one dtype and one device: a kernel reads whatever a pointer
    leads to as numbers of the networks' dtype."""
    for name in ("inputs", "targets", "sample_weight"):
        each: Tensor | None = getattr(data, name)
        types = (params.dtype, torch.int64) if name == "targets" else (params.dtype,)  # or class numbers
        if each is None or (each.dtype in types and each.device == params.device):
            continue
        raise EngineError(
            f'engine "{engine}": networks are {params.dtype} on {params.device}, {name} {each.dtype} on '
            f"{each.device}; equal types on one device expected"
        )


@contextmanager
def contiguous(state: TrainState) -> Iterator[TrainState]:
    """The state; or, if some of its tensors are not contiguous, a copy, whose results are then put back."""
    if all(tensor.is_contiguous() for _, tensor in state.tensors()):
        yield state
        return
    everyone = torch.arange(len(state.step), device=state.step.device)
    packed = state.rows(everyone)
    yield packed
    state.put(everyone, packed)


def fill_evaluation(
    job: Any, key: Key, names: Sequence[str], params: Tensor, data: Dataset, hyper: Mapping[str, Tensor],
    position: Tensor,
) -> Evaluation:  # fmt: skip
    """Point the job of an evaluation to its tensors, keeping copies of them alive. names: the hyper-parameters that the
    kernel reads, in its order. -> the figures, which the kernel will compute."""
    hyper = {name: hyper[name].contiguous() for name in key.recipe.hyper}
    params, position = params.contiguous(), position.contiguous()
    job.alive = hyper, params, position
    point(job, data, hyper, names)
    if key.loss.metric == "r2":
        job.spread = spread(data).data_ptr()
    figures = params.new_empty(2, len(params), dtype=torch.float64)
    job.params, job.position, job.figures = params.data_ptr(), position.data_ptr(), figures.data_ptr()
    job.count = len(params)
    return Evaluation(*figures)


def fill(job: Any, names: Sequence[str], state: TrainState, data: Dataset) -> None:
    """Point the job of a training to its tensors; what differs between calls stays open. names: the hyper-parameters
    that the kernel reads, in its order."""
    population, hyper = state.population, {**state.hyper, **state.memory}
    columns = [state.columns[name] for name in state.recipe.rule.columns]
    for array, tensors in ((job.slots, state.slots), (job.network_slots, columns)):
        for number, tensor in enumerate(tensors):
            array[number] = tensor.data_ptr()
    point(job, data, hyper, names)
    pointers = {
        "params": population.params, "ids": population.ids,
        **{name: getattr(state, name) for name in ("position", "limit", "end", "step", "status", "loss", "total")},
    }  # fmt: skip
    for name, tensor in pointers.items():
        setattr(job, name, tensor.data_ptr())
    job.count, job.seed = len(population.params), population.seed


def point(job: Any, data: Dataset, hyper: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Point a job to its samples, the weights of the classes and the hyper-parameters `names`."""
    for number, name in enumerate(names):
        job.hyper[number] = hyper[name].data_ptr()
    pointers = {
        "inputs": data.inputs, "weights": data.sample_weight, "subset": data.rows, "sizes": data.sizes,
        "starts": data.starts, "class_weight": hyper.get("class_weight"),
        "targets" if data.targets.is_floating_point() else "classes": data.targets,
    }  # fmt: skip
    for name, tensor in pointers.items():
        if tensor is not None:
            setattr(job, name, tensor.data_ptr())
    job.samples = data.samples
