"""What a network that is nearly right, or far off, still misses: the error of every row of LOSSES and its slope, in
both types, against the textbook's formula in 60 digits, from 1e-12 to 1e12. And what is reported of float32 networks is
a sum of any length that keeps its digits, on every machine."""

import itertools
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import cpu, eager
from gpubp.state import TrainState

from .every_machine import MACHINES, on
from .helpers import compiled, laid_out, layouts, quick, start, train  # noqa: F401
from .tolerances import LONG_SUM, small_error

SIZES = [0.0, *(10.0**power for power in range(-12, 13))]
GAPS = sorted({sign * size for size in SIZES for sign in (1, -1)})
NEAR_1 = (0.0, 1.0, 0.5, 1 - 2.0**-24, 2.0**-24)
QUANTILES = (0.5, 0.999, 1e-6)
WEIGHTS = (1e-3, 1.0, 3.0)
Number = Any  # mpmath's


def sign(x: Number) -> Number:
    return mpmath.sign(x)


def sigmoid(x: Number) -> Number:
    return 1 / (1 + mpmath.exp(-x))


def huber(gap: Number) -> tuple[Number, Number]:
    near = abs(gap) <= 1
    return (gap * gap / 2, gap) if near else (abs(gap) - mpmath.mpf(1) / 2, sign(gap))


def quantile(gap: Number, share: Number) -> tuple[Number, Number]:
    return (
        max((1 - share) * gap, -share * gap),
        (1 - share if gap > 0 else -share) if gap else mpmath.mpf(1) / 2 - share,
    )


RULES: dict[str, Callable[..., tuple[Number, Number]]] = {  # out, target -> error, slope
    "half_squared_error": lambda out, target: ((out - target) ** 2 / 2, out - target),
    "mean_squared_error": lambda out, target: ((out - target) ** 2, 2 * (out - target)),
    "mean_absolute_error": lambda out, target: (abs(out - target), sign(out - target)),
    "huber": lambda out, target: huber(out - target),
    "log_cosh": lambda out, target: (mpmath.log(mpmath.cosh(out - target)), mpmath.tanh(out - target)),
    "quantile": lambda out, target, share: quantile(out - target, share),
    "poisson": lambda out, target: (mpmath.exp(out) - target * out, mpmath.exp(out) - target),
    "hinge": lambda out, target: (max(1 - target * out, 0), -target if target * out < 1 else mpmath.mpf(0)),
    "binary_cross_entropy": lambda out, target: (mpmath.log(1 + mpmath.exp(out)) - out * target, sigmoid(out) - target),
}


PLAIN = ("half_squared_error", "mean_squared_error", "mean_absolute_error")  # differences alone
TERMS = {  # of an error and of a slope that are differences of what the network alone cannot bring to 0
    "poisson": lambda out, target: (max(mpmath.exp(out), target * abs(out)), max(mpmath.exp(out), target)),
    "binary_cross_entropy": lambda out, target: (0, (1 - target) * sigmoid(out) if 0 < target < 1 else 0),
}


def pairs(loss: str) -> list[tuple[float, float]]:
    """Outs and targets."""
    if loss == "poisson":  # exp overflows from 88 on
        return [(out, target) for out in GAPS if out < 80 for target in (0.0, 3.0)]
    if loss == "hinge":
        return [(target * (1 - gap), target) for gap in GAPS for target in (-1.0, 1.0)]
    if loss == "binary_cross_entropy":
        return [(out, target) for out in [*GAPS, -30.0, 30.0, 80.0, -80.0] for target in NEAR_1]
    return [(gap, 0.0) for gap in GAPS] + [(1 + gap, 1.0) for gap in GAPS]


def found(engine: Any, loss: str, outs: Tensor, targets: Tensor, **hyper: Any) -> tuple[Tensor, Tensor]:
    """The error of N networks of O outputs (N, O), whose biases they are, and their slopes (N, O): what momentum keeps
    of a first step."""
    spec = gpubp.NetworkSpec((1, outs.shape[1]), loss=loss)
    params = torch.cat((torch.zeros_like(outs), outs), 1)
    data = gpubp.Dataset(outs.new_zeros(len(outs), 1, 1), targets if gpubp.LOSSES[loss].classes else targets[:, None])
    networks = gpubp.Population(spec, params, 0, torch.arange(len(outs)))
    state = train(networks, data, engine=engine, optimizer="momentum", batch_size=1, steps=1, lr=0.0, **hyper)
    assert not (state.status == 4).any()
    return state.loss, state.slots[0][:, outs.shape[1] :]


def check(got: Tensor, exact: list[Number], sizes: list[Number], cases: list[Any], vanishes: bool = False) -> None:
    """Within small_error of `exact`; sizes: of the terms of a difference that no arithmetic of this type can keep.
    vanishes: 0 where products of it would be denormal."""
    info = torch.finfo(got.dtype)
    allowed = small_error(info.eps)
    for one, right, size, case in zip(got.tolist(), exact, sizes, cases):
        if vanishes and abs(right) < 2**26 * info.tiny:
            assert one == 0, case
        elif abs(right) < 1e-3 * info.max:
            assert abs(one - right) <= allowed * max(abs(right), size) + 4 * info.tiny, (case, one, float(right))


ENGINES = ("eager", "networks", "outputs")


@pytest.mark.parametrize(("engine", "dtype", "loss"), [  # of the compiled ones, one of each of four losses is quick
    pytest.param(engine, dtype, loss, marks=[pytest.mark.slow] * (engine != "eager" and (loss in PLAIN or at % 6 < 5)))
    for row, loss in enumerate(RULES)
    for at, (dtype, engine) in enumerate(itertools.product((torch.float32, torch.float64), ENGINES[::-1]), row)
])  # fmt: skip
def test_errors_and_slopes_keep_their_digits(loss: str, dtype: torch.dtype, engine: str) -> None:
    given = torch.tensor(pairs(loss), dtype=dtype)
    cases = given.tolist()
    with mpmath.workprec(200), laid_out(layouts(dtype, 1).get(engine)):
        exactly = [tuple(map(mpmath.mpf, case)) for case in cases]
        for share in QUANTILES if loss == "quantile" else (None,):
            hyper = {} if share is None else {"quantile": share}
            own = () if share is None else (mpmath.mpf(torch.tensor(share, dtype=dtype).item()),)
            exact = [RULES[loss](*each, *own) for each in exactly]
            error, slope = found(eager if engine == "eager" else cpu, loss, given[:, :1], given[:, 1:], **hyper)
            terms = TERMS.get(loss, lambda out, target: (0, 0))
            for number, got in enumerate((error, slope[:, 0])):
                sizes = [terms(*each)[number] for each in exactly]
                vanishes = number == 1 and gpubp.LOSSES[loss].exponential
                check(got, [each[number] for each in exact], sizes, cases, vanishes)


def test_every_loss_has_a_formula_here() -> None:
    assert {*RULES, "cross_entropy"} == {*gpubp.LOSSES}


DTYPES = (torch.float32, torch.float64)
TRIED = [("eager", torch.float32), ("networks", torch.float64)]
WEIGHTED = [(*TRIED[0], False), (*TRIED[1], True)]


@pytest.mark.parametrize(
    ("engine", "dtype", "weighted"), quick(itertools.product(ENGINES, DTYPES, [False, True]), WEIGHTED)
)
def test_a_network_that_is_sure_of_its_class_keeps_what_it_misses(
    weighted: bool, dtype: torch.dtype, engine: str
) -> None:
    margins = [0.0, *(10.0**power for power in range(-12, 2)), 30.0, 60.0, 80.0, 1e12]
    outs = torch.tensor([[-m, 0.0, -1 - m] for m in margins] + [[0.0, m, 0.5] for m in margins], dtype=dtype)
    classes = torch.tensor([[number] for number in (0, 1, 2) for _ in range(len(outs))])
    outs = outs.repeat(3, 1)
    hyper = {"class_weight": torch.tensor(WEIGHTS)} if weighted else {}
    with laid_out(layouts(dtype, 1).get(engine)):
        error, slope = found(eager if engine == "eager" else cpu, "cross_entropy", outs, classes, **hyper)
    with mpmath.workprec(400):  # exp(-1e12) beside 1 is of no account; exp(-80) is
        for row, own, one, gap in zip(outs.tolist(), classes[:, 0].tolist(), error.tolist(), slope):
            powers = [mpmath.exp(mpmath.mpf(out) - mpmath.mpf(row[own])) for out in row]
            total = sum(powers)
            right = [power / total - (number == own) for number, power in enumerate(powers)]
            right[own] = -sum(power for number, power in enumerate(powers) if number != own) / total
            check(torch.tensor([one], dtype=dtype), [mpmath.log(total)], [0], [(row, own)])
            check(gap, right, [0, 0, 0], [(row, own, number) for number in range(3)], vanishes=True)


@pytest.mark.parametrize(("engine", "dtype"), quick(itertools.product(ENGINES, DTYPES), TRIED))
def test_a_slot_is_kept_until_products_of_it_would_be_denormal(engine: str, dtype: torch.dtype) -> None:
    """The first step moves a unit of relu to where it has no gradient: from then on its momentum is halved."""
    spec = gpubp.NetworkSpec((1, 1, 1), "relu", loss="half_squared_error", bias="none")
    networks = gpubp.Population(spec, torch.ones(1, 2, dtype=dtype), 0, torch.arange(1))
    data = gpubp.Dataset(torch.ones(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype))
    hyper = {"optimizer": "momentum", "momentum": 0.5, "lr": 4.0, "batch_size": 1}
    last = 99 if dtype == torch.float32 else 995
    for steps, kept in ((last, 2.0 ** -(last - 1)), (last + 3, 0.0)):
        with laid_out(layouts(dtype, 1).get(engine)):
            state = train(networks, data, engine=eager if engine == "eager" else cpu, steps=steps, **hyper)
        assert state.slots[0].tolist() == [[kept, kept]]


VALUES = (0.1, 0.12, 0.14)


def resting(width: int, outs: Tensor, targets: Tensor, loss: str, batch: int) -> TrainState:
    """Networks that do not learn: `outs` are their biases (N, width)."""
    spec = gpubp.NetworkSpec((1, width), loss=loss)
    networks = gpubp.Population(spec, torch.cat((torch.zeros(len(outs), width), outs), 1), 0, torch.arange(len(outs)))
    data = gpubp.Dataset(torch.zeros(len(targets), 1), targets)
    return start(networks, data, optimizer="sgd", lr=0.0, batch_size=batch, steps=10**12), data


QUICK = ("eager", "networks", "general in chunks", "gpu thread", "wide gpu block in chunks")  # the rest is near one


@pytest.mark.parametrize("machine", quick(MACHINES, QUICK))
def test_the_errors_of_many_samples_add_up_and_still_count_after_a_billion_steps(machine: str) -> None:
    """Of equal numbers every addition may round the same way: one after the other, 20,000 of them lose 3e-4."""
    batch = 6 if machine == "gpu thread" else 5_000 if "gpu" in machine else 20_000  # what there is room for
    outs = torch.tensor(VALUES)[:, None]
    state, data = resting(1, outs, torch.zeros(batch, 1), "mean_absolute_error", batch)
    state.step += 1 << 32
    state.total += torch.tensor([1e8, 2.0**40, 0.0], dtype=torch.float64)
    expected = state.total.clone()
    with on(machine, batch) as engine:
        for steps in (1, 2):
            engine.run(state, data, steps)
    torch.testing.assert_close(state.loss.double(), outs[:, 0].double(), **LONG_SUM)
    for _ in range(3):
        expected += state.loss.double()
    assert torch.equal(state.total, expected)
    assert state.step.tolist() == [(1 << 32) + 3] * 3


SUMMED = ("mean_absolute_error", "cross_entropy")


@pytest.mark.parametrize(
    ("machine", "loss"),
    quick(
        itertools.product(("eager", "networks", "outputs", "gpu block"), SUMMED),
        [("eager", SUMMED[1]), ("networks", SUMMED[0])],
    ),
)
def test_the_errors_of_many_outputs_add_up(machine: str, loss: str) -> None:
    width = 3_999 if "gpu" in machine else 9_999
    outs = torch.tensor(VALUES)[:, None].expand(-1, width).clone()
    outs[:, 0] = 0 if loss == "cross_entropy" else outs[:, 1]
    targets = torch.zeros(2, width) if loss == "mean_absolute_error" else torch.zeros(2, dtype=torch.int64)
    state, data = resting(width, outs, targets, loss, 2)
    expected = outs[:, 1].double()
    if loss == "cross_entropy":
        expected = torch.log(1 + (width - 1) * expected.exp())
    with on(machine, 2) as engine:
        engine.run(state, data, 1)
    torch.testing.assert_close(state.loss.double(), expected, **LONG_SUM)


def test_the_mean_loss_of_a_long_round_is_the_loss_of_its_steps() -> None:
    steps, values = 20_000, torch.tensor(VALUES)
    spec = gpubp.NetworkSpec((1, 1), bias="none")
    data = gpubp.Dataset(torch.ones(3, 1, 1), values.sqrt()[:, None, None])
    config = gpubp.TrainConfig("sgd", lr=0.0, steps=steps, batch_size=1, evaluate_every=steps)
    result = gpubp.train(gpubp.Population(spec, torch.zeros(3, 1), 0, torch.arange(3)), data, config, engine="cpu")
    assert result.history[-1]["loss"]["median"] == pytest.approx(float(values[1]), rel=1e-7)
