"""gpubp dashboard: TensorBoard on the curves of a run, or of all runs in a folder, in the foreground, only for this
machine."""

import contextlib
import io
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ConfigError
from ..line import line
from ..system.flags import INDEX, RUN
from .parser import Parser

ABOUT = "look at curves in TensorBoard"
HOST = "127.0.0.1"  # out of reach for other machines: TensorBoard has no password
FILES = "events.out.tfevents.*"
# Leaves out the curves of single networks, for two kinds of tabs: with more than 40 runs, some tabs show none.
SHOWN = "?runFilter={0}#timeseries&regexInput={0}".format(quote("^(?!.*hparams/network_)", safe=""))


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(description="Start TensorBoard on a run, or on the runs in a folder. Ctrl-C ends it.")
    flags.add_argument("run", type=RUN, nargs="?", default="runs", help="a run's directory, or a folder of runs")
    flags.flag("--port", INDEX, "of the loopback interface; by default the first free one from 6006")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Serve until Ctrl-C."""
    folder = Path(settings["run"])
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no directory; that of a run, or of several, expected")
    if next(folder.rglob(FILES), None) is None:
        raise ConfigError(
            f"{folder} has no curves: none of its runs was trained with --tensorboard true, from Python with "
            "reporters=[gpubp.TensorBoardReporter(folder)]; gpubp inspect shows a run without them"
        )
    if settings["port"] is not None:
        _check(settings["port"])
    print(_served(folder, settings["port"]), flush=True)
    sys.stderr.write(f"TensorBoard shows {line(folder)}; Ctrl-C ends it\n")
    try:
        threading.Event().wait()
    except KeyboardInterrupt as stopped:
        if getattr(stopped, "number", signal.SIGINT) != signal.SIGINT:
            raise
    return 0


def _check(port: int) -> None:
    """Raise ConfigError unless a server can have the port."""
    try:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as TensorBoard's
            server.bind((HOST, port))
    except (OSError, OverflowError) as error:
        why = "0 to 65535 expected" if isinstance(error, OverflowError) else str(error.strerror)
        raise ConfigError(f"--port {port}: {why}; without it, TensorBoard takes the first that is free") from None


def _served(folder: Path, port: int | None) -> str:
    """The address of a TensorBoard, which ends with this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from tensorboard import program
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "gpubp[tensorboard]"') from None
        board = program.TensorBoard()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # drops advice on reporting faults of its loader
            board.configure(logdir=str(folder.absolute()), host=HOST, port=port)
            return f"{board.launch()}{SHOWN}"
    except program.TensorBoardServerException as error:
        raise ConfigError(f"TensorBoard does not start: {error.msg}") from None
