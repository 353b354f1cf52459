"""A kernel is compiled once; whatever ails the cache, the compiler or the machine, it is compiled again or refused with
a sentence, and what a compiler says is one line and a file."""

import errno
import io
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import build, cache, cpu

from .apart import APART
from .helpers import FAST, failing
from .libraries import an_empty_cache, answer, forget, kept, wrapper  # noqa: F401


def compile_nothing(*_: object) -> Path:
    raise AssertionError("compiled again")


def asks(number: int, folder: Path, compiles: Callable[..., Path], all_ready: Barrier | None = None) -> None:
    """In a process of its own, whose exit status is 0 if it has the answer."""
    os.environ["GPUBP_CACHE"] = str(folder)
    build._compile = compiles
    if all_ready:
        all_ready.wait(60)
    assert answer(number) == number


def exit_statuses(children: list[Any]) -> list[int]:
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def test_a_kernel_is_compiled_once_and_found_by_the_next_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLAGS", tuple(flag for flag in build.FLAGS if flag not in FAST))  # as there
    assert answer(1) == 1
    assert cache.news() == []
    (file,) = kept(folder)
    monkeypatch.setattr(build, "_compile", compile_nothing)
    assert answer(1) == 1
    forget()
    assert answer(1) == 1
    assert exit_statuses([APART.Process(target=asks, args=(1, folder, compile_nothing))]) == [0]
    with pytest.raises(AssertionError, match="compiled again"):
        answer(0)  # of another kernel
    assert kept(folder) == [file]


def test_processes_that_compile_a_kernel_at_once_leave_one_sound_file(folder: Path) -> None:
    given = 2, folder, build._compile, APART.Barrier(2)
    assert exit_statuses([APART.Process(target=asks, args=given) for _ in range(2)]) == [0, 0]
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "empty", "another kernel", "no library"])
def test_a_damaged_file_is_recompiled(folder: Path, damage: str) -> None:
    assert answer(3) == 3
    (file,) = kept(folder)
    sound = file.read_bytes()
    assert answer(4) == 4
    (other,) = set(kept(folder)) - {file}
    damaged = {"truncated": sound[:5000], "overwritten": sound[:-9] + b"\0" * 9 + b"x", "empty": b"",
               "another kernel": other.read_bytes(), "no library": b"no library"}[damage]  # fmt: skip
    file.unlink()  # this process has it open
    if damage == "no library":  # in a whole file, of its digest
        file.with_name(f"{file.stem.split('_')[0]}_{cache.digest(damaged)}.so").write_bytes(damaged)
    else:
        file.write_bytes(damaged)
    forget()
    assert answer(3) == 3
    assert file.read_bytes() == sound
    assert len(kept(folder)) == 2 + (damage == "no library")


class Full(io.FileIO):
    """A file on a disk that is full."""

    def write(self, content: Any) -> int:
        super().write(content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("call", "fails"), [("os.replace", failing(OSError(errno.EROFS, ""))), ("os.fdopen", Full)])
def test_training_works_without_a_writable_cache_and_leaves_no_part_of_a_file(
    call: str, fails: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(call, fails)
        assert answer(6) == 6
    assert kept(folder) == []
    forget()
    assert answer(6) == 6
    assert len(kept(folder)) == 1


def test_a_run_reports_once_that_its_kernels_cannot_be_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, config = gpubp.NetworkSpec((2, 1)), gpubp.TrainConfig(steps=2, evaluate_every=1, batch_size=5)
    networks, data = gpubp.Population.create(spec, 3), gpubp.Dataset(torch.rand(5, 2), torch.rand(5, 1))
    monkeypatch.setattr(cpu, "KERNELS", {})
    monkeypatch.setattr("os.replace", failing(OSError(errno.EROFS, os.strerror(errno.EROFS))))
    (note,) = gpubp.train(networks, data, config, engine="cpu").notes
    assert note == (
        f"every process compiles its kernels again: they cannot be cached in {folder}: Read-only file system; "
        "GPUBP_CACHE can name another directory"
    )
    cpu.KERNELS.popitem()  # the last: that of the evaluation
    build._library.cache_clear()
    assert gpubp.train(networks, data, config, engine="cpu").notes == []


@pytest.mark.parametrize("removable", [True, False])
def test_files_of_killed_processes_are_removed_when_a_kernel_is_cached_if_they_can_be(
    removable: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    old, young = folder / "old.part", folder / "young.part"
    for path, age in ((old, 2 * cache.STALE), (young, 0)):
        path.write_text("half a kernel")
        os.utime(path, (0, time.time() - age))
    with monkeypatch.context() as patch:
        if not removable:
            patch.setattr(Path, "unlink", failing(PermissionError))
        assert answer(23 + removable) == 23 + removable
    assert (old.exists(), young.exists()) == (not removable, True)


def test_an_interrupt_leaves_no_part_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", failing(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        answer(8)
    assert kept(folder) == []


@pytest.mark.parametrize("place", ["file", "file/cache", "/proc/no such folder"])
def test_training_works_where_no_cache_folder_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / place))
    assert answer(9) == 9


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, xdg, expected in (
        ("/a/b", "/c", "/a/b"), ("~/b", "", "/home/somebody/b"), ("b", "", f"{tmp_path}/b"), ("", "/c", "/c/gpubp"),
        ("", "", "/home/somebody/.cache/gpubp"),
    ):  # fmt: skip
        monkeypatch.setenv("GPUBP_CACHE", given)
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        assert cache.place() == Path(expected)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.place() == Path("/home/somebody/Library/Caches/gpubp")


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", failing(RuntimeError("Could not determine home directory.")))
    for name in ("GPUBP_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache.place() is None
    assert answer(11) == 11
    (note,) = cache.news()
    assert "there is no home directory to cache them in; GPUBP_CACHE" in note


def test_another_processor_flag_compiler_or_version_gives_another_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.compiler()
    copies = [wrapper(tmp_path / name, f'exec {" ".join(real)} "$@"') for name in ("one", "two")]
    newer = f'[ "$1" = --version ] && echo 99 || exec {" ".join(real)} "$@"'
    assert answer(12) == 12
    for count, change in enumerate(
        (
            lambda patch: patch.setattr(build, "ARCH", "x86-64-v3" if "86" in os.uname().machine else "armv8-a"),
            lambda patch: patch.setattr(build, "FLAGS", (*build.FLAGS, "-O2")),
            lambda patch: patch.setattr(build, "sources", lambda: "other headers"),
            lambda patch: patch.setattr(build, "processor", lambda: "another"),
            lambda patch: patch.setenv("CXX", copies[0]),
            lambda patch: patch.setenv("CXX", copies[1]),
            lambda patch: patch.setenv("CXX", f"{copies[1]} -DX"),
            lambda patch: (wrapper(Path(copies[1]), newer), patch.setenv("CXX", copies[1])),
        ),
        start=2,
    ):
        with monkeypatch.context() as patch:
            change(patch)
            build.version.cache_clear()
            assert answer(12) == 12
        assert len(kept(folder)) == count
