"""Quarantine: one network in 25 diverges, each at a random step, and no other network has another bit."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
import torch

import gpubp
from gpubp.state import Status

from .helpers import differences, needs_compiler, same_bits, samples
from .playing import machine

SLOW = pytest.mark.slow
SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
COUNT, SAMPLES = 50, 40
LOST = sorted(random.Random(0).sample(range(COUNT), COUNT // 25))
REST = [n for n in range(COUNT) if n not in LOST]


def train(engine: str, slots: int | None, lost: list[int]) -> gpubp.Result:
    """The networks `lost` have a sample whose squared error overflows, in a random batch of their first epoch."""
    inputs, targets = samples(SPEC, SAMPLES, dtype=torch.float32)
    targets[-1] = 3e38
    data = gpubp.Dataset(inputs, targets, rows=[range(SAMPLES - 1), range(1, SAMPLES)])
    folds = [int(n in lost) for n in range(COUNT)]
    with machine() if engine == "cuda" else nullcontext():
        return gpubp.train_many(
            {"fold": folds, "epochs": [1 + n % 4 for n in range(COUNT)], "seed": [*range(COUNT)]}, data,
            gpubp.Dataset(*samples(SPEC, 9, dtype=torch.float32)), engine=engine, slots=slots, widths="3,6,2",
            hidden="tanh", batch_size=3, optimizer="adam", lr=0.01, dropout=0.1,
            device="cuda:0" if engine == "cuda" else "cpu",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "slots"),
    [("eager", 15), ("cpu", 15), pytest.param("cpu", None, marks=SLOW), pytest.param("cuda", 15, marks=SLOW)],
)
def test_networks_that_diverge_at_random_steps_change_no_bit_of_the_others(engine: str, slots: int | None) -> None:
    if engine != "eager":
        needs_compiler()
    sound, found = train(engine, None, []), train(engine, slots, LOST)
    assert len(set(found.state.diverged_step[LOST].tolist())) == len(LOST), "each at a step of its own"
    assert sound.statuses == {**dict.fromkeys(sound.statuses, 0), "finished": COUNT}
    assert found.status.tolist() == [Status.diverged if n in LOST else Status.finished for n in range(COUNT)]
    assert found.population.params.isfinite().all()
    assert not differences(found.state, sound.state, REST)
    for name in ("loss", "metric", "validation_loss", "validation_metric"):
        assert same_bits(getattr(found, name)[REST], getattr(sound, name)[REST]), name
