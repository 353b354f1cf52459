"""Losses and metrics of a network depend on that network and its own samples alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import gpubp
from gpubp import evaluate as evaluation
from gpubp.evaluate import evaluate

from .helpers import noted, same_bits

SPEC = gpubp.NetworkSpec((3, 5, 2), hidden="tanh", loss="huber")
SIZES = (3, 700, 17, 256, 1)


def ragged(sizes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randperm(1000, generator=torch.Generator().manual_seed(size))[:size] for size in sizes]


def samples(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(1000, 3, generator=source), torch.randn(1000, 2, generator=source)


def hyper(count: int) -> dict[str, torch.Tensor]:
    return gpubp.TrainConfig(steps=1).columns(SPEC, count, torch.device("cpu"))


@pytest.mark.parametrize("place", range(len(SIZES)))
def test_ragged_evaluation_gives_a_network_its_bits_alone(place: int) -> None:
    population = gpubp.Population.create(SPEC, len(SIZES))
    rows = ragged(SIZES)
    among = evaluate(population, gpubp.Dataset(*samples(), rows=rows), hyper(len(SIZES)))
    alone = evaluate(population.take([place]), gpubp.Dataset(*samples(), rows=[rows[place]]), hyper(1))
    assert torch.equal(among.loss[place : place + 1], alone.loss)
    assert torch.allclose(among.metric[place : place + 1], alone.metric, rtol=0, atol=0, equal_nan=True)


def test_ragged_evaluation_is_the_mean_over_a_networks_own_samples() -> None:
    population = gpubp.Population.create(SPEC, len(SIZES), dtype=torch.float64)
    inputs, targets = (each.double() for each in samples())
    rows = ragged(SIZES)
    found = evaluate(population, gpubp.Dataset(inputs, targets, rows=rows), hyper(len(SIZES)))
    outs = population.predict(inputs)
    for number, own in enumerate(rows):
        expected = torch.nn.functional.huber_loss(outs[number, own], targets[own])
        assert found.loss[number] == pytest.approx(float(expected), rel=1e-12)


def test_the_denominator_of_r2_is_whole_for_populations_that_are_evaluated_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, one, begun, proceed = gpubp.Dataset(*samples()), evaluation._spread, threading.Event(), threading.Event()

    def slow(*given: Any) -> torch.Tensor:
        begun.set()
        proceed.wait(0.2)  # as long as another thread is kept from it
        return one(*given)

    monkeypatch.setattr(evaluation, "_spread", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(evaluation.spread, data)
        assert begun.wait(60)
        second = pool.submit(lambda: evaluation.spread(data).clone())
        assert same_bits(second.result(60), first.result(60))
    assert first.result() is data.spread, "kernels that have a pointer to it read what is there"


def test_the_denominator_of_r2_takes_the_work_of_its_samples_even_if_one_network_has_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [3, 900, *[4] * 400, 1, *[7] * 100]
    rows = [range(number % 50, number % 50 + size) for number, size in enumerate(sizes)]
    monkeypatch.setattr(evaluation, "AT_ONCE", 2000)
    read = noted(monkeypatch, evaluation, "_spread", lambda data, position, longest: len(position) * longest)
    found = evaluation.spread(gpubp.Dataset(*samples(), rows=rows))
    assert sum(read) < 3 * sum(sizes)
    for number in (0, 1, 2, 402, 403):
        alone = evaluation.spread(gpubp.Dataset(*samples(), rows=[rows[number]]))
        assert same_bits(found[number], alone[0]), number
