"""A row to and from torch.nn: the same outs, the same numbers, and errors that say what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gpubp
from gpubp.errors import ShapeError, SpecError
from gpubp.modules import MODULES

from .helpers import generator, population, same_bits, samples
from .tolerances import MODULE

BIASES = ("neuron", "layer", "none")


def test_every_activation_has_a_module() -> None:
    assert set(MODULES) == set(gpubp.ACTIVATIONS)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("output", ["identity", "tanh"])
@pytest.mark.parametrize("hidden", gpubp.ACTIVATIONS)
def test_a_module_computes_what_forward_does(hidden: str, output: str, bias: str) -> None:
    spec = gpubp.NetworkSpec((5, 7, 6, 4), hidden, output, bias=bias)
    networks, (inputs, _) = population(spec, 3), samples(spec, 9)
    outs = gpubp.backprop.forward(spec, networks.params, inputs)
    for number in range(3):
        module = networks.network(number)
        torch.testing.assert_close(module(inputs).detach(), outs[number], **MODULE)
        assert len(module) == 6 - (output == "identity")


@pytest.mark.parametrize("bias", ["neuron", "none"])
@pytest.mark.parametrize("train_bias", [True, False])
@pytest.mark.parametrize("output", ["identity", "sigmoid"])
@pytest.mark.parametrize("hidden", gpubp.ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_networks_survive_the_round_trip(
    hidden: str, output: str, bias: str, train_bias: bool, dtype: torch.dtype
) -> None:
    spec = gpubp.NetworkSpec((5, 7, 6, 4), hidden, output, "half_squared_error", bias, train_bias or bias == "none")
    networks = population(spec, 3, dtype)
    back = gpubp.Population.from_modules([networks.network(n) for n in range(3)], loss="half_squared_error", seed=5)
    for name in ("widths", "activations", "loss", "bias", "train_bias"):
        assert getattr(back.spec, name) == getattr(spec, name)
    assert same_bits(back.params, networks.params)
    assert back.ids.tolist() == [0, 1, 2]
    assert back.seed == 5


def test_mixed_activations_survive_the_round_trip() -> None:
    spec = gpubp.NetworkSpec((3, *(4,) * len(MODULES), 2), tuple(gpubp.ACTIVATIONS))
    networks = population(spec, 2)
    back = gpubp.Population.from_modules([networks.network(n) for n in range(2)])
    assert back.spec == spec
    assert same_bits(back.params, networks.params)


def test_a_bias_per_layer_comes_back_as_equal_ones() -> None:
    networks = population(gpubp.NetworkSpec((5, 7, 4), bias="layer"), 1)
    back = gpubp.Population.from_modules([networks.network(0)])
    assert back.spec.bias == "neuron"
    for (_, one), (_, many) in zip(networks.spec.layers(networks.params), back.spec.layers(back.params)):
        assert same_bits(many, one.expand_as(many))


def test_a_module_holds_copies() -> None:
    networks = population(gpubp.NetworkSpec((5, 4)), 2)
    before = networks.params.clone()
    with torch.no_grad():
        networks.network(1)[0].weight.zero_()
    assert same_bits(networks.params, before)
    module = nn.Sequential(nn.Linear(3, 2))
    taken = gpubp.Population.from_modules([module]).params
    taken.zero_()
    assert module[0].weight.any()
    assert not taken.requires_grad


def test_only_frozen_biases_lose_their_gradient() -> None:
    for frozen in (True, False):
        module = population(gpubp.NetworkSpec((5, 7, 4), train_bias=not frozen), 1).network(0)
        for linear in module[::2]:
            assert linear.weight.requires_grad
            assert linear.bias.requires_grad is not frozen


def test_rows_count_from_the_end_too() -> None:
    networks = population(gpubp.NetworkSpec((5, 4)), 3)
    assert torch.equal(networks.network(-1)[0].weight, networks.network(2)[0].weight)


@pytest.mark.parametrize("row", [3, -4])
def test_a_row_that_there_is_not_is_refused(row: int) -> None:
    with pytest.raises(ShapeError, match=f"network holds {row} to {row}; rows from 0 to 2"):
        population(gpubp.NetworkSpec((5, 4)), 3).network(row)


def test_an_activation_without_a_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        gpubp.ACTIVATIONS, "double", gpubp.Activation(lambda net: 2 * net, lambda net, out: 2 + 0 * net)
    )
    networks = population(gpubp.NetworkSpec((5, 4, 2), "double"), 1)
    with pytest.raises(SpecError, match=r"'double' has no torch.nn module; add one: gpubp.modules.MODULES\['double'\]"):
        networks.network(0)
    monkeypatch.setitem(MODULES, "double", nn.Identity)
    assert len(networks.network(0)) == 3


REFUSED = [
    ([], "one module or more, got none"),
    ([nn.ReLU()], "module 0"),
    ([nn.Sequential()], "a Sequential of Linear and activations expected"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Tanh())], "at most one activation"),
    ([nn.Sequential(nn.Tanh(), nn.Linear(2, 3))], "module 0 holds Tanh"),
    ([nn.Sequential(nn.Conv1d(2, 2, 1))], "Conv1d"),
    ([nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.5))], "LeakyReLU"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ELU(2.0))], "ELU"),
    ([nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))], "some Linear have a bias and some have none"),
    ([nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))], "equal features expected"),
    ([nn.Linear(2, 3), nn.Linear(2, 4)], "module 1 is"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Sequential(nn.Linear(2, 3), nn.Tanh())], "one topology"),
]


@pytest.mark.parametrize(("modules", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_modules_that_are_no_such_networks_are_refused(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        gpubp.Population.from_modules(modules)


def test_a_lone_linear_is_a_network() -> None:
    linear = nn.Linear(3, 2)
    networks = gpubp.Population.from_modules([linear])
    assert networks.spec.widths == (3, 2)
    inputs = torch.randn(4, 3, generator=generator(1))
    torch.testing.assert_close(networks.predict(inputs)[0], linear(inputs).detach())
