"""On a GPU networks are computed in groups of one size, so that no library decides by their number: the
same shapes, the same bits, and a group that fits the cache."""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import gpubp
from gpubp import backprop
from gpubp.engines import eager, graph
from gpubp.evaluate import evaluate
from gpubp.maths import blocks
from gpubp.maths.numerics import kernel_widths

from .helpers import covering, same_bits, samples, start
from .recorder import recorded
from .test_graph import networks
from .test_independence import BATCH, COUNT, SAMPLES, SPECS, dataset


class Shapes(TorchDispatchMode):
    """The shapes of everything that a GPU's libraries may decide by: products and sums."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("bmm", "baddbmm", "sum", "mean", "amax", "cumsum", "logsumexp"):
            tensors = [each for each in args if isinstance(each, Tensor)]
            self.seen.add((str(func), *((tuple(each.shape), each.stride()) for each in tensors)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("widths", "batch", "optimizer"),
    covering([(2, 2, 2), (8, 16, 1), (5, 33, 2), (64, 32, 10), (16, 64, 64, 4), (784, 128, 10)], [1, 6, 32, 128],
             ["sgd", "adam", "amsgrad"]),
)  # fmt: skip
def test_a_group_fits_the_cache_of_an_a100(widths: tuple[int, ...], batch: int, optimizer: str) -> None:
    """By the tensors that stay, of which a group of two has two networks' share."""
    spec, gpu = gpubp.NetworkSpec(widths), torch.device("cuda")
    data = gpubp.Dataset(torch.zeros(4, widths[0]), torch.zeros(4, widths[-1]))
    state = start(networks(spec, 2), data, steps=1, batch_size=batch, optimizer=optimizer)
    block = eager.Block(state, kernel_widths(widths, batch))
    parts = [part for layer in block.parts for part in layer]
    rows = sum(each.nbytes for part in parts for each in (part.param, part.param, *part.slots)) / 2  # and its gradient
    outs = 2 * batch * sum(block.widths) * 4
    count = blocks.together(spec, batch, 4, gpu)
    assert 2 <= count <= blocks.MOST
    assert count * (rows + outs) <= 40 * 2**20
    if optimizer == "amsgrad" and count < blocks.MOST:
        assert (count + 1) * (rows + outs) > 0.9 * 40 * 2**20, "no smaller than that asks for"


@pytest.mark.parametrize("name", ["64-32-10", "13-7-3"])
def test_products_and_sums_have_the_same_shapes_for_every_number_of_networks(name: str) -> None:
    spec, data = SPECS[name], dataset(SPECS[name])
    seen = []
    for count in (1, 1, 3, 9):  # what the first tries out about this machine's products is kept
        with recorded(), Shapes() as shapes:
            state = start(networks(spec, count), data, batch_size=BATCH, steps=2, clip_norm=1.0, l2=0.1)
            rows = state.rows(slice(0, count))
            block = eager.Block(rows.rows(blocks.filled(rows.loss, 4)), spec.widths)
            group = graph.group(block, state.position[blocks.filled(rows.loss, 4)], data)
            group.take(1, True)
            evaluate(state.population, data, state.hyper)
            backprop.forward(spec, state.population.params, data.inputs)
            backprop.gradients(spec, state.population.params, data.inputs, data.targets)
        seen.append(shapes.seen)
    assert len(seen[1]) > 5
    assert seen[1] == seen[2] == seen[3]


@pytest.mark.parametrize("own", ["", "rows", "inputs", "weights"])
@pytest.mark.parametrize("name", ["64-32-10", "13-7-3"])
def test_an_evaluations_sums_are_over_whole_groups(name: str, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, seen = SPECS[name], []

    def outs(spec: gpubp.NetworkSpec, params: Tensor, inputs: Tensor) -> Tensor:
        """No product and no sum by torch."""
        return inputs[:, :, : spec.widths[-1]] * params[:, :1, None]

    monkeypatch.setattr(importlib.import_module("gpubp.evaluate"), "outs", outs)
    for count in (1, 3, 9):
        inputs, target = samples(spec, *((count,) if own == "inputs" else ()), SAMPLES, dtype=torch.float32)
        rows = [range(3 + n) for n in range(count)] if own == "rows" else None
        weight = torch.arange(count * SAMPLES).reshape(count, SAMPLES) % 5 if own == "weights" else None
        data, state = gpubp.Dataset(inputs, target, rows, weight), networks(spec, count)
        given = state, data, gpubp.TrainConfig(steps=1).columns(spec, count, torch.device("cpu"))
        with recorded(), Shapes() as shapes:
            found = evaluate(*given)
        expected = evaluate(*given)
        assert same_bits(found.loss, expected.loss)
        assert same_bits(found.metric, expected.metric)
        seen.append(shapes.seen)
    assert len(seen[0]) >= 3
    assert seen[0] == seen[1] == seen[2]


def test_evaluation_prediction_and_gradients_in_groups_have_the_same_bits() -> None:
    for spec in SPECS.values():
        data, state = dataset(spec), start(networks(spec), dataset(spec), steps=1)
        weight = torch.rand(COUNT, SAMPLES, generator=torch.Generator().manual_seed(2))
        given = spec, state.population.params, data.inputs, data.targets, weight
        gradients = backprop.gradients(*given)
        with recorded():
            assert all(map(same_bits, backprop.gradients(*given), gradients))
        out, figures = state.population.predict(data.inputs), evaluate(state.population, data, state.hyper)
        with recorded():
            assert same_bits(state.population.predict(data.inputs), out)
            found = evaluate(state.population, data, state.hyper)
        assert same_bits(found.loss, figures.loss)
        assert same_bits(found.metric, figures.metric)
