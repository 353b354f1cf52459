"""Steps of a group of networks on a GPU, recorded as CUDA graphs of 64, 16, 4 and 1 steps, which add up to any number.

A recording draws the samples of its steps and takes the steps; replayed, it waits for nothing. It reads and writes the
memory that it was recorded with, so a group's numbers are in tensors that stay: the results of the steps are copied
back into them, and other networks are loaded into them. All groups have one size: a recording serves every call, and
GPU libraries, which choose the kernel of a product by the size of the whole batch, choose the same one for a network
alone and among others.

A dataset keeps its last group. Recordings of a custom rule serve a single call of the engine, because what the rule
reads may change before the next. If steps cannot be recorded, they are launched one operation at a time, and `reason`
says why.
"""

import weakref
from collections.abc import Callable, Hashable
from functools import partial

from torch import Tensor

from .. import memory
from ..maths.spec import NetworkSpec
from ..samples.data import Dataset
from ..settings.recipe import Recipe
from ..system import gpus
from . import rules
from .block import Block

LENGTHS = (64, 16, 4, 1)  # steps of a recording, unless drawing their samples would take more rounds


class Group:
    """A Block in tensors that stay, and its recorded steps. position (N,): of its networks in the dataset."""

    def __init__(self, block: Block, position: Tensor, data: Dataset, key: Hashable) -> None:
        self.block, self.position, self.key = block, position.clone(), key
        self.data = weakref.proxy(data)  # the dataset keeps the group, not the group the dataset
        self.tensors = [holder[name] for holder, name in block.held()]
        networks, batch = len(position), block.recipe.batch_size
        self.lengths = [length for length in LENGTHS if data.rounds(networks, length * batch) <= length or length == 1]
        self.recordings: dict[tuple[int, bool], Callable[[], None]] = {}
        self.pool = gpus.pool()
        self.reason: str | None = None

    def take(self, steps: int, common: bool) -> None:
        """Take `steps` steps of networks, which are at the same step if `common`. Only making a recording waits for the
        GPU."""
        for length in self.lengths:
            for _ in range(steps // length):
                self.recording(length, common)()
            steps %= length

    def recording(self, length: int, common: bool) -> Callable[[], None]:
        """`length` steps as one call, recorded if possible."""
        if self.reason is None and (length, common) not in self.recordings:
            self._record(length, common)
        return self.recordings.get((length, common), partial(self.steps, length, common))

    def _record(self, length: int, common: bool) -> None:
        begun, steps = [each.clone() for each in self.tensors], partial(self.steps, length, common)
        try:
            self.recordings[length, common] = gpus.capture(steps, partial(steps, taken=1), self.pool)
        except RuntimeError as error:
            if memory.ran_out(error):
                raise
            self.reason = (str(error).splitlines() or [repr(error)])[0]
        finally:
            for stays, (holder, name), before in zip(self.tensors, self.block.held(), begun):
                holder[name] = stays  # the recording may have failed in the middle of a step
                stays.copy_(before)

    def steps(self, length: int, common: bool, taken: int | None = None) -> None:
        """The next steps, or the first `taken` of them; the results are copied to where the steps began."""
        block, recipe, count = self.block, self.block.recipe, len(self.position)
        clock = block.now[:1] if common else block.now
        order = self.data.order(
            block.state.population.seed, block.ids, self.position, clock, length, recipe.batch_size, recipe.shuffle,
            waiting=False,
        )  # fmt: skip
        for index in order.split(recipe.batch_size, 1)[:taken]:
            block.step(self.data.batch(index.expand(count, -1), self.position))
        self._keep()

    def _keep(self) -> None:
        ours = {each.untyped_storage()._cdata for each in self.tensors}
        fresh = [holder[name] for holder, name in self.block.held()]
        for number, (new, stays) in enumerate(zip(fresh, self.tensors)):
            if new is not stays and new.untyped_storage()._cdata in ours:
                fresh[number] = new.clone()  # a rule returned one slot's old numbers as another's new ones
        for new, stays, (holder, name) in zip(fresh, self.tensors, self.block.held()):
            if new is not stays:
                stays.copy_(new)
                holder[name] = stays

    def load(self, block: Block, position: Tensor) -> None:
        """Replace the networks."""
        for stays, (holder, name) in zip(self.tensors, block.held()):
            stays.copy_(holder[name])
        self.position.copy_(position)


GROUPS: weakref.WeakKeyDictionary[Dataset, Group] = weakref.WeakKeyDictionary()


def group(block: Block, position: Tensor, data: Dataset) -> Group:
    """The group that `data` keeps, with `block` loaded into it; a new group if that one was made for something else."""
    spec, recipe = block.spec, block.recipe
    like = block.loss.dtype, block.loss.device, len(block.loss), block.state.population.seed
    shapes = (tuple(holder[name].shape) for holder, name in block.held())
    key = (spec, recipe, rules.rows(spec, recipe), *like, *shapes)
    known = GROUPS.get(data)
    if known is not None and known.key == key:
        known.load(block, position)
        return known
    GROUPS.pop(data, None)  # frees its memory before the next is recorded
    GROUPS[data] = made = Group(block, position, data, key)
    return made


def begin(spec: NetworkSpec, recipe: Recipe, data: Dataset) -> None:
    """Begin a call of the engine: drop recordings of custom rules. A group that could not be recorded stays, so that
    this is not tried again: torch keeps the memory of a failed recording."""
    known = GROUPS.get(data)
    if known is None or rules.built_in(rules.rows(spec, recipe)):
        return
    known.recordings.clear()
    if known.reason is None:
        del GROUPS[data]


def reason(data: Dataset) -> str | None:
    """Why steps on `data` are not replayed from a recording; None if they are, or if none was taken yet."""
    known = GROUPS.get(data)
    return None if known is None else known.reason
