"""ONNX files of small graphs, for tests of what reads them."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import gpubp


def read(path: Path, loss: str = "mean_squared_error", **ends: str) -> gpubp.Population:
    return gpubp.Population.from_onnx([path], loss, **ends)


def graph(
    nodes: list[Any], weights: dict[str, Any], path: Path, outputs: tuple[str, ...] = ("y",),
    whole: tuple[str, ...] = (), width: int = 3,
) -> Path:  # fmt: skip
    """A file of these nodes from `x` (M, width). whole: outputs that are whole numbers."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", width])],
        [*(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in whole),
         *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)],
        [each if isinstance(each, TensorProto) else numpy_helper.from_array(np.asarray(each), name)
         for name, each in weights.items()],
    )  # fmt: skip
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 1)]
    path.write_bytes(helper.make_model(made, opset_imports=sets, ir_version=9).SerializeToString())
    return path


def node(kind: str, inputs: str, out: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [out], **attributes)


DRAW = np.random.default_rng(1)
W1, B1, W2, B2 = (DRAW.normal(size=size).astype(np.float32) for size in ((3, 4), (4,), (4, 2), (2,)))
ONE, HALF, ROOT = np.float32([1]), np.float32(0.5), np.float32([np.sqrt(2)])
WEIGHTS = {"w1": W1, "b1": B1, "w2": W2, "b2": B2, "one": ONE, "half": HALF, "root": ROOT}
FIRST, LAST = node("Gemm", "x w1 b1", "h"), node("Gemm", "a w2 b2", "y")
RELU = node("Relu", "h", "a")


def outside(location: str, **told: str) -> TensorProto:
    tensor = numpy_helper.from_array(W1, "w1")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **told}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor
