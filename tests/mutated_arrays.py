"""Binary files that are right in form and wrong in what they say: arrays, tables and networks."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import torch
from onnx import helper, numpy_helper
from pyarrow import parquet
from safetensors.torch import load, save

from .mutations import CELLS, JUNK, NAMES, Chance, elsewhere

TEXTS = [each.encode(errors="replace").decode() for each in NAMES]


class Trap:
    """Unpickled, it makes a directory in the working directory."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def _head(shape: Any, dtype: str, more: str = "") -> bytes:
    """The header of an array, whatever it says."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, {more}}}".encode().ljust(64)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 65535)) + text


def npz(chance: Chance, _: bytes) -> bytes:
    """Headers that lie, or are as long as a bomb, pickles, zip bombs of every compression, other names and types, names
    twice and without a suffix, thousands of files, arrays that do not match."""
    stream = io.BytesIO()
    shapes = ["(8, 2)", "(8,)", "()", "(0, 2)", "(2**40, 2)", f"({2**40}, {2**40})", "(-1, 2)", "(8, 10**9)",
              f"({2**28}, 2)", "(8, 2, 1)", "(True, 2)", "(8.0, 2)", "('8', 2)", "(" * 90 + ")" * 90,
              "__import__('os').mkdir('executed')"]  # fmt: skip
    types = ["'<f8'", "'<f4'", "'<f2'", "'|O'", "'<U8'", "'<U500000000'", "'<c16'", "'|b1'", "'<u8'", "'>i4'",
             "'<M8[s]'", "'|V8'", "[('a', '<f8')]", "'<f16'", "'S3'"]  # fmt: skip
    arrays = [np.arange(8), np.array(CELLS), np.full((8, 2), np.nan), np.full(8, 2**63, np.uint64), np.eye(8) > 0,
              np.array(["x\0", "\ud800"]), np.full(8, 1e308), np.full((8, 2), np.float32(1e38))]  # fmt: skip
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    names = chance.sample(["inputs", "targets", "X", "y", "x", "../inputs", "other"], chance.randint(1, 4))
    if chance.random() < 0.3:
        names += chance.choices(names, k=2)
    if chance.random() < 0.05:
        names += map(str, range(10_001))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(stream, "w", chance.choice(methods)) as archive:
        for name in names:
            kind = chance.choice(["right", "lie", "lie", "pickle", "array", "bomb", "raw", "long", "zeros"])
            if kind == "raw" or name.isdecimal():
                body = chance.choice([b"", pickle.dumps(Trap()), b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(100)])
            elif kind == "right":
                body = _head("(8, 2)" if name in ("inputs", "X", "x") else "(8,)", "'<f8'") + np.arange(16.0).tobytes()
            elif kind == "lie":
                body = _head(chance.choice(shapes), chance.choice(types)) + bytes(chance.choice([0, 64, 128, 4096]))
            elif kind == "pickle":
                body = _head("(8,)", "'|O'") + pickle.dumps(Trap())
            elif kind == "bomb":
                rows = chance.choice([1 << 12, 1 << 16, 1 << 20])
                body = _head(f"({rows}, 2)", "'<f8'") + bytes(16 * rows)
            elif kind == "long":
                size = chance.choice([10_001, 1 << 24, 2**32 - 1])
                body = b"\x93NUMPY\x02\x00" + struct.pack("<I", size) + b" " * min(size, 1 << 24)
            elif kind == "zeros":
                body = bytes(1 << 24)
            else:
                inside = io.BytesIO()
                np.save(inside, chance.choice(arrays), allow_pickle=False)
                body = inside.getvalue()
            archive.writestr(f"{name}{chance.choice(['.npy', '.npy', '.npy', '', '.npy.npy'])}", body)
    return stream.getvalue()


def parquet_file(chance: Chance, whole: bytes) -> bytes:
    """Other names and types, texts that a dictionary repeats, columns of one value for many rows."""
    rows = chance.choice([0, 1, 8, 8, 8, 8, 1 << 14, 1 << 20])
    few = min(rows, 100)
    kinds: list[Callable[[], Any]] = [
        lambda: pa.array(np.zeros(rows)),
        lambda: pa.array(np.arange(rows) % 2),
        lambda: pa.array(np.full(rows, np.inf)),
        lambda: pa.array(np.full(rows, 2**63, np.uint64)),
        lambda: pa.array(np.arange(rows).astype("datetime64[s]")),
        lambda: pa.nulls(rows),
        lambda: pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["A" * (1 << 19)])),
        lambda: pa.array(chance.choices(CELLS, k=few)),
        lambda: pa.array([[1, 2]] * few),
        lambda: pa.array([b"\xff\xfe"] * few),
        lambda: pa.array([{"a": 1}] * few),
        lambda: pa.array(["x", None] * (few // 2) + ["y"] * (few % 2)),
    ]
    chosen = [*chance.sample(TEXTS, chance.randint(0, 3)), "y", "a", *chance.choice([[], [], [], [], ["y"]])]
    arrays = [chance.choice(kinds)() for _ in chosen]
    arrays = [each if len(each) == rows else each.take(pa.array(np.arange(rows) % max(few, 1))) for each in arrays]
    table = pa.Table.from_arrays(arrays, names=chosen)
    if chance.random() < 0.3:
        deep = b"[" * 5000 if chance.random() < 0.5 else b"\xff\x00"
        table = table.replace_schema_metadata({b"pandas": deep, b"ARROW:schema": deep})
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression=chance.choice(["none", "snappy", "zstd", "gzip"]))
    return stream.getvalue()


def results(chance: Chance, whole: bytes) -> bytes:
    """A results table, without its digest, of other names, types, keys and sizes."""
    table = parquet.read_table(io.BytesIO(whole))
    meta = {key: value for key, value in (table.schema.metadata or {}).items() if b"sha256" not in key}
    at, names, rows = chance.randrange(table.num_columns), list(table.column_names), len(table)
    kind = chance.choice(["name", "keys", "type", "type", "more", "rows", "gone"])
    junk = [None, chance.choice(CELLS[:9]), -1, [1], 2**62, float("nan"), "diverged"]
    column = pa.array([chance.choice(junk)] * rows)
    if kind == "name":
        names[at] = chance.choice(TEXTS)
    elif kind == "keys":
        meta = {key: json.dumps(chance.choice([*JUNK, [*NAMES[:5]], [1], names])).encode() for key in meta}
        meta = {key: chance.choice([value, b"[" * 100_000, b"\xff"]) for key, value in meta.items()}
    elif kind == "type":
        table = table.set_column(at, names[at], column)
    elif kind == "more":
        names.append(chance.choice(TEXTS))
        table = table.append_column("more", column)
    elif kind == "rows":
        table = table.take(pa.array(np.zeros(chance.choice([0, 1, 1 << 20]), int)))
    else:
        table, names = table.remove_column(at), names[:at] + names[at + 1 :]
    stream = io.BytesIO()
    parquet.write_table(table.rename_columns(names).replace_schema_metadata(meta), stream)
    return stream.getvalue()


def onnx_file(chance: Chance, whole: bytes) -> bytes:
    """Dims that lie, data outside, other types and operators, circles, deep and wide expressions."""
    model = onnx.ModelProto.FromString(whole)
    graph = model.graph
    tensor, node = chance.choice(graph.initializer), chance.choice(graph.node)
    kind = chance.choice(["dims", "outside", "type", "operator", "circle", "deep", "wide", "names", "gone", "values",
                          "subgraph", "constant"])  # fmt: skip
    if kind == "dims":
        tensor.dims[:] = chance.choice([[2**62, 2], [-1, 2], [0, 0], [2**31, 2**31], [1] * 70, [], [2**40]])
    elif kind == "outside":
        tensor.data_location = onnx.TensorProto.EXTERNAL
        location = chance.choice(["/etc/passwd", "../x", "pipe", "\x1b[2J", "nul\0"])
        for key, told in (("location", location), ("length", str(2**62))):
            tensor.external_data.add(key=key, value=told)
    elif kind == "type":
        tensor.data_type = chance.choice([0, 2, 8, 10, 14, 16, 22, 99])
    elif kind == "operator":
        node.op_type = chance.choice(["Loop", "If", "Identity", "Cast", "Gemm", "MatMul", "Add", "Softmax", *NAMES[:8]])
    elif kind == "circle":
        node.input[:] = chance.sample([node.output[0], *node.input[1:]], max(1, len(node.input)))
    elif kind in ("deep", "wide"):
        last = graph.output[0].name
        for at in range(chance.choice([20, 2000])):
            given = [last] * (1 if kind == "deep" else chance.choice([2, 50]))
            last = f"n{at}"
            graph.node.append(helper.make_node(chance.choice(["Add", "Identity", "Max", "Mul"]), given, [last]))
        graph.output[0].name = last
    elif kind == "names":
        for each in graph.node:
            each.output[0] = chance.choice(TEXTS)
    elif kind == "gone":
        del graph.node[chance.randrange(len(graph.node)) :]
    elif kind == "values":
        array = np.full(tuple(tensor.dims), chance.choice([np.nan, np.inf, 1e38, 0]), np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    elif kind == "subgraph":
        inner = helper.make_graph([], "inner", [], [])
        for _ in range(chance.choice([1, 30])):
            inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "inner", [], [])
        node.attribute.append(helper.make_attribute("body", inner))
    else:
        graph.node.append(helper.make_node("Constant", [], [tensor.name], value_string=b"\xff"))
    return model.SerializeToString()


def _another(chance: Chance, tensor: torch.Tensor) -> torch.Tensor:
    """In the place of `tensor` one of another shape or type, or with other values."""
    wrong = [torch.zeros(0), torch.full_like(tensor.double(), torch.nan), tensor[..., :1].clone(), torch.zeros(1 << 16),
             torch.full_like(tensor.long(), 2**62), tensor.bool()]  # fmt: skip
    return chance.choice(wrong)


def rows_of_a_shard(chance: Chance, whole: bytes) -> bytes:
    """Rows of other shapes, types and values, or not there."""
    tensors = load(whole)
    name = chance.choice(sorted(tensors))
    tensors[name] = _another(chance, tensors[name])
    if chance.random() < 0.3:
        del tensors[name]
    return bytes(save(tensors))


def safetensors_file(chance: Chance, whole: bytes) -> bytes:
    """Headers that lie about shapes, offsets and lengths, and metadata that say something else."""
    (size,) = struct.unpack("<Q", whole[:8])
    head, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    name = chance.choice([each for each in head if each != "__metadata__"])
    lies: dict[str, list[Any]] = {
        "shape": [[2**62], [-1], [0], [2**40, 0], ["x"], [1e9], 3, [1] * 100],
        "data_offsets": [[0, 2**62], [-1, 8], [8, 0], [0, 0], [0], "x"],
        "dtype": ["F64", "F16", "BOOL", "U64", "F8_E4M3", "x", 3],
    }
    kind = chance.choice([*lies, "length", "deep", "about", "about", "about", "name", "gone", "tensor", "results"])
    if kind in lies:
        head[name][kind] = chance.choice(lies[kind])
    elif kind == "length":
        return struct.pack("<Q", chance.choice([0, 1, size - 1, 2**31, 2**63, 99_999_999])) + whole[8:]
    elif kind == "name":
        head[chance.choice(TEXTS)] = head.pop(name)
    elif kind == "gone":
        del head[name]
    elif kind in ("tensor", "results"):
        tensors = load(whole)
        tensors[name] = _another(chance, tensors[name])
        if kind == "results":
            tensors["results"] = torch.frombuffer(bytearray(parquet_file(chance, b"")), dtype=torch.uint8)
        return bytes(save(tensors, head["__metadata__"]))
    elif kind == "about":
        text = json.dumps(elsewhere(json.loads(head["__metadata__"]["gpubp"]), chance)[0])
        odd = ["[" * 100_000, '{"format":' * 50_000, "NaN", "9" * 5000, '"\\ud800"', "null"]
        head["__metadata__"]["gpubp"] = chance.choice(odd) if chance.random() < 0.1 else text
    text = json.dumps(head) if kind != "deep" else chance.choice(["[", '{"a":']) * 50_000
    return struct.pack("<Q", len(text.encode())) + text.encode() + body
