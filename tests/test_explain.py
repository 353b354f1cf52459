"""An explanation shows the engine's own step: its numbers, in the tutorial's order and words."""

import json
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import eager
from gpubp.explaining.notation import ERRORS, SLOPES
from gpubp.explaining.steps import Explanation, explain, explain_steps
from gpubp.pages.explained import explained
from gpubp.settings.recipe import EXACT, PRECISIONS
from gpubp.state import Status, TrainState

from .explained import tutorials, value
from .helpers import covering, population, same_bits, samples, start
from .tolerances import GRADIENT

SPEC = gpubp.NetworkSpec((5, 4, 3), "tanh")
SETTINGS = {"optimizer": "sgd", "lr": 0.1, "batch_size": 4, "steps": 6}

TOLD = """
Forward Pass
Hidden Layer
net_h1 = w1 * i1 + w2 * i2 + b1 * 1 = 0.15 * 0.05 + 0.2 * 0.1 + 0.35 * 1 = 0.3775
out_h1 = sigmoid(net_h1) = sigmoid(0.3775) = 0.593269992
net_h2 = w3 * i1 + w4 * i2 + b1 * 1 =
out_h2 = sigmoid(net_h2) = sigmoid(0.3925) = 0.596884378
Output Layer
net_o1 = w5 * out_h1 + w6 * out_h2 + b2 * 1 = 0.4 * 0.593269992 + 0.45 * 0.596884378 + 0.6 * 1 = 1.105905967
out_o1 = sigmoid(net_o1) = sigmoid(1.105905967) = 0.75136507
= 0.772928465
Total Error
E_o1 = 1/2 * (target_o1 - out_o1)^2 = 1/2 * (0.01 - 0.75136507)^2 = 0.274811083
= 0.023560026
E_total = E_o1 + E_o2 = 0.274811083 + 0.023560026 = 0.298371109
Backwards Pass
Output Layer
dE_total/dout_o1 = -(target_o1 - out_o1) = -(0.01 - 0.75136507) = 0.74136507
dout_o1/dnet_o1 = out_o1 * (1 - out_o1) = 0.75136507 * (1 - 0.75136507) = 0.186815602
dnet_o1/dw5 = out_h1 = 0.593269992
dE_total/dw5 = dE_total/dout_o1 * dout_o1/dnet_o1 * dnet_o1/dw5 = 0.74136507 * 0.186815602 * 0.593269992 = 0.082167041
w5+ = w5 - 0.5 * dE_total/dw5 = 0.4 - 0.5 * 0.082167041 = 0.35891648
b2+ = b2 = 0.6: it is frozen
Hidden Layer
dE_o1/dout_h1 = dE_o1/dnet_o1 * dnet_o1/dout_h1 = dE_o1/dnet_o1 * w5 = 0.138498562 * 0.4 = 0.055399425
dE_o2/dout_h1 =
dE_total/dout_h1 = dE_o1/dout_h1 + dE_o2/dout_h1 = 0.055399425 + -0.019049118 = 0.036350306
dout_h1/dnet_h1 = out_h1 * (1 - out_h1) = 0.593269992 * (1 - 0.593269992) = 0.241300709
dnet_h1/dw1 = i1 = 0.05
dE_total/dw1 = dE_total/dout_h1 * dout_h1/dnet_h1 * dnet_h1/dw1 = 0.036350306 * 0.241300709 * 0.05 = 0.000438568
w1+ = w1 - 0.5 * dE_total/dw1 = 0.15 - 0.5 * 0.000438568 = 0.149780716
b1+ = b1 = 0.35: it is frozen
New Error
E_total = 0.291027774
""".strip().splitlines()


def begun(count: int, spec: gpubp.NetworkSpec = SPEC, **settings: Any) -> tuple[TrainState, gpubp.Dataset]:
    """Networks before their first step, and their samples."""
    data = gpubp.Dataset(*samples(spec, 11))
    return start(population(spec, count), data, **{**SETTINGS, **settings}), data


def row(explanation: Explanation, key: str = "new", dtype: torch.dtype = torch.float64) -> Tensor:
    """The explanation's parameters as the row (P,) that they are in a population."""
    parts = []
    for layer in explanation.to_dict()["layers"]:
        parts += [
            torch.tensor(layer["weight"][key], dtype=dtype).T.flatten(),
            torch.tensor(layer["bias"][key], dtype=dtype),
        ]
    return torch.cat(parts)


def told(
    spec: gpubp.NetworkSpec, steps_before: int = 2, network: int = 1, dtype: torch.dtype = torch.float64,
    data: gpubp.Dataset | None = None, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Explain a step of one of three networks, take it by the engine, and compare the bits. -> to_dict()"""
    data = data or gpubp.Dataset(*samples(spec, 11, dtype=dtype))
    state = start(population(spec, 3, dtype), data, **{**SETTINGS, **settings})
    eager.run(state, data, steps_before)
    before = state.population.params[network].clone()
    explanation = explain(state, data, network)
    eager.run(state, data, 1)
    values = explanation.to_dict()
    assert same_bits(row(explanation, "value", dtype), before)
    assert same_bits(row(explanation, "new", dtype), state.population.params[network])
    assert values["error"]["loss"] == float(state.loss[network])
    assert values["step"]["counts"]
    for number, slot in enumerate(state.recipe.rule.slots):
        for layer, (weight, bias) in zip(values["layers"], state.population.spec.layers(state.slots[number])):
            assert torch.tensor(layer["weight"]["new_slots"][slot], dtype=dtype).T.equal(weight[network])
            if spec.train_bias and spec.bias != "none":
                assert torch.tensor(layer["bias"]["new_slots"][slot], dtype=dtype).equal(bias[network])
    for full in (False, True):
        assert explanation.text(full) == Explanation(json.loads(explanation.json())).text(full)
    arithmetic(explanation.text(full=True), 1e-6 if dtype == torch.float64 else 1e-4)
    return values


def arithmetic(text: str, tolerance: float) -> None:
    """Every line whose last but one side is an expression of numbers computes to its last side."""
    computed = 0
    for line in text.splitlines():
        *_, expression, result = ["", "", *line.split(" = ")]
        if (found := value(expression)) is not None:
            assert found == pytest.approx(float(result), rel=100 * tolerance, abs=tolerance), line
            computed += 1
    assert computed > 10


def test_the_tutorials_network_reads_like_the_tutorial():
    text, at = tutorials()[0].text(), 0
    for piece in TOLD:
        assert piece in text[at:], piece
        at = text.index(piece, at) + len(piece)


def test_a_step_that_trains_on_tensor_cores_says_that_its_numbers_here_are_exact():
    said = "In training its products are of precision {}; here they are exact"
    for precision in PRECISIONS:
        explanation = explain(*begun(2, precision=precision))
        for shown in (explanation.text(), explained([explanation], "Network 0")):
            assert (said.format(precision) in shown) == (precision != EXACT)


def test_a_layerwise_step_sends_the_delta_through_the_new_weights():
    text = tutorials(order="layerwise")[0].text()
    assert "dE_o1/dnet_o1 * w5+ = 0.138498562 * 0.35891648 = 0.049709416" in text
    assert "E_total = 0.291027924" in text
    told(SPEC, update_order="layerwise")


@pytest.mark.parametrize(("activation", "loss"), covering(gpubp.ACTIVATIONS, gpubp.LOSSES, meet=1))
def test_every_activation_and_loss_is_explained_as_the_engine_trains_it(activation, loss):
    told(gpubp.NetworkSpec((3, 4, 2), activation, loss=loss), lr=0.01)


@pytest.mark.parametrize("optimizer", gpubp.OPTIMIZERS)
def test_every_optimizer_is_explained_as_the_engine_trains_it(optimizer):
    told(SPEC, optimizer=optimizer, weight_decay=0.03, schedule="cosine", warmup=3)


@pytest.mark.parametrize(("widths", "bias", "train_bias"), [
    ((3, 2), "neuron", True), ((33, 7, 3), "layer", True), ((4, 6, 5, 3), "none", True),
    ((4, 6, 5, 3), "neuron", False),
])  # fmt: skip
def test_every_kind_of_bias_and_depth_is_explained(widths, bias, train_bias):
    spec = gpubp.NetworkSpec(widths, "sigmoid", loss="half_squared_error", bias=bias, train_bias=train_bias)
    told(spec, dtype=torch.float32)
    told(spec, batch_size=1, optimizer="adam")


@pytest.mark.parametrize("loss", ["mean_squared_error", "cross_entropy"])
def test_dropout_penalties_and_clipping_are_the_engines(loss):
    spec = gpubp.NetworkSpec((4, 6, 5, 3), "relu", loss=loss)
    values = told(spec, dropout=0.4, l1=0.01, l2=0.1, clip_value=0.2, clip_norm=0.3, optimizer="momentum")
    mask = torch.tensor(values["layers"][0]["dropout"])
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.6])
    grads = [row for layer in values["layers"] for row in (*layer["weight"]["grad"], layer["bias"]["grad"])]
    assert torch.cat([torch.tensor(grad) for grad in grads]).norm() == pytest.approx(0.3, rel=1e-4)
    assert values["step"]["norm"] * values["step"]["clip"] == pytest.approx(0.3, rel=1e-4)
    assert values["error"]["loss"] > values["error"]["E_total"]


def test_chances_are_softmax_and_their_slope_chance_minus_target():
    spec = gpubp.NetworkSpec((4, 5, 3), "tanh", loss="cross_entropy")
    values = told(spec, batch_size=2)
    net, delta = (torch.tensor(values["layers"][-1][key], dtype=torch.float64) for key in ("net", "delta"))
    chances, targets = (torch.tensor(values["error"][key], dtype=torch.float64) for key in ("chances", "class_targets"))
    torch.testing.assert_close(chances, net.softmax(1), **GRADIENT)
    torch.testing.assert_close(delta, (chances - targets) / 2, **GRADIENT)
    assert targets.argmax(1).tolist() == values["targets"]
    told(spec, label_smoothing=0.2, class_weight=[1.0, 2.0, 0.0])
    (seen,) = told(spec, batch_size=1)["targets"]
    weight = [float(each != seen) for each in range(3)]
    without = told(spec, batch_size=1, label_smoothing=0.2, class_weight=weight)["error"]
    assert (without["shares"], without["E_total"]) == ([0], 0)
    assert "0.866666667 * -ln(chance_o" in Explanation(told(spec, label_smoothing=0.2)).text()


def test_samples_with_weights_have_their_share_of_the_error():
    inputs, targets = samples(SPEC, 11)
    data = gpubp.Dataset(inputs, targets, sample_weight=torch.arange(11.0, dtype=torch.float64))
    error = told(SPEC, data=data)["error"]
    assert sum(error["shares"]) == pytest.approx(1 / 3)
    shared = sum(share * each for share, each in zip(error["shares"], error["samples"]))
    assert shared == pytest.approx(error["E_total"])


@pytest.mark.parametrize("loss", ["mean_squared_error", "poisson", "cross_entropy"])
def test_a_sample_of_weight_0_has_no_slope_even_if_it_overflows(loss):
    spec = gpubp.NetworkSpec((2, 2, 2), "relu", loss=loss)
    inputs, targets = torch.tensor([[0.1, 0.2], [3e38, 3e38]]), torch.tensor([[0.1, 0.2], [1.0, 2.0]])
    targets = torch.tensor([0, 1]) if loss == "cross_entropy" else targets
    data = gpubp.Dataset(inputs, targets, sample_weight=[1, 0])
    config = gpubp.TrainConfig("sgd", lr=0.1, steps=3, batch_size=2, shuffle="none")
    state = TrainState.start(gpubp.Population.create(spec, 1, seed=3), config, data)
    explanation = explain(state, data)
    values = explanation.to_dict()
    assert values["step"]["counts"]
    assert values["error"]["samples"][1] in ("inf", "nan")
    assert [layer["dE/dout"][1] for layer in values["layers"]] == [[0, 0]] * 2
    assert "dE_total/dout_o1 = nan" not in explanation.text()


def test_a_network_with_separate_samples_is_explained_on_those():
    inputs, targets = samples(SPEC, 3, 7)
    data = gpubp.Dataset(inputs, targets, rows=[[0, 1], [2, 4, 6], [5]])
    values = told(SPEC, data=data)
    assert set(values["step"]["samples"]) <= {2, 4, 6}
    expected = [inputs[1, sample].tolist() for sample in values["step"]["samples"]]
    assert values["inputs"] == expected


def test_the_state_stays_as_it_was():
    state, data = begun(3, optimizer="adam")
    eager.run(state, data, 2)
    before = {name: tensor.clone() for name, tensor in state.tensors()}
    first = explain(state, data, 2)
    assert all(same_bits(tensor, before[name]) for name, tensor in state.tensors())
    assert explain(state, data, 2) == first


@pytest.mark.parametrize("settings", [{"optimizer": "adam", "dropout": 0.3}, {"optimizer": "momentum"}])
def test_the_steps_that_follow_are_the_engines_to_the_last_and_beyond(settings):
    state, data = begun(3, **settings)
    found = list(islice(explain_steps(state, data, 1), 7))
    for number, explanation in enumerate(found[:6]):
        assert explanation == explain(state, data, 1)
        assert explanation.to_dict()["step"]["number"] == number
        eager.run(state, data, 1)
    assert same_bits(row(found[6], "value"), state.population.params[1])
    assert [each.to_dict()["step"]["status"] for each in found[5:]] == ["running", "finished"]


def test_a_large_network_is_explained_in_few_lines_that_say_what_they_omit():
    explanation = explain(*begun(2, gpubp.NetworkSpec((40, 30, 12), "relu"), batch_size=11))
    text, full = explanation.text(), explanation.text(full=True)
    assert "w1 * i1 + w2 * i2 + w3 * i3 + ... + w40 * i40 + b_h1 * 1 (41 terms)" in text
    for rest in ("... and 27 more units", "... and 37 more weights into h1", "... and 8 more samples"):
        assert rest in text
    assert len(text.splitlines()) < 250
    assert "more" not in full
    assert " ... " not in full
    assert f"w{30 * 40 + 12 * 30}+ = " in full
    assert [len(rows) for rows in explanation.to_dict()["layers"][0]["weight"]["dE"]] == [40] * 30


def test_a_step_that_is_not_finite_is_said_not_to_count():
    state, data = begun(2)
    state.population.params[1] = 1e200
    explanation = explain(state, data, 1)
    assert "does not count" in explanation.text()
    assert json.loads(explanation.json())["new_error"]["E_total"] in ("inf", "nan")


def test_a_network_that_has_ended_shows_its_next_step():
    state, data = begun(2)
    eager.run(state, data, 6)
    state.status[0] = Status.finished
    assert "Step 7; the network is finished: this would be its next step" in explain(state, data, 0).text()


@pytest.mark.parametrize("network", [-1, 3])
def test_a_missing_row_is_refused(network):
    with pytest.raises(gpubp.GpubpError, match=rf"network {network}: a row from 0 to 2 expected"):
        explain(*begun(3), network)


def test_written_formulas_are_those_of_the_rules():
    net, target = torch.linspace(-2, 2, 9, dtype=torch.float64), torch.full((9,), 0.3, dtype=torch.float64)
    for name, form in SLOPES.items():
        out = gpubp.ACTIVATIONS[name].value(net)
        value = eval(form.format(net="net", out="out")) * torch.ones_like(net)
        torch.testing.assert_close(value, gpubp.ACTIVATIONS[name].slope(net, out), **GRADIENT)
    for name, forms in ERRORS.items():
        rule = gpubp.LOSSES[name]
        for form, function in zip(forms, (rule.value, rule.slope)):
            value = eval(form.replace("^", "**").format(out="net", target="target"))
            torch.testing.assert_close(value, function(net, target), **GRADIENT)
