"""Small operations are computed by the thread that asks."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gpubp
from gpubp import TensorBoardReporter, stopping
from gpubp.reporters.snapshot import Snapshot
from gpubp.system.threads import one_thread

from .helpers import noted, threads
from .short_runs import hears


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    with threads(3):
        yield


def test_one_thread_is_the_callers_alone_and_ends() -> None:
    seen = []
    with one_thread():
        assert torch.get_num_threads() == 1
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == [3]
    assert torch.get_num_threads() == 3


def test_a_loop_decides_and_reports_in_one_thread_and_trains_in_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    listening, reports = set[int](), TensorBoardReporter
    works = (stopping, "decide"), (Snapshot, "summary"), (reports, "show"), (reports, "outcome")
    small = [noted(monkeypatch, where, name, lambda *given: torch.get_num_threads()) for where, name in works]
    listener = hears(evaluated=lambda record: listening.add(torch.get_num_threads()))
    curves = TensorBoardReporter(tmp_path)
    networks = gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 3)
    data = gpubp.Dataset(torch.rand(5, 2), torch.rand(5, 2))
    gpubp.train(networks, data, gpubp.TrainConfig(steps=2), reporters=[listener, curves])
    assert [{*each} for each in small] == [{1}] * 4
    assert listening == {3}
