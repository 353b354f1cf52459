"""Libraries as kernels are, for tests of the compiler and the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpubp.engines import build, cache
from gpubp.errors import EngineError


def text(answer: int) -> str:
    """A library with one function; of a number that no other test takes, for a process loads a file once."""
    return f'extern "C" __attribute__((visibility("default"))) int answer() {{ return {answer}; }}\n'


def forget() -> None:
    """What this process knows of compilers and kernels; the files stay."""
    for function in (build._library, build._vector_bytes, build.version):
        function.cache_clear()
    cache.UNKEPT.clear()


@contextmanager
def cached_in(folder: Path) -> Iterator[Path]:
    """An empty cache, which nobody remembers; a named skip without a compiler."""
    try:
        build.compiler()
    except EngineError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUBP_CACHE", str(folder))
        forget()
        yield folder
        forget()
