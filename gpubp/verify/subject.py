"""Subject: what is verified: a few networks of a design, a few of their samples, a few steps, and a device.

Topologies, rules, hyper-parameters, batch size, dtype and engine stay those of the whole. Lengths do not: networks end
at different steps. Whatever is left out is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.packing import Saved
from ..engines import Choice, choose
from ..engines.rules import custom, rows
from ..errors import EngineError
from ..maths.losses import LOSSES
from ..maths.spec import NetworkSpec
from ..results.result import Result
from ..runs.design import SPEC, Design, Group
from ..runs.making import Source
from ..runs.training import train_many
from ..samples.data import Dataset
from ..settings.recipe import EXACT
from ..state import TrainState
from ..system.devices import usable
from .comparing import Numbers

KINDS, NETWORKS, FURTHER = 3, 9, 3  # populations; networks of the first, and of each other
STEPS, APART = 12, 7  # of the longest training; the number of lengths
WORK = 4_000_000  # steps times parameters, over all networks, above which there are
LEAST, SHORT, CLOSE = 2, 6, 3  # the fewest networks of a population that can show independence, and such lengths
SAMPLES = 96
AROUND = ("position", "limit", "total")  # of a state: the progress of a round


@dataclass(frozen=True)
class Subject:
    """design: its rows have seeds, and folds if `data` has positions; device: where networks train; about: sentences on
    what is verified, and what is left out."""

    design: Design
    data: Dataset
    seed: int
    dtype: torch.dtype
    engine: str
    device: torch.device
    about: list[str] = field(default_factory=list)

    def train(self, some: Sequence[int] | None = None, **changed: Any) -> list[Numbers]:
        """All numbers of the networks `some`, by default all, after training, in this order."""
        given: dict[str, Any] = {"design": self.design, "device": self.device, "engine": self.engine, **changed}
        if some is not None:
            given["design"] = given["design"].take(np.array(some))
        return networks(train_many(data=self.data, seed=self.seed, dtype=self.dtype, **given))

    @cached_property
    def whole(self) -> list[Numbers]:
        """The numbers of all networks, trained together."""
        return self.train()

    @property
    def count(self) -> int:
        """The number of networks."""
        return len(self.design)

    def groups(self, dtype: torch.dtype | None = None) -> list[Group]:
        """The networks that share a kernel, before their first step."""
        return Source(self.seed, dtype or self.dtype, self.data.networks).groups(self.design)

    def start(self, group: Group, device: torch.device, engine: str) -> tuple[TrainState, Dataset, Choice]:
        """A population in training, all of whose steps are one round, its data and its engine. Raises EngineError."""
        population = group.population.to(device)
        data = self.data.to(device, population.params.dtype)
        config = group.config.fitted(population.spec, data, group.position)[0]
        state = TrainState.start(population, config, data, group.position.to(device))
        state.limit.copy_(state.end)
        choice = choose(engine, population.spec, config, device, population.params.dtype, data, population.count)
        return state, data, choice

    def refused(self, engine: str, device: torch.device, dtype: torch.dtype | None = None) -> str | None:
        """Why an engine cannot train these networks there; None if it can."""
        try:
            for group in self.groups(dtype):
                self.start(group, device, engine)
        except EngineError as error:
            return str(error)
        return None

    @cached_property
    def custom(self) -> list[str]:
        """The names of rules that are not the package's."""
        found = [rows(each.population.spec, each.config.recipe(each.population.spec)) for each in self.groups()]
        return sorted({row[0].__name__ for each in found for row in each if custom(row)})

    def seeded(self, more: int) -> Design:
        """The design with `more` added to the networks' seeds."""
        seed = self.design.columns["seed"]
        return replace(self.design, columns={**self.design.columns, "seed": seed._replace(values=seed.values + more)})


def trained(state: TrainState) -> dict[str, Tensor]:
    """All that training changes, (N, ...) each, without settings and the progress of a round."""
    return {name: each for name, each in state.tensors() if name not in AROUND and not name.startswith("hyper.")}


def networks(result: Result) -> list[Numbers]:
    """The numbers of each network of a result, in the order of its rows."""
    found: dict[int, Numbers] = {}
    for outcome in result.outcomes:
        tensors = trained(outcome.state) | {"training loss": outcome.training.loss, "metric": outcome.training.metric}
        for at, row in enumerate(outcome.rows.tolist()):
            found[row] = {name: each[at] for name, each in tensors.items()}
    return [found[row] for row in sorted(found)]


def scaled_down(
    design: Design, data: Dataset | None = None, seed: int = 0, dtype: torch.dtype = torch.float32,
    engine: str = "auto", device: str | torch.device = "auto", about: Sequence[str] = (), total: int | None = None,
) -> Subject:  # fmt: skip
    """A few networks of `design`, with few samples of `data`, or synthetic ones. device: as in usable(); engine: as in
    train(); only eager is taken by name; total: of the networks, if `design` has only some. Raises GpubpError."""
    where, told = usable(device), list(about)
    if named := sorted({*design.cells("precision")} - {None, EXACT}):
        told.append(f"in precision {EXACT}: that of the run, {' and '.join(named)}, has bits that no CPU reproduces")
    unused = ("precision", "monitor")  # here nothing is validated
    design = replace(design, columns={name: each for name, each in design.columns.items() if name not in unused})
    if data is None:
        design = replace(design, columns={name: each for name, each in design.columns.items() if name != "fold"})
    chosen, count = _few(design)
    few = design.take(np.array(chosen))
    specs = [each.spec for each in few.planned(seed, dtype, None if data is None else data.networks)]
    kept = _affordable(few.alike(), specs)
    chosen, few = [chosen[at] for at in kept], few.take(np.array(kept))
    work = STEPS * sum(len(rows) * spec.size for rows, spec in zip(few.alike(), specs))
    if count > KINDS:
        told.append(f"{KINDS} of {count} populations")
    names = ", ".join(dict.fromkeys("-".join(map(str, each.widths)) for each in specs))
    told.append(f"{len(few)} of {total or len(design):,} networks, {names}")
    position = design.positions(None if data is None else data.networks)[chosen]
    if data is None:
        data = synthetic(specs[0])
        told.append(f"{data.samples} synthetic samples")
    else:
        few_samples = max(SAMPLES, *(each or 1 for each in few.cells("batch_size")))
        told.append(f"{min(few_samples, data.samples)} of {data.samples:,} samples")
        data = _fewer(data, torch.from_numpy(position), few_samples)
    steps, apart = (STEPS, APART) if work <= WORK else (SHORT, CLOSE)
    if work > WORK:
        told.append(f"{steps} steps, as networks are large")
    short = _short(few, chosen, data.networks, steps, apart)
    subject = Subject(short, data, seed, dtype, "eager" if engine == "eager" else "auto", where, told)
    if (why_not := subject.refused(engine, where)) is not None:
        told.append(f"engine {engine} cannot be had here, and another is verified: {why_not}")
    return subject


def _few(design: Design) -> tuple[list[int], int]:
    """The rows of some networks of some of the populations, spread over all; and how many populations there are."""
    alike = design.alike()
    some = [alike[at] for at in _spread(len(alike), KINDS)]
    found = [rows[_spread(len(rows), FURTHER if at else NETWORKS)] for at, rows in enumerate(some)]
    return sorted(int(row) for rows in found for row in rows), len(alike)


def _affordable(alike: Sequence[Any], specs: Sequence[NetworkSpec]) -> list[int]:
    """As many rows of each population as WORK allows, but at least LEAST."""
    room = [max(LEAST, WORK // (len(specs) * STEPS * spec.size)) for spec in specs]
    return sorted(int(row) for rows, most in zip(alike, room) for row in rows[_spread(len(rows), most)])


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, including the first and the last."""
    return sorted({round(each) for each in np.linspace(0, count - 1, min(count, most))})


def _short(design: Design, chosen: list[int], positions: int | None, steps: int, apart: int) -> Design:
    """The design with lengths of a few steps; its networks keep their seeds and positions."""
    left_out = ("epochs", "steps", "evaluate_every", "fold")
    kept = {name: each for name, each in design.columns.items() if name not in left_out}
    numbers = np.arange(len(design))
    own: dict[str, Any] = {"steps": steps - numbers % apart, "seed": np.array(chosen)}
    own |= {"evaluate_every": [4] * len(design)} | ({} if positions is None else {"fold": numbers})
    return replace(design, columns=kept).filled(Design.of(own))


def _fewer(data: Dataset, position: Tensor, most: int) -> Dataset:
    """The data of the networks at `position`, cut to `most` samples unless networks have their own rows."""
    some = torch.tensor(_spread(data.samples, most))
    if data.networks is not None:
        data = data.take(position)
    weight = data.sample_weight
    if data.rows is not None:
        return Dataset(data.inputs, data.targets, data.parts, weight)
    at = (slice(None), some) if data.own else (some,)
    fewer = None if weight is None else weight[..., some]
    if fewer is not None and not bool((fewer.sum(-1) > 0).all()):
        return Dataset(data.inputs, data.targets, None, weight)
    return Dataset(data.inputs[at], data.targets[at], None, fewer)


def synthetic(spec: NetworkSpec) -> Dataset:
    """Samples that networks of `spec` can train on."""
    source, rule, width = torch.Generator().manual_seed(1), LOSSES[spec.loss], spec.widths[-1]
    inputs = torch.randn(SAMPLES, spec.widths[0], generator=source, dtype=torch.float64)
    numbers = torch.rand(SAMPLES, width, generator=source, dtype=torch.float64)
    if rule.classes:
        return Dataset(inputs, torch.randint(width, (SAMPLES,), generator=source))
    signs = {
        "hinge": 2 * numbers.round() - 1,
        "binary_cross_entropy": numbers.round(),
        "poisson": (3 * numbers).round(),
    }
    return Dataset(inputs, signs.get(spec.loss, numbers))


def of_run(populations: Sequence[Saved]) -> Design:
    """The design of a run's populations, as far as their checkpoint has it."""
    found = []
    for saved in populations:
        state, config = saved.state, saved.config
        spec = state.population.spec
        common = {name: getattr(spec, name) for name in SPEC}
        given = {name: value for name, value in config.to_dict().items() if name != "extra" and value is not None}
        given |= {f"extra.{name}": value for name, value in config.extra.items()}
        for at in _spread(state.population.count, NETWORKS):
            own = {name: _of(value, at, name == "class_weight") for name, value in given.items()}
            found.append({**common, **own, "seed": int(state.population.ids[at])})
    return Design.of(found)


def _of(value: Any, at: int, several: bool) -> Any:
    """The setting of one network."""
    many = torch.as_tensor(value) if not isinstance(value, str) else None
    if many is None or many.ndim <= several:
        return value
    return many[at].tolist()
