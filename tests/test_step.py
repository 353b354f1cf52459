"""One step of the engine is what torch makes of the same samples, penalties, limits and dropout."""

from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import eager
from gpubp.maths import rng
from gpubp.state import TrainState
from gpubp.verify.reference import leaves, reference_loss, reference_out, reference_row

from .helpers import covering, population, same_bits, samples, start, train
from .tolerances import GRADIENT

SPECS = [
    gpubp.NetworkSpec((4, 6, 5, 3), "tanh", loss="half_squared_error"),
    gpubp.NetworkSpec((4, 6, 5, 3), "relu", loss="cross_entropy", bias="layer"),
    gpubp.NetworkSpec((33, 7, 3), "sigmoid", bias="none"),
    gpubp.NetworkSpec((4, 6, 3), "silu", loss="huber", train_bias=False),
]
COLUMN = torch.tensor([0.0, 0.03, 0.4], dtype=torch.float64)


def batch(spec: gpubp.NetworkSpec) -> tuple[Tensor, Tensor, Tensor]:
    return population(spec, 3).params, *samples(spec, 3, 6)


def one_step(spec: gpubp.NetworkSpec, params: Tensor, inputs: Tensor, target: Tensor, **settings: Any) -> TrainState:
    """One step of sgd with lr 1 on exactly these samples (N, B, I): what it takes off the params is the gradient."""
    ids = torch.arange(len(params))
    settings = {"optimizer": "sgd", "lr": 1.0, "batch_size": inputs.shape[1], "steps": 1, "shuffle": "none", **settings}
    return train(gpubp.Population(spec, params, 5, ids), gpubp.Dataset(inputs, target), **settings)


LIMITS = torch.tensor([0.01, 0.1, 1e3], dtype=torch.float64)  # the first clips, the last does not
SETTINGS: dict[str, dict[str, Tensor]] = {
    "nothing": {},
    "l1": {"l1": COLUMN},
    "l2": {"l2": COLUMN},
    "both penalties": {"l1": COLUMN, "l2": COLUMN.flip(0)},
    "norms": {"clip_norm": 5 * LIMITS, "l2": COLUMN},
    "values": {"clip_value": LIMITS},
    "values before norms": {"clip_value": LIMITS, "clip_norm": torch.full_like(LIMITS, 0.08)},
}


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_of_sgd_subtracts_the_gradient_of_loss_and_penalties_that_is_clipped(
    name: str, spec: gpubp.NetworkSpec
) -> None:
    """l1 |w| + l2 / 2 w^2 of weights, which are every other part, alone; norms are those of whole networks."""
    params, inputs, target = batch(spec)
    state, norms = one_step(spec, params, inputs, target, **SETTINGS[name]), list[float]()
    for n in range(3):
        own = {key: float(column[n]) for key, column in SETTINGS[name].items()}
        parts = leaves(spec, params[n])
        loss = reference_loss(spec.loss, reference_out(spec, parts, inputs[n]), target[n])
        for weight in parts[::2]:
            loss = loss + own.get("l1", 0) * weight.abs().sum() + own.get("l2", 0) / 2 * weight.square().sum()
        loss.backward()
        norms.append(float(reference_row(parts).norm()))
        if "clip_value" in own:
            torch.nn.utils.clip_grad_value_(parts, own["clip_value"])
        if "clip_norm" in own:
            torch.nn.utils.clip_grad_norm_([part for part in parts if part.grad is not None], own["clip_norm"])
        torch.testing.assert_close(state.loss[n], loss.detach(), **GRADIENT)
        moved = params[n] - state.population.params[n]
        torch.testing.assert_close(moved, reference_row(parts), **GRADIENT)
    assert norms[0] > 5 * LIMITS[0]
    assert norms[2] < 5 * LIMITS[2]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_dropout_uses_the_words_of_the_format_and_scales_the_rest(spec: gpubp.NetworkSpec) -> None:
    chance, when = torch.tensor([0.0, 0.25, 0.7], dtype=torch.float64), 11
    params, inputs, target = batch(spec)
    data = gpubp.Dataset(inputs, target)
    state = start(gpubp.Population(spec, params, 5, torch.tensor([4, 0, 9])), data, optimizer="sgd", lr=1.0,
                  batch_size=6, steps=when + 1, shuffle="none", dropout=chance)  # fmt: skip
    state.step.fill_(when)
    eager.run(state, data, 1)
    losses, rows = [], []
    for n in range(3):
        masks = []
        for layer, width in enumerate(spec.widths[1:-1]):
            words = rng.words(5, state.population.ids[n : n + 1], 6 * width, layer, rng.DROPOUT, torch.tensor([when]))
            kept = words[0].view(6, width).double() / 2**32 >= chance[n]
            masks.append(kept / (1 - chance[n]))
        parts = leaves(spec, params[n])
        loss = reference_loss(spec.loss, reference_out(spec, parts, inputs[n], masks), target[n])
        loss.backward()
        losses.append(loss.detach())
        rows.append(reference_row(parts))
    torch.testing.assert_close(state.loss, torch.stack(losses), **GRADIENT)
    torch.testing.assert_close(params - state.population.params, torch.stack(rows), **GRADIENT)


@pytest.mark.parametrize("bias", ["neuron", "layer"])
def test_layerwise_updates_a_layer_before_the_delta_below_it(bias: str) -> None:
    spec = gpubp.NetworkSpec((4, 6, 3), "tanh", bias=bias)
    params, inputs, target = batch(spec)
    state = one_step(spec, params, inputs, target, update_order="layerwise")
    for n in range(3):
        (low, low_bias), (top, top_bias) = ((w[n], b[n]) for w, b in spec.layers(params))
        out = torch.tanh(inputs[n] @ low + low_bias)
        delta = 2 * (out @ top + top_bias - target[n]) / target[n].numel()
        top = top - out.T @ delta
        below = delta @ top.T * (1 - out**2)
        found = [w[n] for w, _ in spec.layers(state.population.params)]
        torch.testing.assert_close(found[1], top, **GRADIENT)
        torch.testing.assert_close(found[0], low - inputs[n].T @ below, **GRADIENT)


@pytest.mark.parametrize("optimizer", gpubp.OPTIMIZERS)
@pytest.mark.parametrize("bias", ["neuron", "layer"])
def test_frozen_biases_do_not_change_with_any_optimizer(optimizer: str, bias: str) -> None:
    spec = gpubp.NetworkSpec((4, 6, 3), "tanh", bias=bias, train_bias=False)
    params, inputs, target = batch(spec)
    state = train(population(spec, 3), gpubp.Dataset(inputs, target), optimizer=optimizer, steps=3, batch_size=6,
                  weight_decay=0.1, l1=0.1, l2=0.1)  # fmt: skip
    for (before, fixed), (after, still) in zip(spec.layers(params), spec.layers(state.population.params)):
        assert same_bits(fixed, still)
        assert not torch.isclose(before, after).all(2).all(1).any()


OFF = ("weight_decay", "l1", "l2", "dropout", "warmup", "label_smoothing")


@pytest.mark.parametrize(
    ("name", "dtype", "optimizer"), covering(OFF, [torch.float32, torch.float64], ["sgd", "adamw"])
)
def test_a_column_of_zeros_is_the_same_as_nothing_bit_for_bit(name: str, dtype: torch.dtype, optimizer: str) -> None:
    spec = gpubp.NetworkSpec((5, 7, 4), "tanh", loss="cross_entropy")
    networks, data = population(spec, 3, dtype), gpubp.Dataset(*samples(spec, 20, dtype=dtype))
    settings = {"optimizer": optimizer, "lr": 0.1, "batch_size": 6, "steps": 7, "schedule": "cosine"}
    plain, zeros = (train(networks, data, **settings, **{name: value}) for value in (0.0, [0.0, 0.0, 0.0]))
    assert name not in plain.hyper
    assert name in zeros.hyper
    assert same_bits(plain.population.params, zeros.population.params)
    assert same_bits(plain.loss, zeros.loss)
