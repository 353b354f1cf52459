"""A failure is a value: a network whose numbers are no longer finite stops where it was, and changes nobody."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import gpubp
from gpubp import backprop
from gpubp.engines import cpu, eager
from gpubp.state import Status, TrainState

from .helpers import covering, needs_compiler, quick, same_bits, start, train
from .test_independence import BATCH, COUNT, LR, SPECS, STEPS, dataset, differences, networks

EVERYONE = list(range(COUNT))


@pytest.fixture(params=["eager", "cpu"])
def engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "cpu":
        needs_compiler()
    return {"eager": eager, "cpu": cpu}[request.param]


def check_neighbours(good: gpubp.Population, data: gpubp.Dataset, value: float, **settings: Any) -> None:
    """Network 3, of which a number is not finite, stays as it is, and changes no other."""
    everyone, broken = range(good.count), replace(good, params=good.params.clone())
    broken.params[3, 1] = value
    whole, state = (train(each, data, **settings) for each in (good, broken))
    rest = [n for n in everyone if n != 3]
    assert not differences(state, whole, rest)
    assert state.status.tolist() == [Status.diverged if n == 3 else Status.running for n in everyone]
    assert state.diverged_step.tolist() == [0 if n == 3 else -1 for n in everyone]
    assert state.step[3] == 0
    assert same_bits(state.population.params[3], broken.params[3])
    assert not any(slot[3].any() for slot in state.slots)
    assert all(column[3] == 1 for column in state.columns.values())
    assert state.loss[3].isnan()


@pytest.mark.parametrize(("name", "optimizer", "value"), covering(SPECS, LR, [float("inf"), float("nan")], meet=1))
def test_a_non_finite_network_does_not_affect_its_neighbours(name: str, optimizer: str, value: float) -> None:
    settings = {"optimizer": optimizer, "lr": LR[optimizer], "batch_size": BATCH, "steps": STEPS}
    check_neighbours(networks(SPECS[name]), dataset(SPECS[name]), value, **settings)


def last_finite_step(number: int, lr: float, spec: gpubp.NetworkSpec, data: gpubp.Dataset) -> int:
    """The first step that leaves a loss or a parameter that is not finite, by gradients() alone."""
    row = networks(spec, [number]).params
    place = torch.zeros(1, dtype=torch.int64)
    order = data.order(5, torch.tensor([number]), place, place, STEPS, BATCH, "network")[0].view(STEPS, BATCH)
    for step, batch in enumerate(order):
        loss, grad = backprop.gradients(spec, row, data.inputs[batch], data.targets[batch])
        row = row - lr * grad
        if not (loss.isfinite() and row.isfinite().all()):
            return step
    return -1


RELU = gpubp.NetworkSpec((5, 16, 2), "relu")
RATES = [0.01, 1.0, 0.01, 2.0, 10.0, 1e38, 0.01, 1e3, 3e38]


def test_the_step_of_divergence_is_found_and_does_not_count() -> None:
    spec, data = RELU, dataset(RELU)
    settings = {"optimizer": "sgd", "batch_size": BATCH, "steps": STEPS, "lr": RATES}
    states = [train(networks(spec), data, cuts, **settings) for cuts in ([1] * 8, [5, 3])]
    found = [last_finite_step(n, lr, spec, data) for n, lr in enumerate(RATES)]
    assert len(set(found)) > 3, "networks diverge at different steps"
    assert [state.diverged_step.tolist() for state in states] == [found] * 2
    for number, step in enumerate(found):
        alone = None if step == 0 else train(
            networks(spec, [number]), data, batch_size=BATCH, optimizer="sgd", lr=RATES[number],
            steps=STEPS if step < 0 else step)  # fmt: skip
        for state in states:
            assert state.status[number] == (Status.running if step < 0 else Status.diverged)
            assert state.step[number] == (STEPS if step < 0 else step)
            if alone is None:
                assert same_bits(state.population.params[number], networks(spec, [number]).params[0])
                continue
            assert not set(differences(alone, state, others=[number])) - {"status", "diverged_step"}, number
            assert alone.diverged_step[0] == -1


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "amsgrad", "nadam"])
def test_slots_and_columns_go_back_with_the_row(optimizer: str) -> None:
    spec, data = SPECS["5-33-2"], dataset(SPECS["5-33-2"])
    settings = {"optimizer": optimizer, "batch_size": BATCH, "steps": STEPS}
    state = start(networks(spec), data, **settings)
    eager.run(state, data, 3)
    before = [(name, each.clone()) for name, each in state.tensors()]
    state.hyper["lr"][4] = float("inf")
    eager.run(state, data, 5)
    assert (state.step[4], state.diverged_step[4], state.status[4]) == (3, 3, Status.diverged)
    for (name, each), (_, after) in zip(before, state.tensors()):
        if name not in ("hyper.lr", "status", "diverged_step"):
            assert same_bits(each[4], after[4]), name
    whole = train(networks(spec), data, **settings)
    rest = [n for n in EVERYONE if n != 4]
    assert not differences(state, whole, rest)


def test_a_non_finite_loss_ends_a_network_with_a_finite_row(engine: Any) -> None:
    spec = gpubp.NetworkSpec((2, 1), bias="none")
    population = gpubp.Population(spec, torch.tensor([[1.0, 1.0], [1e25, 1e25]]), 5, torch.arange(2))
    data = gpubp.Dataset(torch.ones(BATCH, 2), torch.zeros(BATCH, 1))
    for cuts in ([STEPS], [1] * STEPS):
        settings = {"optimizer": "sgd", "batch_size": BATCH, "steps": STEPS, "clip_value": 1.0}
        state = train(population, data, cuts, engine, **settings)
        assert state.diverged_step.tolist() == [-1, 0]
        assert state.loss[1].isnan(), "the step did not count, so there is no loss yet"
        assert same_bits(state.population.params[1], population.params[1])


def test_a_penalty_of_0_adds_nothing_to_a_loss_however_large_the_weights_are(engine: Any) -> None:
    spec = gpubp.NetworkSpec((2, 1), bias="none")
    population = gpubp.Population(spec, torch.tensor([[1.0, 1.0], [3e38, 3e38]]), 5, torch.arange(2))
    data = gpubp.Dataset(torch.zeros(BATCH, 2), torch.zeros(BATCH, 1))
    for factor in (0.0, [0.1, 0.0]):  # of one that is off for all there is no column
        settings = {"optimizer": "sgd", "batch_size": BATCH, "steps": STEPS, "l1": factor, "l2": factor}
        assert train(population, data, engine=engine, **settings).diverged_step.tolist() == [-1, -1]


OWN = {"label_smoothing": [0.1, 0.0]}, {"class_weight": [1.0, 1.0]}  # which share what is computed of a class
BOTH = {**OWN[0], **OWN[1]}


@pytest.mark.parametrize("own", quick([BOTH, *OWN], [BOTH]), ids=str)
def test_a_class_that_does_not_count_adds_nothing_however_small_its_logit_is(engine: Any, own: dict[str, Any]) -> None:
    spec = gpubp.NetworkSpec((1, 2), bias="none", loss="cross_entropy")
    population = gpubp.Population(spec, torch.tensor([[1.0, 0.0], [3e38, -3e38]]), 5, torch.arange(2))
    data = gpubp.Dataset(torch.ones(BATCH, 1), torch.zeros(BATCH, dtype=torch.int64))
    state = train(population, data, engine=engine, optimizer="sgd", batch_size=BATCH, steps=STEPS, **own)
    assert state.diverged_step.tolist() == [-1, -1]
    assert state.loss[1] == 0, "as in torch"


def test_all_may_diverge_at_once_and_train_no_more(engine: Any) -> None:
    broken = networks(RELU)
    broken.params[:] = float("inf")
    state = train(broken, dataset(RELU), [5, 7], engine, optimizer="sgd", batch_size=BATCH, steps=STEPS)
    assert (state.status == Status.diverged).all()
    assert not state.step.any()
    assert not state.diverged_step.any()


def test_networks_of_different_lengths_diverge_where_they_do_alone(engine: Any) -> None:
    data, ends = dataset(RELU), [5, 8, 2, 8, 1, 8, 7, 3, 8]
    settings = {"optimizer": "sgd", "batch_size": BATCH, "engine": engine}
    state = train(networks(RELU), data, lr=RATES, steps=ends, **settings)
    for number, end in enumerate(ends):
        alone = train(networks(RELU, [number]), data, lr=RATES[number], steps=end, **settings)
        assert not differences(alone, state, others=[number]), number


def returning(grad: torch.Tensor, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Its slot is infinite after a large gradient, and finite after the next small one; its direction always is."""
    return torch.clamp(grad, -1, 1), grad * 1e30 * torch.clamp(torch.abs(grad) - 2, min=0) * 1e30


def trained_by_returning(engine: Any, cuts: list[int], monkeypatch: pytest.MonkeyPatch) -> TrainState:
    """Two networks of one weight, whose fourth sample is far off; it does not count for the first of them."""
    monkeypatch.setitem(gpubp.OPTIMIZERS, "returning", gpubp.Optimizer(returning, ("peak",)))
    far, weight = torch.tensor([[0.5]] * 3 + [[9.0]] + [[0.5]] * 4), torch.ones(2, 8)
    weight[0, 3] = 0
    data = gpubp.Dataset(torch.ones(8, 1), far, sample_weight=weight)
    networks = gpubp.Population(gpubp.NetworkSpec((1, 1), bias="none"), torch.full((2, 1), 0.5), 5, torch.arange(2))
    settings = {"optimizer": "returning", "lr": 1e-3, "batch_size": 1, "steps": 8, "shuffle": "none"}
    return train(networks, data, cuts, engine=engine, **settings)


@pytest.mark.parametrize("name", [name for name, rule in gpubp.OPTIMIZERS.items() if rule.absorbing and rule.slots])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_an_absorbing_rules_slots_never_recover(name: str, value: float) -> None:
    rule = gpubp.OPTIMIZERS[name]
    arguments = [torch.tensor(0.25, dtype=torch.float64)] * len(rule.arguments)
    for number, slot in enumerate(rule.slots):
        if value < 0 and slot not in ("velocity", "mean", "moved"):
            continue  # sums of squares
        slots = [torch.full((3,), 0.5, dtype=torch.float64) for _ in rule.slots]
        slots[number][:] = value
        for grad in (0.0, 1.0, -1.0, 1e300):
            after = rule.direction(torch.full((3,), grad, dtype=torch.float64), *slots, *arguments)[1:]
            assert not after[number].isfinite().any(), (slot, grad)
