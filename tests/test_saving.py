"""A save leaves a whole checkpoint at every instant, and beside it the one before."""

from __future__ import annotations

import hashlib
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
from gpubp.errors import CheckpointError
from gpubp.system import files

from .helpers import covering
from .short_runs import CALLS, CPU, NAMES, fail, same_state, save
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
        assert failed
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
