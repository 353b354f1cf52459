"""neutral(): a call as if nobody had set anything of torch's around it.

autocast, inference mode, no_grad, a default device and flushed denormals are left aside in the present thread and are
back afterwards. So is, while any thread is in a call, that the CPU's products of float32 are rounded to bfloat16 or
TF32, which torch sets for the whole process. Nothing else of that kind is touched, as other threads would see it
change: the package names the type of each tensor that it makes, so a default dtype decides nothing, and it is right
with deterministic algorithms or without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch

HOME = torch.device("cpu")
PRODUCTS = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
LOCK = Lock()
BEFORE: list[str] = []  # what PRODUCTS were rounded to before each of the calls that are in progress, in all threads


@contextmanager
def neutral() -> Iterator[None]:
    """For every function of the public face that computes; as a decorator too. Costs some 20 us."""
    with ExitStack() as stack:
        # switches gradients on as well, as they are where nobody asked
        stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != HOME:
            stack.enter_context(HOME)
        if sys.float_info.min / 2 == 0:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        stack.enter_context(_whole_products())
        yield


@contextmanager
def _whole_products() -> Iterator[None]:
    """Products of float32 on the CPU are not rounded."""
    with LOCK:
        BEFORE.append(BEFORE[0] if BEFORE else PRODUCTS.fp32_precision)
        if BEFORE[0] not in ("none", "ieee"):
            PRODUCTS.fp32_precision = "ieee"
    try:
        yield
    finally:
        with LOCK:
            if (before := BEFORE.pop()) not in ("none", "ieee") and not BEFORE:
                PRODUCTS.fp32_precision = "none"  # which may mean the same, by what is set for more than products
                if PRODUCTS.fp32_precision != before:
                    PRODUCTS.fp32_precision = before
