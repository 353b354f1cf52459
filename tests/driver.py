"""A driver of GPUs that records what it is given: grid, block, shared memory, stream, and the Job."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import cuda, device, nvrtc
from gpubp.state import TrainState

from .helpers import generator, population, samples, start
from .recorder import like

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
        kernel = next(each for each in cuda.KERNELS.values() if each.code == given[0])
        job = kernel.program.job
        self.job = job.from_buffer_copy(ctypes.string_at(pointers[0], ctypes.sizeof(job)))
        self.end = cuda.End.from_buffer_copy(ctypes.string_at(pointers[1], ctypes.sizeof(cuda.End)))
        return (self.answer,)


@pytest.fixture(name="driver")
def recording_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
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
