"""verified(): which promises this machine keeps, as rows of a table."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..engines import general
from ..runs.design import Design
from ..samples.data import Dataset
from ..system.ambient import neutral
from . import engines, gradients, independence, killed, steps
from .comparing import Row
from .subject import Subject, scaled_down

DEFAULT: dict[str, Any] = {  # every part of a step takes part, yet it compiles in seconds
    "widths": (8, 16, 4), "hidden": "gelu", "loss": "cross_entropy", "optimizer": "adam", "schedule": "cosine",
    "warmup": 2, "dropout": 0.2, "label_smoothing": 0.1, "clip_norm": 0.5, "l2": 0.001, "batch_size": 16, "epochs": 20,
}  # fmt: skip


def default() -> Design:
    """The networks that are verified by default."""
    return Design.of({"lr": [0.001 * (n + 1) for n in range(9)]}, **DEFAULT)


@neutral()
def verified(
    design: Any = None, data: Dataset | None = None, seed: int = 0, dtype: torch.dtype = torch.float32,
    engine: str = "auto", device: str = "auto", **common: Any,
) -> list[Row]:  # fmt: skip
    """Check the promises on this machine: a row for each promise and each way to check it.

    The arguments are those of train_many(); by default a small design and synthetic samples. Few of the networks,
    samples and steps are tried, and fewer of large networks: work of subject.WORK, but at least LEAST networks of a
    population for SHORT steps, so that above 300,000 parameters time grows with them. device: auto, cpu, cuda or
    cuda:1. row.good tells if a promise is kept. Raises GpubpError if the networks cannot be trained at all."""
    chosen = default() if design is None else Design.of(design, **common)
    return list(promises(scaled_down(chosen, data, seed, dtype, engine, device)))


def promises(subject: Subject) -> Iterator[Row]:
    """The rows of verified(), one by one as they are checked."""
    with (
        general.only(False), TemporaryDirectory(prefix="gpubp-verify-") as folder,
        ThreadPoolExecutor(2, "gpubp-verify") as pool,
    ):  # fmt: skip
        ahead = pool.submit(engines.compile_ahead, subject)
        _ = subject.whole
        death = pool.submit(killed.kill, subject, Path(folder))  # while other promises are checked
        of_gradients = gradients.rows(subject)
        yield from islice(of_gradients, 2)
        yield steps.row(subject)
        yield from of_gradients
        ahead.result()
        yield from engines.rows(subject)
        yield from independence.rows(subject)
        yield killed.row(subject, Path(folder), death)
