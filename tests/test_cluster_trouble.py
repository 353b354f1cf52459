"""What a cluster says when something is wrong with it, with what was asked, or with what an earlier call has left."""

from __future__ import annotations

from typing import Any

import pytest

import gpubp
from gpubp.errors import ConfigError

from .clusters import PLAIN, trained

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
