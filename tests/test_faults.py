"""Of a network that diverges the results say what was not finite first, on every engine and in every way to train."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import compute
from torch import Tensor

import gpubp
from gpubp.checkpoints.ended import record
from gpubp.cli import main
from gpubp.results.saved import read_results

from .helpers import needs_compiler, quick, samples

SPEC = gpubp.NetworkSpec((2, 3, 1), "relu")
COMMON: dict[str, Any] = {"widths": "2,3,1", "batch_size": 4, "optimizer": "sgd", "engine": "eager"}
Layers = Sequence[Sequence[Tensor]]


def data(spec: gpubp.NetworkSpec = SPEC, **given: Any) -> gpubp.Dataset:
    inputs, targets = samples(spec, 8, dtype=torch.float32)
    return gpubp.Dataset(inputs.abs() + 1, targets, **given)


def trained(
    change: Callable[[Layers], object], engine: str = "eager", some: gpubp.Dataset | None = None, **settings: Any
) -> gpubp.Result:
    """Three networks; `change` writes the layers of the second."""
    population = gpubp.Population.create(SPEC, 3)
    change([[part[1] for part in layer] for layer in SPEC.layers(population.params)])
    config = gpubp.TrainConfig(**{"optimizer": "sgd", "lr": 0.01, "steps": 4, "batch_size": 4} | settings)
    return gpubp.train(population, some or data(), config, engine=engine)


def filled(*numbers: tuple[int, int, float]) -> Callable[[Layers], object]:
    """Write a number to the weights (0) or biases (1) of a layer."""
    return lambda layers: [layers[layer][part].fill_(number) for layer, part, number in numbers]


RATE = {"lr": [0.01, 3e38, 0.01]}
WAYS: dict[str, tuple[Callable[[Layers], object], dict[str, Any]]] = {
    "net of hidden layer 1": (filled((0, 0, 3e38)), {}),
    "net of output layer": (filled((0, 1, 1e30), (1, 0, 1e30)), {}),
    "loss": (filled((1, 1, 1e30)), {}),
    "gradient of output layer": (filled((0, 1, 3e38), (1, 0, 0.0), (1, 1, 100.0)), {}),
    "adam's square of output layer": (filled((0, 1, 1e3), (1, 0, 0.0), (1, 1, 5e18)), {"optimizer": "adam"}),
    "weights of output layer": (filled(), RATE),
}


@pytest.mark.parametrize(
    ("name", "engine"),
    quick(
        product(WAYS, ("eager", "cpu")),
        [*product(WAYS, ("eager",)), ("loss", "cpu"), ("weights of output layer", "cpu")],
    ),
)
def test_what_was_not_finite_first_is_named(name: str, engine: str) -> None:
    if engine == "cpu":
        needs_compiler()
    change, settings = WAYS[name]
    result = trained(change, engine, **settings)
    assert result.table["status"].to_pylist() == ["finished", "diverged", "finished"]
    assert result.table["diverged_in"].to_pylist() == [None, name, None]


def test_samples_that_do_not_count_are_not_named() -> None:
    some = data(sample_weight=[0.0] + [1.0] * 7)
    some.inputs[0] = 3e38
    result = trained(filled((0, 0, 10.0)), some=some, **RATE)
    assert result.table["diverged_in"].to_pylist() == [None, "weights of output layer", None]


def test_nothing_that_a_network_does_after_it_has_diverged_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Best rows are restored, networks leave slots, tables are made in pieces: the answer stays."""
    design = {"lr": [0.01, 3e38, 1e30, 1e12, 0.1] * 2, "seed": [*range(10)], "steps": [12] * 10}
    names = ["diverged_step", "diverged_in"]
    expected = gpubp.train_many(design, data(), **COMMON).table.select(names).to_pylist()
    assert len({each["diverged_in"] for each in expected}) > 3, "in different ways"
    for more in ({"slots": 3}, {"restore_best": True, "evaluate_every": 1}):
        found = gpubp.train_many(design, data(), **COMMON | more)
        assert found.table.select(names).to_pylist() == expected, more
    monkeypatch.setattr("gpubp.results.table.PIECE", 4)
    assert gpubp.train_many(design, data(), **COMMON).table.select(names).to_pylist() == expected


def test_it_is_kept_where_networks_leave_and_runs_resume(tmp_path: Path) -> None:
    design = {"lr": [0.01, 3e38, 1e30, 0.01, 3e38], "steps": [4, 4, 4, 8, 8], "seed": [*range(5)]}
    whole = gpubp.train_many(design, data(), run_dir=tmp_path / "run", slots=2, **COMMON).table
    assert whole["diverged_in"].null_count == 2
    assert gpubp.resume(tmp_path / "run", data()).table.equals(whole)


def test_files_of_networks_that_left_before_there_was_an_answer_are_read_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = {"lr": [3e38, 1e30, 3e38, 0.01], "steps": [4, 4, 4, 8], "seed": [*range(4)]}
    whole = gpubp.train_many(design, data(), slots=1, **COMMON).table
    older = lambda fields: record([each for each in fields if each[0] != "figures.faults"])  # noqa: E731
    monkeypatch.setattr("gpubp.checkpoints.ended.record", older)
    table = gpubp.train_many(design, data(), run_dir=tmp_path / "run", slots=1, **COMMON).table
    assert table["diverged_in"].null_count == 4
    assert table.drop_columns("diverged_in").equals(whole.drop_columns("diverged_in"))


def test_a_study_counts_them_and_inspect_the_report_and_explain_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    flags = ["--data", "iris", "--networks", "20", "--optimizer", "sgd", "--lr", "1e-3..1e30:log", "--epochs", "3"]
    assert main(["train", *flags, "--engine", "eager", "--run-dir", folder]) == 0
    rows = read_results(tmp_path / "run" / "results.parquet")
    lost = rows.filter(compute.equal(rows["status"], "diverged"))
    names = Counter(lost["diverged_in"].to_pylist())
    assert len(names) > 1
    assert None not in names
    study = gpubp.studies.Study(rows)
    assert {each["diverged_in"]: each["networks"] for each in study.faults()} == names
    most, count = names.most_common(1)[0]
    steps = lost.filter(compute.equal(lost["diverged_in"], most))["diverged_step"].to_numpy()
    assert study.faults()[0] == {"diverged_in": most, "networks": count, "median_step": float(np.median(steps))}
    page = f"{folder}.html"
    for command, *more in (["inspect"], ["inspect", "--json"], ["report", "--output", page]):
        capsys.readouterr()
        assert main([command, folder, *more]) == 0
        told = capsys.readouterr().out + (Path(page).read_text() if command == "report" else "")
        assert all(name in told for name in names), command
    row = int(lost["network"][0].as_py())
    assert main(["explain", folder, "--network", str(row)]) == 0
    assert f"not finite, the first in {lost['diverged_in'][0].as_py()}: this step" in capsys.readouterr().out
