"""neutral(): a call that torch's global settings do not change.

It suspends autocast, inference mode, no_grad, a default device and flushed denormals in the calling thread, and
restores them afterwards. While any thread is in a call, it also suspends rounding of the CPU's float32 products to
bfloat16 or TF32, a setting of the whole process. Other process-wide settings stay, as other threads would see a change:
the package names the dtype of every tensor it creates, so a default dtype has no effect, and it works with or without
deterministic algorithms.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch

HOME = torch.device("cpu")  # where populations are made, saved and reported from
PRODUCTS = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
LOCK = Lock()
BEFORE: list[str] = []  # PRODUCTS.fp32_precision before each call in progress, in all threads


@contextmanager
def neutral() -> Iterator[None]:
    """For every public function that computes; also a decorator. Costs some 20 us."""
    with ExitStack() as stack:
        # also enables gradients, the default
        stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if _default_device() != HOME:
            stack.enter_context(HOME)
        if sys.float_info.min / 2 == 0:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        stack.enter_context(_whole_products())
        yield


def _default_device() -> torch.device:
    try:
        return torch.get_default_device()
    except AttributeError:  # torch 2.9 raises it after set_default_device(None)
        return HOME


@contextmanager
def _whole_products() -> Iterator[None]:
    """Compute float32 products on the CPU without rounding operands."""
    with LOCK:
        BEFORE.append(BEFORE[0] if BEFORE else PRODUCTS.fp32_precision)
        if BEFORE[0] not in ("none", "ieee"):
            PRODUCTS.fp32_precision = "ieee"
    try:
        yield
    finally:
        with LOCK:
            if (before := BEFORE.pop()) not in ("none", "ieee") and not BEFORE:
                PRODUCTS.fp32_precision = "none"  # may still mean the same, through a wider setting
                if PRODUCTS.fp32_precision != before:
                    PRODUCTS.fp32_precision = before
