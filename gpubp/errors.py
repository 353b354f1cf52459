"""One class per kind of error. Every message says what, where, what was given and what is allowed."""

import difflib
import json
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from .line import line, short

Row = TypeVar("Row")


class GpubpError(ValueError):
    """Base class of the package's errors. The message is one line of limited length. where: rows of a design, put
    before the message; `bare` leaves them out."""

    def __init__(self, message: object, where: str = "") -> None:
        super().__init__(short(line(f"{where}: {message}" if where else message)))
        self.bare = short(line(message))


class SpecError(GpubpError):
    """A network that cannot be built."""


class ShapeError(GpubpError):
    """A tensor of the wrong shape. Nothing is broadcast silently."""


class ConfigError(GpubpError):
    """An invalid training setting."""


class DataError(GpubpError):
    """Samples, or a file of samples, that cannot be trained on."""


class DeviceError(GpubpError):
    """A device that this machine or this torch does not have."""


class EngineError(GpubpError):
    """An engine that cannot run a configuration."""


class CheckpointError(GpubpError):
    """A run directory or checkpoint that is damaged, foreign or of another version."""


class ClusterError(GpubpError):
    """A cluster that was lost, or whose workers keep dying. Repeating the call continues from what was saved."""


class OutOfMemoryError(GpubpError):
    """A population that does not fit in memory; the message says what it needs and what to change."""


def warn(message: object) -> None:
    """Warn at the line that called the package, every time: Python shows a repeated warning of a line once."""
    frame, inside = sys._getframe(1), (__package__, "contextlib")  # contextlib calls decorated functions
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame = frame.f_back
    place = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    warnings.warn_explicit(short(line(message)), UserWarning, *place)


def reason(error: BaseException, otherwise: str) -> str:
    """Why something failed, in the package's or the system's words; `otherwise` if another library raised it."""
    if isinstance(error, GpubpError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}; JSON expected"
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return "memory has run out" if isinstance(error, MemoryError) else otherwise


def check_kind(
    what: str, given: object, kind: type, optional: bool = False, error: type[GpubpError] = ConfigError, call: str = ""
) -> None:
    """Raise `error` unless `given` is a `kind`, or None if it is optional. call: the call that gives it."""
    if not isinstance(given, kind) and not (optional and given is None):
        raise error(f"{what} is a {type(given).__name__}, {kind.__name__} expected{call and f': {call}'}")


ELSEWHERE = {  # names of settings in scikit-learn, Keras, torch, JAX and others -> here
    "activation": "hidden", "batch": "batch_size", "criterion": "loss", "dropout_rate": "dropout", "epsilon": "eps",
    "hidden_layer_sizes": "widths", "hidden_sizes": "widths", "hidden_width": "widths", "iterations": "steps",
    "layers": "widths", "learning_rate": "lr", "learning_rate_init": "lr", "lr_scheduler": "schedule",
    "max_epochs": "epochs", "max_iter": "epochs", "max_norm": "clip_norm", "max_steps": "steps",
    "n_iter_no_change": "patience", "num_epochs": "epochs", "random_state": "seed", "scheduler": "schedule",
    "solver": "optimizer", "step_count": "steps", "warmup_steps": "warmup",
}  # fmt: skip


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'relu'?`, or nothing if no allowed name is close. Case does not count; another library's word for
    an allowed name comes first."""
    folded, given = {each.casefold(): each for each in allowed}, str(name).casefold()
    here = [each for each in folded if each.replace("-", "_") == ELSEWHERE.get(given.replace("-", "_"))]
    near = here or difflib.get_close_matches(given, folded, 1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not in a table, with the nearest one."""
    names = sorted(allowed)
    return f"{what} {name!r} is unknown{nearest(name, names)}; allowed: {', '.join(names)}"


def lookup(table: Mapping[str, Row], name: object, what: str, error: type[GpubpError] = SpecError) -> Row:
    """The row `name` of `table`; raises `error` with the nearest name if there is none."""
    return table[one_of(table, name, what, error)]


def one_of(allowed: Collection[str], name: object, what: str, error: type[GpubpError] = ConfigError) -> str:
    """`name`, which must be one of `allowed`; raises `error` with the nearest one otherwise."""
    if isinstance(name, str) and name in allowed:
        return name
    raise error(unknown(what, name, allowed))
