"""What a cluster says when something is wrong with it, with what was asked, or with what an earlier call has left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp.cluster.plan import Plan
from gpubp.errors import CheckpointError, ConfigError

from .clusters import PLAIN, At, check_same, kill, trained

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def iris() -> gpubp.sources.Prepared:
    return gpubp.load_data("iris")


def test_more_shards_than_networks_are_refused_before_anything_is_written(
    machines: Any, iris: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="shards 13: the run has 12 networks"):
        trained(iris, 13, tmp_path / "run", design=PLAIN)
    assert not (tmp_path / "run").exists()


def test_a_board_that_is_killed_is_made_again(machines: Any, iris: Any, tmp_path: Path) -> None:
    def end() -> None:
        time.sleep(0.5)  # in which it hears of evaluations
        kill("Board")

    more = {"epochs": 6000, "evaluate_every": 100, "design": PLAIN}
    whole, killed = trained(iris, None, **more), At(3, end)
    found = trained(iris, 2, tmp_path / "run", reporters=[killed], **more)
    assert killed.number == 0
    check_same(whole, found)


def test_a_call_does_not_go_on_from_where_another_one_was_when_it_began(
    machines: Any, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper, run_dir, record = Plan.fit, tmp_path / "run", tmp_path / "run" / "shards" / "driver" / "record.json"

    def meanwhile(*given: Any) -> list[str]:
        if record.exists():
            record.write_text(record.read_text() + "\n")
        return proper(*given)

    more = {"epochs": 4000, "evaluate_every": 50, "design": PLAIN}
    with pytest.raises(KeyboardInterrupt):
        trained(iris, 2, run_dir, reporters=[At(2, lambda: os.kill(os.getpid(), signal.SIGINT))], **more)
    monkeypatch.setattr(Plan, "fit", meanwhile)
    with pytest.raises(CheckpointError, match=r"run: another process has just gone on with it: call again"):
        trained(iris, 2, run_dir, **more)
