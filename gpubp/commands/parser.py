"""Parser: flags by kind. A refused value and an unknown flag end with one line and status 2."""

import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from ..errors import GpubpError, nearest, unknown
from ..line import line, short
from ..system import config_file
from ..system.flags import RUN, Kind

BROKEN = 4  # the status if a promise does not hold
STATUSES = {  # of the process when it ends
    "0": "success",
    "1": "an error, in one sentence on standard error",
    "2": "a wrong flag, or a wrong setting in the file of --config, in one sentence too",
    "3": "training ended, but a checkpoint, results or curves could not be written",
    str(BROKEN): "gpubp verify found a promise that does not hold, or gpubp replay a network that is not the run's",
    "128 + n": "after signal n: 130 Ctrl-C and 143 SIGTERM, which save a run first; 141 nobody reads standard output",
}


class Help(jsonargparse.DefaultHelpFormatter):
    """The help of a flag, with its default if it has one."""

    def _get_help_string(self, action: Action) -> str:
        plain = action.default in (None, SUPPRESS) or isinstance(action.default, bool)
        return (action.help or "") + ("" if plain else f" (default: {action.default})")


class Parser(jsonargparse.ArgumentParser):
    """Errors are one line, and name the nearest flag."""

    commands: dict[str, "Parser"] = {}
    flags: tuple[str, ...] = ()

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=Help, **settings)
        self.typed: dict[str, Callable[[Path, Any, Any], Any]] = {}  # how a file's value and a flag's combine
        self.files: list[tuple[str, Path, Any]] = []  # what files say about these settings

    def flag(self, name: str, kind: Kind, about: str, default: Any = None, also: Sequence[str] = ()) -> None:
        """Add --name, and further names for it; without a default it may be null in a file, as if absent."""
        known = kind.or_null() if default is None else kind
        self.add_argument(name, *also, type=known, default=default, help=about, metavar=kind.name)

    def switch(self, name: str, about: str) -> None:
        """Add --name, without a value."""
        self.add_argument(name, action="store_true", help=about)

    def format_help(self, *formatter: Any, **named: Any) -> str:
        """The help, without the control character that jsonargparse puts into the text of --print_config."""
        return str(super().format_help(*formatter, **named)).replace(" \b", "")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with status 2 and one line with the error."""
        sys.stderr.write(f"error: {short(self.reworded(line(message)))}\n")
        raise SystemExit(2)

    def parse_path(self, path: Any, *arguments: Any, **settings: Any) -> Any:
        """The file of --config, refused unless plain: jsonargparse would follow everything that it refers to."""
        try:
            found = config_file.read(Path(path))
        except GpubpError as error:
            self.error(str(error))
        if not isinstance(found, dict):
            self.error(f"{path}: settings by name expected, such as networks: 100")
        if "config" in found:
            self.error(f"{path}: the setting 'config' is unknown: a file of settings names no other")
        merged = super().parse_path(path, *arguments, **settings)
        self.files += [(name, Path(path), merged.pop(name)) for name in self.typed if name in merged]
        return merged

    def parse_args(self, *arguments: Any, **settings: Any) -> Any:
        """See ArgumentParser."""
        self.files.clear()
        found = super().parse_args(*arguments, **settings)
        for name, path, value in self.files:
            try:
                found[name] = self.typed[name](path, value, found[name])
            except GpubpError as error:
                self.error(str(error))
        return found

    def reworded(self, message: str) -> str:
        """A message of argparse or jsonargparse, in the package's words."""
        if found := re.match(r"argument subcommand: invalid choice: '(.*?)'", message):
            return unknown("command", found[1], self.commands)
        if message.startswith("Unexpected config: "):
            return "--config: a readable file of settings expected"
        if message.startswith('expected "subcommand"'):
            return f"a command expected: {', '.join(self.commands)}; gpubp --help"
        if found := re.match(r"argument ([\w-]+): (.*)", message):
            return f"{found[1]} {found[2]}"
        if found := re.match(r"""Parser key "config": (?:File|Path) .*?: '(.*)'""", message):
            return f"--config {found[1]}: a readable file of settings expected"
        if found := re.match(r'Parser key "(\w+)": (.*)', message):  # of a file
            return f"{found[1]} {found[2]}"
        if found := re.match(r"Option '([\w.-]+)' is not accepted", message):  # in a file, without a command
            return unknown("setting", found[1], {action.dest for action in self._actions} - {"help"})
        if found := re.search(r"accept option '([\w.-]+)'", message):  # of a file
            known = [flag.removeprefix("--").replace("-", "_") for flag in self.flags]
            return f"--config: the setting {found[1]!r} is unknown{nearest(found[1], known)}"
        if found := re.search(r"unrecognized arguments: --([\w-]+)", message):
            near = nearest(found[1].replace("_", "-"), [flag.removeprefix("--") for flag in self.flags])
            return message + (self._elsewhere(f"--{found[1]}") or near.replace("mean '", "mean '--"))
        if found := re.fullmatch(r"the following arguments are required: (.*)", message):
            names = [name.rpartition(".")[2] for name in found[1].split(", ")]
            flags = [f"--{name}" if f"--{name}" in self.flags else name.upper() for name in names]
            return f"{' and '.join(flags)} expected; --help has all"
        return message

    def _elsewhere(self, flag: str) -> str:
        """The commands that have the flag."""
        homes = [name for name, each in self.commands.items() if flag in each._option_string_actions]
        stays = "; a run keeps its settings" if homes == ["train"] and flag != "--run-dir" else ""
        return f"; {flag} is a flag of gpubp {', '.join(homes)}{stays}" if homes else ""


def run_parser(about: str) -> Parser:
    """Flags of a command that takes a run."""
    flags = Parser(description=about)
    flags.add_argument("run", type=RUN, help="the directory of a run")
    return flags


def values(flags: Parser, found: Any) -> dict[str, Any]:
    """What `flags` have parsed; null in a file is the default."""
    usual = flags.get_defaults().as_dict()
    return {name: usual[name] if value is None else value for name, value in found.as_dict().items()}
