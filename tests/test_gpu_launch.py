"""What the GPU engine hands to the driver, against a driver that records: grid, block, shared memory, stream, and the
pointer of every field; nobody computes."""

from __future__ import annotations

import ctypes
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import chip, choose, cuda, device, nvrtc
from gpubp.engines.key import Key
from gpubp.engines.program import Layout, Program
from gpubp.errors import EngineError, OutOfMemoryError
from gpubp.state import TrainState

from .helpers import covering, generator, population, samples, start
from .recorder import Tape, like

SPEC = gpubp.NetworkSpec((3, 5, 4), "tanh", loss="cross_entropy")
COUNT, SAMPLES, STREAM, EACH, PROCESSORS = 300, 11, 77, 3, 132
SUCCESS, MEMORY_GONE, FAILURE = (SimpleNamespace(name=name) for name in ("SUCCESS", "OUT_OF_MEMORY", "LAUNCH_FAILED"))


class Driver:
    """cuda.bindings.driver, as far as it is used."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=SUCCESS, CUDA_ERROR_OUT_OF_MEMORY=MEMORY_GONE)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUdevice_attribute = SimpleNamespace(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=227 << 10)

    def __init__(self) -> None:
        self.asked: list[str] = []  # names of all calls
        self.calls: list[tuple[Any, ...]] = []
        self.loaded: list[bytes] = []
        self.answer: Any = SUCCESS
        self.version = 13000
        self.current = threading.local()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name[2].isupper():
            self.asked.append(name)
        return super().__getattribute__(name)

    def cuInit(self, flags: int) -> tuple[Any]:
        assert flags == 0
        return (SUCCESS,)

    def cuDriverGetVersion(self) -> tuple[Any, int]:
        return SUCCESS, self.version

    def cuDevicePrimaryCtxRetain(self, number: int) -> tuple[Any, str]:
        return SUCCESS, f"context {number}"

    def cuCtxSetCurrent(self, context: str) -> tuple[Any]:
        self.current.context = context
        return (SUCCESS,)

    def cuCtxGetCurrent(self) -> tuple[Any, str]:
        return SUCCESS, getattr(self.current, "context", "")

    def cuDeviceGet(self, number: int) -> tuple[Any, int]:
        return SUCCESS, number

    def cuDeviceGetAttribute(self, value: int, number: int) -> tuple[Any, int]:
        return SUCCESS, value

    def cuModuleLoadData(self, code: bytes) -> tuple[Any, bytes]:
        assert self.current.context == "context 0"
        self.loaded.append(code)
        return SUCCESS, code

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[Any, bytes]:
        assert name == b"run"
        return SUCCESS, module

    def cuFuncSetAttribute(self, function: bytes, attribute: str, value: int) -> tuple[Any]:
        self.allowed = value
        return (SUCCESS,)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, *_: Any) -> tuple[Any, int]:
        return SUCCESS, EACH

    def cuLaunchKernel(self, *given: Any) -> tuple[Any]:
        assert self.current.context == "context 0"
        self.calls.append(given)
        pointers = (ctypes.c_void_p * 2).from_address(given[9])
        (kernel,) = (each for each in cuda.KERNELS.values() if each.code == given[0])
        job = kernel.program.job
        self.job = job.from_buffer_copy(ctypes.string_at(pointers[0], ctypes.sizeof(job)))
        self.end = cuda.End.from_buffer_copy(ctypes.string_at(pointers[1], ctypes.sizeof(cuda.End)))
        return (self.answer,)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """A driver, a torch that has a GPU, and a compiler that gives the text itself."""
    own = Driver()
    found = {
        "is_available": lambda: True, "current_device": lambda: 0,
        "get_device_capability": lambda _: (9, 0), "device": lambda _: nullcontext(),
        "current_stream": lambda *_: SimpleNamespace(cuda_stream=STREAM),
        "get_device_properties": lambda _: SimpleNamespace(multi_processor_count=PROCESSORS),
        "get_device_name": lambda _: "GPU",
    }  # fmt: skip
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, like(getattr(torch.cuda, name), value))
    monkeypatch.setattr(device, "_driver", lambda: own)
    monkeypatch.setattr(device, "on_a_gpu", lambda tensor: True)
    monkeypatch.setattr(nvrtc, "cubin", lambda text, arch: text.encode())
    monkeypatch.setattr(nvrtc, "use", lambda code: nvrtc.Use(64, 0))
    monkeypatch.setattr(cuda, "KERNELS", {})
    kept = (device.load, device.limits, device._context)
    for function in kept:
        function.cache_clear()
    yield own
    for function in kept:
        function.cache_clear()


def training(count: int = COUNT, **settings: Any) -> tuple[TrainState, gpubp.Dataset]:
    """A state and data with everything that a Job can name, but for targets."""
    networks = population(SPEC, count, torch.float32)
    inputs, classes = samples(SPEC, count, SAMPLES, dtype=torch.float32)
    rows = [torch.arange(1 + n % SAMPLES) for n in range(count)]
    weight = torch.rand(count, SAMPLES, generator=generator(1))
    own = {"optimizer": "adam", "batch_size": 2, "steps": 9, "class_weight": torch.ones(count, 4), **settings}
    data = gpubp.Dataset(inputs, classes, rows, weight)
    return start(networks, data, **own), data


def expected(state: TrainState, data: gpubp.Dataset) -> dict[str, Any]:
    """Every field of the Job but `taken`, and of the End but `slots`."""
    one = {name: getattr(state, name) for name in ("position", "limit", "end", "step", "status", "loss", "total")}
    tensors = {
        **one, "params": state.population.params, "ids": state.population.ids, "inputs": data.inputs,
        "classes": data.targets, "weights": data.sample_weight, "rows": data.rows, "sizes": data.sizes,
        "class_weight": state.hyper["class_weight"],
    }  # fmt: skip
    return {
        **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        "targets": None, "spread": None, "figures": None, "count": len(state.step),
        "samples": SAMPLES, "longest": SAMPLES,
        "seed": state.population.seed, "threads": 0, "check": 0,
        "slots": [*(slot.data_ptr() for slot in state.slots), None],
        "columns": [*(state.columns[name].data_ptr() for name in state.recipe.rule.columns), None],
    }  # fmt: skip


def launched(own: Driver) -> dict[str, Any]:
    """The fields that the kernel was given."""
    return {
        name: list(value) if hasattr(value := getattr(own.job, name), "__len__") else value
        for name, _ in own.job._fields_
    }


def test_a_launch_has_the_grid_the_stream_and_the_pointer_of_every_field(driver: Driver) -> None:
    state, data = training()
    cuda.run(state, data, 5)
    (kernel,) = cuda.KERNELS.values()
    layout = kernel.program.layout
    ((function, *shape, shared, stream, _, extra),) = driver.calls
    assert function == cuda.text(kernel.program).encode()
    assert shape == [-(-COUNT // layout.threads), 1, 1, layout.threads, 1, 1]
    assert (shared, driver.allowed, stream, extra) == (
        kernel.program.plan.shared,
        kernel.program.plan.shared,
        STREAM,
        0,
    )
    given = launched(driver)
    assert given.pop("taken"), "room for the kernel's own notes"
    names = kernel.program.hyper
    assert given.pop("hyper") == [*(state.hyper[name].data_ptr() for name in names), None]
    assert given.pop("steps") == 5
    assert given == expected(state, data)
    ends = (driver.end.status, driver.end.diverged, driver.end.slots)
    assert ends == (state.status.data_ptr(), state.diverged_step.data_ptr(), None)


def test_after_a_resize_the_pointers_are_those_of_the_new_tensors(driver: Driver) -> None:
    state, data = training()
    cuda.run(state, data, 5)
    part = torch.arange(0, COUNT, 2)
    own, rows = state.rows(part), training(COUNT // 2)[1]
    own.position = torch.arange(len(part))
    cuda.run(own, rows, 7)
    given = launched(driver)
    assert given["steps"] == 7
    assert {name: given[name] for name in expected(own, rows)} == expected(own, rows)
    assert len(driver.loaded) == 1, "the kernel is loaded once"


def test_a_block_is_two_networks_where_a_thread_has_no_room(driver: Driver) -> None:
    state, data = training(batch_size=64)
    cuda.run(state, data, 5)
    (kernel,) = cuda.KERNELS.values()
    layout = kernel.program.layout
    assert (layout.team, layout.threads, layout.together) == (True, 16, 2)
    assert driver.calls[0][1:7] == (COUNT // 2, 1, 1, 32, 1, 1)


def test_slots_outside_have_room_for_the_blocks_that_run_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "LAYOUT", Layout(1, team=True, threads=64, near=False))
    state, data = training(1000)
    cuda.run(state, data, 5)
    assert driver.calls[0][1] == EACH * PROCESSORS
    assert driver.end.slots
    cuda.run(*training(7), 5)
    assert driver.calls[1][1] == 7, "no more blocks than networks"
    monkeypatch.setattr(cuda, "LAYOUT", Layout(1, team=True, threads=8, together=4, near=False))
    wanted, empty = [], torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *given: wanted.append(given[1]) or empty(*given))
    cuda.KERNELS.clear()
    cuda.run(*training(9), 5)
    assert driver.calls[2][1:5] == (3, 1, 1, 32)
    (kernel,) = cuda.KERNELS.values()
    assert wanted == [3 * 4 * kernel.program.plan.far], "for four networks of each block"


def test_a_new_thread_gets_a_context_for_loading_and_launching(driver: Driver) -> None:
    given = training()
    for _ in range(2):  # loads and launches, and then launches alone
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cuda.run, *given, 5).result()
    assert (len(driver.loaded), len(driver.calls)) == (1, 2)


def test_a_launch_can_be_captured_in_a_graph(driver: Driver) -> None:
    """After a first one it waits for nothing, and torch is asked for nothing."""
    state, data = training()
    cuda.run(state, data, 5)
    with Tape() as tape:
        cuda.run(state, data, 5)
    assert not [func for func, *_ in tape.recorded if func is not torch.ops.aten.detach.default]  # a view
    first, second = (call[:9] for call in driver.calls)
    assert first == second, "grid, block, shared memory and stream"
    assert len(driver.loaded) == 1


def test_a_driver_error_is_reported(driver: Driver) -> None:
    state, data = training()
    driver.answer = FAILURE
    with pytest.raises(EngineError, match="the driver reports LAUNCH_FAILED"):
        cuda.run(state, data, 5)
    driver.answer = MEMORY_GONE
    with pytest.raises(OutOfMemoryError):
        cuda.run(state, data, 5)


def test_other_types_and_places_are_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    state, data = training()
    state = TrainState.start(population(SPEC, COUNT, torch.float64), gpubp.TrainConfig(steps=1), data)
    with pytest.raises(EngineError, match=r"networks are torch.float64 on cpu, inputs torch.float32"):
        cuda.run(state, data, 5)
    monkeypatch.setattr(device, "on_a_gpu", lambda tensor: tensor.is_cuda)
    with pytest.raises(EngineError, match="a GPU expected"):
        cuda.run(*training(), 5)


# ---- the choice


def test_on_a_gpu_auto_is_cuda_and_says_how(driver: Driver) -> None:
    config, gpu = gpubp.TrainConfig(batch_size=2, steps=1), torch.device("cuda:0")
    choice = choose("auto", SPEC, config, gpu)
    assert (choice.name, choice.run) == ("cuda", cuda.run)
    assert choice.reason == (
        "cuda: a thread is a network: the kernel for 3-5-4 takes 64 registers of sm_90 and 0 bytes of local memory, "
        "counted with a weight for each sample"
    )
    reason = choose("auto", SPEC, gpubp.TrainConfig(batch_size=64, steps=1), gpu).reason
    assert reason.startswith("cuda: a block of 32 threads is 2 networks: 3-5-4 takes ")
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
        choice.run(own, data.part(part), 3)
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


def test_wider_networks_are_left_to_eager_with_the_reason(driver: Driver) -> None:
    wide, config, gpu = gpubp.NetworkSpec((784, 512, 10), "relu"), gpubp.TrainConfig(steps=1), torch.device("cuda:0")
    choice = choose("auto", wide, config, gpu)
    assert choice.name == "eager"
    assert "networks 784-512-10 with batch_size" in choice.reason
    assert "a block has 232,448" in choice.reason
    with pytest.raises(EngineError, match="bytes of shared memory or more"):
        choose("cuda", wide, config, gpu)


def test_what_is_chosen_has_room_for_the_weights_of_classes(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a block so small that it is a number too small with them."""
    state, data = training(batch_size=64)
    config = gpubp.TrainConfig(batch_size=64, steps=1, class_weight=[1, 1, 1, 1])
    cuda.run(state, data, 1)
    (kernel,) = cuda.KERNELS.values()
    least, gpu = chip.wants(kernel.program), torch.device("cuda:0")
    for room, name in ((least, "cuda"), (least - 1, "eager")):
        monkeypatch.setattr(device, "limits", lambda _, room=room: chip.Limits(90, room))
        cuda.KERNELS.clear()
        assert choose("auto", SPEC, config, gpu).name == name


def test_an_old_gpu_is_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    choice = choose("auto", SPEC, gpubp.TrainConfig(steps=1), torch.device("cuda:0"))
    assert choice.name == "eager"
    assert "needs compute capability 8.0 or more, GPU has 7.5" in choice.reason


def test_a_driver_of_cuda_12_is_refused_before_anything_is_compiled(driver: Driver) -> None:
    config, gpu = gpubp.TrainConfig(steps=1), torch.device("cuda:0")
    driver.version = 12080
    choice = choose("auto", SPEC, config, gpu)
    assert choice.name == "eager"
    assert "needs a driver for CUDA 13 or newer, this one is for CUDA 12.8" in choice.reason
    assert cuda.KERNELS == {}
    with pytest.raises(EngineError, match='engine "eager" runs on it'):
        choose("cuda", SPEC, config, gpu)


def test_without_nvidias_driver_eager_trains(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of another maker is a "cuda" of torch too."""

    def fails() -> None:
        raise RuntimeError('"cuda" is an NVIDIA driver library\nMore.')

    monkeypatch.setattr(driver, "cuDriverGetVersion", fails)
    choice = choose("auto", SPEC, gpubp.TrainConfig(steps=1), torch.device("cuda:0"))
    told = 'finds no NVIDIA driver for GPU ("cuda" is an NVIDIA driver library); engine "eager" needs none'
    assert (choice.name, choice.reason) == ("eager", f'eager: engine "cuda" {told}')


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
    def fails() -> None:
        raise RuntimeError

    bindings = SimpleNamespace(nvrtc=SimpleNamespace(nvrtcVersion=fails))
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
