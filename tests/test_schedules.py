"""Every schedule is torch.optim.lr_scheduler's, step by step, each network with settings of its own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer, lr_scheduler

import gpubp
from gpubp.errors import ConfigError
from gpubp.maths.schedules import SCHEDULES, scheduled
from gpubp.stopping import plateau

from .helpers import generator, population, samples, start
from .tolerances import SCHEDULE

STEPS = 50


def inverse_sqrt(optimizer: Optimizer, total: int, timescale: float) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LambdaLR(optimizer, lambda step: math.sqrt(timescale / (timescale + step)))


REFERENCES: dict[str, Callable[..., lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer, total: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
    "step": lambda optimizer, total, step_size, gamma: lr_scheduler.StepLR(optimizer, int(step_size), gamma),
    "exponential": lambda optimizer, total, gamma: lr_scheduler.ExponentialLR(optimizer, gamma),
    "cosine": lambda optimizer, total, eta_min: lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min),
    "one_cycle": lambda optimizer, total, pct_start, div_factor, final_div_factor: lr_scheduler.OneCycleLR(
        optimizer, optimizer.defaults["lr"], total, pct_start=pct_start, div_factor=div_factor,
        final_div_factor=final_div_factor, cycle_momentum=False),
    "inverse_sqrt": inverse_sqrt,
}  # fmt: skip
COLUMNS = {  # a number per network, four of them
    "lr": (0.1, 1.0, 3e-3, 0.5),
    "step_size": (1, 7, 10, 49),
    "gamma": (0.9, 0.1, 1.0, 1.3),
    "eta_min": (0.0, 0.01, 1e-5, 0.2),
    "pct_start": (0.3, 0.5, 0.07, 0.9),
    "div_factor": (25.0, 2.0, 10.0, 1.0),
    "final_div_factor": (1e4, 10.0, 100.0, 1.0),
    "timescale": (10_000.0, 1.0, 12.5, 100.0),
    "warmup": (1, 5, 20, 33),
    "warmup_start": (1 / 3, 0.01, 1.0, 0.5),
}
TOTALS = (50, 64, 51, 100)


def columns(name: str, warmup: bool) -> dict[str, Tensor]:
    wanted = ["lr", *SCHEDULES[name].defaults, *(("warmup", "warmup_start") if warmup else ())]
    return {each: torch.tensor(COLUMNS[each], dtype=torch.float64)[:, None] for each in wanted}


def rates(name: str, hyper: dict[str, Tensor], totals: Tensor) -> Tensor:
    """(N, STEPS)."""
    clock = torch.arange(STEPS, dtype=torch.float64)
    return torch.cat([scheduled(SCHEDULES[name], hyper, torch.full_like(totals, step), totals) for step in clock], 1)


def expected(name: str, number: int, warmup: bool) -> list[float]:
    own = {each: COLUMNS[each][number] for each in SCHEDULES[name].defaults}
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=COLUMNS["lr"][number])
    if warmup:
        first, last = COLUMNS["warmup"][number], TOTALS[number] - COLUMNS["warmup"][number]
        rising = lr_scheduler.LinearLR(optimizer, COLUMNS["warmup_start"][number], total_iters=first)
        after = REFERENCES[name](optimizer, last, **own)
        scheduler: lr_scheduler.LRScheduler = lr_scheduler.SequentialLR(optimizer, [rising, after], [first])
    else:
        scheduler = REFERENCES[name](optimizer, TOTALS[number], **own)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_every_schedule_has_a_reference() -> None:
    assert {*REFERENCES, "plateau"} == set(SCHEDULES)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # torch's own, in SequentialLR
@pytest.mark.parametrize("warmup", [False, True], ids=["plain", "warmup"])
@pytest.mark.parametrize("name", REFERENCES)
def test_a_schedule_is_torchs_for_50_steps(name: str, warmup: bool) -> None:
    totals = torch.tensor(TOTALS, dtype=torch.float64)[:, None]
    found = rates(name, columns(name, warmup), totals)
    reference = torch.tensor([expected(name, n, warmup) for n in range(4)], dtype=torch.float64)
    torch.testing.assert_close(found, reference, **SCHEDULE)


@pytest.mark.parametrize(("share", "total"), [(0.0, 50), (0.01, 50), (0.3, 1)])
def test_one_cycle_without_a_step_to_rise_in_falls_from_its_first(share: float, total: int) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, total, pct_start=share, cycle_momentum=False)
    values = {**SCHEDULES["one_cycle"].defaults, "lr": 0.5, "pct_start": share}
    hyper = {each: torch.full((1, 1), value, dtype=torch.float64) for each, value in values.items()}
    found = rates("one_cycle", hyper, torch.full((1, 1), total, dtype=torch.float64))[0]
    for rate in found.tolist()[:total]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        if scheduler.last_epoch < total - 1:
            scheduler.step()


def test_the_engine_uses_the_rate_of_each_networks_step() -> None:
    """One weight, whose gradient is 1 at every step: what it moves by is the rate."""
    spec = gpubp.NetworkSpec((1, 1), bias="none", loss="poisson")
    settings = {"optimizer": "sgd", "lr": [0.1, 0.4], "schedule": "exponential", "gamma": [0.5, 0.25], "warmup": 2,
                "warmup_start": 0.5, "batch_size": 1, "steps": 6}  # fmt: skip
    data = gpubp.Dataset(torch.zeros(1, 1).double() + 1, torch.full((1, 1), 7.0).double())
    state = start(population(spec, 2), data, **settings)
    state.step.copy_(torch.tensor([0, 3]))
    rates = {0: [0.05, 0.075, 0.1, 0.05, 0.025, 0.0125], 1: [0.1, 0.025, 0.00625]}
    for number, own in rates.items():
        for each in own:
            before = state.population.params[number].clone()
            gpubp.engines.eager.run(state.rows(slice(number, number + 1)), data, 1)
            moved = (before - state.population.params[number]).item()
            assert moved / (math.exp(before.item()) - 7) == pytest.approx(each, rel=1e-12)


SETTINGS = {
    "plateau_factor": [0.1, 0.5, 0.9, 0.3, 0.5, 0.5],
    "plateau_patience": [0, 2, 1, 3, 10, 0],
    "plateau_threshold": [1e-4, 0.1, 0.0, 0.3, 1e-4, 0.05],
    "plateau_cooldown": [0, 1, 3, 0, 2, 5],
    "plateau_min_lr": [0.0, 1e-3, 0.05, 0.0, 0.0, 2.0],
}
RATES = [0.1, 0.2, 0.4, 1.0, 0.01, 0.5]


def test_plateau_is_torchs_reduce_lr_on_plateau() -> None:
    spec = gpubp.NetworkSpec((1, 1))
    data = gpubp.Dataset(*samples(spec, 4))
    state = start(population(spec, 6), data, schedule="plateau", lr=RATES, steps=5, **SETTINGS)
    schedulers = []
    for number, lr in enumerate(RATES):
        own = {name.removeprefix("plateau_"): values[number] for name, values in SETTINGS.items()}
        schedulers.append(lr_scheduler.ReduceLROnPlateau(SGD([torch.zeros(1)], lr=lr), eps=0, **own))
    losses = torch.rand(STEPS, 6, generator=generator(1)) * 0.2 + torch.linspace(2, 1, STEPS)[:, None]
    losses[20:, 2] = 1.5
    losses[7, 1] = float("nan")
    losses[9:12, 3] = float("inf")
    hyper = {name: state.hyper[name] for name in ("lr", "plateau_min_lr")}
    seen = set()
    for loss in losses.double():
        plateau(state, loss, state.running)
        found = scheduled(
            SCHEDULES["plateau"], {**hyper, **state.memory}, state.step[:, None].double(), state.end[:, None]
        )
        for scheduler, each in zip(schedulers, loss.tolist()):
            scheduler.step(each)
        reference = [scheduler.optimizer.param_groups[0]["lr"] for scheduler in schedulers]
        torch.testing.assert_close(found[:, 0], torch.tensor(reference, dtype=torch.float64), **SCHEDULE)
        seen.update(enumerate(reference))
    assert {number for number, lr in seen if lr < RATES[number]} == {0, 1, 2, 3}


def test_a_rate_of_another_precision_is_refused_also_of_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpubp.SCHEDULES, "own", gpubp.Schedule(lambda lr, step, total: lr.float()))
    networks = gpubp.Population.create(gpubp.NetworkSpec((3, 2)), count=4)
    config = gpubp.TrainConfig(steps=3, batch_size=4, schedule="own", warmup=2)
    with pytest.raises(ConfigError, match=r"the learning rate of shape \(2, 1\), float32"):
        gpubp.train(networks, gpubp.Dataset(torch.zeros(4, 3), torch.zeros(4, 2)), config)
