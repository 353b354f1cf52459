"""Column: the fitted preparation of one column of a Table; raw(), filled() and number_target() read one.

Refused, with the column and the first sample: infinity, missing targets, missing values that nothing fills, text where
training had numbers, and numbers where training had text.
"""

from collections.abc import Sequence, ValuesView
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..system.arrays import real
from . import arrow
from .tables import Array, Table, complete, finite, floats, listed, missing

NUMBERS = "holds numbers, but text in training"
Scaling = float | tuple[float, ...]  # for all samples, or per position


@dataclass(frozen=True)
class Column:
    """The fitted preparation of one column.

    offset, factor: a number becomes (number - offset) / factor; one value, or one per position. categories: of a text
    column, one input each. fill: replaces missing values; None refuses them. low, high: the range of the raw numbers in
    the training part.
    """

    name: str
    offset: Scaling = 0.0
    factor: Scaling = 1.0
    categories: tuple[str, ...] | None = None
    fill: float | str | None = None
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Raise DataError for values that fit() never produces, as in a damaged file."""
        texts, fill = self.categories, self.fill
        right = {
            "name": isinstance(self.name, str),
            "offset": all(map(_finite, _each(self.offset))) and len(_each(self.offset)) == len(_each(self.factor)),
            "factor": all(_finite(each) and each > 0 for each in _each(self.factor)),
            "categories": texts is None or (are_texts(texts) and 0 < len(set(texts)) == len(texts)),
            "fill": fill is None or (_finite(fill) if texts is None else isinstance(fill, str)),
            "low": self.low is None or _finite(self.low),
            "high": self.high is None or _finite(self.high),
        }
        for name in right:
            if not right[name]:
                found = getattr(self, name)
                raise DataError(f"preparation: column {self.name!r} has {name} {found!r}, which fit() never produces")

    @property
    def numeric(self) -> bool:
        """Whether all categories are texts of numbers or truth values; these may then stand for the texts."""
        return self.categories is not None and all(map(arrow.is_number, self.categories))

    def at(self, position: int) -> Self:
        """The preparation of the samples of one position."""
        if not isinstance(self.offset, tuple) or not isinstance(self.factor, tuple):
            return self
        return replace(self, offset=self.offset[position], factor=self.factor[position])

    def encode(self, table: Table) -> Array:
        """The column of `table` as inputs, (M, 1), not scaled, or (M, categories); unseen categories are all zeros."""
        values = filled(table, self.name, self._raw(table), self.fill)
        if self.categories is None:
            return values[:, None]
        place = {category: number for number, category in enumerate(self.categories)}
        at = np.array([place.get(value, -1) for value in values])
        one_hot = np.zeros((len(values), len(self.categories)))
        one_hot[at >= 0, at[at >= 0]] = 1
        return one_hot

    def strange(self, table: Table) -> str | None:
        """How the column of `table` differs from training, as in another unit or under a wrong name, or None."""
        values = self._raw(table)
        known = values[~missing(values)]
        if not len(known):
            return None
        if self.categories is not None:
            texts = known.tolist()
            new = set(texts) - set(self.categories)
            if not new:
                return None
            many = sum(map(new.__contains__, texts))
            if many == len(texts):
                return f"column {self.name!r} holds {listed(sorted(new))}; in training {listed(self.categories)}"
            where = f"in {many:,} of {len(values):,} samples, which training did not have; they count as no category"
            return f"column {self.name!r} holds {listed(sorted(new), 6)} {where}"
        low, high = float(known.min()), float(known.max())
        if self.low is None or self.high is None or (low <= self.high and high >= self.low):
            return None
        return (
            f"column {self.name!r} holds {low:g} to {high:g}, in training {self.low:g} to {self.high:g}; are the units "
            "the same?"
        )

    def _raw(self, table: Table) -> Array:
        values = raw(table, self.name, text=self.categories is not None)
        known = values[~missing(values)] if self.name in table.numbers else ()
        if len(known) and not (self.numeric and arrow.are_truths(known) == arrow.are_truths(self.categories or ())):
            raise table.wrong(self.name, NUMBERS)
        return values


def _each(scaling: Any) -> tuple[Any, ...]:
    return scaling if isinstance(scaling, tuple) else (scaling,)


def tensors(columns: Sequence[Column]) -> tuple[Tensor, Tensor]:
    """Offsets and factors of columns, (1, columns), or (P, columns) if some have one per position."""
    offset, factor = (
        torch.broadcast_tensors(*(torch.tensor(_each(scaling), dtype=torch.float64) for scaling in of))
        for of in ([column.offset for column in columns], [column.factor for column in columns])
    )
    return torch.stack(offset, 1), torch.stack(factor, 1)


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and real(value) is not None


def are_texts(values: object) -> bool:
    """Whether `values` is a sequence of texts, not a single one."""
    return isinstance(values, (list, tuple, ValuesView)) and all(isinstance(each, str) for each in values)


def raw(table: Table, name: str, text: bool) -> Array:
    """An input column as text (object) or as finite or missing numbers (float64)."""
    values = table.column(name)
    if text and values.dtype.kind == "f" and bool(missing(values).all()):
        values = np.full(len(values), None)  # an empty column of a file has no type
    if text != (values.dtype == object):
        if text:
            raise table.wrong(name, NUMBERS)
        at = next((at for at, each in enumerate(values) if each and table.reading.number(each) is None), 0)
        raise table.wrong(name, f"holds text, the first {values[at]!r} in sample {at}, but numbers in training")
    return values if text else finite(table, name, floats(table, name, values))


def filled(table: Table, name: str, values: Array, fill: float | str | None) -> Array:
    """An input column with missing values replaced by `fill`, or refused if that is None."""
    if fill is None:
        return complete(table, name, values, "train with impute mean or median (--impute), or leave these samples out")
    return np.where(missing(values), np.array(fill, dtype=values.dtype), values)


def number_target(table: Table, name: str) -> Array:
    """A target column as finite numbers (M,) float64."""
    values = complete(table, name, table.column(name))
    if values.dtype == object:
        raise table.wrong(
            name, "holds text, this loss needs numbers; task classification (--task) trains on one column of classes"
        )
    return finite(table, name, floats(table, name, values))
