"""Every call of torch.cuda in this package, in functions that say what they are for; tests put others in their place.

A graph is a recording of what a step launches. It is replayed with the memory that it was recorded with, without the
Python of the step: where kernels are short, that Python is what a step takes.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from . import forks

WARM = 3  # runs before a recording: libraries make their handles and choose their kernels in the first
RECORDING = threading.Lock()  # threads record one after the other
MENDED = "2.13"  # the torch that goes on recording after a recording that failed (pytorch#180395)
SPOILT: set[int] = set()  # GPUs on which an older one failed


def missing() -> str | None:
    """What this machine or this torch lacks for CUDA; None where there is a GPU."""
    if not torch.backends.cuda.is_built():
        return (
            f"this build of torch {torch.__version__} has no CUDA; install a CUDA build (see "
            "https://pytorch.org/get-started/locally)"
        )
    if spoilt():
        return f"this process was forked from one that used CUDA, and cannot: {forks.ADVICE}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA driver or no GPU here"
    return None


def spoilt() -> bool:
    """Whether this process was forked from one that used CUDA: no GPU is of use to it."""
    return bool(getattr(torch.cuda, "_is_in_bad_fork", lambda: False)())


def count() -> int:
    """GPUs that torch sees."""
    return torch.cuda.device_count()


def current() -> int:
    """The number of the GPU that "cuda" means."""
    return torch.cuda.current_device()


def name(device: torch.device) -> str:
    """What its maker calls it."""
    return torch.cuda.get_device_name(device)


def capability(device: torch.device) -> int:
    """Its compute capability: 90 for 9.0, sm_90."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def processors(device: torch.device) -> int:
    """How many multiprocessors it has."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def tf32() -> bool:
    """Whether torch was told to round what products of float32 take to 10 bits of mantissa."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def free(device: torch.device) -> int:
    """Bytes that nobody has, and those that torch keeps for later."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """This thread's work goes to `device`; nothing changes for one that is no GPU."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or products may differ from one stream to the next
    with torch.cuda.device(device):
        yield


def stream(device: torch.device) -> int:
    """The driver's handle of this thread's stream."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def wait(device: torch.device) -> None:
    """Until the device has done what this thread gave it. Not all that it has to do: waiting for a stream on which
    another thread records would break its recording off."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def mark(device: torch.device) -> Callable[[], None]:
    """-> waits until the device has done what this thread has given it by now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


class Copies:
    """A stream of `device` for copies beside the stream of the thread that calls, which trains. On a device that is no
    GPU a copy is done at once, and nothing waits."""

    def __init__(self, device: torch.device) -> None:
        # torch has few streams of a priority and gives them out again; recordings take those of the other one
        self.stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def beside(self) -> AbstractContextManager[Any]:
        """In it, this thread gives its work to the stream for copies."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def follow(self) -> None:
        """What is copied from now on comes after what was given for training so far."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def lead(self) -> None:
        """What is given for training from now on comes after what was copied so far."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


def release(device: torch.device) -> None:
    """Give back what torch keeps for later, but not while a thread records. An older torch refuses it for good after a
    recording that failed, and then keeps it for its own use."""
    if device.type == "cuda":
        with RECORDING, suppress(RuntimeError):
            torch.cuda.empty_cache()


def pinned(tensor: Tensor) -> Tensor:
    """A copy in memory that a GPU reads and writes by itself, while the processor does something else; where the system
    has no such memory left, the tensor itself, which is copied more slowly."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor


def pool() -> Any:
    """Memory for recordings that are replayed one after the other, each of which may write over what others left."""
    return torch.cuda.graph_pool_handle()


def capture(step: Callable[[], None], first: Callable[[], None] | None = None, pool: Any = None) -> Callable[[], None]:
    """Record what `step` launches on this thread's GPU. -> call that launches it again, on the same memory.

    Before, `step` is executed a few times, or `first` instead, which calls the same kernels. Raises RuntimeError where
    `step` waits for the GPU, or does something else that a graph cannot hold.
    """
    device, main, failed = torch.cuda.current_device(), torch.cuda.current_stream(), None
    with RECORDING:  # threads of one GPU share the stream
        if device in SPOILT:
            raise RuntimeError(f"torch {torch.__version__} records nothing more after a recording that failed")
        side = _side(device)
        side.wait_stream(main)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    (first or step)()
        finally:
            main.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, pool, side, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(main), recording:  # one that fails would leave the thread on `side`
                try:
                    step()
                except RuntimeError as error:
                    failed = error
                    raise
        except RuntimeError as error:  # or that a recording was ended by one
            failed = failed or error
            if torch.__version__ < MENDED:
                SPOILT.add(device)
    if failed is not None:
        try:
            raise failed
        finally:
            failed = None  # it has this frame, and would keep what the step computed
    return graph.replay


@functools.cache
def _side(device: int) -> torch.cuda.Stream:
    """The stream of all recordings: a pool's memory, and a library's, is of one stream."""
    return torch.cuda.Stream(device)
