"""What cannot be used is refused with a message that says what, before anything is trained or written."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.errors import (
    ConfigError,
    DataError,
    DeviceError,
    EngineError,
    GpubpError,
    OutOfMemoryError,
    ShapeError,
    SpecError,
)

from .files import status
from .helpers import population, same_bits, samples

SPEC = gpubp.NetworkSpec((3, 4, 2))
STEP = gpubp.TrainConfig(steps=1)
CLASSES = gpubp.NetworkSpec((3, 4, 2), loss="cross_entropy")
INPUTS, TARGETS = samples(SPEC, 10)
POPULATION, DATA = population(SPEC, 4), gpubp.Dataset(INPUTS, TARGETS)


def with_value(value: float) -> torch.Tensor:
    inputs = INPUTS.clone()
    inputs[4, 1] = value
    return inputs


def train(spec: gpubp.NetworkSpec = SPEC, inputs: Any = INPUTS, targets: Any = TARGETS, **settings: Any) -> None:
    engine = settings.pop("engine", "eager")
    config = gpubp.TrainConfig(**{"steps": 3, **settings})
    gpubp.train(population(spec, 4), gpubp.Dataset(inputs, targets), config, engine=engine)


PYTHON: dict[str, tuple[Callable[[], Any], type[GpubpError], str]] = {
    "wrong width": (
        lambda: train(inputs=INPUTS[:, :2]), ShapeError, r"inputs \(10, 2\): the last size must be 3, the input width"),
    "wrong target width": (
        lambda: train(targets=TARGETS[:, :1]), ShapeError, r"targets \(10, 1\): \(M, 2\) expected for loss"),
    "wrong shape": (
        lambda: train(inputs=INPUTS[0]), ShapeError, r"inputs \(3,\), targets \(10, 2\): \(M, I\) and \(M, O\)"),
    "unequal lengths": (lambda: train(targets=TARGETS[:9]), ShapeError, r"inputs \(10, 3\), targets \(9, 2\): "),
    "an id that no checkpoint may have": (
        lambda: gpubp.train(
            gpubp.Population(SPEC, POPULATION.params, 0, torch.tensor([0, 1, 2, 2**32 - 1])), DATA, STEP),
        ConfigError, r"state: ids is 0 to 4,294,967,295; 0 to 4,294,967,294 expected"),
    "NaN": (lambda: train(inputs=with_value(float("nan"))), DataError, r"inputs\[4, 1\] is nan, one of 1 numbers"),
    "infinity": (lambda: train(inputs=with_value(float("-inf"))), DataError, r"inputs\[4, 1\] is -inf, one of 1"),
    "NaN target": (lambda: train(targets=TARGETS * float("nan")), DataError, r"targets\[0, 0\] is nan, one of 20"),
    "class out of range": (
        lambda: train(CLASSES, targets=torch.arange(10) % 3), DataError,
        "targets hold classes 0 to 2; 0 to 1 expected for 2 outputs"),
    "numbers for classes": (
        lambda: train(CLASSES, targets=TARGETS), ShapeError, "loss 'cross_entropy' needs class numbers"),
    "classes without weight": (
        lambda: train(CLASSES, targets=torch.arange(10) % 2, class_weight=[0.0, 0.0]), ConfigError,
        "all classes have weight 0"),
    "empty": (lambda: train(inputs=INPUTS[:0], targets=TARGETS[:0]), DataError, "the data are empty; one or more"),
    "activation": (
        lambda: gpubp.NetworkSpec((3, 4, 2), hidden="rellu"), SpecError, "'rellu' is unknown; did you mean 'relu'"),
    "loss": (lambda: gpubp.NetworkSpec((3, 2), loss="hubert"), SpecError, "'hubert' is unknown; did you mean 'huber'"),
    "optimizer": (lambda: train(optimizer="adamm"), ConfigError, "optimizer 'adamm' is unknown; did you mean 'adam"),
    "schedule": (lambda: train(schedule="cosin"), ConfigError, "schedule 'cosin' is unknown; did you mean 'cosine'"),
    "init": (
        lambda: gpubp.Population.create(SPEC, 3, init="glorot_unifrm"), ConfigError,
        "init 'glorot_unifrm' is unknown; did you mean 'glorot_uniform'"),
    "engine": (lambda: train(engine="eagr"), EngineError, "engine 'eagr' is unknown; did you mean 'eager'"),
    "negative lr": (lambda: train(lr=-0.1), ConfigError, r"lr is -0.1; a number in \[0, inf\) expected"),
    "one negative lr": (lambda: train(lr=[1.0, 0.1, -2.0, 1.0]), ConfigError, r"lr is -2; a number in \[0, inf\)"),
    "NaN lr": (lambda: train(lr=float("nan")), ConfigError, "lr is nan; a number in"),
    "lr of the wrong length": (
        lambda: train(lr=[0.1, 0.2, 0.3]), ShapeError, "lr has 3 numbers; one, or 4, one per network, expected"),
    "steps of the wrong length": (
        lambda: train(steps=[1, 2, 3]), ShapeError, "steps has 3 numbers; one, or 4, one per network, expected"),
    "another optimizer's": (
        lambda: train(optimizer="sgd", beta1=0.9), ConfigError, "beta1 is not a hyper-parameter of optimizer 'sgd'"),
    "epochs and steps": (lambda: train(epochs=2), ConfigError, "epochs or steps, exactly one, expected"),
    "neither": (lambda: train(steps=None), ConfigError, "epochs or steps, exactly one, expected"),
    "batch of 0": (lambda: train(batch_size=0), ConfigError, "batch_size 0: a whole number of 1 or more expected"),
    **{
        f"device {device!r}": (partial(gpubp.train, POPULATION, DATA, STEP, device=device), DeviceError,
                               f"device {shown}: a name expected, such as 'cpu' or 'cuda:0'")
        for device, shown in ((0, "0"), (True, "True"), (b"cpu", "b'cpu'"), (["cpu", 0], "0"), ({"cpu"}, "{'cpu'}"))
    },
    "to(0)": (lambda: POPULATION.to(0), DeviceError, "device 0: a name expected"),  # type: ignore[arg-type]
    "a dtype by name": (
        lambda: POPULATION.to(dtype="float32"), ConfigError, "dtype float32: one of torch.float32, torch.float64"),
    "a network larger than memory": (
        lambda: gpubp.Population.create(gpubp.NetworkSpec((10**6, 10**6)), 1), OutOfMemoryError,
        r"1 network of 1000000-1000000 needs .*: create a smaller one"),
    "more networks than memory": (
        lambda: gpubp.Population.create(SPEC, 2**32 - 1), OutOfMemoryError, r"4,294,967,295 networks of 3-4-2 need"),
    **{
        f"{name} {number}": (partial(gpubp.train, POPULATION, DATA, STEP, **{name: given}), ConfigError, message)
        for number, (name, given, message) in enumerate((
            ("run_dir", 3, "run_dir 3: a path in"), ("run_dir", b"made", "run_dir b'made': a path in"),
            ("run_dir", "\udcff", "run_dir .*: a path in UTF-8 without NUL"),
            ("run_dir", "a\0b", "run_dir .*: a path in UTF-8 without NUL"),
            ("settings", [1], "settings are a list; a dict"), ("lines", "abc", "lines are a str; a list of texts"),
            ("lines", [1], "lines are a list; a list of texts"),
            ("reporters", [None], "reporters: NoneType has no method start"),
            ("reporters", gpubp.ConsoleReporter(), "reporters: a list of reporters expected"),
            ("reporters", [gpubp.ConsoleReporter], "reporters: a list of reporters expected"),
            ("settings", {"a": object()}, "settings: .*plain numbers, texts"),
            ("run_dir", __file__, "test_bad_input.py is a file; name a new directory"),
            ("checkpoint_minutes", "5", "checkpoint_minutes '5': a number of 0 or more expected"),
            ("checkpoint_minutes", True, "checkpoint_minutes True: a number"),
            ("checkpoint_minutes", -1, "checkpoint_minutes -1: a number")))
    },
    **{
        f"wrong place: {message}": (partial(gpubp.train, *given), ConfigError, message)
        for *given, message in (
            (POPULATION, DATA, DATA, "config is a Dataset, TrainConfig expected"),
            (POPULATION, STEP, DATA, "data is a TrainConfig, Dataset expected"),
            (DATA, POPULATION, STEP, "population is a Dataset, Population expected"),
            (POPULATION, DATA, STEP, INPUTS, "validation is a Tensor, Dataset expected"))
    },
    "a run that is none": (lambda: gpubp.load(3), ConfigError, "run_dir 3: a path in"),  # type: ignore[arg-type]
    "data that are none": (lambda: gpubp.load_data(3), DataError, "data: a int; a file, or columns with names"),  # type: ignore
    "a target that is none": (
        lambda: gpubp.load_data("a.csv", target=3), ConfigError, "target 3: the name of a column, or a list of names"),  # type: ignore
    "a reading that is none": (
        lambda: gpubp.load_data("iris", reading={}), ConfigError, "reading is a dict; a gpubp.Reading"),  # type: ignore
    "hidden that is no name": (
        lambda: gpubp.NetworkSpec((3, 2, 2), hidden=True), SpecError, "hidden True: the name of an activation"),  # type: ignore
    **{
        f"widths {widths!r}": (partial(gpubp.NetworkSpec, widths), SpecError, "whole numbers of 1 or more expected")
        for widths in ("23", (True, 2), (2.5, 2), 3, np.array(3), torch.tensor(3), {}, (2, 10**400 * 0))
    },
    "an unreadable file": (lambda: gpubp.load_data("missing.csv"), DataError, "missing.csv cannot be read: No such"),
}  # fmt: skip


@pytest.mark.parametrize("name", PYTHON)
def test_the_python_interface_refuses(name: str) -> None:
    action, error, message = PYTHON[name]
    with pytest.raises(error, match=message):
        action()


def test_valid_variants_of_the_refused_input_are_accepted() -> None:
    train()
    train(CLASSES, targets=torch.arange(10) % 2, lr=[0.1, 0.2, 0.3, 0.4], optimizer="adam", beta1=0.9)


COMMANDS = {
    "wrong width": ("--data xor --widths 3,4,1", "error: widths 3,4,1: the data need 2,...,1"),
    "widths of letters": ("--data xor --widths 2,x,1", "--widths '2,x,1': whole numbers separated by commas expected"),
    "dtype": ("--data xor --dtype float46", "dtype 'float46' is unknown; did you mean 'float64'?"),
    "device": ("--data xor --device cuba", "device 'cuba' is unknown; allowed: auto, cpu, cuda"),
    "a range upside down": ("--data xor --lr 1e-1..1e-4:log", "lr '1e-1..1e-4:log': a number, a range LOW..HIGH"),
    "a width nobody wrote": ("--data xor --widths 2,3_0,1", "--widths '2,3_0,1': whole numbers separated by commas"),
    "a scale nobody wrote": ("--data xor --scale 1_6", "scale '1_6' is unknown"),
    "class weights nobody wrote": ("--data iris --class-weight 1_0,2,3", "--class-weight '1_0,2,3': numbers separated"),
    "a target to be left out": (
        "--data good.csv --target y --drop y", "column 'y' is a target, and to be left out; one of the two expected"),
    "no rounds of the tutorial": ("--data tutorial --steps 0", "steps 0: a whole number of 1 or more, a range"),
    "both for the tutorial": ("--data tutorial --epochs 3 --steps 3", "epochs or steps, exactly one, expected"),
    "NaN in .npz": ("--data nan.npz", "'inputs[0]' lacks 1 of 6 values"),
    "a search of the tutorial's": (
        "--data tutorial --search halving", "--search halving: --data tutorial does not have it"),
    "tutorial's widths": ("--data tutorial --widths 2,2", "--widths 2,2: --data tutorial sets it to 2,2,2"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "good.csv").write_text("a,b,y\n1,2,u\n2,3,v\n3,4,u\n4,5,v\n5,6,u\n")
    inputs = np.arange(12.0).reshape(6, 2)
    inputs[3, 0] = np.nan
    np.savez(tmp_path / "nan.npz", X=inputs, y=np.arange(6) % 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`arguments` are refused with one line on standard error, and the folder is as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert status(["train", "--networks", "2", *arguments.split(), "--run-dir", "made/run"]) in (1, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("error: ")
    assert message in told.err
    assert "network-steps" not in told.err, "nothing was trained"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_refuses(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(*COMMANDS[name], folder, capsys)


def test_the_command_line_leaves_a_run_that_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "made" / "run").mkdir(parents=True)
    (folder / "made" / "run" / "results.csv").write_text("old")
    refused("--data xor", "run directory made/run exists already; name a new one", folder, capsys)


# --- pairs, batches and the short words that results have for themselves


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "poisson"])
def test_a_loss_that_applies_its_own_function_takes_no_output_but_identity(loss: str) -> None:
    gpubp.NetworkSpec((3, 2), output="identity", loss=loss)
    for output in gpubp.ACTIVATIONS.keys() - {"identity"}:
        message = f"output '{output}' with loss '{loss}', which takes a log.*'identity' expected"
        with pytest.raises(SpecError, match=message):
            gpubp.NetworkSpec((3, 2), output=output, loss=loss)


def test_hinge_takes_outs_of_both_signs_and_losses_of_numbers_take_any() -> None:
    for output in ("identity", "tanh"):
        gpubp.NetworkSpec((3, 1), output=output, loss="hinge")
    for output in ("sigmoid", "relu", "softplus"):
        with pytest.raises(SpecError, match=f"output '{output}' with loss 'hinge', which takes a score"):
            gpubp.NetworkSpec((3, 1), output=output, loss="hinge")
    for output in gpubp.ACTIVATIONS:
        gpubp.NetworkSpec((3, 1), output=output, loss="half_squared_error")


def test_a_batch_has_at_most_all_samples_and_this_is_reported() -> None:
    data = gpubp.Dataset(INPUTS, TARGETS)
    results = {
        size: gpubp.train(population(SPEC, 2), data, gpubp.TrainConfig(epochs=7, batch_size=size), engine="eager")
        for size in (10, 1000)
    }
    assert [int(result.state.step[0]) for result in results.values()] == [7, 7]
    assert same_bits(results[1000].population.params, results[10].population.params)
    assert results[10].notes == []
    assert results[1000].notes == ["batch_size 1000 is more than the 10 samples: every batch has all of them"]


def test_a_batch_of_networks_with_rows_is_as_asked_and_this_is_reported() -> None:
    rows = [[0, 1, 2], [3, 4, 5, 6, 7]]
    config = gpubp.TrainConfig(epochs=4, batch_size=6)
    both = gpubp.train(population(SPEC, 2), gpubp.Dataset(INPUTS, TARGETS, rows), config, engine="eager")
    assert both.state.step.tolist() == [2, 4]
    assert both.notes[0].startswith("batch_size 6: 2 of 2 networks have fewer samples, at least 3; their batches")


def test_populations_and_data_show_themselves_in_a_line() -> None:
    data = gpubp.Dataset(INPUTS, TARGETS)
    assert repr(population(SPEC, 500)) == "Population(500 networks of 3-4-2, seed 5, float64 on cpu)"
    assert repr(data) == "Dataset(10 samples: inputs (10, 3) float64, targets (10, 2) float64)"
    own = gpubp.Dataset(INPUTS, TARGETS, rows=[[0], [1, 2]])
    assert repr(own).startswith("Dataset(10 samples, 1 to 2 for each of 2: inputs (10, 3)")
    assert len(data) == len(own) == 10
    assert repr(gpubp.load_data("iris")).startswith("Prepared(150 flowers, 4 inputs, 3 classes; iris: 150 samples")


def test_a_message_is_no_longer_than_a_person_reads() -> None:
    for wrong in (["x" * 9999], list(range(99_999)), "x" * 9999):
        with pytest.raises(ConfigError, match=r"optimizer .* is unknown; .*adam, .*sgd") as caught:
            gpubp.TrainConfig(optimizer=wrong, steps=1)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 2000
