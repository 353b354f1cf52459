"""Shapes are checked under pytest alone: jaxtyping and beartype read the annotations of the modules named below."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = ("gpubp.backprop", "gpubp.numerics", "gpubp.rng")
install_import_hook(CHECKED, "beartype.beartype")
torch.set_num_threads(1)  # on a busy machine two wait for each other ten times as long; threads() tries others by name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
