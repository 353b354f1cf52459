"""gpubp dashboard: TensorBoard for this machine alone, until Ctrl-C, with nothing left running."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch

import gpubp

from .browser import chromium  # noqa: F401
from .commands import Capture, error, run


@contextmanager
def dashboard(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of `gpubp dashboard`, and the address that it prints."""
    words = [sys.executable, "-m", "gpubp", "dashboard", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as board:
        try:
            yield board, board.stdout.readline().strip()  # type: ignore[union-attr]
        finally:
            board.kill()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Path]:
    """A folder with a run."""
    population = gpubp.Population.create(gpubp.NetworkSpec((1, 1)), 3)
    data = gpubp.Dataset([[0.0], [1.0]], [[0.0], [1.0]])
    folder = tmp_path / "runs" / "one" / "tensorboard"
    reporters = [gpubp.TensorBoardReporter(folder)]
    gpubp.train(population, data, gpubp.TrainConfig(steps=4), reporters=reporters, engine="eager")
    return tmp_path / "runs"


def running(*which: str) -> list[str]:
    """The ids of the processes that `ps` finds, but for those that have ended."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", *which], capture_output=True, text=True).stdout
    return [number for number, state in map(str.split, found.splitlines()) if state[0] != "Z"]


def test_it_serves_the_runs_on_the_loopback_interface_and_ends_with_ctrl_c(made: Path) -> None:
    with dashboard(made) as (board, link):
        address, _, shown = link.partition("?")
        assert address.startswith("http://127.0.0.1:")
        shown = re.compile(unquote(shown.partition("regexInput=")[2]))
        until, names = time.monotonic() + 30, list[str]()
        while time.monotonic() < until and len(names) < 4:
            names = json.load(urllib.request.urlopen(f"{address}data/runs", timeout=10))
        assert [name for name in names if shown.search(name)] == ["one/tensorboard"], "not its best networks"
        helpers = running("--ppid", str(board.pid))
        board.send_signal(signal.SIGINT)
        _, told = board.communicate(timeout=30)
    assert (board.returncode, told) == (0, f"TensorBoard shows {made}; Ctrl-C ends it\n")
    while helpers and running("-p", ",".join(helpers)):
        assert time.monotonic() < until + 30, "its helper is left running"
        time.sleep(0.05)


def test_what_it_cannot_show_is_said(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "empty").mkdir()
        for words, wanted in (
            (tmp_path / "none", "none is no directory"),
            (tmp_path / "empty", "empty has no curves: none of its runs was trained with --tensorboard true"),
            (f"{made} --port {port}", f"--port {port}: Address already in use; without it"),
            (f"{made} --port 70000", "--port 70000: 0 to 65535 expected"),
        ):
            assert wanted in error(f"dashboard {words}", capsys)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert 'pip install "gpubp[tensorboard]"' in error(f"dashboard {made}", capsys)


@pytest.mark.slow
def test_a_run_of_ten_thousand_networks_is_shown_in_less_than_five_seconds(chromium: Any, tmp_path: Path) -> None:
    """From the address to the first curve, the fastest of three: others may use the processors."""
    data, count = gpubp.load_data("iris"), 10_000
    population = gpubp.Population.create(gpubp.NetworkSpec((4, 6, 3), "tanh", loss=data.loss), count)
    config = gpubp.TrainConfig(lr=torch.logspace(-4, -1, count), epochs=60, evaluate_every=1)
    reporter = gpubp.TensorBoardReporter(tmp_path / "run" / "tensorboard")
    gpubp.train(population, data.training, config, data.validation, reporters=[reporter])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*tfevents*")) < 2e6
    seconds = []
    with dashboard(tmp_path) as (_, address):
        for _ in range(3):
            page, begun = chromium.new_page(), time.monotonic()
            page.goto(address)
            page.locator("card-view svg").first.wait_for(timeout=60_000)
            seconds.append(time.monotonic() - begun)
            page.close()
    print(*(f"{each:.2f} s" for each in seconds))
    assert min(seconds) < 5


@pytest.mark.parametrize("more", [["--json"], ["--hidden-width", "2,3"]], ids=str)
def test_a_run_whose_networks_all_diverge_ends_like_any_other(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--data iris --lr 1e30 --networks 2 --epochs 2 --engine eager --run-dir lost --tensorboard true"
    assert "2 diverged." in error(f"train {flags} {' '.join(more)}", capsys, 0)
    for command in ("inspect", "report"):
        run(f"{command} lost", capsys)
    for words in ("predict lost --data lost.csv", "export lost"):
        assert "every network diverged" in error(words, capsys)
