"""Calls: prepared calls of an engine, reused while everything they were made from is unchanged.

Finding a kernel and filling its Job takes Python 40 us, as long as dozens of steps of a small population. Instead,
every call compares the address and layout of each tensor, and everything else that a kernel's text or a Job takes from
state, data and the tables of rules. The same object is not always unchanged: tensors move, and addresses are reused.
"""

from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from ..samples.data import Dataset
from ..state import TrainState
from . import rules

Call = TypeVar("Call")
Origin = tuple[Any, ...]


class Calls(Generic[Call]):
    """The last prepared call of each state. A call lives as long as its state, so it must not refer to the state, or to
    any tensor of it or of the data."""

    def __init__(self) -> None:
        self.kept: WeakKeyDictionary[TrainState, tuple[Origin, Call]] = WeakKeyDictionary()

    def find(self, state: TrainState, data: Dataset, *machine: Any) -> Call | None:
        """The prepared call, if its sources are unchanged. machine: further sources, specific to an engine."""
        known = self.kept.get(state)
        return known[1] if known is not None and known[0] == (machine, origin(state, data)) else None

    def keep(self, state: TrainState, data: Dataset, call: Call, *machine: Any) -> None:
        """Keep `call`, made from these, unless it has a custom rule, which may change before the next call."""
        if rules.built_in(rules.rows(state.population.spec, state.recipe)):
            self.kept[state] = (machine, origin(state, data)), call


def origin(state: TrainState, data: Dataset) -> Origin:
    """The sources of the calls of a training, except the numbers themselves."""
    population, hyper, columns, memory = state.population, state.hyper, state.columns, state.memory
    params, spec = population.params, population.spec
    inputs, targets, weight, rows = data.inputs, data.targets, data.sample_weight, data.rows
    given = [inputs, targets]
    if weight is not None:
        given.append(weight)
    if rows is not None:  # then the others are not None
        given += (rows, data.sizes, data.starts)  # type: ignore[arg-type]
    trained = (
        params, population.ids, *state.slots, *hyper.values(), *columns.values(), *memory.values(), state.position,
        state.step, state.limit, state.end, state.status, state.loss, state.total, state.diverged_step,
    )  # fmt: skip
    return (
        spec, state.recipe, rules.rows(spec, state.recipe), population.seed,
        *hyper, *columns, *memory, len(state.slots),
        params.shape, params.dtype, params.device, inputs.shape, inputs.dtype, inputs.device, targets.dtype,
        None if weight is None else (weight.ndim, weight.dtype), None if rows is None else rows.shape,
        *map(Tensor.data_ptr, trained), *map(Tensor.data_ptr, given),
        all(map(Tensor.is_contiguous, trained)),
    )  # fmt: skip
