"""What is reported of float32 networks is a sum of any length that keeps its digits, on every machine."""

from __future__ import annotations

import pytest
import torch

import gpubp
from gpubp.state import TrainState

from .every_machine import MACHINES, on
from .helpers import compiled, covering, start  # noqa: F401
from .tolerances import LONG_SUM

VALUES = (0.1, 0.12, 0.14)


def resting(width: int, outs: torch.Tensor, targets: torch.Tensor, loss: str, batch: int) -> TrainState:
    """Networks that do not learn: `outs` are their biases (N, width)."""
    spec = gpubp.NetworkSpec((1, width), loss=loss)
    networks = gpubp.Population(spec, torch.cat((torch.zeros(len(outs), width), outs), 1), 0, torch.arange(len(outs)))
    data = gpubp.Dataset(torch.zeros(len(targets), 1), targets)
    return start(networks, data, optimizer="sgd", lr=0.0, batch_size=batch, steps=10**12), data


SLOW = (
    "three registers",
    "outputs in chunks",
    "networks in chunks",
    "team",
    "gpu block in chunks",
)  # much like one that is not


@pytest.mark.parametrize(
    "machine", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in MACHINES]
)
def test_the_errors_of_many_samples_add_up_and_still_count_after_a_billion_steps(machine: str) -> None:
    """Of equal numbers every addition may round the same way: one after the other, 20,000 of them lose 3e-4."""
    batch = 6 if machine == "gpu thread" else 5_000 if "gpu" in machine else 20_000  # what there is room for
    outs = torch.tensor(VALUES)[:, None]
    state, data = resting(1, outs, torch.zeros(batch, 1), "mean_absolute_error", batch)
    state.step += 1 << 32
    state.total += torch.tensor([1e8, 2.0**40, 0.0], dtype=torch.float64)
    expected = state.total.clone()
    with on(machine, batch) as engine:
        for steps in (1, 2):
            engine.run(state, data, steps)
    torch.testing.assert_close(state.loss.double(), outs[:, 0].double(), **LONG_SUM)
    for _ in range(3):
        expected += state.loss.double()
    assert torch.equal(state.total, expected)
    assert state.step.tolist() == [(1 << 32) + 3] * 3


@pytest.mark.parametrize(
    ("machine", "loss"),
    covering(("eager", "networks", "outputs", "gpu block"), ("mean_absolute_error", "cross_entropy"), meet=1),
)
def test_the_errors_of_many_outputs_add_up(machine: str, loss: str) -> None:
    width = 3_999 if "gpu" in machine else 9_999
    outs = torch.tensor(VALUES)[:, None].expand(-1, width).clone()
    outs[:, 0] = 0 if loss == "cross_entropy" else outs[:, 1]
    targets = torch.zeros(2, width) if loss == "mean_absolute_error" else torch.zeros(2, dtype=torch.int64)
    state, data = resting(width, outs, targets, loss, 2)
    expected = outs[:, 1].double()
    if loss == "cross_entropy":
        expected = torch.log(1 + (width - 1) * expected.exp())
    with on(machine, 2) as engine:
        engine.run(state, data, 1)
    torch.testing.assert_close(state.loss.double(), expected, **LONG_SUM)


def test_the_mean_loss_of_a_long_round_is_the_loss_of_its_steps() -> None:
    steps, values = 100_000, torch.tensor(VALUES)
    spec = gpubp.NetworkSpec((1, 1), bias="none")
    data = gpubp.Dataset(torch.ones(3, 1, 1), values.sqrt()[:, None, None])
    config = gpubp.TrainConfig("sgd", lr=0.0, steps=steps, batch_size=1, evaluate_every=steps)
    result = gpubp.train(gpubp.Population(spec, torch.zeros(3, 1), 0, torch.arange(3)), data, config, engine="cpu")
    assert result.history[-1]["loss"]["median"] == pytest.approx(float(values[1]), rel=1e-7)
