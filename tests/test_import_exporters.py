"""ONNX files of other exporters become rows: torch's old and new one, and skl2onnx of scikit-learn's MLPs.

Their own files, where they are installed."""

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

from .graphs import DRAW, FIRST, LAST, RELU, W1, WEIGHTS, graph, outside, read
from .helpers import covering, same_bits

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


FITTED = [(0, "relu", False), (2, "tanh", True), (2, "relu", False), (3, "logistic", True), (3, "relu", False)]


@pytest.mark.parametrize(("fitted", "dtype"), covering(FITTED, [np.float32, np.float64], meet=1))
def test_files_of_skl2onnx_are_the_estimators_rows(fitted: tuple[int, str, bool], dtype: type, tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes, hidden, zipped = fitted
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
        found = read(path, wanted.spec.loss, **ends)
        assert same_bits(found.params, wanted.params)
        assert (found.spec.widths, found.spec.activations) == (wanted.spec.widths, wanted.spec.activations)


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
