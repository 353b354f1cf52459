"""How much `gpubp verify` trains: its time is bounded by steps times parameters, which no machine changes."""

from __future__ import annotations

from typing import Any

import pytest

from gpubp.runs.design import Design
from gpubp.verify import subject as of
from gpubp.verify.promises import default
from gpubp.verify.subject import Subject, scaled_down

LR = [0.001 * (n + 1) for n in range(40)]
LARGE = {"widths": "64,512,512,10", "loss": "cross_entropy", "hidden": "relu", "batch_size": 32}


def work(subject: Subject) -> int:
    """Steps times parameters of one training of all networks."""
    steps = subject.design.columns["steps"].values
    return sum(int(steps[rows].sum()) * each.population.spec.size
               for rows, each in zip(subject.design.alike(), subject.groups(), strict=True))  # fmt: skip


def several(**more: Any) -> Design:
    """Three populations."""
    return Design.of([{"lr": rate, "optimizer": ("adam", "sgd", "lion")[n % 3]} for n, rate in enumerate(LR)], **more)


@pytest.mark.parametrize(
    ("design", "networks", "steps"),
    [
        (default(), 9, 12),
        (several(widths="8,16,4", loss="cross_entropy", epochs=2), 15, 12),
        (Design.of({"lr": LR}, **LARGE, epochs=3), 2, 6),
        (several(**LARGE, steps=1000), 6, 6),
        (Design.of({"lr": LR}, **{**LARGE, "widths": "64,128,10"}, epochs=3), 9, 12),
    ],
    ids=["default", "three populations", "large", "three large populations", "in between"],
)
def test_large_networks_train_fewer_and_shorter(design: Design, networks: int, steps: int) -> None:
    subject = scaled_down(design, engine="eager", device="cpu")
    lengths = subject.design.columns["steps"].values
    assert (subject.count, int(lengths.max())) == (networks, steps)
    assert len({*lengths.tolist()}) > 1, "networks end at different steps"
    assert work(subject) <= of.WORK * (3 if networks == 6 else 1)
    assert (f"{of.SHORT} steps, as networks are large" in subject.about) == (steps == of.SHORT)
