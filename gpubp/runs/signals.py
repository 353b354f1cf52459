"""Signals that end training early: everything is saved, then the previous handler is called.

Ignored signals stay ignored. A handler that Python did not install stays, as Python could not restore it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from ..results.result import Result

ENDING = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal that ends the command line like Ctrl-C. number: the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending at once; a second SIGINT still ends at once. Only in the
    main thread; elsewhere the list stays empty."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    with ExitStack() as before:
        for number in ENDING if threading.current_thread() is threading.main_thread() else ():
            handler = signal.getsignal(number)
            if handler is not None and handler is not signal.SIG_IGN:
                before.callback(signal.signal, number, handler)
                signal.signal(number, handle)
        yield received


def delivered(result: Result, more: str | None = None) -> Result:
    """`result`, if no signal ended the run. Otherwise the signal is raised again: Ctrl-C raises KeyboardInterrupt,
    SIGTERM ends the process, or the caller's handler is called; exceptions carry `result` as an attribute. more: how to
    continue, see kept()."""
    if result.interrupted is None:
        return result
    from ..results.result import kept  # here, because the command line imports this file without torch

    with kept(result, more=more):
        signal.raise_signal(result.interrupted)
    return result


@contextmanager
def terminating() -> Iterator[None]:
    """SIGTERM raises Stopped if it would end the process silently."""
    with ExitStack() as before:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, _stop)
        yield


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
