"""`gpubp ...` as a person types it, each test in a folder of its own."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from . import files

Capture = pytest.CaptureFixture[str]


def run(arguments: str, capsys: Capture, status: int = 0) -> str:
    """Standard output of `gpubp arguments`."""
    assert files.status(arguments.split()) == status
    return capsys.readouterr().out


def error(arguments: str, capsys: Capture, status: int = 1) -> str:
    """Standard error of `gpubp arguments`."""
    assert files.status(arguments.split()) == status
    return capsys.readouterr().err


def refused(arguments: str | list[str], capsys: Capture, status: int = 1) -> str:
    """The one line, after "error: ", that says why `gpubp arguments` is refused."""
    words = arguments.split() if isinstance(arguments, str) else arguments
    assert files.status(words) == status
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def trained(arguments: str, capsys: Capture) -> dict[str, Any]:
    """The JSON object that `gpubp train arguments --json` ends with, by the engine that compiles nothing, without
    curves."""
    return json.loads(run(f"train --tensorboard false {arguments} --engine eager --json", capsys).splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def columns(name: str, table: str = "results") -> dict[str, list[Any]]:
    return pyarrow.parquet.read_table(f"{name}/{table}.parquet").to_pydict()  # type: ignore[no-any-return]
