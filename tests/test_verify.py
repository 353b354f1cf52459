"""gpubp verify: what is promised holds here; a fault in the product is seen by the row that is about it; and a control
that is not caught counts as a fault."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp import checkpoint, engines
from gpubp.activations import ACTIVATIONS, Activation
from gpubp.design import Design
from gpubp.errors import CheckpointError
from gpubp.state import TrainState
from gpubp.verify import gradients, independence, killed
from gpubp.verify.comparing import CAUGHT, FAILS, HOLDS, MISSED, NONE, Found, Numbers, Row, checked, compare
from gpubp.verify.engines import rows as engine_rows
from gpubp.verify.subject import Subject, scaled_down

from .commands import here  # noqa: F401
from .helpers import needs_compiler
from .short_runs import Crash

Check = Callable[[Subject, bool], Found]
SETTINGS: dict[str, Any] = {"widths": (3, 4, 2), "hidden": "tanh", "optimizer": "momentum", "batch_size": 4, "steps": 9}


def small(**changed: Any) -> Subject:
    design = Design.of({"lr": [0.1, 0.2, 0.3, 0.4]}, **{**SETTINGS, **changed})
    return scaled_down(design, engine="eager", device="cpu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, directions and rules."""
    tables = gradients.tables
    monkeypatch.setattr("gpubp.verify.subject.STEPS", 6)
    monkeypatch.setattr("gpubp.verify.subject.APART", 3)
    monkeypatch.setattr(gradients, "DIRECTIONS", 3)
    monkeypatch.setattr(gradients, "tables", lambda: islice(tables(), 20, None, 30))
    monkeypatch.setattr(independence, "THREADS", (1, torch.get_num_threads() + 1))


fewer = pytest.mark.usefixtures("quick")


def killed_row(subject: Subject, folder: Path) -> Row:
    """The row of a run that ended after its first evaluation, in this process."""
    with pytest.raises(RuntimeError, match="crashed"):
        subject.train(run_dir=folder / killed.RUN, checkpoint_minutes=0.0, reporters=[Crash(2)])
    death: Future[None] = Future()
    death.set_result(None)
    return killed.row(subject, folder, death)


def slope_off(patch: pytest.MonkeyPatch) -> None:
    right = ACTIVATIONS["tanh"]
    patch.setitem(ACTIVATIONS, "tanh", Activation(right.value, lambda net, out: (1 - out * out) * (1 + 1e-5)))


@fewer
def test_a_wrong_slope_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(row.good for row in gradients.rows(small()))
    slope_off(monkeypatch)
    rows = list(gradients.rows(small()))
    assert [row.verdict for row in rows] == [FAILS] * 3
    assert [row.control for row in rows] == [CAUGHT] * 3
    assert rows[0].reason.startswith("the largest difference is in gradient of network ")
    assert 1e-6 < (rows[0].largest or 0) < 1e-4


@fewer
@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "huber", "delta": 0.3, "output": "sigmoid", "bias": "layer", "train_bias": False},
        {"loss": "cross_entropy", "label_smoothing": 0.2, "class_weight": "1,2"},
        {"loss": "mean_absolute_error", "hidden": "relu", "bias": "none"},
        {"loss": "poisson", "widths": (3, 2)},
        {"loss": "cross_entropy", "widths": (3, 2), "hidden": None},
    ],
    ids=lambda changed: changed["loss"],
)  # fmt: skip
def test_gradients_of_all_kinds_of_networks_are_compared(changed: dict[str, Any]) -> None:
    assert [(row.verdict, row.control) for row in gradients.rows(small(**changed))] == [(HOLDS, CAUGHT)] * 3


@fewer
def test_the_gradient_of_custom_rules_is_autograds_of_their_values() -> None:
    def swish(net: torch.Tensor) -> torch.Tensor:
        return net / (1 + torch.exp(-net))

    def right(net: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        share = 1 / (1 + torch.exp(-net))
        return share + out * (1 - share)

    own = small(hidden=Activation(swish, right))
    assert all(row.good for row in gradients.rows(own))
    wrong = small(hidden=Activation(swish, lambda net, out: torch.ones_like(net)))
    assert [row.verdict for row in gradients.rows(wrong)] == [FAILS, FAILS, HOLDS]
    assert killed.row(own, Path("nowhere"), Future()).reason == "another process does not have the custom rule swish"


def with_run(patch: pytest.MonkeyPatch, name: str, change: Callable[[TrainState, int], None]) -> None:
    """The engine `name`, with `change` to its state after each call."""
    proper = engines.ENGINES[name]

    def run_and_change(state: TrainState, data: gpubp.Dataset, steps: int) -> None:
        proper.run(state, data, steps)
        change(state, steps)

    patch.setitem(engines.ENGINES, name, proper._replace(run=run_and_change))


@fewer
@pytest.mark.parametrize("optimizer", ["momentum", "lion"])
def test_an_engine_that_is_not_eager_is_found(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    subject = small(optimizer=optimizer, lr=0.01)
    row, gpu = engine_rows(subject)
    assert (row.verdict, row.control, gpu.verdict) == (HOLDS, CAUGHT, NONE)
    with_run(monkeypatch, "cpu", lambda state, _: state.population.params.mul_(1 + 1e-7))
    assert [each.verdict for each in engine_rows(subject)] == [FAILS, NONE]


def by_position(patch: pytest.MonkeyPatch) -> None:
    """The order of samples by a network's place, not by its id."""
    proper = gpubp.Dataset.order

    def order(self: gpubp.Dataset, seed: int, ids: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        return proper(self, seed, torch.arange(len(ids)), *given, **more)

    patch.setattr(gpubp.Dataset, "order", order)


def by_threads(patch: pytest.MonkeyPatch) -> None:
    with_run(patch, "eager", lambda state, _: state.loss.add_(torch.get_num_threads()))


def by_call(patch: pytest.MonkeyPatch) -> None:
    with_run(patch, "eager", lambda state, _: state.population.params.mul_(1 + 1e-6))


@fewer
@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        (by_position, [independence._alone, independence._among_others, independence._through_slots]),
        (by_threads, [independence._threads]),
        (by_call, [independence._cut]),
    ],
)
def test_what_makes_a_networks_bits_depend_on_others_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    subject = small()
    for check in checks:
        assert not check(subject, False).within(None), check


@fewer
def test_the_bits_of_networks_with_samples_of_their_own_are_compared() -> None:
    samples = torch.randn(4, 20, 3), torch.randn(4, 20, 2)
    weight = torch.rand(4, 20) + 0.1
    rows = [torch.arange(5 + n) for n in range(4)]
    ragged = gpubp.Dataset(*(each[0] for each in samples), rows, weight[0])
    design = Design.of({"lr": [0.1] * 4}, **SETTINGS)
    own = scaled_down(design, ragged, engine="eager", device="cpu")
    assert all(row.good for row in gradients.rows(own))
    for check in (independence._alone, independence._through_slots):
        assert check(own, False).within(None)
        assert not check(own, True).within(None)
    weighted = scaled_down(design, gpubp.Dataset(*samples, sample_weight=weight), engine="eager", device="cpu")
    assert [row.verdict for row in gradients.rows(weighted)] == [HOLDS] * 3


@fewer
def test_a_resume_that_forgets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = killed_row(small(patience=2), tmp_path / "one")
    assert (row.verdict, row.control) == (HOLDS, CAUGHT)

    def forgetting(*given: Any) -> checkpoint.Checkpoint:
        found = load(*given)
        for each in found.populations:
            each.state.slots[0].zero_()
        return found

    load = checkpoint.load
    monkeypatch.setattr("gpubp.resuming.checkpoint.load", forgetting)
    row = killed_row(small(), tmp_path / "two")
    assert row.verdict == FAILS
    assert row.reason.startswith("the largest difference is in ")


def test_a_process_that_was_not_killed_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = SimpleNamespace(returncode=1, stderr="Traceback\nImportError: no torch\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(CheckpointError, match="ended before that, with status 1: ImportError: no torch"):
        killed.kill(small(), tmp_path)
    death: Future[None] = Future()
    death.set_exception(CheckpointError("the process to kill ended"))
    row = killed.row(small(), tmp_path, death)
    assert (row.verdict, row.reason, row.good) == (FAILS, "the process to kill ended", False)


NUMBERS = {"params": torch.tensor([1.0, -2.0]), "step": torch.tensor(3)}


@pytest.mark.parametrize(
    ("changed", "largest"),
    [
        ({}, None),
        ({"params": torch.tensor([1.0, -2.0 - 2**-22])}, 2**-23),
        ({"params": torch.tensor([float("nan"), -2.0])}, float("inf")),
        ({"params": torch.tensor([1.0, -2.0]).double()}, float("inf")),
        ({"params": torch.tensor([1.0])}, float("inf")),
        ({"step": torch.tensor(4)}, 1 / 3),
        ({"other": torch.tensor(4)}, float("inf")),
    ],
)
def test_numbers_are_the_same_in_every_bit_or_differ_by_so_much(changed: dict[str, Any], largest: float | None) -> None:
    found = compare([NUMBERS, {**NUMBERS, **changed}], [NUMBERS, NUMBERS])
    assert found.largest == largest
    assert found.networks == 2
    assert found.within(None) == (largest is None)


def test_zeros_of_another_sign_are_other_bits_and_the_same_number() -> None:
    found = compare([{"loss": torch.tensor([0.0])}], [{"loss": torch.tensor([-0.0])}])
    assert found.largest == 0
    assert not found.within(None)
    assert found.within(1e-10)
    assert compare([], [NUMBERS]).largest == float("inf")
    nan = {"loss": torch.tensor([float("nan"), float("inf")])}
    assert compare([nan], [nan]).largest is None


PROMISE = Row("a promise", "one and another", "a fault", 1e-8)


def test_a_control_that_is_not_caught_is_a_fault() -> None:
    row = checked(PROMISE, lambda wrong: Found(1, 9, 1e-10))
    assert (row.verdict, row.control, row.good) == (HOLDS, MISSED, False)
    good = checked(PROMISE, lambda wrong: Found(1, 9, 1e-3 if wrong else 1e-10))
    assert (good.control, good.good, good.largest) == (CAUGHT, True, 1e-10)
    assert PROMISE.without("no GPU").good

    def broken(wrong: bool) -> Found:
        raise ZeroDivisionError("by 0")

    assert checked(PROMISE, broken).reason == "ZeroDivisionError: by 0"


@fewer
def test_what_a_comparison_cannot_show_is_not_applicable() -> None:
    needs_compiler()
    far = gpubp.Dataset(torch.rand(30, 3), 1e9 * torch.ones(30, 2))
    subject = scaled_down(Design.of({"lr": [0.1]}, **SETTINGS), far, engine="eager", device="cpu")
    _, row, _ = gradients.rows(subject)
    assert (row.verdict, row.good) == (NONE, True)
    assert row.reason == "the loss is so much larger than its slopes that its differences have no digits"
    row = next(engine_rows(small(optimizer="adam", eps=0.0)))
    assert (row.verdict, row.reason[:18]) == (NONE, "an eps below 1e-12")


class There(Subject):
    """On a GPU, which the CPU plays, as its bits are the same. wrong: those of the CPU are not."""

    wrong = False

    def train(self, some: Any = None, **changed: Any) -> list[Numbers]:
        here = changed.get("device") == "cpu"
        found = super().train(some, **{**changed, "device": "cpu"})
        return [{**each, "loss": each["loss"] + 1e-6} for each in found] if here and self.wrong else found

    def start(self, group: Any, device: torch.device, engine: str) -> Any:
        return super().start(group, torch.device("cpu"), engine)


@fewer
def test_a_gpu_whose_bits_are_others_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    own = There(**{**vars(small()), "engine": "auto", "device": torch.device("cuda", 0)})
    row = independence._device(own)
    assert (row.compared, row.verdict, row.control) == ("cuda:0 and cpu", HOLDS, CAUGHT)
    monkeypatch.setattr(There, "wrong", True)
    assert independence._device(own).verdict == FAILS
    eager = independence._device(replace(own, engine="eager"))
    assert eager.reason == "only compiled engines have the same bits on both; eager: requested by name"
