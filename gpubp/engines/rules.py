"""The rows of the tables that training uses: whether they are built in, and what custom rules take and return.

Parameters and results of custom rules are checked once before training, for every engine: inside a step, the cause of a
None or of a short tuple would be hard to find, and numbers that depend on other networks, or arguments that a rule
changes, would go unnoticed. The package's rows are trusted.
"""

import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, GpubpError, SpecError
from ..maths.activations import ACTIVATIONS
from ..maths.losses import LOSSES, cross_entropy_shares
from ..maths.optimizers import prepare
from ..maths.schedules import names
from ..maths.spec import NetworkSpec
from ..settings.config import TrainConfig
from ..settings.recipe import Recipe

Rows = tuple[tuple[Any, ...], ...]


def rows(spec: NetworkSpec, recipe: Recipe) -> Rows:
    """The current rows: activations by layer, loss, optimizer, schedule."""
    return (*(ACTIVATIONS[name] for name in spec.activations), LOSSES[spec.loss], recipe.rule, recipe.timetable)


def functions(given: Rows) -> tuple[Callable[..., Any], ...]:
    """The functions of rows, in order."""
    return tuple(part for row in given for part in row if callable(part))


def built_in(given: Rows) -> bool:
    """Whether all functions are the package's, which never change; other functions may read a global or a closure
    variable that changes between two calls."""
    return all(isinstance(each, FunctionType) and _ours(each) for each in functions(given))


def _ours(function: FunctionType) -> bool:
    """Whether a function is the package's, by its globals: functools.wraps copies __module__."""
    return function.__globals__.get("__name__", "").startswith("gpubp.") and function.__closure__ is None


def custom(row: tuple[Any, ...]) -> bool:
    """Whether a row has a custom function."""
    return not built_in((row,))


def check(spec: NetworkSpec, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Call every custom rule with numbers of two networks on `device`, together and one by one.

    Raises SpecError for an activation or a loss, ConfigError for an optimizer or a schedule, that takes or returns
    anything but what its table requires, changes its arguments, or gives a network different numbers beside another.
    """
    if built_in(rows(spec, config.recipe(spec))):
        return

    def numbers(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.linspace(0.25, 0.75, math.prod(shape), dtype=kind, device=device).view(shape)

    known = {
        name: torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1, 1)[:1].repeat(2, 1)
        for name, value in config.switched_on(spec.loss).items()
    }
    for name, width in zip(spec.activations, spec.widths[1:]):
        if custom(ACTIVATIONS[name]):
            activation(name, numbers(2, 2, width))
    if custom(LOSSES[spec.loss]):
        loss(spec.loss, numbers(2, 2, spec.widths[-1]), known)
    column = numbers(2, 1, kind=torch.float64)
    if custom(config.timetable):
        rule, given = f"schedule {config.schedule!r}: rate", {**known, "scale": column}
        takes(ConfigError, rule, config.timetable.rate, ("lr", "step", "total"), some=(*given,))

        def rate(step: Tensor, total: Tensor, **hyper: Tensor) -> Tensor:  # without the factor of a warm-up
            some = {name: hyper[name] for name in names(config.timetable.rate)[3:]}
            return config.timetable.rate(hyper["lr"], step, total, **some)

        apart(ConfigError, rule, rate, {"step": 4 * column, "total": 8 * column}, given, ["the learning rate"], column)
    if custom(config.rule):
        optimizer(config, column, known, dtype)


def apart(
    error: type[GpubpError], rule: str, function: Callable[..., Any], given: Mapping[str, Tensor],
    named: Mapping[str, Tensor], wanted: Sequence[str], like: Tensor | None = None,
) -> Any:  # fmt: skip
    """What a function returns for the tensors `given` by position and `named`, (2, ...) each. Raises `error` unless the
    results are `wanted`, each of the shape of `like`, the same for each network alone, and no argument has changed."""
    with unchanged(error, rule, {**given, **named}):
        found = function(*given.values(), **named)
    expect(error, rule, found, *wanted)
    together = found if isinstance(found, (tuple, list)) else (found,)
    for name, each in zip(wanted, together):
        if like is not None and (each.shape, each.dtype) != (like.shape, like.dtype):
            mine, right = (f"{tuple(one.shape)}, {str(one.dtype).removeprefix('torch.')}" for one in (each, like))
            raise error(f"{rule} returned {name} of shape {mine}; {right}, expected")
    for row in range(2):
        one, by_name = ({name: each[row : row + 1] for name, each in some.items()} for some in (given, named))
        alone = function(*one.values(), **by_name)
        for name, ours, own in zip(wanted, together, alone if isinstance(alone, (tuple, list)) else (alone,)):
            ours = ours[row : row + 1] if ours.ndim and ours.shape != own.shape else ours
            if ours.shape != own.shape or not torch.allclose(ours.double(), own.double(), rtol=1e-3, equal_nan=True):
                raise error(
                    f"{rule}: {name} of a network differs with the networks beside it, or from call to call; numbers "
                    "that depend on its own alone expected"
                )
    return found


@contextmanager
def unchanged(error: type[GpubpError], rule: str, given: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise `error` if a call inside changes one of the `given` tensors."""
    before = {name: each.clone() for name, each in given.items()}
    yield
    for name, each in given.items():
        if not torch.equal(each, before[name]):
            raise error(f"{rule} changes {name}, which it is given, in place; a new tensor expected")


def activation(name: str, net: Tensor) -> None:
    """Check an activation on net (2, B, O)."""
    rule = ACTIVATIONS[name]
    takes(SpecError, f"activation {name!r}: value", rule.value, ("net",))
    takes(SpecError, f"activation {name!r}: slope", rule.slope, ("net", "out"))
    out = apart(SpecError, f"activation {name!r}: value", rule.value, {"net": net}, {}, ["out"], net)
    if not isinstance(rule.slope(net.clone(), out.clone()), (int, float)):
        apart(SpecError, f"activation {name!r}: slope", rule.slope, {"net": net, "out": out}, {}, ["dout/dnet"])


def loss(name: str, out: Tensor, known: dict[str, Tensor]) -> None:
    """Check a loss on out (2, B, O) and hyper-parameters (2, 1)."""
    rule = LOSSES[name]
    hyper = {each: known[each].to(out.dtype)[:, :, None] for each in rule.defaults if each in known}
    if rule.classes:
        takes(SpecError, f"loss {name!r}: value", rule.value, ("out", "target", "shares"))
        target = torch.zeros_like(out[:, :, 0], dtype=torch.int64)
        shares = cross_entropy_shares(out, target, hyper.get("label_smoothing"), None)
        given, named = {"out": out, "target": target}, {} if shares is None else {"shares": shares}

        def value(out: Tensor, target: Tensor, shares: Tensor | None = None) -> Any:
            return rule.value(out, target, shares)

        apart(SpecError, f"loss {name!r}: value", value, given, named, ["the error", "its slope"])
        return
    if rule.slope is None:
        raise SpecError(f"loss {name!r}: slope is None; a function expected, because its targets are not classes")
    given = {"out": out, "target": out.flip(0)}
    for part, function, what in (("value", rule.value, "the error"), ("slope", rule.slope, "dvalue/dout")):
        takes(SpecError, f"loss {name!r}: {part}", function, ("out", "target"), named=(*hyper,))
        apart(SpecError, f"loss {name!r}: {part}", function, given, hyper, [what], out if part == "value" else None)


def optimizer(config: TrainConfig, column: Tensor, known: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Check an optimizer on gradients, slots and columns (2, 1)."""
    name, rule, columns = config.optimizer, config.rule, dict.fromkeys(config.rule.columns, column)
    prepared: dict[str, Tensor] = {}
    if rule.prepare is not None:
        given = {**known, **columns}
        takes(ConfigError, f"optimizer {name!r}: prepare", rule.prepare, (), some=(*given,))
        taken = {each: given[each] for each in names(rule.prepare)}
        with unchanged(ConfigError, f"optimizer {name!r}: prepare", taken):
            prepared = rule.prepare(**taken)
        wanted = [*rule.columns, *(each for each in rule.arguments if each not in known)]
        if not isinstance(prepared, dict) or not {*wanted} <= {*prepared}:
            raise ConfigError(
                f"optimizer {name!r}: prepare returned {came(prepared)}; a dictionary with {', '.join(wanted)} expected"
            )
        for each in [*wanted, *(["rate"] if isinstance(prepared.get("rate"), Tensor) else [])]:
            one, like = partial(entry, rule.prepare, each), column if each in rule.columns else None
            apart(ConfigError, f"optimizer {name!r}: prepare", one, {}, taken, [each], like)
    takes(ConfigError, f"optimizer {name!r}: direction", rule.direction, ("grad", *rule.slots), some=known | prepared)
    arguments = {each: column.to(dtype) for each, column in prepare(rule, known, columns)[0].items()}
    grad = column.to(dtype)
    given = {"grad": grad, **dict.fromkeys(rule.slots, grad * grad)}
    wanted = ["the direction", *(f"the new {slot}" for slot in rule.slots)]
    apart(ConfigError, f"optimizer {name!r}: direction", rule.direction, given, arguments, wanted, grad)


def entry(function: Callable[..., Mapping[str, Any]], name: str, /, **given: Tensor) -> Any:
    """The function's result of this name."""
    return function(**given)[name]


def takes(
    error: type[GpubpError], rule: str, function: Callable[..., Any], given: Sequence[str],
    named: Collection[str] = (), some: Collection[str] | None = None,
) -> None:  # fmt: skip
    """Raise `error` unless a function can be called with `given` by position, and by name with all of `named`, or, with
    `some`, with those of them that are its parameters."""
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
