"""A rule of one's own that returns something else than its table asks for is refused in a sentence, before anything is
trained, on every engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError, GpubpError, SpecError
from gpubp.maths.losses import Loss
from gpubp.maths.optimizers import Optimizer
from gpubp.maths.schedules import Schedule

from .helpers import compiled, covering, population, same_bits, samples  # noqa: F401


class Case(NamedTuple):
    """`row` under the name "own" in `table`, and how it is refused."""

    table: str
    row: Any
    message: str
    error: type[GpubpError] = SpecError


def one(*_: Any) -> Any:
    return _[0]


def none(*_: Any, **__: Any) -> None:
    return None


def two(*given: Any) -> Any:
    return given[0], given[0]


def missing(power: Any) -> dict[str, Any]:
    return {"power": power}


def direction(grad: Any, mean: Any, rest: Any) -> Any:
    return rest * grad, mean


def sgd(grad: Any) -> Any:
    return grad


def forgetful(grad: Any, mean: Any) -> Any:
    return grad


def short(grad: Any, mean: Any, square: Any) -> Any:
    return grad, mean


def long(grad: Any, mean: Any) -> Any:
    return grad, mean, mean


def hollow(grad: Any, mean: Any) -> Any:
    return grad, None


def never(lr: Any, step: Any, total: Any) -> None:
    return None


def emptied(power: Any) -> dict[str, Any]:
    return {"power": power.mul_(0.5)}


def added(grad: Any, speed: Any) -> Any:
    return grad, speed + speed.sum()


def first(lr: Any, step: Any, total: Any) -> Any:
    return lr[0]


def mean_error(out: Any, target: Any) -> Any:
    return (out - target).abs().mean(-1)


CASES = {
    "value is None": Case("ACTIVATIONS", gpubp.Activation(none, one), (
        "activation 'own': value returned None; a tensor, out, expected")),
    "value is a pair": Case("ACTIVATIONS", gpubp.Activation(two, one), (
        "activation 'own': value returned tuple (Tensor, Tensor); a tensor, out, expected")),
    "value is a number": Case("ACTIVATIONS", gpubp.Activation(lambda net: 0.5, one), (
        "activation 'own': value returned a float; a tensor, out, expected")),
    "slope is None": Case("ACTIVATIONS", gpubp.Activation(one, none), (
        "activation 'own': slope returned None; a tensor, dout/dnet, expected")),
    "error and slope at once": Case("LOSSES", Loss(two, one), (
        "loss 'own': value returned tuple (Tensor, Tensor); a tensor, the error, expected")),
    "slope of a loss is None": Case("LOSSES", Loss(one, none), (
        "loss 'own': slope returned None; a tensor, dvalue/dout, expected")),
    "no slope": Case("LOSSES", Loss(one, None), "loss 'own': slope is None; a function expected"),
    "classes without a slope": Case("LOSSES", Loss(one, None, "sum", classes=True), (
        "loss 'own': value returned a Tensor; a tuple of 2 tensors, the error, its slope, expected")),
    "a slot is forgotten": Case("OPTIMIZERS", Optimizer(forgetful, ("mean",)), (
        "direction returned a Tensor; a tuple of 2 tensors, the direction, the new mean, expected"), ConfigError),
    "too short": Case("OPTIMIZERS", Optimizer(short, ("mean", "square")), (
        "direction returned tuple (Tensor, Tensor); a tuple of 3 tensors, the direction, the new mean, the new square"),
        ConfigError),
    "too long": Case("OPTIMIZERS", Optimizer(long, ("mean",)), (
        "direction returned tuple (Tensor, Tensor, Tensor); a tuple of 2 tensors"), ConfigError),
    "a slot is None": Case("OPTIMIZERS", Optimizer(hollow, ("mean",)), (
        "direction returned tuple (Tensor, NoneType); a tuple of 2 tensors"), ConfigError),
    "prepare is None": Case("OPTIMIZERS", Optimizer(direction, ("mean",), {}, ("power",), lambda power: None), (
        "optimizer 'own': prepare returned None; a dictionary with power, rest expected"), ConfigError),
    "prepare forgets": Case("OPTIMIZERS", Optimizer(direction, ("mean",), {}, ("power",), missing), (
        "prepare returned a dictionary with power; a dictionary with power, rest expected"), ConfigError),
    "slope takes net alone": Case("ACTIVATIONS", gpubp.Activation(sgd, sgd), (
        "activation 'own': slope takes grad; net, out expected")),
    "value of a loss takes too few": Case("LOSSES", Loss(lambda out: out, one), (
        "loss 'own': value takes out; out, target expected")),
    "slope of a loss without the hyper-parameter": Case("LOSSES", Loss(
        lambda out, target, width: out, lambda out, target: out, defaults={"width": 0.5}), (
        "loss 'own': slope takes out, target; out, target, width expected")),
    "a value for classes without the shares": Case("LOSSES", Loss(forgetful, None, "sum", classes=True), (
        "loss 'own': value takes grad, mean; out, target, shares expected")),
    "direction without its slot": Case("OPTIMIZERS", Optimizer(sgd, ("mean",)), (
        "optimizer 'own': direction takes grad; grad, mean, and any of"), ConfigError),
    "direction with an unknown name": Case("OPTIMIZERS", Optimizer(direction, ("mean",), {"pull": 0.5}), (
        "optimizer 'own': direction takes grad, mean, rest; grad, mean, and any of lr, pull"), ConfigError),
    "prepare with an unknown name": Case("OPTIMIZERS", Optimizer(sgd, (), {"pull": 0.5}, (), missing), (
        "optimizer 'own': prepare takes power; and any of lr, pull"), ConfigError),
    "rate with an unknown name": Case("SCHEDULES", Schedule(lambda lr, step, total, share: lr), (
        "schedule 'own': rate takes lr, step, total, share; lr, step, total, and any of beta1"), ConfigError),
    "a keyword that nobody gives": Case("ACTIVATIONS", gpubp.Activation(lambda net, *, power: net, one), (
        "activation 'own': value takes net, power; net expected")),
    "not Python": Case("OPTIMIZERS", Optimizer(torch.neg), (
        "optimizer 'own': direction is <built-in method neg of type object"), ConfigError),
    "no rate": Case("SCHEDULES", Schedule(never), (
        "schedule 'own': rate returned None; a tensor, the learning rate, expected"), ConfigError),
    "a net in place": Case("ACTIVATIONS", gpubp.Activation(lambda net: net.mul_(2), one), (
        "activation 'own': value changes net, which it is given, in place; a new tensor expected")),
    "a column in place": Case("OPTIMIZERS", Optimizer(sgd, (), {}, ("power",), emptied), (
        "optimizer 'own': prepare changes power, which it is given, in place; a new tensor expected"), ConfigError),
    "a column that is a number": Case("OPTIMIZERS", Optimizer(
        direction, ("mean",), {}, ("power",), lambda power: {"power": power, "rest": 0.5}), (
        "optimizer 'own': prepare returned a float; a tensor, rest, expected"), ConfigError),
    "a column without networks": Case("OPTIMIZERS", Optimizer(
        direction, ("mean",), {}, ("power",), lambda power: {"power": power[:, 0], "rest": power}), (
        "optimizer 'own': prepare returned power of shape (2,), float64; (2, 1), float64, expected"), ConfigError),
    "a rate of all networks": Case("OPTIMIZERS", Optimizer(
        sgd, (), {}, ("power",), lambda power: {"power": power, "rate": power.sum()}), (
        "optimizer 'own': prepare: rate of a network differs with the networks beside it"), ConfigError),
    "a sum of all networks": Case("OPTIMIZERS", Optimizer(added, ("speed",)), (
        "optimizer 'own': direction: the new speed of a network differs with the networks beside it"), ConfigError),
    "a mean of all networks": Case("ACTIVATIONS", gpubp.Activation(lambda net: net - net.mean(), one), (
        "activation 'own': value: out of a network differs with the networks beside it")),
    "noise": Case("OPTIMIZERS", Optimizer(lambda grad: grad + torch.rand_like(grad)), (
        "optimizer 'own': direction: the direction of a network differs with the networks beside it, or from call to "
        "call; numbers that depend on its own alone expected"), ConfigError),
    "a sum": Case("ACTIVATIONS", gpubp.Activation(lambda net: net.sum(), one), (
        "activation 'own': value returned out of shape (), float64; (2, 2, 4), float64, expected")),
    "outs of another precision": Case("ACTIVATIONS", gpubp.Activation(lambda net: net.float(), one), (
        "activation 'own': value returned out of shape (2, 2, 4), float32; (2, 2, 4), float64, expected")),
    "an error for all outs": Case("LOSSES", Loss(mean_error, one), (
        "loss 'own': value returned the error of shape (2, 2), float64; (2, 2, 2), float64, expected")),
    "a rate for all networks": Case("SCHEDULES", Schedule(first), (
        "schedule 'own': rate returned the learning rate of shape (1,), float64; (2, 1), float64"), ConfigError),
}  # fmt: skip


def train(table: str, engine: str, **settings: Any) -> gpubp.Result:
    """With the row "own" of `table`."""
    network = {"ACTIVATIONS": {"hidden": "own"}, "LOSSES": {"loss": "own"}}.get(table, {})
    used = {"OPTIMIZERS": {"optimizer": "own"}, "SCHEDULES": {"schedule": "own"}}.get(table, {})
    spec = gpubp.NetworkSpec((3, 4, 2), **network)
    config = gpubp.TrainConfig(**{"steps": 3, "batch_size": 4, **used, **settings})
    return gpubp.train(population(spec, 4), gpubp.Dataset(*samples(spec, 10)), config, engine=engine)


@pytest.mark.parametrize(("name", "engine"), covering(CASES, ["eager", "cpu", "auto"], meet=1))
def test_a_rule_that_returns_something_else_is_refused(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = CASES[name]
    monkeypatch.setitem(getattr(gpubp, own.table), "own", own.row)
    with pytest.raises(own.error) as caught:
        train(own.table, engine)
    assert own.message in str(caught.value)


def bent(net: Any) -> Any:
    return torch.clamp(net, min=0) + 0.1 * net


def bent_slope(net: Any, out: Any) -> Any:
    return torch.sign(torch.clamp(net, min=0)) + 0.1


def cubed(out: Any, target: Any) -> Any:
    return torch.abs(out - target) ** 3


def cubed_slope(out: Any, target: Any) -> Any:
    return 3 * (out - target) * torch.abs(out - target)


def pulled(grad: Any, mean: Any, rest: Any) -> Any:
    return grad + rest * mean, grad


def prepared(power: Any, pull: Any) -> dict[str, Any]:
    return {"power": power * pull, "rest": 1 - power, "rate": 1}


def halved(lr: Any, step: Any, total: Any, share: Any) -> Any:
    return lr * share


OWN = {
    "ACTIVATIONS": gpubp.Activation(bent, bent_slope),
    "LOSSES": Loss(cubed, cubed_slope),
    "OPTIMIZERS": Optimizer(pulled, ("mean",), {"pull": 0.5}, ("power",), prepared),
    "SCHEDULES": Schedule(halved, {"share": 0.5}),
}


def own(*rules: Any, **settings: Any) -> gpubp.Result:
    """A training by an activation, a loss, an optimizer and a schedule."""
    hidden, loss, optimizer, schedule = rules
    spec = gpubp.NetworkSpec((3, 4, 2), hidden=hidden, loss=loss)
    config = gpubp.TrainConfig(optimizer, schedule=schedule, steps=3, batch_size=4, extra={"pull": [0.1, 0.2]})
    return gpubp.train(population(spec, 2), gpubp.Dataset(*samples(spec, 10)), config, **settings)


@pytest.mark.parametrize("engine", ["eager", "cpu"])
def test_a_rule_given_itself_trains_as_one_of_its_table(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = own(*OWN.values(), engine=engine)
    for table, row in OWN.items():
        monkeypatch.setitem(getattr(gpubp, table), "own", row)
    named = own("own", "own", "own", "own", engine=engine)
    assert same_bits(given.population.params, named.population.params)


def test_rules_of_one_name_are_told_apart_and_not_in_one_network() -> None:
    def bent(net: Any) -> Any:
        return net

    other = gpubp.Activation(bent, bent_slope)
    one, two = (gpubp.NetworkSpec((3, 4, 2), hidden=each) for each in (OWN["ACTIVATIONS"], other))
    assert one == gpubp.NetworkSpec((3, 4, 2), hidden=OWN["ACTIVATIONS"]) != two != one
    with pytest.raises(SpecError, match="activation 'bent': several rules have this name"):
        gpubp.NetworkSpec((3, 4, 4, 2), hidden=(OWN["ACTIVATIONS"], other))


def test_a_rule_without_a_name_or_with_that_of_another_is_refused_and_a_row_has_its_own() -> None:
    def relu(net: Any) -> Any:
        return net

    with pytest.raises(SpecError, match="'relu': the table has another rule of this name; rename the function relu"):
        gpubp.NetworkSpec((3, 4, 2), hidden=gpubp.Activation(relu, bent_slope))
    with pytest.raises(ConfigError, match=r"optimizer: <function .*lambda.* has no name, by which a rule is saved"):
        gpubp.TrainConfig(Optimizer(lambda grad: grad), steps=1)
    with pytest.raises(ConfigError, match=r"optimizer: <built-in method neg .*> is not a Python function"):
        gpubp.TrainConfig(Optimizer(torch.neg), steps=1)
    assert gpubp.NetworkSpec((3, 4, 2), hidden=gpubp.ACTIVATIONS["tanh"]) == gpubp.NetworkSpec((3, 4, 2), hidden="tanh")


def test_a_saved_run_names_its_rules_and_where_one_is_missing_says_how_to_add_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = own(*OWN.values(), engine="eager", run_dir=tmp_path / "run")
    data = gpubp.Dataset(*samples(result.population.spec, 10))
    kinds = {"ACTIVATIONS": "Activation", "LOSSES": "Loss", "OPTIMIZERS": "Optimizer", "SCHEDULES": "Schedule"}
    for (table, row), name in zip(OWN.items(), ["bent", "cubed", "pulled", "halved"]):
        what = f"run: {kinds[table].lower()} '{name}' is in no table"
        how = f"gpubp.{table}['{name}'] = gpubp.{kinds[table]}("
        for reads in (gpubp.load, lambda run: gpubp.resume(run, data, steps=5)):
            with pytest.raises(CheckpointError, match=f"{what} .*{re.escape(how)}"):
                reads(tmp_path / "run")
        monkeypatch.setitem(getattr(gpubp, table), name, row)
    assert same_bits(gpubp.load(tmp_path / "run").population.params, result.population.params)
    assert gpubp.resume(tmp_path / "run", data, steps=5).table["steps"].to_pylist() == [5, 5]
