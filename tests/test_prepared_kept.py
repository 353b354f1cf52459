"""What a prepared call keeps alive, what it costs, and what one that was broken off leaves for the next."""

import gc
import weakref

import pytest
import torch

import gpubp
from gpubp.engines import cpu
from gpubp.samples.data import TENSORS
from gpubp.state import Status, TrainState

from .helpers import compiled, copied, differences, failing, instructions_of_repeats, population, samples, start  # noqa: F401
from .test_compiled_divergence import rates
from .test_prepared import COUNT, SAMPLES, check, dataset, training

pytestmark = pytest.mark.cpu("of the CPU's engine")
INSTRUCTIONS = 500  # of Python, in a call


def diverging() -> tuple[TrainState, gpubp.Dataset]:
    spec, settings = gpubp.NetworkSpec((5, 6, 2), "relu"), {"optimizer": "momentum", "batch_size": 6, "steps": 12}
    data = gpubp.Dataset(*samples(spec, SAMPLES, dtype=torch.float32))
    return start(population(spec, COUNT, torch.float32), data, lr=rates(torch.float32), **settings), data


def test_networks_diverge_in_calls_that_were_prepared() -> None:
    state, data = diverging()
    whole, _ = diverging()
    cpu.run(whole, data, 12)
    for _ in range(12):
        check(state, data, 1)
    assert not differences(state, whole)
    assert len(set(whole.diverged_step.tolist())) > 3


@pytest.mark.parametrize("name", ["_raise_for", "diverge"])
def test_a_call_that_was_broken_off_leaves_nothing_for_the_next(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C behind the kernel: which networks it found to diverge in its 12 steps is not said of the next 2."""
    state, data = diverging()
    cpu.run(state, data, 0)
    keep = copied(state)

    with monkeypatch.context() as patch:
        patch.setattr(cpu, name, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cpu.run(state, data, 12)
    for (_, mine), (_, theirs) in zip(state.tensors(), keep.tensors()):
        mine.copy_(theirs)
    check(state, data, 2)
    assert 0 < int((state.status == Status.diverged).sum()) < COUNT


def test_a_prepared_call_dies_with_its_state_and_keeps_no_tensors_alive() -> None:
    data = dataset()
    state = training(data)
    gc.collect()
    gc.disable()  # and needs no collector for it
    try:
        kept = len(cpu.CALLS.kept)
        there = {
            name: weakref.ref(each) for name, each in [*state.tensors(), *((n, getattr(data, n)) for n in TENSORS)]
        }
        state.total, other = state.total.clone(), data
        assert there["total"]() is None
        del data, other
        assert [name for name in TENSORS if there[name]() is not None] == []
        del state
        assert [name for name, each in there.items() if each() is not None] == []
        assert len(cpu.CALLS.kept) == kept - 1
    finally:
        gc.enable()


def test_a_prepared_call_takes_few_python_instructions_for_any_number_of_networks() -> None:
    def taken(count: int, steps: int) -> int:
        spec = gpubp.NetworkSpec((2, 2, 2), "sigmoid", "sigmoid")
        data = gpubp.Dataset(*samples(spec, 4, dtype=torch.float32))
        state = start(population(spec, count, torch.float32), data, optimizer="sgd", batch_size=1, steps=1000)
        return instructions_of_repeats(lambda: cpu.run(state, data, steps))

    assert taken(1, 1) == taken(1000, 1) == taken(10, 7) <= INSTRUCTIONS
