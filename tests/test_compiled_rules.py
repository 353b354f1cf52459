"""A rule of one's own is compiled like the tables' rows; one that cannot be is refused by name and runs on eager."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import choose, cpu
from gpubp.engines.translate import trace
from gpubp.errors import EngineError
from gpubp.maths.losses import Loss, cross_entropy
from gpubp.maths.optimizers import Optimizer

from .helpers import compiled, population, same_bits, samples, train  # noqa: F401
from .test_compiled import close
from .test_optimizers import AVERAGED
from .tolerances import COMPILED_TRAINING

SPEC, FLAT, CPU = gpubp.NetworkSpec((3, 5, 2), "tanh"), gpubp.NetworkSpec((3, 2), output="tanh"), torch.device("cpu")
PAGE = Path(__file__).parent.parent / "docs/howto/custom-rules.md"
Rule = Callable[..., Any]


def both(spec: gpubp.NetworkSpec = FLAT, cuts: list[int] | None = None, **settings: Any) -> None:
    """20 steps by the compiled engine and by eager are the same."""
    networks, data = population(spec, 5), gpubp.Dataset(*samples(spec, 23))
    given = {"optimizer": "sgd", "batch_size": 6, "steps": 20, "lr": 0.02} | settings
    mine, theirs = train(networks, data, cuts, engine=cpu, **given), train(networks, data, **given)
    assert not torch.equal(theirs.population.params, networks.params)
    close(mine, theirs, COMPILED_TRAINING)


def test_a_custom_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    def charbonnier(out: Tensor, target: Tensor, width: Tensor) -> Tensor:
        return torch.sqrt((out - target) * (out - target) + width * width)

    def charbonnier_slope(out: Tensor, target: Tensor, width: Tensor) -> Tensor:
        return (out - target) / charbonnier(out, target, width)

    monkeypatch.setitem(gpubp.LOSSES, "charbonnier", Loss(charbonnier, charbonnier_slope, defaults={"width": 0.5}))
    both(gpubp.NetworkSpec((3, 2), output="tanh", loss="charbonnier"), extra={"width": [0.5, 0.6, 0.7, 0.8, 0.9]})


def test_a_custom_loss_on_classes_is_not_mistaken_for_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    def tripled(out: Tensor, target: Tensor, shares: Tensor | None = None) -> tuple[Tensor, Tensor]:
        error, slope = cross_entropy(out, target, shares)
        return 3 * error, 3 * slope

    monkeypatch.setitem(gpubp.LOSSES, "tripled", Loss(tripled, None, "sum", classes=True, metric="classes"))
    spec = gpubp.NetworkSpec((3, 5, 2), "tanh", loss="tripled")
    choice = choose("auto", spec, gpubp.TrainConfig("sgd", steps=1), CPU)
    assert choice.name == "eager"
    assert "has cross_entropy alone" in choice.reason


def names_of_others(
    grad: Tensor, square: Tensor, sqrt: Tensor, add: Tensor, mul: Tensor, step: Tensor, total: Tensor,
    power_before: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    square = torch.lerp(square, torch.square(grad), mul)
    direction = step * grad / (torch.sqrt(square) + add) + total * power_before
    return direction, square, torch.sqrt(sqrt * sqrt + grad * grad)


def power_and_total(power: Tensor, total: Tensor) -> dict[str, Tensor]:
    return {"power": power * total}


def counted_and_needed_by_no_rate(count: Tensor, share: Tensor) -> dict[str, Tensor]:
    return {"count": count + 1, "rest": 1 - share}


OWN = {"add": 0.1, "mul": 0.2, "step": 0.5, "total": 0.25, "power_before": 0.125}
COUNTING = Optimizer(lambda grad, rest: rest * grad, (), {"share": 0.5}, ("count",), counted_and_needed_by_no_rate)
RULES: dict[str, tuple[Optimizer, dict[str, Any]]] = {
    "an average": (AVERAGED, {"extra": {"keep": [0.5, 0.6, 0.7, 0.8, 0.9], "push": 1.5}}),
    "slots and settings with names of operations and of a schedule's arguments": (
        Optimizer(names_of_others, ("square", "sqrt"), OWN, ("power",), power_and_total), {"schedule": "cosine"}),
    **{f"a column that counts, cut {cuts}": (COUNTING, {"cuts": cuts}) for cuts in ([20], [1] * 20, [7, 13])},
    "moves without a gradient, but no padding": (Optimizer(lambda grad: grad + 1), {"spec": SPEC, "clip_norm": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_custom_optimizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, settings = RULES[name]
    monkeypatch.setitem(gpubp.OPTIMIZERS, "own", rule)
    both(optimizer="own", **settings)


def test_another_rule_under_the_same_name_is_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for factor in (1.0, 2.0):
        rule = gpubp.Activation(lambda net, factor=factor: factor * net, lambda net, out, factor=factor: factor)
        monkeypatch.setitem(gpubp.ACTIVATIONS, "own", rule)
        both(gpubp.NetworkSpec((3, 2), output="own"))


REFUSED: dict[str, tuple[Rule, str]] = {  # test_translate.py has what cannot be compiled
    "an operation": (lambda net: torch.cumsum(net, -1), "operation 'cumsum' cannot be compiled; engine .eager. runs"),
    "numpy": (lambda net: torch.from_numpy(net.numpy()), "cannot be compiled"),
}


@pytest.mark.parametrize(
    "name", ["an operation", pytest.param("numpy", marks=pytest.mark.cpu("the rule's own numbers lie on the CPU"))]
)
def test_what_cannot_be_compiled_is_refused_and_left_to_eager(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, reason = REFUSED[name]
    monkeypatch.setitem(gpubp.ACTIVATIONS, "own", gpubp.Activation(rule, lambda net, out: torch.ones_like(net)))
    spec, config = gpubp.NetworkSpec((3, 5, 2), "own"), gpubp.TrainConfig(batch_size=4, steps=2)
    with pytest.raises(EngineError, match=reason) as error:
        choose("cpu", spec, config, CPU, torch.float64)
    assert "eager" in str(error.value)
    choice = choose("auto", spec, config, CPU, torch.float64)
    assert (choice.name, choice.reason) == ("eager", f"eager: {error.value}")
    result = gpubp.train(population(spec, 3), gpubp.Dataset(*samples(spec, 8)), config)
    assert (result.engine, result.engine_reason) == ("eager", choice.reason)


def test_a_rule_in_float32_is_compiled_for_networks_of_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.where of two literals is float32, whatever the networks are."""
    leaky = gpubp.Activation(lambda net: net * torch.where(net > 0, 1.0, 0.1),
                             lambda net, out: torch.where(net > 0, 1.0, 0.1))  # fmt: skip
    monkeypatch.setitem(gpubp.ACTIVATIONS, "own", leaky)
    spec, config = gpubp.NetworkSpec((3, 5, 2), "own"), gpubp.TrainConfig(batch_size=4, steps=2)
    assert choose("auto", spec, config, CPU, torch.float32).name == "cpu"
    assert "torch computes 'where' in torch.float32" in choose("auto", spec, config, CPU, torch.float64).reason


def test_an_optimizer_and_a_loss_that_cannot_be_compiled_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Loss(lambda out, target: torch.xlogy(out, target), lambda out, target: out)
    monkeypatch.setitem(gpubp.LOSSES, "own", own)
    monkeypatch.setitem(gpubp.OPTIMIZERS, "own", Optimizer(lambda grad: grad / grad.norm(dim=-1, keepdim=True)))
    for spec, config, what in (
        (gpubp.NetworkSpec((3, 2), loss="own"), gpubp.TrainConfig(steps=1), "xlogy"),
        (SPEC, gpubp.TrainConfig("own", steps=1), "norm"),
    ):
        with pytest.raises(EngineError, match=f"rule 'own': operation '{what}' cannot be compiled"):
            choose("cpu", spec, config, CPU)


def test_the_documented_rule_trains_on_the_engine_that_auto_takes() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if "mish" in block)
    found: dict[str, Any] = {}
    exec(code, found)
    spec = found["spec"]
    networks, data = population(spec, 5), gpubp.Dataset(*samples(spec, 23))
    results = [
        gpubp.train(networks, data, gpubp.TrainConfig(steps=5), engine=name) for name in ("auto", "cpu", "eager")
    ]
    assert [each.engine for each in results] == ["cpu", "cpu", "eager"]
    assert same_bits(results[0].population.params, results[1].population.params)
    torch.testing.assert_close(results[0].population.params, results[2].population.params, **COMPILED_TRAINING)


def in_place(a: Tensor, b: Tensor) -> Tensor:
    double = a * 2
    double.mul_(b)
    return double


def by_another_name(a: Tensor, b: Tensor) -> Tensor:
    double = same = a * 2
    double += b
    return same


def by_type(a: Tensor, b: Tensor) -> Tensor:
    return a if isinstance(b, Tensor) else b


@pytest.mark.parametrize("rule", [in_place, by_another_name, by_type])
def test_what_a_list_of_operations_would_lose_is_refused(rule: Rule) -> None:
    with pytest.raises(EngineError, match="cannot be compiled: its operations alone give other numbers"):
        trace(rule, ["a", "b"])


@pytest.mark.parametrize("dimensions", [0, 1, 2])
def test_a_slope_that_is_the_same_for_all_networks_is_taken(dimensions: int) -> None:
    def doubled(net: torch.Tensor) -> torch.Tensor:
        return 2 * net

    def slope(net: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.full(net.shape[net.ndim - dimensions :], 2.0, dtype=net.dtype)

    def number(net: torch.Tensor, out: torch.Tensor) -> float:
        return 2.0

    found = []
    for each in (slope, number):
        spec = gpubp.NetworkSpec((3, 2, 2), hidden=gpubp.Activation(doubled, each))
        some, config = gpubp.Population.create(spec, 3), gpubp.TrainConfig(steps=3, batch_size=4)
        found.append(gpubp.train(some, gpubp.Dataset(*samples(spec, 9)), config, engine="eager").population.params)
    assert same_bits(*found)
