"""All driver calls of the GPU engine (torch's are in system/gpus.py); tests replace this module to simulate a GPU."""

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import EngineError, OutOfMemoryError
from ..system import gpus
from .chip import Limits

OLDEST = 80  # sm_80; of older GPUs, NVRTC 13 supports only sm_75, whose blocks have 64 KB of shared memory
DRIVER = 13000  # CUDA 13.0: older drivers do not load its cubins


class Function(NamedTuple):
    """A kernel on a device, and how many of its blocks run there at once."""

    handle: Any
    blocks: int


@functools.cache
def limits(device: torch.device) -> Limits:
    """The device's limits. Raises EngineError if there is no GPU, or if it or its driver is too old."""
    missing = gpus.missing()
    if missing is not None:
        raise EngineError(f'engine "cuda" needs a GPU: {missing}')
    arch = gpus.capability(device)
    if arch < OLDEST:
        raise EngineError(
            f'engine "cuda" needs compute capability {OLDEST / 10} or more, {gpus.name(device)} has {arch / 10}; '
            'engine "eager" runs on it'
        )
    driver = _driver()
    try:
        found = driver.cuDriverGetVersion()
    except RuntimeError as error:  # libcuda is missing: torch's GPU is not NVIDIA's
        raise EngineError(
            f'engine "cuda" finds no NVIDIA driver for {gpus.name(device)} ({(str(error).splitlines() or [""])[0]}); '
            'engine "eager" needs none'
        ) from None
    version = _done(found)
    if version < DRIVER:
        raise EngineError(
            f'engine "cuda" needs a driver for CUDA 13 or newer, this one is for CUDA {version // 1000}.'
            f'{version % 1000 // 10}; engine "eager" runs on it'
        )
    most = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    block = int(_done(driver.cuDeviceGetAttribute(most, _number(device))))
    return Limits(arch, block, gpus.processors(device))


def on_a_gpu(tensor: Tensor) -> bool:
    """Whether kernels can access a tensor."""
    return tensor.is_cuda


@functools.cache
def load(code: bytes, threads: int, shared: int, device: torch.device) -> Function:
    """The kernel "run" of a cubin, ready for blocks of `threads` threads and `shared` bytes of shared memory."""
    driver = _driver()
    with _on(device):
        handle = _done(driver.cuModuleGetFunction(_done(driver.cuModuleLoadData(code)), b"run"))
        bytes_of_shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _done(driver.cuFuncSetAttribute(handle, bytes_of_shared, shared))
        each = _done(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(handle, threads, shared))
        return Function(handle, each * gpus.processors(device))


class Launch:
    """Starts a kernel on torch's current stream; structures are passed by value, as they are at the call."""

    def __init__(
        self, function: Function, threads: int, shared: int, given: Sequence[ctypes.Structure], device: torch.device
    ) -> None:
        self.handle, self.block = function.handle, (threads, 1, 1, shared)
        self.given, self.device, self.context = given, device, _context(device)
        self.pointers = (ctypes.c_void_p * len(given))(*(ctypes.addressof(each) for each in given))

    def __call__(self, blocks: int) -> None:
        """Launch `blocks` blocks."""
        if _done(_driver().cuCtxGetCurrent()) == self.context:  # as torch leaves it
            return self._start(blocks)
        with _on(self.device):
            return self._start(blocks)

    def _start(self, blocks: int) -> None:
        stream, pointers = gpus.stream(self.device), ctypes.addressof(self.pointers)
        _done(_driver().cuLaunchKernel(self.handle, blocks, 1, 1, *self.block, stream, pointers, 0))


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Direct this thread's driver calls to `device`: a thread that torch has not used yet has no context."""
    with gpus.on(device):
        _done(_driver().cuCtxSetCurrent(_context(device)))
        yield


@functools.cache
def _context(device: torch.device) -> Any:
    """The primary context, which torch uses too."""
    return _done(_driver().cuDevicePrimaryCtxRetain(_number(device)))


def _number(device: torch.device) -> Any:
    """The driver's handle of a device."""
    driver = _driver()
    _done(driver.cuInit(0))
    return _done(driver.cuDeviceGet(gpus.current() if device.index is None else device.index))


@functools.cache
def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineError(
            f'engine "cuda" needs NVIDIA\'s driver bindings: pip install "gpubp[gpu]" ({error}); engine "eager" needs '
            "none"
        ) from None
    return driver


def _done(result: tuple[Any, ...]) -> Any:
    """The result of a driver call. Raises EngineError if it failed."""
    error, *values = result
    if error == _driver().CUresult.CUDA_SUCCESS:
        return values[0] if values else None
    if error == _driver().CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemoryError("the GPU has no free memory for the kernel's code; train fewer networks at once")
    raise EngineError(f'engine "cuda": the driver reports {error.name}; engine "eager" does not need it')
