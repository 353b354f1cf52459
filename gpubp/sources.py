"""SOURCES: data by name, a row each; load() makes them, or a file that tables.py reads, ready for training.

Which loss, where none is asked for: the single target column of a file, of texts, truth values or whole numbers, holds
classes, so cross_entropy; other targets are numbers, so mean_squared_error; a source has its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .errors import ConfigError, DataError, lookup, unknown
from .losses import LOSSES
from .preparation import TASK_OF_LOSS, Preparation, fit
from .rng import EVERYBODY, SEARCH, check_seed, normal, words
from .tables import READERS, Table, listed, read

SPLIT = 1 << 16  # the Philox layer of the split, apart from whatever else a search draws
NOISE = SPLIT + 1  # and of the spirals


class Source(NamedTuple):
    """A loader of raw samples, its usual loss, one line about it, and the usual settings of load()."""

    table: Callable[[], Table]
    loss: str
    about: str
    scale: str = "none"
    scale_targets: str = "none"
    validation: float = 0.2


def tutorial() -> Table:
    """The one sample of Mazur's step by step example of backpropagation."""
    values = {"i1": 0.05, "i2": 0.10, "o1": 0.01, "o2": 0.99}
    return Table("tutorial", {name: np.array([value]) for name, value in values.items()}, ("o1", "o2"))


def xor() -> Table:
    """The four corners of a square, and whether their coordinates differ."""
    first, second = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    return Table("xor", {"a": first, "b": second, "a xor b": first ^ second}, ("a xor b",))


def spirals() -> Table:
    """Two interleaved spirals of 200 points and 1.5 turns each, with a little noise; all within -1.1 to 1.1."""
    radius = torch.linspace(0.1, 1, 200, dtype=torch.float64)
    angle = 3 * math.pi * radius
    arm = radius[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
    noise = normal(0, torch.tensor([EVERYBODY]), 800, NOISE, SEARCH).reshape(400, 2)
    points = torch.cat((arm, -arm)) + 0.02 * noise
    points = (points * 1e6).round() / 1e6  # cos and log of another machine may differ in the last bit
    columns = {"x": points[:, 0].numpy(), "y": points[:, 1].numpy(), "spiral": np.repeat([0, 1], 200)}
    return Table("spirals", columns, ("spiral",))


def scikit(name: str) -> Table:
    """A data set that comes with scikit-learn, in its raw units, its classes by name where they have one."""
    try:
        from sklearn import datasets
    except ImportError:
        raise DataError(f'data {name!r}: scikit-learn is not installed; pip install "gpubp[data]"') from None
    options = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(**options)
    columns = {str(column): bunch.data[:, number] for number, column in enumerate(bunch.feature_names)}
    target = bunch.target_names[bunch.target] if "target_names" in bunch else bunch.target
    return Table(name, {**columns, "target": target}, ("target",))


SOURCES: dict[str, Source] = {
    "tutorial": Source(tutorial, "half_squared_error", "the tutorial's one sample, 2 inputs, 2 outputs", validation=0),
    "xor": Source(xor, "binary_cross_entropy", "the four points of exclusive or", validation=0),
    "spirals": Source(spirals, "binary_cross_entropy", "400 points of two interleaved spirals, 2 inputs"),
    "digits": Source(partial(scikit, "digits"), "cross_entropy", "1797 digits of 8 x 8 pixels, 10 classes", "16"),
    "iris": Source(partial(scikit, "iris"), "cross_entropy", "150 flowers, 4 inputs, 3 classes", "standard"),
    "wine": Source(partial(scikit, "wine"), "cross_entropy", "178 wines, 13 inputs, 3 classes", "standard"),
    "breast_cancer": Source(
        partial(scikit, "breast_cancer"), "binary_cross_entropy", "569 tumours, 30 inputs, 2 classes", "standard"
    ),
    "diabetes": Source(
        partial(scikit, "diabetes"),
        "mean_squared_error",
        "442 patients, 10 inputs, how the disease progressed in a year",
        "standard",
        "standard",
    ),
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data ready for training, in float64, and what made them so. fingerprint: of the raw samples, SHA-256. settings:
    the scale, scale_targets and validation share that were used, given or not."""

    name: str
    training: Dataset
    validation: Dataset | None
    preparation: Preparation
    loss: str
    fingerprint: str
    settings: dict[str, Any]

    @property
    def widths_in(self) -> int:
        """I, the width of the inputs."""
        return self.preparation.width_in

    @property
    def widths_out(self) -> int:
        """O, the width that the outputs need."""
        return self.preparation.width_out

    @property
    def sizes(self) -> tuple[int, int]:
        """How many samples train and validate."""
        return self.training.samples, 0 if self.validation is None else self.validation.samples


def load(
    name_or_path: str | os.PathLike[str],
    target: str | Sequence[str] | None = None,
    loss: str | None = None,
    scale: str | float | None = None,
    impute: str | None = None,
    validation: float | None = None,
    seed: int = 0,
    scale_targets: str | None = None,
) -> Prepared:
    """A source of SOURCES or a file, split into training and validation and prepared by what the training part shows.

    target: the columns to predict, of a .csv or .parquet file. loss: a row of LOSSES. scale, impute, scale_targets: as
    fit() has them. validation: the share of samples not trained on, 0 for none. None takes the source's own; for files
    that is loss by the rule above, scale "standard", scale_targets "none", validation 0.2.
    Raises DataError for what cannot be trained on and ConfigError for settings that cannot be used.
    """
    source = SOURCES.get(str(name_or_path)) if isinstance(name_or_path, str) else None
    if source is None:
        table = _file(name_or_path, target)
        source = Source(lambda: table, _usual_loss(table), "a file", "standard")
    elif target is not None:
        raise ConfigError(
            f"target {target!r}: data {name_or_path!r} have their own; target is for .csv and .parquet files"
        )
    table = source.table()
    chosen = source.loss if loss is None else loss
    lookup(LOSSES, chosen, "loss", ConfigError)
    if scale_targets is None:  # the source's own goes with the losses of numbers
        plain = chosen == "poisson" or chosen in TASK_OF_LOSS
        scale_targets = "none" if plain else source.scale_targets
    scale = source.scale if scale is None else scale
    share = source.validation if validation is None else validation
    rows, held_out = split(table.samples, share, seed)
    preparation = fit(table, chosen, rows.numpy(), scale, impute, scale_targets)
    inputs, targets = preparation.inputs(table), preparation.targets(table)
    return Prepared(
        name=str(name_or_path),
        training=Dataset(inputs[rows], targets[rows], preparation=preparation),
        validation=Dataset(inputs[held_out], targets[held_out], preparation=preparation) if len(held_out) else None,
        preparation=preparation,
        loss=chosen,
        fingerprint=table.fingerprint(),
        settings={"scale": str(scale), "scale_targets": scale_targets, "validation": share},
    )


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The samples to train on and those held out, both ascending, int64; a pure function of its arguments, for ever.

    Held out are the round(share * count) samples with the smallest words of the search stream. Raises ConfigError, and
    DataError where a part would be empty; a share of 0 holds nothing out.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"validation {share!r}: a share from 0 to below 1 expected")
    drawn = words(check_seed(seed), torch.tensor([EVERYBODY]), count, SPLIT, SEARCH)[0]
    order = drawn.argsort(stable=True)
    held_out = math.floor(share * count + 0.5)
    if share and not 0 < held_out < count:
        raise DataError(
            f"validation {share:g} of {count} samples: {count - held_out} to train, {held_out} held out; one or more "
            "of each expected, or a share of 0"
        )
    return order[held_out:].sort().values, order[:held_out].sort().values


def _file(path: str | os.PathLike[str], target: str | Sequence[str] | None) -> Table:
    """The file at `path` with its targets; what is neither a file nor looks like one was meant as a name."""
    if isinstance(path, str) and not Path(path).suffix and not Path(path).exists() and Path(path).name == path:
        raise DataError(f"{unknown('data', path, SOURCES)}; or a file that ends in {listed(READERS)}")
    table = read(path, target)
    if not table.targets:
        missing = "name the columns to predict by --target" if table.named else "no array is called targets or y"
        raise DataError(f"{path} has no targets; {missing}; it has {listed(table.columns)}")
    return table


def _usual_loss(table: Table) -> str:
    classes = len(table.targets) == 1 and table.columns[table.targets[0]].dtype.kind in "Oib"
    return "cross_entropy" if classes else "mean_squared_error"
