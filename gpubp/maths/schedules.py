"""SCHEDULES: one row each: the learning rate of a step, as (N, 1) float64 columns, computed once per step and network.

A schedule counts each network's steps from 0, the first step after the warm-up. Names and meanings are
torch.optim.lr_scheduler's with one scheduler.step() per training step; `total` is torch's T_max or
total_steps, minus the warm-up. A linear warm-up, torch's LinearLR from `warmup_start` to 1 over `warmup` steps, can
precede any of them, as in SequentialLR.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .rows import Table


class Schedule(NamedTuple):
    """rate: lr, step, total, <hyper-parameters by name> -> learning rate, all (N, 1) float64 columns.

    whole: the rate depends on `total`, so a run with it cannot be extended. events: the rate depends on
    evaluations, not on the step: `scale` is a column of the state (only plateau). formulas: for people, as in
    optimizers.py; "scheduled" is the rate.
    """

    rate: Callable[..., Tensor]
    defaults: Mapping[str, float] = {}
    whole: bool = False
    events: bool = False
    formulas: Mapping[str, str] = {}


def constant(lr: Tensor, step: Tensor, total: Tensor) -> Tensor:
    return lr


def step(lr: Tensor, step: Tensor, total: Tensor, step_size: Tensor, gamma: Tensor) -> Tensor:
    """StepLR: times gamma after every step_size steps. exp and log: the bits of pow depend on the position."""
    return lr * torch.exp(torch.floor(step / step_size) * torch.log(gamma))


def exponential(lr: Tensor, step: Tensor, total: Tensor, gamma: Tensor) -> Tensor:
    """ExponentialLR: times gamma after every step."""
    return lr * torch.exp(step * torch.log(gamma))


def cosine(lr: Tensor, step: Tensor, total: Tensor, eta_min: Tensor) -> Tensor:
    """CosineAnnealingLR: from lr to eta_min in half a cosine over `total` steps; eta_min afterwards."""
    done = torch.clamp(step / torch.clamp(total, min=1), max=1)
    return eta_min + (lr - eta_min) * (1 + torch.cos(math.pi * done)) / 2


def one_cycle(
    lr: Tensor, step: Tensor, total: Tensor, pct_start: Tensor, div_factor: Tensor, final_div_factor: Tensor
) -> Tensor:
    """OneCycleLR with cosine annealing and without momentum cycling: from lr / div_factor up to lr over pct_start of
    the steps, then down to lr / div_factor / final_div_factor at the last step; lr / div_factor in a warm-up that
    leaves no step. Smith, Topin, 2017."""
    peak, last = pct_start * total - 1, torch.clamp(total - 1, min=0)
    low = lr / div_factor
    least = torch.clamp(peak, min=1e-9)
    rising = torch.clamp((step + (least - peak)) / least, max=1)  # 1 at once if there is no step to rise in
    falling = torch.clamp((step - peak) / torch.clamp(last - peak, min=1e-9), 0, 1)
    up = lr + (low - lr) * (1 + torch.cos(math.pi * rising)) / 2
    down = low / final_div_factor
    return torch.where(total < 1, low, up + (down - lr) * (1 - torch.cos(math.pi * falling)) / 2)


def inverse_sqrt(lr: Tensor, step: Tensor, total: Tensor, timescale: Tensor) -> Tensor:
    """lr * sqrt(timescale / (timescale + step)): Vaswani et al., 2017, as in transformers.get_inverse_sqrt_schedule,
    which also counts from the end of the warm-up. Not in torch."""
    return lr * torch.sqrt(timescale / (timescale + step))


def plateau(lr: Tensor, step: Tensor, total: Tensor, scale: Tensor, plateau_min_lr: Tensor) -> Tensor:
    """ReduceLROnPlateau: evaluations reduce `scale`, a factor of lr (stopping.py)."""
    return torch.maximum(lr * scale, torch.minimum(plateau_min_lr, lr))


SCHEDULES: Table[Schedule] = Table()
SCHEDULES |= {
    "constant": Schedule(constant, formulas={"scheduled": "lr"}),
    "step": Schedule(
        step, {"step_size": 1000, "gamma": 0.1}, formulas={"scheduled": "lr*gamma**floor(step/step_size)"}
    ),
    "exponential": Schedule(exponential, {"gamma": 0.999}, formulas={"scheduled": "lr*gamma**step"}),
    "cosine": Schedule(
        cosine, {"eta_min": 0.0}, whole=True,
        formulas={"scheduled": "eta_min + (lr - eta_min)*(1 + cos(pi*min(step/total, 1)))/2"},
    ),
    "one_cycle": Schedule(
        one_cycle, {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}, whole=True,
        formulas={
            "low": "lr/div_factor",
            "least": "low/final_div_factor",
            "peak": "pct_start*total - 1",
            "scheduled": "Piecewise((low, total < 1), (low + (lr - low)*(1 - cos(pi*step/peak))/2, step < peak),"
            " (least + (lr - least)*(1 + cos(pi*min((step - peak)/(total - 1 - peak), 1)))/2, True))",
        },
    ),
    "inverse_sqrt": Schedule(
        inverse_sqrt, {"timescale": 10_000}, formulas={"scheduled": "lr*sqrt(timescale/(timescale + step))"}
    ),
    "plateau": Schedule(
        plateau,
        {
            "plateau_factor": 0.1,
            "plateau_patience": 10,
            "plateau_threshold": 1e-4,
            "plateau_cooldown": 0,
            "plateau_min_lr": 0.0,
        },
        events=True,
        formulas={"scheduled": "max(lr*scale, min(plateau_min_lr, lr))"},
    ),
}  # fmt: skip

WARMUP = {"warmup": 0.0, "warmup_start": 1 / 3}  # LinearLR's start_factor


def warm(step: Tensor, warmup: Tensor, warmup_start: Tensor) -> Tensor:
    """LinearLR's factor before step `warmup`; 1 from then on, and always if `warmup` is 0."""
    least = torch.clamp(warmup, min=1e-9)
    done = torch.clamp((step + (least - warmup)) / least, max=1)
    return warmup_start + (1 - warmup_start) * done


def scheduled(rule: Schedule, hyper: Mapping[str, Tensor], step: Tensor, total: Tensor) -> Tensor:
    """The rate at `step` (N, 1) float64 of networks that train for `total` (N, 1) steps, warm-up included."""
    warmup = hyper.get("warmup")
    arguments = {name: hyper[name] for name in names(rule.rate)[3:]}
    if warmup is None:
        return rule.rate(hyper["lr"], step, total, **arguments)
    after = torch.clamp(step - warmup, min=0)
    rate = rule.rate(hyper["lr"], after, total - warmup, **arguments)
    return rate * warm(step, warmup, hyper["warmup_start"])


def names(rule: Callable[..., object]) -> tuple[str, ...]:
    """The parameters of a rule, in order."""
    return rule.__code__.co_varnames[: rule.__code__.co_argcount]
