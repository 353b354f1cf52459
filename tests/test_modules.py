"""A row to and from torch.nn: the same outs, the same numbers, and errors that say what does not fit."""

import itertools
import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import gpubp
from gpubp.errors import SpecError
from gpubp.export.modules import MODULES

from .helpers import covering, generator, population, same_bits, samples
from .tolerances import MODULE, SINGLE

WHOLE = {torch.float32: SINGLE, torch.float64: MODULE}


KINDS = [("neuron", True), ("neuron", False), ("none", True)]


@pytest.mark.parametrize(
    ("hidden", "kind", "output", "dtype"),
    covering(gpubp.ACTIVATIONS, KINDS, ["identity", "sigmoid"], [torch.float32, torch.float64], meet=1),
)
def test_networks_survive_the_round_trip(hidden: str, kind: tuple[str, bool], output: str, dtype: torch.dtype) -> None:
    spec = gpubp.NetworkSpec((5, 7, 6, 4), hidden, output, "half_squared_error", *kind)
    networks, (inputs, _) = population(spec, 3, dtype), samples(spec, 9, dtype=dtype)
    torch.testing.assert_close(networks.network(2)(inputs).detach(), networks.predict(inputs)[2], **WHOLE[dtype])
    back = gpubp.Population.from_modules([networks.network(n) for n in range(3)], loss="half_squared_error", seed=5)
    for name in ("widths", "activations", "loss", "bias", "train_bias"):
        assert getattr(back.spec, name) == getattr(spec, name)
    assert same_bits(back.params, networks.params)
    assert back.ids.tolist() == [0, 1, 2]
    assert back.seed == 5


def test_a_bias_per_layer_becomes_equal_biases() -> None:
    networks = population(gpubp.NetworkSpec((5, 7, 4), bias="layer"), 1)
    module, (inputs, _) = networks.network(0), samples(networks.spec, 9)
    torch.testing.assert_close(module(inputs).detach(), networks.predict(inputs)[0], **MODULE)
    back = gpubp.Population.from_modules([module])
    assert back.spec.bias == "neuron"
    for (_, one), (_, many) in zip(networks.spec.layers(networks.params), back.spec.layers(back.params)):
        assert same_bits(many, one.expand_as(many))


def test_a_module_holds_copies() -> None:
    networks = population(gpubp.NetworkSpec((5, 4)), 2)
    before = networks.params.clone()
    with torch.no_grad():
        networks.network(1)[0].weight.zero_()
    assert same_bits(networks.params, before)
    module = nn.Sequential(nn.Linear(3, 2))
    taken = gpubp.Population.from_modules([module]).params
    taken.zero_()
    assert module[0].weight.any()
    assert not taken.requires_grad


@pytest.mark.parametrize("named", [True, False])
def test_an_activation_without_a_module_is_named(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def double(net: torch.Tensor) -> torch.Tensor:
        return 2 * net

    row = gpubp.Activation(double, lambda net, out: 2 + 0 * net)
    if named:
        monkeypatch.setitem(gpubp.ACTIVATIONS, "double", row)
    networks = population(gpubp.NetworkSpec((5, 4, 2), "double" if named else row), 1)
    with pytest.raises(SpecError, match=r"'double' has no torch.nn module; add one: gpubp.MODULES\['double'\]"):
        networks.network(0)
    monkeypatch.setitem(MODULES, "double", nn.Identity)
    assert len(networks.network(0)) == 3


REFUSED = [
    ([], "one module or more, got none"),
    ([nn.ReLU()], "module 0 is ReLU"),
    (nn.Sequential(nn.Linear(2, 3), nn.ReLU()), r"from_modules takes several networks: \[module\]"),
    (["a network"], "module 0 is a str"),
    (5, r"from_modules takes several networks: \[module\], not 5"),
    ([nn.Sequential()], "a Sequential of Linear and activations expected"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Tanh())], "at most one activation"),
    ([nn.Sequential(nn.Tanh(), nn.Linear(2, 3))], "module 0\\[0\\] is Tanh"),
    ([nn.Sequential(nn.Conv1d(2, 2, 1))], "Conv1d"),
    ([nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.5))], "LeakyReLU"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ELU(2.0))], "ELU"),
    ([nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))], "some Linear have a bias and some have none"),
    ([nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1))], "equal features expected"),
    ([nn.Linear(2, 3), nn.Linear(2, 4)], "module 1 is"),
    ([nn.Linear(2, 3), nn.Linear(2, 3, dtype=torch.float64)], "module 1 is torch.float64 on cpu, module 0 is"),
    ([nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Sequential(nn.Linear(2, 3), nn.Tanh())], "one topology"),
]


@pytest.mark.parametrize(("modules", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_modules_that_are_no_such_networks_are_refused(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        gpubp.Population.from_modules(modules)


class Own(nn.Linear):
    """A Linear in all but its name."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.normal_(self.bias)


def drawn(source: random.Random) -> nn.Sequential:
    """A module that a row can stand for: any depth, widths and activations, some of them in place or used twice,
    Identity and Sequentials anywhere."""
    kinds = [*MODULES.values(), *(lambda own=own: own(inplace=True) for own in (nn.ReLU, nn.SiLU, nn.ELU, nn.SELU))]
    shared = [source.choice(kinds)() for _ in range(2)]
    widths, bias = [source.randint(1, 9) for _ in range(source.randint(2, 6))], source.random() < 0.7
    dtype = source.choice([torch.float32, torch.float64])
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts.append(source.choice([nn.Linear, Own])(inputs, outputs, bias=bias, dtype=dtype))
        parts += [nn.Identity()] * source.randint(0, 1)
        parts += [source.choice([*shared, source.choice(kinds)()])] * source.randint(0, 1)
    for _ in range(source.randint(0, 2)):
        first, last = sorted(source.sample(range(len(parts) + 1), 2))
        parts[first:last] = [nn.Sequential(*parts[first:last])]
    return nn.Sequential(*parts)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 20)) for seed in range(60)])
def test_a_population_computes_what_any_module_does(seed: int) -> None:
    source = random.Random(seed)
    torch.manual_seed(seed)
    module = drawn(source)
    networks = gpubp.Population.from_modules([module])
    inputs = torch.randn(7, networks.spec.widths[0], dtype=networks.params.dtype)
    for outs in (networks.predict(inputs)[0], networks.network(0)(inputs)):
        torch.testing.assert_close(outs.detach(), module(inputs).detach(), **WHOLE[networks.params.dtype])


def test_every_torch_module_in_a_sequential_is_computed_or_refused_by_name() -> None:
    """Every class of torch.nn that can be made of a width or two, between two Linear."""
    accepted, refused = set(), {}
    inputs = torch.randn(6, 4, generator=generator(1))
    for name in sorted(dir(nn)):
        kind = getattr(nn, name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            continue
        for arguments in ((), (4,), (4, 4), (4, 4, 4)):
            try:
                with warnings.catch_warnings(action="ignore"):
                    part = kind(*arguments)
            except (TypeError, ValueError, RuntimeError, AssertionError):
                continue
            module = nn.Sequential(nn.Linear(4, 4), part, nn.Linear(4, 4)).eval()
            try:
                networks = gpubp.Population.from_modules([module])
            except SpecError as error:
                refused[name] = str(error)
                continue
            torch.testing.assert_close(networks.predict(inputs)[0], module(inputs).detach(), **WHOLE[torch.float32])
            accepted.add(name)
    assert {"ReLU", "Identity", "Linear", "Sequential", "Tanh"} <= accepted
    named = "Dropout LayerNorm BatchNorm1d PReLU ReLU6 LazyLinear Softmax Flatten"
    assert {*named.split()} <= refused.keys()
    assert not [name for name, said in refused.items() if name not in said]
    assert not {"Module", "ModuleList", "RReLU", "Bilinear", "LSTM"} & accepted


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


class Skip(nn.Sequential):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + super().forward(input)


def computed(module: nn.Sequential) -> None:
    weight = 2 * module[2].weight
    del module[2].weight
    module[2].weight = weight


REFUSED_CHANGES: dict[str, tuple[Callable[[nn.Sequential], object], str]] = {
    "one Linear twice": (lambda m: m.__setitem__(2, m[0]), r"0\[2\].weight is the same as module 0\[0\].weight"),
    "one storage twice": (
        lambda m: setattr(m[2], "weight", nn.Parameter(m[0].weight.data.T)), r"0\[2\].weight is the same as module 0"
    ),
    "a frozen weight": (lambda m: m[0].weight.requires_grad_(False), r"0\[0\].weight has requires_grad=False"),
    "a frozen layer": (lambda m: m[2].requires_grad_(False), r"0\[2\].weight has requires_grad=False"),
    "a frozen bias": (lambda m: m[2].bias.requires_grad_(False), r"0\[2\].bias with requires_grad=False"),
    "a computed weight": (computed, r"0\[2\].weight is computed from other tensors"),
    "another forward": (lambda m: setattr(m[1], "forward", torch.sin), r"0\[1\], Tanh, has a forward that replaces"),
    "a Linear's own forward": (lambda m: m.append(Doubled(3, 3)), r"0\[3\] is Doubled"),
    "a Sequential's own forward": (lambda m: m.append(Skip(nn.Linear(3, 3))), r"0\[3\] is Skip"),
    "a hook": (lambda m: m[1].register_forward_hook(lambda *_: None), r"0\[1\], Tanh, has hooks"),
    "a hook before": (lambda m: m[0].register_forward_pre_hook(lambda *_: None), r"0\[0\], Linear, has hooks"),
    "a hook of all": (lambda m: m.register_forward_hook(lambda *_: None), "module 0, Sequential, has hooks"),
    "a backward hook": (lambda m: m[0].register_full_backward_hook(lambda *_: None), r"0\[0\], Linear, has hooks"),
    "a gradient's hook": (lambda m: m[0].weight.register_hook(lambda grad: 2 * grad), r"0\[0\].weight has hooks"),
    "pruning": (lambda m: prune.l1_unstructured(m[0], "weight", 0.5), r"0\[0\], Linear, has hooks, such as .* pruning"),
    "weight_norm": (lambda m: weight_norm(m[0]), r"0\[0\], Linear, has hooks, such as those of weight_norm"),
    "a parametrization": (lambda m: parametrizations.orthogonal(m[2]), r"0\[2\], \w+Linear, has parametrizations"),
    "no numbers yet": (lambda m: m.append(nn.LazyLinear(2)), r"0\[3\], LazyLinear, has no numbers yet"),
    "no numbers": (lambda m: m.to("meta"), "module 0.* is on device meta"),
    "two types": (lambda m: m[2].double(), r"0\[2\].weight is torch.float64 on cpu, module 0\[0\].weight is"),
    "nothing": (lambda m: m.append(None), r"0\[3\] is a NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_what_a_row_cannot_represent_is_refused_with_its_position(name: str) -> None:
    module, (change, message) = mlp(), REFUSED_CHANGES[name]
    gpubp.Population.from_modules([module])
    change(module)
    with pytest.raises(SpecError, match=message):
        gpubp.Population.from_modules([module])


def test_parameters_that_are_parts_of_one_storage_are_taken() -> None:
    module, flat = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.arange(12.0)
    module[0].weight, module[1].weight = (
        nn.Parameter(flat[:8].view(2, 4)[:, :2]),
        nn.Parameter(flat[2:10].view(2, 4)[:, :2]),
    )
    module[0].bias, module[1].bias = nn.Parameter(flat[8:10]), nn.Parameter(flat[10:])
    assert gpubp.Population.from_modules([module]).params.tolist() == [[0, 4, 1, 5, 8, 9, 2, 6, 3, 7, 10, 11]]
