"""Every engine and layout by its name: eager, the compiled engine's layouts, and GPUs that the CPU plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gpubp.engines import cpu, cuda, eager
from gpubp.engines.program import Layout

from .helpers import laid_out, layouts
from .playing import Player, playing

GPU = {
    "gpu thread": Layout(1, threads=4),
    "gpu block": Layout(1, team=True, threads=8, accumulators=32, cols=8),
    "gpu block in pieces": Layout(1, team=True, threads=8, chunk=4, accumulators=32, cols=8),
    "streamed gpu block": Layout(1, wide=True, parts=4, team=True, threads=8, accumulators=16, cols=2, streamed=True),
    "wide gpu block in pieces": Layout(1, wide=True, parts=4, team=True, threads=8, chunk=4, accumulators=16, cols=2),
}
MACHINES = ("eager", "networks", "outputs", "three registers", "networks in chunks", "outputs in chunks", "team", *GPU)


@contextmanager
def on(name: str, batch: int, dtype: torch.dtype = torch.float32) -> Iterator[Any]:
    """The engine, laid out so for a while."""
    if name == "eager":
        yield eager
    elif name in GPU:
        with playing(Player(), GPU[name]):
            yield cuda
    else:
        with laid_out(layouts(dtype, batch)[name]):
            yield cpu
