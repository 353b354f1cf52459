"""The gradient is right: against torch.autograd, in float64, over every activation, loss and kind of bias."""

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.backprop import gradients, loss_and_delta
from gpubp.verify import reference
from gpubp.verify.reference import leaves, reference_loss, reference_out, reference_row

from . import helpers
from .helpers import covering, generator, population, samples
from .tolerances import GRADIENT, SINGLE

BIASES = ("neuron", "layer", "none", "neuron-frozen", "layer-frozen")
DEPTHS = ((3, 2), (5, 7, 4), (4, 6, 5, 3))
COLUMNS = {"delta": [0.3, 1.0, 2.5], "quantile": [0.1, 0.5, 0.9], "label_smoothing": [0.0, 0.1, 0.6]}


def compare(spec: gpubp.NetworkSpec, weight: Tensor | None = None, own: bool = True, **hyper: Tensor) -> None:
    """gradients() of three networks, 6 samples each, against autograd, network by network."""
    params = population(spec, 3).params
    inputs, target = samples(spec, 3, 6) if own else samples(spec, 6)
    loss, grad = gradients(spec, params, inputs, target, weight, hyper)
    spread = {name: value.expand(3, *value.shape[-1:]) if name == "class_weight" else value.expand(3).tolist()
              for name, value in hyper.items()}  # fmt: skip
    for n in range(3):
        parts = leaves(spec, params[n])
        expected = reference_loss(
            spec.loss,
            reference_out(spec, parts, inputs[n] if own else inputs),
            target[n] if own else target,
            weight[n] if weight is not None and weight.ndim == 2 else weight,
            **{name: value[n] for name, value in spread.items()},
        )
        expected.backward()
        torch.testing.assert_close(loss[n], expected.detach(), **GRADIENT)
        torch.testing.assert_close(grad[n], reference_row(parts), **GRADIENT)


def test_every_row_of_the_tables_has_a_reference() -> None:
    assert set(reference.MODULES) == set(gpubp.ACTIVATIONS)
    assert set(reference.LOSSES) == set(gpubp.LOSSES)


@pytest.mark.parametrize(("hidden", "loss", "bias"), covering(gpubp.ACTIVATIONS, gpubp.LOSSES, BIASES, meet=1))
def test_the_gradient_is_autograds(hidden: str, loss: str, bias: str) -> None:
    for widths in DEPTHS:
        compare(gpubp.NetworkSpec(widths, hidden, loss=loss, bias=bias.split("-")[0], train_bias="frozen" not in bias))


UNITS = [name for name in gpubp.LOSSES if name not in helpers.LOGITS]


@pytest.mark.parametrize(("output", "loss"), covering(gpubp.ACTIVATIONS, UNITS, meet=1))
def test_the_gradient_passes_an_output_activation(output: str, loss: str) -> None:
    compare(gpubp.NetworkSpec((4, 5, 3), "tanh", output, loss))
    compare(gpubp.NetworkSpec((4, 3), output=output, loss=loss, bias="layer"))


def test_each_hidden_layer_may_have_its_own_activation() -> None:
    names = list(gpubp.ACTIVATIONS)
    compare(gpubp.NetworkSpec((2, *(3,) * len(names), 2), names))


@pytest.mark.parametrize("widths", [(64, 32, 10), (33, 17, 50), (784, 16, 2), (1, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("loss", ["half_squared_error", "cross_entropy"])
def test_padded_widths_leave_the_gradient_as_it_is(widths: tuple[int, ...], loss: str) -> None:
    compare(gpubp.NetworkSpec(widths, "sigmoid", loss=loss))
    compare(gpubp.NetworkSpec(widths, "softplus", loss=loss, bias="layer"))


@pytest.mark.parametrize("loss", gpubp.LOSSES)
def test_samples_shared_by_all_networks_give_each_its_own_gradient(loss: str) -> None:
    compare(gpubp.NetworkSpec((5, 7, 4), "silu", loss=loss), own=False)


@pytest.mark.parametrize("loss", gpubp.LOSSES)
def test_sample_weights_make_a_weighted_mean(loss: str) -> None:
    spec = gpubp.NetworkSpec((5, 7, 4), "tanh", loss=loss)
    weight = torch.rand(3, 6, generator=generator(3), dtype=torch.float64) * 4
    weight[1, 2] = 0
    compare(spec, weight)
    compare(spec, weight[1])


@pytest.mark.parametrize("loss", gpubp.LOSSES)
def test_a_batch_whose_samples_all_weigh_nothing_has_loss_and_gradient_0(loss: str) -> None:
    spec = gpubp.NetworkSpec((5, 7, 4), "tanh", loss=loss)
    weight = torch.ones(3, 6, dtype=torch.float64)
    weight[1] = 0
    params, batch = population(spec, 3).params, samples(spec, 3, 6)
    found, grad = gradients(spec, params, *batch, weight)
    plain, usual = gradients(spec, params, *batch)
    assert found[1] == 0
    assert not grad[1].any()
    torch.testing.assert_close(found[::2], plain[::2], **GRADIENT)
    torch.testing.assert_close(grad[::2], usual[::2], **GRADIENT)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_each_network_may_have_its_own_loss_hyper_parameter(name: str, weighted: bool) -> None:
    (loss,) = (row for row, rule in gpubp.LOSSES.items() if name in rule.defaults)
    weight = torch.rand(3, 6, generator=generator(4), dtype=torch.float64) if weighted else None
    column = torch.tensor(COLUMNS[name], dtype=torch.float64)
    compare(gpubp.NetworkSpec((5, 7, 4), "tanh", loss=loss), weight, **{name: column})


def test_every_loss_hyper_parameter_is_tried_with_columns() -> None:
    assert {name for rule in gpubp.LOSSES.values() for name in rule.defaults} == set(COLUMNS)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_class_weights_are_cross_entropys(smoothing: float) -> None:
    spec = gpubp.NetworkSpec((5, 7, 4), "tanh", loss="cross_entropy")
    weight = torch.rand(3, 4, generator=generator(5), dtype=torch.float64) * 3
    weight[2, 1] = 0
    compare(spec, class_weight=weight, label_smoothing=torch.tensor(smoothing))
    compare(spec, class_weight=weight[0], label_smoothing=torch.tensor(smoothing))


def test_class_weights_and_sample_weights_multiply() -> None:
    weight, by_class = torch.rand(3, 6, generator=generator(6)).double(), torch.tensor([0.5, 1.0, 2.0, 4.0]).double()
    compare(gpubp.NetworkSpec((5, 7, 4), "tanh", loss="cross_entropy"), weight, class_weight=by_class)


NETS = (0.0, -0.0, 1e-40, 1e-3, 1.0, 9.5, 20.0, 88.0, 89.0, 104.0, 709.0, 746.0, 1e4, 1e20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", gpubp.ACTIVATIONS)
def test_an_activation_is_finite_for_any_net(name: str, dtype: torch.dtype) -> None:
    net = torch.tensor([*NETS, *(-x for x in NETS)], dtype=dtype)
    out = gpubp.ACTIVATIONS[name].value(net)
    slope = gpubp.ACTIVATIONS[name].slope(net, out)
    for found in (out, slope):
        assert found.isfinite().all()
    leaf = net.double().requires_grad_()
    expected = reference.MODULES[name]()(leaf)
    (slopes,) = torch.autograd.grad(expected.sum(), leaf)
    close = SINGLE if dtype == torch.float32 else GRADIENT
    torch.testing.assert_close(out.double(), expected.detach(), **close)
    torch.testing.assert_close(slope[net != 0].double(), slopes[net != 0], **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("loss", gpubp.LOSSES)
def test_no_loss_is_nan_for_logits_of_10000(loss: str, dtype: torch.dtype) -> None:
    spec = gpubp.NetworkSpec((4, 4), loss=loss)
    out = torch.tensor([[1e4, -1e4, 0, 1e4], [-1e4, 1e4, 1e4, 88], [0, 1e4, -709, -1e4]], dtype=dtype).expand(2, 3, 4)
    target = helpers.targets(spec, 2, 3, dtype=dtype)
    columns = [{}, {name: torch.tensor([[0.0], [0.25]], dtype=dtype) for name in gpubp.LOSSES[loss].defaults}]
    if loss == "cross_entropy":
        columns.append({"class_weight": torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=dtype).expand(2, -1)})
    for hyper in columns:
        if not hyper and loss in ("huber", "quantile"):
            hyper = {
                name: torch.full((2, 1), value, dtype=dtype) for name, value in gpubp.LOSSES[loss].defaults.items()
            }
        value, delta = loss_and_delta(spec, out, out, target, hyper=hyper)
        assert not value.isnan().any()
        assert not delta.isnan().any()
        if loss != "poisson":  # whose rate, exp(10,000), is no number
            assert value.isfinite().all()
            assert delta.isfinite().all()
