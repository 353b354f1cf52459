"""A rule of one's own that returns something else than its table asks for is refused in a sentence, before anything is
trained, on every engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError, SpecError
from gpubp.maths.activations import Activation
from gpubp.maths.losses import Loss
from gpubp.maths.optimizers import Optimizer
from gpubp.maths.schedules import Schedule

from .helpers import compiled, covering, population, quick, same_bits, samples  # noqa: F401

IN_PLACE = "which it is given, in place; a new tensor expected"


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


ACTIVATIONS = [
    (Activation(none, one), "value returned None; a tensor, out, expected"),
    (Activation(two, one), "value returned tuple (Tensor, Tensor); a tensor, out, expected"),
    (Activation(lambda net: 0.5, one), "value returned a float; a tensor, out, expected"),
    (Activation(one, none), "slope returned None; a tensor, dout/dnet, expected"),
    (Activation(sgd, sgd), "slope takes grad; net, out expected"),
    (Activation(lambda net, *, power: net, one), "value takes net, power; net expected"),
    (Activation(lambda net: net.mul_(2), one), f"value changes net, {IN_PLACE}"),
    (Activation(lambda net: net - net.mean(), one), "value: out of a network differs with the networks beside it"),
    (Activation(lambda net: net.sum(), one), "value returned out of shape (), float64; (2, 2, 4), float64, expected"),
    (Activation(lambda net: net.float(), one),
     "value returned out of shape (2, 2, 4), float32; (2, 2, 4), float64, expected"),
]  # fmt: skip
LOSSES = [
    (Loss(two, one), "value returned tuple (Tensor, Tensor); a tensor, the error, expected"),
    (Loss(one, none), "slope returned None; a tensor, dvalue/dout, expected"),
    (Loss(one, None), "slope is None; a function expected"),
    (Loss(one, None, "sum", classes=True),
     "value returned a Tensor; a tuple of 2 tensors, the error, its slope, expected"),
    (Loss(lambda out: out, one), "value takes out; out, target expected"),
    (Loss(lambda out, target, width: out, lambda out, target: out, defaults={"width": 0.5}),
     "slope takes out, target; out, target, width expected"),
    (Loss(forgetful, None, "sum", classes=True), "value takes grad, mean; out, target, shares expected"),
    (Loss(mean_error, one), "value returned the error of shape (2, 2), float64; (2, 2, 2), float64, expected"),
]  # fmt: skip
MEAN, POWER = ("mean",), ("power",)  # slots, columns
OPTIMIZERS = [
    (Optimizer(forgetful, MEAN),
     "direction returned a Tensor; a tuple of 2 tensors, the direction, the new mean, expected"),
    (Optimizer(short, ("mean", "square")), "direction returned tuple (Tensor, Tensor); a tuple of 3 tensors, the "
     "direction, the new mean, the new square"),
    (Optimizer(long, MEAN), "direction returned tuple (Tensor, Tensor, Tensor); a tuple of 2 tensors"),
    (Optimizer(hollow, MEAN), "direction returned tuple (Tensor, NoneType); a tuple of 2 tensors"),
    (Optimizer(direction, MEAN, {}, POWER, lambda power: None),
     "prepare returned None; a dictionary with power, rest expected"),
    (Optimizer(direction, MEAN, {}, POWER, missing),
     "prepare returned a dictionary with power; a dictionary with power, rest expected"),
    (Optimizer(sgd, MEAN), "direction takes grad; grad, mean, and any of"),
    (Optimizer(direction, MEAN, {"pull": 0.5}), "direction takes grad, mean, rest; grad, mean, and any of lr, pull"),
    (Optimizer(sgd, (), {"pull": 0.5}, (), missing), "prepare takes power; and any of lr, pull"),
    (Optimizer(torch.neg), "direction is <built-in method neg of type object"),
    (Optimizer(sgd, (), {}, POWER, emptied), f"prepare changes power, {IN_PLACE}"),
    (Optimizer(direction, MEAN, {}, POWER, lambda power: {"power": power, "rest": 0.5}),
     "prepare returned a float; a tensor, rest, expected"),
    (Optimizer(direction, MEAN, {}, POWER, lambda power: {"power": power[:, 0], "rest": power}),
     "prepare returned power of shape (2,), float64; (2, 1), float64, expected"),
    (Optimizer(sgd, (), {}, POWER, lambda power: {"power": power, "rate": power.sum()}),
     "prepare: rate of a network differs with the networks beside it"),
    (Optimizer(added, ("speed",)), "direction: the new speed of a network differs with the networks beside it"),
    (Optimizer(lambda grad: grad + torch.rand_like(grad)), "direction: the direction of a network differs with the "
     "networks beside it, or from call to call; numbers that depend on its own alone expected"),
]  # fmt: skip
SCHEDULES = [
    (Schedule(lambda lr, step, total, share: lr),
     "rate takes lr, step, total, share; lr, step, total, and any of beta1"),
    (Schedule(never), "rate returned None; a tensor, the learning rate, expected"),
    (Schedule(first), "rate returned the learning rate of shape (1,), float64; (2, 1), float64"),
]  # fmt: skip
CASES = [
    (table, row, f"{name} 'own': {told}")
    for table, name, rows in (("ACTIVATIONS", "activation", ACTIVATIONS), ("LOSSES", "loss", LOSSES),
                              ("OPTIMIZERS", "optimizer", OPTIMIZERS), ("SCHEDULES", "schedule", SCHEDULES))
    for row, told in rows
]  # fmt: skip


def train(table: str, engine: str, **settings: Any) -> gpubp.Result:
    """With the row "own" of `table`."""
    network = {"ACTIVATIONS": {"hidden": "own"}, "LOSSES": {"loss": "own"}}.get(table, {})
    used = {"OPTIMIZERS": {"optimizer": "own"}, "SCHEDULES": {"schedule": "own"}}.get(table, {})
    spec = gpubp.NetworkSpec((3, 4, 2), **network)
    config = gpubp.TrainConfig(**{"steps": 3, "batch_size": 4, **used, **settings})
    return gpubp.train(population(spec, 4), gpubp.Dataset(*samples(spec, 10)), config, engine=engine)


@pytest.mark.parametrize(("number", "engine"), covering(range(len(CASES)), ["eager", "cpu", "auto"], meet=1))
def test_a_rule_that_returns_something_else_is_refused(
    number: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, row, told = CASES[number]
    monkeypatch.setitem(getattr(gpubp, table), "own", row)
    with pytest.raises(SpecError if table in ("ACTIVATIONS", "LOSSES") else ConfigError) as caught:
        train(table, engine)
    assert told in str(caught.value)


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
    "ACTIVATIONS": Activation(bent, bent_slope),
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


@pytest.mark.parametrize("engine", quick(["eager", "cpu"], ["eager"]))
def test_a_rule_given_itself_trains_as_one_of_its_table(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = own(*OWN.values(), engine=engine)
    for table, row in OWN.items():
        monkeypatch.setitem(getattr(gpubp, table), "own", row)
    named = own("own", "own", "own", "own", engine=engine)
    assert same_bits(given.population.params, named.population.params)


def test_rules_of_one_name_are_told_apart_and_not_in_one_network() -> None:
    def bent(net: Any) -> Any:
        return net

    other = Activation(bent, bent_slope)
    one, two = (gpubp.NetworkSpec((3, 4, 2), hidden=each) for each in (OWN["ACTIVATIONS"], other))
    assert one == gpubp.NetworkSpec((3, 4, 2), hidden=OWN["ACTIVATIONS"]) != two != one
    with pytest.raises(SpecError, match="activation 'bent': several rules have this name"):
        gpubp.NetworkSpec((3, 4, 4, 2), hidden=(OWN["ACTIVATIONS"], other))


def test_a_rule_without_a_name_or_with_that_of_another_is_refused_and_a_row_has_its_own() -> None:
    def relu(net: Any) -> Any:
        return net

    with pytest.raises(SpecError, match="'relu': the table has another rule of this name; rename the function relu"):
        gpubp.NetworkSpec((3, 4, 2), hidden=Activation(relu, bent_slope))
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
