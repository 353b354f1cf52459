"""Curves: the loss of each network at each evaluation, RUN/curves.bin: an array of KIND that grows.

Only for people: no training reads it, and no checkpoint refers to it. A resumed run may append again what a killed one
wrote after its checkpoint; the numbers are the same, as it has the bits of an uninterrupted run. The size is bounded:
the file has the first NETWORKS rows, and at most ROUNDS evenly spaced rounds of each octave.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..system import files
from ..system.arrays import Array

FILE = "curves.bin"
KIND = np.dtype([("network", "<u4"), ("step", "<u8"), ("loss", "<f4"), ("validation_loss", "<f4")])
NETWORKS, ROUNDS = 1 << 17, 1 << 8
OCTAVES = 64  # of rounds, more than any run takes
AT_ONCE = 1 << 20  # records read at once


class Losses(NamedTuple):
    """Networks (N,) at an evaluation: their rows, steps and losses, NaN for networks without one."""

    rows: Tensor
    step: Tensor
    loss: Tensor
    validation_loss: Tensor | None


def add(run_dir: Path, number: int, found: Iterable[Losses]) -> None:
    """Append the losses at the end of round `number`, if it is kept, of the networks that are kept. Raises OSError."""
    if number % (1 << max(0, number.bit_length() - ROUNDS.bit_length())):
        return
    content = b"".join(_records(each).tobytes() for each in found)
    flags = os.O_RDWR | os.O_CREAT | files.FOLLOW_NONE
    with os.fdopen(os.open(run_dir / FILE, flags, 0o666), "r+b") as file:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(errno.EMLINK, "another file has this one's content", str(run_dir / FILE))
        file.truncate(file.seek(0, os.SEEK_END) // KIND.itemsize * KIND.itemsize)  # a killed process wrote half of one
        file.seek(0, os.SEEK_END)
        file.write(content)


def _records(found: Losses) -> Array:
    known = found.loss.isfinite() & (found.rows < NETWORKS)
    records = np.empty(int(known.sum()), KIND)
    validation = found.loss * float("nan") if found.validation_loss is None else found.validation_loss
    for name, values in zip(KIND.names or (), (found.rows, found.step, found.loss, validation)):
        records[name] = values[known.to(values.device)].cpu().numpy()
    return records


def read(run_dir: Path, rows: Iterable[int]) -> dict[int, Array]:
    """The records of the networks in `rows`, each step once, in order; networks without any, as in older runs, are left
    out. Raises OSError."""
    path, wanted = run_dir / FILE, np.zeros(NETWORKS, bool)
    wanted[[row for row in rows if row < NETWORKS]] = True
    if not path.exists():
        return {}
    files.regular(path)
    pieces, most = [np.empty(0, KIND)], int(wanted.sum()) * ROUNDS * OCTAVES
    with path.open("rb") as file:
        while len(piece := np.frombuffer(_whole(file.read(AT_ONCE * KIND.itemsize)), KIND)):
            pieces.append(piece[wanted[np.minimum(piece["network"], NETWORKS - 1)] & (piece["network"] < NETWORKS)])
            if sum(map(len, pieces)) > most:
                raise OSError(errno.EFBIG, "it holds more records than a run writes", str(path))
    records = np.concatenate(pieces)
    records = records[np.lexsort((np.arange(len(records)), records["step"], records["network"]))]
    key = records[["network", "step"]]
    records = records[np.append(key[1:] != key[:-1], True)[: len(key)]]  # keeps the last of equal ones
    first = np.flatnonzero(np.diff(records["network"], prepend=-1))
    return {int(each["network"][0]): each for each in np.split(records, first[1:]) if len(each)}


def _whole(content: bytes) -> bytes:
    return content[: len(content) // KIND.itemsize * KIND.itemsize]
