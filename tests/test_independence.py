"""A network's numbers are its own: the same bits alone, among others, in any order, block, thread count and cut."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gpubp
from gpubp import backprop
from gpubp.engines import eager
from gpubp.maths import blocks
from gpubp.state import Status

from .helpers import copied, covering, differences, population, quick, same_bits, samples, start, threads, train

SPECS = {
    "2-2-2": gpubp.NetworkSpec((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", bias="layer"),
    "8-16-1": gpubp.NetworkSpec((8, 16, 1), "tanh", loss="binary_cross_entropy"),
    "5-33-2": gpubp.NetworkSpec((5, 33, 2), "gelu"),
    "64-32-10": gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy"),
    "13-7-3": gpubp.NetworkSpec((13, 7, 3), ("elu",), loss="huber", train_bias=False),
}
COUNT, SAMPLES, STEPS, BATCH = 9, 23, 8, 6
LR = {"sgd": 0.1, "adam": 0.01, "amsgrad": 0.01}
Rows = list[int]


def dataset(spec: gpubp.NetworkSpec, **more: Any) -> gpubp.Dataset:
    inputs, target = samples(spec, SAMPLES, dtype=torch.float32)
    if spec.loss == "half_squared_error":
        target = target.sigmoid()
    return gpubp.Dataset(inputs, target, **more)


def networks(spec: gpubp.NetworkSpec, ids: Iterable[int] = range(COUNT)) -> gpubp.Population:
    return population(spec, ids=ids, dtype=torch.float32)


Case = tuple[gpubp.NetworkSpec, gpubp.Dataset, dict[str, Any]]


EVERY_VALUE = pytest.mark.parametrize(
    ("name", "optimizer", "shuffle"), covering(SPECS, LR, ("network", "shared", "none"), meet=1)
)


def case(name: str, optimizer: str, shuffle: str) -> Case:
    spec = SPECS[name]
    settings = {"optimizer": optimizer, "lr": LR[optimizer], "batch_size": BATCH, "steps": STEPS, "shuffle": shuffle}
    return spec, dataset(spec), settings


@EVERY_VALUE
def test_a_network_is_the_same_alone_and_among_any_others_in_any_order(name: str, optimizer: str, shuffle: str) -> None:
    spec, data, settings = case(name, optimizer, shuffle)
    everyone = train(networks(spec), data, **settings)
    assert everyone.population.params.isfinite().all()
    assert not differences(everyone, everyone, [0])
    assert "params" in differences(everyone, everyone, [0], [1]), "networks differ from each other"
    for ids in ([7], [7, 3], [8, 7, 2], list(range(COUNT - 1, -1, -1)), [*range(100, 130), 7, *range(130, 133)]):
        some = train(networks(spec, ids), data, **settings)
        common = [number for number in ids if number < COUNT]
        assert not differences(some, everyone, [ids.index(number) for number in common], common), ids


@pytest.mark.cpu
@EVERY_VALUE
def test_blocks_threads_and_cuts_change_no_bit(
    name: str, optimizer: str, shuffle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data, settings = case(name, optimizer, shuffle)
    population = networks(spec)
    whole = train(population, data, **settings)
    with threads(3):
        assert not differences(train(population, data, **settings), whole)
    for cuts in ([1] * 8, [3, 100]):
        assert not differences(train(population, data, cuts, **settings), whole), cuts
    largest = max(BATCH * max(spec.widths), *(i * o for i, o in zip(spec.widths, spec.widths[1:]))) * 4
    for size in (2, 8):  # 8 leaves a lone network in the last block
        monkeypatch.setattr(blocks, "BLOCK", size * largest)
        sizes = [part.stop - part.start for part in blocks.blocks(spec, COUNT, BATCH, 4, torch.device("cpu"))]
        assert sizes[0] == size
        assert not differences(train(population, data, **settings), whole), f"blocks of {size}"


def check_retired(engine: Any, population: gpubp.Population, data: gpubp.Dataset, **settings: Any) -> None:
    """Of networks that no longer run after three steps no number moves, and of others all do as without them."""
    plain = train(population, data, engine=engine, **settings)
    state = start(population, data, **settings)
    engine.run(state, data, 3)
    early, gone = copied(state), [1, 4, 8, population.count - 2]
    rest = [n for n in range(population.count) if n not in gone]
    ends = [Status.stopped, Status.converged, Status.finished, Status.stopped]
    state.status[gone] = torch.tensor(ends, dtype=torch.int8)
    engine.run(state, data, settings["steps"])
    assert state.step[gone].tolist() == [3] * 4
    assert not differences(state, plain, rest)
    assert not set(differences(state, early, gone)) - {"status"}
    state.status.fill_(Status.stopped)
    before = state.population.params.clone()
    engine.run(state, data, settings["steps"])
    assert torch.equal(before, state.population.params), "nobody trains"


def test_retired_networks_do_not_move_and_affect_no_other() -> None:
    spec, settings = SPECS["13-7-3"], {"optimizer": "adam", "batch_size": BATCH, "steps": STEPS}
    check_retired(eager, networks(spec), dataset(spec), **settings)


@pytest.mark.parametrize("name", quick(SPECS, ["8-16-1", "5-33-2"]))
def test_the_outs_of_a_network_are_the_same_alone_and_among_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[name]
    params = networks(spec).params
    inputs, target = samples(spec, 300, dtype=torch.float32)
    calls: list[Callable[[Rows], tuple[Tensor, ...]]] = [
        lambda rows: (backprop.forward(spec, params[rows], inputs),),
        lambda rows: backprop.gradients(spec, params[rows], inputs[:BATCH], target[:BATCH]),
    ]
    for call in calls:
        whole = call(list(range(COUNT)))
        for rows in ([7], [8, 7], [4, 0, 7, 2]):
            assert all(same_bits(one, other[rows]) for one, other in zip(call(rows), whole))
        with threads(2):
            assert all(same_bits(*pair) for pair in zip(call(list(range(COUNT))), whole))
        with monkeypatch.context() as patch:
            patch.setattr(blocks, "BLOCK", 1)
            assert all(same_bits(*pair) for pair in zip(call(list(range(COUNT))), whole))


class Largest(TorchDispatchMode):
    """The most numbers that one operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        fresh = any(each.alias_info is None for each in func._schema.returns)  # what is expanded takes none
        given = [each for each in tree_leaves(out) if isinstance(each, Tensor)] if fresh else []
        self.numbers = max([self.numbers, *(each.numel() for each in given)])
        return out


def test_outs_and_gradients_of_many_networks_take_the_memory_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, batch, taken = gpubp.NetworkSpec((3, 40, 2)), 50, []
    inputs, target = samples(spec, batch, dtype=torch.float32)
    monkeypatch.setattr(blocks, "BLOCK", 4 * 50 * 40 * 4)  # four networks
    for count in (4, 64):
        params = networks(spec, list(range(count))).params
        backprop.gradients(spec, params, inputs, target)  # the first tries products out
        with Largest() as largest:
            backprop.gradients(spec, params, inputs, target)
        taken.append(largest.numbers)
    assert taken == [4 * 50 * 40, 64 * spec.size], "a block's outs; the gradients themselves"
