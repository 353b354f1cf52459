"""Stored: networks whose rows are in other files than the rest of their checkpoint, as a cluster's shards leave them.

A manifest names these files, below RUN/shards, with their SHA-256 and the networks of each. Rows are joined when used,
tensor by tensor: unused ones take no memory. Opening a file takes longer the more tensors it has, so rows of many
populations are fetched together, file by file. Refused: files that are damaged, that are elsewhere, or that do not have
every network once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..population import Population
from ..state import TrainState
from ..system import files

SHARDS = "shards"  # of a run on a cluster (cluster/)
DTYPES = {"F32": torch.float32, "F64": torch.float64}
Read = Callable[[str], Tensor]


def is_row(name: str) -> bool:
    """Whether a tensor of a state is (N, P)."""
    return name == "params" or name.startswith(("slots.", "kept."))


def predicts(name: str) -> bool:
    """Whether predictions need the tensor."""
    return name == "params" or name.startswith("kept.")


class Part(NamedTuple):
    """The networks first, first + step, ... of population `group`: population number `at` of a file."""

    at: int
    group: int
    first: int
    step: int


class Kind(NamedTuple):
    """The dtype and P of a tensor (N, P)."""

    dtype: torch.dtype
    width: int


class Source:
    """The rows in `given`, the files of a manifest: for each its name in the run, its SHA-256, and group, first and
    step of each of its Parts. counts: N of each population; where(name): the file, while it is open. Raises
    CheckpointError for a file that is not a shard's, and errors of Python for values of another type."""

    def __init__(
        self, given: Sequence[Mapping[str, Any]], counts: Sequence[int],
        where: Callable[[str], AbstractContextManager[Path]],
    ) -> None:  # fmt: skip
        self.counts, self.where = counts, where
        self.known: dict[str, tuple[int, ...]] = {}  # by file, if undamaged when last opened
        self.fetched: dict[tuple[int, str], Tensor] = {}  # not used yet
        self.digests = {str(each["file"]): each["sha256"] for each in given}
        self.parts = {
            str(each["file"]): [Part(at, *map(int, some)) for at, some in enumerate(each["networks"])] for each in given
        }
        for name, parts in self.parts.items():
            folders = PurePosixPath(name).parts
            if folders[:1] != (SHARDS,) or ".." in folders:
                raise CheckpointError(f"rows in {name!r}: a file below {SHARDS} in the run's directory expected")
            if any(not 0 <= each.group < len(counts) for each in parts):
                raise CheckpointError(f"{name} does not have the rows of the networks that are to be in it")

    @cached_property
    def kinds(self) -> list[dict[str, Kind]]:
        """For each population, its tensors (N, P) by name. Raises CheckpointError unless the files are undamaged and
        have every network once."""
        kinds: list[dict[str, Kind]] = [{} for _ in self.counts]
        times = [torch.zeros(count, dtype=torch.int32) for count in self.counts]
        for name, parts in self.parts.items():
            shapes: dict[str, dict[str, tuple[str, list[int]]]] = {}
            with self._opened(name) as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    number, _, row = key.partition(".")
                    if is_row(row):
                        some = file.get_slice(key)
                        shapes.setdefault(number, {})[row] = some.get_dtype(), some.get_shape()
            for at, group, first, step in parts:
                mine = times[group][first::step]
                mine += 1
                found = {
                    row: Kind(DTYPES[kind], shape[1])
                    for row, (kind, shape) in shapes.get(str(at), {}).items()
                    if kind in DTYPES and len(shape) == 2 and shape[0] == len(mine)
                }
                if not found or (kinds[group] and kinds[group] != found):
                    raise CheckpointError(f"{name} does not have the rows of the networks that are to be in it")
                kinds[group] = found
        if any(bool((each != 1).any()) for each in times):
            raise CheckpointError("the files of rows do not have every network once")
        return kinds

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        """Open a file, checking its SHA-256 unless it is the same file as before: another run may have replaced this
        one meanwhile. Raises CheckpointError."""
        what = f"{name}, which has rows of the run's networks,"
        with files.trusted(what, otherwise="it is not a safetensors file"), self.where(name) as path:
            found = path.stat()
            now = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
            if self.known.get(name) != now:
                if files.digest(path) != self.digests[name]:
                    raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in the manifest")
                self.known[name] = now
            with safe_open(path, framework="pt") as file:
                yield file

    def blank(self, group: int, device: torch.device) -> dict[str, Tensor]:
        """Tensors without memory in place of a population's."""
        return {
            name: torch.zeros(1, dtype=kind.dtype, device=device).expand(self.counts[group], kind.width)
            for name, kind in self.kinds[group].items()
        }

    def read(self, group: int, device: torch.device, name: str) -> Tensor:
        """A tensor (N, P) of a population. Raises CheckpointError."""
        if (group, name) not in self.fetched:
            self.fetch({group: [name]}, device)
        return self.fetched.pop((group, name))

    def fetch(self, wanted: Mapping[int, Sequence[str]], device: torch.device) -> None:
        """Read tensors of populations, by their names, before they are used. Raises CheckpointError."""
        found = dict[tuple[int, str], Tensor]()
        for group, name in ((group, name) for group, names in wanted.items() for name in names):
            kind = self.kinds[group][name]
            found[group, name] = torch.empty(self.counts[group], kind.width, dtype=kind.dtype, device=device)
        for file, parts in self.parts.items():
            if some := [(part, name) for part in parts for name in wanted.get(part.group, ())]:
                with self._opened(file) as opened:
                    for part, name in some:
                        rows = opened.get_tensor(f"{part.at}.{name}").to(device)
                        found[part.group, name][part.first :: part.step] = rows
        self.fetched |= found


class Rowless(TrainState):
    """A TrainState whose rows are elsewhere: it has `params` without memory instead, and neither slots nor kept
    rows."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All but the rows."""
        yield from (each for each in super().tensors() if not is_row(each[0]))


def rowless(state: TrainState) -> Rowless:
    """The same networks without their rows."""
    known = {each.name: getattr(state, each.name) for each in fields(TrainState)}
    return Rowless(**(known | {"slots": [], "kept": {}}))


class StoredPopulation(Population):
    """A Population whose params are read when used."""

    read: Read

    @cached_property
    def params(self) -> Tensor:
        """(N, P)."""
        return self.read("params")

    def __reduce__(self) -> Any:
        """Copied and pickled with its rows, which may be elsewhere later."""
        return Population, (self.spec, self.params, self.seed, self.ids)


class StoredState(TrainState):
    """A TrainState whose rows are read when used."""

    read: Read

    @classmethod
    def of(cls, state: TrainState, read: Read) -> Self:
        """`state` with the rows that `read` returns by the names of TrainState.tensors()."""
        mine = state.population
        population, found = StoredPopulation.__new__(StoredPopulation), cls.__new__(cls)
        vars(population).update(spec=mine.spec, seed=mine.seed, ids=mine.ids, read=read)
        known = {each.name: getattr(state, each.name) for each in fields(TrainState)}
        del known["slots"], known["kept"]
        vars(found).update(known | {"population": population, "read": read})
        return found

    @cached_property
    def slots(self) -> list[Tensor]:  # type: ignore[override]
        """(N, P) each."""
        return [self.read(f"slots.{name}") for name in self.recipe.rule.slots]

    @cached_property
    def kept(self) -> dict[str, Tensor]:  # type: ignore[override]
        """(N, P) each."""
        return {"best": self.read("kept.best")} if self.recipe.restore_best else {}

    def __reduce__(self) -> Any:
        """See StoredPopulation."""
        return TrainState, tuple(getattr(self, each.name) for each in fields(TrainState))
