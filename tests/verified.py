"""Small networks whose promises are verified, quickly."""

import functools
from itertools import islice
from typing import Any

import pytest
import torch

from gpubp.runs.design import Design
from gpubp.verify import gradients, independence
from gpubp.verify.comparing import Row
from gpubp.verify.subject import Subject, scaled_down

PROMISE = Row("a promise", "one and another", "a fault", 1e-8)
SETTINGS: dict[str, Any] = {"widths": (3, 4, 2), "hidden": "tanh", "optimizer": "momentum", "batch_size": 4, "steps": 9}


def small(**changed: Any) -> Subject:
    design = Design.of({"lr": [0.1, 0.2, 0.3, 0.4]}, **{**SETTINGS, **changed})
    return scaled_down(design, engine="eager", device="cpu")


@functools.cache
def some_rules() -> list[Any]:
    return [*islice(gradients.tables(), 20, None, 30)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, directions and rules."""
    rules = some_rules()
    monkeypatch.setattr("gpubp.verify.subject.STEPS", 6)
    monkeypatch.setattr("gpubp.verify.subject.APART", 3)
    monkeypatch.setattr(gradients, "DIRECTIONS", 3)
    monkeypatch.setattr(gradients, "tables", lambda: iter(rules))
    monkeypatch.setattr(independence, "THREADS", (1, torch.get_num_threads() + 1))


fewer = pytest.mark.usefixtures("quick")
