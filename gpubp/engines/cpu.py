"""The compiled engine on CPUs: K steps in a kernel generated for the topology, compiled at first use and cached.

A kernel is a Program (program.py) compiled by the system's C++ compiler (build.py) for a layout that suits the
population (layout.py). This file calls it, and finds the step at which a network diverged.
"""

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import EngineError, OutOfMemoryError
from ..evaluate import Evaluation
from ..maths.spec import NetworkSpec
from ..population import Population
from ..samples.data import Dataset
from ..settings.recipe import Recipe
from ..state import Status, TrainState
from . import build, general
from .constants import shape
from .job import agree, contiguous, fill, fill_evaluation
from .key import Key, Samples, compile_all, of_evaluations
from .layout import REACH, Kind, Layout, group_cost, largest_index, thread_count
from .prepared import Calls
from .program import Program

FORWARD = 1 / 3  # of the work of a step
BUSY = 7 / 8  # of a call's threads have work until its end
DONE, FAULTS, STEPS_DIFFER, NO_MEMORY = range(4)  # Answer of kernel/cpu.h


def run(state: TrainState, data: Dataset, steps: int) -> None:
    """Advance every running network by up to `steps` steps, at most to its limit, in place."""
    machine = LAYOUT, torch.get_num_threads(), general.COMPILING
    call = CALLS.find(state, data, *machine)
    if call is not None and (call.own or call.account.general):
        advance(call, state, data, steps)
        return
    state.check(data)
    with torch.no_grad(), contiguous(state) as packed:
        key = Key.of(packed, data)
        settle(key, steps)
        call = Call(packed, data, key)
        advance(call, packed, data, steps)
    if packed is state:
        CALLS.keep(state, data, call, *machine)


@torch.no_grad()
def evaluate(population: Population, data: Dataset, hyper: Mapping[str, Tensor], position: Tensor) -> Evaluation:
    """Loss and metric of the networks on `data`; evaluate.evaluate, compiled."""
    params = population.params
    agree("cpu", params, data)
    key = Key.of_evaluation(population.spec, params.dtype, len(params), data, hyper)
    steps = data.lengths[1] / key.recipe.batch_size * FORWARD
    settle(key, steps)
    compiled = kernel(key)
    job = compiled.job()
    figures = fill_evaluation(job, key, compiled.hyper, params, data, hyper, position)
    job.threads = compiled.threads(job.count, steps)
    _raise_for(compiled.entry("shown", key)(ctypes.byref(job)))
    return figures


def compile_ahead(state: TrainState, data: Dataset, evaluated: Sequence[Dataset], where: torch.device) -> None:
    """Compile the kernels for training on `data` and for evaluations in parallel."""
    key, evaluations = Key.of(state, data), of_evaluations(state, evaluated)
    settle(key, int(torch.where(state.running, state.end - state.step, 0).sum()) / max(1, key.networks), *evaluations)
    compile_all(kernel, key, evaluations)


def share(state: TrainState, threads: int, populations: int) -> int:
    """How many of `threads` threads a call takes beside other populations' calls: as many as it keeps busy, or an equal
    part, if there are few populations."""
    params = state.population.params
    key = Key(state.population.spec, state.recipe, params.dtype, Samples(), len(params))
    groups = -(-len(params) // layout(key).networks)
    kept_busy = [number for number in range(1, threads + 1) if groups >= BUSY * number * -(-groups // number)]
    return max(kept_busy[-1], threads // populations)


def workspace(state: TrainState, data: Dataset) -> int:
    """Bytes of a group of networks in every thread, in a general kernel or in the one that may follow it."""
    key = Key.of(state, data)
    now = Program(key, layout(key)).sized(PROGRAMS)
    plans = now.plan, now.laid_out(LAYOUT or chosen(key).own).plan
    return torch.get_num_threads() * max(
        plan.layout.networks * plan.numbers * plan.itemsize + plan.group_bytes for plan in plans
    )


def refused(spec: NetworkSpec, recipe: Recipe, dtype: torch.dtype) -> str | None:
    """Why this engine cannot train such networks on this machine, or None."""
    try:
        lanes, slots = build.vector_bytes() // dtype.itemsize, len(recipe.rule.slots)
        key = Key(spec, recipe, dtype, Samples(weight=1))
        any_widths = Program(key, chosen(key).general).sized(PROGRAMS)
        largest = largest_index(spec.widths, recipe.batch_size, slots, Layout(Kind.CPU_OUTPUTS, lanes))
        if max(largest, any_widths.plan.numbers) > REACH:
            return (
                f'engine "cpu": {spec.size:,} parameters with {slots} optimizer slots each, or batch_size '
                f"{recipe.batch_size:,} with widths up to {max(spec.widths):,}, exceed the {REACH:,} numbers that an "
                'index can address; engine "eager" has no such limit'
            )
        _ = any_widths.text
    except EngineError as error:
        return str(error)
    return None


class Call:
    """A training call of any number of steps, for networks at the same or different steps. taken (N,): below 0 for
    networks with a non-finite number; else 0."""

    def __init__(self, state: TrainState, data: Dataset, key: Key) -> None:
        taken = numpy.zeros(len(state.step), numpy.int64)  # untouched pages cost nothing
        self.key, self.taken, self.clean = key, torch.from_numpy(taken), True
        self.at_one_step = Prepared(state, data, key, self.taken)
        self.own, self.account = self.at_one_step.kernel.own, self.at_one_step.kernel.account
        self.at_any_steps: Prepared | None = None

    def __call__(self, state: TrainState, data: Dataset, steps: int, dry_run: bool = False) -> int:
        """Train the networks. -> DONE, or FAULTS if some of `taken` are below 0. dry_run: look for non-finite numbers
        after every step, change nothing, and put the number of finite steps in `taken`."""
        if not self.clean:
            self.taken.zero_()
        self.clean = False  # until the kernel reports DONE, even after an exception
        answer = self.at_one_step(steps, dry_run)
        if answer == STEPS_DIFFER:
            if self.at_any_steps is None:
                self.at_any_steps = Prepared(state, data, self.key.for_any_steps, self.taken)
            answer = self.at_any_steps(steps, dry_run)
        self.clean = answer == DONE and not dry_run
        return answer


class Prepared:
    """A call of one kernel with any number of steps."""

    def __init__(self, state: TrainState, data: Dataset, key: Key, taken: Tensor) -> None:
        params = state.population.params
        if params.device.type != "cpu":
            raise EngineError(f'engine "cpu": networks are on {params.device}; the CPU expected')
        agree("cpu", params, data)
        self.kernel = kernel(key)
        self.job = self.kernel.job()
        fill(self.job, self.kernel.hyper, state, data)
        self.job.taken = taken.data_ptr()
        self.start, self.given, self.count = self.kernel.entry("run", key), ctypes.byref(self.job), len(params)

    def __call__(self, steps: int, dry_run: bool) -> int:
        """Run it. -> an Answer; raises OutOfMemoryError."""
        job = self.job
        job.steps, job.threads, job.dry_run = steps, self.kernel.threads(self.count, steps), dry_run
        return _raise_for(self.start(self.given))


def advance(call: Call, state: TrainState, data: Dataset, steps: int) -> None:
    """One call; then mark the networks that diverge in it."""
    if call(state, data, steps) == FAULTS:
        diverge(state, data, steps, (call.taken < 0).nonzero().squeeze(1), call.key)


@torch.no_grad()
def diverge(state: TrainState, data: Dataset, steps: int, bad: Tensor, key: Key) -> None:
    """The networks `bad` get a non-finite number in some step of the call, and are still as before the call: find that
    step, train them up to the one before, and mark them. key: of the compiled kernel."""
    some = state.rows(bad)
    call, end = Call(some, data, key), some.limit.clone()
    call(some, data, steps, dry_run=True)
    some.limit.copy_(some.step - call.taken - 1)
    call(some, data, steps)
    some.limit.copy_(end)
    some.status.fill_(Status.diverged)
    some.diverged_step.copy_(some.step)
    state.put(bad, some)


def _raise_for(answer: int) -> int:
    if answer == NO_MEMORY:
        raise OutOfMemoryError(
            "there is not enough memory for the workspace of a group of networks; use a smaller batch_size or fewer "
            "threads (torch.set_num_threads)"
        )
    return answer


class Kernel:
    """A compiled program: a topology's own, or a general one with the topology's sizes."""

    def __init__(self, program: Program) -> None:
        self.library = build.library(program.text + '#include "cpu.h"\n', soon=program.layout.general)
        self.hyper, self.type = program.hyper, program.job
        layout, recipe = program.layout, program.recipe
        self.group = layout.networks
        self.spent = group_cost(layout, program.spec.widths, recipe.batch_size, len(recipe.rule.slots))
        self.own, self.account = not layout.general, general.account(program.key)
        of = shape(program.plan) if layout.general else []
        self.shape = (ctypes.c_int32 * len(of))(*of)

    def job(self) -> Any:
        """A new job."""
        job = self.type()
        job.shape = ctypes.addressof(self.shape)
        return job

    def entry(self, name: str, key: Key) -> Callable[[Any], int]:
        """The function `name` of the library for networks of `key`; a general one also counts the time lost."""
        function: Callable[[Any], int] = getattr(self.library, name)
        if self.own:
            return function
        share = chosen(key).share

        def counted(job: Any) -> int:
            began = time.perf_counter()
            answer = function(job)
            self.account.lost += share * (time.perf_counter() - began)
            return answer

        return counted

    def threads(self, count: int, steps: float) -> int:
        """How many of torch.get_num_threads() a call for `count` networks starts."""
        return thread_count(self.group, self.spent, count, steps, torch.get_num_threads())


CALLS: Calls[Call] = Calls()
KERNELS: dict[tuple[Any, ...], Kernel] = {}
PROGRAMS: dict[tuple[Any, ...], Program] = {}  # of general kernels
LAYOUT: Layout | None = None  # instead of the best one, for tests and benchmarks


def chosen(key: Key) -> general.Chosen:
    """The layouts for `key`."""
    spec, recipe = key.spec, key.recipe
    return general.chosen(
        spec.widths, recipe.batch_size, len(recipe.rule.slots), key.dtype.itemsize, max(1, key.networks), key.threads,
        build.vector_bytes(), recipe.update_order == "layerwise",
    )  # fmt: skip


def layout(key: Key) -> Layout:
    """The layout for `key`, of a general kernel or of its own one."""
    if LAYOUT:
        return LAYOUT
    return chosen(key).general if general.account(key).general else chosen(key).own


def settle(key: Key, steps: float, *others: Key) -> None:
    """Choose the kernels of `key`, and of the `others`, for `steps` steps of all networks."""
    general.settle(key, steps * chosen(key).loss, *others)


def kernel(key: Key) -> Kernel:
    """The kernel for `key`, compiled if necessary."""
    program = Program(key, layout(key))
    identity = program.identity(build.ARCH)
    if identity not in KERNELS:
        KERNELS[identity] = Kernel(program.sized(PROGRAMS))
    return KERNELS[identity]
