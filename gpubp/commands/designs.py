"""Settings of `train` with several alternatives, ranges of widths, and --design: a design, a row per network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..flags import COUNT

if TYPE_CHECKING:
    from ..design import Design
    from ..sources import Prepared

LISTS = {"widths": ";", "hidden": ";", "optimizer": ",", "schedule": ",", "batch_size": ",", "init": ","}
COMMON = ("output", "loss", "bias", "train_bias", "epochs", "steps", "evaluate_every", "restore_best", "shuffle",
          "update_order")  # fmt: skip


def mixed(settings: dict[str, Any]) -> bool:
    """Whether the networks of these settings differ in more than numbers."""
    listed = any(len(_options(settings, name)) > 1 for name in LISTS)
    return listed or any(settings[name] is not None for name in ("design", "hidden_width", "folds"))


def _options(settings: dict[str, Any], name: str) -> list[str]:
    """The alternatives of a setting, as texts; none if it is not given."""
    given, sign = settings[name], LISTS[name]
    found = [] if given is None else str(given).split(sign)
    if "" in found:
        raise ConfigError(
            f"--{name.replace('_', '-')} {given!r}: alternatives separated by {sign} expected, none empty"
        )
    return found


def widths(given: str, inputs: int, outputs: int) -> tuple[int, ...]:
    """The widths of a topology that fits the data."""
    try:
        found = tuple(COUNT.read(part) for part in given.replace("-", ",").split(","))
    except (ValueError, ArithmeticError):
        raise ConfigError(f"--widths {given!r}: whole numbers separated by commas expected, such as 64,32,10") from None
    if len(found) < 2 or found[0] != inputs or found[-1] != outputs:
        raise ConfigError(
            f"--widths {given}: the data have {inputs} inputs and need {outputs} outputs: {inputs},...,{outputs}"
        )
    return found


def design(settings: dict[str, Any], prepared: Prepared) -> Design:
    """The design of `settings`: ranges are sampled, lists make a grid, as in search.py; --design comes first."""
    from ..config import HYPER
    from ..design import Design
    from ..search import sample

    if settings["class_weight"] is not None:
        raise ConfigError("--class-weight: one topology, optimizer and batch size expected; class weights are of all")
    if settings["hidden_width"] is not None and settings["widths"] is not None:
        raise ConfigError("--hidden-width and --widths: one of them expected")
    given = () if settings["design"] is None else Design.of(settings["design"]).rows
    if given and settings["networks"] not in (None, len(given)):
        raise ConfigError(f"--networks {settings['networks']}: the design has {len(given)} rows")
    settings["networks"] = count = len(given) or settings["networks"] or 1000
    sides = prepared.widths_in, prepared.widths_out
    choices: dict[str, Sequence[Any]] = {name: _options(settings, name) for name in LISTS if settings[name] is not None}
    choices["widths"] = [widths(each, *sides) for each in choices.get("widths", [f"{sides[0]},32,{sides[1]}"])]
    if settings["hidden_width"] is not None:
        _check_width(settings["hidden_width"])
    numbers = {name: settings[name] for name in (*HYPER, "init_scale", "hidden_width") if settings[name] is not None}
    columns = sample(numbers, count, settings["seed"], choices)
    rows = []
    for number in range(count):
        row = {name: values[number] if hasattr(values, "__len__") else values for name, values in columns.items()}
        if (hidden := row.pop("hidden_width", None)) is not None:
            row["widths"] = sides[0], round(float(hidden)), sides[1]
        row |= given[number] if given else {}
        known = _known(row["optimizer"], row["schedule"], row.get("loss", settings["loss"]))
        rows.append({name: value for name, value in row.items() if name not in HYPER or name in known})
    for name in numbers:
        if not any(name in row for row in rows) and name != "hidden_width":
            raise ConfigError(f"--{name.replace('_', '-')}: no optimizer, schedule or loss of the design has it")
    if settings["folds"] is not None:
        if any("fold" in row for row in rows):
            raise ConfigError("--folds and a design with a column fold: one of them expected")
        folds = range(settings["folds"])
        rows = [{"seed": number, **row, "fold": fold} for number, row in enumerate(rows) for fold in folds]
    return Design.of(rows, **{name: settings[name] for name in COMMON})


def _check_width(given: float | str) -> None:
    """Refuse widths that are not whole, but for those drawn from a range, which are rounded."""
    from ..search import Range, parse

    found = parse("--hidden-width", given)
    if isinstance(found, Range):
        fine = found.low >= 1
    else:
        fine = all(number >= 1 and number == int(number) for number in (found if isinstance(found, list) else [found]))
    if not fine:
        raise ConfigError(f"--hidden-width {given}: whole numbers of 1 or more, or a range of them, expected")


@cache
def _known(optimizer: str, schedule: str, loss: str) -> frozenset[str]:
    """The hyper-parameters that such a network has."""
    from ..config import TrainConfig

    return frozenset(TrainConfig(optimizer, schedule=schedule, steps=1).defaults(loss))
