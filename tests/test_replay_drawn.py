"""Replays of runs with drawn settings and searches, interrupted, made longer or neither."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.search import Hyperband, PopulationBased, SuccessiveHalving

from .helpers import compiled  # noqa: F401
from .replays import COMMON, Ran, same
from .short_runs import Stop, held_out, training
from .test_independence_drawn import COUNT, FREE, Example


def interrupted(draw: random.Random, train: Callable[..., Any]) -> None:
    """A training, or a part of it that ends after some calls of the engine, or two parts."""
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.runs.run.MOST", draw.choice([3, 7, 50]))
        train(reporters=[Stop(draw.choice([1, 4, 15, 1000]), signal.SIGINT)])


def check(seed: int, engine: str, folder: Path) -> None:
    """Networks with drawn settings, lengths and samples of their own, interrupted, made longer or neither."""
    own, everyone, draw = Example(seed, engine), list(range(COUNT)), random.Random(seed)
    interrupted(draw, lambda **more: own.train(everyone, own.lengths, run_dir=folder, **more))
    if draw.random() < 0.3 and own.alike["schedule"] in FREE:
        longer = {own.unit: torch.tensor(own.longer)}
        again = folder, own.data(everyone), own.held_out()
        interrupted(draw, lambda **more: gpubp.resume(*again, **longer, **more))
    found = same(folder, Ran(own.data(everyone), own.held_out(), lambda: {"population": own.population(everyone)}), 2)
    for each in found:
        each.explanation.text(full=True)


def check_search(seed: int, folder: Path) -> None:
    """A drawn search over drawn networks, interrupted or not."""
    draw, unit = random.Random(seed), ["epochs", "steps"][seed % 2]
    length = 9 if unit == "epochs" else 27
    decided = draw.choice([{}, {"restore_best": True}, {"patience": 2}, {"schedule": "plateau", "plateau_patience": 0}])
    every, quantile = draw.choice([1, 2, 3]), draw.choice([0.1, 0.3, 0.5])
    search = draw.choice([
        SuccessiveHalving(factor=2), Hyperband(), PopulationBased(every, quantile, space={"lr": "1e-4..1:log"}),
        PopulationBased(every, quantile, resample=0.7),
    ])  # fmt: skip
    data = training().folds(2) if draw.random() < 0.4 else (training(), draw.choice([None, held_out()]))
    design = [
        {"lr": draw.choice([10.0 ** -draw.uniform(0, 4), 1e308]), "dropout": draw.choice([0.1, 0.4]), "seed": 7 * n,
         "weight_decay": draw.choice([0.01, 0.1]), "init": draw.choice(["normal", None]),
         "widths": draw.choice(["3,6,4", "3,4"]), **({"fold": n % 2} if data[0].networks else {})}
        for n in range(12)
    ]  # fmt: skip
    common = {**COMMON, **decided, unit: length, "evaluate_every": 1, "search": search, "run_dir": folder}
    interrupted(draw, lambda **more: gpubp.train_many(design, *data, **common, **more))
    same(folder, Ran(*data), 3)


@pytest.mark.parametrize("seed", [1, 2, 113])  # 113: made longer in a round, whose rounds are more than planned
def test_networks_with_drawn_settings_are_the_same_alone(seed: int, tmp_path: Path) -> None:
    check(seed, "eager", tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 10))
def test_three_hundred_runs(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check(seed, "cpu" if seed % 5 == 0 else "eager", tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 10))
def test_two_hundred_searches(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check_search(seed, tmp_path / str(seed))
