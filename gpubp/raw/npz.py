"""arrays(): the inputs and targets of an .npz archive, as numpy.savez writes it.

An archive's directory says what it unpacks to, which may be a thousand times its size; no more is unpacked. Refused,
with the file and the array: arrays with other names, of one name twice, of shapes that do not match, larger than free
memory, and pickles, which could execute code.
"""

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..system import free
from ..system.arrays import Array
from .arrow import NUMBER, TEXT

INPUTS = ("inputs", "X", "x")  # names of arrays
TARGETS = ("targets", "y")


def arrays(name: str, content: bytes) -> dict[str, Array]:
    """inputs (M, I) and targets (M, O), if any, of the archive `name`. Raises DataError."""
    if not content.startswith(b"PK"):
        raise DataError(f"{name} is not an .npz archive, as numpy.savez writes it")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [each for names in (INPUTS, TARGETS) for each in _members(name, archive, names)]
        if not members or _bare(members[0]) not in INPUTS:
            held = ", ".join(map(_bare, archive.infolist()[:20])) or "none"
            raise DataError(f"{name}: no array is called {' or '.join(INPUTS)}; it has {held}")
        free.fits(name, 2 * sum(each.file_size for each in members), len(content))
        inputs, *targets = (_read(name, archive, each) for each in members)
    if any(each.shape[:1] != inputs.shape[:1] or each.ndim > 2 for each in targets) or not inputs.size:
        given = f"inputs {inputs.shape}" + "".join(f", targets {each.shape}" for each in targets)
        raise DataError(f"{name}: {given}; (M, I), and (M,) or (M, O), with M and I of 1 or more expected")
    both = {kind: each.reshape(len(inputs), -1) for kind, each in zip(("inputs", "targets"), (inputs, *targets))}
    free.columns(name, sum(each.shape[1] for each in both.values()))
    plain = {kind: NUMBER if each.dtype.kind != "U" else TEXT + each.itemsize for kind, each in both.items()}
    free.fits(name, sum(each.size * plain[kind] for kind, each in both.items()), len(content))
    return {kind: each for kind, each in both.items() if each.size}


def _bare(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _members(name: str, archive: zipfile.ZipFile, names: Sequence[str]) -> list[zipfile.ZipInfo]:
    """The array with one of these names, if there is one."""
    found = [each for each in archive.infolist() if _bare(each) in names]
    if len(found) > 1:
        raise DataError(f"{name}: arrays {' and '.join(map(_bare, found))} mean the same; one of them expected")
    return found


def _read(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """An array of the archive."""
    with archive.open(member) as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            if "Object arrays" not in str(error):
                raise
            raise DataError(
                f"{name}: array {_bare(member)!r} holds pickled Python objects, which can execute code and are never "
                "loaded; numbers or text expected"
            ) from None
