"""arrays(): the inputs and targets of an .npz archive, as numpy.savez writes it.

The header of an array is checked before it is unpacked, as it may unpack to a thousand times its size; what is
unpacked is that one file of the archive, with the suffix .npy or without. Refused, with the file and the array: arrays
with other names, of one name twice, of shapes that do not match, larger than free memory, packed as NumPy does not, of
anything but numbers, truth values and text, and pickles, which could execute code.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..system import free
from .arrow import NUMBER, TEXT

Array = npt.NDArray[Any]

INPUTS = ("inputs", "X", "x")  # names of arrays
TARGETS = ("targets", "y")


MEMBER, MEMBERS = b"PK\x01\x02", 10_000  # what begins an entry of an archive's directory, and how many there may be
HEAD = 1 << 16  # bytes within which a header ends


class Head(NamedTuple):
    """The header of an array, and its file in the archive."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def plain(self) -> int:
        """The bytes of an element in a Table."""
        return NUMBER if self.dtype.kind != "U" else TEXT + self.dtype.itemsize


def arrays(name: str, content: bytes) -> dict[str, Array]:
    """inputs (M, I) and targets (M, O), if any, of the archive `name`. Raises DataError."""
    if not content.startswith(b"PK"):
        raise DataError(f"{name} is not an .npz archive, as numpy.savez writes it")
    if content.count(MEMBER) > MEMBERS:  # each takes ten times its bytes once the archive is open
        raise DataError(f"{name} holds more than {MEMBERS:,} files; an archive of inputs and targets expected")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inputs, targets = _head(name, archive, INPUTS), _head(name, archive, TARGETS)
        if inputs is None:
            held = ", ".join(each.removesuffix(".npy") for each in archive.namelist()[:20]) or "none"
            raise DataError(f"{name}: no array is called {' or '.join(INPUTS)}; it has {held}")
        given = f"{name}: inputs {inputs.shape}" + ("" if targets is None else f", targets {targets.shape}")
        samples = inputs.shape[:1]
        wrong = targets is not None and (targets.shape[:1] != samples or len(targets.shape) > 2)
        if not samples or not inputs.size or wrong:
            raise DataError(f"{given}; (M, I), and (M,) or (M, O), with M and I of 1 or more expected")
        both = {"inputs": inputs} | ({"targets": targets} if targets is not None and targets.size else {})
        free.columns(name, sum(each.size // samples[0] for each in both.values()))
        free.fits(name, sum(each.size * (each.dtype.itemsize + each.plain) for each in both.values()), len(content))
        found = {}
        for kind, each in both.items():
            with archive.open(each.member) as file:
                found[kind] = np.lib.format.read_array(file, allow_pickle=False).reshape(*samples, -1)
        return found


def _head(name: str, archive: zipfile.ZipFile, names: Sequence[str]) -> Head | None:
    """The header of the array with one of these names, or None."""
    members = [each for each in archive.infolist() if each.filename.removesuffix(".npy") in names]
    present = [each.filename.removesuffix(".npy") for each in members]
    if len(members) > 1:
        raise DataError(f"{name}: arrays {' and '.join(present)} mean the same; one of them expected")
    if not members:
        return None
    where = f"{name}: array {present[0]!r}"
    if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} is packed in another way than numpy.savez and savez_compressed have")
    with archive.open(members[0]) as file:
        head = io.BytesIO(file.read(HEAD))  # a header may say that it has gigabytes
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    if dtype.hasobject:
        raise DataError(
            f"{where} holds pickled Python objects, which can execute code and are never loaded; numbers or text "
            "expected"
        )
    if dtype.kind not in "biufU":
        raise DataError(f"{where} holds {dtype}; numbers, truth values or text expected")
    return Head(members[0], shape, dtype)
