"""The reference of the command line, from its parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any

from gpubp.cli import COMMANDS
from gpubp.commands.parser import STATUSES


def safe(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_<>\[\]|$])", r"\\\1", text)


def described(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The arguments and flags of a command, a definition each."""
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar or action.dest.upper()}"
        flags = [each for each in action.option_strings if each.startswith("--")]
        name = "`, `".join(f"{each}{value}" for each in flags or [action.dest.upper()])
        name = re.sub(r" [\x00-\x1f\x7f]", "", name)  # jsonargparse's --print_config[=flags]
        off = action.default in (None, argparse.SUPPRESS) or isinstance(action.default, bool)
        usual = "" if off else f" Default: `{action.default}`."
        yield f"`{name}`\n: {safe(action.help or '').rstrip('.')}.{usual}"


def command(name: str, module: Any) -> str:
    """The part of one command."""
    parser = module.parser()
    return "\n\n".join([f"## gpubp {name}", safe(parser.description or module.ABOUT), *described(parser)])


def commands() -> str:
    """All commands."""
    return "\n\n".join(command(name, module) for name, module in COMMANDS.items())


def statuses() -> str:
    """The table of exit statuses."""
    return "\n".join(
        ["| exit status | when |", "| --- | --- |", *(f"| {each} | {what} |" for each, what in STATUSES.items())]
    )


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "statuses": statuses}
