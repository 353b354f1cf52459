"""Libraries as kernels are, for tests of the compiler and the cache."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpubp.engines import build, cache

from .helpers import had


def text(answer: int) -> str:
    """A library with one function; of a number that no other test takes, for a process loads a file once."""
    return f'extern "C" __attribute__((visibility("default"))) int answer() {{ return {answer}; }}\n'


def forget() -> None:
    """What this process knows of compilers and kernels; the files stay."""
    for function in (build._library, build._vector_bytes, build.version):
        function.cache_clear()
    cache.NEWS.clear()


@contextmanager
def cached_in(folder: Path) -> Iterator[Path]:
    """An empty cache, which nobody remembers; a named skip without a compiler."""
    had(build.compiler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUBP_CACHE", str(folder))
        forget()
        yield folder
        forget()


def answer(number: int) -> int:
    return int(build.library(text(number)).answer())


@pytest.fixture(name="folder", autouse=True)
def an_empty_cache(tmp_path: Path) -> Iterator[Path]:
    """An empty cache."""
    with cached_in(tmp_path / "cache") as empty:
        yield empty


def kept(folder: Path) -> list[Path]:
    """What is in the cache: libraries alone, each what its name says."""
    files = sorted(folder.iterdir())
    for path in files:
        assert path.suffix == ".so"
        assert path.stem.split("_")[1] == hashlib.sha256(path.read_bytes()).hexdigest()
    return files


def wrapper(path: Path, script: str) -> str:
    """A compiler that is a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
