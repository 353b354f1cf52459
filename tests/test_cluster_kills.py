"""Shards whose workers are killed all the time, and a driver that is killed: long proofs of the bits of one run."""

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

import gpubp
from gpubp.search import PopulationBased, SuccessiveHalving

from .clusters import PLAIN, ROOT, check_same, trained, workers
from .helpers import same_bits

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
KILLS = 12


@pytest.mark.parametrize(
    "search", [None, PopulationBased(4000), SuccessiveHalving(3, 20_000)], ids=["plain", "pbt", "halving"]
)
def test_a_run_whose_workers_are_killed_all_the_time_has_the_same_bits(
    machines: Any, iris: Any, tmp_path: Path, search: Any
) -> None:
    more = {"epochs": 80_000, "evaluate_every": 500, "checkpoint_minutes": 0.005, "design": PLAIN, "search": search,
            "engine": "cpu"}  # fmt: skip
    whole, draw, over, killed = trained(iris, None, **more), random.Random(0), Event(), list[int]()

    def ending() -> None:
        seen = set[tuple[Path, int]]()
        while not over.wait(draw.uniform(0.2, 0.8)) and len(killed) < KILLS:
            saved = {
                (each, each.stat().st_ino) for each in (tmp_path / "run").glob("shards/*/checkpoint/manifest.json")
            }
            for process in draw.sample(found := workers(), min(1, len(found))) if saved - seen else []:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            seen |= saved

    thread = Thread(target=ending)
    thread.start()
    try:
        found = trained(iris, 3, tmp_path / "run", **more)
    finally:
        over.set()
        thread.join()
    assert len(killed) == KILLS
    check_same(whole, found)


JOINING = """
import os, signal, sys
import gpubp
from gpubp import cluster
from gpubp.checkpoints import checkpoint
from gpubp.cluster import training
from gpubp.cluster.storage import Storage
from gpubp.runs.saving import Saving
from tests.clusters import trained

def die(*given, **more):
    os.kill(os.getpid(), signal.SIGKILL)

{point} = die
trained(gpubp.load_data("iris"), 3, sys.argv[1], cluster=sys.argv[2], restore_best=True, patience=2)
"""


@pytest.mark.parametrize("point", ["training.draw", "Saving.results", "checkpoint.save", "Storage.keep"])
def test_a_driver_that_is_killed_while_it_joins_shards_loses_nothing(
    machines: Any, iris: Any, tmp_path: Path, point: str
) -> None:
    whole, run_dir = trained(iris, None, restore_best=True, patience=2), tmp_path / "run"
    command = [sys.executable, "-c", JOINING.format(point=point), str(run_dir), machines.address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL
    if point != "Storage.keep":  # then it is a run already, with files that nobody needs
        assert not (run_dir / "checkpoint" / "manifest.json").exists()
        check_same(whole, trained(iris, 3, run_dir, restore_best=True, patience=2))
    networks = gpubp.load(run_dir).populations
    for mine, theirs in zip(whole.populations.each, networks.each, strict=True):
        assert same_bits(mine.params, theirs.params)
    assert gpubp.resume(run_dir, iris.training, iris.validation).table.equals(whole.table)
