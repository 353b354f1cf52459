"""One process at a time writes a run, and writes nothing but that run."""

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError
from gpubp.reporters.console import ConsoleReporter
from gpubp.system import gpus, lock, machine

from .helpers import failing
from .short_runs import APART, COUNT, Crash, fail, finishes_as, forge, hears, held_out, run, same, training, with_notes

pytestmark = pytest.mark.usefixtures("short_calls")


def hold(folder: Path, held: Any) -> None:
    """In a process of its own: the lock, until it is killed."""
    with lock.held(folder):
        held.set()
        time.sleep(600)


@contextmanager
def holder(folder: Path) -> Iterator[int | None]:
    """Another process that trains the run, for a while. -> its id"""
    held = APART.Event()
    process = APART.Process(target=hold, args=(folder, held))
    process.start()
    try:
        assert held.wait(60)
        yield process.pid
    finally:
        process.kill()
        process.join()


def test_a_second_process_on_a_run_is_refused_by_name_until_the_first_ends_however_it_does(
    folder: Path, whole: gpubp.Result
) -> None:
    with holder(folder) as first:
        files = sorted(folder.rglob("*"))
        with pytest.raises(CheckpointError, match=rf"{folder} is in use by process {first} on {gethostname()}; "):
            gpubp.resume(folder, training(), held_out())
        assert sorted(folder.rglob("*")) == files
        assert gpubp.load(folder).population.count == COUNT, "a reader needs no lock"
    finishes_as(whole, folder)


def test_the_lock_names_the_machine_of_the_last_process_and_its_gpus(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lock.file(folder).read_text()
    monkeypatch.setattr(gpus, "name", lambda device: f"GPU of {device.type}")
    gpu = torch.device("cuda", 1)
    told = machine.described([gpu, torch.device("cuda", 0)])
    assert told == f"{machine.described()}; 2 x GPU of cuda"
    assert machine.described([gpu]) == f"{machine.described([torch.device('cpu')])}; GPU of cuda"
    with lock.held(folder, machine=told):
        assert lock.file(folder).read_text() == f"process {os.getpid()} on {gethostname()}\n{told}\n" != before
        with pytest.raises(CheckpointError, match=rf"is in use by process {os.getpid()} on {gethostname()}; wait"):
            gpubp.resume(folder, training(), held_out())
    gpubp.resume(folder, training(), held_out())
    assert lock.file(folder).read_text().splitlines()[1] == machine.described()


def test_force_takes_the_lock_of_a_dead_process(folder: Path, whole: gpubp.Result) -> None:
    with holder(folder):
        same(gpubp.resume(folder, training(), held_out(), force=True), whole)
    finishes_as(whole, folder)


@pytest.mark.parametrize("lacking", ["the system", "the file system"])
def test_without_file_locks_a_run_says_so(
    lacking: str, folder: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    if lacking == "the system":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", failing(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))))
    again = gpubp.resume(folder, training(), held_out())
    same(again, whole)
    (note,) = again.notes
    assert note.startswith("a second process could write this run at the same time: ")


def test_the_same_call_restarts_a_run_that_ended_before_its_first_checkpoint(
    tmp_path: Path, whole: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail(patch, "save_file", 0, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    assert (folder / "config.yaml").exists()
    with pytest.raises(CheckpointError, match="ended before its first checkpoint; restart it with the same call of"):
        gpubp.resume(folder, training(), held_out())
    with holder(folder), pytest.raises(CheckpointError, match="is in use by process"):
        run(folder)
    same(run(folder), whole)
    with pytest.raises(ConfigError, match=f"run directory {folder} exists already; name a new one, or resume it"):
        run(folder)


def test_only_the_holder_of_the_lock_deletes_what_killed_processes_left(folder: Path) -> None:
    left = [folder / "config.yaml.0123456789abcdef.writing", folder / "checkpoint" / "manifest.json.writing",
            folder / "checkpoint" / ".tmpAbCd3f"]  # fmt: skip
    for path in left:
        path.write_text("half")
    before = sorted(folder.rglob("*"))
    with holder(folder):
        assert sorted({*before} - {*folder.rglob("*")}) == sorted(left)
        left[0].write_text("of the other, which is writing it")
        with pytest.raises(CheckpointError, match="is in use by"):
            gpubp.resume(folder, training(), held_out())
        assert left[0].exists()


@pytest.mark.parametrize("kind", ["hard link", "pipe", "directory"])
def test_a_lock_that_is_something_else_is_refused_and_not_written_to(kind: str, folder: Path, tmp_path: Path) -> None:
    path, victim = folder / "checkpoint" / "lock", tmp_path / "victim"
    path.unlink()
    victim.write_text("somebody's")
    {"hard link": lambda at: os.link(victim, at), "pipe": os.mkfifo, "directory": os.mkdir}[kind](path)
    with pytest.raises(CheckpointError, match=r"checkpoint/lock (has another hard link|cannot be written: not a)"):
        gpubp.resume(folder, training(), held_out())
    assert victim.read_text() == "somebody's"


@pytest.mark.parametrize("link", ["checkpoint", "checkpoint/lock"])
def test_a_run_whose_checkpoint_is_a_link_to_anothers_is_refused(link: str, folder: Path, tmp_path: Path) -> None:
    (folder / link).rename(tmp_path / "mine")
    (folder / link).symlink_to(tmp_path / "mine")
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    with pytest.raises(
        CheckpointError, match=r"checkpoint is a link, perhaps to the files of another|lock cannot be written: Too"
    ):
        gpubp.resume(folder, training(), held_out())
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()] == before


def test_a_reason_of_several_lines_is_one_line_of_a_comment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(folder, lambda manifest: with_notes(manifest, engine_reason="it says:\nseed: 99\x1b[2J\u2028[/red]"))
    result = gpubp.resume(folder, training(), held_out(), reporters=[ConsoleReporter()])
    assert result.engine_reason.splitlines() == [result.engine_reason]
    assert r"it says: seed: 99\x1b[2J [/red]" in capsys.readouterr().err


@pytest.mark.parametrize("another", [True, False], ids=["another took its place", "removed"])
def test_a_run_that_is_removed_while_it_trains_writes_no_more(another: bool, tmp_path: Path) -> None:
    def remove(record: Any) -> None:
        if record["round"] == 2:
            shutil.rmtree(tmp_path / "run")
            if another:
                with pytest.raises(RuntimeError, match="crashed"):
                    run(tmp_path / "run", [Crash(2)])

    result = run(tmp_path / "run", [hears(evaluated=remove)], epochs=8)
    assert result.unsaved
    assert "no longer belongs to this process: the run was removed, or another process took it" in result.unsaved
    same(result, run(epochs=8))
    if another:
        finishes_as(run(), tmp_path / "run")
    else:
        assert not (tmp_path / "run").exists()


def test_a_run_directory_that_lies_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made: its path is too deep"):
        run(tmp_path.joinpath(*"d" * 1900))
