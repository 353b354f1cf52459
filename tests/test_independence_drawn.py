"""Independence, whatever a person may ask for: a network's bits are the same alone, among others in any order, made
longer, and in a replay of its run, also after a search. Settings are drawn, defaults among them; networks have lengths,
samples and hyper-parameters of their own."""

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
from gpubp.state import TrainState

from .helpers import compiled, same_bits  # noqa: F401
from .replays import COMMON, Ran, same
from .short_runs import Stop, held_out, training

COUNT, SAMPLES = 5, 24
FREE = ("constant", "step", "exponential", "inverse_sqrt", "plateau")  # of the length of the training
OWN = {"lr": (0.001, 0.1), "dropout": (0.0, 0.5), "l2": (0.0, 0.1), "warmup": (0, 5), "clip_norm": (0.1, 2.0)}
SLOW = pytest.mark.slow
KERNELS = 12  # different programs for the compiled engine: it compiles each of them


class Example:
    """A population's settings, of which `only` are those of some networks."""

    def __init__(self, seed: int, engine: str) -> None:
        draw = random.Random(seed % KERNELS if engine == "cpu" else seed)
        self.engine, self.unit = engine, draw.choice(["epochs", "steps"])
        loss = draw.choice(["mean_squared_error", "cross_entropy", "binary_cross_entropy", "huber"])
        widths = [draw.randint(1, 9) for _ in range(draw.randint(1, 3))]
        self.spec = gpubp.NetworkSpec((3, *widths, 3), draw.choice(list(gpubp.ACTIVATIONS)), loss=loss)
        self.dtype = draw.choice([torch.float32, torch.float64])
        self.alike: dict[str, Any] = {
            "optimizer": draw.choice(list(gpubp.OPTIMIZERS)),
            "schedule": draw.choice([*gpubp.SCHEDULES, "plateau", "plateau"]),
            "shuffle": draw.choice(["network", "shared", "none"]),
        }
        if self.alike["schedule"] == "plateau":
            self.alike |= {"plateau_patience": draw.choice([0, 1]), "plateau_factor": 0.5}
        if draw.random() < 0.7:
            self.alike["batch_size"] = draw.choice([1, 4, 7, 100])
        columns = [name for name in OWN if draw.random() < 0.4]
        self.data_kind = draw.choice(["shared", "rows", "own inputs", "own inputs, rows", "weights"])
        draw, source = random.Random(seed), torch.Generator().manual_seed(seed)  # what no kernel depends on
        if draw.random() < 0.5:
            self.alike["evaluate_every"] = draw.randint(1, 5 if self.unit == "epochs" else 30)
        self.each = {name: [_between(draw, *OWN[name]) for _ in range(COUNT)] for name in columns}
        most = 6 if self.unit == "epochs" else 150 if self.alike["schedule"] == "plateau" else 30  # it looks every 100
        self.lengths = [draw.randint(1, most) for _ in range(COUNT)]
        self.longer = [length + draw.randint(0, most) for length in self.lengths]
        self.calls = draw.choice([2, 5, 10, 20, 1000])
        self.validated, self.ids = draw.random() < 0.5, draw.sample(range(100), COUNT)
        shape = (COUNT, SAMPLES) if self.data_kind.startswith("own") else (SAMPLES,)
        self.inputs = torch.randn(*shape, 3, generator=source)
        self.targets = (
            self.inputs.sin().abs() if loss != "cross_entropy" else (2.9 * self.inputs[..., 0].sin().abs()).long()
        )
        self.rows = [torch.randperm(SAMPLES, generator=source)[: draw.randint(1, SAMPLES)] for _ in range(COUNT)]
        self.weight = torch.rand(COUNT, SAMPLES, generator=source) + 0.1

    def population(self, some: list[int]) -> gpubp.Population:
        return gpubp.Population.create(self.spec, ids=[self.ids[n] for n in some], dtype=self.dtype)

    def data(self, some: list[int]) -> gpubp.Dataset:
        own = self.data_kind.startswith("own")
        return gpubp.Dataset(
            self.inputs[some] if own else self.inputs,
            self.targets[some] if own else self.targets,
            rows=[self.rows[n] for n in some] if "rows" in self.data_kind else None,
            sample_weight=self.weight[some] if self.data_kind == "weights" else None,
        )

    def config(self, some: list[int], lengths: list[int]) -> gpubp.TrainConfig:
        own = {name: [values[n] for n in some] for name, values in self.each.items()}
        return gpubp.TrainConfig(**self.alike, **own, **{self.unit: [lengths[n] for n in some]})

    def held_out(self) -> gpubp.Dataset | None:
        each = (self.inputs, self.targets) if self.inputs.ndim == 2 else (self.inputs[0], self.targets[0])
        return gpubp.Dataset(*each) if self.validated else None

    def train(self, some: list[int], lengths: list[int], **more: Any) -> gpubp.Result:
        given = self.population(some), self.data(some), self.config(some, lengths), self.held_out()
        return gpubp.train(*given, engine=self.engine, **more)

    def made_longer(self, some: list[int], run_dir: Path) -> gpubp.Result:
        """Interrupted after some calls of the engine, if it has so many, then resumed with more than before."""
        with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr("gpubp.runs.run.MOST", 7)
            self.train(some, self.lengths, run_dir=run_dir, reporters=[Stop(self.calls, signal.SIGINT)])
        lengths = torch.tensor([self.longer[n] for n in some])
        return gpubp.resume(run_dir, self.data(some), self.held_out(), **{self.unit: lengths})


def _between(draw: random.Random, low: float, high: float) -> float:
    return draw.choice([low, draw.randint(low, high) if isinstance(low, int) else draw.uniform(low, high)])


def differences(one: gpubp.Result, rows: list[int], other: gpubp.Result, others: list[int]) -> list[str]:
    """What differs in one bit between networks of two results, but for where a round stands."""

    def numbers(state: TrainState) -> dict[str, torch.Tensor]:
        return {name: each for name, each in state.tensors() if name not in ("position", "limit", "total")}

    mine = numbers(one.state) | {"training": one.loss, "metric": one.metric}
    theirs = numbers(other.state) | {"training": other.loss, "metric": other.metric}
    if one.validation_loss is not None and other.validation_loss is not None:
        mine["validation"], theirs["validation"] = one.validation_loss, other.validation_loss
    assert mine.keys() == theirs.keys()
    return [name for name in mine if not same_bits(mine[name][rows], theirs[name][others])]


def check(seed: int, engine: str, folder: Path) -> None:
    own, everyone = Example(seed, engine), list(range(COUNT))
    whole = own.train(everyone, own.lengths)
    for some in ([seed % COUNT], random.Random(seed).sample(everyone, 3)):
        assert differences(own.train(some, own.lengths), list(range(len(some))), whole, some) == [], some
    if own.alike["schedule"] in FREE:
        longer, expected = own.made_longer(everyone, folder), own.train(everyone, own.longer)
        assert differences(longer, everyone, expected, everyone) == []


@pytest.mark.parametrize(("seed", "engine"), [(3, "eager"), (18, "eager"), pytest.param(1, "cpu", marks=SLOW)])
def test_a_network_is_independent_with_drawn_settings(seed: int, engine: str, tmp_path: Path) -> None:
    """Of 18 a plateau, made longer."""
    check(seed, engine, tmp_path / "run")


@SLOW
@pytest.mark.parametrize("first", range(0, 500, 10))
def test_five_hundred_examples(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check(seed, "cpu" if seed % 5 == 0 else "eager", tmp_path / str(seed))


def interrupted(draw: random.Random, train: Callable[..., Any]) -> None:
    """A training, or a part of it that ends after some calls of the engine, or two parts."""
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr("gpubp.runs.run.MOST", draw.choice([3, 7, 50]))
        train(reporters=[Stop(draw.choice([1, 4, 15, 1000]), signal.SIGINT)])


def check_replays(seed: int, engine: str, folder: Path) -> None:
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
    check_replays(seed, "eager", tmp_path / str(seed))


@SLOW
@pytest.mark.parametrize("first", range(0, 300, 10))
def test_three_hundred_runs(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check_replays(seed, "cpu" if seed % 5 == 0 else "eager", tmp_path / str(seed))


@SLOW
@pytest.mark.parametrize("first", range(0, 200, 10))
def test_two_hundred_searches(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        check_search(seed, tmp_path / str(seed))
