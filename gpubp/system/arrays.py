"""tensor(): numbers by position, from tensors, arrays, data frames and lists; indices(): row numbers from indices or
masks; whole() and real(): one number; finite() and held(): checks that numbers are finite, and exact as floats.

Objects with `__array__` (NumPy, pandas, polars) are read as that array, so index labels have no effect.
Refused, with the argument's name and the position: text, missing, masked and complex values, dicts, sets (they have no
order), and rows of unequal lengths.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import ConfigError, DataError, GpubpError, ShapeError

Array = npt.NDArray[Any]
FLOATS = torch.float64, torch.float32, torch.float16, torch.bfloat16


def tensor(name: str, values: Any, error: type[GpubpError] = DataError) -> Tensor:
    """`values` as a tensor without gradient, copied only if necessary: floats of unchanged precision, int64, or bool.
    name: of the argument, for messages."""
    if isinstance(values, Tensor):
        plain = values.detach()
        if plain.is_complex() or plain.layout != torch.strided or plain.is_meta:
            raise error(f"{name} holds {plain.dtype}, {plain.layout}, on {plain.device}; plain numbers expected")
        if plain.is_quantized or (plain.is_floating_point() and plain.dtype not in FLOATS):
            raise error(f"{name} holds {plain.dtype}; {', '.join(map(str, FLOATS))}, or whole numbers, expected")
        return plain if plain.dtype == torch.bool or plain.is_floating_point() else plain.long()
    array = _array(name, values, error)
    if array.dtype.kind in "iu":
        array = array.astype(np.int64)
    elif array.dtype.kind == "f":
        array = array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="), copy=False)
    array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray turns () into (1,)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def listed(values: Any) -> list[Any]:
    """The values of any library's column as Python's."""
    given = getattr(values, "to_pylist", None) or getattr(values, "tolist", None)  # pyarrow's, or other libraries'
    return list(values) if given is None else list(given())


def column(name: str, values: Any) -> Array:
    """`values` as numbers (n,) float64, one or more. Raises ConfigError."""
    found = tensor(name, values, ConfigError)
    if found.ndim != 1 or not len(found):
        raise ConfigError(f"{name} {tuple(found.shape)}: numbers (n,), one or more, expected")
    return np.asarray(found.double().cpu())


def indices(name: str, values: Any, count: int, error: type[GpubpError] = DataError, negative: bool = False) -> Tensor:
    """The rows of `count` that `values` selects, (K,) int64: a mask of `count` truth values, or row numbers in any
    order. negative: whether -1 means the last row, as in a Python list, or is refused."""
    mixed = isinstance(values, (list, tuple)) and len({isinstance(each, (bool, np.bool_)) for each in values}) > 1
    at = tensor(name, values, error)
    if at.shape == (0,) and at.dtype != torch.bool:
        at = at.long()  # an empty list has no type
    if mixed or at.is_floating_point() or at.ndim != 1:
        holds = "truth values and numbers" if mixed else f"{str(at.dtype).removeprefix('torch.')} {tuple(at.shape)}"
        raise (ShapeError if at.ndim != 1 else error)(
            f"{name}: {holds}; whole numbers, each a row, or a mask of {count} truth values, in one dimension, expected"
        )
    if at.dtype == torch.bool:
        if len(at) != count:
            raise ShapeError(f"{name}: a mask of {len(at)} truth values; {count}, one per row, expected")
        return at.nonzero()[:, 0]
    beyond = at[(at < (-count if negative else 0)) | (at >= count)]
    if len(beyond):
        from_the_end = f", or from -{count} to -1 from the end," if negative else ""
        raise error(f"{name.removesuffix('s')} {int(beyond[0])}: a row from 0 to {count - 1}{from_the_end} expected")
    return at % count if negative else at


def whole(value: object) -> int | None:
    """`value` as an int if it is a whole number (Python, NumPy or torch) and not a truth value; else None."""
    if "bool" in str(getattr(value, "dtype", type(value))):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def count(name: str, value: object, least: int = 1) -> int:
    """`value` as an int. Raises ConfigError unless it is a whole number of `least` or more."""
    number = whole(value)
    if number is None or number < least:
        raise ConfigError(f"{name} {value!r}: a whole number of {least} or more expected")
    return number


def real(value: object) -> float | None:
    """`value` as a float if it is one finite number (Python, NumPy or torch) and not a truth value; else None."""
    if (
        isinstance(value, (str, bytes))
        or "bool" in str(getattr(value, "dtype", type(value)))
        or getattr(value, "ndim", None)
    ):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def held(name: str, given: Tensor, floats: Tensor) -> Tensor:
    """`floats`, which must equal the whole numbers `given`. Raises DataError that names the first that differs."""
    place = (floats.to(given.device, given.dtype) != given).nonzero()
    if len(place):
        at = tuple(place[0].tolist())
        kind = str(floats.dtype).removeprefix("torch.")
        advice = "numbers of at most 2^53" if floats.dtype == torch.float64 else "smaller ones, or networks of float64"
        raise DataError(
            f"{name}{list(at)} is {int(given[at])}, one of {len(place)} whole numbers that {kind} cannot hold; "
            f"{advice} expected, or floats, which may be rounded"
        )
    return floats


def finite(name: str, numbers: Tensor) -> None:
    """Raise DataError that names the first of `numbers` that is NaN or infinite."""
    if numbers.is_floating_point() and not bool(numbers.isfinite().all()):
        place = (~numbers.isfinite()).nonzero()
        at = tuple(place[0].tolist())
        raise DataError(
            f"{name}{list(at)} is {float(numbers[at])}, one of {len(place)} numbers that are NaN or infinite; "
            "finite numbers expected"
        )


def _array(name: str, values: Any, error: type[GpubpError]) -> Array:
    """`values` as an array of floats, whole numbers or truth values."""
    if isinstance(values, (Mapping, set, frozenset, str, bytes)):
        raise error(f"{name} is a {type(values).__name__}; an ordered list or array of numbers expected")
    if np.ma.is_masked(values):
        raise error(f"{name} holds masked values; numbers everywhere expected")
    try:
        if not hasattr(values, "__array__") and isinstance(values, Iterable):
            values = [each.detach().cpu().numpy() if isinstance(each, Tensor) else each for each in values]
        array = np.asarray(values)
        if array.dtype.kind == "O":  # columns of several types, or of a pandas type
            array = np.array(array.tolist())
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise error(f"{name}: {type(values).__name__}; numbers, in rows of equal length, expected") from None
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "u" and array.size and int(array.max()) >= 1 << 63):
        raise error(
            f"{name} holds {_culprit(values, array)}; numbers of at most 64 bits, with a sign, or truth values expected"
        )
    return array


def _culprit(values: Any, array: Array) -> str:
    """The first value that is not a number, and its position."""
    each = np.asarray(values, dtype=object) if array.dtype.kind in "OU" else array
    for at, value in np.ndenumerate(each):
        if not isinstance(value, (int, float, np.number, np.bool_)):
            return f"{type(value).__name__} {value!r} at {list(at)}"
    return str(array.max() if array.dtype.kind == "u" else array.dtype)


def in_short(value: Any) -> Any:
    """A number as it is; an array that holds only one number, once or repeated, as that number; others as a summary."""
    many = tensor("numbers", value) if isinstance(value, (Tensor, list, tuple)) else None
    if many is not None and many.numel() and bool((many == many.flatten()[0]).all()):
        return many.flatten()[0].item()
    if many is not None:
        return f"{many.numel()} numbers from {float(many.min()):g} to {float(many.max()):g}"
    return value


def plain(name: str, value: Any, error: type[GpubpError]) -> Any:
    """The value as a checkpoint and a YAML file can hold it: Python's numbers for NumPy's, tensors without a gradient
    for arrays."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    if all(each is None or (isinstance(each, (int, float)) and not isinstance(each, np.generic)) for each in parts):
        return value
    numbers = tensor(name, value, error)
    return numbers if numbers.ndim or isinstance(value, Tensor) else numbers.item()


def floats(name: str, numbers: Tensor) -> Tensor:
    """Floats unchanged; whole numbers and truth values as floats that hold them exactly. Raises DataError."""
    if numbers.is_floating_point():
        return numbers
    single = numbers.float()
    return single if torch.equal(single.to(numbers.dtype), numbers) else held(name, numbers, numbers.double())
