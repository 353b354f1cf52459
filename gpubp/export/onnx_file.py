"""An ONNX file as its graph and the constants in it.

Weights are in the file, or beside it in a file of its name and `.data`, as torch's exporter writes them: no other path
in a file is opened. Refused: files that are not ONNX, and those of more than 2 GB.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SpecError, reason
from ..system import files
from .members import Array
from .onnx import MOST
from .onnx_graph import needed

TIMES = 4  # bytes of memory per byte of a file: for the file, its message and arrays


def read(path: Path) -> Any:
    """The onnx.ModelProto of a file."""
    needed()
    import onnx

    with files.trusted(path, SpecError, "it is no ONNX file"):
        model = onnx.ModelProto.FromString(_content(path))
    if not model.graph.node:
        raise SpecError(f"{path} has no nodes: it is no ONNX file of a network")
    return model


def constants(graph: Any, path: Path) -> dict[str, Array | str]:
    """The constants of a graph: arrays of float32, float64 and int64, or why one cannot be read."""
    tensors = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            found = [each.t for each in node.attribute if each.name == "value"]
            tensors |= dict.fromkeys(node.output, found[0]) if found else {}
    beside = path.with_name(f"{path.name}.data")
    content: bytes | str = b""
    if any(_location(each) == beside.name for each in tensors.values()):
        try:
            content = _content(beside)
        except OSError as error:
            content = f"is in {beside}, which cannot be read: {reason(error, str(error))}"
    return {name: _array(each, beside.name, content) for name, each in tensors.items()}


def _content(path: Path) -> bytes:
    """Raises OSError."""
    if (size := files.regular(path)) > MOST:
        raise SpecError(f"{path} has {size:,} bytes; an ONNX file of at most 2 GB expected")
    return files.read(path, TIMES)


def _location(tensor: Any) -> str | None:
    """The file that holds the numbers of a constant, or None for the graph's own."""
    from onnx import TensorProto

    if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
        return None
    return next((each.value for each in tensor.external_data if each.key == "location"), "")


def _array(tensor: Any, beside: str, content: bytes | str) -> Array | str:
    """A constant. content: of the file `beside`, or why it cannot be read."""
    from onnx import TensorProto, numpy_helper

    types = {TensorProto.FLOAT: "<f4", TensorProto.DOUBLE: "<f8", TensorProto.INT64: "<i8"}
    if tensor.data_type not in types:
        return "is of another type than float32 and float64"
    read = partial(numpy_helper.to_array, tensor)
    if (location := _location(tensor)) is not None:
        if location != beside:
            return (
                f"is outside the file, in another than {beside!r}, the only one that is opened; weights inside, or in "
                "a file of that name beside it, expected"
            )
        if isinstance(content, str):
            return content
        read = partial(_outside, tensor, content, types[tensor.data_type])
    try:
        array: Array = read()
    except (ValueError, TypeError, OverflowError):
        return "has other data than its shape says"
    return array


def _outside(tensor: Any, content: bytes, kind: str) -> Array:
    """A constant whose numbers are in `content`. Raises ValueError if they are not."""
    told = {each.key: each.value for each in tensor.external_data}
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise ValueError("a negative size")
    found = np.frombuffer(content, kind, math.prod(shape), int(told.get("offset", 0)))
    return found.astype(found.dtype.newbyteorder("="), copy=False).reshape(shape)
