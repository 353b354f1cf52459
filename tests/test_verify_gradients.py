"""gpubp verify: a gradient that is not autograd's is found, of any rule and of a step with all that is in it; what it
trains is bounded by steps times parameters, which no machine changes."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from gpubp.engines import block
from gpubp.maths.activations import ACTIVATIONS, Activation
from gpubp.runs.design import Design
from gpubp.verify import gradients, killed, steps
from gpubp.verify import subject as of
from gpubp.verify.comparing import CAUGHT, FAILS, HOLDS, NONE
from gpubp.verify.promises import default
from gpubp.verify.subject import Subject, scaled_down

from .verified import fewer, quick, small  # noqa: F401

ALL: dict[str, Any] = {"dropout": 0.3, "l1": 0.01, "l2": 0.05, "clip_value": 0.1, "clip_norm": 0.2}


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
def test_a_slope_that_is_wrong_far_from_0_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ACTIVATIONS["tanh"]

    def slope(net: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        found = right.slope(net, out)
        return torch.where(net.abs() > 4, 1.5 * found + 0.1, found)

    monkeypatch.setitem(ACTIVATIONS, "tanh", Activation(right.value, slope))
    assert [row.verdict for row in gradients.rows(small())] == [HOLDS, HOLDS, FAILS]


def without_masks(patch: pytest.MonkeyPatch) -> None:
    backward = block.backward_layers
    patch.setattr(block, "backward_layers", lambda *given: backward(*given[:4], (), given[5]))


def without_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(block.Block, "clip_norms", lambda self, grads: None)


def with_biases_penalised(patch: pytest.MonkeyPatch) -> None:
    proper = block.Block.gradient

    def gradient(self: block.Block, number: int, *grads: torch.Tensor) -> list[torch.Tensor]:
        weight, bias = proper(self, number, *grads)
        return [weight, bias + self.typed["l2"]]

    patch.setattr(block.Block, "gradient", gradient)


@pytest.mark.parametrize("fault", [without_masks, without_clipping, with_biases_penalised])
def test_a_step_that_forgets_dropout_penalties_or_clipping_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = small(**ALL)
    row = steps.row(subject)
    assert (row.verdict, row.control) == (HOLDS, CAUGHT)
    assert row.compared.startswith("a step of eager, with dropout, l1, l2, clip_value, clip_norm, and ")
    fault(monkeypatch)
    assert steps.row(subject).verdict == FAILS


@pytest.mark.parametrize("clip", [{"clip_value": 1e-9}, {"clip_norm": 1e-6}, {"clip_value": 0.02, "clip_norm": 1e-3}])
def test_a_step_whose_clipping_hides_its_gradient_is_not_taken_for_broken(clip: dict[str, float]) -> None:
    row = steps.row(small(**clip))
    assert row.good
    assert row.verdict == (NONE if clip == {"clip_value": 1e-9} else HOLDS)


@fewer
@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "huber", "delta": 0.3, "output": "sigmoid", "bias": "layer", "train_bias": False},
        {"loss": "cross_entropy", "label_smoothing": 0.2, "class_weight": "1,2"},
        {"loss": "poisson", "widths": (3, 2), "bias": "none"},
        pytest.param({"loss": "mean_absolute_error", "hidden": "relu", "bias": "none"}, marks=pytest.mark.slow),
        pytest.param({"loss": "cross_entropy", "widths": (3, 2), "hidden": None}, marks=pytest.mark.slow),
    ],
    ids=lambda changed: changed["loss"],
)  # fmt: skip
def test_gradients_of_all_kinds_of_networks_are_compared(changed: dict[str, Any]) -> None:
    subject = small(**changed)
    rows = [*gradients.rows(subject), steps.row(subject)]
    assert [(row.verdict, row.control) for row in rows] == [(HOLDS, CAUGHT)] * 4


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


LR = [0.001 * (n + 1) for n in range(40)]
LARGE = {"widths": "64,512,512,10", "loss": "cross_entropy", "hidden": "relu", "batch_size": 32}


def work(subject: Subject) -> int:
    """Steps times parameters of one training of all networks."""
    steps = subject.design.columns["steps"].values
    return sum(int(steps[rows].sum()) * each.population.spec.size
               for rows, each in zip(subject.design.alike(), subject.groups(), strict=True))  # fmt: skip


def several(**more: Any) -> Design:
    """Three populations."""
    return Design.of([{"lr": rate, "optimizer": ("adam", "sgd", "lion")[n % 3]} for n, rate in enumerate(LR)], **more)


@pytest.mark.parametrize(
    ("design", "networks", "steps"),
    [
        (default(), 9, 12),
        (several(widths="8,16,4", loss="cross_entropy", epochs=2), 15, 12),
        (Design.of({"lr": LR}, **LARGE, epochs=3), 2, 6),
        (several(**LARGE, steps=1000), 6, 6),
        (Design.of({"lr": LR}, **{**LARGE, "widths": "64,128,10"}, epochs=3), 9, 12),
    ],
    ids=["default", "three populations", "large", "three large populations", "in between"],
)
def test_large_networks_train_fewer_and_shorter(design: Design, networks: int, steps: int) -> None:
    subject = scaled_down(design, engine="eager", device="cpu")
    lengths = subject.design.columns["steps"].values
    assert (subject.count, int(lengths.max())) == (networks, steps)
    assert len({*lengths.tolist()}) > 1, "networks end at different steps"
    assert work(subject) <= of.WORK * (3 if networks == 6 else 1)
    assert (f"{of.SHORT} steps, as networks are large" in subject.about) == (steps == of.SHORT)
