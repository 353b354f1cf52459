"""A run whose rows lie in the files of shards is read as any run, to the same bits, or refused in a sentence."""

import copy
import pickle
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gpubp
from gpubp.checkpoints import checkpoint, manifests
from gpubp.checkpoints.stored import Source, rowless
from gpubp.cluster.meeting import light_runs
from gpubp.errors import CheckpointError
from gpubp.evaluate import Evaluation
from gpubp.networks import Outcome
from gpubp.results.table import Results
from gpubp.runs import making
from gpubp.runs.design import Design
from gpubp.runs.run import Sets
from gpubp.system.ambient import HOME

from .clusters import interrupted
from .helpers import differing, noted, same_bits
from .short_runs import forge, held_out, in_shards, same, training

SHARDS = 3
ROWS = [{"lr": 10.0 ** -(row % 3), "optimizer": ("adam", "sgd")[row % 2], "seed": 9 - row} for row in range(10)]
FILES = [f"shards/{shard}/checkpoint/tensors-00000004.safetensors" for shard in range(SHARDS)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one place."""
    folder = tmp_path_factory.mktemp("whole")
    more = {"widths": "3,5,4", "loss": "cross_entropy", "epochs": 6, "batch_size": 8, "restore_best": True,
            "engine": "eager"}  # fmt: skip
    gpubp.train_many(ROWS, training(), held_out(), run_dir=folder / "run", **more)
    return folder / "run"


@pytest.fixture
def apart(whole: Path, tmp_path: Path) -> Path:
    """The same, with its rows in the files of three shards."""
    return in_shards(whole, tmp_path / "apart", FILES)


def test_it_is_loaded_replayed_and_extended_to_the_bits_of_a_run_in_one_place(whole: Path, apart: Path) -> None:
    content = (apart / "checkpoint" / "tensors-00000001.safetensors").read_bytes()
    assert b"params" not in content
    one, other = gpubp.load(whole), gpubp.load(apart)
    for mine, theirs in zip(one.populations.each, other.populations.each, strict=True):
        assert same_bits(mine.params, theirs.params)
    inputs = held_out().inputs
    assert (one.predict(inputs, "all", each=True) == other.predict(inputs, "all", each=True)).all()
    assert gpubp.replay(apart, 3, data=training(), validation=held_out()).proven
    moved = apart.rename(apart.with_name("moved"))
    results = [gpubp.resume(each, training(), held_out(), epochs=9) for each in (shutil.copytree(whole, apart), moved)]
    same(*results)
    assert not (moved / "shards").exists(), "no checkpoint names them any more"
    assert manifests.read(moved / "checkpoint" / "manifest.json")["version"] == 6


def test_rows_that_nobody_asks_for_are_not_read(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = noted(monkeypatch, Source, "fetch", lambda source, wanted, device: [*chain(*wanted.values())])
    saved = checkpoint.load(apart, HOME)
    assert [*chain(*read)] == []
    assert [each.state.population.count for each in saved.populations] == [5, 5]
    gpubp.load(apart)
    assert sorted(chain(*read)) == ["kept.best", "kept.best", "params", "params"]


def test_networks_are_copied_and_pickled_with_their_rows(apart: Path) -> None:
    states = [each.state for each in checkpoint.load(apart, HOME).populations]
    copies = pickle.loads(pickle.dumps(states)), copy.deepcopy(states), pickle.loads(pickle.dumps(gpubp.load(apart)))
    shutil.rmtree(apart)
    for one, other, mine in zip(*copies[:2], states, strict=True):
        assert differing(one, mine) == differing(other, mine) == []
    assert copies[2].predict(held_out().inputs).shape[0] == 40


@pytest.mark.parametrize(
    ("place", "change", "told"),
    [
        ([1, "file"], lambda _: "shards/../../other.safetensors",
         r"rows in 'shards/\.\./\.\./other.safetensors': a file below shards in the run's directory expected"),
        ([1, "networks", 0, 1], lambda _: 0,  # as the first file has
         "does not have the rows of the networks that are to be in it|do not have every network once"),
        ([], lambda rows: rows[:-1], "the files of rows do not have every network once"),
        ([0, "networks"], lambda networks: networks[::-1], "does not have the rows|do not have every network once"),
        ([0, "networks", 1, 0], lambda _: -1, "does not have the rows of the networks that are to be in it"),
        ([0, "networks"], lambda _: 7, "does not hold a complete state"),
    ],
)  # fmt: skip
def test_a_manifest_that_names_other_rows_is_refused(
    apart: Path, place: list[Any], change: Callable[[Any], Any], told: str
) -> None:
    def changed(held: Any, key: Any, *keys: Any) -> Any:
        held[key] = changed(held[key], *keys) if keys else change(held[key])
        return held

    forge(apart, lambda manifest: changed(manifest, "rows", *place))
    with pytest.raises(CheckpointError, match=told):
        gpubp.load(apart)


def test_a_damaged_or_missing_file_of_rows_is_refused(apart: Path) -> None:
    path = apart / FILES[1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"shards/1/.* is damaged: its SHA-256 is not the one in the manifest"):
        gpubp.load(apart)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"shards/1/.*, which has rows of the run's networks, cannot be read: No"):
        gpubp.resume(apart, training(), held_out())


@pytest.mark.parametrize("look", [gpubp.load, lambda run: gpubp.replay(run, 3, data=training(), validation=held_out())])
def test_whoever_reads_while_another_process_goes_on_finds_its_newer_checkpoint(
    apart: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], Any]
) -> None:
    proper, times = Source._opened, list[str]()

    def late(source: Source, name: str) -> Any:
        times.append(name)
        if len(times) == SHARDS + 2:  # after what each of them has, and the rows of one
            gpubp.resume(apart, training(), held_out(), epochs=9)
            assert not (apart / "shards").exists()
        return proper(source, name)

    monkeypatch.setattr(Source, "_opened", late)
    found = look(apart)
    assert len(found) == len(ROWS) if isinstance(found, gpubp.Model) else found.proven


def test_rows_are_not_read_from_another_run_that_took_the_place_of_theirs(apart: Path) -> None:
    """A result whose rows were read in part, and whose directory was then removed and trained in again."""
    state = checkpoint.load(apart, HOME).populations[0].state
    assert state.population.params.isfinite().all()
    for name in FILES:
        content = load_file(apart / name)
        save_file({key: each + 1 for key, each in content.items()}, apart / name)
    with pytest.raises(CheckpointError, match=r"shards/0/.* is damaged: its SHA-256 is not the one in the manifest"):
        _ = state.slots
    shutil.rmtree(apart / "shards")
    with pytest.raises(CheckpointError, match=r"shards/0/.* cannot be read: No such file or directory"):
        _ = state.kept


def test_files_of_rows_go_also_if_a_process_died_before_it_deleted_them(
    apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gpubp.resume(apart, training(), held_out(), epochs=9)
    assert (apart / "shards").exists()
    gpubp.resume(apart, training(), held_out())
    assert not (apart / "shards").exists()


def test_files_of_rows_make_room_on_a_full_disk(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = checkpoint.load(apart, HOME)
    checkpoint.save(apart, saved.populations, saved.notes)
    assert (apart / "shards").exists(), "the previous checkpoint names them"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    monkeypatch.setattr(checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(apart, saved.populations, saved.notes)
    assert not (apart / "shards").exists()
    assert len(gpubp.load(apart)) == len(ROWS)


def test_an_older_gpubp_refuses_it_and_reads_every_other_run(
    whole: Path, apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "VERSION", 6)
    assert len(gpubp.load(whole)) == len(ROWS)
    with pytest.raises(CheckpointError, match="has version 7; this gpubp reads versions 1 to 6"):
        gpubp.load(apart)


def test_a_driver_has_no_memory_for_rows() -> None:
    """100,000 networks of a million parameters would be 400 GB, and their slots twice as much."""
    data, count = gpubp.Dataset(torch.zeros(4, 1000), torch.zeros(4, 4)), 100_000
    design = Design.of({"lr": [0.1] * count}, widths="1000,1000,4", loss="mean_squared_error", epochs=1)
    parts = making.Source(0, torch.float32, None).planned(design)
    (run,) = light_runs(parts, [("cpu", "")], Sets(data), False)
    state, figures = rowless(run.state), Evaluation(*torch.zeros(2, count, dtype=torch.float64))
    results = Results([Outcome(parts[0].rows, state, figures, None)], "r2")
    assert sum(len(piece) for piece in results.pieces()) == count
