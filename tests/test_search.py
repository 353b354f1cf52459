"""search.py: an expression is a number, a range or a list, exactly; nothing is guessed of anything else."""

from __future__ import annotations

from typing import Any

import pytest

from gpubp.errors import ConfigError
from gpubp.search import Range, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01), (".5", 0.5), ("5.", 5.0), ("+1e-3", 1e-3), ("1E3", 1000.0), (2, 2.0), (0.1, 0.1), ("-2", -2.0),
        ("1e-4..1e-1", Range(1e-4, 1e-1, False)), ("1e-4..1e-1:log", Range(1e-4, 1e-1, True)),
        ("-1..2:linear", Range(-1.0, 2.0, False)), ("1 .. 2", Range(1.0, 2.0, False)),
        ("0.1,0.01", [0.1, 0.01]), ("0.1, 0.01", [0.1, 0.01]), ([0.1, 2], [0.1, 2.0]), ([0.1], 0.1),
    ],
)  # fmt: skip
def test_an_expression_means_what_is_written(text: Any, value: Any) -> None:
    assert parse("lr", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "..", ":", ":log", "1..", "..2", "1..2..3", "1...2", "0...2", "1..2:", "1..2:LOG", "1..2:log:log",
        "1e-4...1e-1", "1..2: log", "1,2:log", "1,,2", ",1", "1,", "1..2,3", "1,2..3", "2..1", "1..1", "0..1:log",
        "1:log", "-1..1:log", "1e-400..1:log", "nan", "inf", "nan,1", "1..inf", "-inf..1", "1..nan", "1e400",
        "-1e308..1e308", "1_000", "1_0..2_0", "\uff11", "\u0661..\u0662", "0x10", "1/2", "2**3", "1-2",
        "1e-4-1e-1", "1;2", "1 2", "1e", "++1", "--1", "0.1f", "[1,2]", "(1,2)", "'0.1'", "true", "None", "1\n",
        "1\n,2", "1\u20262", "1e\u22124..1", True, [True, 2], [[1, 2]], [None], 10**400, float("nan"), None, {},
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_number_a_range_or_a_list_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"^lr .*: a number, a range LOW\.\.HIGH or LOW\.\.HIGH:log with LOW < HIGH"):
        parse("lr", text)
