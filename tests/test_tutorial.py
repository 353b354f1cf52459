"""Every figure that the tutorial prints comes out of the engine, to its last printed digit."""

import pytest
import torch
from rich.console import Console

import gpubp
from gpubp import tutorial
from gpubp.engines import eager
from gpubp.state import TrainState

SIMULTANEOUS, LAYERWISE = "simultaneous", "layerwise"


@pytest.fixture(scope="module", params=["auto", pytest.param("eager", marks=pytest.mark.slow)])
def rows(request: pytest.FixtureRequest) -> dict[str, tutorial.Figure]:
    """By engine cpu where it is, which takes 20,000 steps faster."""
    return {row.name: row for row in tutorial.compare(engine=request.param)}


def test_every_printed_figure_is_reproduced_in_the_order_of_the_tutorial(rows):
    assert [name for name in rows if name not in tutorial.ERRATA] == list(tutorial.PRINTED)
    assert tutorial.reproduced(list(rows.values()))
    for name in set(tutorial.PRINTED) - set(tutorial.ERRATA.values()):
        assert rows[name].matches, rows[name]


def test_the_first_round_is_the_true_gradient(rows):
    for name in ("dE_total/dout_h1", "dE_total/dw1", "w1+", "w2+", "w3+", "w4+"):
        assert rows[name].matches == (SIMULTANEOUS,)
    for name in ("net_h1", "out_o2", "E_total", "dE_total/dw5", "w5+", "w6+", "w7+", "w8+", "dout_h1/dnet_h1"):
        assert rows[name].matches == (SIMULTANEOUS, LAYERWISE)


def test_one_printed_product_has_a_rounded_factor(rows):
    assert rows["dE_o2/dout_h1"].matches == ()
    assert rows["dE_o2/dout_h1"].simultaneous == pytest.approx(-0.019049118258, abs=5e-13)
    assert rows[tutorial.ROUNDED].matches == (SIMULTANEOUS,)


def test_the_measured_figures_of_both_orders(rows):
    measured = {
        "E after 1 round": ("0.2910277737", "0.291027924"),
        "E after 10,000 rounds": ("0.0000351018778", "0.0000350847863"),
        "out_o1 after 10,000 rounds": ("0.015913620", "0.015912196"),
        "out_o2 after 10,000 rounds": ("0.984064274", "0.984065734"),
        "E after 9,999 rounds": ("0.0000351085481", "0.0000350914538"),
    }
    for name, (simultaneous, layerwise) in measured.items():
        assert tutorial.agrees(rows[name].simultaneous, simultaneous)
        assert tutorial.agrees(rows[name].layerwise, layerwise)


@pytest.mark.parametrize(
    ("bias", "first", "last"),
    [
        pytest.param("neuron", "0.280471446791", "0.00000244756", marks=pytest.mark.slow),
        ("layer", "0.285750886699", "0.00000435532"),
    ],
)
def test_trained_biases_learn_faster(bias, first, last):
    spec = gpubp.NetworkSpec((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", bias=bias)
    found = tutorial.figures(spec=spec, engine="auto")
    assert tutorial.agrees(found["E after 1 round"], first)
    assert tutorial.agrees(found["E after 10,000 rounds"], last)


@pytest.mark.parametrize("order", [SIMULTANEOUS, LAYERWISE])
def test_every_row_of_a_population_is_the_tutorials_network(order):
    networks, data = tutorial.population(5), tutorial.dataset()
    state = TrainState.start(networks, tutorial.config(20, order), data)
    state.limit.copy_(state.end)
    eager.run(state, data, 20)
    assert torch.equal(networks.params, networks.params[:1].expand(5, -1))
    alone = tutorial.figures(order, rounds=20)
    error = gpubp.backprop.gradients(tutorial.SPEC, networks.params, data.inputs, data.targets)[0]
    assert error.tolist() == [alone["E after 20 rounds"]] * 5


def test_agreement_is_of_every_printed_digit():
    assert tutorial.agrees(0.0123456785, "0.012345679")
    assert tutorial.agrees(-0.5113012702, "-0.511301270")
    assert not tutorial.agrees(0.0123456784, "0.012345679")
    assert not tutorial.agrees(0.35891648 + 1e-8, "0.35891648")


def test_fewer_rounds_by_eager_begin_alike_and_have_no_printed_end():
    rows = {row.name: row for row in tutorial.compare(rounds=3, engine="eager")}
    test_the_first_round_is_the_true_gradient(rows)
    assert rows["E after 3 rounds"].printed == ""
    assert rows["E after 3 rounds"].matches == ()
    assert not tutorial.reproduced(list(rows.values()))


def test_the_table_shows_every_printed_figure(rows):
    console = Console(width=130)
    with console.capture() as capture:
        console.print(tutorial.table(list(rows.values())))
    lines = capture.get().splitlines()
    for name, printed in tutorial.PRINTED.items():
        assert any(name in line and printed in line for line in lines), name
