"""neutral(): a call as if nobody had set anything of torch's around it.

autocast, inference mode, no_grad, a default device and flushed denormals are left aside in the present thread and are
back afterwards. What torch sets for the whole process is not touched, as other threads would see it change: the package
names the type of each tensor that it makes, so a default dtype decides nothing, and it is right with deterministic
algorithms or without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

HOME = torch.device("cpu")


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
        yield
