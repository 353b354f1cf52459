"""Every engine and layout by its name: eager, the compiled engine's layouts, and GPUs that the CPU plays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gpubp.engines import cpu, cuda, eager
from gpubp.engines.layout import Kind, Layout

from .helpers import laid_out, layouts
from .playing import Player, playing

GPU = {
    "gpu thread": Layout(Kind.GPU_THREAD, threads=4),
    "gpu block": Layout(Kind.GPU_BLOCK, threads=8, accumulators=32, cols=8),
    "gpu block in chunks": Layout(Kind.GPU_BLOCK, chunk=4, threads=8, accumulators=32, cols=8),
    "streamed gpu block": Layout(Kind.GPU_STREAMED, registers=4, threads=8, accumulators=16, cols=2),
    "wide gpu block in chunks": Layout(Kind.GPU_WIDE, registers=4, chunk=4, threads=8, accumulators=16, cols=2),
}
MACHINES = ("eager", "networks", "outputs", "three registers", "networks in chunks", "outputs in chunks",
            "general in chunks", "team", *GPU)  # fmt: skip


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
