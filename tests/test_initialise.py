"""Initial weights are distributed like torch.nn.init's, and are a network's own: its seed and id decide every bit."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gpubp
from gpubp.errors import ConfigError, ShapeError
from gpubp.maths import rng
from gpubp.maths.initialise import INITIALISERS

from .helpers import same_bits
from .tolerances import ORTHONORMAL, QUANTILE

INPUTS, OUTPUTS = 200, 50
REFERENCES: dict[str, Callable[[Tensor], object]] = {  # of a weight (O, I), as torch lays it out
    "constant": nn.init.zeros_,
    "uniform": lambda weight: nn.init.uniform_(weight, -0.1, 0.1),
    "normal": lambda weight: nn.init.normal_(weight, 0, 0.1),
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "kaiming_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "kaiming_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "torch_linear": lambda weight: weight.data.copy_(nn.Linear(weight.shape[1], weight.shape[0]).weight.data),
    "orthogonal": nn.init.orthogonal_,
}
BOUNDED = ("uniform", "glorot_uniform", "kaiming_uniform", "torch_linear")


def weights(name: str, *widths: int, count: int = 4) -> list[tuple[Tensor, Tensor]]:
    spec = gpubp.NetworkSpec(widths)
    return spec.layers(gpubp.Population.create(spec, count, seed=3, init=name, dtype=torch.float64).params)


@pytest.mark.parametrize("name", INITIALISERS)
def test_weights_are_distributed_like_torchs(name: str) -> None:
    torch.manual_seed(0)
    theirs = torch.empty(4, OUTPUTS, INPUTS)
    for weight in theirs:
        REFERENCES[name](weight)
    ours = weights(name, INPUTS, OUTPUTS)[0][0]
    shares = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    one, other = (torch.quantile(each.double().flatten(), shares) for each in (ours, theirs))
    width = max(float(theirs.std()), 1e-12)
    assert (one - other).abs().max() < QUANTILE * width
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.02)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_holds_for_every_layer_by_its_widths(name: str) -> None:
    for (weight, _), (inputs, outputs) in zip(weights(name, 90, 30, 60, count=20), ((90, 30), (30, 60))):
        bound = {"uniform": 0.1, "glorot_uniform": math.sqrt(6 / (inputs + outputs)),
                 "kaiming_uniform": math.sqrt(6 / inputs), "torch_linear": 1 / math.sqrt(inputs)}[name]  # fmt: skip
        assert 0.999 * bound < weight.abs().max() < bound


def test_biases_start_at_0_but_for_torch_linear() -> None:
    assert [name for name in REFERENCES if weights(name, 16, 500)[0][1].any()] == ["torch_linear"]


@pytest.mark.parametrize("widths", [(64, 10), (10, 64), (7, 7), (1, 5), (5, 1)], ids=str)
def test_orthogonal_weights_are_orthonormal(widths: tuple[int, int]) -> None:
    for weight in weights("orthogonal", *widths)[0][0]:
        product = weight.T @ weight if widths[0] >= widths[1] else weight @ weight.T
        torch.testing.assert_close(product, torch.eye(min(widths), dtype=torch.float64), **ORTHONORMAL)


def test_orthogonal_weights_point_everywhere_alike() -> None:
    """Uniform by Haar's measure: an entry's mean is 0 and its square's 1 / I, at every place."""
    weight = weights("orthogonal", 4, 4, count=20_000)[0][0]
    assert weight.mean(0).abs().max() < 5 * math.sqrt(1 / 4 / 20_000)
    assert (weight.square().mean(0) - 1 / 4).abs().max() < 5 * math.sqrt(1 / 4 / 20_000)
    assert torch.linalg.det(weight).mean().abs() < 5 / math.sqrt(20_000), "half of them reflect"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", INITIALISERS)
def test_a_network_alone_is_its_row_of_any_population(name: str, dtype: torch.dtype) -> None:
    spec = gpubp.NetworkSpec((13, 17, 5), bias="neuron")
    everyone = gpubp.Population.create(spec, 40, seed=9, init=name, dtype=dtype)
    for ids in ([7], [31, 7, 0], range(5, 10)):
        some = gpubp.Population.create(spec, ids=ids, seed=9, init=name, dtype=dtype)
        assert same_bits(some.params, everyone.params[list(ids)])


@pytest.mark.parametrize("name", ["normal", "orthogonal", "torch_linear"])
def test_drawing_in_different_blocks_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gpubp.NetworkSpec((13, 17, 5))
    whole = gpubp.Population.create(spec, 30, init=name).params
    monkeypatch.setattr(gpubp.maths.initialise, "BLOCK", 500)
    assert same_bits(gpubp.Population.create(spec, 30, init=name).params, whole)


@pytest.mark.parametrize("name", [name for name in INITIALISERS if name != "constant"])
def test_seeds_ids_and_layers_all_draw_different_weights(name: str) -> None:
    spec = gpubp.NetworkSpec((6, 6, 6))
    one, two = (gpubp.Population.create(spec, 5, seed=seed, init=name).params for seed in (1, 2))
    drawn = [weight for params in (one, two) for weight, _ in spec.layers(params)]
    assert len({tuple(row) for weight in drawn for row in weight.flatten(1).tolist()}) == 20


@pytest.mark.parametrize("bias", ["neuron", "layer"])
def test_weights_and_biases_take_the_numbers_of_the_format(bias: str) -> None:
    """Those of layer l from the sequences 2 l and 2 l + 1."""
    spec, ids = gpubp.NetworkSpec((6, 4, 3), bias=bias), torch.tensor([5, 0])
    population = gpubp.Population.create(spec, ids=ids, seed=9, init="torch_linear", dtype=torch.float64)
    for number, ((weight, add), inputs) in enumerate(zip(spec.layers(population.params), (6, 4))):
        for part, sequence in ((weight.flatten(1), 2 * number), (add, 2 * number + 1)):
            drawn = 2 * rng.uniform(9, ids, part.shape[1], sequence) - 1
            assert same_bits(part, drawn * (1 / math.sqrt(inputs)))


@pytest.mark.parametrize("name", INITIALISERS)
def test_a_column_of_scales_multiplies_each_network(name: str) -> None:
    spec = gpubp.NetworkSpec((6, 4, 3))
    scales = torch.tensor([1.0, 0.5, 2.0, 0.25])
    plain = gpubp.Population.create(spec, 4, init=name, init_scale=1.0).params
    scaled = gpubp.Population.create(spec, 4, init=name, init_scale=scales).params
    assert plain.any()
    assert same_bits(scaled, plain * scales[:, None])  # powers of 2 round nothing
    assert same_bits(gpubp.Population.create(spec, ids=[2], init=name, init_scale=2.0).params, scaled[2:3])


def test_the_default_scale_is_the_rows() -> None:
    spec = gpubp.NetworkSpec((6, 4, 3))
    for name, rule in INITIALISERS.items():
        default, given = (gpubp.Population.create(spec, 4, init=name, init_scale=s).params for s in (None, rule.scale))
        assert same_bits(default, given)
    assert {name: rule.scale for name, rule in INITIALISERS.items() if rule.scale != 1} == {
        "constant": 0.0, "uniform": 0.1, "normal": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(("scale", "error"), [([1.0, 2.0], ShapeError), (float("nan"), ConfigError)])
def test_a_scale_that_does_not_fit_is_refused(scale: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="init_scale"):
        gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 3, init_scale=torch.tensor(scale))


def test_few_weights_start_no_thread_and_are_those_that_threads_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gpubp.NetworkSpec((3, 40, 2))
    many = gpubp.Population.create(spec, 2000, seed=4, init="torch_linear")
    monkeypatch.delattr("gpubp.maths.initialise.ThreadPoolExecutor")
    few = gpubp.Population.create(spec, ids=[0, 7, 1999], seed=4, init="torch_linear")
    assert torch.equal(few.params, many.params[[0, 7, 1999]])
    with pytest.raises(NameError):
        gpubp.Population.create(spec, 2000)
