"""Which engine trains on a GPU, and why: what is chosen, the sentence about it, and what is refused. No kernel runs."""

import re
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import chip, choose, choose_for_all, cuda, device, nvrtc
from gpubp.engines.key import Key
from gpubp.engines.layout import Kind, Layout
from gpubp.engines.program import Program
from gpubp.errors import EngineError
from gpubp.state import TrainState

from .driver import COUNT, SAMPLES, SPEC, Driver, recording_driver, training  # noqa: F401
from .helpers import covering, failing, generator, population, samples


def test_on_a_gpu_auto_is_cuda_and_says_how(driver: Driver) -> None:
    config, gpu = gpubp.TrainConfig(batch_size=2, steps=1), torch.device("cuda:0")
    choice = choose("auto", SPEC, config, gpu)
    assert (choice.name, choice.engine.run) == ("cuda", cuda.run)
    assert choice.reason == (
        "cuda: a thread is a network: the kernel for 3-5-4 takes 64 registers of sm_90 and 0 bytes of local memory, "
        "counted with a weight for each sample"
    )
    reason = choose("auto", SPEC, gpubp.TrainConfig(batch_size=64, steps=1), gpu).reason
    assert reason.startswith("cuda: a block of 32 threads is 4 networks: 3-5-4 takes ")
    assert "of 232,448 bytes of shared memory" in reason


def form(name: str) -> tuple[gpubp.NetworkSpec, gpubp.Dataset]:
    """Data of that form for COUNT networks."""
    own = (COUNT, SAMPLES) if "inputs" in name else (1 if name == "one sample" else SAMPLES,)
    inputs, classes = samples(SPEC, *own, dtype=torch.float32)
    rows = [torch.arange(1 + n % SAMPLES) for n in range(COUNT)] if "rows" in name else None
    sizes = {"a weight": (SAMPLES,), "weights": (COUNT, SAMPLES)}
    weight = next((torch.rand(*size, generator=generator(1)) for each, size in sizes.items() if each in name), None)
    return SPEC, gpubp.Dataset(inputs, classes, rows, weight)


FORMS = ("shared", "one sample", "rows", "own inputs", "own inputs, rows and weights", "a weight each", "weights")
MORE: dict[str, dict[str, Any]] = {
    "none": {"shuffle": "none"},
    "shared": {"shuffle": "shared"},
    "network": {"shuffle": "network"},
    "a plateau": {"schedule": "plateau"},
    "much switched on": {"class_weight": torch.ones(4), "dropout": 0.1, "l1": [0.0] * COUNT, "schedule": "plateau"},
}


@pytest.mark.parametrize(("name", "more"), covering(FORMS, MORE, meet=1))
def test_the_sentence_is_of_the_kernel_that_trains(
    name: str, more: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All networks, then a part of them with their part of the data: one kernel, which choose() compiled."""
    monkeypatch.setattr(nvrtc, "use", lambda code: nvrtc.Use(zlib.crc32(code), 0))  # each text's own sentence
    spec, data = form(name)
    config = gpubp.TrainConfig("adam", batch_size=2, steps=9, **MORE[more])
    choice = choose("auto", spec, config, torch.device("cuda:0"), torch.float32, data)
    kernels = [*cuda.KERNELS.values()]
    (kernel,) = (each for each in kernels if each.program.key.trains)
    assert (choice.name, choice.reason) == ("cuda", kernel.reason)
    state = TrainState.start(population(spec, COUNT, torch.float32), config, data)
    for part in (slice(0, COUNT), slice(COUNT // 2, COUNT)):
        own = state.rows(part)
        own.position = own.position - own.position[0]
        choice.engine.run(own, data.part(part), 3)
    assert [*cuda.KERNELS.values()] == kernels
    assert driver.loaded == [kernel.code]


def test_the_choice_does_not_depend_on_the_data(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the kernel for these data would find room: others of the specification would not."""
    config, gpu = gpubp.TrainConfig("adam", batch_size=64, steps=9), torch.device("cuda:0")
    most, light = (Key.to_come(SPEC, config.recipe(SPEC), torch.float32, given) for given in (None, form("shared")[1]))
    least, less = (chip.wants(Program(key, Layout())) for key in (most, light))
    assert less < least
    for room, name in ((least, "cuda"), (least - 1, "eager")):
        monkeypatch.setattr(device, "limits", lambda _, room=room: chip.Limits(90, room))
        cuda.KERNELS.clear()
        for given in (None, *(form(each)[1] for each in FORMS)):
            assert choose("auto", SPEC, config, gpu, torch.float32, given).name == name
    assert cuda.KERNELS == {}, "nothing is compiled to refuse"


def test_a_thread_that_spills_gives_way_to_a_block(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "use", lambda code: nvrtc.Use(255, 384))
    reason = choose("cuda", SPEC, gpubp.TrainConfig(batch_size=2, steps=1), torch.device("cuda:0")).reason
    assert reason.startswith("cuda: a block of 32 threads is 4 networks")
    assert ", for a thread would keep 384 bytes in local memory, counted" in reason


def test_a_wide_block_that_spills_gives_way_to_one_of_more_threads_and_then_to_one_that_is_not_wide(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, limits = gpubp.NetworkSpec((64, 32, 10), "relu"), chip.Limits(90, 227 << 10)
    key = Key.to_come(spec, gpubp.TrainConfig(batch_size=64, steps=1).recipe(spec), torch.float32, None)
    plain = chip.in_shared_memory(Program(key, Layout()), limits)
    options = [each.layout for each in (*chip.wide(plain, limits), plain)]
    assert [each.kind for each in options] == [Kind.GPU_WIDE, Kind.GPU_WIDE, Kind.GPU_BLOCK]
    for number, layout in enumerate(options):
        spilled = iter([chip.SPILLED + 1] * number + [0])
        monkeypatch.setattr(nvrtc, "use", lambda code, spilled=spilled: nvrtc.Use(255, next(spilled)))
        cuda.KERNELS.clear()
        assert cuda.kernel(key, limits).program.layout == layout


@pytest.mark.parametrize(("spilled", "at_once"), [(chip.SPILLED, 6), (chip.SPILLED + 1, 0)])
def test_a_wide_block_fills_a_multiprocessor_if_the_compiler_finds_registers(
    spilled: int, at_once: int, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, limits = gpubp.NetworkSpec((8, 48, 36), "relu"), chip.Limits(90, 227 << 10)
    key = Key.to_come(spec, gpubp.TrainConfig(batch_size=8, steps=1).recipe(spec), torch.float32, None)
    used = iter([(255, 0), (168, spilled)])
    monkeypatch.setattr(nvrtc, "use", lambda code: nvrtc.Use(*next(used)))
    assert cuda.kernel(key, limits).program.layout.at_once == at_once


def test_the_sentence_says_how_many_blocks_each_of_few_networks_has(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide, config, gpu = gpubp.NetworkSpec((784, 128, 10), "relu"), gpubp.TrainConfig(steps=1), torch.device("cuda:0")

    def said(count: int, devices: int = 1) -> str:
        choice = choose_for_all("auto", wide, config, [gpu] * devices, count=count)
        assert ", matrices streamed from global memory" in choice.reason
        return choice.reason.removeprefix("cuda: ").partition(":")[0]

    for widths in ((1024, 1024, 1024, 1), (3, 20_000, 2)):
        assert choose("auto", gpubp.NetworkSpec(widths, "relu"), gpubp.TrainConfig("adam", steps=1), gpu).name == "cuda"
    assert said(265) == said(1000) == said(133) == "a block of 128 threads is a network"
    assert said(132) == said(67) == "a block of 256 threads is a network"
    assert said(64) == said(128, devices=2) == "2 blocks of 256 threads are a network"
    assert said(33) == "4 blocks of 256 threads are a network"
    assert said(1) == "8 blocks of 256 threads are a network"
    monkeypatch.setattr(device, "limits", lambda _: chip.Limits(80, 163 << 10, 108))
    assert said(1) == "a block of 256 threads is a network", "an A100 has no clusters"


def test_a_large_batch_needs_no_more_shared_memory(driver: Driver) -> None:
    gpu, few = torch.device("cuda:0"), gpubp.NetworkSpec((3, 4, 2), "relu")
    assert choose("auto", few, gpubp.TrainConfig(batch_size=100_000, steps=1), gpu).name == "cuda"


def test_networks_beyond_an_index_are_left_to_eager_with_the_reason(driver: Driver) -> None:
    wide, config = gpubp.NetworkSpec((3, 30_000, 30_000), "relu"), gpubp.TrainConfig("adam", steps=1)
    gpu = torch.device("cuda:0")
    choice = choose("auto", wide, config, gpu)
    assert choice.name == "eager"
    assert "networks 3-30000-30000 with batch_size" in choice.reason
    with pytest.raises(EngineError, match="more than the 2,147,483,647 numbers that an index can address"):
        choose("cuda", wide, config, gpu)


REFUSED: dict[str, tuple[Callable[[Driver, pytest.MonkeyPatch], object], str]] = {
    "an old GPU": (
        lambda driver, patch: patch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5)),
        'needs compute capability 8.0 or more, GPU has 7.5; engine "eager" runs on it',
    ),
    "a driver of CUDA 12": (
        lambda driver, patch: setattr(driver, "version", 12080),
        'needs a driver for CUDA 13 or newer, this one is for CUDA 12.8; engine "eager" runs on it',
    ),
    "a GPU of another maker": (  # is a "cuda" of torch too
        lambda driver, patch: patch.setattr(driver, "cuDriverGetVersion", failing(RuntimeError("no driver\nMore."))),
        'finds no NVIDIA driver for GPU (no driver); engine "eager" needs none',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_engine_does_not_run_on_is_left_to_eager_before_anything_is_compiled(
    name: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, told = REFUSED[name]
    change(driver, monkeypatch)
    config, gpu = gpubp.TrainConfig(steps=1), torch.device("cuda:0")
    choice = choose("auto", SPEC, config, gpu)
    assert (choice.name, choice.reason) == ("eager", f'eager: engine "cuda" {told}')
    assert cuda.KERNELS == {}
    with pytest.raises(EngineError, match=re.escape(told)):
        choose("cuda", SPEC, config, gpu)


def test_the_bindings_say_so_where_there_is_no_driver(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = pytest.importorskip("cuda.bindings.driver", reason='needs pip install "gpubp[gpu]"')
    with suppress(RuntimeError):
        bindings.cuDriverGetVersion()
        pytest.skip("this machine has NVIDIA's driver")
    monkeypatch.setattr(device, "_driver", lambda: bindings)
    with pytest.raises(EngineError, match="finds no NVIDIA driver for GPU"):
        choose("cuda", SPEC, gpubp.TrainConfig(steps=1), torch.device("cuda:0"))


def test_without_a_gpu_the_engine_says_what_is_missing() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match=r"needs a GPU: (this build of torch|torch finds no)"):
        choose("cuda", SPEC, gpubp.TrainConfig(steps=1), torch.device("cuda:0"))
    with pytest.raises(EngineError, match="trains on a GPU, the networks are on cpu"):
        choose("cuda", SPEC, gpubp.TrainConfig(steps=1), torch.device("cpu"))


def test_a_compiler_that_fails_without_a_word_is_named_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = SimpleNamespace(nvrtc=SimpleNamespace(nvrtcVersion=failing(RuntimeError)))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    with pytest.raises(EngineError, match=r"needs NVIDIA's compiler: .*RuntimeError"):
        nvrtc.compiler()


def test_without_cuda_core_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason='needs pip install "gpubp[gpu]"')
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(EngineError, match=r'pip install "gpubp\[gpu\]" \(ModuleNotFoundError: .*cuda\.core'):
        nvrtc.compiler()


def test_a_cubin_without_resource_usage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "sections", lambda code: [(".nv.info", b"")])
    with pytest.raises(EngineError, match="does not say how many registers and how much local memory"):
        nvrtc.use(b"")


def test_the_bindings_have_what_is_called() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason='needs pip install "gpubp[gpu]"')
    for name in (each for each in vars(Driver) if each.startswith("cu")):
        assert callable(getattr(driver, name)), name
    for name in ("CUresult", "CUfunction_attribute", "CUdevice_attribute"):
        for value in vars(getattr(Driver, name)):
            assert hasattr(getattr(driver, name), value), value


def test_what_is_trained_has_room_to_be_evaluated() -> None:
    """The widest network that a block can train, with one sample a step, is shown as few at once as it has room for."""
    config, gpu, width = gpubp.TrainConfig(batch_size=1, steps=1), chip.Limits(90, 227 << 10), 5400
    data = gpubp.Dataset(torch.zeros(1000, 3), torch.zeros(1000, 2))

    def fits(key: Key) -> bool:
        return chip.in_shared_memory(Program(key, Layout()), gpu) is not None

    while not fits(Key.to_come(gpubp.NetworkSpec((3, width, 2), "tanh"), config.recipe(SPEC), torch.float32, data)):
        width -= 1
    assert 5000 < width < 5400
    assert fits(Key.of_evaluation(gpubp.NetworkSpec((3, width, 2), "tanh"), torch.float32, 1, data, ()))
