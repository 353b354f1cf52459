"""Every engine beside eager, which is the definition: step by step, each from eager's numbers, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce

import torch
from torch import Tensor

from .. import gpus
from ..ambient import HOME
from ..design import Group
from ..engines import eager
from ..errors import EngineError
from ..state import TrainState
from .comparing import BlindError, Found, Numbers, Row, checked, compare
from .subject import STEPS, Subject, trained

STEP = 1e-8  # sums in another order are off by 1e-15; optimizers that divide by a gradient's size enlarge it
NUDGE = 1e-6  # to one parameter of each network, planted
LEAST = 1e-12  # eps of optimizers
SIGNS = "lion"  # whose direction is a sign: where a rounding decides it, two engines differ


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each engine."""
    for name, device in (("cpu", HOME), ("cuda", subject.device)):
        compared = f"{name} and eager, float64, {STEPS} steps, each from eager's numbers"
        row = Row(f"engine {name} is eager", compared, f"a parameter off by {NUDGE:.0e}", STEP)
        why_not = _missing(subject, name, device)
        yield checked(row, partial(_engine, subject, name, device)) if why_not is None else row.without(why_not)


def compile_ahead(subject: Subject) -> None:
    """Compile the kernels that comparisons need after the first one."""
    for group in subject.groups(torch.float64):
        state, data, choice = subject.start(group, HOME, "auto")
        choice.compile_ahead(state, data, [], HOME)


def _missing(subject: Subject, name: str, device: torch.device) -> str | None:
    """Why an engine cannot be compared."""
    if name == "cuda" and device.type != "cuda":
        return gpus.missing() or "--device names the CPU"
    try:
        for group in subject.groups(torch.float64):
            subject.start(group, device, name)
    except EngineError as error:
        return str(error)
    return None


def _engine(subject: Subject, name: str, device: torch.device, wrong: bool) -> Found:
    found = [_population(subject, group, name, device, wrong) for group in subject.groups(torch.float64)]
    return reduce(Found.beside, found)


def _population(subject: Subject, group: Group, name: str, device: torch.device, wrong: bool) -> Found:
    """One population, step by step."""
    theirs, data, _ = subject.start(group, HOME, "eager")
    _, there, choice = subject.start(group, device, name)
    if "eps" in theirs.hyper and float(theirs.hyper["eps"].min()) < LEAST:
        raise BlindError(f"an eps below {LEAST:.0e} divides roundings by each other, which engines do not share")
    found = Found(len(theirs.step), 0, None)
    for _ in range(int(theirs.end.max())):
        mine, before = theirs.to(device), theirs.to(HOME)
        if wrong:
            mine.population.params[:, 0] += NUDGE * mine.population.params[:, 0].abs().clamp(min=1)
        choice.run(mine, there, 1)
        eager.run(theirs, data, 1)
        sure = _decided(before, theirs) if group.config.optimizer == SIGNS else None
        found = found.again(compare(numbers(mine.to(HOME), sure), numbers(theirs, sure)))
    return found


def numbers(state: TrainState, sure: Tensor | None = None) -> list[Numbers]:
    """The numbers of each network; of its parameters only those that are `sure`."""
    tensors = trained(state)
    if sure is not None:
        tensors["params"] = tensors["params"].masked_fill(~sure, 0)
    return [{name: each[n] for name, each in tensors.items()} for n in range(len(state.step))]


def _decided(before: TrainState, after: TrainState) -> Tensor:
    """Where the direction of lion is not a sign of something as small as a rounding."""
    rest1, rest2 = ((1 - before.hyper[name]).to(before.loss.dtype) for name in ("beta1", "beta2"))
    old, new = before.slots[0], after.slots[0]
    share = old + rest1 * (new - old) / rest2
    return (share.abs() > STEP) | (new == torch.lerp(old, torch.zeros_like(old), rest2))
