"""pytest --device: steps are taken elsewhere and brought back, by every file that is not kept here with a reason."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch

from gpubp.engines import cpu

from .conftest import HERE, pytest_ignore_collect, pytest_runtest_logfinish
from .elsewhere import elsewhere
from .helpers import compiled, differences, population, same_bits, samples, train  # noqa: F401
from .test_compiled import case

ROOT = Path(__file__).parent.parent


def test_files_that_stay_here_are_there_and_are_left_out(pytestconfig: pytest.Config) -> None:
    names = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert set(sum(HERE.values(), ())) <= names
    away = argparse.Namespace(getoption=lambda name: "played")
    left_out = {name for name in names if pytest_ignore_collect(ROOT / "tests" / f"test_{name}.py", away)}  # type: ignore[arg-type]
    assert left_out == set(sum(HERE.values(), ()))
    assert not any(pytest_ignore_collect(ROOT / "tests" / f"test_{name}.py", pytestconfig) for name in names)


def test_a_process_of_pytest_that_lost_its_gpu_ends_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for sound, processes, expected in ((True, True, []), (False, False, []), (False, True, [3])):
        monkeypatch.setattr(torch.cuda, "synchronize", (lambda: None) if sound else lost)
        with monkeypatch.context() as patch:
            patch.setenv("PYTEST_XDIST_WORKER", "gw0") if processes else patch.delenv("PYTEST_XDIST_WORKER", False)
            pytest_runtest_logfinish()
        assert ended == expected


def test_steps_taken_elsewhere_are_brought_back() -> None:
    own = case(6)
    expected = train(own.population(), own.data(), engine=cpu, **own.settings)
    with elsewhere("played") as place:
        found = train(own.population(), own.data(), [3, 100], engine=cpu, **own.settings)
        assert (len(place.player.launches), place.calls) == (2, [3, 100])
    everyone = list(range(found.population.count))
    assert not differences(found, everyone, expected, everyone)
