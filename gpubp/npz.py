"""arrays(): the inputs and targets of an .npz archive, as numpy.savez writes it.

The header of an array is checked before it is unpacked, as it may unpack to a thousand times its size. Refused,
with the file and the array: arrays with other names, of shapes that do not match, larger than free memory, of
anything but numbers, truth values and text, and pickles, which could execute code.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import free
from .arrow import NUMBER
from .errors import DataError

Array = npt.NDArray[Any]

INPUTS = ("inputs", "X", "x")  # names of arrays
TARGETS = ("targets", "y")


class Head(NamedTuple):
    """The header of an array."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(each for each in self.shape)


def arrays(name: str, content: bytes) -> dict[str, Array]:
    """inputs (M, I) and targets (M, O), if any, of the archive `name`. Raises DataError."""
    if not content.startswith(b"PK"):
        raise DataError(f"{name} is not an .npz archive, as numpy.savez writes it")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        inputs, targets = _head(name, archive, INPUTS), _head(name, archive, TARGETS)
        if inputs is None:
            raise DataError(f"{name}: no array is called {' or '.join(INPUTS)}; it has {', '.join(archive.files[:20])}")
        given = f"{name}: inputs {inputs.shape}" + ("" if targets is None else f", targets {targets.shape}")
        samples = inputs.shape[:1]
        wrong = targets is not None and (targets.shape[:1] != samples or len(targets.shape) > 2)
        if not samples or not inputs.size or wrong:
            raise DataError(f"{given}; (M, I), and (M,) or (M, O), with M and I of 1 or more expected")
        both = {"inputs": inputs} | ({"targets": targets} if targets is not None and targets.size else {})
        free.fits(name, sum(each.size * (each.dtype.itemsize + NUMBER) for each in both.values()), len(content))
        return {kind: archive[each.name].reshape(*samples, -1) for kind, each in both.items()}


def _head(name: str, archive: Any, names: Sequence[str]) -> Head | None:
    """The header of the array with one of these names, or None."""
    present = [each for each in names if each in archive.files]
    if len(present) > 1:
        raise DataError(f"{name}: arrays {' and '.join(present)} mean the same; one of them expected")
    if not present:
        return None
    where = f"{name}: array {present[0]!r}"
    with archive.zip.open(f"{present[0]}.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled Python objects, which can execute code and are never loaded; numbers or text "
            "expected"
        )
    if dtype.kind not in "biufU":
        raise DataError(f"{where} holds {dtype}; numbers, truth values or text expected")
    return Head(present[0], shape, dtype)
