"""Every optimizer is torch.optim's over 50 steps, each network with hyper-parameters of its own."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.maths.optimizers import OPTIMIZERS, Optimizer, rates, update
from gpubp.state import TrainState
from gpubp.verify.reference import leaves, reference_loss, reference_out

from .helpers import generator, population, quick, samples, train
from .tolerances import OPTIMIZER, TRAINING

STEPS = 50


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al., 2023; torch has none."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                mean = self.state[param].setdefault("mean", torch.zeros_like(param))
                first, second = group["betas"]
                moved = (first * mean + (1 - first) * param.grad).sign()
                param -= group["lr"] * (moved + group["weight_decay"] * param)
                mean.copy_(second * mean + (1 - second) * param.grad)


def betas(beta1: float, beta2: float, **rest: Any) -> dict[str, Any]:
    return {"betas": (beta1, beta2), **rest}


REFERENCES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": torch.optim.SGD,
    "nesterov": lambda params, **hyper: torch.optim.SGD(params, nesterov=True, **hyper),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
    "adam": lambda params, **hyper: torch.optim.Adam(params, **betas(**hyper)),
    "amsgrad": lambda params, **hyper: torch.optim.Adam(params, amsgrad=True, **betas(**hyper)),
    "adamw": lambda params, **hyper: torch.optim.AdamW(params, **betas(**hyper)),
    "nadam": lambda params, **hyper: torch.optim.NAdam(params, **betas(**hyper)),
    "lion": lambda params, **hyper: Lion(params, **betas(**hyper)),
}
COLUMNS = {  # a number per network, four of them
    "weight_decay": (0.0, 0.01, 0.1, 0.3),
    "momentum": (0.9, 0.1, 0.5, 0.99),
    "eps": (1e-8, 1e-3, 1e-6, 1e-1),
    "alpha": (0.99, 0.5, 0.9, 0.0),
    "rho": (0.9, 0.5, 0.99, 0.0),
    "beta1": (0.9, 0.0, 0.5, 0.95),
    "beta2": (0.999, 0.9, 0.99, 0.5),
    "momentum_decay": (4e-3, 0.0, 0.1, 1.0),
}
LR = {"sgd": 0.1, "adadelta": 1.0, "momentum": 0.02, "nesterov": 0.02, "lion": 1e-3}
FACTORS = torch.tensor([1.0, 0.3, 2.0, 0.7], dtype=torch.float64)


def columns(name: str) -> dict[str, Tensor]:
    """Hyper-parameters of four networks, (4,) each."""
    values = {each: COLUMNS[each] for each in ("weight_decay", *OPTIMIZERS[name].defaults)}
    return {"lr": LR.get(name, 0.01) * FACTORS} | {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def reference(name: str, parts: list[Tensor], number: int) -> torch.optim.Optimizer:
    return REFERENCES[name](parts, **{each: float(column[number]) for each, column in columns(name).items()})


@pytest.fixture
def double() -> Iterator[None]:
    """torch's NAdam keeps its product of momenta in the default precision, also for parameters in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def near(state: TrainState, number: int, parts: list[Tensor], loss: Tensor) -> None:
    """A network is what a reference has made of `parts`, and its loss that of the last step."""
    row = torch.cat([part.detach().flatten() for part in parts])
    torch.testing.assert_close(state.population.params[number], row, **TRAINING)
    torch.testing.assert_close(state.loss[number], loss.detach(), **TRAINING)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_torchs_on_given_gradients(name: str) -> None:
    rule, source = OPTIMIZERS[name], generator(1)
    param = torch.randn(4, 17, generator=source, dtype=torch.float64)
    grads = torch.randn(STEPS, 4, 17, generator=source, dtype=torch.float64) * torch.logspace(-4, 1, 17)
    grads[:, :, 3] = 0
    theirs = [row.clone().requires_grad_() for row in param]
    optimizers = [reference(name, [row], number) for number, row in enumerate(theirs)]
    hyper = {each: column[:, None] for each, column in columns(name).items()}
    own = {each: torch.ones(4, 1, dtype=torch.float64) for each in rule.columns}
    slots = [torch.zeros_like(param) for _ in rule.slots]
    for grad in grads:
        now, own = rates(rule, hyper, own, hyper["lr"], torch.float64)
        slots = update(rule, param, grad, slots, now)
        for row, each, optimizer in zip(theirs, grad, optimizers):
            row.grad = each.clone()
            optimizer.step()
        torch.testing.assert_close(param, torch.stack(theirs).detach(), **OPTIMIZER)


NETWORKS = [("momentum", "layer"), ("adam", "neuron"), ("adamw", "layer"), ("lion", "neuron")]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "bias"), quick(itertools.product(OPTIMIZERS, ("neuron", "layer")), NETWORKS))
def test_networks_train_as_with_one_torch_optimizer_each(name: str, bias: str) -> None:
    """Also their weights decay with the scheduled rate."""
    spec = gpubp.NetworkSpec((4, 5, 3), "tanh", bias=bias)
    networks, (inputs, target) = population(spec, 4), samples(spec, 8)
    state = train(networks, gpubp.Dataset(inputs, target), optimizer=name, batch_size=8, steps=STEPS, shuffle="none",
                  schedule="exponential", gamma=0.98, **columns(name))  # fmt: skip
    for number in range(4):
        parts = leaves(spec, networks.params[number])
        optimizer = reference(name, parts, number)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = reference_loss(spec.loss, reference_out(spec, parts, inputs), target)
            loss.backward()
            optimizer.step()
            scheduler.step()
        near(state, number, parts, loss)


def test_a_rule_that_moves_without_a_gradient_moves_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpubp.OPTIMIZERS, "drift", Optimizer(lambda grad: grad + 1, lr=0.1))
    spec = gpubp.NetworkSpec((5, 33, 2), "sigmoid")
    networks, (inputs, target) = population(spec, 2), samples(spec, 8)
    state = train(networks, gpubp.Dataset(inputs, target), optimizer="drift", batch_size=8, steps=4, shuffle="none")
    for number in range(2):
        parts = leaves(spec, networks.params[number])
        for _ in range(4):
            loss = reference_loss(spec.loss, reference_out(spec, parts, inputs), target)
            grads = torch.autograd.grad(loss, parts)
            with torch.no_grad():
                for part, grad in zip(parts, grads):
                    part -= 0.1 * (grad + 1)
        near(state, number, parts, loss)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs(name: str) -> None:
    if name == "lion":
        assert OPTIMIZERS[name].defaults == {"beta1": 0.9, "beta2": 0.99}
        return
    known = {each.__name__.lower(): each for each in vars(torch.optim).values() if isinstance(each, type)}
    own = known[{"momentum": "sgd", "nesterov": "sgd", "amsgrad": "adam"}.get(name, name)]
    theirs = dict(own([torch.zeros(1)]).defaults)
    theirs |= dict(zip(("beta1", "beta2"), theirs.get("betas", ())))
    rule = OPTIMIZERS[name]
    assert rule.lr == theirs["lr"]
    assert rule.weight_decay == theirs["weight_decay"]
    for each, value in rule.defaults.items():
        if each != "momentum":  # 0 in torch, where momentum and nesterov are settings of SGD
            assert value == theirs[each], each


def averaged(grad: Tensor, mean: Tensor, rest: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.lerp(mean, grad, rest)
    return push * mean, mean


def averaged_prepare(keep: Tensor, count: Tensor) -> dict[str, Tensor]:
    return {"rest": 1 - keep, "count": count + 1, "rate": 1 / torch.sqrt(count)}


AVERAGED = Optimizer(averaged, ("mean",), {"keep": 0.9, "push": 2.0}, ("count",), averaged_prepare, lr=0.05)


def test_rules_of_ones_own_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def mish(net: Tensor) -> Tensor:
        return net * torch.tanh(gpubp.ACTIVATIONS["softplus"].value(net))

    def mish_slope(net: Tensor, out: Tensor) -> Tensor:
        gate = torch.tanh(gpubp.ACTIVATIONS["softplus"].value(net))
        return gate + net * (1 - gate * gate) * gpubp.ACTIVATIONS["sigmoid"].value(net)

    monkeypatch.setitem(gpubp.ACTIVATIONS, "mish", gpubp.Activation(mish, mish_slope))
    monkeypatch.setitem(gpubp.OPTIMIZERS, "averaged", AVERAGED)
    spec = gpubp.NetworkSpec((4, 5, 3), "mish")
    networks, (inputs, target) = population(spec, 2), samples(spec, 8)
    state = train(networks, gpubp.Dataset(inputs, target), optimizer="averaged", batch_size=8, steps=STEPS,
                  shuffle="none", lr=[0.05, 0.01], extra={"keep": [0.5, 0.9], "push": 1.5})  # fmt: skip
    for number, (lr, keep) in enumerate([(0.05, 0.5), (0.01, 0.9)]):
        (w, b), (v, c) = ((w[number].clone(), b[number].clone()) for w, b in spec.layers(networks.params))
        parts = [each.requires_grad_() for each in (w, b, v, c)]
        means = [torch.zeros_like(part) for part in parts]
        for step in range(STEPS):
            out = torch.nn.functional.mish(inputs @ w + b) @ v + c
            loss = torch.nn.functional.mse_loss(out, target)
            with torch.no_grad():
                for part, mean, grad in zip(parts, means, torch.autograd.grad(loss, parts)):
                    mean.copy_(keep * mean + (1 - keep) * grad)
                    part -= lr * 1.5 / (step + 1) ** 0.5 * mean
        near(state, number, parts, loss)
