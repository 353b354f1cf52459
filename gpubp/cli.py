"""The command line: gpubp COMMAND, with the commands of COMMANDS. scripts/train.py is `gpubp train`.

Flags override the file of --config, which overrides the defaults. Results go to standard output, progress to standard
error. A command imports what it needs after its flags are read: help, the version and refusals do not wait for torch.
"""

import signal
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from . import __version__
from .commands import dashboard, explain, export, inspect, predict, replay, report, resume, train, verify
from .commands.parser import STATUSES, Parser, values
from .errors import GpubpError
from .line import line, short
from .runs.signals import terminating
from .system.lean import without_pandas

DEMO = ["--lr", "1e-4..1e-1:log"]  # the flags of `train` if none are given


COMMANDS = {
    "train": train, "resume": resume, "inspect": inspect, "report": report, "dashboard": dashboard,
    "predict": predict, "export": export, "explain": explain, "replay": replay, "verify": verify,
}  # fmt: skip


def parser() -> Parser:
    """The whole command line."""
    return _described(*COMMANDS.items())


@cache  # describing it takes as long as a small training
def _described(*commands: tuple[str, ModuleType]) -> Parser:
    ends = "; ".join(f"{status} {what}" for status, what in STATUSES.items())
    top = Parser(
        prog="gpubp", description="Train very many small neural networks at once.", epilog=f"exit status: {ends}"
    )
    top.add_argument("--version", action="version", version=f"gpubp {__version__}", help="show the version and exit")
    subcommands = top.add_subcommands()
    Parser.commands = {name: command.parser() for name, command in commands}
    for name, command in commands:
        subcommands.add_subcommand(name, Parser.commands[name], help=command.ABOUT)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of this process. -> exit status, one of STATUSES."""
    try:
        with terminating():
            given = [_dashed(each) for each in (sys.argv[1:] if arguments is None else arguments)]
            return _run(given, ours=arguments is None)
    except GpubpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt as stopped:  # before training; commands/outcome.py handles it later
        number = getattr(stopped, "number", signal.SIGINT)
        if not hasattr(stopped, "result"):  # otherwise the summary has said so
            sys.stderr.write(f"stopped by {signal.Signals(number).name}\n")
        return 128 + number
    except BrokenPipeError:  # the reader of standard output is gone
        sys.stderr.close()
        return 141
    except MemoryError:
        sys.stderr.write("error: memory has run out; less data, or fewer networks at once, expected\n")
        return 1
    except OSError as error:  # a file or folder that could not be read or written
        place = "" if error.filename is None else f"{line(error.filename)}: "
        sys.stderr.write(f"error: {short(place + line(error.strerror or error))}\n")
        return 1


def _run(given: list[str], ours: bool) -> int:
    if given == ["train"]:
        sys.stderr.write(f"no flags, so: gpubp train {' '.join(DEMO)}\n")
        given += DEMO
    chosen = next((COMMANDS[name].parser() for name in given if name in COMMANDS), Parser(add_help=False))
    Parser.flags = tuple(option for action in chosen._actions for option in action.option_strings)
    settings: Any = parser().parse_args(given)
    if ours:
        without_pandas()
    return int(COMMANDS[settings.subcommand].run(values(chosen, settings[settings.subcommand])))


def _dashed(argument: str) -> str:
    """--batch_size means --batch-size."""
    flag, equals, value = argument.partition("=")
    if flag == "--print_config":  # jsonargparse's own
        return argument
    return (flag.replace("_", "-") if flag.startswith("--") else flag) + equals + value
