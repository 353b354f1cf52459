"""Types of flag values, each with one sentence for refusals; and FLAGS, what the tables and TrainConfig hold.

FLAGS is flags.json, written by scripts/flags.py and tested against the tables: help texts need not wait for torch,
which takes seconds to import.
"""

import json
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

FLAGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
MOST = 2**63 - 1  # the largest count in tensors and files
WRITTEN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def flag_of(setting: str) -> str:
    """The flag of a setting: --batch-size."""
    return f"--{setting.replace('_', '-')}"


class RefusedError(ArgumentTypeError, ValueError):
    """A refused value: argparse shows it for a flag, jsonargparse for a file."""


@dataclass(frozen=True)
class Kind:
    """The type of a flag for argparse, from a string of the command line or a value in a YAML file.

    name: in help. read: string, number or truth value -> the flag's value; raises ValueError or ArithmeticError. A list
    in a file is joined by commas. optional: null is allowed, as if the flag were absent.
    """

    name: str
    expected: str
    read: Callable[[Any], Any]
    optional: bool = False

    def __call__(self, given: Any) -> Any:
        """The value; raises RefusedError."""
        if self.optional and given in (None, "null"):
            return None
        value = ",".join(map(str, given)) if isinstance(given, list) else given
        try:
            if isinstance(value, (str, int, float)):
                return self.read(value)
        except (ValueError, ArithmeticError):
            pass
        shown = repr(given) if given == "" else "null" if given is None else str(given)
        raise RefusedError(f"{shown}: {self.expected} expected")

    def or_null(self) -> Self:
        """The same, with null allowed."""
        return replace(self, optional=True)


def number(text: str) -> float:
    """The finite number `text`: digits, point, exponent; raises ValueError for `nan`, `1_0` and everything else
    that Python accepts."""
    value = float(_written(text))
    if not math.isfinite(value):
        raise ValueError
    return value


def _written(text: str) -> str:
    if not WRITTEN.fullmatch(text.strip(" ")):
        raise ValueError
    return text.strip(" ")


def _text(given: Any) -> str:
    if isinstance(given, bool) or given == "" or "\0" in str(given):
        raise ValueError
    return str(given)


def _directory(given: Any) -> str:
    if "://" in (text := _text(given)):
        raise ValueError
    return text


def _whole(least: int) -> Callable[[Any], int]:
    def read(given: Any) -> int:
        count = Decimal(_written(_text(given)))  # 1e3 is a thousand
        if not least <= count <= MOST or count != int(count):
            raise ValueError
        return int(count)

    return read


def _counts(given: Any) -> int | str:
    found = [_whole(1)(part) for part in _text(given).split(",")]
    return found[0] if len(found) == 1 else ",".join(map(str, found))


def _lengths(given: Any) -> int | str:
    text = _text(given)
    return text if ".." in text else _counts(text)  # parsed by search/sampling.py


def _number(given: Any) -> float:
    value = number(_text(given))
    if value < 0:
        raise ValueError
    return value


def _numbers(given: Any) -> float | str:
    text = _text(given)
    try:
        return number(text)
    except ValueError:
        return text  # parsed by search/sampling.py


def _truth(given: Any) -> bool:
    if str(given).lower() not in ("true", "false"):
        raise ValueError
    return str(given).lower() == "true"


TEXT = Kind("TEXT", "a text", _text)
RUN = Kind("RUN", "a directory on this machine, to which a run at a URL is copied first,", _directory)
COUNT = Kind("COUNT", "a whole number of 1 or more", _whole(1))
COUNTS = Kind("COUNTS", "a whole number of 1 or more, or several separated by commas", _counts)
LENGTHS = Kind(
    "LENGTHS",
    "a whole number of 1 or more, a range LOW..HIGH or LOW..HIGH:log, or several separated by commas",
    _lengths,
)
INDEX = Kind("INDEX", "a whole number of 0 or more", _whole(0))
NUMBER = Kind("NUMBER", "a number of 0 or more", _number)
NUMBERS = Kind("NUMBERS", "a number, a range LOW..HIGH or LOW..HIGH:log, or numbers separated by commas", _numbers)
TRUTH = Kind("true|false", "true or false", _truth)
KINDS = {each.name: each for each in (TEXT, COUNT, COUNTS, LENGTHS, INDEX, NUMBER, NUMBERS, TRUTH)}
