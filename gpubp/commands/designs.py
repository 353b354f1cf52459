"""Settings of `train` with several alternatives, ranges of widths, and --design: a design, a row per network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, GpubpError, OutOfMemoryError
from ..line import counted
from ..system.flags import COUNT, flag_of, number

if TYPE_CHECKING:
    from ..runs.cells import Column
    from ..runs.design import Design
    from ..samples.sources import Prepared

LISTS = {"widths": ";", "hidden": ";", "optimizer": ",", "schedule": ",", "batch_size": ",", "init": ","}
LENGTHS = ("epochs", "steps")
BYTES = 100  # per row of a design while it is drawn
POSITIONS = ("folds", "bootstrap", "per")  # with these, each setting trains a network at each position of the data
COMMON = ("output", "loss", "bias", "train_bias", "evaluate_every", "monitor", "restore_best", "shuffle",
          "update_order", "precision")  # fmt: skip
WHOLE = ("hidden_width", *LENGTHS)  # whole numbers that may be drawn


@contextmanager
def without_rows(settings: dict[str, Any]) -> Iterator[None]:
    """Errors do not name a row of a design that the user has not written."""
    try:
        yield
    except GpubpError as error:
        if settings["design"] is None:
            error.args = (error.bare,)
        raise


def options(settings: dict[str, Any], name: str) -> list[str]:
    """The alternatives of a setting, as texts; empty if it is not given."""
    given, sign = settings[name], LISTS[name]
    found = [] if given is None else str(given).split(sign)
    if "" in found:
        raise ConfigError(f"{flag_of(name)} {given!r}: alternatives separated by {sign} expected, none empty")
    return found


def usual(settings: dict[str, Any]) -> dict[str, Any]:
    """The defaults of the hyper-parameters, if all networks share one optimizer and schedule; else empty."""
    from ..settings.config import TrainConfig

    optimizers, schedules = options(settings, "optimizer"), options(settings, "schedule")
    if settings["design"] is not None or len(optimizers) > 1 or len(schedules) > 1:
        return {}
    plain = TrainConfig(optimizers[0], schedule=schedules[0], steps=1)
    return plain.values(settings["loss"])


def used(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of usual() that are not given."""
    return {name: value for name, value in usual(settings).items() if settings[name] is None}


def topology(given: str) -> tuple[int, ...]:
    """The widths of a topology."""
    try:
        return tuple(COUNT.read(part) for part in given.replace("-", ",").split(","))
    except (ValueError, ArithmeticError):
        raise ConfigError(f"--widths {given!r}: whole numbers separated by commas expected, such as 64,32,10") from None


def design(settings: dict[str, Any], prepared: Prepared) -> Design:
    """The design of `settings`: the cells of --design, or, where they are empty, the flags, whose ranges are sampled
    and whose lists make a grid, as in search/sampling.py. A flag's hyper-parameter is left out of rows whose rules lack
    it; a cell is not."""
    import numpy as np

    from ..runs.design import Design
    from ..search.sampling import sample, taken
    from ..settings.config import HYPER
    from ..system import free
    from ..system.free import size

    given = None
    if settings["design"] is not None:
        given = Design.of(settings["design"], entities=prepared.training.entities)
        settings["design"] = str(Path(settings["design"]).absolute())
    numbers = {name: settings[name] for name in (*HYPER, "init_scale", *WHOLE) if settings[name] is not None}
    _check(settings, numbers, given)
    settings["networks"] = count = (
        len(given) if given else settings["networks"] or (1000 if settings["per"] is None else 1)
    )
    if (room := free.too_little(count * BYTES)) is not None:
        raise OutOfMemoryError(f"{count:,} networks: their design needs {size(count * BYTES)}; {size(room)} free")
    sides = prepared.widths_in, prepared.widths_out
    choices: dict[str, Sequence[Any]] = {name: options(settings, name) for name in LISTS if settings[name] is not None}
    choices["widths"] = [topology(each) for each in choices.get("widths", [f"{sides[0]},32,{sides[1]}"])]
    if given is None and settings["hidden_width"] is None and len(choices["widths"]) == 1:
        settings["widths"] = ",".join(map(str, choices["widths"][0]))
    drawn = sample(numbers, count, settings["seed"], choices, settings["sampling"])
    drawn |= {name: each[0] for name, each in choices.items() if len(each) == 1}
    columns = {name: _each(values) for name, values in {**{name: settings[name] for name in COMMON}, **drawn}.items()}
    columns |= {name: np.rint(columns[name]) for name in WHOLE if name in columns}
    if "hidden_width" in columns:
        columns["widths"] = [(sides[0], int(each), sides[1]) for each in columns.pop("hidden_width")]
    hyper, plain = {name: columns.pop(name) for name in HYPER if name in columns}, usual(settings)
    hyper = {name: each for name, each in hyper.items() if settings[name] != plain.get(name)}  # else slots compute it
    if settings["class_weight"] is not None:
        hyper["class_weight"] = [class_weight(settings["class_weight"])]
    one = {name: each[0] for name, each in columns.items() if len(each) == 1}
    rows = Design.of(given or Design({}, count), **one)
    if many := {name: each for name, each in columns.items() if name not in one}:
        rows = rows.filled(Design.of(many))
    _check_widths(rows.columns["widths"], sides)
    for name, values in hyper.items():
        rows = taken(rows, name, values, flag_of(name))
    way = next((name for name in POSITIONS if settings[name] is not None), None)
    return rows if way is None else _placed(rows, f"--{way} {settings[way]}", prepared.training.networks or 0)


def shortfall(settings: dict[str, Any]) -> list[str]:
    """What the networks of these settings leave out of lists and ranges, for the user; nothing, or one note."""
    from ..search import sampling
    from ..settings.config import HYPER

    if settings["sampling"] != "sobol":
        return []
    given = [name for name in (*HYPER, "init_scale", *WHOLE, *LISTS) if settings[name] is not None]
    flags = {name: flag_of(name) for name in given}
    numbers = {flag: settings[name] for name, flag in flags.items() if name not in LISTS}
    choices = {flag: options(settings, name) for name, flag in flags.items() if name in LISTS}
    told = sampling.shortfall(numbers, settings["networks"], choices)
    return [] if told is None else [told]


def _check(settings: dict[str, Any], numbers: dict[str, Any], given: Design | None) -> None:
    """Refuse flags that do not go together."""
    from ..search import parse

    if settings["hidden_width"] is not None and settings["widths"] is not None:
        raise ConfigError("--hidden-width and --widths: one of them expected")
    parsed = {name: parse(flag_of(name), value) for name, value in numbers.items()}
    for name in WHOLE:
        if name in parsed:
            _check_whole(name, settings[name], parsed[name])
    if given is None:
        return
    if settings["networks"] not in (None, len(given)):
        raise ConfigError(f"--networks {settings['networks']}: the design has {counted(len(given), 'row')}")
    lists = [name for name in LISTS if len(options(settings, name)) > 1]
    for name in (*lists, *(name for name, value in parsed.items() if isinstance(value, list))):
        raise ConfigError(
            f"{flag_of(name)} {settings[name]}: with --design one value, for the rows whose cell is empty, expected"
        )


def _placed(rows: Design, flag: str, count: int) -> Design:
    """A network for each row and each of `count` positions of the data, with the row's seed; or the rows unchanged if
    they have a column fold or entity."""
    import numpy as np

    from ..runs.design import Design

    if "fold" not in rows.names:
        numbers, folds = np.arange(len(rows)), np.arange(count)
        rows = rows.filled(Design.of({"seed": numbers})).take(np.repeat(numbers, count))
        return rows.filled(Design.of({"fold": np.tile(folds, len(numbers))}))
    if None in (cells := rows.cells("fold")):
        raise ConfigError(f"{flag}: row {cells.index(None)} of the design has no fold, but others have")
    return rows


def class_weight(given: str) -> list[float] | str:
    """The numbers of --class-weight, or "balanced"."""
    from ..settings.class_weights import BALANCED

    if given == BALANCED:
        return given
    try:
        return [number(part) for part in given.split(",")]
    except ValueError:
        raise ConfigError(f"--class-weight {given!r}: numbers separated by commas, or {BALANCED}, expected") from None


def _each(values: Any) -> Any:
    """One value for all networks, or a list or array of one for each."""
    alone = isinstance(values, str | tuple) or not hasattr(values, "__len__")
    return [values] if alone else values.numpy() if hasattr(values, "numpy") else values


def _check_widths(widths: Column, sides: tuple[int, int]) -> None:
    """Refuse topologies that do not fit the data."""
    import numpy as np

    given = widths.options or ()
    wrong = [code for code, each in enumerate(given) if (each[0], each[-1]) != sides]
    for row in np.isin(widths.values, wrong).nonzero()[0]:
        found = ",".join(map(str, given[widths.values[row]]))
        raise ConfigError(f"widths {found}: the data need {sides[0]},...,{sides[1]}", f"design: row {row}")


def _check_whole(name: str, given: float | str, found: Any) -> None:
    """Refuse numbers that are not whole, except those drawn from a range, which are rounded."""
    from ..search import Range

    if isinstance(found, Range):
        fine = found.low >= 1
    else:
        fine = all(each >= 1 and each == int(each) for each in (found if isinstance(found, list) else [found]))
    if not fine:
        raise ConfigError(f"{flag_of(name)} {given}: whole numbers of 1 or more, or a range of them, expected")
