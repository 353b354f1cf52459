"""A network's numbers are its own: the same bits alone, among others, in any order, block, thread count and cut."""

from __future__ import annotations

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

from .helpers import copied, covering, differences, generator, population, same_bits, samples, start, threads, train

SPECS = {
    "2-2-2": gpubp.NetworkSpec((2, 2, 2), "sigmoid", "sigmoid", "half_squared_error", bias="layer"),
    "8-16-1": gpubp.NetworkSpec((8, 16, 1), "tanh", loss="binary_cross_entropy"),
    "5-33-2": gpubp.NetworkSpec((5, 33, 2), "gelu"),
    "64-32-10": gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy"),
    "13-7-3": gpubp.NetworkSpec((13, 7, 3), ("elu",), loss="huber", train_bias=False),
}
SOME = pytest.mark.parametrize(
    "name",
    ["8-16-1", "5-33-2", *(pytest.param(each, marks=pytest.mark.slow) for each in ("2-2-2", "64-32-10", "13-7-3"))],
)
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


COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "lr": ("2-2-2", {"lr": [0.01 * (n + 1) for n in range(COUNT)]}),
    "dropout": ("5-33-2", {"dropout": [0.1 * n for n in range(COUNT)]}),
    "clip_norm": ("64-32-10", {"clip_norm": [0.05 * (n + 1) for n in range(COUNT)]}),
    "clip_value": ("64-32-10", {"clip_value": [0.01 * (n + 1) for n in range(COUNT)]}),
    "label_smoothing": ("64-32-10", {"label_smoothing": [0.1 * n for n in range(COUNT)]}),
    "class_weight": ("64-32-10", {"class_weight": torch.rand(COUNT, 10, generator=generator(2)).tolist()}),
    "delta": ("13-7-3", {"delta": [0.2 * (n + 1) for n in range(COUNT)]}),
    "penalties": ("5-33-2", {"l1": [1e-3 * n for n in range(COUNT)], "l2": [1e-2 * n for n in range(COUNT)]}),
    "decay": ("5-33-2", {"optimizer": "adamw", "weight_decay": [0.1 * n for n in range(COUNT)]}),
    "betas": ("8-16-1", {"beta1": [0.1 * n for n in range(COUNT)], "beta2": [0.9 + 0.01 * n for n in range(COUNT)]}),
    "warmup": ("13-7-3", {"warmup": list(range(COUNT)), "schedule": "cosine"}),
    "one_cycle": ("13-7-3", {"schedule": "one_cycle", "pct_start": [0.1 * (n + 1) for n in range(COUNT)]}),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_network_uses_only_its_hyper_parameters(name: str) -> None:
    chosen, columns = COLUMNS[name]
    spec = SPECS[chosen]
    settings = {"optimizer": "adam", "batch_size": BATCH, "steps": STEPS} | columns
    everyone = train(networks(spec), dataset(spec), **settings)
    for rows in ([7], [8, 0], [3, 7, 1, 2]):
        own = {key: value if isinstance(value, str) else [value[n] for n in rows] for key, value in columns.items()}
        some = train(networks(spec, rows), dataset(spec), **settings | own)
        assert not differences(some, everyone, others=rows), rows
        if len(rows) == 1:
            plain = {key: value if isinstance(value, str) else value[0] for key, value in own.items()}
            alone = train(networks(spec, rows), dataset(spec), **settings | plain)
            assert not differences(alone, everyone, others=rows)


@pytest.mark.parametrize(
    ("name", "kind"), covering(SPECS, ["rows", "own samples", "weights", "shared weights"], meet=1)
)
def test_a_network_uses_only_its_data(name: str, kind: str) -> None:
    """Ragged rows, own inputs, own weights: network 7 learns the same from them alone."""
    spec, source = SPECS[name], generator(3)
    index = [torch.randperm(SAMPLES, generator=source)[: 1 + 2 * n] for n in range(COUNT)]
    weight = torch.rand(COUNT, SAMPLES, generator=source) + 0.1
    inputs, target = samples(spec, COUNT, SAMPLES, dtype=torch.float32)

    def data(rows: Rows) -> gpubp.Dataset:
        if kind == "rows":
            return dataset(spec, rows=[index[n] for n in rows])
        if kind == "own samples":
            return gpubp.Dataset(inputs[rows], target[rows], rows=[index[n] for n in rows])
        return dataset(spec, sample_weight=weight[rows] if kind == "weights" else weight[0])

    settings = {"optimizer": "adam", "batch_size": BATCH, "epochs": 3}
    everyone = train(networks(spec), data(list(range(COUNT))), **settings)
    lengths = everyone.end.tolist()
    assert (len(set(lengths)) > 1) == ("weights" not in kind), "ragged rows make other numbers of steps"
    assert everyone.step.tolist() == lengths
    for rows in ([7], [8, 0], [3, 7, 1, 2]):
        assert not differences(train(networks(spec, rows), data(rows), **settings), everyone, others=rows), rows


@SOME
def test_networks_may_end_at_different_steps_within_a_call(name: str) -> None:
    spec, data = SPECS[name], dataset(SPECS[name])
    ends = [5, 1, 8, 3, 8, 2, 8, 7, 5]
    settings = {"optimizer": "adam", "batch_size": BATCH}
    whole = train(networks(spec), data, steps=ends, **settings)
    assert whole.step.tolist() == ends
    for cuts in ([1] * 8, [6, 2]):
        assert not differences(train(networks(spec), data, cuts, steps=ends, **settings), whole)
    for number in (0, 1, 7):
        alone = train(networks(spec, [number]), data, steps=ends[number], **settings)
        assert not differences(alone, whole, others=[number]), number


@SOME
def test_networks_may_be_at_different_steps(name: str) -> None:
    """As after a retirement: the newcomers start while others are under way."""
    spec, data = SPECS[name], dataset(SPECS[name])
    settings = {"optimizer": "adam", "batch_size": BATCH, "steps": STEPS, "dropout": 0.2}
    plain = train(networks(spec), data, **settings)
    mixed = start(networks(spec), data, **settings)
    for part, steps in ((slice(0, 3), 2), (slice(2, 6), 3), (slice(0, COUNT), 4), (slice(0, COUNT), 8)):
        eager.run(mixed.rows(part), data, steps)
    assert mixed.step.tolist() == [STEPS] * COUNT
    assert not differences(mixed, plain)


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


@SOME
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
