"""The compiled engine against eager, its definition: every row of every table, every setting, every kind of data.

A table of cases walks all of them at once, each axis at its own stride, so that every row meets many others.
"""

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import cpu, eager
from gpubp.state import TrainState

from .helpers import (
    COUNTED,
    LOGITS,
    compiled,  # noqa: F401
    copied,
    differences,
    generator,
    laid_out,
    layouts,
    numbers,
    optimised,
    population,
    quick,
    samples,
    start,
    train,
)
from .tolerances import TRAINING, compiled_step

COUNT, SAMPLES, BATCH, STEPS = 19, 23, 6, 12  # networks fill registers of 8 and 16 lanes, and leave some over
ACTIVATIONS, LOSSES, OPTIMIZERS = (tuple(table) for table in (gpubp.ACTIVATIONS, gpubp.LOSSES, gpubp.OPTIMIZERS))
SCHEDULES = tuple(name for name, rule in gpubp.SCHEDULES.items() if not rule.events)
DTYPES = (torch.float64, torch.float32)
BIASES = (("neuron", True), ("layer", True), ("none", True), ("neuron", False), ("layer", False))
SWITCHES: tuple[dict[str, float], ...] = (
    {},
    {"dropout": 0.4},
    {"clip_value": 0.05},
    {"clip_norm": 0.3},
    {"l1": 0.02},
    {"l2": 0.1},
    {"weight_decay": 0.2},
    {"dropout": 0.3, "clip_value": 0.2, "clip_norm": 0.5, "l1": 0.01, "l2": 0.05, "weight_decay": 0.1},
)
KINDS = ("shared", "rows", "own", "own rows")
WEIGHTS = ("", "one weight", "own weights")
SHUFFLES = ("network", "shared", "none")
LAYOUTS = ("chosen", "outputs", "one number", "networks in chunks", "general", "outputs in chunks", "team")
WIDTHS = ((3, 5, 2), (7, 3), (2, 2, 2), (4, 17, 3), (5, 3, 2), (3, 3, 4, 2), (6, 4, 2))
SIZES = {  # of what optimizers, schedules and losses have; `each` gives every network one near it
    "lr": 0.02, "momentum": 0.8, "eps": 0.02, "alpha": 0.8, "rho": 0.8, "beta1": 0.8, "beta2": 0.9,
    "momentum_decay": 0.1, "step_size": 7.0, "gamma": 0.8, "eta_min": 0.001, "pct_start": 0.3, "div_factor": 5.0,
    "final_div_factor": 10.0, "timescale": 5.0, "delta": 0.5, "quantile": 0.4, "warmup": 5.0, "warmup_start": 0.3,
    "label_smoothing": 0.3,
}  # fmt: skip
CASES = 30


class Case(NamedTuple):
    """What is trained, on what, and how; layout: a name of helpers.layouts."""

    spec: gpubp.NetworkSpec
    dtype: torch.dtype
    kind: str
    weight: str
    layout: str
    settings: dict[str, Any]

    def population(self, ids: range | list[int] = range(COUNT)) -> gpubp.Population:
        return population(self.spec, ids=ids, dtype=self.dtype)

    def data(self, rows: range | list[int] = range(COUNT)) -> gpubp.Dataset:
        """The data of the networks `rows`."""
        own, which, source = "own" in self.kind, list(rows), generator(3)
        inputs, target = samples(self.spec, *(COUNT, SAMPLES) if own else (SAMPLES,), dtype=self.dtype)
        weight = torch.rand(COUNT, SAMPLES, generator=source, dtype=torch.float64).to(self.dtype) + 0.1
        index = [torch.randperm(SAMPLES, generator=source)[: 1 + (5 * n) % SAMPLES] for n in range(COUNT)]
        return gpubp.Dataset(
            inputs[which] if own else inputs,
            target[which] if own else target,
            [index[n] for n in which] if "rows" in self.kind else None,
            None if not self.weight else weight[0 if self.weight == "one weight" else which],
        )

    def of(self, rows: range | list[int]) -> dict[str, Any]:
        """The settings of the networks `rows`."""
        columns = (*SIZES, *SWITCHES[-1], "steps", "class_weight")
        return {
            name: [value[n] for n in rows] if name in columns and isinstance(value, list) else
            value[[*rows]] if isinstance(value, Tensor) else value
            for name, value in self.settings.items()
        }  # fmt: skip

    def start(self, rows: range | list[int] = range(COUNT)) -> TrainState:
        """The networks `rows` before their first step."""
        return start(self.population(rows), self.data(rows), **self.of(rows))

    def train(
        self, rows: range | list[int] = range(COUNT), cuts: list[int] | None = None, engine: Any = cpu
    ) -> TrainState:
        """The same at their ends, after calls of `cuts` steps each."""
        return train(self.population(rows), self.data(rows), cuts, engine, **self.of(rows))


def each(size: float) -> list[float]:
    """A number near `size` for every network."""
    return [size * (0.6 + 0.4 * ((7 * n) % COUNT) / COUNT) for n in range(COUNT)]


def topology(number: int) -> tuple[tuple[int, ...], str]:
    """Widths and loss of a case."""
    return WIDTHS[number % len(WIDTHS)], LOSSES[(number + number // 10) % len(LOSSES)]


def case(number: int) -> Case:
    """One of CASES; float64 and float32 take turns, and each walks the activations."""
    widths, loss = topology(number)
    before = [topology(n) for n in range(number % 2, number, 2)]
    deep, free = sum(len(each) > 2 for each, _ in before), sum(each not in LOGITS for _, each in before)
    optimizer, schedule = OPTIMIZERS[number % len(OPTIMIZERS)], SCHEDULES[(number + number // 6) % len(SCHEDULES)]
    bias, trained = BIASES[(number + number // 5) % len(BIASES)]
    hidden = tuple(ACTIVATIONS[(deep + 8 * layer) % len(ACTIVATIONS)] for layer in range(len(widths) - 2))
    output = "identity" if loss in LOGITS else ACTIVATIONS[(free + 7 * (number % 2)) % len(ACTIVATIONS)]
    spec = gpubp.NetworkSpec(widths, hidden or "tanh", output, loss, bias, trained)
    layout, layerwise = LAYOUTS[(number + number // 14) % len(LAYOUTS)], number % 4 == 3
    switches = dict(SWITCHES[(3 * number + number // 8) % len(SWITCHES)])
    if layerwise:
        switches.pop("clip_norm", None)
        layout = {"networks in chunks": "chosen", "outputs in chunks": "outputs"}.get(layout, layout)
    known = gpubp.TrainConfig(optimizer, schedule=schedule, steps=1).defaults(loss)
    names = [name for name in SIZES if name in known]
    if number % 3:
        names = [name for name in names if not name.startswith("warmup")]
    settings = {name: each(size) for name, size in switches.items()} | {name: each(SIZES[name]) for name in names}
    if loss == "cross_entropy":
        settings["class_weight"] = torch.rand(COUNT, widths[-1], generator=generator(2)) + 0.1
        if number % 2:
            del settings["label_smoothing"], settings["class_weight"]
    settings |= {
        "optimizer": optimizer, "schedule": schedule, "batch_size": BATCH, "shuffle": SHUFFLES[number % 3],
        "update_order": "layerwise" if layerwise else "simultaneous",
        "steps": [STEPS - (3 * n) % 11 for n in range(COUNT)] if number % 4 < 2 else STEPS,
    }  # fmt: skip
    kind, weight = KINDS[(number + number // 4) % 4], WEIGHTS[(number + number // 9) % 3]
    return Case(spec, DTYPES[number % 2], kind, weight, layout, settings)


def close(mine: TrainState, theirs: TrainState, tolerance: dict[str, float], where: Tensor | None = None) -> None:
    """Equal counts, and numbers that are close; of the params only those in `where`."""
    for (name, one), (_, other) in zip(numbers(mine).items(), numbers(theirs).items()):
        if name in COUNTED:
            assert torch.equal(one, other), name
            continue
        if name == "params" and where is not None:
            one, other = one[where], other[where]
        rounded = one.dtype == mine.loss.dtype or name == "total"  # a sum of rounded losses
        allowed = tolerance if rounded else compiled_step(torch.finfo(one.dtype).eps, 1, 1)
        torch.testing.assert_close(one, other, **allowed, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")


def decided(before: TrainState, after: TrainState, tolerance: dict[str, float]) -> Tensor:
    """Where lion's direction, the sign of what `share` is here, does not hang on a rounding: it is large enough, or the
    gradient is 0, of a unit that is dead."""
    rest1, rest2 = ((1 - before.hyper[name]).to(before.loss.dtype) for name in ("beta1", "beta2"))
    old, new = before.slots[0], after.slots[0]
    share = old + rest1 * (new - old) / rest2
    sure = (share.abs() > 10 * tolerance["atol"]) | (new == torch.lerp(old, torch.zeros_like(old), rest2))
    assert sure.double().mean() > 0.9
    return sure


ROWS: dict[str, tuple[Any, ...]] = {
    "widths": WIDTHS, "activation": ACTIVATIONS, "loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES,
    "bias": BIASES, "kind": KINDS, "weight": WEIGHTS, "layout": LAYOUTS,
    "setting": (*SIZES, *SWITCHES[-1], "class_weight"),
}  # fmt: skip


def held(own: Case) -> set[tuple[Any, Any]]:
    """What of ROWS a case holds."""
    spec, settings = own.spec, own.settings
    found = {
        "widths": [spec.widths], "activation": spec.activations, "loss": [spec.loss],
        "optimizer": [settings["optimizer"]], "schedule": [settings["schedule"]],
        "bias": [(spec.bias, spec.train_bias)], "kind": [own.kind], "weight": [own.weight], "layout": [own.layout],
        "setting": [name for name in settings if name in ROWS["setting"]],
    }  # fmt: skip
    return {(what, each) for what in found for each in found[what]}


def placed(own: Case) -> set[tuple[Any, Any]]:
    """The activations of a case, where they are and of which type."""
    every = own.spec.activations
    places = [*["hidden"] * (len(every) - 1), "output", *[own.dtype] * len(every)]
    return {*zip(places, every * 2)}


def chosen() -> list[int]:
    """Cases that together hold what all do: one after the other the one with the most that is missing, and the fewest
    layers."""
    each, numbers = {number: held(case(number)) for number in range(8 * CASES)}, list[int]()
    while missing := set[Any]().union(*each.values()).difference(*(each[number] for number in numbers)):
        numbers.append(max(each, key=lambda number: (len(each[number] & missing), -len(topology(number)[0]))))
    return numbers


CHOSEN = chosen()


def test_the_cases_hold_every_row_of_every_table() -> None:
    expected = {(what, each) for what in ROWS for each in ROWS[what]}
    assert set[Any]().union(*(held(case(number)) for number in CHOSEN)) == expected
    places = {*itertools.product(("hidden", "output", *DTYPES), ACTIVATIONS)}
    assert set[Any]().union(*(placed(case(number)) for number in range(8 * CASES))) == places, "of the slow ones too"


@pytest.mark.parametrize("number", quick(range(8 * CASES), CHOSEN))
def test_each_step_is_eagers_from_the_same_numbers(number: int) -> None:
    own = case(number)
    data, theirs = own.data(), own.start()
    terms = max(*own.spec.widths, BATCH, 0 if "clip_norm" not in own.settings else theirs.population.params.shape[1])
    tolerance = compiled_step(torch.finfo(own.dtype).eps, terms, len(own.spec.widths) - 1)
    with laid_out(layouts(own.dtype, BATCH)[own.layout]):
        for _ in range(STEPS):
            before, mine = copied(theirs), copied(theirs)
            cpu.run(mine, data, 1)
            eager.run(theirs, data, 1)
            running = (theirs.step > before.step).nonzero().squeeze(1)
            assert len(running)
            if own.settings["optimizer"] == "lion":
                before, now = before.rows(running), theirs.rows(running)
                close(mine.rows(running), now, tolerance, decided(before, now, tolerance))
            else:
                close(mine, theirs, tolerance)
        whole, cut = (own.train(cuts=cuts) for cuts in (None, [1] * STEPS))
        assert not differences(whole, cut), "a call of all steps, and a call for each"
    assert not theirs.population.params.equal(own.population().params)
    assert torch.equal(theirs.step, theirs.end)


@pytest.mark.parametrize("number", quick(range(CASES), [25]))
def test_a_kernel_that_is_compiled_as_for_users_has_the_bits_of_one_that_is_compiled_fast(number: int) -> None:
    own = case(number)
    with laid_out(layouts(own.dtype, BATCH)[own.layout]):
        fast = own.train()
        with optimised():
            usual = own.train()
    assert not differences(usual, fast)


def test_networks_on_a_plateau_learn_as_by_eager() -> None:
    spec = gpubp.NetworkSpec((3, 6, 2), "tanh")
    networks, data = population(spec, COUNT), gpubp.Dataset(*samples(spec, SAMPLES))
    config = gpubp.TrainConfig(
        "momentum", lr=each(0.3), schedule="plateau", plateau_patience=0, plateau_factor=0.5, plateau_min_lr=0.01,
        batch_size=BATCH, epochs=30, evaluate_every=1, warmup=4,
    )  # fmt: skip
    mine, theirs = (gpubp.train(networks, data, config, engine=name) for name in ("cpu", "eager"))
    assert len(theirs.state.memory["scale"].unique()) > 3, "the plateau did something"
    assert torch.equal(mine.state.memory["scale"], theirs.state.memory["scale"])
    torch.testing.assert_close(mine.population.params, theirs.population.params, **TRAINING)
    torch.testing.assert_close(mine.loss, theirs.loss, **TRAINING)
    assert (mine.engine, theirs.engine) == ("cpu", "eager")
