"""A kept kernel runs only where nobody else can have put it: whose the folder, the folders above it and the file are,
and who may write them. Everywhere else a process compiles for itself, and says so."""

import grp
import os
import pwd
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpubp.engines import build, cache
from gpubp.errors import EngineError

from .libraries import cached_in, forget, text

NOBODY = 65534


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """A cache, as its user alone can write it."""
    (tmp_path / "above").mkdir(mode=0o755)
    with cached_in(tmp_path / "above" / "cache") as empty:
        yield empty


def give_away(path: Path) -> None:
    """`path` as another user's."""
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def plant(folder: Path, asked: int, planted: int) -> Path:
    """A library that answers `planted`, where a process looks for one that answers `asked`: whoever can write a folder
    can name a file by its own hash."""
    assert build.library(text(asked)).answer() == asked
    (file,) = folder.iterdir()
    with cache.scratch() as scratch:
        content = build._compile(text(planted), [*build.compiler(), *build.FLAGS], scratch, None).read_bytes()
    name = f"{file.stem.split('_')[0]}_{cache.digest(content)}.so"
    file.unlink()
    (folder / name).write_bytes(content)
    forget()
    return folder / name


def link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


FOLDERS: dict[str, Callable[[Path], None]] = {
    "world-writable": lambda folder: folder.chmod(0o777),
    "sticky": lambda folder: folder.chmod(0o1777),
    "another's": give_away,
    "below a folder that all can write": lambda folder: folder.parent.chmod(0o777),
    "below another's": lambda folder: give_away(folder.parent),
    "below another's that is sticky": lambda folder: (folder.parent.chmod(0o1777), give_away(folder.parent))[0],
}
FILES: dict[str, Callable[[Path], None]] = {
    "damaged": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
    "world-writable": lambda file: file.chmod(0o666),
    "another's": give_away,
    "a link": link,
}
NUMBERS = iter(range(100, 1000, 2))


def test_a_library_planted_where_only_the_user_can_write_runs(folder: Path) -> None:
    """What the tests below plant would be run."""
    number = next(NUMBERS)
    plant(folder, number, number + 1)
    assert build.library(text(number)).answer() == number + 1


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_library_in_a_folder_writable_by_others_never_runs_and_nothing_is_cached_there(
    kind: str, folder: Path
) -> None:
    number = next(NUMBERS)
    planted = plant(folder, number, number + 1)
    FOLDERS[kind](folder)
    assert build.library(text(number)).answer() == number
    assert [*folder.iterdir()] == [planted]
    (note,) = cache.news()
    assert f"every process compiles its kernels again: no kernel is stored in or loaded from {folder}, because " in note
    assert str(folder if "below" not in kind else folder.parent) in note.split(" because ")[1]
    assert cache.news() == []


@pytest.mark.parametrize("kind", FILES)
def test_a_file_writable_by_others_never_runs_and_is_recompiled(kind: str, folder: Path) -> None:
    number = next(NUMBERS)
    planted = plant(folder, number, number + 1)
    FILES[kind](planted)
    assert build.library(text(number)).answer() == number
    (note,) = cache.news()
    assert note.startswith("a kernel is compiled again: ")
    assert str(planted) in note
    assert planted not in folder.iterdir()
    forget()
    assert build.library(text(number)).answer() == number
    assert cache.news() == []


def test_folders_are_private_and_files_are_writable_by_nobody_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_CACHE", str(folder / "deep"))
    before = os.umask(0)
    try:
        build.library(text(next(NUMBERS)))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "deep")} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in (folder / "deep").iterdir()} == {0o644}


def test_a_cache_behind_a_link_is_checked_at_its_target(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "disk")
    build.library(text(next(NUMBERS)))
    assert len([*(tmp_path / "disk").iterdir()]) == 1
    (tmp_path / "disk").chmod(0o777)
    build.library(text(next(NUMBERS)))
    assert f"others can write to {tmp_path / 'disk'};" in cache.news()[0]


@pytest.mark.parametrize(
    ("name", "number", "members", "attribute", "trusted"),
    [
        ("ann", 1000, [], "user.mood", True),
        ("ann", 1000, ["ann"], "user.mood", True),
        ("ann", 1000, ["ann", "bob"], "user.mood", False),
        ("users", 1000, [], "user.mood", False),  # the first group of many
        ("ann", 1001, [], "user.mood", False),
        ("ann", 1000, [], "system.posix_acl_access", False),
    ],
)
def test_a_group_with_only_the_user_is_trusted_unless_there_is_a_list_of_others(
    name: str, number: int, members: list[str], attribute: str, trusted: bool, folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With an access control list, such as setfacl makes, the bits of the group are the most that anybody in it has."""
    folder.mkdir()
    folder.chmod(0o770)
    user = SimpleNamespace(pw_name="ann", pw_gid=1000)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_gid=number, gr_mem=members))
    monkeypatch.setattr(os, "listxattr", lambda path: [attribute], raising=False)
    assert cache.exposed(folder) == (None if trusted else f"others can write to {folder}")


def test_a_user_namespace_without_root_has_a_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There what is root's belongs to nobody, as does /."""
    folder.mkdir()
    proper = Path.stat

    def stat(path: Path, **named: bool) -> object:
        found = proper(path, **named)
        return found if path == folder else os.stat_result((*found[:4], NOBODY, *found[5:]))

    monkeypatch.setattr(Path, "stat", stat)
    assert cache.exposed(folder) is None
    monkeypatch.setattr(Path, "stat", lambda path, **named: stat(path.parent, **named))
    assert cache.exposed(folder) == f"{folder} belongs to another user"


def test_nothing_is_compiled_where_others_can_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.parent / "temporary"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(EngineError, match=f"others can write to {place}; TMPDIR can name another"):
        build.library(text(next(NUMBERS)))
    place.chmod(0o1777)
    build.library(text(next(NUMBERS)))


def test_folders_of_killed_compilations_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.parent / "temporary"
    old, young, other = (place / f"gpubp-{name}" for name in ("1.compiling", "2.compiling", "3"))
    for each, age in ((old, 2 * cache.STALE), (young, cache.STALE // 2), (other, 2 * cache.STALE)):
        each.mkdir(parents=True)
        (each / "kernel.cpp").write_text("half")
        os.utime(each, (0, time.time() - age))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    build.library(text(next(NUMBERS)))
    assert sorted(place.iterdir()) == [young, other], "somebody may still compile in the young one"
