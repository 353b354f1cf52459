"""Calls on a GPU in parts, played by the CPU: the bits are those of whole calls, in whatever order blocks begin, and
shares are worth their while."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from gpubp.engines import cuda
from gpubp.engines.layout import Layout
from gpubp.engines.pieces import Parts, parts
from gpubp.state import Status, TrainState

from .helpers import compiled, covering, differences  # noqa: F401
from .playing import ORDERS, Player, WrongError, playing
from .test_compiled import COUNT, STEPS
from .test_gpu import BLOCK, EVERYONE, LAID_OUT, PARTS, QUADS, SLOW, THREAD, Broken, small, wrote

W5, W4, TINY = (0.47, 1056), (0.94, 264), (15, 1056)  # what a piece costs, and how many blocks run on an H200 at once
RESIDENT = 6  # blocks, more than tests/play.h runs at once


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares cost nothing."""

    def shared(blocks: int, at_once: int, steps: int, overhead: float, many: bool) -> Parts:
        return parts(blocks, at_once, steps, 0, many)

    monkeypatch.setattr(cuda, "parts", shared)


def trained(layout: Layout, order: str, play: Callable[..., Player] = Player) -> tuple[TrainState, TrainState]:
    """By the CPU, and by the GPU in shares; some networks diverge, some end early."""
    rates = [3e38 if n % 5 == 2 else 0.02 for n in EVERYONE]
    own = small(lr=rates, steps=[1 + (5 * n) % STEPS for n in EVERYONE])
    expected = own.train()
    assert 0 < int((expected.status == Status.diverged).sum()) < COUNT
    with playing(play(resident=2 if layout in (PARTS, THREAD) else RESIDENT, order=order), layout) as player:
        found = own.train(cuts=[3, STEPS], engine=cuda)
    assert all(launch.end.share for launch in player.launches)
    return expected, found


ALONE = [layout for layout in LAID_OUT if layout.blocks == 1]


@pytest.mark.parametrize(("layout", "order"), covering(ALONE, ORDERS, meet=1))
def test_calls_in_shares_have_the_bits_of_whole_calls_in_any_order_of_blocks(layout: Layout, order: str) -> None:
    expected, found = trained(layout, order)
    assert not differences(found, expected)
    assert torch.equal(found.diverged_step, expected.diverged_step)


@SLOW
@pytest.mark.parametrize(
    ("layout", "order", "old", "new", "what"),
    [(THREAD, "ascending", "piece() + 1 : 0)", "piece() : 0)", "a turn that never comes"),
     (QUADS, "ascending", "bool more = true; more;", "bool more = true; more; more = false,", ""),
     (BLOCK, "descending", "if (!end.tickets) return", "return", "a turn that never comes"),
     (QUADS, "descending", "if (!end.tickets) return", "return", "a turn that never comes"),
     (QUADS, "ascending", "block, done.begin <= 0)", "block, 0)", "a turn that never comes"),
     (THREAD, "ascending", "end, gridDim.x - 1,", "end, gridDim.x,", "a turn that never comes"),
     (QUADS, "ascending", "end.parts + grid - 1", "end.parts + 2 * grid", "")],
)  # fmt: skip
def test_a_planted_fault_is_found(layout: Layout, order: str, old: str, new: str, what: str) -> None:
    """Parts by the numbers of blocks, turns that are not passed, a counter that is not 0 again, pieces left out."""
    broken = partial(Broken, wrote(old, new))
    if what:
        with pytest.raises(WrongError, match=what):
            trained(layout, order, broken)
        return
    expected, found = trained(layout, order, broken)
    assert differences(found, expected)


def spent(blocks: int, at_once: int, steps: int, overhead: float, many: bool) -> float:
    """The time of a call, in steps, by what a piece costs."""
    count, whole, share = parts(blocks, at_once, steps, overhead, many)
    if not share:
        return -(-blocks // at_once) * (steps + overhead)
    last = share + 3 * overhead if many else -(-(count - whole) // at_once) * (share + overhead)
    return whole // at_once * (steps + overhead) + last


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 7, 23, 64, 1000])
def test_parts_have_all_steps_and_are_never_slower_by_the_estimate(steps: int, many: bool) -> None:
    overhead, at_once = W5
    for blocks in (1, at_once, at_once + 1, 2 * at_once, 1000, 12_345):
        count, whole, share = parts(blocks, at_once, steps, overhead, many)
        assert spent(blocks, at_once, steps, overhead, many) <= -(-blocks // at_once) * (steps + overhead)
        if not share:
            assert count == whole == blocks
            continue
        cut, shares = blocks - whole, count - whole
        assert at_once < cut < 2 * at_once
        if many:
            assert share >= steps, "a network is cut once"
            assert shares <= at_once
            assert (shares - 1) * share < cut * steps <= shares * share
        else:
            assert shares == cut * -(-steps // share)


@pytest.mark.parametrize(
    ("piece", "steps", "many", "least"),
    [(W5, 64, True, 0.95), (W4, 64, True, 0.94), (W4, 16, True, 0.8), (TINY, 1000, False, 0.8)],
)
def test_no_number_of_networks_wastes_much_of_a_gpu(
    piece: tuple[float, int], steps: int, many: bool, least: float
) -> None:
    """Without shares, one more than run at once takes twice as long."""
    overhead, at_once = piece
    for blocks in range(at_once, 8 * at_once, 7):
        whole = blocks / at_once * (steps + (0 if many else overhead))
        assert whole > least * spent(blocks, at_once, steps, overhead, many)
