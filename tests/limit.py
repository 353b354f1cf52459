"""pytest --until: no test is begun after it, and one that still runs has its process ended.

So a run has an end, and its report names what it lacks. Under pytest-xdist a process that ended is a failure of the
test that it was at, and another takes its place.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Iterator

import pytest

GRACE = 15.0  # seconds after the end that a test has: it may compile some kernels


def add(parser: pytest.Parser) -> None:
    """The flag."""
    parser.addoption("--until", type=float, help="seconds since 1970, after which no test is begun")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    until = item.config.getoption("--until")
    if until is None:
        return (yield)
    left = max(0.0, until - time.time()) + GRACE
    faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_setup(item: pytest.Item) -> None:
    until = item.config.getoption("--until")
    if until is not None and time.time() > until:
        pytest.skip("no time left")
