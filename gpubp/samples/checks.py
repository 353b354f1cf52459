"""Checks that networks can train on a Dataset, even if it has changed since it was made: engines trust its pointers."""

from ..errors import DataError, ShapeError, check_kind
from ..line import counted
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from .data import Dataset


def are_datasets(data: object, validation: object, call: str = "") -> None:
    """Raise ConfigError unless `data` is a Dataset, and `validation` one or None. call: the call that gives them."""
    if isinstance(getattr(data, "training", None), Dataset):  # of load_data()
        call = "data.training, and data.validation"
    check_kind("data", data, Dataset, call=call)
    check_kind("validation", validation, Dataset, optional=True, call=call)


def check(data: Dataset, spec: NetworkSpec, count: int) -> None:
    """Raise ShapeError or DataError unless `count` networks of `spec` can train on `data`."""
    _whole(data)
    width, classes, rule = data.inputs.shape[-1], spec.widths[-1], LOSSES[spec.loss]
    if width != spec.widths[0]:
        raise ShapeError(f"inputs {tuple(data.inputs.shape)}: the last size must be {spec.widths[0]}, the input width")
    if data.networks not in (None, count):
        folds = "; a design's column fold says on which fold each trains" if data.folded else ""
        raise ShapeError(f"the data are for {counted(data.networks, 'network')}, the population has {count}{folds}")
    shape = tuple(data.targets.shape)
    if rule.classes:
        if len(shape) != data.inputs.ndim - 1 or data.targets.is_floating_point():
            raise ShapeError(
                f"targets {shape} {data.targets.dtype}: loss {spec.loss!r} needs class numbers (M,), int64"
            )
        first, last = int(data.targets.min()), int(data.targets.max())
        if first < 0 or last >= classes:
            raise DataError(
                f"targets hold classes {first} to {last}; 0 to {classes - 1} expected for {counted(classes, 'output')}"
            )
        return
    if len(shape) != data.inputs.ndim or shape[-1] != classes:
        column = len(shape) == data.inputs.ndim - 1 and classes == 1
        how = "; targets[..., None] makes a column of class numbers" if column else ""
        raise ShapeError(
            f"targets {shape}: (M, {classes}) expected for loss {spec.loss!r} and widths {spec.widths}{how}"
        )
    low, high = float(data.targets.min()), float(data.targets.max())
    if spec.loss == "binary_cross_entropy" and (low < 0 or high > 1):
        raise DataError(f"targets hold {low:g} to {high:g}; binary_cross_entropy needs numbers from 0 to 1")
    if spec.loss == "hinge" and not bool((data.targets.abs() == 1).all()):
        raise DataError(f"targets hold {low:g} to {high:g}; hinge needs -1 and 1")
    if spec.loss == "poisson" and low < 0:
        raise DataError(f"targets hold {low:g}; poisson needs 0 or more")


def _whole(data: Dataset) -> None:
    """Raise ShapeError or DataError unless the tensors match each other."""
    inputs, weight, rows, sizes = data.inputs, data.sample_weight, data.rows, data.sizes
    before, shapes = inputs.shape[:-1], f"inputs {tuple(inputs.shape)}, targets {tuple(data.targets.shape)}"
    fits = data.targets.shape[: len(before)] == before and data.own == (len(before) == 2)
    if not fits or (weight is not None and weight.shape[-1:] != before[-1:]):
        weights = "" if weight is None else f", sample_weight {tuple(weight.shape)}"
        raise ShapeError(f"{shapes}{weights}: the data were changed, and no longer match")
    if rows is not None and sizes is not None and data.starts is not None:
        inside = int(rows.min()) >= 0 and int(rows.max()) < before[-1]
        inside &= int(data.starts.min()) >= 0 and int((data.starts + sizes).max()) <= len(rows)
        if not inside or data.lengths != (int(sizes.min()), int(sizes.max())):
            raise DataError(f"rows: the data were changed, and select missing samples; 0 to {before[-1] - 1} expected")
