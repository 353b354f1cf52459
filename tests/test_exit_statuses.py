"""The exit statuses of the command line are those of one table, which the help and the reference show."""

import io
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gpubp import cli
from gpubp.commands.parser import STATUSES, Parser
from made.commands import statuses

from .commands import run
from .files import status

ROOT = Path(cli.__file__).parent.parent


def test_the_help_and_the_reference_show_the_table() -> None:
    shown = " ".join(cli.parser().format_help().split())
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert [*STATUSES] == ["0", "1", "2", "3", "4", "128 + n"]
    for each, what in STATUSES.items():
        assert f"{each} {what}" in shown
        assert f"| {each} | {what} |" in statuses()
    assert "<!-- made: statuses -->" in page


def test_help_holds_no_control_character() -> None:
    for command in cli.COMMANDS.values():
        assert command.parser().format_help().replace("\n", "").isprintable()


@pytest.fixture(name="ended")
def a_run_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    short = "--networks 2 --steps 2 --engine eager --device cpu --tensorboard false"
    run(f"train --data xor --run-dir run {short}", capsys)


def test_success_errors_and_wrong_flags_have_their_status(ended: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("networks: none\n")
    for arguments, found in {
        "inspect run": 0, "--version": 0, "inspect nothing": 1, "predict run --data nothing.csv": 1,
        "inspect run --nope": 2, "inspected run": 2, "train --config wrong.yaml": 2, "train --networks 0": 2,
        "train --config=": 2,
    }.items():  # fmt: skip
        assert status(arguments.split()) == found, arguments
        told = capsys.readouterr().err.splitlines()
        assert [each.startswith("error: ") for each in told] == [True] * (found > 0), arguments


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
def test_a_command_that_a_signal_ends_has_its_status(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        if number == signal.SIGPIPE:
            raise BrokenPipeError
        signal.raise_signal(number)
        return 0

    command = ModuleType("command")
    command.parser, command.run, command.ABOUT = Parser, run, ""  # type: ignore[attr-defined]
    monkeypatch.setitem(cli.COMMANDS, "inspect", command)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert status(["inspect"]) == 128 + number
