"""Signals that end a training early: everything is saved, then whoever handled the signal before hears of it.

A signal that its owner ignores stays ignored, and a handler that Python did not install, and could not put back, stays.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .result import Result

ENDING = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal that ends the command line as Ctrl-C does. number: which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def collected() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put in a list instead of ending at once; a second SIGINT does end at once. Only the main
    thread can; elsewhere the list stays empty."""
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


def delivered(result: Result) -> Result:
    """`result`, of a run that no signal ended. Else the signal is sent anew: Ctrl-C raises KeyboardInterrupt, SIGTERM
    ends the process, a handler of the caller's own is called; what it raises carries the result as `result`."""
    if result.interrupted is None:
        return result
    from .result import kept  # not above: the command line imports this file, and waits for no torch

    with kept(result):
        signal.raise_signal(result.interrupted)
    return result


@contextmanager
def terminating() -> Iterator[None]:
    """SIGTERM raises Stopped where it would end the process without a word."""
    with ExitStack() as before:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            before.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, _stop)
        yield


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
