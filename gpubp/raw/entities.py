"""Entities: groups of samples that each train a network, named by the values of key columns.

Names are whole numbers, truth values or text, in ascending order: of the first column, then of the second. Refused,
with the column: missing and other values, and entities with too few samples, unless they are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError, ShapeError, nearest, one_of
from ..system import arrays
from ..system.arrays import Array

Label = str | int | bool

NAME = "entity"  # the key column's name for unnamed keys
KINDS = {str, int, bool}
SMALL = ("refuse", "drop")
SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Entities:
    """Entities in the order of their positions in the data: for each key column, by name, their E values."""

    names: tuple[str, ...]
    values: tuple[tuple[Label, ...], ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entities:
        """From asdict(), as read back from JSON; raises DataError for what by() never returns, as in a damaged file."""
        found = cls(tuple(values["names"]), tuple(map(tuple, values["values"])))
        names, sizes = found.names, {len(column) for column in found.values}
        plain = all(type(each) in (str, int, bool) for column in found.values for each in column)
        texts = all(isinstance(name, str) for name in names) and len(names) == len({*names}) == len(found.values)
        if not texts or not plain or len(sizes) != 1 or not 0 < len(found) == len({*zip(*found.values)}):
            raise DataError(f"entities {names!r}: columns of equal lengths, and no entity twice, expected")
        return found

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
        """The positions of samples' entities by the values of the key columns, (M,) int64, -1 for none."""
        place = {name: number for number, name in enumerate(zip(*self.values))}
        found = (place.get(name, -1) for name in zip(*(map(label, column) for column in columns)))
        return np.fromiter(found, np.int64)


def located(cells: Array | Iterable[Any], entities: Entities | None, first: int) -> Array | list[Any]:
    """The positions of the entities that the cells of a design's column `entity` give, by position, or by name: text,
    or a tuple with a value for each key. first: the number of the first row. Raises DataError."""
    if isinstance(cells, np.ndarray):
        known = cells[~np.isnan(cells)]
        if entities is None or (np.isin(known, range(len(entities)))).all():
            return cells
    many = 0 if entities is None else len(entities)
    place: dict[Any, int] = {} if entities is None else {entities.text(at): at for at in range(many)}
    place |= {} if entities is None else {name: at for at, name in enumerate(zip(*entities.values))}
    found: list[Any] = []
    for row, cell in enumerate(cells, first):
        cell = tuple(cell) if isinstance(cell, list) else label(cell)
        named = isinstance(cell, str | tuple)
        if named and cell in place:
            cell = place[cell]
        elif isinstance(cell, str) and not cell.strip():
            cell = None
        elif isinstance(cell, str) and cell.strip().isdecimal():
            cell = int(cell)
        if entities is not None and isinstance(cell, int) and not 0 <= cell < many:
            raise DataError(f"design: row {row}: entity {cell}: the data have {many}, from 0 to {many - 1}")
        if isinstance(cell, str | tuple):
            whose = "data.by(keys), expected" if entities is None else f"{told(entities, range(many))}, expected"
            near = nearest(cell, map(str, place))
            raise DataError(f"design: row {row}: entity {cell!r}{near}: a position from 0, or a name of {whose}")
        found.append(cell)
    return found


class Sorted(NamedTuple):
    """Samples by entity: rows (K,), one entity after the other, each ascending; sizes (E,), of each."""

    entities: Entities
    rows: Array
    sizes: Array

    def at_least(self, min_samples: int, small: str = "drop") -> Sorted:
        """The entities with at least that many samples; others are left out, or refused with "refuse". Raises DataError
        and ConfigError."""
        least = arrays.count("min_samples", min_samples)
        one_of(SMALL, small, "small")
        kept = self.sizes >= least
        few = (~kept).nonzero()[0]
        if len(few) and (small == "refuse" or not kept.any()):
            advice = "more samples, or small='drop', which leaves some out"
            raise DataError(
                f"{told(self.entities, few)} of {len(kept):,}: fewer than {least} samples, {self.sizes[few].min()} or "
                f"more: {advice if kept.any() else f'min_samples of {self.sizes.max()} or fewer'} expected"
            )
        return Sorted(
            self.entities.take(kept.nonzero()[0].tolist()), self.rows[kept.repeat(self.sizes)], self.sizes[kept]
        )


def by(columns: Mapping[str, Any], samples: int) -> Sorted:
    """The samples of each entity. columns: the values of each key column, by its name. Raises ConfigError, DataError
    and ShapeError."""
    code, found = np.zeros(samples, np.int64), []
    for name, values in columns.items():
        labels, own = _coded(name, values, samples)
        code = np.unique(code * len(labels) + own, return_inverse=True)[1]  # below M: no product overflows
        found.append((labels, own))
    order, sizes = code.argsort(kind="stable"), np.bincount(code)
    first = order[np.cumsum(sizes) - sizes]
    names = tuple(tuple(labels[at] for at in own[first].tolist()) for labels, own in found)
    return Sorted(Entities(tuple(columns), names), order, sizes)


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
        found = {str(name): keys[name] for name in getattr(keys, "column_names", keys.columns)}
    elif isinstance(keys, tuple) and all(isinstance(each, Iterable) and not isinstance(each, str) for each in keys):
        found = {f"{NAME}_{number}": each for number, each in enumerate(keys)}
    else:
        name = getattr(keys, "name", None)
        found = {name if isinstance(name, str) and name else NAME: keys}
    if not found:
        raise ConfigError("keys: a column of values, or several, expected, got none")
    return found


def _coded(name: str, values: Any, samples: int) -> tuple[list[Label], Array]:
    """The distinct values of a key column, ascending, and each sample's place among them (M,)."""
    if isinstance(values, Mapping | str | set | frozenset) or not isinstance(values, Iterable):
        raise ConfigError(f"key column {name!r} is a {type(values).__name__}; a value for each sample expected")
    if (shape := getattr(values, "shape", None)) is not None and len(shape) != 1:
        raise ShapeError(f"key column {name!r} of shape {tuple(shape)}; a value for each sample expected")
    given = arrays.listed(values)
    if len(given) != samples:
        raise ShapeError(f"key column {name!r} has {len(given)} values; one for each of {samples} samples expected")
    plain = all(issubclass(kind, str | int | float | np.generic) for kind in {*map(type, given)})
    named = {each: label(each) for each in dict.fromkeys(given)} if plain else {}
    right = plain and {*map(type, named.values())} <= KINDS
    for sample, each in enumerate(() if right else given):
        if type(found := label(each)) not in KINDS:
            what = "is missing" if found is None else f"is {type(each).__name__} {each!r}"
            raise DataError(f"key column {name!r} {what} in sample {sample}; whole numbers or text expected")
    labels = sorted({*named.values()}, key=lambda each: (isinstance(each, str), each))
    place = {each: number for number, each in enumerate(labels)}
    code = {each: place[label] for each, label in named.items()}
    return labels, np.fromiter(map(code.__getitem__, given), np.int64, samples)


def as_written(cell: str, number: float) -> bool:
    """Whether a cell is the whole `number` as label() writes it, or with a point and zeros."""
    whole, _, zeros = cell.strip().partition(".")
    return whole == str(label(number)) and not zeros.strip("0")


def label(value: Any) -> Any:
    """A value in the form that names an entity: whole floats become whole numbers; None means missing."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    return value
