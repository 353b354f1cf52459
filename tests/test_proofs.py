"""The proofs of scripts/gpu_check.py hold on the CPU and on GPUs that it plays, and find what is wrong."""

from typing import Any

import pytest
import torch

pytest.importorskip("benchmarks", reason="the benchmarks folder is not importable from here")

from benchmarks import proofs
from gpubp import backprop

from .helpers import compiled  # noqa: F401
from .recorder import recorded


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One topology, one kind of training, fewer networks and steps."""
    for name, chosen in (("SPECS", "8-16-1"), ("SETTINGS", "adam, dropout, order each")):
        monkeypatch.setattr(proofs, name, {chosen: getattr(proofs, name)[chosen]})
    monkeypatch.setattr(proofs, "MANY", 10)
    monkeypatch.setattr(proofs, "STEPS", 6)


def test_the_proofs_hold_on_the_cpu() -> None:
    assert proofs.independence("eager", "cpu").differing == []
    assert proofs.shares("eager", ["cpu"] * 2).differing == []
    assert proofs.equal_bits("cpu", "cpu", "cpu").differing == []
    figures = proofs.equal_figures("cpu", "cpu", "cpu")
    assert (figures.compared, figures.differing) == (2 * 2 * len(proofs.SPECS), [])


@pytest.mark.slow
def test_the_proofs_hold_on_a_played_gpu() -> None:
    with recorded(4):
        assert proofs.independence("eager", "cpu").differing == []
        near = proofs.nearness("eager", "cpu")
    assert near.differing == []
    assert near.compared == len(proofs.SETTINGS)


def test_engines_that_round_differently_are_found_with_their_distance() -> None:
    found = proofs.equal_bits("eager", "cpu", "cpu")
    assert found.differing
    assert all("of a row's length apart" in each for each in found.differing)
    assert proofs.equal_figures("eager", "cpu", "cpu").differing


def test_a_planted_dependence_on_the_neighbours_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    product = backprop.product
    monkeypatch.setattr(backprop, "product", lambda left, *rest: product(left, *rest) * (1 + 2**-20 * (len(left) > 4)))
    differing = proofs.independence("eager", "cpu").differing
    assert any("alone" in each for each in differing)
    assert not any("another order" in each for each in differing)


def test_a_wrong_rate_is_found() -> None:
    found = proofs.nearness("eager", "cpu", lr=0.011)
    assert len(found.differing) == found.compared


def test_equal_networks_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train = proofs.Case.train

    def alike(case: proofs.Case, *arguments: Any, **more: Any) -> Any:
        state = train(case, *arguments, **more)
        return state.rows(torch.zeros_like(state.step))

    monkeypatch.setattr(proofs.Case, "train", alike)
    assert any("prove nothing" in each for each in proofs.independence("eager", "cpu").differing)
