"""Engines advance a TrainState. choose() selects one and says why. The choice depends on specification, configuration,
device and compiler, never on the number of networks, their data or free memory, so that a network has the same engine
alone and among others. The data only make the sentence exact.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import memory
from ..errors import EngineError, one_of
from ..evaluate import Evaluation, evaluate
from ..maths.spec import NetworkSpec
from ..population import Population
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..settings.recipe import EXACT, Recipe
from ..state import TrainState
from . import build, cpu, cuda, eager, rules
from .key import MANY


class Engine(NamedTuple):
    """run(state, data, steps) trains; evaluate(population, data, hyper, position) returns loss and metric, as defined
    in evaluate.py; compile_ahead(state, data, evaluated, device) compiles the kernels of both in parallel; share(state,
    room, populations) is how much of `room`, threads of a CPU or streams of a GPU, a call takes beside other
    populations' calls; workspace(state, data) is the most bytes of host memory that a call takes."""

    run: Callable[[TrainState, Dataset, int], None]
    evaluate: Callable[[Population, Dataset, Mapping[str, Tensor], Tensor], Evaluation]
    compile_ahead: Callable[[TrainState, Dataset, Sequence[Dataset], torch.device], None]
    share: Callable[[TrainState, int, int], int]
    workspace: Callable[[TrainState, Dataset], int]


def _workspace(state: TrainState, data: Dataset) -> int:
    params = state.population.params
    return memory.workspace(state.population.spec, state.recipe, len(params), params.element_size())


ENGINES = {
    "eager": Engine(eager.run, evaluate, lambda *_: None, lambda state, room, populations: room, _workspace),
    "cpu": Engine(cpu.run, cpu.evaluate, cpu.compile_ahead, cpu.share, cpu.workspace),
    "cuda": Engine(cuda.run, cuda.evaluate, cuda.compile_ahead, lambda *_: 1, _workspace),
}


class Choice(NamedTuple):
    """An engine, its name in ENGINES, and a sentence with the reason for choosing it."""

    name: str
    engine: Engine
    reason: str

    @property
    def compiles(self) -> bool:
        """Whether the engine has kernels."""
        return self.name != "eager"


def choose(
    name: str, spec: NetworkSpec, config: TrainConfig, device: torch.device, dtype: torch.dtype = torch.float32,
    data: Dataset | None = None, count: int = MANY,
) -> Choice:  # fmt: skip
    """The engine `name`, or for "auto" the fastest possible. data, count: the training data and the number of networks,
    only for the sentence. Raises EngineError for an unknown name and for an engine that cannot train such networks on
    this machine; SpecError and ConfigError for a custom rule that does not return what its table requires."""
    one_of(("auto", *ENGINES), name, "engine", EngineError)
    rules.check(spec, config, device, dtype)
    recipe = config.recipe(spec)
    _check_precision(name, recipe, device, dtype)
    if name == "eager":
        return Choice(name, ENGINES[name], "eager: requested by name")
    if name in ("cpu", "cuda") and device.type != name:
        own = "the CPU" if name == "cpu" else "a GPU"
        raise EngineError(f'engine "{name}" trains on {own}, the networks are on {device}; engine "eager" trains there')
    if device.type == "cuda":
        return _on_a_gpu(name, spec, recipe, device, dtype, data, count)
    if device.type != "cpu":
        return Choice("eager", ENGINES["eager"], f"eager: raw torch operations, which run everything on {device.type}")
    why_not = cpu.refused(spec, recipe, dtype)
    if why_not is None:
        why = "requested by name" if name == "cpu" else f"compiled by {build.compiler()[0]}"
        return Choice("cpu", ENGINES["cpu"], f"cpu: {why}")
    if name == "cpu":
        raise EngineError(why_not)
    return Choice("eager", ENGINES["eager"], f"eager: {why_not}")


def choose_for_all(
    name: str, spec: NetworkSpec, config: TrainConfig, devices: Sequence[torch.device],
    dtype: torch.dtype = torch.float32, data: Dataset | None = None, count: int = MANY,
) -> Choice:  # fmt: skip
    """One engine for all devices, which share the networks: `name`, or for "auto" the fastest possible on each.
    Otherwise like choose()."""
    each = -(-count // len(devices))
    found = {device: choose(name, spec, config, device, dtype, data, each) for device in devices}
    device, least = min(found.items(), key=lambda each: each[1].name != "eager")
    alike = len({choice.reason for choice in found.values()}) == 1
    return least if alike else least._replace(reason=f"{least.reason} ({device})")


def _check_precision(name: str, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
    """Raise EngineError unless products have the recipe's precision there."""
    wrong = {
        f"engine {name!r}": name not in ("auto", "cuda"),
        f"networks on {device}": device.type != "cuda",
        f"dtype {str(dtype).removeprefix('torch.')}": dtype != torch.float32,
    }
    if recipe.precision != EXACT and any(wrong.values()):
        raise EngineError(
            f'precision {recipe.precision!r} is of tensor cores, which engine "cuda" uses on a GPU in float32, and '
            f"whose bits no CPU reproduces: it cannot be had with {next(what for what in wrong if wrong[what])}"
        )


def _on_a_gpu(
    name: str, spec: NetworkSpec, recipe: Recipe, device: torch.device, dtype: torch.dtype, data: Dataset | None,
    count: int,
) -> Choice:  # fmt: skip
    try:
        return Choice("cuda", ENGINES["cuda"], cuda.why(spec, recipe, device, dtype, data, count))
    except EngineError as error:
        if name == "cuda" or recipe.precision != EXACT:
            raise
        return Choice("eager", ENGINES["eager"], f"eager: {error}")
