"""A call that was prepared serves another only while all that it was made from is what it was: whatever changes between
two calls, the second has the bits of one that nothing prepared, and writes nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import cpu, general
from gpubp.errors import EngineError, ShapeError
from gpubp.samples.data import TENSORS
from gpubp.state import Status, TrainState

from . import helpers
from .helpers import compiled, copied, covering, differences, generator, population, put, same_bits, samples, start  # noqa: F401

pytestmark = pytest.mark.cpu("of the CPU's engine")
SPEC = gpubp.NetworkSpec((3, 4), loss="cross_entropy")
COUNT, SAMPLES, EVERYONE = 19, 23, list(range(19))


def dataset(seed: int = 1, count: int = SAMPLES) -> gpubp.Dataset:
    """Everything that a Dataset can hold."""
    inputs, classes = samples(SPEC, count, dtype=torch.float32, seed=seed)
    rows = [torch.arange(1 + n % count) for n in EVERYONE]
    return gpubp.Dataset(inputs, classes, rows, torch.rand(COUNT, count, generator=generator(seed)))


def training(data: gpubp.Dataset, spec: gpubp.NetworkSpec = SPEC, **settings: Any) -> TrainState:
    """A state with everything that one can hold, after a call that was prepared and one that it served."""
    own = {"optimizer": "adam", "lr": 0.1, "batch_size": 4, "steps": 40, "schedule": "plateau", **settings}
    own.setdefault("class_weight", 1 + torch.rand(COUNT, 4, generator=generator(3)))
    state = start(population(spec, COUNT, torch.float32), data, **own)
    cpu.run(state, data, 2)
    cpu.run(state, data, 1)
    assert found(state, data) is not None, "kept"
    return state


def found(state: TrainState, data: gpubp.Dataset) -> cpu.Call | None:
    return cpu.CALLS.find(state, data, cpu.LAYOUT, torch.get_num_threads(), general.COMPILING)


def check(state: TrainState, data: gpubp.Dataset, steps: int = 3) -> None:
    """A call on `state`, for which one is kept, has the bits of one on a copy, for which none is."""
    twin = copied(state)
    cpu.run(twin, data, steps)
    cpu.run(state, data, steps)
    assert not differences(state, twin)


def another(old: Tensor, new: Tensor) -> Tensor:
    return new


def within(old: Tensor, new: Tensor) -> Tensor:
    old.set_(new)
    return old


def by_data(old: Tensor, new: Tensor) -> Tensor:
    old.data = new
    return old


NAMES = [name for name, _ in start(population(SPEC, COUNT), dataset(), schedule="plateau", steps=1).tensors()]


def test_numbers_of_another_type_at_the_same_place_are_refused() -> None:
    data = dataset()
    state, inputs = training(data), data.inputs
    room = torch.zeros(COUNT, 2 * state.population.params.shape[1])
    params = room.view(-1)[: state.population.params.numel()].view_as(state.population.params)
    put(state, "params", params.copy_(state.population.params))
    check(state, data)
    put(state, "params", room.view(torch.float64))
    with pytest.raises(ShapeError, match=r"slots.mean is torch.float32 .*; torch.float64 .* expected"):
        cpu.run(state, data, 1)
    put(state, "params", params)
    check(state, data)
    data.inputs = inputs.view(torch.int32)
    with pytest.raises(EngineError, match=r"networks are torch.float32 on cpu, inputs torch.int32"):
        cpu.run(state, data, 1)


@pytest.mark.parametrize(("name", "change"), covering([*NAMES, *TENSORS], [another, within, by_data], meet=1))
def test_moved_tensors_are_found_and_nothing_is_written_to_their_old_address(
    name: str, change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    data = dataset()
    state = training(data)
    old = getattr(data, name) if name in TENSORS else dict(state.tensors())[name]
    new, left = old.clone(), old.data.view(-1)  # the same memory in another object
    if name in TENSORS:
        setattr(data, name, change(old, new))
    else:
        put(state, name, change(old, new))
    left.fill_(1)  # with which nothing is out of range
    check(state, data)
    assert bool((left == 1).all())


def test_tensors_at_the_same_address_with_another_layout_are_written_back_in_it() -> None:
    data = dataset()
    state = training(data)
    slot = state.slots[0]
    room = torch.zeros(COUNT, 2 * slot.shape[1])
    together, apart = room.view(-1)[: slot.numel()].view_as(slot), room[:, : slot.shape[1]]
    state.slots[0] = together.copy_(slot)
    check(state, data)
    now = together.clone()
    room.zero_()
    state.slots[0] = apart.copy_(now)
    assert together.data_ptr() == apart.data_ptr()
    check(state, data)
    check(state, data)
    assert not bool(room[:, slot.shape[1] :].any()), "between the rows"
    state.slots[0] = apart.contiguous()
    state.population.params.t_()  # in place, and back
    state.population.params.t_()
    check(state, data)


def test_a_population_that_shrank_in_place_is_trained_only_to_its_end() -> None:
    data = dataset()
    state = training(data)
    gone = {name: tensor[COUNT - 5 :].clone() for name, tensor in state.tensors()}
    whole = {name: torch.as_strided(tensor, tensor.shape, tensor.stride()) for name, tensor in state.tensors()}
    for _, tensor in state.tensors():
        tensor.resize_(COUNT - 5, *tensor.shape[1:])
    check(state, data)
    assert all(same_bits(whole[name][COUNT - 5 :], gone[name]) for name in whole)


def test_samples_removed_in_place_are_not_read() -> None:
    inputs, classes = samples(SPEC, SAMPLES, dtype=torch.float32)
    data = gpubp.Dataset(inputs, classes)
    state = training(data, shuffle="shared")
    data.inputs.resize_(5, 3)
    data.targets.resize_(5)
    torch.as_strided(data.inputs, (SAMPLES, 3), (3, 1))[5:] = float("nan")
    check(state, data, 20)
    assert not bool((state.status == Status.diverged).any())


def test_new_data_at_an_old_address_are_read() -> None:
    data = dataset()
    state = training(data)
    check(state, dataset(seed=7))
    for seed in range(8, 30):  # memory and ids of what is gone are given out again
        del data
        data = dataset(seed, 20 + seed % 3)
        check(state, data, 1)
    shared = gpubp.Dataset(data.inputs, data.targets)
    check(state, shared)
    shared.sample_weight = torch.rand(len(shared.inputs), generator=generator(4))
    check(state, shared)
    shared.sample_weight = None
    check(state, shared)


def test_a_weight_of_each_network_is_not_taken_for_one_of_all() -> None:
    """At the same place."""
    data = dataset()
    state, weight = training(data), data.sample_weight
    data.sample_weight = weight[0]
    check(state, data)
    data.sample_weight = weight
    check(state, data)


def test_settings_and_hyper_parameters_that_change_are_followed() -> None:
    data = dataset()
    state = training(data)
    state.recipe = replace(state.recipe, batch_size=3, schedule="constant")
    check(state, data)
    on = state.recipe.hyper
    state.hyper["l2"] = torch.full_like(state.hyper["lr"], 0.1)
    state.recipe = replace(state.recipe, hyper=(*on, "l2"))
    check(state, data)
    state.hyper["l1"] = state.hyper.pop("l2")  # the same number in the same place under another name
    state.recipe = replace(state.recipe, hyper=(*on, "l1"))
    check(state, data)
    state.memory = {}
    check(state, data)
    state.population = replace(state.population, seed=6)
    state.recipe = replace(state.recipe, shuffle="network")
    check(state, data)
    state.population = replace(state.population, seed=7)
    check(state, data)
    state.population = replace(state.population, spec=replace(SPEC, train_bias=False))
    check(state, data)


def test_another_row_of_a_table_is_taken_under_the_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec = dataset(), gpubp.NetworkSpec((3, 5, 4), "tanh", loss="cross_entropy")
    state, other = training(data, spec), training(data, spec)
    monkeypatch.setitem(gpubp.ACTIVATIONS, "tanh", gpubp.ACTIVATIONS["relu"])
    check(state, data)
    monkeypatch.undo()
    cpu.run(other, data, 3)
    assert "params" in differences(state, other)


def test_a_numbers_of_threads_and_a_layout_that_change_are_followed() -> None:
    data = dataset()
    state, plenty = training(data), helpers.layouts(torch.float32, 4)
    for number, name in ((2, "one number"), (1, "one number"), (2, "chosen")):
        with helpers.threads(number), helpers.laid_out(plenty[name]):
            check(state, data, 1)
            call = found(state, data)
            assert call.at_one_step.job.threads == number
            assert call.at_one_step.kernel is cpu.kernel(call.key)


def test_networks_at_different_steps_and_at_equal_ones_again_use_the_right_kernel() -> None:
    data = gpubp.Dataset(*samples(SPEC, SAMPLES, dtype=torch.float32))
    state = training(data, shuffle="shared")
    plain = copied(state)
    cpu.run(plain, data, 20)
    state.limit.copy_(torch.tensor([3 + 2 + n % 3 for n in EVERYONE]))
    for limit in (None, None, 9, None, 14, 20, 23):
        if limit:
            state.limit.fill_(limit)
        cpu.run(state, data, 6)
    state.limit.copy_(plain.limit)
    assert not differences(state, plain)
    call = found(state, data)
    assert call.at_any_steps is not None
