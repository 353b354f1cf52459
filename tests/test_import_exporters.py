"""ONNX files of other exporters become rows: torch's old and new one, and skl2onnx of scikit-learn's MLPs.

Graphs built as they write them, and, if they are installed, their own files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gpubp
from gpubp.errors import SpecError
from gpubp.export.modules import MODULES

from .graphs import DRAW, FIRST, LAST, RELU, W1, WEIGHTS, graph, node, outside, read
from .helpers import same_bits

PLAIN = [name for name in MODULES if name != "sine"]


@pytest.mark.parametrize("name", PLAIN)
def test_files_of_torchs_exporter_are_read(name: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), MODULES[name](), nn.Linear(4, 4), MODULES[name](), nn.Linear(4, 2))
    path = tmp_path / "torch.onnx"
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(module, (torch.zeros(2, 3),), path, dynamo=False)
    assert same_bits(read(path).params, gpubp.Population.from_modules([module]).params)
    assert read(path).spec.activations == (name, name, "identity")


def test_of_weights_outside_a_file_those_beside_it_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of its name and .data; no other is opened."""
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    path, beside = tmp_path / "x.onnx", tmp_path / "x.onnx.data"
    monkeypatch.chdir(tmp_path)
    for location in ("pipe", "../x.onnx.data", f"{tmp_path}/x.onnx.data", ""):
        graph([FIRST, RELU, LAST], {**WEIGHTS, "w1": outside(location)}, path)
        with pytest.raises(
            SpecError, match=r"constant 'w1' is outside the file, in another than 'x.onnx.data', the only"
        ):
            read(path)
    graph([FIRST, RELU, LAST], {**WEIGHTS, "w1": outside(beside.name, offset="8", length="48")}, path)
    for make, what in (
        (lambda: None, "which cannot be read: No such file"),
        (lambda: os.mkfifo(beside), "which cannot be read: not a regular file"),
        (lambda: (beside.unlink(), beside.write_bytes(b"1234567" + W1.tobytes())), "has other data than its shape"),
    ):  # fmt: skip
        make()
        with pytest.raises(SpecError, match=f"constant 'w1' .*{what}"):
            read(path)
    beside.write_bytes(b"12345678" + W1.tobytes())
    whole = graph([FIRST, RELU, LAST], WEIGHTS, tmp_path / "whole.onnx")
    assert same_bits(read(path).params, read(whole).params)
    for told in ({"offset": "-8"}, {"offset": "9" * 5000}, {"offset": "first"}):
        graph([FIRST, RELU, LAST], {**WEIGHTS, "w1": outside(beside.name, **told)}, path)
        with pytest.raises(SpecError, match="other data than its shape says"):
            read(path)


def scikit_learn(classes: int, hidden: str, dtype: type) -> Any:
    """A fitted MLP of scikit-learn; `classes` 0: a regressor."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    inputs = DRAW.normal(size=(30, 3)).astype(dtype)
    kind = MLPClassifier if classes else MLPRegressor
    mlp = kind(hidden_layer_sizes=(4, 5), activation=hidden, max_iter=2, random_state=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return mlp.fit(inputs, np.arange(30) % classes if classes else inputs[:, 0])


def as_skl2onnx(mlp: Any, path: Path, zipped: bool, before: list[Any], **weights: Any) -> Path:
    """The graph that skl2onnx makes; `before`: nodes that make `scaled` of `x`."""
    nodes, at = [*before, node("Cast", "scaled" if before else "x", "cast", to=1)], "cast"
    operator, number = {"logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}[mlp.activation], 0
    for number, (weight, bias) in enumerate(zip(mlp.coefs_, mlp.intercepts_)):
        weights |= {f"w{number}": weight, f"b{number}": bias[None]}
        nodes += [node("MatMul", f"{at} w{number}", f"m{number}"), node("Add", f"m{number} b{number}", f"h{number}"),
                  node(operator, f"h{number}", at := f"a{number}")]  # fmt: skip
    nodes.pop()
    if not hasattr(mlp, "classes_"):
        nodes.append(node("Reshape", f"h{number} shape", "y"))
        return graph(nodes, {**weights, "shape": np.int64([-1, 1])}, path)
    many = len(mlp.classes_) > 2
    nodes.append(node("Softmax" if many else "Sigmoid", f"h{number}", "p"))
    if not many:
        weights["unity"] = np.float32(1)
        nodes += [node("Sub", "unity p", "n"), node("Concat", "n p", "both", axis=1)]
    at = "p" if many else "both"
    zipmap = node("ZipMap", at, "y", domain="ai.onnx.ml", classlabels_int64s=mlp.classes_)
    nodes += [zipmap if zipped else node("Identity", at, "y"), node("ArgMax", at, "best", axis=1)]
    nodes.append(node("ArrayFeatureExtractor", "classes best", "label", domain="ai.onnx.ml"))
    return graph(nodes, {**weights, "classes": mlp.classes_}, path, whole=("label",))


FITTED = [(0, "relu", False), (2, "tanh", True), (2, "relu", False), (3, "logistic", True), (3, "relu", False)]


@pytest.mark.parametrize(("classes", "hidden", "zipped"), FITTED)
def test_graphs_as_skl2onnx_writes_them_are_the_estimators_rows(
    classes: int, hidden: str, zipped: bool, tmp_path: Path
) -> None:
    mlp = scikit_learn(classes, hidden, np.float32)
    wanted = gpubp.Population.from_estimators([mlp])
    found = read(as_skl2onnx(mlp, tmp_path / "x.onnx", zipped, []), wanted.spec.loss)
    assert same_bits(found.params, wanted.params)
    assert (found.spec.widths, found.spec.activations) == (wanted.spec.widths, wanted.spec.activations)
    for before in (
        [node("Scaler", "x", "scaled", domain="ai.onnx.ml", offset=[0.0, 1, 2], scale=[1.0, 2, 3])],
        [node("Sub", "x mean", "s"), node("Div", "s mean", "scaled")],
    ):
        path = as_skl2onnx(mlp, tmp_path / "scaled.onnx", zipped, before, mean=np.float32([1, 2, 3]))
        what = f"'scaled' is what {before[-1].op_type} makes of the samples before .*; start='scaled' reads the layers"
        with pytest.raises(SpecError, match=what):
            read(path, wanted.spec.loss)
        assert same_bits(read(path, wanted.spec.loss, start="scaled").params, wanted.params)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("classes", "hidden", "zipped"), FITTED)
def test_files_of_skl2onnx_are_the_estimators_rows(
    classes: int, hidden: str, zipped: bool, dtype: type, tmp_path: Path
) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mlp, path = scikit_learn(classes, hidden, dtype), tmp_path / "x.onnx"
    samples = DRAW.normal(size=(30, 3)).astype(dtype)
    for model in (mlp, make_pipeline(StandardScaler().fit(samples), mlp)):
        options = {"options": {id(mlp): {"zipmap": zipped}}} if classes else {}
        path.write_bytes(skl2onnx.to_onnx(model, samples[:1], **options).SerializeToString())
        ends, wanted = {}, gpubp.Population.from_estimators([mlp])
        if model is not mlp:
            with pytest.raises(
                SpecError, match=r"makes of the samples before .*; start='(\w+)' reads the layers"
            ) as told:
                read(path, wanted.spec.loss)
            ends = {"start": str(told.value).split("start='")[1].split("'")[0]}
        assert same_bits(read(path, wanted.spec.loss, **ends).params, wanted.params)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_files_of_torchs_new_exporter_are_read(name: str, tmp_path: Path) -> None:
    """Also those that are too large for the file itself, and after other operators."""
    pytest.importorskip("onnxscript")
    make, path = MODULES[name], tmp_path / "torch.onnx"
    bare = nn.Sequential(nn.Linear(6, 40), make(), nn.Linear(40, 40), make(), nn.Linear(40, 2)).eval()
    for module in (bare, nn.Sequential(nn.Flatten(), nn.Identity(), *bare, nn.LogSoftmax(1)).eval()):
        sizes = ({0: torch.export.Dim("M")},) if module is bare else None
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(module, (torch.zeros(2, 6),), path, dynamo=True, dynamic_shapes=sizes, verbose=False)
        assert path.with_name("torch.onnx.data").exists()
        loss = "mean_squared_error" if module is bare else "cross_entropy"
        assert same_bits(read(path, loss).params, gpubp.Population.from_modules([bare]).params)
        assert read(path, loss).spec.activations == (name, name, "identity")
