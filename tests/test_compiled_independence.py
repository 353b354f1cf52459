"""A compiled network's bits are its own: alone and among others, in every layout, thread, cut and instruction set."""

import itertools
import shutil
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import build, cpu

from .helpers import compiled, differences, laid_out, layouts, noted, quick, threads  # noqa: F401
from .test_compiled import BATCH, CASES, COUNT, DTYPES, STEPS, Case, case
from .test_independence import check_retired

EVERYONE = list(range(COUNT))
CHOSEN = {  # cases, of whose kernels test_compiled.py compiles some, and layouts; all of both are slow
    25: ("three registers", "general in chunks"),
    167: ("outputs",),
    174: ("one number", "team in chunks"),
}
SIZES = (1, 2, 15, 16, 17, 33)
SLOW = pytest.mark.slow


def possible(own: Case, name: str) -> bool:
    """A layer that is updated before the delta below it needs the whole batch at once."""
    return "chunks" not in name or own.settings["update_order"] == "simultaneous"


def check_layouts(own: Case, names: tuple[str, ...]) -> None:
    """Every layout has the bits of the case's own, among others, alone, on two threads, and cut."""
    with laid_out(layouts(own.dtype, BATCH)[own.layout]):
        expected = own.train()
    assert torch.equal(expected.step, expected.end)
    assert "params" in differences(expected, expected, [0], [1]), "networks differ from each other"
    for name in [each for each in names if possible(own, each)]:
        with laid_out(layouts(own.dtype, BATCH)[name]):
            assert not differences(own.train(), expected), name
            assert not differences(own.train([7]), expected, others=[7]), f"{name}, alone"
            with threads(2):
                assert not differences(own.train(), expected), f"{name}, two threads"
            cut = own.train(cuts=[1, 2, 3, 5, 9])
            assert not differences(cut, expected), f"{name}, cut"


@pytest.mark.parametrize(
    ("number", "names"),
    [*CHOSEN.items(), *(pytest.param(number, None, marks=SLOW) for number in range(CASES))],
)
def test_every_layout_gives_the_same_bits(number: int, names: tuple[str, ...] | None) -> None:
    check_layouts(case(number), names or tuple(layouts(torch.float32, BATCH)))


def test_rows_that_are_padded_have_the_same_bits() -> None:
    """Widths whose rows would lie a multiple of 1 KB apart: of 16 with lanes as networks, of 256 as outputs."""
    spec = gpubp.NetworkSpec((16, 256, 3), "tanh")
    rest = {"optimizer": "adam", "batch_size": BATCH, "steps": 2, "lr": 0.02, "shuffle": "network", "clip_norm": 0.2,
            "update_order": "simultaneous"}  # fmt: skip
    check_layouts(Case(spec, torch.float32, "shared", "", "chosen", rest), ("outputs",))


def small(dtype: torch.dtype, **settings: Any) -> Case:
    """A case that switches much on; the same kernel serves all that follows."""
    spec = gpubp.NetworkSpec((3, 5, 2), "tanh")
    rest = {"optimizer": "adam", "batch_size": BATCH, "steps": STEPS, "lr": 0.02, "shuffle": "network", "dropout": 0.3,
            "clip_norm": 0.2, "l2": 0.01, "schedule": "one_cycle", "warmup": 2}  # fmt: skip
    return Case(spec, dtype, "shared", "", "chosen", rest | settings)


FLOAT32 = pytest.mark.parametrize("dtype", quick(DTYPES, [torch.float32]), ids=str)


@FLOAT32
def test_a_network_is_the_same_among_any_number_in_any_order(dtype: torch.dtype) -> None:
    own = small(dtype)
    everyone = own.train(list(range(max(SIZES))))
    for count in SIZES:
        some = own.train(list(range(count)))
        assert not differences(some, everyone, list(range(count))), count
        last = list(range(max(SIZES) - count, max(SIZES)))[::-1]
        assert not differences(own.train(last), everyone, others=last), f"the last {count}, backwards"
    mixed = [*range(100, 130), 7, *range(130, 140), 3]
    assert not differences(own.train(mixed), everyone, [30, 41], [7, 3])


SHUFFLED = [(torch.float32, "network", "networks"), (torch.float64, "shared", "outputs")]
ALL = itertools.product(DTYPES, ("network", "shared"), ("networks", "outputs"))


@pytest.mark.parametrize(("dtype", "shuffle", "name"), quick(ALL, SHUFFLED))
def test_networks_may_be_and_end_at_different_steps(dtype: torch.dtype, shuffle: str, name: str) -> None:
    ends = [1 + (5 * n) % STEPS for n in EVERYONE]
    own = small(dtype, steps=ends, shuffle=shuffle)
    with laid_out(layouts(dtype, BATCH)[name]):
        whole = own.train()
        assert whole.step.tolist() == ends
        for number in (0, 4, 17):
            assert not differences(own.train([number]), whole, others=[number]), number
        mixed, data = own.start(), own.data()
        for part, steps in ((slice(0, 7), 2), (slice(5, 18), 3), (slice(0, COUNT), 4), (slice(0, COUNT), STEPS)):
            cpu.run(mixed.rows(part), data, steps)
        assert not differences(mixed, whole)


@FLOAT32
def test_retired_networks_do_not_move_and_affect_no_other(dtype: torch.dtype) -> None:
    own = small(dtype)
    check_retired(cpu, own.population(), own.data(), **own.settings)


@pytest.mark.parametrize("name", quick(["chosen", "outputs"], ["chosen"]))
@FLOAT32
def test_a_processor_without_avx_512_has_the_same_bits(
    dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if build.vector_bytes() != 64:
        pytest.skip("this processor has no AVX-512 to compare with")
    own = small(dtype)
    expected = own.train()
    monkeypatch.setattr(build, "ARCH", "x86-64-v3")
    assert build.vector_bytes() == 32
    with laid_out(layouts(dtype, BATCH)[name]):
        assert not differences(own.train(), expected)


def compilers() -> dict[str, str]:
    """g++ and clang++, or a named skip: on macOS both names are clang's."""
    found = {}
    for name in ("g++", "clang++"):
        path = shutil.which(name)
        if path and ("clang" in build.version((path,))) == (name == "clang++"):
            found[name] = path
    if len(found) < 2:
        pytest.skip(f"of g++ and clang++ this machine has {', '.join(found) or 'none'}")
    return found


@pytest.mark.parametrize(("number", "name"), [(2, "networks"), (5, "outputs"), (11, "one number"), (21, "team")])
def test_another_compiler_gives_the_same_bits(number: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, states = case(number), []
    for command in compilers().values():
        monkeypatch.setenv("CXX", command)
        monkeypatch.setattr(cpu, "KERNELS", {})
        with laid_out(layouts(own.dtype, BATCH)[name]):
            states.append(own.train())
    assert not differences(states[0], states[1])


@pytest.mark.cpu
@pytest.mark.parametrize("name", quick(["outputs", "team"], ["outputs"]))
def test_a_kernel_has_the_layout_that_these_tests_ask_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, layout = small(torch.float32), layouts(torch.float32, BATCH)[name]
    monkeypatch.setattr(cpu, "KERNELS", {})
    made = noted(monkeypatch, cpu, "Kernel", lambda program: program.layout)
    with laid_out(layout):
        own.train()
    assert {*made} == {layout}
