"""What several test files need: populations and data from a seed, training by the eager engine, comparisons of bits."""

import gc
import itertools
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import build, cpu, eager, layout
from gpubp.engines.layout import Kind, Layout
from gpubp.errors import EngineError
from gpubp.state import TrainState

Given = TypeVar("Given")
COUNTED = ("step", "status", "diverged_step")
INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}

# Of the compiler, which takes two thirds of a second for a kernel as it is for users, and a third with these.
FAST = ("-O0", "-Dalways_inline=unused", "-fno-exceptions", "-fno-asynchronous-unwind-tables")

LOGITS = ("binary_cross_entropy", "cross_entropy", "poisson", "hinge")  # trained on the net of an identity output


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal shapes, types and bits: -0 is not 0, and a NaN is itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    kind = INTEGERS.get(one.dtype)
    return (
        torch.equal(one, other)
        if kind is None
        else torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))
    )


def failing(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    """A function that raises `error` whatever it is given."""

    def fail(*given: Any, **named: Any) -> Any:
        raise error

    return fail


def differing(one: TrainState, other: TrainState) -> list[str]:
    """The tensors of two states that differ in a bit."""
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return [name for (name, mine), (again, theirs) in pairs if name != again or not same_bits(mine, theirs)]


def alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two networks have the same parameters in every bit."""
    return all(same_bits(*each) for each in zip(one.parameters(), other.parameters(), strict=True))


def noted(
    patch: pytest.MonkeyPatch, owner: Any, name: str, note: Callable[..., Any] = lambda *given: given
) -> list[Any]:
    """What `note` makes of what each call of owner.name is given, from now on."""
    told, proper = list[Any](), getattr(owner, name)

    def noting(*given: Any, **named: Any) -> Any:
        told.append(note(*given, **named))
        return proper(*given, **named)

    patch.setattr(owner, name, noting)
    return told


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    """A signal with this handler for a while."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """torch with another number of threads for a while, which the compiled engine begins for whatever work."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with layout.threads_for_any_work():
            yield
    finally:
        torch.set_num_threads(before)


def population(
    spec: gpubp.NetworkSpec, count: int | None = None, dtype: torch.dtype = torch.float64,
    ids: Iterable[int] | None = None, seed: int = 5,
) -> gpubp.Population:  # fmt: skip
    """Networks whose biases are not 0, so that a mistake about them shows."""
    return gpubp.Population.create(spec, count, seed, "torch_linear", dtype=dtype, ids=ids, init_scale=1.5)


def targets(spec: gpubp.NetworkSpec, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Targets that `spec`'s loss allows: class numbers `shape`, or (*shape, O)."""
    source, width = generator(seed), spec.widths[-1]
    if gpubp.LOSSES[spec.loss].classes:
        return torch.randint(width, shape, generator=source)
    if spec.loss == "hinge":
        return torch.randint(2, (*shape, width), generator=source).to(dtype) * 2 - 1
    if spec.loss == "poisson":
        return torch.randint(5, (*shape, width), generator=source).to(dtype)
    if spec.loss == "binary_cross_entropy":
        return torch.rand(*shape, width, generator=source, dtype=torch.float64).to(dtype)
    return torch.randn(*shape, width, generator=source, dtype=torch.float64).to(dtype)


def samples(
    spec: gpubp.NetworkSpec, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Inputs (*shape, I) and targets for them."""
    inputs = torch.randn(*shape, spec.widths[0], generator=generator(seed), dtype=torch.float64)
    return inputs.to(dtype), targets(spec, *shape, dtype=dtype, seed=seed + 1)


def start(population: gpubp.Population, data: gpubp.Dataset, **settings: Any) -> TrainState:
    """A state whose round is the whole training."""
    copy = replace(population, params=population.params.clone())
    state = TrainState.start(copy, gpubp.TrainConfig(**settings), data)
    state.limit.copy_(state.end)
    return state


def train(
    population: gpubp.Population, data: gpubp.Dataset, cuts: Sequence[int] | None = None, engine: Any = eager,
    **settings: Any,
) -> TrainState:  # fmt: skip
    """Trained by an engine from its first to its last step, in calls of `cuts` steps each."""
    state = start(population, data, **settings)
    for steps in cuts or [int(state.end.max())]:
        engine.run(state, data, steps)
    return state


def copied(state: TrainState) -> TrainState:
    """The same networks, with numbers of their own."""
    return state.rows(torch.arange(len(state.step)))


def put(state: TrainState, name: str, tensor: Tensor) -> None:
    """Another tensor under a name of state.tensors()."""
    group, _, name = name.rpartition(".")
    if name in ("params", "ids"):
        state.population = replace(state.population, **{name: tensor})
    elif group == "slots":
        state.slots[state.recipe.rule.slots.index(name)] = tensor
    elif group:
        getattr(state, group)[name] = tensor
    else:
        setattr(state, name, tensor)


def numbers(state: TrainState) -> dict[str, Tensor]:
    """Everything that an engine advances."""
    advanced = ("params", "slots", "columns", "loss", "total", *COUNTED)
    return {name: each for name, each in state.tensors() if name.partition(".")[0] in advanced}


def differences(one: TrainState, other: TrainState, rows: Any = slice(None), others: Any = None) -> list[str]:
    """What differs in one bit between the networks of two states, or the `rows` of one and `others` of the other, by
    default the same rows."""
    mine, theirs = numbers(one), numbers(other)
    assert mine.keys() == theirs.keys()
    others = rows if others is None else others
    return [name for name in mine if not same_bits(mine[name][rows], theirs[name][others])]


def instructions(call: Callable[[], None]) -> int:
    """Of the package's Python, that `call` takes."""
    seen = 0

    def tracer(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not frame.f_globals["__name__"].startswith("gpubp."):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        seen += event == "opcode"
        return tracer

    before = sys.gettrace()
    gc.disable()  # nobody else's Python in between
    sys.settrace(tracer)
    try:
        call()
    finally:
        sys.settrace(before)
        gc.enable()
    return seen


def instructions_of_repeats(call: Callable[[], None]) -> int:
    """Of each call after the first, which take the same number, and few of those of the first."""
    first, second, third = (instructions(call) for _ in range(3))
    assert second == third < first / 4
    return second


def had(ask: Callable[[], Given]) -> Given:
    """What `ask` returns; a named skip where this machine has not what it needs."""
    try:
        return ask()
    except EngineError as error:
        pytest.skip(str(error))


def needs_compiler() -> None:
    """A named skip without a compiler."""
    had(build.vector_bytes)


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """For modules that import it."""
    needs_compiler()


@pytest.fixture(name="sources")
def sources_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of kernel/ from which kernels are compiled, and none is there already."""
    folder = tmp_path / "kernel"
    shutil.copytree(build.SOURCES, folder)
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setattr(build, "sources", build.sources.__wrapped__)
    monkeypatch.setattr(cpu, "KERNELS", {})
    return folder


def covering(*axes: Iterable[Any], meet: int = 2) -> list[Any]:
    """The product of `axes` as pytest's parameters: any values of any `meet` axes meet in one, and the rest is slow."""
    values, seen = [tuple(axis) for axis in axes], set[Any]()

    def turns(each: tuple[int, ...]) -> list[int]:
        """How far the later axes are from taking turns as the first ones go on."""
        steps = [sum(max(1, k * first) * each[first] for first in range(meet)) for k in range(meet, len(each))]
        return [(own - step) % len(axis) for own, step, axis in zip(each[meet:], steps, values[meet:])]

    found = []
    for each in sorted(itertools.product(*(range(len(axis)) for axis in values)), key=turns):
        met = {*itertools.combinations(enumerate(each), meet)}
        chosen = [axis[number] for axis, number in zip(values, each)]
        found.append(pytest.param(*chosen, marks=[pytest.mark.slow] if met <= seen else []))
        seen |= met
    return found


def quick(everyone: Iterable[Any], which: Collection[Any]) -> list[Any]:
    """pytest's parameters: those of `which`, and the others by name (-m slow)."""
    return [
        pytest.param(*(each if isinstance(each, tuple) else [each]), marks=[pytest.mark.slow] * (each not in which))
        for each in everyone
    ]


@contextmanager
def optimised() -> Iterator[None]:
    """Kernels compiled anew for a while, as they are for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", tuple(flag for flag in build.FLAGS if flag not in FAST))
        patch.setattr(cpu, "KERNELS", {})
        yield


def layouts(dtype: torch.dtype, batch: int) -> dict[str, Layout | None]:
    """Every kind of layout of the compiled engine by its name; the rule's own is None."""
    lanes = build.vector_bytes() // dtype.itemsize
    room = 24 if build.vector_bytes() == 64 else 12
    piece = max(1, batch // 2 + 1)
    return {
        "chosen": None,
        "networks": Layout(vector=lanes, accumulators=room),
        "outputs": Layout(Kind.CPU_OUTPUTS, lanes, accumulators=room),
        "one number": Layout(),
        "three registers": Layout(vector=lanes, registers=3, accumulators=room // 3),
        "networks, half a register": Layout(vector=max(1, lanes // 2)),
        "outputs, half a register": Layout(Kind.CPU_OUTPUTS, max(1, lanes // 2)),
        "networks in chunks": Layout(vector=lanes, chunk=piece, accumulators=room),
        "outputs in chunks": Layout(Kind.CPU_OUTPUTS, lanes, chunk=piece, accumulators=room),
        "general": Layout(Kind.CPU_OUTPUTS, lanes, general=True),
        "general in chunks": Layout(Kind.CPU_OUTPUTS, lanes, chunk=piece, general=True),
        "team": Layout(Kind.CPU_TEAM, lanes, accumulators=room),
        "team in chunks": Layout(Kind.CPU_TEAM, lanes, chunk=piece, accumulators=room),
    }


@contextmanager
def laid_out(layout: Layout | None) -> Iterator[None]:
    """The compiled engine with this layout for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "LAYOUT", layout)
        yield
