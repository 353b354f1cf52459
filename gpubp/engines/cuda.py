"""The GPU engine: the CPU's kernel source compiled by NVRTC, K steps per launch on torch's current stream.

A kernel is a Program (program.py) in a layout that fits on the chip (chip.py), compiled (nvrtc.py) and launched
(device.py). The kernel itself handles networks that diverge, so a call waits for nothing and reads nothing back.
Refused: networks with more numbers than an index can address.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import EngineError
from ..evaluate import Evaluation
from ..maths.spec import NetworkSpec
from ..population import Population
from ..samples.data import Dataset
from ..settings.recipe import EXACT, Recipe
from ..state import TrainState
from . import chip, device, nvrtc
from .job import END, agree, contiguous, declared, fill, fill_evaluation, structure
from .key import MANY, Key, compile_all, of_evaluations
from .layout import REACH, Layout
from .pieces import Parts, overhead, parts
from .prepared import Calls
from .program import Program

End = structure(END)


@dataclass(frozen=True)
class Kernel:
    """A compiled program, the resources of a thread, and the sentence that says why it was chosen."""

    program: Program
    code: bytes
    use: nvrtc.Use
    reason: str


def run(state: TrainState, data: Dataset, steps: int) -> None:
    """Advance every running network by up to `steps` steps, at most to its limit, in place. Does not wait for the
    GPU."""
    call = CALLS.find(state, data, LAYOUT)
    if call is not None:
        call(state, steps)
        return
    state.check(data)
    with torch.no_grad(), contiguous(state) as packed:
        call = Call(packed, data)
        call(packed, steps)
    if packed is state:
        CALLS.keep(state, data, call, LAYOUT)


class Call:
    """A training call of any number of steps."""

    def __init__(self, state: TrainState, data: Dataset) -> None:
        params = state.population.params
        _check(params, data)
        chosen = kernel(Key.of(state, data).for_any_steps, device.limits(params.device))
        self.job = chosen.program.job()
        fill(self.job, chosen.program.hyper, state, data)
        self.taken = torch.empty_like(state.step)  # the kernel's notes; calls on one state never overlap
        self.job.taken = self.taken.data_ptr()
        self.launch = launcher(chosen, self.job, End(state.status.data_ptr(), state.diverged_step.data_ptr()), params)

    def __call__(self, state: TrainState, steps: int) -> None:
        """Launch it for the state it was made from."""
        self.job.steps = steps
        self.launch(state.population.params, steps)


@torch.no_grad()
def evaluate(population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor) -> Evaluation:
    """Loss and metric of the networks on `data`. Does not wait for the GPU."""
    params = population.params
    _check(params, data)
    key = Key.of_evaluation(population.spec, params.dtype, len(params), data, hyper)
    chosen = kernel(key, device.limits(params.device))
    job = chosen.program.job()
    figures = fill_evaluation(job, key, chosen.program.hyper, params, data, hyper, position)
    launcher(chosen, job, End(), params)(params)
    return figures


def compile_ahead(state: TrainState, data: Dataset, evaluated: Sequence[Dataset], where: torch.device) -> None:
    """Compile the kernels for training on `data` and for evaluations in parallel."""
    limits = device.limits(where)
    compile_all(lambda key: kernel(key, limits), Key.of(state, data).for_any_steps, of_evaluations(state, evaluated))


def _check(params: Tensor, data: Dataset) -> None:
    if not device.on_a_gpu(params):
        raise EngineError(f'engine "cuda": networks are on {params.device}; a GPU expected')
    agree("cuda", params, data)


def launcher(kernel: Kernel, job: Any, end: Any, params: Tensor) -> Callable[..., None]:
    """-> a function of networks (N, P), and of a training's steps, that launches the kernel for them, with what `job`
    holds at that time."""
    plan, count = kernel.program.plan, len(params)
    threads, networks = chip.block(plan.layout)
    function = device.load(kernel.code, threads, plan.shared, params.device)
    launch = device.Launch(function, threads, plan.shared, (job, end), params.device)
    teams, together, more = -(-count // networks), plan.layout.blocks, overhead(kernel.program)
    at_once = max(1, function.blocks // together)
    far = min(teams, at_once) * networks * plan.far  # for as many blocks as run at once: it stays in L2
    shares = kernel.program.key.trains and teams > at_once and together == 1
    many = plan.layout.kind.lanes_are_outputs or plan.far > 0  # a block takes parts one after another
    turns = params.new_zeros(teams + 1 if shares else 0, dtype=torch.int64)  # and the counter of parts

    def start(params: Tensor, steps: int = 1) -> None:
        if far:
            memory = params.new_empty(far)  # torch reuses it only after the kernel has run
            end.far = memory.data_ptr()
        end.parts, end.whole, end.share = Parts(teams, teams)
        if shares:
            end.parts, end.whole, end.share = parts(teams, at_once, steps, more, many)
            end.turn = turns.data_ptr()
            end.tickets = end.turn + teams * turns.itemsize if end.share else 0
        if count:
            launch((min(end.parts, at_once) if far or (end.share and many) else end.parts) * together)

    return start


def why(
    spec: NetworkSpec, recipe: Recipe, where: torch.device, dtype: torch.dtype, data: Dataset | None = None,
    count: int = MANY,
) -> str:  # fmt: skip
    """The sentence that says how `count` such networks train on `data`, with the kernel that run() will use. Raises
    EngineError if they cannot, whatever the data."""
    limits, most = device.limits(where), Key.to_come(spec, recipe, dtype, None, count)
    _block(Program(most, Layout()), limits)
    if data is None:
        return f"{kernel(most, limits).reason}, counted with a weight for each sample"
    training = Key.to_come(spec, recipe, dtype, data, count)
    evaluation = Key.of_evaluation(spec, dtype, 1, data, recipe.hyper)
    compile_all(lambda key: kernel(key, limits), training, [evaluation])
    return kernel(training, limits).reason


CALLS: Calls[Call] = Calls()
KERNELS: dict[tuple[Any, ...], Kernel] = {}
LAYOUT: Layout | None = None  # instead of the chosen one, for tests and benchmarks


def kernel(key: Key, limits: chip.Limits) -> Kernel:
    """The kernel for `key` on a device with these limits, compiled if necessary."""
    program = Program(key, LAYOUT or Layout())
    identity = program.identity(f"{limits}, {chip.places(key.networks, limits)}")
    if identity not in KERNELS:
        KERNELS[identity] = _compiled(program, limits) if LAYOUT else _best(program, limits)
    return KERNELS[identity]


def text(program: Program) -> str:
    """The whole translation unit."""
    end = "\n".join(declared(END))
    return f'{program.text}{end}\n#include "gpu.h"\n'


def _compiled(program: Program, limits: chip.Limits) -> Kernel:
    code = nvrtc.cubin(text(program), limits.arch)
    return Kernel(program, code, nvrtc.use(code), "cuda: laid out by hand")


def _best(program: Program, limits: chip.Limits) -> Kernel:
    """A thread is a network if the compiler finds registers for its numbers; else a block is."""
    widths, batch, spilled = _widths(program), program.recipe.batch_size, ""
    precision = f"precision {program.recipe.precision!r}"
    thread = chip.in_registers(program, limits)
    if thread:
        kernel = _compiled(thread, limits)
        if kernel.use.local <= chip.SPILLED:
            used = f"{kernel.use.registers} registers of sm_{limits.arch} and {kernel.use.local} bytes of local memory"
            note = "" if program.recipe.precision == EXACT else f", and no tensor cores: {precision} changes nothing"
            return replace(kernel, reason=f"cuda: a thread is a network: the kernel for {widths} takes {used}{note}")
        spilled = f", for a thread would keep {kernel.use.local} bytes in local memory"
    kernel = _best_block(program, limits)
    layout = kernel.program.layout
    chunks = f", {layout.chunk} of {batch} samples at once" if 0 < layout.chunk < batch else ""
    far = ", matrices streamed from global memory" if layout.streamed else ""
    far = ", slots in global memory" if layout.slots_apart else far
    room = f"{kernel.program.plan.shared:,} of {limits.block:,} bytes of shared memory"
    threads, _ = chip.block(layout)
    blocks = f"a block of {threads} threads is {'a network' if layout.teams == 1 else f'{layout.teams} networks'}"
    if layout.blocks > 1:
        blocks = f"{layout.blocks} blocks of {threads} threads are a network"
    cores = f", products on tensor cores by {precision}" if layout.tf32 else ""
    why = f"cuda: {blocks}: {widths} takes {room}{chunks}{far}{cores}{spilled}"
    return replace(kernel, reason=why)


def _best_block(program: Program, limits: chip.Limits) -> Kernel:
    """The first block that is better than a plain one and has hardly a number in local memory; else a plain one."""
    plain = _block(program, limits)
    for block in chip.better(plain, limits):
        kernel = _compiled(block, limits)
        if kernel.use.local <= chip.SPILLED:
            return _filling(kernel, limits)
    return _compiled(plain, limits)


def _filling(kernel: Kernel, limits: chip.Limits) -> Kernel:
    """The kernel, or the one that runs more blocks at once, if the compiler finds registers for it."""
    fuller = chip.fuller(kernel.program, kernel.use.registers, limits)
    if not fuller:
        return kernel
    filling, most = _compiled(fuller, limits), chip.FILLED if fuller.layout.tf32 else chip.SPILLED
    return filling if filling.use.local <= most else kernel


def _block(program: Program, limits: chip.Limits) -> Program:
    """A block is a network. Raises EngineError if it does not fit."""
    found = chip.in_shared_memory(program, limits) or chip.streamed(program, limits)
    if found is not None:
        return found
    needed = chip.wants(program)
    what = f"{needed:,} bytes of shared memory or more, a block has {limits.block:,}"
    if needed <= limits.block:
        what = f"more than the {REACH:,} numbers that an index can address"
    raise EngineError(
        f'engine "cuda": networks {_widths(program)} with batch_size {program.recipe.batch_size} and '
        f'{program.recipe.optimizer} need {what}; engine "eager" trains them'
    )


def _widths(program: Program) -> str:
    return "-".join(map(str, program.spec.widths))
