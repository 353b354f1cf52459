"""Every engine against eager, which is the definition: step by step, each from eager's numbers. In float64, where a
fault of any size shows, and in the networks' dtype, whose functions have their own coefficients."""

from collections.abc import Iterator
from functools import partial, reduce
from itertools import compress
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines import eager
from ..runs.design import Group
from ..state import TrainState
from ..system import gpus
from ..system.ambient import HOME
from .comparing import BlindError, Found, Numbers, Row, checked, each_compared
from .subject import STEPS, Subject, trained

EPS = 1e-12  # the smallest eps of optimizers that can be compared
SIGNS = "lion"  # its direction is a sign: if rounding decides it, two engines differ


class Digits(NamedTuple):
    """What a dtype must meet. bound: on differences, in this share of all steps of all networks; nudge: the planted
    change of one parameter of each network."""

    bound: float
    share: float
    nudge: float


# In float64, sums in another order are off by 1e-15, and optimizers that divide by a gradient's size enlarge it. In
# float32, half of the steps are off by 1e-7, with 784 inputs by 3e-7; in others rounding decides the side of a kink
# or the direction of a small gradient, and the worst is off by 1e-2. A coefficient of tanh that is 10 % off gives 3e-5.
DIGITS = {torch.float64: Digits(1e-8, 1.0, 1e-6), torch.float32: Digits(1e-5, 0.5, 1e-2)}


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each engine and dtype."""
    for name, device in (("cpu", HOME), ("cuda", subject.device)):
        for dtype in dict.fromkeys((torch.float64, subject.dtype)):
            yield _row(subject, name, device, dtype)


def _row(subject: Subject, name: str, device: torch.device, dtype: torch.dtype) -> Row:
    digits, called = DIGITS[dtype], str(dtype).removeprefix("torch.")
    which = "" if digits.share == 1 else f", {digits.share:.0%} of them"
    compared = f"{name} and eager, {called}, {STEPS} steps{which}, each from eager's numbers"
    row = Row(f"engine {name} is eager", compared, f"a parameter off by {digits.nudge:.0e}", digits.bound)
    why_not = _missing(subject, name, device, dtype)
    return row.without(why_not) if why_not else checked(row, partial(_engine, subject, name, device, dtype))


def compile_ahead(subject: Subject) -> None:
    """Compile the kernels for all comparisons after the first."""
    for group in subject.groups(torch.float64):
        state, data, choice = subject.start(group, HOME, "auto")
        choice.engine.compile_ahead(state, data, [], HOME)


def _missing(subject: Subject, name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why an engine cannot be compared."""
    if name == "cuda" and device.type != "cuda":
        return gpus.missing() or "the device is the CPU"
    return subject.refused(name, device, dtype)


def _engine(subject: Subject, name: str, device: torch.device, dtype: torch.dtype, wrong: bool) -> Found:
    found = [_population(subject, group, name, device, DIGITS[dtype], wrong) for group in subject.groups(dtype)]
    return reduce(Found.beside, found)


def _population(subject: Subject, group: Group, name: str, device: torch.device, digits: Digits, wrong: bool) -> Found:
    """One population, step by step."""
    theirs, data, _ = subject.start(group, HOME, "eager")
    _, there, choice = subject.start(group, device, name)
    if "eps" in theirs.hyper and float(theirs.hyper["eps"].min()) < EPS:
        raise BlindError(f"an eps below {EPS:.0e} divides roundings by each other, which engines do not share")
    found: list[Found] = []
    for _ in range(int(theirs.end.max())):
        mine, before = theirs.to(device), theirs.to(HOME)
        if wrong:
            mine.population.params[:, 0] += digits.nudge * mine.population.params[:, 0].abs().clamp(min=1)
        choice.engine.run(mine, there, 1)
        eager.run(theirs, data, 1)
        sure = _decided(before, theirs, digits) if group.config.optimizer == SIGNS else None
        trains = (before.left > 0).tolist()
        found += compress(each_compared(numbers(mine.to(HOME), sure), numbers(theirs, sure)), trains)
    found.sort(key=lambda each: each.size)
    last = found[ceil(digits.share * len(found)) - 1]
    return last._replace(networks=len(theirs.step), numbers=sum(each.numbers for each in found))


def numbers(state: TrainState, sure: Tensor | None = None) -> list[Numbers]:
    """The numbers of each network; only those parameters that are `sure`."""
    tensors = trained(state)
    if sure is not None:
        tensors["params"] = tensors["params"].masked_fill(~sure, 0)
    return [{name: each[n] for name, each in tensors.items()} for n in range(len(state.step))]


def _decided(before: TrainState, after: TrainState, digits: Digits) -> Tensor:
    """Where lion's direction is not the sign of something as small as rounding."""
    rest1, rest2 = ((1 - before.hyper[name]).to(before.loss.dtype) for name in ("beta1", "beta2"))
    old, new = before.slots[0], after.slots[0]
    share = old + rest1 * (new - old) / rest2
    return (share.abs() > digits.bound) | (new == torch.lerp(old, torch.zeros_like(old), rest2))
