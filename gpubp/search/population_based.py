"""Population based training: the worst networks become copies of the best, with other hyper-parameters, and train on.

Every `every` epochs (or steps), among networks of one topology, recipe and sample set, each of the worst `quantile`
copies one of the best `quantile`: parameters, optimizer state, hyper-parameters and what evaluations remember, so that
patience and the best row are the source's. A network that has diverged counts as the worst, and trains again as a copy.
Then the copy's hyper-parameters are perturbed, or drawn anew, within their space; ids and lengths stay. Networks that
have ended otherwise take no part.

Jaderberg et al., "Population Based Training of Neural Networks", 2017: truncation selection, perturbation by 0.8 or
1.2. `quantile` and `resample` are Ray Tune's quantile_fraction and resample_probability. Draws depend only on the seed,
the round and the network's row (maths/rng.py).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluate import Round
from ..line import counted
from ..maths import rng
from ..runs.cells import EXTRA
from ..runs.run import Run
from ..settings.ranges import numbers_of
from ..settings.recipe import STOPPING
from ..state import Status, TrainState
from ..system import arrays
from .lineage import Lineage
from .method import Method, check_comparable, figures, small, unit_of
from .sampling import Expression, Range, parse, several

EXPLOIT = 4  # layer of the search stream; samples/folds.py uses the two before
STAY = ("ids", "position", "end")  # kept by a network that becomes a copy


@dataclass
class PopulationBased(Method):
    """every: epochs, or steps, between two exchanges. quantile: the share of the best, and of the worst; half at most.
    perturb: factors, of which one is drawn; a number from a list becomes a neighbour in it. resample: the probability
    that a hyper-parameter is drawn anew from its space instead. space: ranges LOW..HIGH, LOW..HIGH:log or lists of
    hyper-parameters by name; by default those that differ between networks, from the least to the largest at the start.
    lineage: which network copied which so far (lineage.py)."""

    every: int = 1
    quantile: float = 0.25
    perturb: Sequence[float] = (0.8, 1.2)
    resample: float = 0.25
    space: Mapping[str, Expression] | None = None
    seed: int = 0
    lineage: Lineage = field(default_factory=Lineage, repr=False)
    name = "pbt"

    def __post_init__(self) -> None:
        self.every, self.seed = arrays.count("every", self.every), rng.check_seed(self.seed)
        for name, most in (("quantile", 0.5), ("resample", 1.0)):
            share = arrays.real(getattr(self, name))
            if share is None or not 0 <= share <= most or (name == "quantile" and not share):
                raise ConfigError(f"{name} {getattr(self, name)!r}: a number from 0 to {most:g} expected")
            setattr(self, name, share)
        single = arrays.real(self.perturb) is not None or not isinstance(self.perturb, Iterable)
        factors = [] if single else [arrays.real(each) for each in self.perturb]
        if not factors or any(each is None or each <= 0 for each in factors):
            raise ConfigError(f"perturb {self.perturb!r}: factors above 0, in a list, expected")
        self.perturb = [float(each) for each in factors if each is not None]
        if not isinstance(self.space, Mapping | None):
            raise ConfigError(f"space is a {type(self.space).__name__}; ranges by name expected")
        space: Mapping[str, Any] = self.space or {}
        if space:
            plain = {name: each.tolist() if hasattr(each, "tolist") else each for name, each in space.items()}
            self.space = {name: [*each] if several(each) else each for name, each in plain.items()}
        self.ranges = {name.removeprefix(EXTRA): _range(name, each) for name, each in (self.space or {}).items()}

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """Find the space, unless given. -> the space, for the user. Raises ConfigError if there is nothing to do."""
        configs = [run.config for run in runs]
        longest, unit = max(each.longest for each in configs), unit_of(configs)
        self.interval(configs)
        if self.every >= longest:
            raise ConfigError(f"every {counted(self.every, unit[:-1])}: less than the training's {longest} expected")
        if all(len(some) < 2 for run in runs for some in _alike(run)):
            raise ConfigError("pbt: two networks or more with the same topology, recipe and samples expected")
        if not any(run.number for run in runs):
            self.lineage = Lineage()
        if self.space is None:
            self.space = _differing(runs)
            self.ranges = {name: _range(name, each) for name, each in self.space.items()}
        for run in runs:
            check_comparable(self.name, [run], self.ranges)
        known = {name for run in runs for name in run.state.hyper}
        for name in self.ranges:
            if name not in known:
                raise ConfigError(f"pbt: no network has {name}, or it is off; {', '.join(sorted(known))} are on")
        shown = ", ".join(f"{name} {_shown(each)}" for name, each in self.ranges.items())
        every = counted(self.every, unit[:-1])
        told = f"population based training: every {every} {self.quantile:.0%} copy the best; {shown}"
        return [told, *small(runs)]

    def acts(self, number: int, runs: Sequence[Run]) -> bool:
        """Whether `every` epochs, or steps, have passed again: networks are evaluated together."""
        return number * runs[0].config.interval % self.every == 0

    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """Exchange networks, if it is time."""
        if self.acts(number, runs):
            for run, each in zip(runs, found):
                self._exchange(number, run, figures([run], [each])[0])

    def _exchange(self, number: int, run: Run, loss: Tensor) -> None:
        """The worst networks of a run become copies of the best, and explore."""
        pairs = [self._pairs(number, run, some, loss) for some in _alike(run)]
        target, source = (torch.cat(each) for each in zip(*pairs))
        if not len(target):
            return
        names = [name for name in self.ranges if name in run.state.hyper]
        words = self._words(number, run, target, 1 + 3 * len(names))[:, 1:].unflatten(1, (len(names), 3))
        before = {name: run.state.hyper[name][target, 0] for name in names}
        after = {
            name: self._explored(name, run.state.hyper[name][source, 0], words[:, at]) for at, name in enumerate(names)
        }

        def change(state: TrainState) -> None:
            for name, tensor in state.tensors():
                if name not in STAY:
                    tensor[target] = tensor[source]
            for name, values in after.items():
                state.hyper[name][target, 0] = values

        run.rewrite(change)
        values = {name: {"before": before[name].tolist(), "after": after[name].tolist()} for name in names}
        rows = {"network": run.rows[target].tolist(), "source": run.rows[source].tolist()}
        self.lineage.append({"round": number, **rows, "hyper": values})

    def _pairs(self, number: int, run: Run, some: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Of the networks `some`, in the order of their rows: (K,) each, the copies to be, and their sources."""
        state, running = run.state, run.state.running[some]
        if not bool(running.any()):
            return some[:0], some[:0]
        step = state.step[some[running]].max()
        some = some[running | ((state.status[some] == Status.diverged) & (state.end[some] > step))]
        diverged = state.status[some] == Status.diverged
        order = loss[some].argsort(stable=True)
        order = some[order[diverged[order].byte().argsort(stable=True)]]
        size = min(math.ceil(self.quantile * len(some)), len(some) // 2, int((~diverged).sum()))
        target = order[len(order) - size :]
        return target, order[(self._words(number, run, target, 1)[:, 0] * size) >> 32]

    def _words(self, number: int, run: Run, some: Tensor, count: int) -> Tensor:
        """(K, count): random words of these networks in this round."""
        return rng.words(self.seed, run.rows[some], count, EXPLOIT, rng.SEARCH, torch.full_like(some, number))

    def _explored(self, name: str, values: Tensor, words: Tensor) -> Tensor:
        """(K,): values in place of `values`; words (K, 3)."""
        space, share = self.ranges[name], (words.double() + 0.5) * 2.0**-32
        if isinstance(space, Range):
            factors = torch.tensor(self.perturb, dtype=torch.float64)
            moved = space.within(values * factors[(words[:, 1] * len(factors)) >> 32])
            drawn = space.at(share[:, 2])
        else:
            choices = torch.tensor(space, dtype=torch.float64)
            nearest = (values[:, None] - choices).abs().argmin(1)
            moved = choices[(nearest + (words[:, 1] >> 31) * 2 - 1).clamp(0, len(choices) - 1)]
            drawn = choices[(words[:, 2] * len(choices)) >> 32]
        return torch.where(share[:, 0] < self.resample, drawn, moved)


def _alike(run: Run) -> Iterator[Tensor]:
    """The networks of a run that have the same samples, in the order of their rows."""
    order = run.rows.argsort()
    if all(each.networks is None for each in run.sets.each):
        yield order
        return
    order = order[run.state.position[order].argsort(stable=True)]
    yield from order.split(run.state.position[order].unique_consecutive(return_counts=True)[1].tolist())


def _differing(runs: Sequence[Run]) -> dict[str, Expression]:
    """The ranges of hyper-parameters that differ between networks. Raises ConfigError if none does."""
    found: dict[str, Expression] = {}
    for name in dict.fromkeys(name for run in runs for name in run.state.hyper if name not in STOPPING):
        values = torch.cat([run.state.hyper[name].flatten() for run in runs if name in run.state.hyper])
        low, high = float(values.min()), float(values.max())
        if low < high and name != "class_weight":
            found[name] = f"{low!r}..{high!r}{':log' if low > 0 else ''}"
    if not found:
        raise ConfigError(
            "pbt: all networks have the same hyper-parameters, and no space, on the command line a range or a list, "
            "says which to change"
        )
    return found


def _shown(space: Range | list[float]) -> str:
    """A space, in short."""
    if isinstance(space, Range):
        return f"{space.low:.3g} to {space.high:.3g}{', log' if space.log else ''}"
    return " or ".join(f"{each:g}" for each in space)


def _range(name: str, given: Any) -> Range | list[float]:
    """The space of a hyper-parameter, a list ascending. Raises ConfigError."""
    space = parse(name, given)
    if isinstance(space, float):
        raise ConfigError(f"space: {name} {given!r}: a range LOW..HIGH or LOW..HIGH:log, or a list, expected")
    numbers_of(name, [space.low, space.high] if isinstance(space, Range) else space)
    return space if isinstance(space, Range) else sorted(space)
