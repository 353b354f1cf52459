"""The text of an update has a formula, its numbers and its result for all that the step computes, for every rule."""

import re
from itertools import islice
from typing import Any

import pytest
import torch

import gpubp
from gpubp.explaining.formula import written
from gpubp.explaining.notation import Heading, Term
from gpubp.explaining.steps import Explanation, explain_steps
from gpubp.explaining.text import Text

from .explained import value
from .helpers import covering, population, samples, start

SPEC = gpubp.NetworkSpec((3, 2, 2), "tanh")
CHANGED = re.compile(r"(?:(?P<slot>[a-z]+)_)?(?:w\d+|b_[ho]\d+)(?P<new>\+?)")
RATES = "The Learning Rate"


def explained(dtype: torch.dtype = torch.float64, first: int = 0, **settings: Any) -> list[Explanation]:
    """A network's six steps, of which those from `first` on are wanted."""
    data = gpubp.Dataset(*samples(SPEC, 11, dtype=dtype))
    settings = {"lr": 0.05, "batch_size": 2, "steps": 6, **settings}
    return list(islice(explain_steps(start(population(SPEC, 2, dtype), data, **settings), data, 1), first, 6))


def terms(explanation: Explanation) -> dict[str, dict[str, tuple[str, ...]]]:
    """The terms of each part, by their names."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for each in Text(explanation.to_dict(), full=True).lines():
        if isinstance(each, Heading) and each.level == 1:
            part = found.setdefault(each.title, {})
        elif isinstance(each, Term) and len(each.sides) > 1:
            part[each.sides[0]] = each.sides[1:]
    return found


def computes(name: str, sides: tuple[str, ...], rel: float) -> None:
    """The last side but one has only numbers, and is the last one."""
    found = value(sides[-2]) if len(sides) > 1 else None
    assert found is not None, (name, sides)
    assert found == pytest.approx(float(sides[-1]), rel=rel, abs=rel * 1e-3), (name, sides)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "warmup", "dtype"),
    covering(gpubp.OPTIMIZERS, gpubp.SCHEDULES, [0.0, 4.0], [torch.float64, torch.float32], meet=1),
)
def test_every_term_of_an_update_is_its_formula_with_numbers(optimizer, schedule, warmup, dtype):
    rule, rel = gpubp.OPTIMIZERS[optimizer], 1e-5 if dtype == torch.float64 else 1e-4
    for explanation in explained(
        dtype, optimizer=optimizer, schedule=schedule, warmup=warmup, weight_decay=0.03, batch_size=1
    ):
        found = terms(explanation)
        rates, update = found.get(RATES, {}), found["The Backwards Pass"]
        assert {f"{each}+" for each in rule.columns} <= rates.keys()
        assert ("scheduled" in rates) == (schedule != "constant" or bool(warmup))
        assert ("keep" in rates) == rule.decoupled
        for name, sides in rates.items():
            computes(name, sides, rel)
        of_one = [CHANGED.fullmatch(name) for name in update]
        kinds = {each["slot"] for each in of_one if each}
        decayed = set() if rule.decoupled else {"grad"}
        assert kinds == {None, *rule.slots, *decayed} | ({"direction"} if optimizer != "sgd" else set())
        for each in filter(None, of_one):
            if (optimizer, each["slot"]) == ("momentum", "direction"):
                assert update[each[0]][0] == each[0].replace("direction", "velocity") + "+"
            else:
                computes(each[0], update[each[0]], rel)


def test_penalties_and_limits_are_terms_with_numbers():
    settings = {"l1": 0.01, "l2": 0.1, "clip_value": 0.2, "clip_norm": 0.3, "weight_decay": 0.03, "dropout": 0.3}
    found = terms(explained(optimizer="sgd", **settings)[0])
    update, error = found["The Backwards Pass"], found["Calculating the Total Error"]
    clip = update["clip"][-1]
    assert update["norm"][0] == "the norm of the whole gradient"
    assert update["clip"][0] == "min(clip_norm / (norm + 1e-06), 1)"
    assert update["grad_w7"][0] == (
        f"{clip} * max(-0.2, min(dE_total/dw7 + 0.1 * w7 + 0.01 * sign(w7), 0.2)) + 0.03 * w7"
    )
    assert update["grad_b_o1"][0] == f"{clip} * max(-0.2, min(dE_total/db_o1, 0.2)) + 0.03 * b_o1"
    alone = terms(explained(optimizer="sgd", clip_norm=0.3)[0])["The Backwards Pass"]
    assert alone["grad_w7"][0] == f"{alone['clip'][-1]} * dE_total/dw7"
    for name in ("clip", "grad_w7", "grad_b_o1", "w7+"):
        computes(name, update[name], 1e-5)
    assert error["loss"][0] == "E_total + l1 * sum of |w| + l2 / 2 * sum of w^2"
    computes("loss", error["loss"], 1e-6)


def test_a_rule_without_formulas_has_names_and_results():
    def heavy(grad, speed, keep):
        speed = keep * speed + grad
        return speed, speed

    rule = gpubp.Optimizer(heavy, ("speed",), {"keep": 0.9})
    explanation = explained(first=1, optimizer=rule, batch_size=1)[0]
    update = terms(explanation)["The Backwards Pass"]
    assert re.fullmatch(r"\S+ \(before: \S+\)", update["speed_w7+"][0])
    assert update["direction_w7"][0] == "heavy(dE_total/dw7, speed_w7+)"
    assert update["w7+"][0] == "w7 - 0.05 * direction_w7"
    assert "keep 0.9" in explanation.text()


def test_a_schedule_without_a_formula_has_its_rate_as_a_number():
    def falling(lr, step, total):
        return lr / (1 + step)

    found = terms(explained(first=1, optimizer="adamw", schedule=gpubp.Schedule(falling), warmup=4.0)[0])
    rates = {"warm", "power1+", "power2+", "rate", "keep"}
    assert found[RATES].keys() == rates
    for name in rates:
        computes(name, found[RATES][name], 1e-5)
    assert found[RATES]["keep"][:2] == ("1 - scheduled * weight_decay", "1 - 0.025 * 0.01")


def test_the_heading_has_the_hyper_parameters_and_no_other_numbers():
    head = explained(optimizer="adam")[0].text().partition("The Forward Pass")[0]
    assert "beta1 0.9, beta2 0.999, eps 1e-08\n" in head


def test_a_known_name_that_is_raised_to_a_power_has_brackets():
    known = {"g": "-0.5", "b": "0.5"}
    assert written("(1 - b)*g**2 + b**2", known) == "(1 - 0.5) * (-0.5)^2 + 0.5^2"
