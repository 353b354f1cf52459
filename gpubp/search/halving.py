"""Successive halving, and Hyperband: at each rung the worst networks stop; the others continue from where they are.

Rungs are at min_resources, min_resources * factor, ... epochs (or steps), up to a `factor`-th of the training. At rung
k, from 0, the best n / factor^(k + 1) of n continue, rounded down, at least one. They are chosen among those that still
train: a network that patience has stopped, or that has diverged, takes no other's place. In a design with folds, the
networks of a setting, one per fold, continue or stop together, by their mean loss; if one diverges, its setting ends.
With entities, networks are compared only within their entity, as if each entity had its own search. Nothing else
changes: a network that continues is bit for bit what it is alone.

Karnin, Koren, Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", 2013 (sequential halving); Jamieson,
Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016; Li, Jamieson, DeSalvo,
Rostamizadeh, Talwalkar, "Hyperband", 2018. The names are those of scikit-learn's HalvingGridSearchCV, which rounds up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluate import Round
from ..line import counted
from ..maths.rng import permute
from ..runs.making import told_apart
from ..runs.run import Run
from ..settings.rounds import Rounds
from ..state import Status
from ..system import arrays
from .method import Method, Placed, check_comparable, figures, in_order, small, unit_of


@dataclass
class SuccessiveHalving(Method):
    """factor: one in `factor` continues (eta of the papers). min_resources: epochs, or steps, of all networks before
    the first rung. The results get a column rung: how many rungs a network has passed."""

    factor: int = 3
    min_resources: int = 1
    name, paced, stops = "halving", "min_resources", True

    def __post_init__(self) -> None:
        self.factor = arrays.count("factor", self.factor, 2)
        self.min_resources = arrays.count("min_resources", self.min_resources)

    @property
    def every(self) -> int:  # type: ignore[override]
        """Epochs, or steps, up to the first rung."""
        return self.min_resources

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """Lay out rungs and brackets. -> them, for the user. Raises ConfigError for a training that is too short."""
        configs = [run.config for run in runs]
        interval, unit, longest = self.interval(configs), unit_of(configs), max(each.longest for each in configs)
        first, length = (counted(each, unit[:-1]) for each in (self.min_resources, longest))
        if self.min_resources * self.factor > longest:
            raise ConfigError(
                f"{self.name}: after min_resources, {first}, one network of {self.factor} goes "
                f"on for {self.factor} times as long, and the training has {longest}: more {unit}, or fewer "
                "min_resources (--budget), for which evaluate_every (--evaluate-every) may have to be less, expected"
            )
        check_comparable(self.name, runs)
        self.rungs = [self.min_resources // interval]  # rounds
        self.every_round = Rounds(interval, unit == "steps", 1)
        self.sizes = in_order(runs, [run.sets.data.size(run.state.position) for run in runs])  # of samples, by network
        while self.rungs[-1] * interval * self.factor**2 <= longest:
            self.rungs.append(self.rungs[-1] * self.factor)
        self.setting = settings(runs)
        self.entity = entities(runs, int(self.setting.max()) + 1)
        self.begins = torch.empty_like(self.entity)
        for some in self.entity.argsort(stable=True).split(self.entity.bincount().tolist()):
            self.begins[some] = self.assigned(len(some))
        what, whose = "setting" if runs[0].folds else "network", ""
        if (many := int(self.entity.max()) + 1) > 1:
            whose = f" of {many:,} entities, compared within each"
        begins = self.begins.unique().tolist()
        return [*(self._told(each, what, whose, interval, length) for each in begins), *small(runs)]

    def assigned(self, number: int) -> Tensor:
        """(S,): the first rung of each of `number` settings: one bracket holds them all."""
        return torch.zeros(number, dtype=torch.int64)

    def left(self, begins: int, rung: int) -> Tensor:
        """How many settings of the bracket that begins at rung `begins` are left after `rung`, for each entity."""
        members = self.entity[self.begins == begins].bincount()
        return torch.minimum(members, (members // self.factor ** (1 + rung - begins)).clamp(min=1))

    def acts(self, number: int, runs: Sequence[Run]) -> bool:
        """Whether the round is at a rung."""
        return number in self.rungs

    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """At a rung, stop the networks that do not continue."""
        if not self.acts(number, runs):
            return
        rung, (mean, alive) = self.rungs.index(number), self._means(runs, found)
        order, stops = mean.argsort(stable=True), ~alive
        order = order[self.entity[order].argsort(stable=True)]
        for begins in range(rung + 1):
            best = order[(alive & (self.begins == begins))[order]]
            whose = self.entity[best]
            place = torch.arange(len(best)) - torch.searchsorted(whose, whose)  # within its entity
            stops[best[place >= self.left(begins, rung)[whose]]] = True
        for run in runs:
            run.stop(stops[self.setting[run.rows]])

    def _means(self, runs: Sequence[Run], found: Sequence[Round]) -> tuple[Tensor, Tensor]:
        """(S,) each, for settings: the mean loss, and whether a network still trains and none has diverged."""
        loss, status = in_order(runs, figures(runs, found)), in_order(runs, [run.state.status for run in runs])
        running, known = status == Status.running, found[0].held_out is not None
        counted = (running | known).double()
        loss = torch.where(counted > 0, loss, 0.0)

        def total(values: Tensor) -> Tensor:
            return torch.zeros(len(self.begins), dtype=torch.float64).index_add_(0, self.setting, values.double())

        alive = (total(running) > 0) & (total(status == Status.diverged) == 0)
        return total(loss) / total(counted), alive

    def columns(self, networks: Sequence[Placed]) -> dict[str, Tensor]:
        """rung."""
        return {"rung": in_order(networks, [self._passed(some) for some in networks])}

    def _passed(self, some: Placed) -> Tensor:
        """(N,): how many rungs of its bracket each network has passed."""
        at, begins = torch.arange(len(self.rungs)), self.begins[self.setting[some.rows]][:, None]
        return ((torch.tensor(self.rungs) < self.round_of(some)[:, None]) & (at >= begins)).sum(1)

    def round_of(self, some: Placed) -> Tensor:
        """(N,): the round of each network's last step, from 1; for a diverged one, of the step that diverged."""
        state, rounds = some.state, replace(self.every_round, batch_size=some.state.recipe.batch_size)
        return rounds.number(state.step + (state.status == Status.diverged), self.sizes[some.rows])

    def _told(self, begins: int, what: str, whose: str, interval: int, length: str) -> str:
        """A bracket as text."""
        members, rungs = int((self.begins == begins).sum()), range(begins, len(self.rungs))
        left = [(int(self.left(begins, rung).sum()), self.rungs[rung] * interval) for rung in rungs]
        after = ", ".join(f"{many:,} after {end:,}" for many, end in left)
        rest = (
            f"of which these go on: {after} of {length}" if after else f"which train{'s' * (members == 1)} for {length}"
        )
        return f"{self.title(begins)}: {counted(members, what)}{whose}, {rest}"

    def title(self, begins: int) -> str:
        """The name of a bracket."""
        return "successive halving"


@dataclass
class Hyperband(SuccessiveHalving):
    """Successive halving in several brackets at once, which differ in their first rung: bracket s has s rungs, so with
    fewer rungs settings train longer before the first one. The settings are dealt to brackets in the proportions of the
    paper, ceil((s_max + 1) factor^s / (s + 1)), by a fixed permutation. The results get the columns bracket (s) and
    rung."""

    name = "hyperband"

    def assigned(self, number: int) -> Tensor:
        """(S,): the first rung of each setting."""
        most = len(self.rungs)
        sizes = [-(-(most + 1) * self.factor**s // (s + 1)) for s in range(most, -1, -1)]
        bounds = torch.tensor(sizes).cumsum(0)
        bounds = torch.div(number * bounds * 2 + sum(sizes), 2 * sum(sizes), rounding_mode="floor")  # rounded
        place = permute(torch.arange(number, dtype=torch.int32), number, torch.zeros(1, dtype=torch.int32))
        return torch.searchsorted(bounds, place.long(), right=True)

    def columns(self, networks: Sequence[Placed]) -> dict[str, Tensor]:
        """bracket and rung."""
        return {"bracket": len(self.rungs) - self.begins[self.setting], **super().columns(networks)}

    def title(self, begins: int) -> str:
        """The name of a bracket."""
        return f"hyperband, bracket {len(self.rungs) - begins}"


def entities(runs: Sequence[Run], count: int) -> Tensor:
    """(S,) int64: the entity of each of `count` settings, from 0; 0 if the data have no entities."""
    if runs[0].sets.data.entities is None:
        return torch.zeros(count, dtype=torch.int64)
    position = in_order(runs, [run.state.position for run in runs])
    return torch.searchsorted(position.unique(), position)


def settings(runs: Sequence[Run]) -> Tensor:
    """(N,) int64 in the order of rows: the setting of each network, from 0 in the order of first rows. Without folds,
    each network is a setting. With folds, networks with equal hyper-parameters share one: the k-th of each fold
    together."""
    everyone = sum(len(run.rows) for run in runs)
    if not runs[0].folds:
        return torch.arange(everyone)
    keys: list[tuple[object, ...]] = [()] * everyone
    for number, run in enumerate(runs):
        for row, fold, values in zip(run.rows.tolist(), run.state.position.tolist(), told_apart(run).tolist()):
            keys[row] = fold, number, *values
    seen: Counter[tuple[object, ...]] = Counter()
    found: dict[tuple[object, ...], int] = {}
    numbers = []
    for key in keys:
        numbers.append(found.setdefault((seen[key], *key[1:]), len(found)))
        seen[key] += 1
    return torch.tensor(numbers)
