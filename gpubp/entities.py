"""Entities: the groups of samples that train a network each, named by the values of key columns.

Names are whole numbers, truth values or text, in ascending order: of the first column, then of the second. Refused,
with the column: missing and other values, and entities with fewer samples than asked for, unless they are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays
from .errors import ConfigError, DataError, ShapeError, one_of

Array = npt.NDArray[Any]
Label = str | int | bool

NAME = "entity"  # the key column of keys without a name
SMALL = ("refuse", "drop")
SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Entities:
    """Entities in the order of their positions in the data: for each key column, by name, their E values."""

    names: tuple[str, ...]
    values: tuple[tuple[Label, ...], ...]

    def __post_init__(self) -> None:
        """Raise DataError for what by() never makes, as in a damaged file."""
        sizes = {len(column) for column in self.values}
        plain = all(type(each) in (str, int, bool) for column in self.values for each in column)
        texts = all(isinstance(name, str) for name in self.names)
        right = texts and plain and len(self.names) == len({*self.names}) == len(self.values) and len(sizes) == 1
        if not right or len({*zip(*self.values)}) < len(self) or not len(self):
            raise DataError(f"entities {self.names!r}: columns of equal lengths, no entity twice, expected")

    def __len__(self) -> int:
        return len(self.values[0])

    def take(self, index: Sequence[int] | slice) -> Entities:
        """The entities at these positions."""
        at = range(len(self))[index] if isinstance(index, slice) else index
        return Entities(self.names, tuple(tuple(column[place] for place in at) for column in self.values))

    def text(self, position: int) -> str:
        """The name of the entity at `position`."""
        return ", ".join(str(column[position]) for column in self.values)

    def positions(self, columns: Sequence[Iterable[Any]]) -> Array:
        """For samples with these values of the key columns the positions of their entities, (M,) int64, -1 for none."""
        place = {name: number for number, name in enumerate(zip(*self.values))}
        found = (place.get(name, -1) for name in zip(*(map(_label, column) for column in columns)))
        return np.fromiter(found, np.int64)


class Sorted(NamedTuple):
    """Samples by entity: rows (K,), one entity after the other, each ascending; sizes (E,), of each."""

    entities: Entities
    rows: Array
    sizes: Array


def by(columns: Mapping[str, Any], samples: int, min_samples: int = 1, small: str = "refuse") -> Sorted:
    """The samples of each entity that `columns` name, those of a key column by its name. min_samples, small: entities
    with fewer samples are refused, or with "drop" left out. Raises ConfigError, DataError and ShapeError."""
    least = arrays.whole(min_samples)
    if least is None or least < 1:
        raise ConfigError(f"min_samples {min_samples!r}: a whole number of 1 or more expected")
    one_of(SMALL, small, "small")
    given = [_column(name, values, samples) for name, values in columns.items()]
    code = np.zeros(samples, dtype=np.int64)
    for values in given:
        distinct = sorted({*values}, key=lambda each: (isinstance(each, str), each))
        place = {label: number for number, label in enumerate(distinct)}
        code = code * len(distinct) + np.fromiter(map(place.__getitem__, values), np.int64, samples)
        code = np.unique(code, return_inverse=True)[1]  # below M, so that no product overflows
    order, sizes = code.argsort(kind="stable"), np.bincount(code)
    first = np.cumsum(sizes) - sizes
    entities = Entities(tuple(columns), tuple(tuple(values[at] for at in order[first]) for values in given))
    few = (sizes < least).nonzero()[0]
    if (len(few) and small == "refuse") or len(few) == len(sizes):
        raise DataError(
            f"{told(entities, few)} of {len(sizes):,} {'has' if len(few) == 1 else 'have'} fewer than {least} samples, "
            f"{int(sizes[few].min())} or more: more samples, another min_samples, or small='drop' expected"
        )
    kept = sizes >= least
    return Sorted(entities.take(kept.nonzero()[0].tolist()), order[kept[code[order]]], sizes[kept])


def told(entities: Entities, positions: Sequence[int] | Array) -> str:
    """The number and the first names of these entities."""
    both = len(entities.names) > 1
    names = ", ".join(f"({entities.text(at)})" if both else entities.text(at) for at in positions[:SHOWN])
    more = f" and {len(positions) - SHOWN:,} more" if len(positions) > SHOWN else ""
    return f"{len(positions):,} entit{'y' if len(positions) == 1 else 'ies'} ({names}{more})"


def key_columns(keys: Any) -> dict[str, Any]:
    """Key columns by name: a mapping or a frame as it is, a tuple of columns, or one column."""
    if isinstance(keys, Mapping):
        found = dict(keys)
    elif hasattr(keys, "columns"):
        found = {str(name): keys[name] for name in keys.columns}
    elif isinstance(keys, tuple) and all(isinstance(each, Iterable) and not isinstance(each, str) for each in keys):
        found = {f"{NAME}_{number}": each for number, each in enumerate(keys)}
    else:
        name = getattr(keys, "name", None)
        found = {name if isinstance(name, str) and name else NAME: keys}
    if not found:
        raise ConfigError("keys: a column of values, or several, expected, got none")
    return found


def _column(name: str, values: Any, samples: int) -> list[Label]:
    """The values of a key column, checked."""
    if isinstance(values, Mapping | str | set | frozenset) or not isinstance(values, Iterable):
        raise ConfigError(f"key column {name!r} is a {type(values).__name__}; a value for each sample expected")
    found = [_label(each) for each in (values.tolist() if hasattr(values, "tolist") else values)]
    if len(found) != samples:
        raise ShapeError(f"key column {name!r} has {len(found)} values; one for each of {samples} samples expected")
    for sample, each in enumerate(found):
        if type(each) not in (str, int, bool):
            what = "is missing" if each is None or each != each else f"is {type(each).__name__} {each!r}"
            raise DataError(f"key column {name!r} {what} in sample {sample}; whole numbers or text expected")
    return found


def _label(value: Any) -> Any:
    """A value as it names an entity: whole floats are whole numbers."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
