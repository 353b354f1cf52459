"""Whatever an argument of a public call is given, the call works or raises an error of the package."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import gpubp
from gpubp import search
from gpubp.errors import ConfigError, GpubpError, ShapeError, SpecError

from .commands import here  # noqa: F401

WRONG = (
    None, "x", "", b"x", [], {}, (), set(), [None], [[1, 2], [3, 4]], object(), lambda: 1, float("nan"), -1, True, 1j,
    10**400, np.array(["a"]), np.float32(3), np.int8(3), torch.tensor(3), torch.zeros(2, 3, 4), range(0),
)  # fmt: skip

SPEC = gpubp.NetworkSpec((2, 3, 2))
POPULATION = gpubp.Population.create(SPEC, count=2)
INPUTS, TARGETS, CLASSES = torch.rand(12, 2), torch.rand(12, 2), torch.tensor([0, 1] * 6)
DATA = gpubp.Dataset(INPUTS, TARGETS)
CONFIG = gpubp.TrainConfig(lr=0.1, epochs=1)
RESULT = gpubp.train(POPULATION, DATA, CONFIG, engine="eager")
ROWS = [{"widths": "2,3,2", "lr": 0.1}]

CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "NetworkSpec": (gpubp.NetworkSpec, {
        "widths": (2, 3, 2), "hidden": "tanh", "output": "identity", "loss": "hinge", "bias": "layer",
        "train_bias": True}),
    "TrainConfig": (gpubp.TrainConfig, {
        "optimizer": "adam", "lr": 0.1, "schedule": "step", "dropout": 0.1, "class_weight": [1.0, 2.0],
        "batch_size": 4, "epochs": 1, "evaluate_every": 1, "restore_best": False, "shuffle": "none", "extra": {}}),
    "create": (gpubp.Population.create, {
        "spec": SPEC, "count": 2, "seed": 0, "init": "uniform", "dtype": torch.float32, "init_scale": 1.0}),
    "create, ids": (gpubp.Population.create, {"spec": SPEC, "ids": [3]}),
    "Dataset": (gpubp.Dataset, {"inputs": INPUTS, "targets": TARGETS, "rows": [[0]], "sample_weight": [1.0] * 12}),
    "folds": (gpubp.Dataset(INPUTS, CLASSES).folds, {
        "count": 3, "stratify": True, "groups": None, "repeats": 2, "seed": 0}),
    "bootstrap": (DATA.bootstrap, {"count": 3, "seed": 0}),
    "split": (DATA.by({"shop": [0, 1] * 6}).split, {"share": 0.2, "seed": 0}),
    "by": (DATA.by, {"keys": {"shop": [0, 1] * 6}}),
    "load_data": (gpubp.load_data, {
        "name_or_samples": "iris", "target": None, "loss": None, "scale": "none", "impute": None, "validation": 0.5,
        "seed": 0, "scale_targets": "none", "task": None, "reading": None, "per": None, "min_samples": None,
        "group": None}),
    "load_data, folds": (gpubp.load_data, {"name_or_samples": "iris", "folds": 3, "validation": None}),
    "load_data, bootstrap": (gpubp.load_data, {"name_or_samples": "iris", "bootstrap": 3}),
    "forward": (gpubp.backprop.forward, {"spec": SPEC, "params": POPULATION.params, "inputs": INPUTS}),
    "gradients": (gpubp.backprop.gradients, {
        "spec": SPEC, "params": POPULATION.params, "inputs": INPUTS, "targets": TARGETS, "sample_weight": None}),
    "train": (gpubp.train, {
        "population": POPULATION, "data": DATA, "config": CONFIG, "validation": None, "engine": "eager",
        "reporters": (), "run_dir": None, "checkpoint_minutes": 1.0, "settings": None, "device": "cpu", "lines": (),
        "search": None, "optimizer_state": None}),
    "train_many": (gpubp.train_many, {
        "design": ROWS, "data": DATA, "validation": None, "seed": 0, "dtype": torch.float32, "engine": "eager",
        "slots": 1, "epochs": 1}),
    "design": (search.design, {"space": {"lr": "1e-3..1e-1:log"}, "count": 2, "seed": 0, "method": "sobol"}),
    "from_dict": (gpubp.NetworkSpec.from_dict, {"values": {"widths": (2, 3, 2)}}),
    "from_modules": (gpubp.Population.from_modules, {"networks": [POPULATION.network(0)]}),
    "Model": (gpubp.Model, {"populations": POPULATION, "preparation": None}),
    "Model.of": (gpubp.Model.of, {"result": RESULT}),
    "take": (RESULT.populations.take, {"rows": [0]}),
    "Study.by": (gpubp.studies.Study(RESULT.table).by, {"names": ["lr"]}),
    "Study.settings": (gpubp.studies.Study(RESULT.table).settings, {"top": 1}),
    "SuccessiveHalving": (search.SuccessiveHalving, {"factor": 3, "min_resources": 1}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_any_kind_is_taken_or_refused(name: str) -> None:
    """A run directory may be called x."""
    call, given = CALLS[name]
    call(**given)
    for argument in given:
        for wrong in WRONG:
            with suppress(GpubpError):
                call(**given | {argument: wrong})


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: gpubp.Population.create((2, 3, 2), count=2), SpecError, "spec is a tuple, NetworkSpec expected"),  # type: ignore[arg-type]
        (lambda: gpubp.NetworkSpec.from_dict({}), SpecError, "network settings lack widths"),
        (lambda: gpubp.NetworkSpec.from_dict({"width": (2, 3)}), SpecError, "did you mean 'widths'"),
        (lambda: gpubp.Population.from_estimators(torch.tensor(3)), SpecError, r"several: \[estimator\], not tensor"),  # type: ignore[arg-type]
        (lambda: gpubp.Population.from_onnx(torch.tensor(3)), SpecError, r"several files: \[path\], not tensor"),  # type: ignore[arg-type]
        (lambda: gpubp.TrainConfig.from_dict([]), ConfigError, "training settings is a list, Mapping expected"),  # type: ignore[arg-type]
        (lambda: gpubp.Population.from_estimators(3), SpecError, r"takes several: \[estimator\], not 3"),  # type: ignore[arg-type]
        (lambda: gpubp.Population.from_onnx(None), SpecError, r"takes several files: \[path\], not None"),  # type: ignore[arg-type]
        (lambda: gpubp.Model.of("run"), ConfigError, "result is a str, Result expected"),  # type: ignore[arg-type]
        (lambda: RESULT.populations.take([2]), ShapeError, "take 2: a row from 0 to 1"),  # type: ignore[arg-type]
        (lambda: gpubp.TrainConfig(batch_size=None, epochs=1), ConfigError, "batch_size None: a whole number"),  # type: ignore[arg-type]
        (lambda: gpubp.TrainConfig(optimizer="AdamW", epochs=1), ConfigError, "did you mean 'adamw'?"),
        (lambda: gpubp.load_data("iris", folds=0), ConfigError, "folds 0: a whole number of 2 or more expected"),
        (lambda: gpubp.resume(Path("run"), (INPUTS, TARGETS)), ConfigError, "data is a tuple, Dataset expected"),  # type: ignore[arg-type]
        (lambda: gpubp.train(POPULATION, gpubp.load_data("xor"), CONFIG), ConfigError, "expected: data.training, and"),  # type: ignore[arg-type]
        (lambda: gpubp.train(POPULATION, DATA, CONFIG, (INPUTS, TARGETS)), ConfigError, "validation is a tuple"),  # type: ignore[arg-type]
    ],
)
def test_what_people_try_first_is_refused_with_advice(
    call: Callable[[], Any], error: type[GpubpError], sentence: str
) -> None:
    gpubp.train(POPULATION, DATA, CONFIG, run_dir="run", engine="eager")
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: gpubp.studies.Study([]), "results has no column loss, status; a results table, or a frame of it"),
        (lambda: gpubp.studies.Study("run"), "results is a str; a results table, or a frame of it, expected"),
        (lambda: gpubp.studies.Study({"status": [], "loss": []}), "results has no rows; one or more networks expected"),
        (lambda: gpubp.studies.distribution([]), r"values \(0,\): numbers \(n,\), one or more, expected"),
        (lambda: gpubp.studies.bootstrap(np.empty(0)), r"values \(0,\): numbers"),
        (lambda: POPULATION.concatenate([]), "concatenate is a list, Population expected"),  # type: ignore[arg-type]
        (lambda: gpubp.Ensemble([], [0]), "populations is a list, Population expected"),  # type: ignore[arg-type]
        (lambda: search.sample({"lr": "0.1..1"}, 0, 0), "count 0: a whole number of 1 or more expected"),
        (lambda: gpubp.load_data("iris", group=[], folds=3), "group is a list, str expected"),  # type: ignore[arg-type]
    ],
)
def test_what_has_nothing_in_it_is_refused(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call()


def test_columns_of_any_library_name_entities_and_groups() -> None:
    shops, data = ["a", "b", "c"] * 4, gpubp.Dataset(INPUTS, CLASSES)
    entities, parts = data.by(shops).entities, data.folds(3, groups=shops)[1].parts
    for column in (pa.array(shops), pa.chunked_array([shops]), pd.Series(shops), pl.Series(shops)):
        assert data.by(column).entities == entities
        assert all(map(torch.equal, data.folds(3, groups=column)[1].parts, parts))
    for frame in (pa.table({"shop": shops}), pd.DataFrame({"shop": shops}), pl.DataFrame({"shop": shops})):
        assert data.by(frame).entities == data.by({"shop": shops}).entities


def test_a_distribution_of_one_number_has_no_spread() -> None:
    found = gpubp.studies.distribution([3.0])
    assert np.isnan(found["std"])
    assert found["mean_interval"] == [3, 3]


def test_numbers_of_one_output_need_no_column() -> None:
    flat, column = gpubp.Dataset(INPUTS, TARGETS[:, 0]), gpubp.Dataset(INPUTS, TARGETS[:, :1])
    assert torch.equal(flat.targets, column.targets)
    one = gpubp.Population.create(gpubp.NetworkSpec((2, 3, 1), loss="binary_cross_entropy"), count=2)
    gpubp.train(one, flat, CONFIG, engine="eager")
    with pytest.raises(ShapeError, match=r"targets \(12,\): \(M, 1\) expected .* makes a column of class numbers"):
        gpubp.train(one, gpubp.Dataset(INPUTS, CLASSES), CONFIG, engine="eager")
