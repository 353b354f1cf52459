"""SOURCES: data by name, one row each; load_data() prepares them, a file or a data frame for training.

A source has a default task and loss; for a file, raw/about.py guesses them from the targets.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import ConfigError, DataError, check_kind, lookup, unknown
from ..maths.losses import LOSSES
from ..maths.rng import EVERYBODY, SEARCH, normal
from ..raw.about import choose_loss, sentences
from ..raw.entities import as_written, label
from ..raw.fitting import ask, check_scale
from ..raw.frames import read_frame
from ..raw.preparation import TASK_OF_LOSS, Preparation
from ..raw.tables import READERS, Table, listed, missing, named, read
from ..raw.text import Reading
from ..system.ambient import neutral
from ..system.arrays import real
from . import bundled
from .data import Dataset
from .folds import SPLIT
from .preparing import Division, Fitted, prepare

TEXT_FILES = ("delimiter", "encoding")  # options of Reading that only text files have
NOISE = SPLIT + 1  # the Philox layer of the spirals


class Source(NamedTuple):
    """A loader of raw samples, its usual loss, one line about it, and the usual settings of load_data()."""

    table: Callable[[], Table]
    loss: str
    about: str
    scale: str = "none"
    scale_targets: str = "none"
    validation: float = 0.2


def tutorial() -> Table:
    """The one sample of Mazur's step-by-step backpropagation example."""
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
    points = (points * 1e6).round() / 1e6  # cos and log of other machines may differ in the last bit
    columns = {"x": points[:, 0].numpy(), "y": points[:, 1].numpy(), "spiral": np.repeat([0, 1], 200)}
    return Table("spirals", columns, ("spiral",))


def scikit(name: str) -> Table:
    """A data set of scikit-learn, in raw units, with classes by name if they have names."""
    return Table(name, bundled.columns(name), ("target",))


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
        "442 patients, 10 inputs, how the disease progressed in a year; in raw units, those of scikit-learn's "
        "load_diabetes(scaled=False)",
        "standard",
        "standard",
    ),
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data ready for training, in float64, and their preparation. fingerprint: of the raw samples, SHA-256. settings:
    the scale, scale_targets and validation share in use, given or default. about: sentences about the reading of the
    data and their task."""

    name: str
    training: Dataset
    validation: Dataset | None
    preparation: Preparation
    loss: str
    fingerprint: str
    settings: dict[str, Any]
    about: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Prepared({'; '.join(self.about)})"

    @property
    def widths_in(self) -> int:
        """I, the width of the inputs."""
        return self.preparation.width_in

    @property
    def widths_out(self) -> int:
        """O, the required width of the outputs."""
        return self.preparation.width_out

    @property
    def typical(self) -> int:
        """How many samples a network trains on: the median."""
        sizes = self.training.sizes
        return self.training.samples if sizes is None else int(sizes.median())

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of training and validation samples."""
        return self.training.samples, 0 if self.validation is None else self.validation.samples


@neutral()
def load_data(
    name_or_samples: Any,
    target: str | Sequence[str] | None = None,
    loss: str | None = None,
    scale: str | float | None = None,
    impute: str | None = None,
    validation: float | None = None,
    seed: int = 0,
    scale_targets: str | None = None,
    task: str | None = None,
    reading: Reading | None = None,
    per: str | Sequence[str] | None = None,
    min_samples: int | None = None,
    folds: int | None = None,
    group: str | None = None,
    bootstrap: int | None = None,
    stratify: bool | None = None,
) -> Prepared:
    """A source of SOURCES, a file or columns with names, split into training and validation and prepared by fitting the
    training part.

    name_or_samples: a name or path; or a frame of pandas or polars, a pyarrow.Table, or a mapping of names to columns
    (M,). target: the columns to predict, of all but sources and .npz. task: "classification" or "regression". loss: a
    row of LOSSES. scale, impute, scale_targets: as in fit(). validation: the share of held-out samples, 0 for none.
    None means the source's; without a source, task and loss by the targets (raw/about.py), scale "standard",
    scale_targets "none", validation 0.2. reading: a gpubp.Reading, how a table is read and what is left out.

    per: key columns, not inputs: one network per entity, with its own share of held-out samples and its own scaling;
    min_samples: entities with fewer are left out. folds: how many, instead of validation, each with its own scaling;
    group: a column, not an input, whose values stay together. stratify: whether folds have equal shares of each class,
    the default for classes without group. bootstrap: how many, each validated on what it did not draw; scaling is
    fitted on all samples. See Dataset.by, .split, .folds and .bootstrap.
    Raises DataError for unusable data and ConfigError for invalid settings.
    """
    reading = Reading() if reading is None else reading
    if not isinstance(reading, Reading):
        raise ConfigError(f"reading is a {type(reading).__name__}; a gpubp.Reading expected")
    check_kind("group", group, str, optional=True)
    source = SOURCES.get(name_or_samples) if isinstance(name_or_samples, str) else None
    if source is None:
        keys = (*named("per", per), *named("group", group))
        table = _table(name_or_samples, target, reading, keys)
        usual, source = None, Source(lambda: table, "", "", "standard")
    elif target is not None or reading != Reading():
        given = (
            f"target {listed(named('target', target))}"
            if target is not None
            else "reading (--drop, --text, --dates and others)"
        )
        raise ConfigError(f"{given}: only for files; data {name_or_samples!r} need none")
    else:
        usual, table = source.loss, source.table()
    if loss is not None:
        lookup(LOSSES, loss, "loss", ConfigError)
    chosen, why = choose_loss(table, usual, loss, task)
    if scale_targets is None:  # the source's is meant for losses on numbers
        plain = chosen == "poisson" or chosen in TASK_OF_LOSS
        scale_targets = "none" if plain else source.scale_targets
    scale = check_scale(source.scale if scale is None else scale)
    written = scale if isinstance(scale, str) else repr(scale).removesuffix(".0")
    division = Division(named("per", per), min_samples, folds, group, bootstrap, stratify)
    if division.held_out and validation is not None and real(validation) != 0:
        raise ConfigError(f"validation {validation!r} and {division.held_out}: one of them expected")
    share = 0 if division.held_out else source.validation if validation is None else validation
    found = prepare(table, division, Fitted(chosen, scale, impute, scale_targets), share, seed)
    held_out = 0 if division.held_out or found.validation is None else found.validation.samples
    told = sentences(table, found.preparation, found.rows, held_out, written, chosen, why)
    told = ((source.about,) if source.about else ()) + told + found.about
    return Prepared(
        name=table.name,
        training=found.training,
        validation=found.validation,
        preparation=found.preparation,
        loss=chosen,
        fingerprint=table.fingerprint(),
        settings={"scale": written, "scale_targets": scale_targets, "validation": real(share)},
        about=told,
    )


def _keyed(table: Table, path: str | os.PathLike[str], keys: Sequence[str]) -> Table:
    """The table of a file. Key columns `keys` are texts as written where a whole number would be written differently:
    007 would be 7. If two texts would be one number, the column is text in other files too (Reading.text)."""
    numbers = [name for name in keys if name in table.columns and table.columns[name].dtype.kind in "if"]
    if not numbers or not table.named:
        return table
    texts, about, columns = list(table.reading.text), [*table.about], dict(table.columns)
    others = tuple(name for name in columns if name not in numbers)
    plain = read(
        path, reading=replace(table.reading, text=tuple(numbers), drop=(*table.reading.drop, *others), dates={})
    )
    for name in numbers:
        cells = plain.columns[name]
        known = dict(zip(cells.tolist(), columns[name].tolist())) if cells.dtype == object else {}
        known.pop(None, None)
        other = [cell for cell, number in known.items() if not as_written(cell, number)]
        if not other or not all(float(number).is_integer() for number in known.values()):
            continue
        columns[name] = cells
        about.append(f"{name} as it is written, as {other[0]} would be {label(known[other[0]])}")
        if len({*known.values()}) < len(known):
            texts.append(name)
    return replace(table, columns=columns, reading=replace(table.reading, text=tuple(texts)), about=tuple(about))


def check_name(given: str) -> None:
    """Raise DataError for a text that is not a name of data and does not look like a file."""
    path = Path(given)
    if given not in SOURCES and path.name == given and not (path.suffix or os.path.exists(given)):
        there = [given + each for each in READERS if os.path.exists(given + each)]
        raise DataError(f"{unknown('data', given, [*SOURCES, *there])}; or a file that ends in {listed(READERS)}")


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a Parquet file, by its name."""
    return str(path).lower().endswith(".parquet")


def _table(samples: Any, target: str | Sequence[str] | None, reading: Reading, keys: Sequence[str]) -> Table:
    """A file or columns with names, with targets."""
    if isinstance(samples, str):
        check_name(samples)
    file = isinstance(samples, str | os.PathLike)
    if not file or is_parquet(samples):
        for name in TEXT_FILES:
            if (given := getattr(reading, name)) is not None:
                what = samples if file else f"a {type(samples).__name__}"
                raise ConfigError(f"{name} {given!r}: only for files that end in .csv or .tsv, not for {what}")
    table = read(samples, target, reading) if file else read_frame(samples, target, reading, keys)
    for name in (*reading.text, *reading.dates):
        values = table.column(name)
        if name not in reading.dates and values.dtype != object and not missing(values).all():
            raise table.wrong(name, "holds floats so large that they may be rounded; integers or text expected")
    if not table.targets:
        advice = (
            "target= or --target names the columns to predict" if table.named else "no array is called targets or y"
        )
        raise DataError(f"{table.name} has no targets; {advice}; it has {listed(table.columns)}")
    for name in table.targets:
        if table.columns[name].dtype == object and name not in reading.text:
            ask(table, name)
    return _keyed(table, samples, keys) if file else table
