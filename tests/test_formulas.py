"""The formulas that the site shows are what the tables compute."""

from typing import Any

import pytest
import torch

from gpubp.maths import activations, optimizers, schedules
from gpubp.maths.activations import ACTIVATIONS
from gpubp.maths.initialise import INITIALISERS
from gpubp.maths.losses import LOSSES
from gpubp.maths.optimizers import OPTIMIZERS
from gpubp.maths.schedules import SCHEDULES
from made import formulas

CLOSE: dict[str, Any] = {"rel": 1e-12, "abs": 1e-14}
NETS = (-3.1, -1.2, -0.3, 0.4, 0.9, 2.7)
SELU = {"alpha": activations.ALPHA, "wd": activations.SCALE}
TABLES = {
    "activation": (ACTIVATIONS, formulas.ACTIVATIONS), "loss": (LOSSES, formulas.LOSSES),
    "optimizer": (OPTIMIZERS, formulas.OPTIMIZERS), "schedule": (SCHEDULES, formulas.SCHEDULES),
    "initialiser": (INITIALISERS, formulas.INITIALISERS),
}  # fmt: skip


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", TABLES)
def test_every_rule_has_a_formula_and_every_formula_a_rule(kind: str) -> None:
    rules, known = TABLES[kind]
    assert set(rules) == set(known)


def test_a_rule_without_a_formula_ends_the_build() -> None:
    with pytest.raises(LookupError, match=r"activation 'mish' has no formula: docs/made/formulas\.py needs a row"):
        formulas.of(formulas.ACTIVATIONS, "mish", "activation")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_formula_of_an_activation_is_its_row(name: str) -> None:
    row, formula = ACTIVATIONS[name], formulas.ACTIVATIONS[name]
    net = double(*NETS)
    out = row.value(net)
    for text, values in ((formula.value, out), (formula.slope, row.slope(net, out))):
        assert [formulas.computed(text, x=each, **SELU) for each in NETS] == pytest.approx(values.tolist(), **CLOSE)


@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if not row.classes])
def test_the_formula_of_a_loss_is_its_row(name: str) -> None:
    row, formula = LOSSES[name], formulas.LOSSES[name]
    hyper = dict.fromkeys(row.defaults, 0.7)
    target = {"hinge": -1.0, "binary_cross_entropy": 0.3}.get(name, 1.5)
    out, columns = double(*NETS), {each: double(value) for each, value in hyper.items()}
    for text, rule in ((formula.value, row.value), (formula.slope, row.slope)):
        expected = rule(out, double(target).expand(len(NETS)), **columns).tolist()
        found = [formulas.computed(text, o=each, t=target, **hyper) for each in NETS]
        assert found == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_formula_of_an_optimizer_is_its_row(name: str) -> None:
    """Over three steps of one weight."""
    rule = OPTIMIZERS[name]
    hyper = {**rule.defaults, "lr": 0.05, **({"weight_decay": 0.1} if rule.decoupled else {})}
    columns = {each: torch.ones(1, 1, dtype=torch.float64) for each in rule.columns}
    given = {each: double(value)[:, None] for each, value in hyper.items()}
    weight, slots = double(0.8)[:, None], [torch.zeros(1, 1, dtype=torch.float64) for _ in rule.slots]
    known = dict.fromkeys(rule.slots, 0.0) | dict.fromkeys(rule.columns, 1.0) | {"p": 0.8}
    known |= hyper | {"wd": hyper.get("weight_decay", 0.0)}
    for gradient in (0.5, -0.2, 1.5):
        rates, after = optimizers.rates(rule, given, columns, given["lr"], torch.float64)
        slots = optimizers.update(rule, weight, double(gradient)[:, None], slots, rates)
        columns |= after
        for left, right in formulas.steps(rule):
            known[left] = formulas.computed(right, **known, g=gradient)
        assert known["p"] == pytest.approx(float(weight), **CLOSE)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_formula_of_a_schedule_is_its_row(name: str) -> None:
    rule = SCHEDULES[name]
    hyper = {"lr": 0.3, **rule.defaults, "plateau_min_lr": 0.02, **({"scale": 0.01} if rule.events else {})}
    hyper |= {"step_size": 7.0} if name == "step" else {}
    columns = {each: double(value)[:, None] for each, value in hyper.items()}
    for step, total in ((0.0, 20.0), (1.0, 20.0), (5.0, 20.0), (11.0, 20.0), (19.0, 20.0), (20.0, 20.0), (0.0, 1.0),
                        (0.0, -3.0)):  # fmt: skip
        known = hyper | {"step": step, "total": total}
        for left, right in rule.formulas.items():
            known[left] = formulas.computed(right, **known)
        expected = schedules.scheduled(rule, columns, double(step)[:, None], double(total)[:, None])
        assert known["scheduled"] == pytest.approx(float(expected), **CLOSE)


@pytest.mark.parametrize("name", INITIALISERS)
def test_the_formula_of_an_initialiser_is_its_row(name: str) -> None:
    expected = INITIALISERS[name].bound(12, 5)
    assert formulas.computed(formulas.INITIALISERS[name].value, I=12, O=5) == pytest.approx(expected, **CLOSE)
