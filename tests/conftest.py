"""Shapes are checked under pytest alone: jaxtyping and beartype read the annotations of the modules named below.

pytest --device cuda TESTS: what they train takes its steps there (elsewhere.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = ("gpubp.backprop", "gpubp.numerics", "gpubp.rng")
install_import_hook(CHECKED, "beartype.beartype")
torch.set_num_threads(1)  # on a busy machine two wait for each other ten times as long; threads() tries others by name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="where engines take their steps: cuda, cuda:1, or played, by the CPU")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    away = config.getoption("--device") is not None
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("cpu") and away:
            item.add_marker(pytest.mark.skip(reason="shows what a CPU does"))


@pytest.fixture(autouse=True, scope="session")
def device(pytestconfig: pytest.Config) -> Iterator[None]:
    """Engines take their steps where --device says."""
    chosen = pytestconfig.getoption("--device")
    if chosen is None:
        yield
        return
    from .elsewhere import elsewhere

    with elsewhere(chosen):
        yield


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """A file of that name with that content."""

    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer
