"""The proofs of scripts/gpu_check.py, before any timing: a network's bits do not depend on other networks; on a GPU
`cuda` has the bits of `cpu`, and `eager` agrees with the CPU's up to rounding.

Every proof trains small populations and compares; it returns the number of comparisons and the differences.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

import gpubp
from gpubp.engines import ENGINES
from gpubp.settings.recipe import EXACT
from gpubp.state import TrainState

SPECS = {
    "2-2-2": gpubp.NetworkSpec((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", bias="layer"),
    "8-16-1": gpubp.NetworkSpec((8, 16, 1), "tanh"),
    "5-33-2": gpubp.NetworkSpec((5, 33, 2), "gelu", loss="huber"),
    "64-32-10": gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy"),
    "16-64-64-4": gpubp.NetworkSpec((16, 64, 64, 4), "relu"),
    "300-200-3": gpubp.NetworkSpec((300, 200, 3), "tanh"),  # of no GPU's chip: matrices are streamed
}
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.05, "shuffle": "none"},
    "adam, dropout, order each": {"optimizer": "adam", "lr": 0.01, "dropout": 0.1, "shuffle": "network"},
    "momentum, clipped, shared order": {"optimizer": "momentum", "lr": 0.01, "clip_norm": 0.5, "shuffle": "shared"},
}
COUNT, SAMPLES, BATCH, STEPS, SEED = 9, 23, 6, 12, 3
MANY = 3000  # networks among which one must keep its bits
ON_CORES = ("8-16-1", "64-32-10", "300-200-3")  # with Adam: what products on tensor cores are proven on
FAR = {"tf32": (1e-6, 3e-2), "3xtf32": (0.0, 3e-5)}  # of a row's length, between which these networks are from exact
NEAR = 1e-9  # of a row's length, float64: 12 steps of some hundred operations with errors of 1e-16


class Proof(NamedTuple):
    """The number of comparisons, and descriptions of those that failed."""

    compared: int
    differing: list[str]


class Case(NamedTuple):
    """A specification and settings by name, and a trainer of networks by their ids."""

    name: str
    spec: gpubp.NetworkSpec
    settings: dict[str, Any]

    def train(
        self, engine: str, device: str, ids: Sequence[int], cuts: Sequence[int] = (STEPS,),
        dtype: torch.dtype = torch.float32,
    ) -> TrainState:  # fmt: skip
        """The networks `ids` after STEPS steps, in calls of `cuts`."""
        population = gpubp.Population.create(self.spec, ids=ids, seed=SEED, dtype=dtype, device=device)
        data = dataset(self.spec).to(population.device, dtype)
        config = gpubp.TrainConfig(**self.settings, batch_size=BATCH, steps=STEPS)
        state = TrainState.start(population, config, data)
        state.limit.copy_(state.end)
        for steps in cuts:
            ENGINES[engine].run(state, data, steps)
        return state


def cases(precision: str = EXACT) -> Iterator[Case]:
    """Every specification with all settings; of products on tensor cores some."""
    for name, spec in SPECS.items():
        for setting, settings in SETTINGS.items():
            if precision == EXACT or (name in ON_CORES and settings["optimizer"] == "adam"):
                yield Case(f"{name}, {setting}", spec, {**settings, "precision": precision})


def dataset(spec: gpubp.NetworkSpec) -> gpubp.Dataset:
    """Samples from a seed."""
    numbers, width = torch.Generator().manual_seed(SEED), spec.widths[-1]
    inputs = torch.randn(SAMPLES, spec.widths[0], generator=numbers)
    if spec.loss == "cross_entropy":
        return gpubp.Dataset(inputs, torch.randint(width, (SAMPLES,), generator=numbers))
    return gpubp.Dataset(inputs, torch.rand(SAMPLES, width, generator=numbers))


def rows(state: TrainState, which: Sequence[int]) -> list[Tensor]:
    """All that training changes in some networks, on the CPU, NaN as bits."""
    names = ("params", "slots", "columns", "step", "status", "loss", "diverged_step")
    found = [tensor[list(which)].cpu() for name, tensor in state.tensors() if name.partition(".")[0] in names]
    kinds = {torch.float32: torch.int32, torch.float64: torch.int64}
    return [tensor.contiguous().view(kinds.get(tensor.dtype, tensor.dtype)) for tensor in found]


def same(one: TrainState, which: Sequence[int], other: TrainState, others: Sequence[int]) -> bool:
    """Whether some networks of both have the same bits."""
    return all(map(torch.equal, rows(one, which), rows(other, others)))


def independence(engine: str, device: str, precision: str = EXACT) -> Proof:
    """Networks alone, among others, many, in another order, with K split: the same bits."""
    compared, differing = 0, []
    everyone = list(range(COUNT))
    for case in cases(precision):
        whole = case.train(engine, device, everyone)
        if not bool(whole.population.params.isfinite().all()) or same(whole, [0], whole, [1]):
            differing.append(f"{case.name}: equal or non-finite networks prove nothing")
        trials = {
            "twice": (everyone, (STEPS,), everyone),
            "alone": ([7], (STEPS,), [7]),
            "two": ([8, 7], (STEPS,), [8, 7]),
            "another order": (everyone[::-1], (STEPS,), everyone[::-1]),
            "K = 1": (everyone, (1,) * STEPS, everyone),
            "K = 5 and 7": (everyone, (5, 7), everyone),
            "among many": ([*range(100, 100 + MANY // 2), 7, *range(100 + MANY // 2, 100 + MANY)], (STEPS,), [7]),
        }
        for name, (ids, cuts, common) in trials.items():
            compared += 1
            found = case.train(engine, device, ids, cuts)
            if not same(found, [ids.index(each) for each in common], whole, common):
                differing.append(f"{case.name}: {name}")
    return Proof(compared, differing)


def shares(engine: str, devices: Sequence[str]) -> Proof:
    """gpubp.train on the first device, and with the networks shared over several: the same bits."""
    compared, differing = 0, []
    for case in cases():
        population = gpubp.Population.create(case.spec, 2 * COUNT + 1, seed=SEED)
        config = gpubp.TrainConfig(**case.settings, batch_size=BATCH, steps=STEPS)
        one, *more = (
            gpubp.train(population, dataset(case.spec), config, engine=engine, device=devices[:count]).state
            for count in range(1, len(devices) + 1)
        )
        for count, found in enumerate(more, 2):
            compared += 1
            everyone = range(population.count)
            if not same(found, everyone, one, everyone):
                differing.append(f"{case.name}: {count} devices")
    return Proof(compared, differing)


def equal_bits(engine: str, device: str, other: str, there: str = "cpu") -> Proof:
    """Two engines on two devices: the same bits in float32 and float64."""
    trials = [(case, dtype) for case in cases() for dtype in (torch.float32, torch.float64)]
    differing, everyone = [], list(range(COUNT))

    def theirs(trial: tuple[Case, torch.dtype]) -> TrainState:
        return trial[0].train(other, there, everyone, dtype=trial[1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the CPU's kernels compile in parallel
        for (case, dtype), two in zip(trials, pool.map(theirs, trials)):
            one = case.train(engine, device, everyone, dtype=dtype)
            if not same(one, everyone, two, everyone):
                distance = _distance(one.population.params.cpu(), two.population.params.cpu())
                differing.append(f"{case.name}, {str(dtype).partition('.')[2]}: {distance:.1g} of a row's length apart")
    return Proof(len(trials), differing)


def seen(spec: gpubp.NetworkSpec) -> dict[str, gpubp.Dataset]:
    """Data to evaluate COUNT networks on, by name: more samples than one chunk; separate samples for each network, in
    different numbers, with weights, one of them 0."""
    whole, numbers = dataset(spec), torch.Generator().manual_seed(SEED)
    weight = torch.rand(SAMPLES, generator=numbers)
    weight[2] = 0
    rows = [torch.randperm(SAMPLES, generator=numbers)[: 1 + 5 * n % SAMPLES] for n in range(COUNT)]
    many = torch.randint(SAMPLES, (200,), generator=numbers)
    return {
        "shared": gpubp.Dataset(whole.inputs[many], whole.targets[many]),
        "separate, weighted": gpubp.Dataset(whole.inputs, whole.targets, rows=rows, sample_weight=weight),
    }


FIGURES = len(SPECS) * 2 * 2  # with both kinds of data, in both precisions


def equal_figures(engine: str, device: str, other: str, there: str = "cpu") -> Proof:
    """Loss and metric of two engines on two devices: the same bits in float32 and float64."""
    compared, differing = 0, []
    for (name, spec), dtype in itertools.product(SPECS.items(), (torch.float32, torch.float64)):
        for kind, data in seen(spec).items():
            compared += 1
            one, two = (_figures(each, where, spec, data, dtype) for each, where in ((engine, device), (other, there)))
            if not torch.equal(one, two):
                differing.append(f"{name}, {kind}, {str(dtype).partition('.')[2]}: loss or metric")
    return Proof(compared, differing)


def _figures(engine: str, device: str, spec: gpubp.NetworkSpec, data: gpubp.Dataset, dtype: torch.dtype) -> Tensor:
    """Loss and metric of COUNT networks, as bits."""
    population = gpubp.Population.create(spec, COUNT, seed=SEED, dtype=dtype, device=device)
    there = data.to(population.device, dtype)
    state = TrainState.start(population, gpubp.TrainConfig(batch_size=BATCH, steps=STEPS), there)
    found = ENGINES[engine].evaluate(population, there, state.hyper, state.position)
    return torch.stack([each.cpu() for each in found]).view(torch.int64)


def nearness(engine: str, device: str, **changes: Any) -> Proof:
    """An engine on a device against eager on the CPU, float64: the same up to rounding. changes: to the settings of
    one of the two, to see it fail."""
    compared, differing, everyone = 0, [], list(range(COUNT))
    for case in cases():
        compared += 1
        other = case._replace(settings={**case.settings, **changes})
        one = other.train(engine, device, everyone, dtype=torch.float64)
        two = case.train("eager", "cpu", everyone, dtype=torch.float64)
        distance = _distance(one.population.params.cpu(), two.population.params)
        if not distance < NEAR:
            differing.append(f"{case.name}: {distance:.1g} of a row's length apart; less than {NEAR:g} expected")
    return Proof(compared, differing)


def on_cores(engine: str, device: str, precision: str) -> Proof:
    """Products on tensor cores against exact ones on the CPU: no closer and no further than their rounding leads."""
    compared, differing, everyone = 0, [], list(range(COUNT))
    least, most = FAR[precision]
    for case in cases(precision):
        compared += 1
        exact = case._replace(settings={**case.settings, "precision": EXACT}).train("cpu", "cpu", everyone)
        found, goal = (each.population.params.cpu().double() for each in (case.train(engine, device, everyone), exact))
        distance = float(((found - goal).norm(dim=1) / goal.norm(dim=1)).median())
        if not least < distance < most:
            bounds = f"{least:g} to {most:g} expected"
            differing.append(f"{case.name}, {precision}: {distance:.1g} of a row's length; {bounds}")
    return Proof(compared, differing)


def _distance(one: Tensor, other: Tensor) -> float:
    return float(((one.double() - other.double()).norm(dim=1) / other.double().norm(dim=1)).max())
