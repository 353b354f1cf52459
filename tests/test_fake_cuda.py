"""The steps of a GPU in torch without numbers, on cuda:0: none reads a number back, none mixes devices, for every row
of the tables. Nothing is computed; that it is right is for test_graph.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp import backprop
from gpubp.engines import eager, graph
from gpubp.numerics import kernel_widths
from gpubp.optimizers import Optimizer

from .helpers import LOGITS, population, samples, start
from .recorder import DEVICE, pretended, there

COUNT, BATCH, GROUP = 3, 6, 8


def pretend(spec: gpubp.NetworkSpec, data: gpubp.Dataset | None = None, **settings: Any) -> None:
    """One group's recording and three replays on cuda:0, the way that eager.train_group makes them."""
    inputs, target = samples(spec, 23, dtype=torch.float32)
    given = gpubp.Dataset(inputs, target) if data is None else data
    state = start(population(spec, COUNT, torch.float32), given, batch_size=BATCH, steps=5, **settings)
    with pretended() as give:
        pretending, own = there(given, give), state._each(give)
        rows = backprop.filled(own.population.params, GROUP)
        block = eager.Block(own.rows(rows), kernel_widths(spec.widths, BATCH))
        whole = graph.group(block, own.position[rows], pretending)
        assert whole.reason is None, whole.reason
        whole.take(torch.zeros(GROUP, 3 * BATCH, dtype=torch.int32, device=DEVICE))
        assert {tensor.device for tensor in whole.stay} == {DEVICE}


@pytest.mark.parametrize("name", gpubp.ACTIVATIONS)
def test_every_activation_stays_on_the_gpu(name: str) -> None:
    pretend(gpubp.NetworkSpec((5, 33, 7, 2), name, name, "mean_squared_error"))


@pytest.mark.parametrize("name", gpubp.LOSSES)
def test_every_loss_stays_on_the_gpu(name: str) -> None:
    pretend(gpubp.NetworkSpec((5, 8, 3), "tanh", "identity" if name in LOGITS else "sigmoid", name))


@pytest.mark.parametrize("order", ["simultaneous", "layerwise"])
@pytest.mark.parametrize("name", gpubp.OPTIMIZERS)
def test_every_optimizer_stays_on_the_gpu(name: str, order: str) -> None:
    pretend(gpubp.NetworkSpec((5, 33, 2), "relu"), optimizer=name, weight_decay=0.1, update_order=order)


@pytest.mark.parametrize("name", gpubp.SCHEDULES)
def test_every_schedule_stays_on_the_gpu(name: str) -> None:
    pretend(gpubp.NetworkSpec((5, 8, 2), "relu"), schedule=name, warmup=[0, 2, 3])


@pytest.mark.parametrize("bias", ["neuron", "layer", "none"])
@pytest.mark.parametrize("trained", [True, False])
def test_every_bias_stays_on_the_gpu(bias: str, trained: bool) -> None:
    pretend(gpubp.NetworkSpec((5, 33, 2), "relu", bias=bias, train_bias=trained))


FEATURES: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": [0.1, 0.2, 0.3]},
    "penalties": {"l1": 1e-3, "l2": [0.1, 0.2, 0.3]},
    "clipping": {"clip_value": 0.1, "clip_norm": [1, 2, 3]},
    "class weights": {"class_weight": [1, 2, 3.0], "label_smoothing": 0.1},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_stays_on_the_gpu(feature: str) -> None:
    pretend(gpubp.NetworkSpec((5, 33, 3), "relu", loss="cross_entropy"), **FEATURES[feature])


@pytest.mark.parametrize("own", ["inputs", "rows", "weights"])
def test_data_of_each_network_stay_on_the_gpu(own: str) -> None:
    spec = gpubp.NetworkSpec((5, 33, 3), "relu", loss="cross_entropy")
    inputs, target = samples(spec, COUNT, 23, dtype=torch.float32)
    weight = torch.rand(COUNT, 23, generator=torch.Generator().manual_seed(1))
    data = {
        "inputs": gpubp.Dataset(inputs, target),
        "rows": gpubp.Dataset(inputs[0], target[0], rows=[range(3), range(7), range(23)]),
        "weights": gpubp.Dataset(inputs[0], target[0], sample_weight=weight),
    }[own]
    pretend(spec, data)


def test_a_rule_of_ones_own_whose_slots_are_looked_at_stays_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Optimizer(lambda grad, last: (grad + last, grad), ("last",))
    monkeypatch.setitem(gpubp.OPTIMIZERS, "own", rule)
    pretend(gpubp.NetworkSpec((5, 33, 2), "relu"), optimizer="own")


def test_outs_are_computed_on_the_gpu_in_whole_groups() -> None:
    spec = gpubp.NetworkSpec((5, 33, 2), "relu")
    with pretended() as give:
        params = give(torch.empty(3, spec.size))
        inputs = torch.empty(23, 5, device=DEVICE)
        assert backprop.forward(spec, params, inputs).device == DEVICE


def reads(net: Tensor) -> Tensor:
    return net * (2.0 if bool(net.sum() > 0) else 1.0)


def mixes(net: Tensor) -> Tensor:
    return net * torch.ones(net.shape)


def picks(net: Tensor) -> Tensor:
    net.view(-1)[net.view(-1).nonzero()[:, 0]]
    return net


@pytest.mark.parametrize("fault", [reads, mixes, picks])
def test_a_rule_that_waits_for_the_gpu_or_leaves_it_is_found(
    fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpubp.ACTIVATIONS, "fault", gpubp.Activation(fault, lambda net, out: net))
    with pytest.raises(AssertionError, match=r"_local_scalar_dense|on the same device|nonzero"):
        pretend(gpubp.NetworkSpec((5, 8, 2), "fault"))
