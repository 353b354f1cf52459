"""The rows of the tables that training uses: whether they are built in, and what custom rules take and return.

Parameters and results of custom rules are checked once before training, for every engine: inside a step the cause of a
None or of a short tuple would be hard to find. The package's rows are trusted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..activations import ACTIVATIONS
from ..config import TrainConfig
from ..errors import ConfigError, GpubpError, SpecError
from ..losses import LOSSES, cross_entropy_shares
from ..optimizers import prepare
from ..recipe import Recipe
from ..schedules import names, scheduled
from ..spec import NetworkSpec

Rows = tuple[tuple[Any, ...], ...]


def rows(spec: NetworkSpec, recipe: Recipe) -> Rows:
    """The current rows: activations by layer, loss, optimizer, schedule."""
    return (*(ACTIVATIONS[name] for name in spec.activations), LOSSES[spec.loss], recipe.rule, recipe.timetable)


def functions(given: Rows) -> tuple[Callable[..., Any], ...]:
    """The functions of rows, in order."""
    return tuple(part for row in given for part in row if callable(part))


def built_in(given: Rows) -> bool:
    """Whether all functions are the package's, which never change; others may read a global or a closure variable that
    changes between two calls."""
    return all(isinstance(each, FunctionType) and _ours(each) for each in functions(given))


def _ours(function: FunctionType) -> bool:
    """By its globals, because functools.wraps copies __module__."""
    return function.__globals__.get("__name__", "").startswith("gpubp.") and function.__closure__ is None


def custom(row: tuple[Any, ...]) -> bool:
    """Whether a row has a custom function."""
    return not built_in((row,))


def check(spec: NetworkSpec, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Call every custom rule with numbers of one network on `device`.

    Raises SpecError for an activation or a loss, ConfigError for an optimizer or a schedule, that takes or returns
    anything but what its table requires.
    """
    if built_in(rows(spec, config.recipe(spec))):
        return
    number = partial(torch.full, fill_value=0.5, dtype=dtype, device=device)
    one = torch.ones(1, 1, dtype=torch.float64, device=device)
    known = {
        name: torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1, 1)[:1]
        for name, value in config.switched_on(spec.loss).items()
    }
    for name, width in zip(spec.activations, spec.widths[1:]):
        if custom(ACTIVATIONS[name]):
            activation(name, number((1, 1, width)))
    if custom(LOSSES[spec.loss]):
        loss(spec.loss, number((1, 1, spec.widths[-1])), known)
    if custom(config.timetable):
        given = ("lr", "step", "total")
        takes(ConfigError, f"schedule {config.schedule!r}: rate", config.timetable.rate, given, some=(*known, "scale"))
        found = scheduled(config.timetable, {**known, "scale": one}, one, one)
        expect(ConfigError, f"schedule {config.schedule!r}: rate", found, "the learning rate")
    if custom(config.rule):
        optimizer(config, one, known, dtype)


def activation(name: str, net: Tensor) -> None:
    """Check an activation on net (1, B, O)."""
    rule = ACTIVATIONS[name]
    takes(SpecError, f"activation {name!r}: value", rule.value, ("net",))
    takes(SpecError, f"activation {name!r}: slope", rule.slope, ("net", "out"))
    out = rule.value(net)
    expect(SpecError, f"activation {name!r}: value", out, "out")
    slope = rule.slope(net, out)
    if not isinstance(slope, (int, float)):
        expect(SpecError, f"activation {name!r}: slope", slope, "dout/dnet")


def loss(name: str, out: Tensor, known: dict[str, Tensor]) -> None:
    """Check a loss on out (1, B, O) and hyper-parameters (1, 1)."""
    rule = LOSSES[name]
    hyper = {each: known[each].to(out.dtype)[:, :, None] for each in rule.defaults if each in known}
    if rule.classes:
        takes(SpecError, f"loss {name!r}: value", rule.value, ("out", "target", "shares"))
        target = torch.zeros_like(out[:, :, 0], dtype=torch.int64)
        both = rule.value(out, target, cross_entropy_shares(out, target, hyper.get("label_smoothing"), None))
        return expect(SpecError, f"loss {name!r}: value", both, "the error", "its slope")
    if rule.slope is None:
        raise SpecError(f"loss {name!r}: slope is None; a function expected, because its targets are not classes")
    for part, function in (("value", rule.value), ("slope", rule.slope)):
        takes(SpecError, f"loss {name!r}: {part}", function, ("out", "target"), named=(*hyper,))
    expect(SpecError, f"loss {name!r}: value", rule.value(out, out, **hyper), "the error")
    return expect(SpecError, f"loss {name!r}: slope", rule.slope(out, out, **hyper), "dvalue/dout")


def optimizer(config: TrainConfig, one: Tensor, known: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Check an optimizer on a gradient, slots and columns (1, 1)."""
    name, rule, columns = config.optimizer, config.rule, dict.fromkeys(config.rule.columns, one)
    prepared: dict[str, Tensor] = {}
    if rule.prepare is not None:
        given = {**known, **columns}
        takes(ConfigError, f"optimizer {name!r}: prepare", rule.prepare, (), some=(*given,))
        prepared = rule.prepare(**{each: given[each] for each in names(rule.prepare)})
        wanted = [*rule.columns, *(each for each in rule.arguments if each not in known)]
        if not isinstance(prepared, dict) or not {*wanted} <= {*prepared}:
            raise ConfigError(
                f"optimizer {name!r}: prepare returned {came(prepared)}; a dictionary with {', '.join(wanted)} expected"
            )
    takes(ConfigError, f"optimizer {name!r}: direction", rule.direction, ("grad", *rule.slots), some=known | prepared)
    arguments = {each: column.to(dtype) for each, column in prepare(rule, known, columns)[0].items()}
    grad = one.to(dtype)
    found = rule.direction(grad, *[torch.zeros_like(grad) for _ in rule.slots], **arguments)
    slots = (f"the new {slot}" for slot in rule.slots)
    expect(ConfigError, f"optimizer {name!r}: direction", found, "the direction", *slots)


def takes(
    error: type[GpubpError], rule: str, function: Callable[..., Any], given: Sequence[str],
    named: Collection[str] = (), some: Collection[str] | None = None,
) -> None:  # fmt: skip
    """Raise `error` unless a function can be called with `given` by position, and by name with all of `named`, or, with
    `some`, with those of its parameters that are among them."""
    if not isinstance(function, FunctionType):
        raise error(f"{rule} is {function!r}; a Python function, made by def, expected")
    parameters = inspect.signature(function)
    asked = named if some is None else names(function)[len(given) :]
    try:
        parameters.bind(*given, **dict.fromkeys(asked))
        fits = some is None or {*asked} <= {*some}
    except TypeError:
        fits = False
    if not fits:
        came, wanted = ", ".join(parameters.parameters) or "no parameters", [*given, *named]
        if some:
            wanted.append(f"and any of {', '.join(sorted(some))} by these names")
        raise error(f"{rule} takes {came}; {', '.join(wanted)} expected")


def expect(error: type[GpubpError], rule: str, found: Any, *wanted: str) -> None:
    """Raise `error` unless `found` is a tensor, or for several `wanted` a tuple with a tensor for each."""
    several: Sequence[Any] = found if isinstance(found, (tuple, list)) else (found,)
    if len(several) != len(wanted) or not all(isinstance(each, Tensor) for each in several):
        what = "a tensor" if len(wanted) == 1 else f"a tuple of {len(wanted)} tensors"
        raise error(f"{rule} returned {came(found)}; {what}, {', '.join(wanted)}, expected")


def came(found: Any) -> str:
    """A description of what a rule returned."""
    if isinstance(found, (tuple, list)):
        kinds = ", ".join(type(each).__name__ for each in found)
        return f"{type(found).__name__} ({kinds})"
    if isinstance(found, dict):
        return f"a dictionary with {', '.join(map(str, found)) or 'nothing'}"
    return "None" if found is None else f"a {type(found).__name__}"
