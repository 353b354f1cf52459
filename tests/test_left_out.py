"""A sample of weight 0 is as left out: what it holds changes no bit, whatever overflows in it."""

from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.state import Status, TrainState

from .every_machine import MACHINES, on
from .helpers import compiled, differing, population, quick, same_bits, samples, start  # noqa: F401

COUNT, SAMPLES, BATCH, STEPS = 5, 12, 7, 4
FILL = torch.finfo(torch.float32).max
ACTIVATIONS = tuple(gpubp.ACTIVATIONS)
TWICE = (*ACTIVATIONS, *ACTIVATIONS)
PAIRS = [(loss, TWICE[2 * number : 2 * number + 2]) for number, loss in enumerate(gpubp.LOSSES)]


def root(net: Tensor) -> Tensor:
    return net.sign() * net.abs().sqrt()


ROOT = gpubp.Activation(root, lambda net, out: 0.5 / out.abs())  # whose slope at 0 is infinite


def trained(
    machine: str, loss: str, hidden: Any, fill: float, own: bool = False, by_class: bool = False,
    **more: object,
) -> TrainState:  # fmt: skip
    """Networks some of whose samples count nothing and hold `fill` times one of them."""
    spec = gpubp.NetworkSpec((3, 5, 4, 2) if type(hidden) is tuple else (3, 4, 2), hidden, loss=loss)
    inputs, targets = samples(spec, SAMPLES, dtype=torch.float32)
    weight = torch.rand(COUNT, SAMPLES, generator=torch.Generator().manual_seed(2)) + 0.1
    silent = torch.arange(SAMPLES) % 3 == 1
    if by_class:
        targets = torch.where(silent, 1, 0)
        more["class_weight"] = [2.0, 0.0]
    inputs = torch.where(silent[:, None], fill * inputs.sign(), inputs)
    weight[:, silent] = 0
    weights = None if by_class else weight if own else weight[0]
    data = gpubp.Dataset(inputs, targets, sample_weight=weights)
    settings = {"optimizer": "momentum", "lr": 0.01, "batch_size": BATCH, "steps": STEPS, **more}
    state = start(population(spec, COUNT, torch.float32), data, **settings)
    with on(machine, BATCH) as engine:
        engine.run(state, data, STEPS)
    assert (state.status == Status.running).all()
    assert torch.equal(state.step, state.end)
    return state


def check(*given: Any, **more: object) -> None:
    """The same bits with zeros in their place."""
    assert differing(*(trained(*given, fill=fill, **more) for fill in (FILL, 0.0))) == []


@pytest.mark.parametrize(
    ("machine", "loss", "hidden"),
    [("eager", *pair) for pair in PAIRS]
    + [pytest.param("networks", *pair, marks=[pytest.mark.slow] * (pair[0] != "poisson")) for pair in PAIRS],
)
def test_what_a_sample_of_weight_0_holds_changes_no_bit(machine: str, loss: str, hidden: tuple[str, ...]) -> None:
    check(machine, loss, hidden)


# The rest are close to these, or to networks of other tests.
APART = ("eager", "networks", "wide gpu block in chunks")


@pytest.mark.parametrize("machine", quick(MACHINES, APART))
def test_on_every_machine(machine: str) -> None:
    own = MACHINES.index(machine) % 2 == 1
    check(machine, "mean_squared_error", ROOT, own=own, shuffle="shared" if own else "network", dropout=0.3)


@pytest.mark.parametrize("machine", quick(("eager", "networks", "outputs", "gpu block"), ("eager", "networks")))
def test_a_class_of_weight_0_leaves_its_samples_out(machine: str) -> None:
    check(machine, "cross_entropy", "relu", by_class=True)


@pytest.mark.parametrize("machine", ["eager", "networks"])
def test_a_neighbour_whose_labels_are_smoothed_changes_nothing_of_that(machine: str) -> None:
    """Smoothed, every sample counts by the other classes."""
    alone = trained(machine, "cross_entropy", "relu", 1e3, by_class=True, label_smoothing=0.0)
    beside = trained(machine, "cross_entropy", "relu", 1e3, by_class=True, label_smoothing=[0.0, 0.2, 0.2, 0.0, 0.2])
    assert same_bits(alone.population.params[[0, 3]], beside.population.params[[0, 3]])
    assert not torch.equal(alone.population.params[1], beside.population.params[1])


@pytest.mark.parametrize("machine", ["eager", "networks"])
def test_a_minibatch_without_weight_changes_no_parameter(machine: str) -> None:
    spec = gpubp.NetworkSpec((2, 3, 1), "relu")
    data = gpubp.Dataset(
        torch.tensor([[FILL, FILL], [1.0, 2.0]]), torch.ones(2, 1), sample_weight=torch.tensor([0.0, 1.0])
    )
    state = start(population(spec, 3, torch.float32), data, optimizer="sgd", batch_size=1, steps=1, shuffle="none")
    before = state.population.params.clone()
    with on(machine, 1) as engine:
        engine.run(state, data, 1)
    assert same_bits(state.population.params, before)
    assert state.loss.tolist() == [0, 0, 0]
    assert (state.status == Status.running).all()


@pytest.mark.parametrize("machine", quick(("eager", "networks", "outputs", "gpu block"), ("eager", "networks")))
def test_nor_does_one_of_a_class_without_weight_whose_labels_are_smoothed(machine: str) -> None:
    spec = gpubp.NetworkSpec((2, 3, 3), "tanh", loss="cross_entropy")
    data = gpubp.Dataset(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1]))
    settings = {"label_smoothing": [0.0, 0.2], "class_weight": [0.0, 1.0, 1.0], "batch_size": 1, "shuffle": "none"}
    state = start(population(spec, 2, torch.float32), data, optimizer="sgd", steps=2, **settings)
    before = state.population.params.clone()
    with on(machine, 1) as engine:
        engine.run(state, data, 1)
        assert same_bits(state.population.params, before)
        assert state.loss.tolist() == [0, 0]
        engine.run(state, data, 1)
    assert (state.population.params != before).any(1).all()


def test_the_gradient_of_a_minibatch_leaves_it_out() -> None:
    spec = gpubp.NetworkSpec((3, 4, 2), "relu")
    inputs, targets = samples(spec, 6, dtype=torch.float32)
    params = population(spec, 3, torch.float32).params
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 0.5])
    filled = inputs.clone()
    filled[weight == 0] = FILL
    for one, other in zip(
        *(gpubp.backprop.gradients(spec, params, each, targets, weight) for each in (filled, inputs))
    ):
        torch.testing.assert_close(one, other)
