"""The kernel compiled by NVRTC, which needs no GPU: every row of the tables, what is chosen for the workloads on five
kinds of device, and for sm_90 what these take, held against gpu_budgets.json.

A change that moves a figure writes the table anew, knowingly: python -m tests.gpu_budgets
"""

import functools
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import build, cache, chip, cuda, nvrtc
from gpubp.engines.key import MANY, Key, Samples
from gpubp.engines.layout import Kind, Layout
from gpubp.engines.program import Program
from gpubp.errors import EngineError

from . import gpu_budgets
from .helpers import had, quick, samples
from .playing import H100

DEVICES = {80: 163, 89: 99, 90: 227, 100: 227, 120: 99}  # architectures, and KB of shared memory that a block may have
ARCHITECTURES = (80, 90, 100)  # of those, for every rule
PATIENCE = 30  # times the tutorial's kernel that one may take to compile: 14 is the most that is measured
TABLES = tuple(tuple(table) for table in (gpubp.ACTIVATIONS, gpubp.LOSSES, gpubp.OPTIMIZERS, gpubp.SCHEDULES))
KERNELS = max(*map(len, TABLES[1:]), len(TABLES[0]) // 2)
LAYOUTS = (
    Layout(Kind.GPU_THREAD, threads=128), Layout(Kind.GPU_BLOCK, threads=64, accumulators=32, cols=8),
    Layout(Kind.GPU_BLOCK, threads=16, teams=2, chunk=3, slots_apart=True),
)  # fmt: skip
# Bytes that a thread of program(number) keeps in local memory, at most, on any of DEVICES.
LOCAL = (0, 0, 8, 24, 16, 8, 16, 8, 16, 416, 24)
SWITCHES = (
    {"dropout": 0.3, "l1": 0.1},
    {"clip_norm": 1.0, "l2": 0.1},
    {"clip_value": 0.5, "weight_decay": 0.1},
    {"warmup": 5},
)


@pytest.fixture(autouse=True, scope="module")
def compiler() -> Any:
    return had(nvrtc.compiler)


def program(number: int) -> Program:
    """One of KERNELS, which together have every row of every table, each kind of data, and both regimes."""
    activations, losses, optimizers, schedules = TABLES
    hidden = tuple(activations[(2 * number + layer) % len(activations)] for layer in range(2))
    loss, optimizer = losses[number % len(losses)], optimizers[number % len(optimizers)]
    team = number // 2 % 2
    widths, batch = ((3, 5, 4, 2), 4) if team else ((2, 2, 2, 2), 1)  # a thread has room for few numbers
    spec = gpubp.NetworkSpec(widths, hidden, loss=loss, bias=("neuron", "layer", "none")[number % 3])
    config = gpubp.TrainConfig(
        optimizer, schedule=schedules[number % len(schedules)], batch_size=batch, steps=9, **SWITCHES[number % 4]
    )
    recipe = config.recipe(spec)
    if loss == "cross_entropy":
        recipe = replace(recipe, hyper=(*recipe.hyper, "class_weight"))
    samples = Samples(True, number % 2 == 0, number % 3 == 0, number % 3, ("network", "shared", "none")[number % 3])
    layout = LAYOUTS[team if number % 3 else 2 * team]
    return Program(Key(spec, recipe, (torch.float32, torch.float64)[number % 5 == 0], samples), layout)


def test_the_kernels_have_every_row_of_the_tables() -> None:
    found = [program(number) for number in range(KERNELS)]
    for table, names in zip(TABLES, zip(*(
        (each.spec.activations[:2], [each.spec.loss], [each.recipe.optimizer], [each.recipe.schedule]) for each in found
    ))):  # fmt: skip
        assert {*itertools.chain(*names)} == {*table}
    assert {each.layout for each in found} == {*LAYOUTS}


def limits(arch: int) -> chip.Limits:
    """Of such a device."""
    return chip.Limits(arch, DEVICES[arch] << 10)


def same_compiler() -> bool:
    """Whether the figures are this compiler's."""
    return bool(json.loads(gpu_budgets.TABLE.read_text(encoding="utf-8"))["nvrtc"] == gpu_budgets.version())


@functools.cache
def patience() -> float:
    """Seconds that a kernel may take here."""
    text = cuda.text(cuda._best(gpu_budgets.program("2-2-2, batch 1, adam"), H100).program)
    before = time.process_time()
    nvrtc.compiled(text, H100.arch)  # anew, whatever is kept
    return PATIENCE * (time.process_time() - before)


def compiled(own: Program, arch: int) -> bytes:
    """Its machine code, from scratch and in time."""
    limit, before = patience(), time.process_time()
    code = nvrtc.compiled(cuda.text(own), arch)
    assert time.process_time() - before < limit
    return code


def chosen(given: Iterable[Any], machines: Sequence[int], quick: dict[Any, int]) -> Any:
    """Each of `given` on every architecture; slow, for a kernel takes seconds, but where `quick` names its one."""
    return [
        pytest.param(each, arch, marks=[] if quick.get(each) == arch else [pytest.mark.slow])
        for each in given for arch in machines
    ]  # fmt: skip


EVALUATED = (
    ((2, 2, 2), "half_squared_error", True), ((64, 32, 10), "cross_entropy", False),
    ((2, 8, 1), "binary_cross_entropy", True), ((8, 16, 1), "mean_squared_error", False),
)  # fmt: skip


@pytest.mark.parametrize(("given", "arch"), chosen(EVALUATED, ARCHITECTURES, {EVALUATED[0]: 80, EVALUATED[1]: 90}))
def test_kernels_that_evaluate_compile_everywhere_into_registers(
    given: tuple[tuple[int, ...], str, bool], arch: int
) -> None:
    widths, loss, thread = given
    spec = gpubp.NetworkSpec(widths, "tanh", loss=loss)
    key = Key.of_evaluation(spec, torch.float32, 1, gpubp.Dataset(*samples(spec, 1437, dtype=torch.float32)), ())
    own = chip.in_registers(Program(key, Layout()), limits(arch))
    assert (own is not None) == thread
    own = own or chip.in_shared_memory(Program(key, Layout()), limits(arch))
    found = own if thread else next(iter(chip.better(own, limits(arch))), own)
    assert found.layout.kind == (Kind.GPU_THREAD if thread else Kind.GPU_WIDE)
    assert nvrtc.use(compiled(found, arch)).local <= chip.SPILLED


STREAMED = (  # networks, blocks of each, and the most bytes of local memory
    ((784, 128, 10), "sgd", MANY, 1, 16), ((784, 128, 10), "adam", MANY, 1, 0),
    ((256, 512, 512, 10), "sgd", MANY, 1, 64), ((1024, 1024, 1024, 1), "adam", MANY, 1, 0),
    ((2000, 64), "sgd", MANY, 1, 16),
)  # fmt: skip
CLUSTERS = {90: ((784, 128, 10), "sgd", 64, 2, chip.SPILLED), 100: ((784, 128, 10), "adam", 1, 8, chip.SPILLED)}


@pytest.mark.parametrize(("given", "arch"), [
    *chosen(STREAMED, ARCHITECTURES, {STREAMED[-1]: 80}),
    *(pytest.param(given, arch, marks=pytest.mark.slow) for arch, given in CLUSTERS.items()),
])  # fmt: skip
def test_kernels_that_stream_compile_everywhere_into_registers(
    given: tuple[tuple[int, ...], str, int, int, int], arch: int
) -> None:
    widths, optimizer, networks, blocks, local = given
    spec = gpubp.NetworkSpec(widths, "relu")
    recipe = gpubp.TrainConfig(optimizer, batch_size=64, steps=1).recipe(spec)
    own = chip.streamed(Program(Key.to_come(spec, recipe, torch.float32, None, networks), Layout()), limits(arch))
    assert own.layout.blocks == blocks
    assert nvrtc.use(compiled(own, arch)).local <= local


SOME = {2: 100}  # of blocks; workloads are of threads too, and the C++ compiler reads every rule


@pytest.mark.parametrize(("number", "arch"), chosen(range(KERNELS), ARCHITECTURES, SOME))
def test_every_rule_compiles_whatever_headers_the_working_directory_has(
    number: int, arch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in build.SOURCES.rglob("*.h"):
        (tmp_path / path.name).write_text("#error another's")
    monkeypatch.chdir(tmp_path)
    local = nvrtc.use(compiled(program(number), arch)).local
    assert len(LOCAL) == KERNELS
    if not same_compiler():
        pytest.skip("it compiles; what it spills is known of another NVRTC")
    assert local <= LOCAL[number]


OTHERS = [arch for arch in DEVICES if arch != H100.arch]


@pytest.mark.parametrize(("name", "arch"), chosen(gpu_budgets.WORKLOADS, OTHERS, {"2-2-2, batch 1, sgd": 120}))
def test_what_is_chosen_for_a_workload_compiles_in_time_and_has_registers(name: str, arch: int) -> None:
    own = gpu_budgets.program(name)
    found = chip.in_registers(own, limits(arch)) or cuda._block(own, limits(arch))
    if found.layout.kind.block:
        found = next(iter(chip.better(found, limits(arch))), found)
    assert found.plan.shared <= limits(arch).block
    assert nvrtc.use(compiled(found, arch)).local <= chip.SPILLED


def test_a_count_of_bytes_that_is_not_the_kernels_is_refused_by_the_compiler() -> None:
    for number in (0, 2):
        own = program(number)
        wrong = cuda.text(own).replace(
            f"GROUP_BYTES = {own.plan.group_bytes}", f"GROUP_BYTES = {own.plan.group_bytes - 8}"
        )
        with pytest.raises(EngineError, match=r"plan\.py counts otherwise"):
            nvrtc.compiled(wrong, 90)


def test_a_cubin_is_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path))
    nvrtc._cubin.cache_clear()
    text = 'extern "C" __global__ void run() {}'
    code = nvrtc.cubin(text, 90)
    (file,) = tmp_path.iterdir()
    assert file.name.split("_")[1] == f"{cache.digest(file.read_bytes())}.cubin"
    monkeypatch.setattr(nvrtc, "compiled", lambda *_: pytest.fail("compiled again"))
    nvrtc._cubin.cache_clear()
    assert nvrtc.cubin(text, 90) == code
    nvrtc._cubin.cache_clear()


def test_a_cubin_is_kept_under_what_it_was_compiled_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of NVRTC, another option and another architecture each make a file of their own."""
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path))
    monkeypatch.setattr(nvrtc, "compiled", lambda text, arch: text.encode())
    core, _ = nvrtc.compiler()
    for arch, version, more in (
        (90, "13.5", {}), (80, "13.5", {}), (90, "13.6", {}), (90, "13.5", {"fma": True}), (90, "13.5", {})
    ):  # fmt: skip
        monkeypatch.setattr(nvrtc, "compiler", lambda version=version: (core, version))
        with monkeypatch.context() as patch:
            patch.setattr(nvrtc, "OPTIONS", {**nvrtc.OPTIONS, **more})
            nvrtc.cubin("", arch)
    assert len(list(tmp_path.iterdir())) == 4
    nvrtc._cubin.cache_clear()


def test_nvrtcs_output_is_one_short_line_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path))
    with pytest.raises(EngineError, match="NVRTC cannot compile the kernel") as caught:
        nvrtc.compiled(f"#error {'x' * 5000}", 90)
    told = str(caught.value)
    assert "kernel.cu(1): catastrophic error: #error directive: xxx" in told
    (log,) = tmp_path.iterdir()
    assert f"; full output: {log})" in told
    assert len(told.splitlines()) == 1
    assert len(told) < 700
    assert "NVRTC_ERROR_COMPILATION" in log.read_text()
    assert "x" * 5000 in log.read_text()


def test_the_flags_keep_ieee_arithmetic() -> None:
    """No contraction to fused multiply-add and no flushed denormals in what NVRTC hands to the assembler."""
    code = 'extern "C" __global__ void run(float *x) { x[0] = x[0] * x[1] + x[2]; x[3] = x[3] / x[4] - 1.0f; }'
    core, _ = nvrtc.compiler()
    from cuda.bindings import nvrtc as calls

    flags = core.ProgramOptions(arch="sm_90", **nvrtc.OPTIONS).as_bytes("nvrtc")
    _, program = calls.nvrtcCreateProgram(code.encode(), b"kernel.cu", 0, None, None)
    assert calls.nvrtcCompileProgram(program, len(flags), flags) == (calls.nvrtcResult.NVRTC_SUCCESS,)
    text = b" " * calls.nvrtcGetPTXSize(program)[1]
    calls.nvrtcGetPTX(program, text)
    words = {line.split()[0] for line in text.decode().splitlines() if ".f32" in line}
    assert {"mul.rn.f32", "add.rn.f32", "div.rn.f32"} <= words
    assert not any(word.startswith("fma") or "ftz" in word for word in words)


IN_SECONDS = {"2-2-2, batch 1, adam", "8-16-1, batch 32, adam"}


@pytest.mark.parametrize("name", quick(gpu_budgets.WORKLOADS, IN_SECONDS))
def test_a_workload_stays_in_its_budget(name: str) -> None:
    table = json.loads(gpu_budgets.TABLE.read_text(encoding="utf-8"))
    if not same_compiler():
        pytest.skip(f"the budgets are NVRTC {table['nvrtc']}'s, this is {gpu_budgets.version()}")
    limit, before = patience(), time.process_time()
    found = gpu_budgets.figures(name, H100)
    assert time.process_time() - before < limit
    assert found == table["workloads"][name], "python -m tests.gpu_budgets writes the table anew"
    assert found["local"] <= chip.SPILLED, "numbers found no register"
