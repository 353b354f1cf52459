"""What a cluster does without a worker: refuses, deals networks to shards, keeps their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import cluster
from gpubp.cli import main
from gpubp.cluster.shards import dealt
from gpubp.cluster.storage import Storage
from gpubp.design import Design
from gpubp.errors import ConfigError
from gpubp.making import Source

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--shards 2", "--shards 2: only with --cluster"),
        ("--run-dir s3://bucket/run", "--run-dir s3://bucket/run: only with --cluster"),
        ("--cluster auto --slots 4", "--slots 4: not with --cluster"),
        ("--cluster auto --data tutorial", "--cluster auto: --data tutorial does not have it"),
    ],
)
def test_flags_of_a_cluster_that_do_not_fit_are_refused(flags: str, message: str, capsys: Capture) -> None:
    assert main(f"train {flags}".split()) == 1
    assert message in capsys.readouterr().err


def test_what_a_cluster_cannot_do_is_refused_before_any_training(tmp_path: Path) -> None:
    iris = gpubp.load_data("iris")
    for where, message in {"memory://run": "the memory of one process", "nothing://x": "nothing"}.items():
        with pytest.raises(ConfigError, match=message):
            cluster.train_many([{}], iris.training, run_dir=where, widths="4,6,3", loss=iris.loss, steps=1)

    pytest.importorskip("ray", reason="gpubp[cluster] is not installed")
    with pytest.raises(ConfigError, match=r"cluster '127\.0\.0\.1:1': auto, local, or an address"):
        cluster.train_many([{}], iris.training, run_dir=tmp_path / "run", cluster="127.0.0.1:1", widths="4,3", steps=1,
                           loss=iris.loss)  # fmt: skip

    def doubled(net: Any) -> Any:
        return net + net

    rule = gpubp.Activation(doubled, lambda net, out: net * 0 + 2)
    population = gpubp.Population.create(gpubp.NetworkSpec((4, 5, 3), rule, loss=iris.loss), count=7)
    with pytest.raises(ConfigError, match="'doubled' is in no table of this process"):
        cluster.train(population, iris.training, gpubp.TrainConfig(steps=1), run_dir=tmp_path / "run")


def test_shards_cost_the_same_and_hold_every_network_once() -> None:
    rows = [{"widths": f"4,{3 + row % 5},3"} for row in range(23)]
    parts = Source(0, torch.float32, None).planned(Design.of(rows, loss="cross_entropy", epochs=1))
    shards = list(dealt(parts, 4))
    assert sorted(torch.cat([each for shard in shards for each in shard.rows]).tolist()) == list(range(23))
    assert {sum(map(len, shard.rows)) for shard in shards} == {5, 6}
    with pytest.raises(ConfigError, match="shards 24: the run has 23 networks"):
        list(dealt(parts, 24))


def test_a_save_counts_when_it_is_complete(tmp_path: Path) -> None:
    storage, folder = Storage("memory://a/run/3"), tmp_path / "mine"
    (folder / "checkpoint").mkdir(parents=True)
    for phase, text in enumerate(("first", "second", "third")):
        (folder / "checkpoint" / "lock").write_text("mine")
        (folder / "checkpoint" / "manifest.json").write_text(text)
        storage.push(folder, phase)
    system, root = storage._system
    newest, *older = storage._saves()
    assert len(older) == 1
    storage.push(folder, 1)  # of a process that was thought dead
    with storage.folder() as found:
        assert (found / "checkpoint" / "manifest.json").read_text() == "third"
        assert not (found / "checkpoint" / "lock").exists()
    system.rm(f"{newest}/complete")
    with storage.folder() as found:
        assert (found / "checkpoint" / "manifest.json").read_text() != "first"
    storage.remove()
    assert not system.exists(root)
