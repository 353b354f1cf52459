"""gpubp verify: what is promised holds here; a fault in the product is seen by the row that is about it; and a control
that is not caught counts as a fault."""

import subprocess
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp import engines
from gpubp.checkpoints import checkpoint
from gpubp.engines import cpu
from gpubp.errors import CheckpointError
from gpubp.runs.design import Design
from gpubp.state import TrainState
from gpubp.system.ambient import HOME
from gpubp.verify import gradients, independence, killed
from gpubp.verify.comparing import CAUGHT, FAILS, HOLDS, MISSED, NONE, Found, Numbers, Row, checked, compare
from gpubp.verify.engines import _row as engine_row
from gpubp.verify.engines import rows as engine_rows
from gpubp.verify.subject import Subject, scaled_down

from .commands import here  # noqa: F401
from .helpers import failing, needs_compiler, sources_copied  # noqa: F401
from .short_runs import Crash
from .verified import PROMISE, SETTINGS, fewer, quick, small  # noqa: F401

Check = Callable[[Subject, bool], Found]


def killed_row(subject: Subject, folder: Path) -> Row:
    """The row of a run that ended after its first evaluation, in this process."""
    with pytest.raises(RuntimeError, match="crashed"):
        subject.train(run_dir=folder / killed.RUN, checkpoint_minutes=0.0, reporters=[Crash(2)])
    death: Future[None] = Future()
    death.set_result(None)
    return killed.row(subject, folder, death)


def with_run(patch: pytest.MonkeyPatch, name: str, change: Callable[[TrainState, int], None]) -> None:
    """The engine `name`, with `change` to its state after each call."""
    proper = engines.ENGINES[name]

    def run_and_change(state: TrainState, data: gpubp.Dataset, steps: int) -> None:
        proper.run(state, data, steps)
        change(state, steps)

    patch.setitem(engines.ENGINES, name, proper._replace(run=run_and_change))


@fewer
@pytest.mark.parametrize("optimizer", ["momentum", pytest.param("lion", marks=pytest.mark.slow)])
def test_an_engine_that_is_not_eager_is_found(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()
    subject = small(optimizer=optimizer, lr=0.01)
    assert [(row.verdict, row.control) for row in engine_rows(subject)] == [(HOLDS, CAUGHT)] * 2 + [(NONE, "")] * 2
    with_run(monkeypatch, "cpu", lambda state, _: state.population.params.mul_(1 + 1e-7))
    assert [each.verdict for each in engine_rows(subject)] == [FAILS, HOLDS, NONE, NONE]


@fewer
def test_a_function_that_is_wrong_in_float32_alone_is_found(sources: Path) -> None:
    needs_compiler()
    text = (sources / "arithmetic.h").read_text()
    assert text.count("{-0.33331272f, ") == 1
    (sources / "arithmetic.h").write_text(text.replace("{-0.33331272f, ", "{-0.30331272f, "))
    assert engine_row(small(), "cpu", HOME, torch.float32).verdict == FAILS


def by_position(patch: pytest.MonkeyPatch) -> None:
    """The order of samples by a network's place, not by its id."""
    proper = gpubp.Dataset.order

    def order(self: gpubp.Dataset, seed: int, ids: torch.Tensor, *given: Any, **more: Any) -> torch.Tensor:
        return proper(self, seed, torch.arange(len(ids)), *given, **more)

    patch.setattr(gpubp.Dataset, "order", order)


def by_threads(patch: pytest.MonkeyPatch) -> None:
    """The loss by the threads that the compiled engine really starts."""
    asked, started = cpu.Kernel.threads, [1]

    def threads(self: cpu.Kernel, count: int, steps: float) -> int:
        started[0] = min(asked(self, count, steps), -(-count // self.group))
        return asked(self, count, steps)

    patch.setattr(cpu.Kernel, "threads", threads)
    with_run(patch, "cpu", lambda state, _: state.loss.add_(1e-3 * (started[0] - 1)))


def by_call(patch: pytest.MonkeyPatch) -> None:
    with_run(patch, "eager", lambda state, _: state.population.params.mul_(1 + 1e-6))


@fewer
@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        (by_position, [independence._alone, independence._among_others, independence._through_slots]),
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
def test_an_engine_whose_bits_depend_on_its_threads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler()

    def row(subject: Subject) -> Row:
        return checked(PROMISE, partial(independence._threads, subject))

    compiled = replace(small(), engine="auto")
    assert (row(compiled).verdict, row(compiled).control) == (HOLDS, CAUGHT)
    by_threads(monkeypatch)
    assert row(compiled).verdict == FAILS
    eager = row(small())
    assert (eager.verdict, eager.reason) == (
        NONE, "only a compiled engine starts threads for so little work; eager: requested by name"
    )  # fmt: skip


@fewer
def test_what_compares_a_network_with_itself_is_not_checked() -> None:
    design = Design.of({"lr": [0.1]}, **SETTINGS)
    alone, others, _, cut, slots, general, _ = independence.rows(scaled_down(design, engine="eager", device="cpu"))
    assert [(row.verdict, row.reason) for row in (alone, slots)] == [(NONE, "there is one network")] * 2
    assert (general.verdict, general.reason) == (
        NONE, "only compiled kernels are compared; eager: requested by name"
    )  # fmt: skip
    assert [row.good and row.verdict == HOLDS for row in (others, cut)] == [True, True]
    assert [row.compared for row in (others, cut, slots)] == [
        "1 network, and in reverse order among 2", "calls of 1, 4, 2 steps, and one call",
        "through 1 slot, and all at once",
    ]  # fmt: skip


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
    monkeypatch.setattr("gpubp.resumed.resume.checkpoint.load", forgetting)
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


def test_a_control_that_is_not_caught_is_a_fault() -> None:
    row = checked(PROMISE, lambda wrong: Found(1, 9, 1e-10))
    assert (row.verdict, row.control, row.good) == (HOLDS, MISSED, False)
    good = checked(PROMISE, lambda wrong: Found(1, 9, 1e-3 if wrong else 1e-10))
    assert (good.control, good.good, good.largest) == (CAUGHT, True, 1e-10)
    assert PROMISE.without("no GPU").good

    assert checked(PROMISE, failing(ZeroDivisionError("by 0"))).reason == "ZeroDivisionError: by 0"


@fewer
def test_what_a_comparison_cannot_show_is_not_checked() -> None:
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
    assert independence._threads(own, False).within(None)  # of the CPU
    monkeypatch.setattr(There, "wrong", True)
    assert independence._device(own).verdict == FAILS
    eager = independence._device(replace(own, engine="eager"))
    assert eager.reason == "only compiled engines have the same bits on both; eager: requested by name"
