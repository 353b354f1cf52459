"""The steps of a GPU in torch without numbers, on cuda:0: none reads a number back, none mixes devices, for every row
of the tables. Nothing is computed; that it is right is for test_graph.py."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp import backprop
from gpubp.engines import eager, graph
from gpubp.maths import blocks
from gpubp.maths.numerics import kernel_widths
from gpubp.maths.optimizers import Optimizer

from .gpu_cases import BATCH, CASES, CLASSES, COUNT, FEATURES, KINDS, SPEC, STEPS, Case
from .helpers import population, quick, start
from .recorder import DEVICE, pretended, there

GROUP = 8


def pretend(case: Case, whole: bool = True) -> None:
    """One group's recordings, of 4 steps and of 1, and their replays on cuda:0, as eager.train_group makes them; its
    networks may be at one step, or not. whole: not the recording of 1 step alone."""
    given = case.data(torch.float32)
    settings = {"batch_size": BATCH, "steps": STEPS, **case.settings}
    state = start(population(case.spec, COUNT, torch.float32), given, **settings)
    with pretended() as give:
        pretending, own = there(given, give), state._each(give)
        rows = blocks.filled(own.population.params, GROUP)
        block = eager.Block(own.rows(rows), kernel_widths(case.spec.widths, BATCH))
        group = graph.group(block, own.position[rows], pretending)
        for length, common in ((1, False), (4, True))[: 1 + whole]:
            group.recording(length, common)
            assert group.reason is None, group.reason
        assert {tensor.device for tensor in group.tensors} == {DEVICE}
        if not whole:
            return
        ends = [(1, 1), (4, COUNT - 2)]  # a call in which one network takes no step, and one but one
        assert eager.train(own, pretending, ends, True).device == DEVICE


@pytest.mark.parametrize("name", quick(CASES, [*KINDS, *[*CASES][::12]]))
def test_every_row_and_feature_stays_on_the_gpu(name: str) -> None:
    pretend(CASES[name], whole=False)


@pytest.mark.parametrize(
    ("own", "features"),
    [
        ("rows", ("ends", "clipping")),
        pytest.param("inputs", ("one order", "dropout"), marks=pytest.mark.slow),
        pytest.param("weights", ("in order", "penalties"), marks=pytest.mark.slow),
    ],
)
def test_a_whole_call_stays_on_the_gpu(own: str, features: tuple[str, ...]) -> None:
    """However samples are drawn, and however many steps the networks take."""
    pretend(Case(CLASSES, {name: value for each in features for name, value in FEATURES[each].items()}, own))


def test_a_custom_rule_whose_slots_are_checked_stays_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Optimizer(lambda grad, last: (grad + last, grad), ("last",))
    monkeypatch.setitem(gpubp.OPTIMIZERS, "own", rule)
    pretend(Case(SPEC, {"optimizer": "own"}), whole=False)


def test_outs_are_computed_on_the_gpu_in_whole_groups() -> None:
    spec = gpubp.NetworkSpec((5, 33, 2), "relu")
    with pretended() as give:
        params = give(torch.empty(3, spec.size))
        inputs = torch.empty(23, 5, device=DEVICE)
        assert backprop.forward(spec, params, inputs).device == DEVICE


def reads(net: Tensor) -> Tensor:
    return net * (2.0 if bool(net.sum() > 0) else 1.0)


def mixes(net: Tensor) -> Tensor:
    return net * torch.ones(net.shape)


def picks(net: Tensor) -> Tensor:
    net.view(-1)[net.view(-1).nonzero()[:, 0]]
    return net


def comes_and_goes(net: Tensor) -> Tensor:
    return net.cpu().to(net.device)


@pytest.mark.parametrize("fault", [reads, mixes, picks, comes_and_goes])
def test_a_rule_that_waits_for_the_gpu_or_leaves_it_is_found(
    fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpubp.ACTIVATIONS, "fault", gpubp.Activation(fault, lambda net, out: net))
    with pytest.raises(AssertionError, match=r"_local_scalar_dense|on the same device|nonzero|to another"):
        pretend(Case(gpubp.NetworkSpec((5, 8, 2), "fault")))
