"""The bits of trained networks by engine cpu, the same from one commit to the next and on every machine: a hash for
every row of every table, and every feature. `python -m tests.test_bits` writes bits.json anew, for a change that is
meant to change bits."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import cpu

from .gpu_cases import FEATURES
from .helpers import LOGITS, compiled, quick, train  # noqa: F401

FILE = Path(__file__).parent / "bits.json"
COUNT, SAMPLES, BATCH, STEPS = 5, 23, 6, 7
DTYPES = {"float32": torch.float32, "float64": torch.float64}
BIASES = (("neuron", True), ("layer", True), ("none", True), ("neuron", False))
OWN = ("", "inputs", "rows", "weights")
Case = tuple[gpubp.NetworkSpec, Mapping[str, Any], str]


def _cases() -> Iterator[tuple[str, Case]]:
    """Rows of several tables in one network, so that a kernel shows more than one."""
    biases, own = itertools.cycle(BIASES), itertools.cycle(OWN)
    activations, losses = itertools.cycle(gpubp.ACTIVATIONS), itertools.cycle(gpubp.LOSSES)
    for _ in range(max(len(gpubp.LOSSES), -(-len(gpubp.ACTIVATIONS) // 2))):
        hidden, loss, (bias, trained) = [next(activations), next(activations)], next(losses), next(biases)
        output = "identity" if loss in LOGITS else "tanh"
        spec = gpubp.NetworkSpec((5, 18, 7, 3), hidden, output, loss, bias, trained)
        yield f"{' and '.join(hidden)}, {loss}, bias {bias}", (spec, {"optimizer": "sgd", "lr": 0.05}, next(own))
    schedules, features = itertools.cycle(gpubp.SCHEDULES), itertools.cycle(FEATURES)
    orders = itertools.cycle(("simultaneous", "layerwise"))
    for optimizer in gpubp.OPTIMIZERS:
        schedule, feature, order = next(schedules), next(features), next(orders)
        if feature == "clipping":
            order = "simultaneous"
        settings = {"optimizer": optimizer, "schedule": schedule, "warmup": [0, 2, 3, 1, 0], "update_order": order}
        spec = gpubp.NetworkSpec((5, 18, 3), "tanh", loss="cross_entropy")
        yield f"{optimizer}, {schedule}, {feature}, {order}", (spec, settings | FEATURES[feature], next(own))
    weights = {"class_weight": [1, 2, 3.0], "label_smoothing": 0.1}
    yield "class weights", (gpubp.NetworkSpec((5, 18, 3), "relu", loss="cross_entropy"), weights, "")


CASES = dict(_cases())


def numbers(*shape: int) -> torch.Tensor:
    """From -1 to 1, by exact arithmetic; float64."""
    return ((torch.arange(math.prod(shape)) * 7919 + 13) % 1009).double().reshape(shape) / 512 - 1


def data(spec: gpubp.NetworkSpec, own: str, dtype: torch.dtype) -> gpubp.Dataset:
    """Targets that every loss allows."""
    first = (COUNT, SAMPLES) if own == "inputs" else (SAMPLES,)
    inputs, width = numbers(*first, spec.widths[0]).to(dtype), spec.widths[-1]
    if gpubp.LOSSES[spec.loss].classes:
        target = (torch.arange(math.prod(first)) ** 2 % 7 % width).reshape(first)
    else:
        target = (torch.arange(math.prod(first) * width) * 5 % 3 % 2).reshape(*first, width).to(dtype)
        target = target * 2 - 1 if spec.loss == "hinge" else target
    rows = [range(3 + 5 * n) for n in range(COUNT)] if own == "rows" else None
    weight = numbers(COUNT, SAMPLES).abs().to(dtype) + 0.25 if own == "weights" else None
    return gpubp.Dataset(inputs, target, rows, weight)


def hashed(name: str, dtype: str, engine: Any = cpu) -> str:
    """Of everything that an engine changes."""
    spec, settings, own = CASES[name]
    population = gpubp.Population.create(spec, COUNT, 5, "torch_linear", dtype=DTYPES[dtype], init_scale=1.5)
    settings = {"batch_size": BATCH, "steps": STEPS, **settings}
    state = train(population, data(spec, own, DTYPES[dtype]), engine=engine, **settings)
    digest = hashlib.sha256()
    clocks = (state.step, state.status, state.diverged_step)
    for each in (state.population.params, *state.slots, *state.columns.values(), state.loss, state.total, *clocks):
        digest.update(each.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


# Activations of every function of the kernels, exp, expm1, erf and sin, and one of each other kind.
QUICK = [*itertools.islice(CASES, 0, len(gpubp.ACTIVATIONS) // 2, 2), "class weights"]
QUICK += [name for name in CASES if name.startswith("adam, ")]


@pytest.mark.parametrize(
    ("name", "dtype"), quick(itertools.product(CASES, DTYPES), [(name, "float32") for name in QUICK])
)
def test_a_trained_network_has_the_bits_that_it_had(name: str, dtype: str) -> None:
    assert hashed(name, dtype) == json.loads(FILE.read_text())[name][dtype]


if __name__ == "__main__":
    FILE.write_text(
        json.dumps({name: {each: hashed(name, each) for each in DTYPES} for name in CASES}, indent=1) + "\n"
    )
