"""One class per kind of mistake. Every message says what, where, what was given and what is allowed."""

from __future__ import annotations

import difflib
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .line import line, short

Row = TypeVar("Row")


class GpubpError(ValueError):
    """Everything this package refuses; catch this one to catch them all. Its message is one line, always, and no
    longer than a person reads."""

    def __init__(self, message: object) -> None:
        super().__init__(short(line(message)))


class SpecError(GpubpError):
    """A network that cannot be built."""


class ShapeError(GpubpError):
    """A tensor whose shape does not fit. Nothing is broadcast silently."""


class ConfigError(GpubpError):
    """A training setting that cannot be used."""


class DataError(GpubpError):
    """Samples, or a file of samples, that cannot be trained on."""


class DeviceError(GpubpError):
    """A device that this machine or this torch does not have."""


class EngineError(GpubpError):
    """An engine that cannot do what is asked of it."""


class CheckpointError(GpubpError):
    """A run directory or checkpoint that is damaged, foreign or of another version."""


class OutOfMemoryError(GpubpError):
    """A population that does not fit; the message says what it takes and what to change."""


def warn(message: object) -> None:
    """Warn at the line that called the package, each time: Python itself says the same of a line once."""
    frame, inside = sys._getframe(1), (__package__, "contextlib")  # the latter calls what a context decorates
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame = frame.f_back
    place = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    warnings.warn_explicit(short(line(message)), UserWarning, *place)


def reason(error: BaseException, otherwise: str) -> str:
    """Why something failed, in the package's words or the system's; `otherwise` where another library has others."""
    if isinstance(error, GpubpError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: JSON expected"
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return otherwise


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'relu'?`, or nothing where no allowed name is near."""
    near = difflib.get_close_matches(str(name), list(allowed), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest name that is."""
    names = sorted(allowed)
    return f"{what} {name!r} is unknown{nearest(name, names)}; allowed: {', '.join(names)}"


def lookup(table: Mapping[str, Row], name: object, what: str, error: type[GpubpError] = SpecError) -> Row:
    """The row `name` of `table`; raises `error` with the nearest name where there is none."""
    if isinstance(name, str) and name in table:
        return table[name]
    raise error(unknown(what, name, table))


def one_of(allowed: Iterable[str], name: object, what: str, error: type[GpubpError] = ConfigError) -> str:
    """`name`, which must be one of `allowed`; raises `error` with the nearest one otherwise."""
    names = list(allowed)
    if isinstance(name, str) and name in names:
        return name
    raise error(unknown(what, name, names))
