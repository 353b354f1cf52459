"""Room: how many of the next networks of a queue fit into host memory beside those that train."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .. import memory
from ..maths.spec import NetworkSpec
from ..system import free
from ..system.ambient import HOME
from .design import Planned
from .run import Run

TIMES = 2  # networks after a change are in memory twice, besides those before: as they stay or come, and joined


class Needs(NamedTuple):
    """The memory that networks need, in the order of their rows: kind (N,) int32 of each; specs: of each kind; bytes
    (kinds, 2) int64: of a network, and of the workspace in which it trains."""

    kind: Tensor
    specs: list[NetworkSpec]
    bytes: Tensor

    @classmethod
    def of(cls, planned: Sequence[Planned], first: int) -> Self:
        """first: the number of the first row."""
        kind, found = torch.empty(sum(len(each.rows) for each in planned), dtype=torch.int32), []
        for number, each in enumerate(planned):
            kind[each.rows - first] = number
            shape = each.spec, each.config.recipe(each.spec)
            found.append((memory.each(*shape, each.dtype.itemsize), memory.needed(*shape, 0, each.dtype.itemsize)))
        return cls(kind, [each.spec for each in planned], torch.tensor(found))

    def part(self, begin: int, end: int) -> Tensor:
        """(2, K): the bytes of each network in some rows, and of its workspace."""
        return self.bytes[self.kind[begin:end].long()].T


class Room(NamedTuple):
    """free: bytes, None if the system does not tell; training: bytes of the networks that train; workspace: of the
    largest; others: whether there are networks, which stay until joined or replaced."""

    free: int | None
    training: int = 0
    workspace: int = 0
    others: bool = False

    @classmethod
    def beside(cls, runs: Sequence[Run]) -> Self:
        """The present room."""
        shapes = [run.shape for run in runs]
        training = sum(run.pace.running * memory.each(*shape[:2], shape[3]) for run, shape in zip(runs, shapes))
        workspace = max(memory.needed(*shape[:2], 0, shape[3]) for shape in shapes)
        return cls(free.available(HOME), training, workspace, others=True)

    def fits(self, needs: Tensor, last: bool) -> int:
        """How many of the next networks, whose Needs.part() is `needs`, have room; at least one if none trains. last:
        whether no more wait, which would need room beside these."""
        if self.free is None:
            return needs.shape[1]
        each, workspaces = needs
        if last and not self.training and int(each.sum() + workspaces.max()) <= self.free:
            return len(each)
        times = TIMES if self.others else TIMES + 1  # they will be the others for those that follow
        together = times * (self.training + each.cumsum(0)) + workspaces.cummax(0).values.clamp(min=self.workspace)
        return max(int((together <= self.free).sum()), not self.training)
