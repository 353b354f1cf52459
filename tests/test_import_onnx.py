"""ONNX files become rows: those that export() wrote to the same bits, and chains written in other ways; everything else
is refused in one sentence, whatever the bytes are."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

import gpubp
from gpubp.errors import GpubpError, SpecError
from gpubp.populations import Populations
from gpubp.results.model import Model

from .graphs import B1, B2, DRAW, FIRST, LAST, RELU, W1, W2, WEIGHTS, graph, node, outside, read
from .helpers import covering, population, quick, same_bits
from .mutated_arrays import onnx_file
from .mutations import damaged
from .tolerances import EXPORTED


@pytest.mark.parametrize(
    ("hidden", "dtype", "bias", "count"),
    covering(gpubp.ACTIVATIONS, [torch.float32, torch.float64], ["neuron", "none"], [1, 3], meet=1),
)
def test_rows_survive_onnx(hidden: str, dtype: torch.dtype, bias: str, count: int, tmp_path: Path) -> None:
    for loss, output in (("cross_entropy", "identity"), ("mean_squared_error", hidden), ("poisson", "identity")):
        spec = gpubp.NetworkSpec((4, 5, 3, 2), hidden, output, loss, bias)
        networks = population(spec, count, dtype)
        back = read(Model(networks).export(tmp_path / "networks.onnx", range(count)), loss)
        assert (back.spec.activations, back.spec.loss) == (spec.activations, loss)
        assert same_bits(back.params, networks.params)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_file_of_several_topologies_is_read_one_by_one(prepared: bool, tmp_path: Path) -> None:
    data = gpubp.load_data("iris")
    specs = [gpubp.NetworkSpec((4, *hidden, 3), "tanh", loss=data.loss) for hidden in ((4,), (5, 2), (4,))]
    each = [population(spec, count, torch.float32) for spec, count in zip(specs, (2, 3, 1))]
    places = tuple(torch.tensor(some) for some in ([0, 3], [1, 2, 5], [4]))
    model = Model(Populations(tuple(each), places), data.preparation if prepared else None)
    path = model.export(tmp_path / "networks.onnx", range(6))
    with pytest.raises(SpecError, match="has 3 topologies, and a population has one: ends outs_0, outs_1, outs_2;"):
        read(path, data.loss)
    for at, networks in enumerate(each):
        back = read(path, data.loss, end=f"outs_{at}")
        assert back.spec.widths == networks.spec.widths
        assert same_bits(back.params, networks.params)
    with pytest.raises(SpecError, match="end 'outs_3' is no tensor"):
        read(path, data.loss, end="outs_3")


def test_a_network_from_onnx_is_what_it_was_without_the_preparation_around_it(tmp_path: Path) -> None:
    data = gpubp.load_data("iris")
    spec = gpubp.NetworkSpec((4, 5, 3), "tanh", loss=data.loss)
    networks = population(spec, 3, torch.float32)
    path = Model(networks, data.preparation).export(tmp_path / "networks.onnx", [0, 1, 2])
    back = gpubp.Population.from_onnx([path], data.loss, networks.seed)
    assert back.spec.to_dict() == {**spec.to_dict(), "hidden": ["tanh"]}
    assert same_bits(back.params, networks.params)
    assert (back.seed, back.ids.tolist()) == (networks.seed, networks.ids.tolist()), "so it trains on as they do"
    alone = [Model(networks, data.preparation).export(tmp_path / f"{row}.onnx", [row]) for row in range(3)]
    assert same_bits(gpubp.Population.from_onnx(alone, data.loss).params, networks.params)


WAYS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "MatMul and Add": ([node("MatMul", "x w1", "m"), node("Add", "m b1", "h"), RELU, LAST], {}),
    "the bias first": ([node("MatMul", "x w1", "m"), node("Add", "b1 m", "h"), RELU, LAST], {}),
    "a bias (1, O)": ([FIRST, RELU, LAST], {"b1": B1[None]}),
    "a transposed weight": (
        [node("Gemm", "x w1 b1", "h", transB=1, alpha=1.0, beta=1.0), RELU, LAST], {"w1": W1.T.copy()}),
    "Identity and Cast on the way": (
        [FIRST, node("Identity", "h", "i"), node("Relu", "i", "r"), node("Cast", "r", "a", to=1), LAST], {}),
    "weights as nodes": (
        [node("Constant", "", "c", value=numpy_helper.from_array(W1)), node("Gemm", "x c b1", "h"), RELU, LAST], {}),
    "gelu by half of x": (
        [FIRST, node("Div", "h root", "d"), node("Erf", "d", "e"), node("Add", "one e", "s"), node("Mul", "s h", "t"),
         node("Mul", "t half", "a"), LAST], {}),
    "Gelu": ([FIRST, node("Gelu", "h", "a"), LAST], {}),
    "Gelu by tanh": ([FIRST, node("Gelu", "h", "a", approximate="tanh"), LAST], {}),
    "nothing between layers": ([FIRST, node("Gemm", "h w2 b2", "y")], {}),
    "an activation of the output": ([FIRST, RELU, node("Gemm", "a w2 b2", "z"), node("Tanh", "z", "y")], {}),
    "Flatten before and between": (
        [node("Flatten", "x", "f"), node("Gemm", "f w1 b1", "h"), node("Relu", "h", "r"), node("Flatten", "r", "a"),
         LAST], {}),
    "Reshape before and behind": (
        [node("Reshape", "x wide", "f"), node("Gemm", "f w1 b1", "h"), RELU, node("Gemm", "a w2 b2", "z"),
         node("Reshape", "z two", "y")], {"wide": np.int64([-1, 3]), "two": np.int64([0, 2])}),
    "a shape that is computed": (
        [node("Shape", "x", "s", start=0, end=1), node("Concat", "s rest", "shape", axis=0),
         node("Reshape", "x shape", "f"), node("Gemm", "f w1 b1", "h"), RELU, LAST], {"rest": np.int64([-1])}),
    "samples of one number in a row": (
        [node("Cast", "x", "c", to=1), node("Gemm", "c w1 b1", "h"), RELU, node("Gemm", "a w4 b4", "z"),
         node("Squeeze", "z last", "s"), node("Reshape", "s all", "y")],
        {"w4": W2[:, :1].copy(), "b4": B2[:1], "last": np.int64([-1]), "all": np.int64([-1])}),
    "softplus with a threshold": (
        [FIRST, node("Softplus", "h", "p"), node("Greater", "h far", "g"), node("Where", "g h p", "a"), LAST],
        {"far": np.float32(20)}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_chain_is_read_in_whatever_way_it_is_written(way: str, tmp_path: Path) -> None:
    nodes, own = WAYS[way]
    path = graph(nodes, {**WEIGHTS, **own}, tmp_path / "x.onnx")
    inputs = DRAW.normal(size=(9, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (said,) = session.run(["y"], {"x": inputs})
    found = read(path).predict(inputs)[0].numpy().reshape(said.shape)
    assert np.abs(found - said).max() <= EXPORTED[torch.float32] * np.abs(said).max()


def test_the_function_of_the_loss_is_no_activation_of_the_output(tmp_path: Path) -> None:
    for loss, operator in (
        ("cross_entropy", "LogSoftmax"), ("cross_entropy", "Softmax"), ("binary_cross_entropy", "Sigmoid"),
        ("poisson", "Exp"),
    ):  # fmt: skip
        nodes = [FIRST, RELU, node("Gemm", "a w2 b2", "z"), node(operator, "z", "y")]
        path = graph(nodes, WEIGHTS, tmp_path / "x.onnx")
        assert read(path, loss).spec.activations == ("relu", "identity")
    assert read(graph(nodes[:3], WEIGHTS, tmp_path / "z.onnx", ("z",)), "poisson").spec.output == "identity"
    with pytest.raises(SpecError, match=r"tensor 'y' is Exp\(x\), where x is \['z'\], as loss 'poisson' has it"):
        read(path)


def test_the_ends_of_the_chain_can_be_named(tmp_path: Path) -> None:
    nodes = [node("Sub", "x one", "scaled"), node("Gemm", "scaled w1 b1", "h"), RELU, LAST,
             node("ArgMax", "y", "label", axis=1)]  # fmt: skip
    path = graph(nodes, WEIGHTS, tmp_path / "x.onnx", ("y", "label"))
    assert read(path, start="scaled", end="y").spec.widths == (3, 4, 2)
    for ends, what in (
        ({}, r"has ends y, label; end= with one of them expected"),
        ({"end": "y"}, r"'scaled' is what Sub makes of the samples before the first layer, .*; start='scaled' reads"),
        ({"end": "z"}, "end 'z' is no tensor of the graph"),
        ({"end": "label"}, r"tensor 'label' is ArgMax\[axis=1\]\(x\)"),
    ):
        with pytest.raises(SpecError, match=what):
            read(path, **ends)


def changed(array: np.ndarray, **fields: Any) -> TensorProto:
    tensor = numpy_helper.from_array(array, "w1")
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


UNSUITABLE: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "an operator": ([FIRST, node("Mish", "h", "a"), LAST], {}, r"tensor 'a' is Mish\(x\)"),
    "another domain": ([FIRST, node("Relu", "h", "a", domain="evil"), LAST], {}, r"tensor 'a' is evil.Relu\(x\)"),
    "another slope": ([FIRST, node("LeakyRelu", "h", "a", alpha=0.3), LAST], {}, r"LeakyRelu\[alpha=0.3\]\(x\)"),
    "another ELU": ([FIRST, node("Elu", "h", "a", alpha=2.0), LAST], {}, r"Elu\[alpha=2\]\(x\)"),
    "a skip": ([FIRST, node("Relu", "h", "r"), node("Gemm", "r w3", "s"), node("Add", "s h", "a"), LAST],
               {"w3": np.eye(4, dtype=np.float32)}, "tensor 'a' is an activation of several tensors"),
    "a loop": ([node("Gemm", "a w3", "h"), RELU, node("Gemm", "a w2", "y")], {"w3": np.eye(4, dtype=np.float32)},
               "tensor 'a' is Relu"),
    "a function in itself": ([FIRST, node("Relu", "a", "a"), LAST], {}, "tensor 'a' takes more than 16 operators"),
    "a tower of sums": ([FIRST, *(node("Add", f"{a} {a}", b) for a, b in zip(["h", *"pqrstuvwz"], [*"pqrstuvwz", "a"])),
                         LAST], {}, "takes more operators than any activation"),
    "alpha": ([node("Gemm", "x w1 b1", "h", alpha=2.0), RELU, LAST], {}, "Gemm with alpha or beta other than 1"),
    "transA": ([node("Gemm", "x w1 b1", "h", transA=1), RELU, LAST], {}, "or with transA"),
    "a computed weight": ([node("Relu", "w1", "w"), node("Gemm", "x w b1", "h"), RELU, LAST], {},
                          "'h' is Gemm without a constant weight"),
    "a matrix from the left": ([node("MatMul", "w1 x", "h"), RELU, LAST], {}, "what Relu makes of the samples before"),
    "a bias of a few layers": ([node("MatMul", "x w1", "h"), RELU, LAST], {}, "some layers have a bias and some"),
    "layers that do not fit": ([FIRST, RELU, node("Gemm", "a w3 b2", "y")], {"w3": np.ones((7, 2), np.float32)},
                               "is followed by one of"),
    "a bias of another width": ([FIRST, RELU, LAST], {"b1": np.ones(3, np.float32)}, r"\(1, 3, 4\) and \(3,\), which"),
    "a weight of four dimensions": ([node("MatMul", "x w1", "h"), RELU, LAST], {"w1": W1[None, None]}, "no layer's"),
    "an empty weight": ([FIRST, RELU, LAST], {"w1": W1[:0]}, "no layer's"),
    "two types": ([FIRST, RELU, LAST], {"w2": W2.astype(float), "b2": B2.astype(float)}, "float32 and in float64"),
    "two types in a layer": ([FIRST, RELU, LAST], {"b1": B1.astype(float)}, "layers in float32 and in float64"),
    "whole numbers": ([FIRST, RELU, LAST], {"w1": W1.astype(np.int64)}, "constant 'w1' is of another type"),
    "half precision": ([FIRST, RELU, LAST], {"w1": W1.astype(np.float16)}, "constant 'w1' is of another type"),
    "NaN": ([FIRST, RELU, LAST], {"w1": W1 * np.float32(np.nan)}, "has weights that are NaN or infinite"),
    "more numbers than there are": ([FIRST, RELU, LAST], {"w1": changed(W1, dims=[3, 1 << 40])}, "other data than its"),
    "a negative size": ([FIRST, RELU, LAST], {"w1": changed(W1, dims=[-3, -4])}, "'w1'|no layer's"),
    "an unknown type": ([FIRST, RELU, LAST], {"w1": changed(W1, data_type=99)}, "constant 'w1' is of another type"),
    "a file outside": ([FIRST, RELU, LAST], {"w1": outside("/etc/passwd")}, "constant 'w1' is outside the file"),
    "no layer": ([node("Relu", "x", "y")], {}, r"tensor 'y' is Relu\(x\), where x is \['x'\]"),
    "all in one": ([FIRST, RELU, node("Flatten", "a", "f", axis=0), node("Gemm", "f w2 b2", "y")], {}, "is Flatten"),
    "outputs as samples": ([FIRST, RELU, node("Gemm", "a w2 b2", "z"), node("Reshape", "z one", "y")],
                           {"one": np.int64([-1, 1])}, "tensor 'y' has samples of 1 numbers; 2 expected"),
    "outputs in a row": ([FIRST, RELU, node("Gemm", "a w2 b2", "z"), node("Squeeze", "z one", "y")],
                         {"one": np.int64([1])}, "tensor 'y' has samples of 1 numbers; 2 expected"),
    "inputs of other samples": ([node("Reshape", "x six", "f"), node("Gemm", "f w1 b1", "h"), RELU, LAST],
                                {"six": np.int64([-1, 6])}, "tensor 'f' has samples of 6 numbers; 3 expected"),
    "a shape of itself": ([FIRST, RELU, node("Concat", "s s", "s", axis=0), node("Reshape", "a s", "f"),
                           node("Gemm", "f w2 b2", "y")], {}, "tensor 'f' is Reshape|takes more than 16"),
    "whole numbers between": ([FIRST, node("Cast", "h", "a", to=7), LAST], {}, r"tensor 'a' is Cast\[to=7\]\(x\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUITABLE)
def test_graphs_that_are_no_such_networks_are_refused_with_their_tensor(name: str, tmp_path: Path) -> None:
    nodes, own, what = UNSUITABLE[name]
    path = graph(nodes, {**WEIGHTS, **own}, tmp_path / "x.onnx")
    with pytest.raises(SpecError, match=what) as told:
        read(path)
    assert str(told.value).startswith(str(path))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    good, other = graph([FIRST, RELU, LAST], WEIGHTS, tmp_path / "x.onnx"), tmp_path / "other.onnx"
    nothing: list[Callable[[], object]] = [
        lambda: other.write_text("not ONNX"), lambda: other.write_bytes(b""), lambda: other.unlink(),
        lambda: os.mkfifo(other),
    ]  # fmt: skip
    for make in nothing:
        make()
        with pytest.raises(SpecError, match=r"other.onnx (cannot be read|has no nodes)"):
            read(other)
    with pytest.raises(SpecError, match="one file or more, got none"):
        gpubp.Population.from_onnx([])
    with pytest.raises(SpecError, match=r"takes several files: \[path\]"):
        gpubp.Population.from_onnx(good)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="loss 'mse' is unknown"):
        read(good, "mse")
    wide = graph([FIRST, node("Tanh", "h", "a"), LAST], WEIGHTS, tmp_path / "wide.onnx")
    with pytest.raises(SpecError, match=r"wide.onnx is NetworkSpec.*; one topology expected"):
        gpubp.Population.from_onnx([good, wide])


def test_a_file_larger_than_onnx_can_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk
    with pytest.raises(SpecError, match=r"1,099,511,627,776 bytes; an ONNX file of at most 2 GB"):
        read(path)


@pytest.mark.parametrize("first", quick([0, 150], [0]))
def test_damaged_bytes_are_refused_or_read_and_nothing_else(first: int, tmp_path: Path) -> None:
    """Of 150 files with something done to their bytes, or to what these say."""
    good, refused = graph(*WAYS["gelu by half of x"][:1], WEIGHTS, tmp_path / "x.onnx").read_bytes(), list[str]()
    for seed in range(first, first + 150):
        content = damaged(good, random.Random(seed))[0] if seed % 3 else onnx_file(random.Random(seed), good)
        (tmp_path / "bad.onnx").write_bytes(content)
        try:
            assert read(tmp_path / "bad.onnx").params.isfinite().all()
        except GpubpError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert [each for each in refused if len(each.splitlines()) > 1] == []
