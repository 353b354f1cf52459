"""The GPU engine: the CPU's kernel source compiled by NVRTC, K steps per launch on torch's current stream.

A kernel is a Program (program.py) for a layout that fits on the chip (chip.py), compiled (nvrtc.py) and launched
(device.py). A network that diverges is seen to in the kernel, so a call waits for nothing and reads nothing back. It
refuses networks that do not fit into a multiprocessor's shared memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..data import Dataset
from ..errors import EngineError
from ..evaluate import Evaluation
from ..population import Population
from ..recipe import Recipe
from ..spec import NetworkSpec
from ..state import TrainState
from . import chip, device, nvrtc
from .job import END, agree, contiguous, declared, fill, fill_evaluation, structure, to_evaluate
from .key import Key, compile_all, of_evaluations
from .layout import Layout
from .prepared import Calls
from .program import Program

End = structure(END)


@dataclass(frozen=True)
class Kernel:
    """A compiled program, what a thread of it takes, and the sentence that says why it is this one."""

    program: Program
    code: bytes
    use: nvrtc.Use
    reason: str

    @cached_property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.program.plan.shared

    @cached_property
    def job(self) -> Any:
        """The type of its Job."""
        return self.program.job


def run(state: TrainState, data: Dataset, steps: int) -> None:
    """Advance every running network by up to `steps` steps, not beyond its limit, in place; it is launched, and not
    waited for."""
    call = CALLS.find(state, data, LAYOUT)
    if call is not None:
        call(state, steps)
        return
    state.check(data)
    with torch.no_grad(), contiguous(state) as own:
        call = Call(own, data)
        call(own, steps)
    if own is state:
        CALLS.keep(state, data, call, LAYOUT)


class Call:
    """A call of training, but for how many steps it takes."""

    def __init__(self, state: TrainState, data: Dataset) -> None:
        params = state.population.params
        _on_a_gpu(params)
        agree("cuda", params, data)
        own = kernel(Key.of(state, data).for_any_steps, device.limits(params.device))
        self.job = own.job()
        fill(self.job, own.program.hyper, state, data)
        self.taken = torch.empty_like(state.step)  # the kernel's notes, of one call after the other as all of the state
        self.job.taken = self.taken.data_ptr()
        self.start = prepare(own, self.job, End(state.status.data_ptr(), state.diverged_step.data_ptr()), params)

    def __call__(self, state: TrainState, steps: int) -> None:
        """Launch it for the state that it was made for."""
        self.job.steps = steps
        self.start(state.population.params)


@torch.no_grad()
def evaluate(population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor) -> Evaluation:
    """Loss and metric of the networks on `data`; launched, and not waited for."""
    _on_a_gpu(population.params)
    key, params, columns, position = to_evaluate("cuda", population, data, hyper, position)
    own = kernel(key, device.limits(params.device))
    job = own.job()
    figures = fill_evaluation(job, key, own.program.hyper, params, data, columns, position)
    start(own, job, End(), params)
    return figures


def compile_ahead(state: TrainState, data: Dataset, evaluated: Sequence[Dataset], where: torch.device) -> None:
    """Compile what training on `data` and evaluations need, side by side."""
    limits = device.limits(where)
    compile_all(lambda key: kernel(key, limits), Key.of(state, data).for_any_steps, of_evaluations(state, evaluated))


def _on_a_gpu(params: Tensor) -> None:
    if not device.here(params):
        raise EngineError(f'engine "cuda": networks are on {params.device}; a GPU expected')


def start(own: Kernel, job: Any, end: Any, params: Tensor) -> None:
    """Launch a kernel for networks (N, P), a thread or a block for each."""
    prepare(own, job, end, params)(params)


def prepare(own: Kernel, job: Any, end: Any, params: Tensor) -> Callable[[Tensor], None]:
    """-> call that launches a kernel for networks (N, P), a thread or a block for each, with `job` as it then is."""
    layout, count = own.program.layout, len(params)
    threads, networks = chip.block(layout)
    function = device.load(own.code, threads, own.shared, params.device)
    blocks, far = -(-count // networks), 0
    if not layout.near:  # the blocks that run at once go from network to network, so that what they share stays in L2
        blocks = min(blocks, function.blocks)
        far = blocks * networks * own.program.plan.far
    launch = device.Launch(function, blocks, threads, own.shared, (job, end), params.device)

    def start(params: Tensor) -> None:
        if far:
            slots = params.new_empty(far)  # torch gives its memory to nobody before the kernel has run
            end.slots = slots.data_ptr()
        if count:
            launch()

    return start


def why(spec: NetworkSpec, recipe: Recipe, where: torch.device, dtype: torch.dtype, data: Dataset | None = None) -> str:
    """The sentence that says how such networks are trained: on `data`, of the very kernel that run() will take. Raises
    EngineError where they cannot be, which no data change."""
    limits, most = device.limits(where), Key.to_come(spec, recipe, dtype, None)
    _a_block(Program(most, Layout()), limits)
    if data is None:
        return f"{kernel(most, limits).reason}, counted with a weight for each sample"
    training = Key.to_come(spec, recipe, dtype, data)
    shown = Key.of_evaluation(spec, dtype, 1, data, recipe.hyper)
    compile_all(lambda key: kernel(key, limits), training, [shown])
    return kernel(training, limits).reason


CALLS: Calls[Call] = Calls()
KERNELS: dict[tuple[Any, ...], Kernel] = {}
LAYOUT: Layout | None = None  # instead of the rule's, for tests and benchmarks


def kernel(key: Key, limits: chip.Limits) -> Kernel:
    """The kernel for `key` on such a device, compiled unless it is there already."""
    program = Program(key, LAYOUT or Layout())
    identity = program.identity(str(limits))
    if identity not in KERNELS:
        KERNELS[identity] = _made(program, limits) if LAYOUT else _best(program, limits)
    return KERNELS[identity]


def text(program: Program) -> str:
    """The whole translation unit."""
    end = "\n".join(declared(END))
    return f'{program.text}{end}\n#include "gpu.h"\n'


def _made(program: Program, limits: chip.Limits) -> Kernel:
    code = nvrtc.cubin(text(program), limits.arch)
    return Kernel(program, code, nvrtc.use(code), "cuda: laid out by hand")


def _best(program: Program, limits: chip.Limits) -> Kernel:
    """A thread is a network where the compiler finds registers for its numbers; else a block."""
    widths, batch, spilled = _widths(program), program.recipe.batch_size, ""
    own = chip.in_registers(program, limits)
    if own:
        kernel = _made(own, limits)
        if kernel.use.local <= chip.SPILLED:
            used = f"{kernel.use.registers} registers of sm_{limits.arch} and {kernel.use.local} bytes of local memory"
            return replace(kernel, reason=f"cuda: a thread is a network: the kernel for {widths} takes {used}")
        spilled = f", for a thread would keep {kernel.use.local} bytes in local memory"
    own = _a_block(program, limits)
    kernel = _made(own, limits)
    layout = own.layout
    pieces = f", {layout.chunk} of {batch} samples at once" if layout.chunk < batch else ""
    slots = "" if layout.near else ", slots in global memory"
    room = f"{kernel.shared:,} of {limits.block:,} bytes of shared memory"
    who = "is a network" if layout.together == 1 else f"is {layout.together} networks"
    threads = layout.threads * layout.together
    why = f"cuda: a block of {threads} threads {who}: {widths} takes {room}{pieces}{slots}{spilled}"
    return replace(kernel, reason=why)


def _a_block(program: Program, limits: chip.Limits) -> Program:
    """A block is a network. Raises EngineError where it does not fit."""
    own = chip.in_shared_memory(program, limits)
    if own is None:
        raise EngineError(
            f'engine "cuda": networks {_widths(program)} with batch_size {program.recipe.batch_size} and '
            f"{program.recipe.optimizer} need {chip.wants(program):,} bytes of shared memory or more, a block has "
            f'{limits.block:,}; engine "eager" trains them'
        )
    return own


def _widths(program: Program) -> str:
    return "-".join(map(str, program.spec.widths))
