"""Calls on a GPU in pieces, played by the CPU: the bits are those of whole calls, and pieces are worth their while."""

from __future__ import annotations

import pytest
import torch

from gpubp.engines import cpu, cuda
from gpubp.engines.layout import Layout
from gpubp.engines.pieces import MOST, pieces
from gpubp.state import Status

from .helpers import compiled, differences, train  # noqa: F401
from .playing import Player, WrongError, flat, playing
from .test_compiled import COUNT, STEPS
from .test_gpu import BLOCK, EVERYONE, LAID_OUT, small

W5, AT_ONCE = 0.47, 1056  # 64-32-10 with Adam: the overhead of a piece, and how many run at once on an H200


@pytest.mark.parametrize("each", [2, 7])
@pytest.mark.parametrize("layout", [layout for layout in LAID_OUT if not layout.streamed])
def test_calls_in_pieces_give_the_same_bits(layout: Layout, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [3e38 if n % 5 == 2 else 0.02 for n in EVERYONE]
    own = small(optimizer="adam", lr=rates, steps=[1 + (5 * n) % STEPS for n in EVERYONE])
    expected = train(own.population(), own.data(), engine=cpu, **own.settings)
    assert 0 < int((expected.status == Status.diverged).sum()) < COUNT
    monkeypatch.setattr(cuda, "pieces", lambda teams, at_once, steps, overhead: (-(-steps // each), each))
    with playing(Player(resident=1), layout) as player:
        found = train(own.population(), own.data(), [3, STEPS], engine=cuda, **own.settings)
    assert [launch.end.pieces for launch in player.launches] == [-(-3 // each), -(-STEPS // each)]
    assert not differences(found, EVERYONE, expected, EVERYONE)
    assert torch.equal(found.diverged_step, expected.diverged_step)


def test_a_turn_that_is_not_passed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own, proper = small(), cuda.text
    monkeypatch.setattr(cuda, "pieces", lambda teams, at_once, steps, overhead: (2, STEPS // 2))
    monkeypatch.setattr(cuda, "text", lambda program: flat(proper(program)).replace("(piece + 1) % end.pieces", "0"))
    with playing(Player(resident=1), BLOCK), pytest.raises(WrongError, match="a turn that never comes"):
        train(own.population([0, 1]), own.data(), engine=cuda, **own.settings)


@pytest.mark.parametrize("steps", [1, 2, 7, 23, 64, 1000])
def test_pieces_have_all_steps_and_are_never_slower_by_the_estimate(steps: int) -> None:
    for teams in (1, AT_ONCE, AT_ONCE + 1, 1000, 12_345):
        count, each = pieces(teams, AT_ONCE, steps, W5)
        assert (count - 1) * each < steps <= count * each
        assert count <= MOST
        assert count == 1 or teams > AT_ONCE
        waves = -(-teams * count // AT_ONCE) / count
        assert waves * (each + W5) * count <= -(-teams // AT_ONCE) * (steps + W5) * 1.0001


def test_no_number_of_networks_wastes_more_than_a_fifth_of_a_gpu() -> None:
    """Without pieces, one more than run at once takes twice as long."""
    for teams in range(AT_ONCE, 8 * AT_ONCE, 7):
        count, each = pieces(teams, AT_ONCE, 64, W5)
        assert -(-teams * count // AT_ONCE) * (each + W5) < 1.2 * teams / AT_ONCE * (64 + W5)
