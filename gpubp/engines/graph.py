"""Steps of a group of networks on a GPU: recorded once as a CUDA graph, replayed for every step.

A graph reads and writes the memory that it was recorded with. So the numbers of a group lie in tensors that stay: what
a step computes anew is copied back into them at its end, and other networks are loaded into the same tensors. A group
has the same size whoever is in it: the recording serves every call, and the libraries of a GPU, which choose the kernel
of a product by the size of the whole batch, choose the same one for a network alone and among others.

A dataset keeps its last recording; one of a rule that is not the package's own serves one call of the engine, as the
rule may read what has changed by the next. Where a step cannot be recorded, it is launched operation by operation, and
`reason` says why.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import cuda
from ..config import TrainConfig
from ..data import Dataset
from ..spec import NetworkSpec
from . import rules

if TYPE_CHECKING:
    from .eager import Block

GROUPS: weakref.WeakKeyDictionary[Dataset, Group] = weakref.WeakKeyDictionary()


class Group:
    """A Block whose tensors stay, and its step, recorded. position (N,): places of its networks in the dataset."""

    def __init__(self, block: Block, position: Tensor, data: Dataset, key: Hashable) -> None:
        self.block, self.position, self.key = block, position.clone(), key
        self.data = weakref.proxy(data)  # the dataset keeps the group, not the group the dataset
        self.index = torch.zeros(len(position), block.config.batch_size, dtype=torch.int64, device=position.device)
        self.stay = [holder[name] for holder, name in block.held()]
        self.reason: str | None = None
        begun = [each.clone() for each in self.stay]
        try:
            self.launch = cuda.capture(self.step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.reason = (str(error).splitlines() or [repr(error)])[0]
            self.launch = self.step
        for stays, (holder, name), before in zip(self.stay, block.held(), begun):
            holder[name] = stays  # the recording may have broken off in the middle of a step
            stays.copy_(before)

    def step(self) -> None:
        """One step on the samples `index`, its results where the step began."""
        self.block.step(self.data.batch(self.index, self.position))
        self._keep()

    def _keep(self) -> None:
        own = {each.untyped_storage()._cdata for each in self.stay}
        fresh = [holder[name] for holder, name in self.block.held()]
        for number, (new, stays) in enumerate(zip(fresh, self.stay)):
            if new is not stays and new.untyped_storage()._cdata in own:
                fresh[number] = new.clone()  # a rule made one slot's old numbers another's new ones
        for new, stays, (holder, name) in zip(fresh, self.stay, self.block.held()):
            if new is not stays:
                stays.copy_(new)
                holder[name] = stays

    def load(self, block: Block, position: Tensor) -> None:
        """Other networks."""
        for stays, (holder, name) in zip(self.stay, block.held()):
            stays.copy_(holder[name])
        self.position.copy_(position)

    def take(self, order: Tensor) -> None:
        """The steps whose samples are `order` (N, K B). Nothing in here waits for the GPU."""
        for samples in order.split(self.index.shape[1], 1):
            self.index.copy_(samples)
            self.launch()


def group(block: Block, position: Tensor, data: Dataset) -> Group:
    """`block` where a recording reads it: the one that `data` keeps, or a new one where that was made for something
    else."""
    spec, config = block.spec, block.config
    like = block.loss.dtype, block.loss.device, len(block.loss), block.state.population.seed
    shapes = (tuple(holder[name].shape) for holder, name in block.held())
    key = (spec, config, rules.rows(spec, config), *like, *shapes)
    known = GROUPS.get(data)
    if known is not None and known.key == key:
        known.load(block, position)
        return known
    GROUPS.pop(data, None)  # its memory is free before the next is recorded
    GROUPS[data] = made = Group(block, position, data, key)
    return made


def begin(spec: NetworkSpec, config: TrainConfig, data: Dataset) -> None:
    """A call of the engine begins: a recording of rules that may have changed since the last call is dropped."""
    if not rules.fixed(rules.functions(rules.rows(spec, config))):
        GROUPS.pop(data, None)


def reason(data: Dataset) -> str | None:
    """Why steps on `data` are not replayed from a recording; None where they are, or where none was taken yet."""
    known = GROUPS.get(data)
    return None if known is None else known.reason
