"""The history of a run is a file that grows; a checkpoint says how much of it is its own, and what that was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.checkpoints.history import FILE, History
from gpubp.errors import CheckpointError
from gpubp.system import files

from .helpers import failing
from .short_runs import CPU, finishes_as, held_out, run, same, training

pytestmark = pytest.mark.usefixtures("short_calls")

SPREAD = {"min": 0.1, "q10": 0.1, "median": float("nan"), "q90": 0.3, "max": 0.3}


def record(number: int, **other: Any) -> dict[str, Any]:
    spreads = {"loss": SPREAD, "validation_loss": None, "metric": None, "lr": {}}
    plain = {"seconds": 0.1, "network_steps_per_second": 1 / 3, "statuses": {"running": 2}, "metric_name": "r2"}
    return {"round": number, "step": 5 * number, **plain, **spreads, **other}


def lines(folder: Path) -> list[str]:
    return (folder / FILE).read_text().splitlines()


def test_the_file_has_a_line_per_evaluation_and_a_manifest_does_not_grow(tmp_path: Path) -> None:
    result, _ = run(tmp_path / "run", epochs=10), run(tmp_path / "short", epochs=2)
    assert [json.loads(each) for each in lines(tmp_path / "run")] == json.loads(json.dumps(result.history))
    assert len(result.history) == 5
    sizes = [(tmp_path / name / "checkpoint" / "manifest.json").stat().st_size for name in ("run", "short")]
    assert abs(sizes[1] - sizes[0]) < 100


def test_new_records_are_appended_and_old_ones_are_not_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(record(number) for number in range(3))
    history.save(tmp_path)
    place, before = (tmp_path / FILE).stat().st_ino, lines(tmp_path)
    monkeypatch.setattr(files, "write", lambda *_: pytest.fail("the file is written anew"))
    for number in range(3, 6):
        history.append(record(number))
        saved = history.save(tmp_path)
        assert lines(tmp_path)[:3] == before
        assert repr(History.load(tmp_path, saved)) == repr(list(history))
    assert (tmp_path / FILE).stat().st_ino == place


def test_a_checkpoint_has_no_evaluation_after_its_round(tmp_path: Path) -> None:
    history = History(record(number) for number in range(1, 5))
    saved = history.save(tmp_path, 2)
    assert [each["round"] for each in History.load(tmp_path, saved)] == [1, 2]
    assert [each["round"] for each in History.load(tmp_path, history.save(tmp_path))] == [1, 2, 3, 4]


def test_a_resumed_run_drops_records_after_its_checkpoint(folder: Path, whole: gpubp.Result) -> None:
    covered = len(checkpoint.load(folder, CPU).notes["history"])
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(record(99)) + '\n{"round": 10')
    assert len(checkpoint.load(folder, CPU).notes["history"]) == covered
    finishes_as(whole, folder)
    assert [json.loads(each)["round"] for each in lines(folder)] == [each["round"] for each in whole.history]


@pytest.mark.parametrize("what", ["a flipped bit", "cut", "gone", "a pipe", "of another kind"])
def test_a_damaged_history_restarts_and_the_networks_resume(what: str, folder: Path, whole: gpubp.Result) -> None:
    path = folder / FILE
    held = bytearray(path.read_bytes())
    held[20] ^= 1
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "of another kind":
        history = History([{**record(1), "loss": {"median": "x"}}])
        saved = checkpoint.load(folder, CPU)
        checkpoint.save(folder, saved.populations, saved.notes | {"history": history})
    elif what != "gone":
        path.write_bytes(held if what == "a flipped bit" else held[:100])
    again = gpubp.resume(folder, training(), held_out())
    same(again, whole)
    (note,) = again.notes
    assert str(path) in note
    assert note.endswith("; the history restarts after round 3; the networks are not affected")
    assert [each["round"] for each in again.history] == [3, 4, 5, 6]
    assert len(lines(folder)) == 4
    assert gpubp.resume(folder, training(), held_out()).notes == []


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_history_that_is_another_file_is_not_written_to(kind: str, tmp_path: Path) -> None:
    victim, history = tmp_path / "victim", History([record(1)])
    history.save(tmp_path)
    (tmp_path / FILE).rename(victim)
    before = victim.read_bytes()
    (tmp_path / FILE).symlink_to(victim) if kind == "link" else os.link(victim, tmp_path / FILE)
    history.append(record(2))
    history.save(tmp_path)
    assert victim.read_bytes() == before
    assert len(lines(tmp_path)) == 2


def test_records_that_could_not_be_added_are_added_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History([record(1)])
    history.save(tmp_path)
    history.append(record(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            history.save(tmp_path)
    assert len(History.load(tmp_path, history.save(tmp_path))) == 2
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize(
    "saved",
    [[{}], [[]], {}, 5, None, "x", [record(1, loss={"median": 1.0})], [record(1, lr={**SPREAD, "max": "1"})],
     [record(1, statuses={"running": 1.5})], [record(1, metric_name=None)], [record("one")], {"bytes": 10**30},
     {"bytes": 10**15, "sha256": ""}],
    ids=repr,
)  # fmt: skip
def test_an_invalid_history_is_refused(saved: Any, tmp_path: Path) -> None:
    History([record(1)]).save(tmp_path)
    with pytest.raises(CheckpointError, match=FILE):
        History.load(tmp_path, saved)
