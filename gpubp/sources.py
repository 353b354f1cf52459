"""SOURCES: data by name, a row each; read() takes files; load() makes either ready for training.

Which loss, where none is asked for: the single target column of a file, of texts, truth values or whole numbers, holds
classes, so cross_entropy; other targets are numbers, so mean_squared_error; a source has its own. Cells of a .csv that
are empty, NA, NaN or null are missing values. Nothing that a file holds is ever executed.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import torch
from pyarrow import csv, parquet
from torch import Tensor

from .data import Dataset
from .errors import ConfigError, DataError, lookup, unknown
from .losses import LOSSES
from .preparation import TASK_OF_LOSS, Array, Preparation, Table, fit, listed
from .rng import EVERYBODY, SEARCH, check_seed, normal, words

SPLIT = 1 << 16  # the Philox layer of the split, apart from whatever else a search draws
NOISE = SPLIT + 1  # and of the spirals
INPUTS = ("inputs", "X", "x")  # names of arrays in .npz files
TARGETS = ("targets", "y")


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
    """Data ready for training, in float64, and what made them so. fingerprint: of the raw samples, SHA-256."""

    name: str
    training: Dataset
    validation: Dataset | None
    preparation: Preparation
    loss: str
    fingerprint: str

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
    rows, held_out = split(table.samples, source.validation if validation is None else validation, seed)
    preparation = fit(table, chosen, rows.numpy(), source.scale if scale is None else scale, impute, scale_targets)
    inputs, targets = preparation.inputs(table), preparation.targets(table)
    return Prepared(
        name=str(name_or_path),
        training=Dataset(inputs[rows], targets[rows]),
        validation=Dataset(inputs[held_out], targets[held_out]) if len(held_out) else None,
        preparation=preparation,
        loss=chosen,
        fingerprint=table.fingerprint(),
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


def read(path: str | os.PathLike[str], target: str | Sequence[str] | None = None, text: Collection[str] = ()) -> Table:
    """The raw samples of a .csv, .npz or .parquet file.

    target: the columns that are targets; without it every column of .csv and .parquet is an input, as for prediction.
    An .npz has its inputs in an array inputs, X or x, and its targets, if any, in targets or y. text: columns of a .csv
    to be read as text, whatever they look like: Preparation.text for prediction. Raises DataError that names the file.
    """
    path, targets = Path(path), (target,) if isinstance(target, str) else tuple(target or ())
    if path.is_dir():
        raise DataError(f"{path} is a directory; a file that ends in {listed(READERS)} expected")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: {unknown('the ending', path.suffix, READERS)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path} is empty; samples expected")
    try:
        return reader(str(path), content, targets, text)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the parsers raise nearly anything
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DataError(f"{path} cannot be read as {path.suffix.lower()}: {reason}") from error


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


def _csv(name: str, content: bytes, targets: tuple[str, ...], text: Collection[str]) -> Table:
    convert = csv.ConvertOptions(strings_can_be_null=True, column_types={column: pyarrow.string() for column in text})
    parse = csv.ParseOptions(newlines_in_values=True)
    return _arrow(
        name, csv.read_csv(pyarrow.BufferReader(content), parse_options=parse, convert_options=convert), targets
    )


def _parquet(name: str, content: bytes, targets: tuple[str, ...], text: Collection[str]) -> Table:
    return _arrow(name, parquet.read_table(pyarrow.BufferReader(content)), targets)


def _arrow(name: str, table: Any, targets: tuple[str, ...]) -> Table:
    """A pyarrow.Table as a Table; raises DataError for columns without a name or of another type."""
    names = table.column_names
    for number, column in enumerate(names):
        if column in ("", "__index_level_0__"):  # the second is what pandas calls it in .parquet
            raise DataError(f"{name}: column {number} has no name; where it is a saved index, save without the index")
        if names.index(column) != number:
            raise DataError(f"{name}: two columns are called {column!r}; different names expected")
    columns = {column: _numpy(f"{name}: column {column!r}", table.column(column)) for column in names}
    return Table(name, columns, targets)


def _numpy(where: str, column: Any) -> Array:
    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values: Array = np.array(column.to_pylist(), dtype=object)
        return values
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_binary(kind) or types.is_large_binary(kind):
        raise DataError(f"{where} holds bytes that are not text in UTF-8; save the file in UTF-8")
    if not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DataError(
            f"{where} holds {kind}; numbers, truth values or text expected: turn it into numbers or leave it out"
        )
    if types.is_decimal(kind) or (column.null_count and not types.is_floating(kind)):
        column = column.cast(pyarrow.int8() if types.is_boolean(kind) else kind).cast(pyarrow.float64())
    return np.asarray(column.to_numpy())


def _npz(name: str, content: bytes, targets: tuple[str, ...], text: Collection[str]) -> Table:
    if targets:
        raise DataError(f"{name}: target {listed(targets)} chooses columns of .csv and .parquet; .npz has targets or y")
    if not content.startswith(b"PK"):
        raise DataError(f"{name} is not an .npz archive, as numpy.savez writes it")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        inputs, outputs = _array(name, archive, INPUTS), _array(name, archive, TARGETS)
    if inputs is None:
        raise DataError(f"{name}: no array is called {' or '.join(INPUTS)}; it has {listed(archive.files)}")
    given = f"{name}: inputs {inputs.shape}" + ("" if outputs is None else f", targets {outputs.shape}")
    outputs = np.empty((*inputs.shape[:1], 0)) if outputs is None else outputs
    if not (inputs.ndim and inputs.size) or outputs.ndim not in (1, 2) or len(inputs) != len(outputs):
        raise DataError(f"{given}; (M, I), and (M,) or (M, O), with M and I of 1 or more expected")
    columns = {}
    for kind, array in (("inputs", inputs), ("targets", outputs)):
        array = array.reshape(len(inputs), -1 if array.size else 0)
        columns.update({f"{kind}[{number}]": array[:, number] for number in range(array.shape[1])})
    return Table(name, columns, tuple(column for column in columns if column.startswith("targets")), named=False)


def _array(name: str, archive: Any, names: Sequence[str]) -> Array | None:
    """The array with one of these names, or None; nothing that needs unpickling, which could execute code."""
    present = [each for each in names if each in archive.files]
    if len(present) > 1:
        raise DataError(f"{name}: arrays {' and '.join(present)} mean the same; one of them expected")
    try:
        return np.asarray(archive[present[0]]) if present else None
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{name}: array {present[0]!r} holds pickled Python objects, which can execute code and are never loaded; "
            "numbers or text expected"
        ) from None


Reader = Callable[[str, bytes, tuple[str, ...], Collection[str]], Table]
READERS: dict[str, Reader] = {".csv": _csv, ".npz": _npz, ".parquet": _parquet}
