"""What an engine is given is checked before it reads or writes by it: each tensor's type, shape, device and range."""

from typing import Any

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import cpu, eager
from gpubp.errors import ConfigError, GpubpError, ShapeError
from gpubp.state import TrainState

from .helpers import compiled, copied, differing, put, samples  # noqa: F401

SPEC = gpubp.NetworkSpec((3, 5, 4), loss="cross_entropy")
COUNT = 6
ENGINES = {"eager": eager.run, "cpu": cpu.run}


def dataset() -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, COUNT, 8))  # each network's own, found by its position


def begun() -> TrainState:
    config = gpubp.TrainConfig(
        lr=0.1, steps=9, batch_size=4, schedule="plateau", dropout=0.1, class_weight=[1.0, 2.0, 3.0, 4.0]
    )
    own = gpubp.Population.create(SPEC, COUNT, dtype=torch.float64)
    state = TrainState.start(own, config, dataset())
    state.limit.copy_(state.end)
    return state


NAMES = [name for name, _ in begun().tensors()]


def refused(state: TrainState, engine: str, what: str) -> None:
    before = [(name, tensor.clone()) for name, tensor in state.tensors()]
    with pytest.raises(GpubpError, match=what):
        ENGINES[engine](state, dataset(), 3)
    for (name, tensor), (_, was) in zip(state.tensors(), before):
        assert torch.equal(tensor.nan_to_num(), was.nan_to_num()), f"{name} was written to"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "ids"])
def test_a_tensor_of_another_type_or_shape_is_refused_by_name(name: str, engine: str) -> None:
    kinds = {
        "narrow": lambda t: t.to(torch.float16 if t.is_floating_point() else torch.int16),
        "short": lambda t: t[: COUNT // 2],
        "one column": lambda t: t[:, :1] if t.ndim == 2 and t.shape[1] > 1 else t[:, None],
        "no column": lambda t: t[:, :0] if t.ndim == 2 else t[:0],
    }
    for kind, change in kinds.items():
        state = begun()
        changed = change(dict(state.tensors())[name].clone())
        if name == "params":  # a population checks itself
            with pytest.raises((ShapeError, ConfigError)):
                put(state, name, changed)
        else:
            put(state, name, changed)
            refused(state, engine, rf"state: {name.replace('.', '[.]')} is torch"), kind


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "change",
    [lambda s: s.slots.pop(), lambda s: s.slots.append(s.slots[0].clone()), lambda s: s.hyper.pop("lr"),
     lambda s: s.columns.pop("power1"), lambda s: s.memory.clear(),
     lambda s: s.hyper.update(l2=s.hyper["lr"][1:].clone())],
    ids=["a slot less", "a slot more", "no lr", "no column", "no plateau", "another, of fewer networks"],
)  # fmt: skip
def test_a_state_with_other_tensors_is_refused(change: Any, engine: str) -> None:
    state = begun()
    change(state)
    refused(state, engine, "state: .* expected")


RANGES = {  # a number that is out of it, and of which tensors
    -1: ("ids", "position", "step", "limit", "end", "status", "hyper.lr", "hyper.class_weight", "memory.scale",
         "memory.bad", "memory.cooling"),
    COUNT: ("position", "status"),
    10: ("step", "limit", "diverged_step"),
    1 << 62: ("ids", "position", "step", "limit", "end", "diverged_step"),
    -2: ("diverged_step",),
    float("nan"): ("hyper.lr", "hyper.dropout", "hyper.class_weight", "memory.scale", "memory.best", "memory.bad"),
    1.5: ("hyper.dropout", "hyper.beta1"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), [(name, number) for number, names in RANGES.items() for name in names])
def test_a_number_out_of_its_range_is_refused_by_name(name: str, number: float) -> None:
    state = begun()
    place = dict(state.tensors())[name]
    place.view(-1)[-1] = number
    with pytest.raises(ConfigError, match=name.removeprefix("hyper.")):
        state.check(dataset())
    refused(state, "cpu", name.removeprefix("hyper."))


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ([[0.0] * 44] * 2, torch.arange(2)),
        (torch.zeros(2, 44), [0, 1]),
        (torch.zeros(2, 44).to_sparse(), torch.arange(2)),
        (torch.zeros(2, 44), torch.arange(2, device="meta")),
        (torch.zeros(2, 43), torch.arange(2)),
        (torch.zeros(2, 44, dtype=torch.float16), torch.arange(2)),
        (torch.zeros(2, 44), torch.arange(3)),
        (torch.zeros(2, 44), torch.arange(2).to(torch.int32)),
    ],
    ids=["a list", "ids as a list", "sparse", "elsewhere", "a column less", "float16", "an id more", "int32"],
)
def test_a_population_made_by_hand_is_checked(params: Tensor, ids: Tensor) -> None:
    with pytest.raises((ShapeError, ConfigError), match=r"expected"):
        gpubp.Population(SPEC, params, 0, ids)
