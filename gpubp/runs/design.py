"""Design: a table with a row per network, and the groups of rows that share a kernel.

A column is a setting: of NetworkSpec (widths "64,32,10", hidden, output, loss, bias, train_bias), of Population.create
(init, init_scale), or of TrainConfig (optimizer, lr, batch_size, epochs, patience, ...; class_weight "1,2,1"; of custom
rules "extra.NAME"). Two more decide randomness and samples: `seed`, the network's id, by default its row; and `fold`,
the position of its samples in the data, by default also its row. `entity` is another name for `fold`, for
data.by(keys), and takes entities' names that are text, or a tuple with a value for each key. An empty cell means the
default (cells.py reads cells). Rows that differ only in numbers train as one population; nothing is padded. Refused,
with the row: whatever any of these refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from ..errors import ConfigError, DataError, GpubpError, lookup, unknown
from ..line import counted
from ..maths.initialise import INITIALISERS, initialise
from ..maths.spec import NetworkSpec
from ..population import Population, room
from ..raw.entities import Entities
from ..settings.class_weights import BALANCED, check_loss
from ..settings.config import TrainConfig
from ..state import TrainState
from ..system import files
from ..system.ambient import HOME
from .cells import EXTRA, LENGTHS, NUMBERS, Array, Column, column, columns

SPEC = ("widths", "hidden", "output", "loss", "bias", "train_bias")
START = ("init", "init_scale", "seed", "fold")
TRAINING = tuple(each.name for each in fields(TrainConfig) if each.name != "extra")
COLUMNS = (*SPEC, *START, *TRAINING)
DESIGN = "design.parquet"
INIT = "glorot_uniform"  # unless one is given
PIECE = 1 << 16  # rows written at once


class Group(NamedTuple):
    """Networks that share a kernel. rows (N,): in the design; position (N,): of each network's samples in the data;
    before: their state after an earlier training, from which they keep the optimizer's memory."""

    rows: Tensor
    population: Population
    config: TrainConfig
    position: Tensor
    before: TrainState | None = None

    def take(self, index: Tensor) -> Group:
        """The networks in the rows `index` (K,) of the group."""
        before = None if self.before is None else self.before.rows(index)
        population, config = self.population.take(index), self.config.take(index)
        return Group(self.rows[index], population, config, self.position[index], before)

    def made(self) -> Group:
        """Itself: see Planned."""
        return self

    @property
    def spec(self) -> NetworkSpec:
        """The networks' specification."""
        return self.population.spec

    @property
    def seed(self) -> int:
        """The population's seed."""
        return self.population.seed

    @property
    def ids(self) -> Tensor:
        """The networks' ids."""
        return self.population.ids

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return self.population.params.dtype


class Planned(NamedTuple):
    """A group before its networks are made, with their `seed`, ids, dtype, and the initial weights' rule and scale."""

    rows: Tensor
    spec: NetworkSpec
    config: TrainConfig
    position: Tensor
    seed: int
    ids: Tensor
    dtype: torch.dtype
    init: str
    scale: Any

    def take(self, index: Tensor) -> Planned:
        """The networks in the rows `index` (K,) of the group."""
        scale = self.scale[index] if isinstance(self.scale, Tensor) else self.scale
        some = {name: getattr(self, name)[index] for name in ("rows", "position", "ids")}
        return self._replace(config=self.config.take(index), scale=scale, **some)

    def made(self) -> Group:
        """The group. Raises OutOfMemoryError."""
        with named(self.rows):
            room(self.spec, len(self.rows), self.dtype)
            params = initialise(self.spec, INITIALISERS[self.init], self.seed, self.ids, self.dtype, self.scale)
            return Group(self.rows, Population(self.spec, params, self.seed, self.ids), self.config, self.position)


@contextmanager
def named(rows: Tensor) -> Iterator[None]:
    """Errors raised inside name the rows they are about."""
    try:
        yield
    except GpubpError as error:
        more = f" and {len(rows) - 1:,} like it" if len(rows) > 1 else ""
        raise type(error)(error, f"design: row {int(rows[0])}{more}") from None


@dataclass(frozen=True, eq=False)
class Design:
    """columns: the settings given for any network, by name, in the order of COLUMNS. count: N, of networks."""

    columns: dict[str, Column]
    count: int
    first: int = 0  # the number of the first row

    def part(self, begin: int, end: int, first: int | None = None) -> Design:
        """Some of the rows, with their numbers, or numbered from `first`."""
        some = slice(begin, min(end, self.count))  # views: one value for all still takes the memory of one
        found = {name: each.take(some) for name, each in self.columns.items()}
        return Design(found, some.stop - begin, self.first + begin if first is None else first)

    def __post_init__(self) -> None:
        if not self.count:
            raise ConfigError("the design has no rows; one or more networks expected")
        known = [*COLUMNS, *(name for name in self.columns if name not in COLUMNS)]
        kept = {name: self.columns[name] for name in known if name in self.columns and self.columns[name].given.any()}
        object.__setattr__(self, "columns", kept)

    @classmethod
    def of(cls, given: Any, first: int = 0, entities: Entities | None = None, **settings: Any) -> Design:
        """A design from a mapping of columns, a list or iterator of mappings, a frame of pandas or polars, a
        pyarrow.Table or the path of a .csv, .parquet, .json or .yaml file. first: the number of its first row;
        entities: of the data; settings: for all rows that do not set them."""
        if isinstance(given, Design):
            design = given
        else:
            cells, count, apart = columns(given, first, entities)
            design = cls(_read(cells, "row {}", first, apart), count, first)
        if not isinstance(extra := settings.pop("extra", {}), Mapping):
            raise ConfigError(f"extra {extra!r}: a dict of hyper-parameters by name expected")
        common = {name: [value] for name, value in settings.items()}
        common |= {f"{EXTRA}{name}": [value] for name, value in extra.items()}
        return design.filled(cls(_read(common, "all networks", 0), 1))

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Design({counted(self.count, 'network')}: {', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """The settings that at least one row has."""
        return [*self.columns]

    def filled(self, other: Design) -> Design:
        """This design, its empty cells filled from `other`, which has as many rows or one for all. A row that has a
        length takes no other, neither in epochs nor in steps."""
        found, every = dict(self.columns), np.ones(self.count, bool)
        lengths = [self.columns[name].given for name in LENGTHS if name in self.columns]
        free = ~np.any(lengths, 0) if lengths else every
        for name, theirs in other.columns.items():
            none = Column(theirs.values, np.zeros(self.count, bool), theirs.options)
            found[name] = found.get(name, none).filled(theirs, free if name in LENGTHS else every)
        return replace(self, columns=found)

    def lengthened(self, lengths: Mapping[str, int | None]) -> Design:
        """This design with other `lengths`, for networks that count in the same unit."""
        new = {name: np.int64(each) for name, each in lengths.items() if each is not None and name in self.columns}
        changed = {name: self.columns[name]._replace(values=np.full(self.count, each)) for name, each in new.items()}
        return replace(self, columns=self.columns | changed)

    def take(self, rows: Array) -> Design:
        """The networks of these rows."""
        return Design({name: each.take(rows) for name, each in self.columns.items()}, len(rows))

    def cells(self, name: str) -> list[Any]:
        """The setting `name` of each network, None where it is the default."""
        return self.columns[name].cells() if name in self.columns else [None] * self.count

    def table(self, begin: int = 0, end: int | None = None) -> pa.Table:
        """The design, or some of its rows, as a table, topologies as text."""

        def array(one: Column) -> pa.Array:
            values = pa.array(one.values[begin:end], mask=~one.given[begin:end])
            texts = [_text(each) for each in one.options or ()]
            return values if one.options is None else pa.DictionaryArray.from_arrays(values, texts).dictionary_decode()

        return pa.table({name: array(each) for name, each in self.columns.items()})

    def save(self, run_dir: Path) -> None:
        """Write RUN/design.parquet. Raises OSError."""
        files.write(run_dir / DESIGN, self._write)

    def _write(self, where: Path) -> None:
        with parquet.ParquetWriter(where, self.table(0, 0).schema) as writer:
            for begin in range(0, self.count, PIECE):
                writer.write_table(self.table(begin, begin + PIECE))

    def planned(self, seed: int, dtype: torch.dtype, folds: int | None) -> Iterator[Planned]:
        """The rows that share a kernel, in the order of their first rows; no network is made. folds: the number of
        positions in the data, or None if all networks have the same samples."""
        position = self.positions(folds)
        for rows in self.alike():
            at = self.first + torch.from_numpy(rows)
            with named(at):
                spec, config, many = self._settings(rows)
                ids = torch.from_numpy(self.columns["seed"].values[rows]) if "seed" in many else at
                init, places = many.get("init", INIT), torch.from_numpy(position[rows])
            yield Planned(at, spec, config, places, seed, ids, dtype, init, many.get("init_scale"))

    @property
    def plain(self) -> dict[str, Any]:
        """The settings of the first row, for JSON."""
        return {name: _text(self.cells(name)[0]) for name in self.names}

    def positions(self, folds: int | None) -> Array:
        """(N,): the position of each network's samples in the data."""
        position, fold = self.first + np.arange(self.count), self.columns.get("fold")
        if fold is not None:
            position = np.where(fold.given, fold.values, position)
            if folds is None:
                row = int(fold.given.argmax())
                raise DataError(
                    f"design: row {self.first + row}: fold {position[row]}: the data are the same for all networks; "
                    "data.folds(k), or on the command line --folds K, expected, or data.by(keys), --per COLUMN"
                )
        if folds is not None and (position >= folds).any():
            row = int((position >= folds).argmax())
            raise DataError(
                f"design: row {self.first + row}: fold {position[row]}: the data have {folds}, from 0 to {folds - 1}"
            )
        return position

    def alike(self) -> list[Array]:
        """The rows of each group."""
        key = np.zeros(self.count, np.int64)
        for name, each in self.columns.items():
            many = name in NUMBERS or name.startswith(EXTRA) or name == "class_weight"
            code = each.given * (1 if many else each.values + 1)
            if name == "class_weight":  # balanced weights form their own kind
                balanced = [at for at, option in enumerate(each.options or ()) if option == BALANCED]
                code += each.given & np.isin(each.values, balanced)
            if (code != code[0]).any():
                key = np.unique(key * (int(code.max()) + 1) + code, return_inverse=True)[1]
        order = key.argsort(kind="stable")
        found = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
        return sorted(found, key=lambda rows: int(rows[0]))

    def _settings(self, rows: Array) -> tuple[NetworkSpec, TrainConfig, dict[str, Any]]:
        """The specification and configuration of a group, and all its settings."""
        many = {name: _common(name, each.take(rows)) for name, each in self.columns.items() if each.given[rows[0]]}
        if "widths" not in many:
            raise ConfigError("widths are missing, of inputs, hidden layers and outputs: 64,32,10")
        spec = NetworkSpec(**{name: many[name] for name in SPEC if name in many})
        extra = {name.removeprefix(EXTRA): value for name, value in many.items() if name.startswith(EXTRA)}
        config = TrainConfig(**{name: many[name] for name in TRAINING if name in many}, extra=extra)
        config.recipe(spec)  # refuses an unused hyper-parameter before anything is made
        if isinstance(config.class_weight, str):
            check_loss(spec)
        elif config.class_weight is not None:
            config.columns(spec, len(rows), HOME)  # refuses a number of weights other than that of classes
        lookup(INITIALISERS, many.get("init", INIT), "init", ConfigError)
        return spec, config, many


def _read(cells: dict[str, Any], where: str, first: int, apart: bool = False) -> dict[str, Column]:
    """The columns, checked. apart: whether each row names its own columns."""
    for name, values in cells.items():
        if name not in COLUMNS and not (name.startswith(EXTRA) and name.removeprefix(EXTRA).isidentifier()):
            row = next((f"row {row}: " for row, cell in enumerate(values, first) if cell is not None), "")
            raise ConfigError(unknown(f"design: {row if apart else ''}column", name, COLUMNS))
    return {name: column(name, each, where, first) for name, each in cells.items()}


def _common(name: str, cells: Column) -> Any:
    """A setting of a group's networks: one value for all, or a tensor with one for each."""
    values, options = cells.values, cells.options
    if (values == values[0]).all():
        return values[0].item() if options is None else options[values[0]]
    if options is None:
        return torch.from_numpy(values)
    each = [options[at] for at in values]
    if len({*map(len, each)}) > 1:
        raise ConfigError(f"{name}s of {min(map(len, each))} to {max(map(len, each))} numbers: one per class expected")
    return torch.tensor(each, dtype=torch.float64)


def _text(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(str(each) for each in value)
    return str(value) if isinstance(value, str) else value
