"""Models of all kinds, from a seed, that tests of exports have in common, and raw samples for them."""

import random
from typing import Any, NamedTuple

import numpy as np
import torch

import gpubp
from gpubp.populations import Populations
from gpubp.raw.fitting import fit, fit_apart
from gpubp.raw.preparation import Preparation
from gpubp.results.model import Model

from .files import table
from .helpers import population

HOSTILE = ('"""\nraise SystemExit(7)  # ', "'; import os; os.abort() #", "\\", "{0}%s\x00\x1b[2J", "schön \u202e\u2028")
LABELS: tuple[tuple[Any, ...], ...] = (HOSTILE, (0, 1, 7), (-3, 2**40), (False, True), ("no", "yes"))
LOSSES = [*gpubp.LOSSES]
Samples = list[list[Any]]


class Case(NamedTuple):
    """A model, the rows of networks to export, and raw samples, a list of rows, or numbers without a preparation."""

    model: Model
    rows: list[int]
    samples: Any


def preparation(source: random.Random, loss: str, outputs: int, folds: int) -> tuple[Preparation, Samples]:
    """Of columns of numbers and of texts, some with gaps, in any order; and samples."""
    draw, count, gaps = np.random.default_rng(source.randrange(10**6)), 40, source.random() < 0.5
    columns: dict[str, list[Any]] = {}
    kinds = source.choice(["nn", "n", "ntn", "tnt", "t", "ttnnn"])
    for at, kind in enumerate(kinds):
        numbers = draw.normal(size=count) * 10.0 ** source.randint(-3, 4) + 10.0 ** source.randint(-2, 4)
        texts = [source.choice(HOSTILE[:3]) for _ in range(count)]
        columns[f"{at} {source.choice(HOSTILE)}"] = numbers.tolist() if kind == "n" else texts
    if loss in ("cross_entropy", "binary_cross_entropy", "hinge"):
        known = [each for each in LABELS if loss == "cross_entropy" or len(each) == 2]
        labels = next(each for each in source.sample(known, len(known)))
        targets = {"y": [labels[n % len(labels)] for n in range(count)]}
    else:
        drawn = draw.integers(9, size=(outputs, count)) if loss == "poisson" else draw.normal(5e3, 20, (outputs, count))
        targets = {f"y{n}": values.tolist() for n, values in enumerate(drawn)}
    samples = [[values[n] for values in columns.values()] for n in range(count)]
    if gaps:
        for values in columns.values():
            values[3] = np.nan if isinstance(values[3], float) else None
        samples += [[values[3] for values in columns.values()]]
    samples += [[each if isinstance(each, float) else "never seen" for each in samples[1]]]
    data = table({**columns, **targets}, tuple(targets))
    scale = source.choice(["standard", "minmax"] if loss == "poisson" else ["standard", "minmax", "none", 8.0])
    wide = "standard" if loss in ("mean_squared_error", "huber", "log_cosh") else "none"
    found = fit(data, loss, scale=scale, impute="mean" if gaps else None, scale_targets=wide)
    parts = [np.flatnonzero(np.arange(count) % folds != fold) for fold in range(folds)]
    return fit_apart(data, found, parts, scale, wide) if folds > 1 else found, samples


def case(seed: int, **given: Any) -> Case:
    """Networks of one or two topologies, with any functions, precision, loss and preparation; `given` decides some."""
    source = random.Random(seed)
    loss = given.get("loss", LOSSES[seed % len(LOSSES)])
    dtype = given.get("dtype", source.choice([torch.float32, torch.float64]))
    outputs, folds = source.randint(1, 3), source.choice([1, 1, 3])
    prepared, samples = None, None
    width, out = source.randint(1, 6), outputs + (loss == "cross_entropy")
    if source.random() < 0.75:
        prepared, samples = preparation(source, loss, outputs, folds)
        width, out = prepared.width_in, prepared.width_out
    populations = []
    for number in range(source.randint(1, 2)):
        hidden = given.get("hidden", source.choice([*gpubp.ACTIVATIONS]))
        widths = (width, *(source.randint(1, 9) for _ in range(source.randint(0, 3))), out)
        spec = gpubp.NetworkSpec(widths, hidden, "identity", loss, source.choice(["neuron", "layer", "none"]))
        populations.append(population(spec, source.randint(1, 4), dtype, seed=seed + number))
    count = sum(each.count for each in populations)
    order = torch.tensor(source.sample(range(count), count)).split([each.count for each in populations])
    position = torch.tensor([source.randrange(folds) for _ in range(count)])
    model = Model(Populations(tuple(populations), order), prepared, position=position)
    rows = source.sample(range(count), source.choice([1, source.randint(1, count)]))
    if samples is None:
        samples = torch.randn(9, width, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return Case(model, rows, samples)
