"""The definition: raw torch operations, step by step; results are ordinary tensors.

Networks train in blocks that stay in cache (block.py), K steps of one block before the next. The state's rows change
only at the end of the call. If a network then has a non-finite number, its row stays as it was, and the call is
repeated in halves to find the step. On a GPU, steps are replayed from recordings (graph.py), and all blocks are
launched before the host reads which networks are finite.
"""

import torch
from torch import Tensor

from ..maths.blocks import blocks, filled, fixed, together
from ..maths.numerics import kernel_widths
from ..samples.data import Dataset
from ..state import Status, TrainState
from ..system import gpus
from . import graph
from .block import Block

Ends = list[tuple[int, int]]  # (steps, how many networks end after them), the earliest first


@torch.no_grad()
def run(state: TrainState, data: Dataset, steps: int) -> None:
    """Advance every running network by up to `steps` steps, at most to its limit, in place."""
    state.fit()
    with gpus.on(state.population.device):
        if fixed(state.population.device):
            graph.begin(state.population.spec, state.recipe, data)
        advance(state, data, steps)


def advance(state: TrainState, data: Dataset, steps: int) -> None:
    """`run`, block by block. Waits for a GPU before the first block and after the last."""
    spec, params = state.population.spec, state.population.params
    left, step = torch.stack((torch.clamp(state.left, max=steps), state.step)).cpu()
    parts = list(blocks(spec, len(params), state.recipe.batch_size, params.element_size(), params.device))
    good = [train(state.rows(part), data, *course(left[part], step[part])) for part in parts]
    found = torch.cat(good).cpu().split([len(each) for each in good]) if good else ()
    for part, sound in zip(parts, found):
        bad = (~sound).nonzero().squeeze(1)
        if len(bad):
            try_again(state.rows(part), data, left[part], bad)


def try_again(state: TrainState, data: Dataset, left: Tensor, bad: Tensor) -> None:
    """Repeat the call for the networks `bad`, which were not finite at its end: half of the steps, then the rest."""
    longest, rows = int(left[bad].max()), bad.to(state.step.device)
    failed = state.rows(rows)
    if longest == 1:
        failed.status.fill_(Status.diverged)
        failed.diverged_step.copy_(failed.step)
    else:
        half = longest // 2
        advance(failed, data, half)
        rest = torch.clamp(left[bad] - half, min=0)
        for size in rest.unique().tolist():
            some = (rest == size).nonzero().squeeze(1).to(rows.device)
            part = failed.rows(some)
            advance(part, data, size)
            failed.put(some, part)
    state.put(rows, failed)


def course(left: Tensor, step: Tensor) -> tuple[Ends, bool]:
    """For networks with `left` (N,) steps to take and `step` (N,) taken: when those that take any end, and whether they
    are at the same step."""
    if left.min() == left.max() > 0:
        return [(int(left[0]), len(left))], bool((step == step[0]).all())
    left, step = left[left > 0], step[left > 0]
    steps, networks = left.unique(return_counts=True)
    return list(zip(steps.tolist(), networks.tolist())), bool((step == step[:1]).all())


def train(state: TrainState, data: Dataset, ends: Ends, common: bool) -> Tensor:
    """Take the steps of one block, whose networks are at the same step if `common`. -> (N,) bool: which are finite. The
    others' rows stay as they were."""
    count, take = sum(networks for _, networks in ends), train_group if fixed(state.step.device) else train_block
    if len(ends) == 1 and count == len(state.step):
        return take(state, data, ends, common)
    good = torch.ones_like(state.running)
    if ends:  # the longest first: those that still train are then a leading part of the block
        longest_first = torch.argsort(torch.clamp(state.left, max=ends[-1][0]), descending=True, stable=True)[:count]
        ordered = state.rows(longest_first)
        good.index_copy_(0, longest_first, take(ordered, data, ends, common))
        state.put(longest_first, ordered)
    return good


def train_block(state: TrainState, data: Dataset, ends: Ends, common: bool) -> Tensor:
    """`train` of networks in descending order of their steps; each takes one or more."""
    recipe, population, count, done = state.recipe, state.population, len(state.step), 0
    batch, clock, longest = recipe.batch_size, state.step[:1] if common else state.step, ends[-1][0]
    order = data.order(population.seed, population.ids, state.position, clock, longest, batch, recipe.shuffle)
    block, good = Block(state, kernel_widths(population.spec.widths, batch)), []
    for steps, networks in ends:
        for k in range(done, steps):
            block.step(data.batch(order[:count, k * batch : (k + 1) * batch], state.position[:count]))
        done, first = steps, count - networks
        good.append(block.leave(state.rows(slice(first, count)), first))
        count = first
        if count:
            block.keep(count)
    return torch.cat(good[::-1])


def train_group(state: TrainState, data: Dataset, ends: Ends, common: bool) -> Tensor:
    """train_block on a GPU, with recordings of a group of fixed size, padded if there are fewer networks. A network
    that has ended is still computed until the last one has, but its results are not used."""
    spec, params, batch = state.population.spec, state.population.params, state.recipe.batch_size
    count, done = len(params), 0
    rows = filled(params, together(spec, batch, params.element_size(), params.device))
    block, good = Block(state.rows(rows), kernel_widths(spec.widths, batch)), []
    group = graph.group(block, state.position[rows], data)
    for steps, networks in ends:
        group.take(steps - done, common)
        done, first = steps, count - networks
        good.append(group.block.leave(state.rows(slice(first, count)), first))
        count = first
    return torch.cat(good[::-1])
