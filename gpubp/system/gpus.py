"""Every call of torch.cuda in this package, by purpose; tests replace these functions.

A graph is a recording of a step's launches. It is replayed on the recording's memory, without the step's Python, which
takes most of the time if kernels are short.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

from . import forks

WARM = 3  # runs before a recording: in the first, libraries create handles and choose kernels
RECORDING = threading.Lock()  # threads record one after another
MENDED = "2.13"  # the torch that can record after a failed recording (pytorch#180395)
SPOILT: set[int] = set()  # GPUs on which an older torch failed to record


def missing() -> str | None:
    """What this machine or torch lacks for CUDA; None if there is a GPU."""
    if not torch.backends.cuda.is_built():
        return (
            f"this build of torch {torch.__version__} has no CUDA; install a CUDA build (see "
            "https://pytorch.org/get-started/locally)"
        )
    if spoilt():
        return f"this process was forked from one that used CUDA, and cannot use it: {forks.ADVICE}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA driver or no GPU here"
    return None


def spoilt() -> bool:
    """Whether this process was forked from one that used CUDA, and so cannot use a GPU."""
    return bool(getattr(torch.cuda, "_is_in_bad_fork", lambda: False)())


def count() -> int:
    """The number of GPUs that torch sees."""
    return torch.cuda.device_count()


def current() -> int:
    """The number of the GPU that "cuda" means."""
    return torch.cuda.current_device()


def name(device: torch.device) -> str:
    """The product name of a GPU."""
    return torch.cuda.get_device_name(device)


def capability(device: torch.device) -> int:
    """Its compute capability: 90 for 9.0, sm_90."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def processors(device: torch.device) -> int:
    """The number of multiprocessors."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def tf32() -> bool:
    """Whether torch rounds operands of float32 products to 10 bits of mantissa."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def free(device: torch.device) -> int:
    """Free bytes, including those in torch's cache."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


def held() -> int:
    """Bytes of all GPUs that torch holds for this process."""
    return sum(map(torch.cuda.memory_reserved, range(count()))) if torch.cuda.is_initialized() else 0


@contextmanager
def on(device: torch.device, stream: int | None = None) -> Iterator[None]:
    """Direct this thread's work to `device`, and there to the stream with number `stream`, if given; no effect unless
    it is a GPU."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise products may differ between streams
    there = nullcontext() if stream is None else torch.cuda.stream(_numbered(device, stream))
    with torch.cuda.device(device), there:
        yield


@functools.cache
def _numbered(device: torch.device, number: int) -> torch.cuda.Stream:
    """A stream that is kept, as memory allocated in it stays its own."""
    return torch.cuda.Stream(device)


def stream(device: torch.device) -> int:
    """The driver's handle of this thread's stream."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def wait(device: torch.device) -> None:
    """Wait until the device has finished this thread's work, but not other threads': waiting for a stream on which
    another thread records would abort the recording."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def mark(device: torch.device) -> Callable[[], None]:
    """-> a function that waits for this thread's work up to now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


class Copies:
    """A stream of `device` for copies, besides the calling thread's stream, which trains. Without a GPU, copies run at
    once, and nothing waits."""

    def __init__(self, device: torch.device) -> None:
        # torch reuses a few streams per priority; recordings use the other priority
        self.stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

    def beside(self) -> AbstractContextManager[Any]:
        """A context in which this thread's work goes to the stream for copies."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def follow(self) -> None:
        """Later copies wait for the training work so far."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def lead(self) -> None:
        """Later training work waits for the copies so far."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


def release(device: torch.device) -> None:
    """Free torch's cached memory, but not while a thread records. After a failed recording an older torch refuses this
    forever, and keeps the memory."""
    if device.type == "cuda":
        with RECORDING, suppress(RuntimeError):
            torch.cuda.empty_cache()


def pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, which a GPU reads without the processor; if the system has none left, the tensor itself,
    which copies more slowly."""
    try:
        return tensor.pin_memory()
    except RuntimeError:
        return tensor


def pool() -> Any:
    """Memory shared by recordings that are replayed one after another and may overwrite each other's data."""
    return torch.cuda.graph_pool_handle()


def capture(step: Callable[[], None], first: Callable[[], None] | None = None, pool: Any = None) -> Callable[[], None]:
    """Record the launches of `step` on this thread's GPU. -> a function that launches them again, on the same memory.

    Before that, `step`, or `first`, which calls the same kernels, runs a few times. Raises RuntimeError if `step` waits
    for the GPU, or does anything else that a graph cannot hold.
    """
    device, main, failed = torch.cuda.current_device(), torch.cuda.current_stream(), None
    with RECORDING:  # threads of one GPU share the stream
        if device in SPOILT:
            raise RuntimeError(f"torch {torch.__version__} cannot record after a failed recording")
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
            with torch.cuda.stream(main), recording:  # a failed one would leave the thread on `side`
                try:
                    step()
                except RuntimeError as error:
                    failed = error
                    raise
        except RuntimeError as error:  # or torch's own, that the recording was aborted
            failed = failed or error
            if torch.__version__ < MENDED:
                SPOILT.add(device)
    if failed is not None:
        try:
            raise failed
        finally:
            failed = None  # its traceback would keep the step's tensors
    return graph.replay


@functools.cache
def _side(device: int) -> torch.cuda.Stream:
    """The stream of all recordings, because memory of a pool or a library belongs to one stream."""
    return torch.cuda.Stream(device)
