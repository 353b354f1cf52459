"""search/sampling.py: an expression is a number, a range or a list, exactly, and nothing is guessed; ranges are drawn
evenly on their scale."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import gpubp
from gpubp.errors import ConfigError
from gpubp.search import Range, design, parse, sample


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01), (".5", 0.5), ("5.", 5.0), ("+1e-3", 1e-3), ("1E3", 1000.0), (2, 2.0), (0.1, 0.1), ("-2", -2.0),
        ("1e-4..1e-1", Range(1e-4, 1e-1, False)), ("1e-4..1e-1:log", Range(1e-4, 1e-1, True)),
        ("-1..2:linear", Range(-1.0, 2.0, False)), ("1 .. 2", Range(1.0, 2.0, False)),
        ("1..8:int", Range(1, 8, False, True)), ("1..8:log:int", Range(1, 8, True, True)),
        ("-2..8:linear:int", Range(-2, 8, False, True)), ("1e1..1e2:int", Range(10, 100, False, True)),
        ("0.1,0.01", [0.1, 0.01]), ("0.1, 0.01", [0.1, 0.01]), ([0.1, 2], [0.1, 2.0]), ([0.1], 0.1),
    ],
)  # fmt: skip
def test_an_expression_means_what_is_written(text: Any, value: Any) -> None:
    assert parse("lr", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "..", ":", ":log", "1..", "..2", "1..2..3", "1...2", "0...2", "1..2:", "1..2:LOG", "1..2:log:log",
        "1..2:int:log", "1..2.5:int", "0..2:log:int", "1:int", "1..2:int:int", "1,2:int", "1..2:INT", "1..2:int:",
        "1e-4...1e-1", "1..2: log", "1,2:log", "1,,2", ",1", "1,", "1..2,3", "1,2..3", "2..1", "1..1", "0..1:log",
        "1:log", "-1..1:log", "1e-400..1:log", "nan", "inf", "nan,1", "1..inf", "-inf..1", "1..nan", "1e400",
        "-1e308..1e308", "1_000", "1_0..2_0", "\uff11", "\u0661..\u0662", "0x10", "1/2", "2**3", "1-2",
        "1e-4-1e-1", "1;2", "1 2", "1e", "++1", "--1", "0.1f", "[1,2]", "(1,2)", "'0.1'", "true", "None", "1\n",
        "1\n,2", "1\u20262", "1e\u22124..1", True, [True, 2], [[1, 2]], [None], 10**400, float("nan"), None, {},
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_number_a_range_or_a_list_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"^lr .*: a number, a range LOW\.\.HIGH or LOW\.\.HIGH:log with LOW < HIGH"):
        parse("lr", text)


@pytest.mark.parametrize(("method", "tolerance"), [("sobol", 0.002), ("random", 0.03)])
@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("0..8", {2: 0.25, 4: 0.5, 6: 0.75}),
        ("1e-4..1:log", {1e-3: 0.25, 1e-2: 0.5, 1e-1: 0.75}),
        ("1..8:int", {0: 0, 1: 1 / 8, 4: 0.5, 6: 0.75, 8: 1}),
        ("1..64:log:int", {k: math.log(2 * k + 1) / math.log(129) for k in (1, 2, 8, 32, 64)}),  # each: log of a unit
    ],
)
def test_numbers_are_drawn_evenly_on_their_scale(
    method: str, tolerance: float, text: str, below: dict[float, float]
) -> None:
    values = sample({"lr": text}, 4000, 1, method=method)["lr"]
    found = {each: float((values <= each).double().mean()) for each in below}
    assert found == pytest.approx(below, abs=tolerance)
    assert (values == values.round()).all() == text.endswith(":int")


def test_whole_numbers_are_drawn_alike_with_both_ends() -> None:
    values = sample({"n": "1..5:int"}, 1000, 0)["n"]
    assert repr(values.unique().tolist()) == "[1, 2, 3, 4, 5]"  # which settings that count take, as floats are not
    assert values.unique(return_counts=True)[1].tolist() == pytest.approx([200] * 5, abs=3)


def test_drawn_numbers_are_a_format_that_stays() -> None:
    space = {"lr": "1e-4..1e-1:log", "momentum": "0..0.9", "eps": "0.1,0.01"}
    inits = {"init": ["a", "b", "c"]}
    sobol, drawn = sample(space, 7, 7, inits), sample(space, 2, 7, inits, "random")
    assert sobol["lr"][[0, 6]].tolist() == pytest.approx([0.0003966608910803913, 0.068558552369744], rel=1e-12)
    assert drawn["lr"].tolist() == pytest.approx([0.00012759456666169155, 0.05078472607438281], rel=1e-12)
    assert (sobol["eps"].tolist()[:2], sobol["init"]) == ([0.1, 0.01], ["a", "a", "b", "b", "c", "c", "a"])
    assert (drawn["eps"].tolist(), drawn["init"]) == ([0.1, 0.01], ["b", "b"])


def test_a_space_becomes_a_design() -> None:
    space = {"widths": ["4,8,3", (4, 2, 3)], "lr": "1e-3..1e-1:log", "patience": "1..3:int", "hidden": "tanh"}
    made = design(space, 6, seed=2, loss="cross_entropy", epochs=5)
    assert made.names == ["widths", "hidden", "loss", "lr", "patience", "epochs"]
    assert made.cells("widths") == [(4, 8, 3), (4, 2, 3)] * 3
    assert {*made.cells("patience")} <= {1, 2, 3}
    drawn = sample({"lr": "1e-3..1e-1:log", "patience": "1..3:int"}, 3, 2)["lr"].tolist()
    assert made.cells("lr") == [drawn[n // 2] for n in range(6)]
    grid = design({"lr": [0.1, 0.2, 0.3], "optimizer": ["adam", "sgd"]})
    assert len({*zip(grid.cells("lr"), grid.cells("optimizer"))}) == len(grid) == 6
    assert design({"widths": (2, 2)}, 3).cells("seed") == [0, 1, 2]
    for kind in (np.array, torch.tensor, pd.Series, tuple):
        assert design({"lr": kind([0.25, 0.5])}).cells("lr") == [0.25, 0.5]


def test_numbers_of_whole_settings_are_rounded_as_those_of_flags_are() -> None:
    made = design({"epochs": "5..9", "batch_size": "4..6", "evaluate_every": "1..3:log"}, 64, widths="4,3")
    for name, low, high in (("epochs", 5, 9), ("batch_size", 4, 6), ("evaluate_every", 1, 3)):
        assert {*made.cells(name)} == {*range(low, high + 1)}
    drawn = sample({"epochs": "5..9"}, 8, 0)["epochs"]
    assert design({"epochs": "5..9"}, 8, widths="4,3").cells("epochs") == [round(each) for each in drawn.tolist()]


def test_a_hyper_parameter_is_left_out_of_rows_without_it() -> None:
    space = {"optimizer": ["sgd", "momentum", "adam"], "momentum": [0.5, 0.9], "beta1": "0.8..0.99", "lr": [0.1]}
    made = design(space, 12, gamma=0.5, schedule="step", step_size=3, widths="4,3")
    for optimizer, momentum, beta1 in zip(*map(made.cells, ("optimizer", "momentum", "beta1"))):
        assert (momentum is not None) == (optimizer == "momentum")
        assert (beta1 is not None) == (optimizer == "adam")
    assert made.cells("gamma") == [0.5] * 12
    assert {*filter(None, made.cells("momentum"))} == {0.5, 0.9}
    samples = torch.randn(9, 4), torch.arange(9) % 3
    result = gpubp.train_many(made, gpubp.Dataset(*samples), loss="cross_entropy", epochs=2, engine="eager")
    assert result.populations.count == 12
    later = design({"momentum": [0.5, 0.9]}, widths="4,3")
    assert later.cells("momentum") == [0.5, 0.9], "the optimizer may be given later"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"space": {"momentum": [0.5], "optimizer": ["sgd", "adam"]}},
         "space: momentum: no network takes it; for optimizer momentum, nesterov$"),
        ({"space": {"lr": "0.1..1"}}, "lr are ranges: `count`, of networks, expected"),
        ({"space": {"lr": []}}, "lr is empty"), ({"space": {"lr": "0.1..1"}, "count": 0}, "count 0: a whole number"),
        ({"space": {"lr": "0.1..1", "hidden": []}, "count": 2}, "hidden is empty"), ({"space": {"rate": [1]}}, "rate"),
        ({"space": {"lr": [1]}, "method": "grid"}, "sampling 'grid' is unknown"),
        ({"space": {"lr": "1..x"}, "count": 2}, "lr '1..x': a number, a range"),
    ],
)  # fmt: skip
def test_a_space_that_is_no_design_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        design(**given)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"lr": [0.1, 0.2, 0.3], "hidden": ["relu", "tanh"]}, "6 combinations of lr and hidden for 3 networks, which "
         "leave 3 of them out"),
        ({"lr": "0.1..1", "hidden": ["relu", "tanh", "elu"]}, "3 combinations of hidden for 3 networks; all have one "
         "point of lr: each point goes through all combinations"),
    ],
)  # fmt: skip
def test_a_design_warns_of_what_its_networks_leave_out(space: dict[str, Any], told: str) -> None:
    with pytest.warns(UserWarning, match=f"^{told}$") as caught:
        made = design(space, 3)
    assert [each.filename for each in caught] == [__file__]
    assert len(made) == 3
    assert len(design(space, 6)) == 6, "without a warning, which would be an error"
    assert len(design(space, 3, method="random")) == 3, "likewise"


def test_no_element_of_a_list_has_only_a_part_of_a_range() -> None:
    """The lowest bits of a network's number, which choose from lists, also choose halves of a Sobol sequence."""
    drawn = sample({"lr": "0..1", "momentum": "0.1,0.9"}, 64, 0, {"widths": ["a", "b"]})
    for name in ("momentum", "widths"):
        chosen = [*map(str, drawn[name].tolist() if hasattr(drawn[name], "tolist") else drawn[name])]
        for each in set(chosen):
            lr = torch.stack([rate for rate, mine in zip(drawn["lr"], chosen) if mine == each])
            assert len(lr) == 32
            assert lr.min() < 0.1 < 0.9 < lr.max()
    alone = sample({"lr": "0..1"}, 16, 0)["lr"]
    assert torch.equal(drawn["lr"], alone.repeat_interleave(4))
