"""Loss and metric by the compiled engines: eager's figures, and the same bits whatever lays out or computes them."""

import functools
import itertools
import operator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

import gpubp
from gpubp import evaluate as definition
from gpubp.engines import cpu, cuda
from gpubp.engines.layout import Kind, Layout
from gpubp.errors import EngineError
from gpubp.evaluate import Evaluation
from gpubp.samples.data import Dataset

from .helpers import (  # noqa: F401
    compiled,
    failing,
    generator,
    laid_out,
    layouts,
    population,
    quick,
    same_bits,
    samples,
    threads,
)
from .playing import Player, playing
from .tolerances import EVALUATION, compiled_step

COUNT, SAMPLES = 19, 150
KINDS = ("shared", "rows", "own", "own rows")
EVERYONE = list(range(COUNT))
DTYPES = (torch.float32, torch.float64)
LOSSES = tuple(gpubp.LOSSES)
HYPER = {"delta": 0.5, "quantile": 0.4, "label_smoothing": 0.3}
THREAD = Layout(Kind.GPU_THREAD, threads=4, chunk=8)
BLOCK = Layout(Kind.GPU_BLOCK, threads=8, accumulators=32, cols=8)
QUADS = Layout(Kind.GPU_WIDE, registers=4, threads=32, accumulators=16, cols=2)
GPU = {
    "thread": THREAD, "thread, sample by sample": replace(THREAD, chunk=1), "block": BLOCK,
    "block in chunks": replace(BLOCK, chunk=13), "parts of a warp": replace(BLOCK, teams=4), "chosen": None,
    "quads": QUADS, "quads, parts of a warp, in chunks": replace(QUADS, threads=16, teams=2, chunk=13),
}  # fmt: skip


class Case(NamedTuple):
    """Networks and what they are evaluated on; the data of the networks `rows` alone are data(rows)."""

    spec: gpubp.NetworkSpec
    dtype: torch.dtype
    kind: str
    weight: int
    own_hyper: bool

    @property
    def networks(self) -> gpubp.Population:
        return population(self.spec, COUNT, self.dtype)

    def data(self, rows: list[int] = EVERYONE) -> Dataset:
        own, source = "own" in self.kind, generator(3)
        inputs, target = samples(self.spec, *(COUNT, SAMPLES) if own else (SAMPLES,), dtype=self.dtype)
        index = [torch.randperm(SAMPLES, generator=source)[: 1 + (31 * n) % SAMPLES] for n in range(COUNT)]
        weight = torch.rand(COUNT, SAMPLES, generator=source, dtype=torch.float64).to(self.dtype)
        weight[:, 1::7] = 0
        return Dataset(
            inputs[rows] if own else inputs,
            target[rows] if own else target,
            [index[n] for n in rows] if "rows" in self.kind else None,
            (None, weight[0], weight[rows])[self.weight],
        )

    def hyper(self, rows: list[int] = EVERYONE) -> dict[str, torch.Tensor]:
        known = gpubp.LOSSES[self.spec.loss].defaults
        given = {name: [size * (1 + n / COUNT) for n in rows] for name, size in HYPER.items() if name in known}
        if self.spec.loss == "cross_entropy":
            given["class_weight"] = (torch.rand(COUNT, self.spec.widths[-1], generator=generator(2)) + 0.1)[rows]
        config = gpubp.TrainConfig(steps=1, **given if self.own_hyper else {})
        return config.columns(self.spec, len(rows), torch.device("cpu"))

    def by(self, engine: object, rows: list[int] = EVERYONE, data: list[int] | None = None) -> Evaluation:
        """Of the networks `rows`; data: whose data are there, where not theirs alone."""
        position = torch.arange(len(rows)) if data is None else torch.tensor(rows)
        return engine.evaluate(  # type: ignore[attr-defined]
            self.networks.take(rows), self.data(data or rows), self.hyper(rows), position
        )


def case(number: int, dtype: torch.dtype) -> Case:
    """Every loss meets kinds of data, weights and numbers of outputs."""
    loss, width = LOSSES[number % len(LOSSES)], (4, 1, 9)[number % 3]
    width = max(width, 2) if loss == "cross_entropy" else width
    output = "tanh" if loss == "mean_squared_error" else "identity"
    spec = gpubp.NetworkSpec((3, 5, width), "tanh", output, loss)
    return Case(spec, dtype, KINDS[number % 4], number % 3 if number % 4 < 2 else 2 * (number % 2), number % 2 == 1)


def alike(one: Evaluation, other: Evaluation) -> bool:
    return same_bits(one.loss, other.loss) and same_bits(one.metric, other.metric)


PLAIN = ("mean_absolute_error", "log_cosh", "quantile")  # whose figures are made as others' are


QUICK = {(number, DTYPES[number % 9 % 2]) for number, loss in enumerate(LOSSES) if loss not in PLAIN}


@pytest.mark.parametrize(("number", "dtype"), quick(itertools.product(range(len(LOSSES)), DTYPES), QUICK))
def test_figures_are_eagers(number: int, dtype: torch.dtype) -> None:
    own = case(number, dtype)
    mine, theirs = own.by(cpu), own.by(definition)
    tolerance = EVALUATION if dtype == torch.float64 else compiled_step(torch.finfo(dtype).eps, max(own.spec.widths), 2)
    assert mine.loss.dtype == mine.metric.dtype == torch.float64
    torch.testing.assert_close(mine.loss, theirs.loss, **tolerance)
    counted = own.spec.loss in ("hinge", "binary_cross_entropy", "cross_entropy")
    torch.testing.assert_close(mine.metric, theirs.metric, **EVALUATION if counted else tolerance, equal_nan=True)


LAID_OUT = {0: ("networks", "outputs in chunks", "general"), 3: ("one number", "team", "networks in chunks"),
            9: ("outputs", "three registers", "networks in chunks"),
            7: ("three registers", "networks, half a register", "general in chunks")}  # fmt: skip


@pytest.mark.parametrize("number", quick(LAID_OUT, (0, 3)))
def test_every_layout_gives_the_same_bits(number: int) -> None:
    own = case(number, DTYPES[number % 2])
    expected = own.by(cpu)
    for name in LAID_OUT[number]:
        with laid_out(layouts(own.dtype, 12)[name]), threads(2):  # chunks of 7, and one of 3
            assert alike(own.by(cpu), expected), name


@pytest.mark.parametrize("number", quick([3, 8], [3]))
def test_a_network_gets_its_bits_alone_in_any_order_and_by_any_number_of_threads(number: int) -> None:
    own = case(number, DTYPES[number % 2])
    whole = own.by(cpu)
    for n in (0, 18):
        assert alike(own.by(cpu, [n]), Evaluation(*(each[n : n + 1] for each in whole))), n
    turned = EVERYONE[::-1]
    for among in (own.by(cpu, turned), own.by(cpu, turned, EVERYONE)):
        assert alike(among, Evaluation(*(each[turned] for each in whole)))
    with threads(3):
        assert alike(own.by(cpu), whole)
    turned_in_memory = gpubp.Population(own.spec, own.networks.params.t().contiguous().t(), 5, own.networks.ids)
    assert not turned_in_memory.params.is_contiguous()
    assert alike(cpu.evaluate(turned_in_memory, own.data(), own.hyper(), torch.arange(COUNT)), whole)


PLAYED = [("thread", 9), ("block in chunks", 8), ("quads", 8)]


@pytest.mark.parametrize(("name", "number"), quick(itertools.product(GPU, (0, 2, 3, 6, 8, 9)), PLAYED))
def test_a_gpu_gives_the_cpus_bits(number: int, name: str) -> None:
    own = case(number, torch.float32)
    with playing(Player(), GPU[name]) as player:
        assert alike(own.by(cuda), own.by(cpu))
    assert len(player.launches) == 1


@pytest.mark.parametrize("count", quick([1, 3, 8, 64, 65, 100, 1000], [65]))
def test_any_number_of_samples_is_added_up_in_one_order(count: int) -> None:
    """The order of docs/engine.md: sample m belongs to partial sum m % 8."""
    spec = gpubp.NetworkSpec((3, 1), loss="mean_absolute_error")
    networks = population(spec, 2, torch.float64)
    inputs, target = samples(spec, count)
    found = cpu.evaluate(networks, Dataset(inputs, target), {}, torch.arange(2))
    ways = [0.0] * 8
    for m, error in enumerate((networks.predict(inputs)[0] - target).abs().squeeze(1).tolist()):
        ways[m % 8] += error
    assert float(found.loss[0]) == functools.reduce(operator.add, ways) / count  # sum() compensates from Python 3.12 on


def test_the_largest_of_outs_is_torchs_argmax_also_of_nan_infinity_and_equals() -> None:
    spec = gpubp.NetworkSpec((3, 3), loss="cross_entropy", bias="none")
    nan, inf = float("nan"), float("inf")
    rows = [[1, 1, 0], [0, 2, 2], [nan, 9, 1], [1, nan, nan], [inf, 3, inf], [-inf, -inf, -inf], [0.0, -0.0, -1]]
    inputs = torch.eye(3)[:1]
    params = torch.zeros(len(rows), 9)
    params[:, :3] = torch.tensor(rows)
    networks = gpubp.Population(spec, params, 0, torch.arange(len(rows)))
    for target in range(3):
        data = Dataset(inputs, torch.tensor([target]))
        expected = [float(torch.tensor(row).argmax() == target) for row in rows]
        for layout in ("chosen", "outputs"):
            with laid_out(layouts(torch.float32, 8)[layout]):
                found = cpu.evaluate(networks, data, {}, torch.arange(len(rows)))
            assert found.metric.tolist() == expected, (target, layout)


@pytest.mark.parametrize("engine", [definition, cpu], ids=["eager", "cpu"])
def test_a_sample_of_weight_0_or_beyond_a_networks_samples_does_not_count(engine: Any) -> None:
    inputs, targets = samples(gpubp.NetworkSpec((3, 2)), 40, dtype=torch.float32)
    targets[0] = 3e38  # its squared error is infinite
    networks, at = population(gpubp.NetworkSpec((3, 2)), 3, torch.float32), torch.arange(3)
    weight = torch.ones(40)
    weight[0] = 0
    for data, finite in (
        (Dataset(inputs, targets, rows=[[1], [1, 2, 3], [2, 1]]), True),
        (Dataset(inputs, targets, sample_weight=weight), True),
        (Dataset(inputs, targets, sample_weight=torch.ones(40)), False),
    ):
        loss = engine.evaluate(networks, data, {}, at).loss
        assert bool((loss.isfinite() if finite else loss.isinf()).all())


def test_r2_of_poisson_is_of_rates() -> None:
    spec = gpubp.NetworkSpec((3, 4, 2), "tanh", loss="poisson")
    inputs, targets = samples(spec, 50, dtype=torch.float64)
    networks = population(spec, 3, torch.float64)
    found = definition.evaluate(networks, Dataset(inputs, targets), {}, torch.arange(3))
    missed = ((networks.predict(inputs).exp() - targets) ** 2).sum(1)
    expected = (1 - missed / ((targets - targets.mean(0)) ** 2).sum(0)).mean(1)
    torch.testing.assert_close(found.metric, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", [definition, cpu], ids=["eager", "cpu"])
def test_r2_keeps_its_digits_where_targets_are_far_from_0_and_is_nan_where_they_are_constant(engine: object) -> None:
    inputs = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    targets = torch.tensor([[2.0], [2.0], [4.0], [4.0]], dtype=torch.float64) + 2**40
    one = population(gpubp.NetworkSpec((1, 1)), 3, torch.float64)
    one.params[:] = torch.tensor([1, 2**40])  # so it misses two targets by 1
    data = Dataset(inputs, targets, [[0, 1, 2, 3], [2, 3], [0, 2, 3]], [1.0, 1, 1, 1])
    found = engine.evaluate(one, data, {}, torch.arange(3))  # type: ignore[attr-defined]
    assert float(found.metric[0]) == 0.5
    assert bool(found.metric[1].isnan())
    assert float(found.metric[2]) == pytest.approx(0.25, rel=1e-15)
    for constant in (0.1, 1e-30, 1e30):  # whose mean is rounded
        flat = Dataset(inputs, torch.full_like(targets, constant), [[0, 1, 2, 3]] * 3, [0.0, 1, 2, 1])
        assert bool(engine.evaluate(one, flat, {}, torch.arange(3)).metric.isnan().all())  # type: ignore[attr-defined]


def test_a_link_that_cannot_be_compiled_is_refused_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = gpubp.LOSSES["mean_squared_error"]._replace(inverse_link=lambda out: torch.sort(out)[0])
    monkeypatch.setitem(gpubp.LOSSES, "sorted", rule)
    spec = gpubp.NetworkSpec((3, 2), loss="sorted")
    data = Dataset(*samples(gpubp.NetworkSpec((3, 2)), 40, dtype=torch.float32))
    with pytest.raises(EngineError, match="sort"):
        gpubp.train(population(spec, 3, torch.float32), data, gpubp.TrainConfig(steps=1), engine="cpu")
    result = gpubp.train(population(spec, 3, torch.float32), data, gpubp.TrainConfig(steps=1))
    assert result.engine == "eager"
    assert "sort" in result.engine_reason


def test_a_loss_with_a_changed_metric_has_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = gpubp.LOSSES["mean_squared_error"]
    spec = gpubp.NetworkSpec((3, 2))
    data = Dataset(*samples(spec, 40, dtype=torch.float32), sample_weight=torch.ones(40))  # as above
    given = population(spec, 3, torch.float32), data, {}, torch.arange(3)
    first = cpu.evaluate(*given)
    monkeypatch.setitem(gpubp.LOSSES, "mean_squared_error", rule._replace(metric="sign"))
    second = cpu.evaluate(*given)
    assert not same_bits(first.metric, second.metric)
    assert same_bits(second.metric, definition.evaluate(*given).metric)
