"""From what scikit-learn's users pass to what networks see: labels, scaling, weights, and samples for early stopping.

Only the samples of a fit decide: the table that is encoded may have others, such as those of other folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from ..raw.columns import Column
from ..raw.preparation import Preparation
from ..system.arrays import Array, count, whole


class Raw(NamedTuple):
    """Checked samples: inputs (M, I), targets, weight (M,) or None. seen: attributes such as n_features_in_."""

    inputs: Array
    targets: Array
    weight: Array | None
    seen: Mapping[str, Any]


@dataclass(frozen=True)
class Labels:
    """classes: the labels, sorted. kind: "binary", "multiclass" or "multilabel-indicator"."""

    classes: Array
    kind: str

    @classmethod
    def of(cls, y: Array, known: Any = None) -> Self:
        """The labels in y, or those `known` before. Raises ValueError for targets that are not labels, and for a single
        class."""
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            return cls(np.arange(y.shape[1]), kind)
        if kind.endswith("multioutput"):
            raise ValueError(f"y is {kind}; labels (M,), or a matrix (M, outputs) of 0 and 1, expected")
        labels = unique_labels(y) if known is None else np.unique(known)
        strange = np.setdiff1d(y, labels)
        if len(strange):
            raise ValueError(f"y has labels that are not in classes: {strange.tolist()}; {labels.tolist()} expected")
        if len(labels) < 2:
            raise ValueError(f"y has one class, {labels.tolist()}; samples of two classes or more expected")
        return cls(labels, "binary" if len(labels) == 2 else "multiclass")

    @property
    def outputs(self) -> int:
        """Logits: one for two classes, else one each."""
        return 1 if self.kind == "binary" else len(self.classes)

    def encoded(self, y: Array) -> Array:
        """Class numbers (M,), or 0 and 1 (M, outputs). An unknown label becomes an arbitrary one."""
        if self.kind == "multilabel-indicator":
            return dense(y).astype(float)
        places = np.searchsorted(self.classes, y).clip(max=len(self.classes) - 1)
        return places[:, None].astype(float) if self.kind == "binary" else places


def named(X: Any) -> list[str]:
    """The names of a frame's columns as text, as in raw/frames.py; none if there are no columns, or several of one
    name."""
    names = [*map(str, getattr(X, "column_names", getattr(X, "columns", ())))]  # pyarrow's columns are arrays
    return names if len({*names}) == len(names) else []


def labels_or_matrix(y: Any) -> Array:
    """y (M,) of labels, or of numbers (M, outputs)."""
    y = dense(y)
    return np.asarray(column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y)


def balanced(raw: Raw, rows: Array, class_weight: Any) -> Array | None:
    """The weights (M,) of the samples; classes' weights follow from `rows` alone. Raises ValueError for negative
    ones."""
    if class_weight is None:
        return raw.weight
    weight = np.ones(len(raw.inputs)) if raw.weight is None else raw.weight.copy()
    weight[rows] *= compute_sample_weight(class_weight, raw.targets[rows])
    if not (weight >= 0).all():
        raise ValueError(f"class_weight {class_weight!r}: numbers of 0 or more expected")
    return weight


def stratifies(strata: Array, fraction: float) -> bool:
    """Whether both a fraction of the samples and the rest can hold samples of each class."""
    counts = np.unique(strata, return_counts=True)[1]
    return bool(counts.min() > 1 and len(counts) <= min(fraction, 1 - fraction) * len(strata))


def divided(rows: Array, fraction: float, strata: Array | None, seed: int) -> tuple[Array, Array]:
    """Those of `rows` to train on, and those for early stopping, stratified by class if there are enough."""
    if strata is not None and not stratifies(strata, fraction):
        strata = None
    train, held_out = train_test_split(rows, test_size=fraction, random_state=seed, stratify=strata)
    if len(held_out) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, held_out


def scaler(name: str, values: Array, rows: Array, weight: Array | None) -> StandardScaler:
    """A scaler to mean 0 and standard deviation 1 of each column in `rows`. Raises ValueError if either is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = StandardScaler().fit(values[rows], sample_weight=None if weight is None else weight[rows])
    if not np.isfinite([found.mean_, found.scale_]).all():
        raise ValueError(f"{name} has numbers that are too large to be scaled: smaller units expected")
    return found


def scaled(values: Array, by: StandardScaler) -> Array:
    """The values scaled; infinite where too large: see tensor()."""
    with np.errstate(over="ignore"):
        return np.asarray(by.transform(values))


def of_fit(
    names: Sequence[str], inputs: Any, outputs: int, targets: Any, task: str, labels: tuple[Any, ...]
) -> Preparation:
    """A fit's Preparation for features with these names and `outputs` numbers, each with its scaler or None."""
    own = "y"
    while any(name.startswith(own) for name in names):  # a name that no feature has
        own += "_"
    several = task == "numbers" and outputs > 1
    wanted = [f"{own}{number}" for number in range(outputs)] if several else [own]
    return Preparation(_columns(names, inputs), _columns(wanted, targets), task, labels)


def _columns(names: Sequence[str], scaling: StandardScaler | None) -> tuple[Column, ...]:
    if scaling is None:
        return tuple(Column(str(name)) for name in names)
    return tuple(
        Column(str(name), *each) for name, *each in zip(names, scaling.mean_.tolist(), scaling.scale_.tolist())
    )


def dense(values: Any) -> Array:
    """The values, a sparse matrix as an array."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def tensor(name: str, values: Array, dtype: torch.dtype) -> Tensor:
    """Floats as `dtype`, class numbers as int64. Raises ValueError for numbers that the dtype cannot hold."""
    array = np.ascontiguousarray(values)
    given = torch.from_numpy(array if array.flags.writeable else array.copy())
    if not given.is_floating_point():
        return given.long()
    found = given.to(dtype)
    if not bool(found.isfinite().all()):
        other = "" if dtype == torch.float64 else ", or use dtype='float64'"
        raise ValueError(f"{name} has numbers that are infinite as {dtype}: scale them{other}")
    return found


def equal(batch: Any, samples: int) -> int:
    """A batch size of at most `batch` that takes as many batches per epoch, equal in size up to rounding. Raises
    ValueError unless it is a whole number of 1 or more."""
    return -(-samples // -(-samples // count("batch_size", batch)))


def layers(sizes: Any) -> tuple[int, ...]:
    """The widths of one or several hidden layers. Raises ValueError unless they are whole numbers of 1 or more."""
    try:
        each = [*sizes]
    except TypeError:  # one
        each = [sizes]
    widths = [whole(size) for size in each]
    if any(width is None or width < 1 for width in widths):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes!r}: whole numbers, one per layer, expected")
    return tuple(width for width in widths if width is not None)
