"""A call of an engine that serves the next one too, while everything that it was made from is what it was.

To find a kernel and to fill its Job takes Python 40 us, as long as dozens of steps of a small population. Before every
call it is compared instead where each number is, how it lies, and whatever a kernel's text or a Job takes from state,
data and the tables of rules. Nothing is taken to be unchanged because it is the same object: tensors move, and objects
come to stand where others were.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from ..data import Dataset
from ..state import TrainState
from . import rules

Call = TypeVar("Call")
Origin = tuple[Any, ...]


class Calls(Generic[Call]):
    """Of each state the call that was prepared last. It goes with the state; so it must not hold the state, nor any
    tensor of it or of the data."""

    def __init__(self) -> None:
        self.kept: WeakKeyDictionary[TrainState, tuple[Origin, Call]] = WeakKeyDictionary()

    def find(self, state: TrainState, data: Dataset, *machine: Any) -> Call | None:
        """The call that was kept, if it was made from the same. machine: what else an engine makes its calls from."""
        known = self.kept.get(state)
        return known[1] if known is not None and known[0] == (machine, origin(state, data)) else None

    def keep(self, state: TrainState, data: Dataset, call: Call, *machine: Any) -> None:
        """`call`, made from these, for the calls to come; but where a rule is not the package's: it may have changed by
        the next."""
        if rules.fixed(rules.functions(rules.rows(state.population.spec, state.recipe))):
            self.kept[state] = (machine, origin(state, data)), call


def origin(state: TrainState, data: Dataset) -> Origin:
    """What the calls of a training are made from; the numbers themselves apart."""
    population, hyper, columns, memory = state.population, state.hyper, state.columns, state.memory
    params, spec = population.params, population.spec
    inputs, targets, weight, rows = data.inputs, data.targets, data.sample_weight, data.rows
    trained = (
        params, population.ids, *state.slots, *hyper.values(), *columns.values(), *memory.values(), state.position,
        state.step, state.limit, state.end, state.status, state.loss, state.total, state.diverged_step,
    )  # fmt: skip
    given = [tensor for tensor in (inputs, targets, weight, rows, data.sizes) if tensor is not None]
    return (
        spec, state.recipe, rules.rows(spec, state.recipe), population.seed,
        *hyper, *columns, *memory, len(state.slots),
        params.shape, params.dtype, params.device, inputs.shape, inputs.dtype, inputs.device, targets.dtype,
        None if weight is None else (weight.ndim, weight.dtype), None if rows is None else rows.shape,
        *map(Tensor.data_ptr, trained), *map(Tensor.data_ptr, given),
        all(map(Tensor.is_contiguous, trained)),
    )  # fmt: skip
