"""What a cluster says when something is wrong with it, with what was asked, or with what an earlier call has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp.errors import ConfigError

from .clusters import PLAIN, At, kill, trained
from .helpers import same_bits

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
    more = {"epochs": 6000, "evaluate_every": 100, "design": PLAIN}
    whole, killed = trained(iris, None, **more), At(3, lambda: kill("Board"))
    found = trained(iris, 2, tmp_path / "run", reporters=[killed], **more)
    assert killed.number == 0
    for mine, theirs in zip(whole.states, found.states, strict=True):
        assert same_bits(mine.population.params, theirs.population.params)
    assert found.table.equals(whole.table)
