"""A save leaves a whole checkpoint at every instant, and beside it the one before. The history of a run is a file that
grows; a checkpoint says how much of it is its own, and what that was."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import save_file

import gpubp
from gpubp.checkpoints import checkpoint, manifests
from gpubp.checkpoints.history import FILE, History
from gpubp.errors import CheckpointError
from gpubp.system import files

from .helpers import covering, failing
from .short_runs import CALLS, CPU, NAMES, fail, finishes_as, held_out, run, same, same_state, save, training
from .test_checkpoint import damage, whole_pairs

pytestmark = pytest.mark.usefixtures("short_calls")


@pytest.mark.parametrize(
    ("call", "error", "after"), covering(CALLS, [OSError(28, "No space left on device"), KeyboardInterrupt()], range(3))
)
def test_a_failed_save_changes_nothing_and_can_be_retried(
    call: str, after: int, error: BaseException, folder: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files = checkpoint.load(folder, CPU), sorted((folder / "checkpoint").iterdir())
    manifest = folder / "checkpoint" / "manifest.json"
    content = manifest.read_bytes()
    with monkeypatch.context() as patch:
        fail(patch, call, after, error)
        try:
            save(folder, whole, before)
            failed = ""
        except KeyboardInterrupt:
            failed = "interrupted"
        except CheckpointError as caught:
            failed = str(caught)
    if manifest.read_bytes() == content:
        assert failed == "interrupted" or re.search(
            r"cannot be written: .*No space left on device.*; the previous one is kept$", failed
        )
        assert sorted((folder / "checkpoint").iterdir()) == files, "no debris"
        same_state(checkpoint.load(folder, CPU).populations[0].state, before.populations[0].state)
    else:
        assert "is kept" not in failed
    save(folder, whole, before)
    assert whole_pairs(folder) == list(NAMES)
    same_state(checkpoint.load(folder, CPU).populations[0].state, whole.state)


def test_a_failed_first_save_mentions_no_previous_checkpoint(
    tmp_path: Path, crashed: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint").mkdir()
    before = checkpoint.load(crashed, CPU)
    with monkeypatch.context() as patch:
        fail(patch, "replace", 0, OSError(28, "No space left on device"))
        with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device$"):
            save(tmp_path, whole, before)
    assert list((tmp_path / "checkpoint").iterdir()) == []


def test_without_room_for_a_third_checkpoint_the_oldest_is_deleted_first(
    folder: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, before = [0], checkpoint.load(folder, CPU)

    def counted(content: Any, beside: Path) -> None:
        most[0] = max(most[0], len([*beside.parent.glob("tensors-*")]))
        save_file(content, beside)

    monkeypatch.setattr(checkpoint, "save_file", counted)
    save(folder, whole, before)
    assert most == [3]
    most[0] = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    save(folder, whole, before)
    assert most == [2]
    assert whole_pairs(folder) == list(NAMES)
    damage(folder / "checkpoint", "a flipped bit")
    save(folder, whole, before)
    assert most == [3], "the oldest stays where the newer one is damaged"


def test_at_every_instant_of_a_save_there_is_a_whole_checkpoint(
    folder: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each call that changes a file: what a process that is killed there would leave."""
    before, instants = checkpoint.load(folder, CPU), []

    def watched(proper: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            instants.append(whole_pairs(folder))
            done = proper(*arguments, **named)
            instants.append(whole_pairs(folder))
            return done

        return call

    for owner, name in ((os, "replace"), (os, "fsync"), (os, "open"), (Path, "unlink"), (Path, "write_text"),
                        (Path, "write_bytes"), (checkpoint, "save_file")):  # fmt: skip
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    for _ in range(2):
        save(folder, whole, before)
    assert len(instants) > 50
    assert min(instants, key=len) == list(NAMES), "both are whole all the time"


def test_files_that_killed_processes_left_are_deleted_by_the_next_save(folder: Path, whole: gpubp.Result) -> None:
    for name in ("tensors-00000099.safetensors", "tensors-00000100.safetensors.writing", "manifest.json.writing",
                 ".tmpAbCdEf"):  # fmt: skip
        (folder / "checkpoint" / name).write_text("half")
    save(folder, whole, checkpoint.load(folder, CPU))
    assert len([*(folder / "checkpoint").iterdir()]) == 5


def test_a_reader_is_not_disturbed_by_saves_meanwhile(
    folder: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two saves between the reading of a manifest and of its tensors, which the second deletes."""
    before, saves = checkpoint.load(folder, CPU), [2]
    proper = manifests.check

    def slow(path: Path, manifest: Any) -> None:
        proper(path, manifest)
        while saves[0]:
            saves[0] -= 1
            save(folder, whole, before)

    monkeypatch.setattr(manifests, "check", slow)
    loaded = checkpoint.load(folder, CPU)
    assert loaded.told == ()
    assert int(loaded.populations[0].state.step.max()) == int(whole.state.step.max())


def test_a_digest_is_over_the_digests_of_all_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 8)
    monkeypatch.setattr(files, "BLOCK", 4)
    path, content = tmp_path / "file", bytes(range(27))
    path.write_bytes(content)
    pieces = b"".join(hashlib.sha256(content[at : at + 8]).digest() for at in range(0, 27, 8))
    assert files.digest(path) == hashlib.sha256(pieces).hexdigest()
    found = set()
    for at in range(27):
        path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
        found.add(files.digest(path))
    assert len(found) == 27


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
