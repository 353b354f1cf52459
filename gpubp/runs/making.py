"""Maker: runs, ready to begin, from groups of networks that share a kernel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from .. import memory
from ..engines import Choice, choose_for_all
from ..errors import ConfigError, DataError
from ..evaluate import metric_name
from ..line import counted
from ..maths.spec import NetworkSpec
from ..networks import spread
from ..samples import checks
from ..samples.data import Dataset
from ..settings.class_weights import are_balanced
from ..settings.config import TrainConfig
from ..settings.recipe import METRIC
from ..state import TrainState
from ..system.ambient import HOME
from .design import Design, Group, Planned
from .run import Run, Sets

ROUND = 1 << 32  # operations of a round, at least


class Source(NamedTuple):
    """What turns the rows of a design into networks. seed: of all; folds: the number of positions in the data, None if
    all networks have the same samples; like: the specification of one network."""

    seed: int
    dtype: torch.dtype
    folds: int | None
    like: NetworkSpec | None = None

    def groups(self, design: Design) -> list[Group]:
        """The networks of a design. Raises ConfigError unless all predict the same outputs from the same inputs."""
        return [each.made() for each in self.planned(design)]

    def planned(self, design: Design) -> list[Planned]:
        """The same, before any network is made."""
        planned = list(design.planned(self.seed, self.dtype, self.folds))
        self.check(planned)
        return planned

    def check(self, groups: Sequence[Planned]) -> None:
        """Raise ConfigError unless all predict the same outputs from the same inputs."""
        like = self.like or groups[0].spec
        for each in groups:
            spec, where = each.spec, f"design: row {int(each.rows[0])}"
            sides = sorted({(some.widths[0], some.widths[-1]) for some in (like, spec)})
            if len(sides) > 1:
                raise ConfigError(
                    f"widths from {sides[0][0]} to {sides[0][1]} and from {sides[1][0]} to {sides[1][1]}: the same "
                    "inputs and outputs expected",
                    where,
                )
            metrics = sorted({metric_name(some) for some in (like, spec)})
            if len(metrics) > 1:
                raise ConfigError(
                    f"losses with different metrics, {' and '.join(metrics)}: train them in two runs", where
                )


def ready(
    specs: Sequence[NetworkSpec], dtype: torch.dtype, data: Dataset, validation: Dataset | None, count: int | None
) -> Sets:
    """The data, checked, in host memory, with the networks' dtype. count: of networks, if separate data must have one
    entry for each, in their order."""
    checks.are_datasets(data, validation)
    given = [each for each in (data, validation) if each is not None]
    if validation is not None and validation.entities != data.entities:
        raise DataError("data and validation are of different entities: both of data.by(keys).split(share) expected")
    for each in given:
        for spec in dict.fromkeys(specs):
            checks.check(each, spec, count or each.networks or 0)
    return Sets(*(each.to(HOME, dtype) for each in given))


@dataclass
class Maker:
    """What the runs of one training have in common. folds: whether positions in the data are folds; looks: whether
    anything uses evaluations. every: epochs or steps, by these names, between two evaluations that decide nothing; for
    all kinds alike if networks join later, else None. longest: epochs or steps of the networks made last."""

    sets: Sets
    engine: str
    where: list[torch.device]
    folds: bool = False
    looks: bool = False
    every: dict[str, int] | None = None
    notes: list[str] = field(default_factory=list)
    choices: dict[Any, Choice] = field(default_factory=dict)
    rules: dict[tuple[str, str], Any] = field(default_factory=dict)
    longest: int = 0

    def runs(self, groups: Sequence[Group], copy: bool = False) -> list[Run]:
        """A run for each group. copy: params that the caller keeps. Raises OutOfMemoryError before any is made."""
        self.longest = max(each.config.longest for each in groups)
        fitted = [self.fit(each) for each in groups]
        shapes = []
        for each, (config, _) in zip(groups, fitted):
            params = each.population.params
            recipe = config.recipe(each.population.spec)
            shapes.append((each.population.spec, recipe, len(params), params.element_size()))
        memory.check(shapes, HOME)
        with memory.explained(shapes, self.where[0]):
            runs = [self.run(each, *of_it, copy) for each, of_it in zip(groups, fitted)]
        if self.every is None:  # no other networks join later
            self.notes += remarks(runs) + repeated(groups)
        return runs

    def fit(self, group: Group) -> tuple[TrainConfig, Choice]:
        """The group's configuration, fitted to the data, and its engine. Raises ConfigError, DataError, EngineError."""
        population, config = group.population, group.config
        self.tell_apart(population.spec, config)
        for each in self.sets.each:
            checks.check(each, population.spec, each.networks or 0)  # groups() has checked the positions
        looks = self.looks or config.decides or config.evaluate_every is not None
        every = config.interval if looks else config.longest
        if self.every is not None and not config.decides and config.evaluate_every is None:
            every = self.interval(group) if self.looks else max(self.longest, config.longest)
            every = self.every.setdefault("epochs" if config.steps is None else "steps", every)
        if config.monitor == METRIC and self.sets.validation is None:
            raise ConfigError("monitor='metric' needs validation data, and there are none: --validation 0.2, or folds")
        config = replace(config, evaluate_every=every)
        fitted, told = config.fitted(population.spec, self.sets.data, group.position)
        self.notes += [note for note in told if note not in self.notes]
        if self.every is not None:
            fitted = spread(fitted, population.count)
        dtype, count = population.params.dtype, population.count
        key = population.spec, fitted.recipe(population.spec), dtype
        if key not in self.choices:
            chosen = choose_for_all(self.engine, population.spec, fitted, self.where, dtype, self.sets.data, count)
            self.choices[key] = chosen
        return fitted, self.choices[key]

    def tell_apart(self, spec: NetworkSpec, config: TrainConfig) -> None:
        """Raise ConfigError for different custom rules of one name: rules are saved and compared by name."""
        for kind, name in named_rules(spec, config):
            if self.rules.setdefault((kind, str(name)), name) != name:
                raise ConfigError(f"two rules for {kind} have the name {name!r}: rename the function of one")

    def interval(self, group: Group) -> int:
        """Epochs or steps between two rounds in which networks may leave and join: a hundredth of the longest training,
        or more, up to an eighth, if rounds would be too short to pay for what happens between them."""
        config, spec, longest = group.config, group.population.spec, group.config.longest
        samples = config.batch_size if config.epochs is None else self.sets.data.lengths[0]
        work = 6 * spec.size * samples * group.population.count
        return max(config.interval, min(-(-ROUND // work), -(-longest // 8)))

    def run(self, group: Group, config: TrainConfig, choice: Choice, copy: bool) -> Run:
        """The run of a group."""
        given = group.population
        params = given.params.to(HOME, copy=copy).contiguous()
        own = replace(given, params=params, ids=given.ids.to(HOME, copy=True))
        state = TrainState.start(own, config, self.sets.data, group.position.clone())
        if group.before is not None:
            state.remember(group.before)
        for dataset in self.sets.each:
            state.check(dataset)
        return Run(state, config, self.sets, choice, self.where, group.rows, folds=self.folds)


def named_rules(spec: NetworkSpec, config: TrainConfig) -> Iterator[tuple[str, str]]:
    """The kinds (the keys of TABLES) and names of the networks' rules."""
    yield from (("hidden", each) for each in spec.activations)
    yield from (("loss", spec.loss), ("optimizer", config.optimizer), ("schedule", config.schedule))


def remarks(runs: Sequence[Run]) -> list[str]:
    """Notes on settings that have no effect, or not the one they seem to have."""
    return [
        *idle([run.config for run in runs]),
        *beyond(runs),
        *lacking(runs),
        *(confounded(runs) if runs[0].folds else []),
    ]


def idle(configs: Sequence[TrainConfig]) -> list[str]:
    """Notes on settings that stop or restore networks, or reduce a learning rate, if every network's training ends too
    early for them to act."""
    found = []
    for name, does in (
        ("patience", "patience never stops a network early"),
        ("target_loss", "target_loss never stops a network early"),
        ("restore_best", "restore_best never restores a network"),
        ("plateau_patience", "schedule plateau never reduces a learning rate"),
    ):
        asked = {each: value for each in configs if (value := _asked(each, name)) is not None and value is not False}
        least = {each: float(torch.as_tensor(value).min()) for each, value in asked.items()}
        some = [each for each in least if least[each] < math.inf]  # infinite patience means never to stop
        needed = {each: _evaluations(name, least[each]) for each in some}
        late = (needed[each] * each.interval >= each.longest + (name == "restore_best") for each in some)
        if some and all(late):
            one = some[0]
            unit, times = "epoch" if one.steps is None else "step", needed[one]
            found.append(
                f"{does}: it takes {counted(times, 'evaluation')}, one every {counted(one.interval, unit)}, and the "
                f"training has {one.longest:,}: evaluate_every says how often"
            )
    return found


def _evaluations(name: str, least: float) -> int:
    """The evaluations before it can happen; the last must come before the end, but for restore_best may be the end."""
    if name == "patience":
        return 1 + math.ceil(least)
    return 2 + math.floor(least) if name == "plateau_patience" else 1


def _asked(config: TrainConfig, name: str) -> Any:
    """The value of a setting, or the default of schedule plateau's."""
    value = getattr(config, name)
    return value if value is not None else config.timetable.defaults.get(name)


def beyond(runs: Sequence[Run]) -> list[str]:
    """Notes on a warm-up that no network's training completes, and a reduction of the learning rate that none
    reaches."""
    found = []
    for name, does in (("warmup", "warmup never ends"), ("step_size", "schedule step never reduces a learning rate")):
        some = [
            (sum((run.state.hyper[each][:, 0] for each in {name, "warmup"} & {*run.state.hyper}), torch.zeros(1)),
             run.state.end)
            for run in runs if name in run.state.hyper
        ]  # fmt: skip
        if some and not any(bool((takes.ceil() < end).any()) for takes, end in some):
            takes, end = (float(each[0]) for each in some[0])
            found.append(f"{does}: it takes {takes:,.0f} steps, and the training has {end:,.0f}")
            break  # nothing follows a warm-up that never ends
    return found


def lacking(runs: Sequence[Run]) -> list[str]:
    """Notes, if no network with dropout has a hidden layer, or none with a warm-up start has a warm-up."""
    found = []
    hyper = [{name for name, each in run.state.hyper.items() if each.any()} for run in runs]  # that are not off
    some = [run.state.population.spec for run, names in zip(runs, hyper) if "dropout" in names]
    if some and all(len(each.widths) == 2 for each in some):
        found.append("dropout does nothing: it is of hidden layers, and there are none")
    starts = [names for run, names in zip(runs, hyper) if run.config.warmup_start is not None]
    if starts and not any("warmup" in each for each in starts):
        found.append("warmup_start does nothing: there is no warmup")
    return found


def repeated(groups: Sequence[Group]) -> list[str]:
    """A note, if networks that train on see their samples in the same order as in the earlier training."""
    return [
        f"samples and dropout are as in the training before, whose seed was {each.population.seed} too: "
        "dataclasses.replace(population, seed=...) goes on with others"
        for each in groups
        if each.before is not None
        and each.before.population.seed == each.population.seed
        and each.config.shuffle != "none"
    ]


def told_apart(run: Run) -> torch.Tensor:
    """(N, K): what tells networks of different settings apart: the length, and hyper-parameters except balanced class
    weights, which differ between the folds of a setting."""
    config, state = run.config, run.state
    length = torch.as_tensor(config.steps if config.epochs is None else config.epochs, dtype=torch.float64)
    columns, weight = dict(state.hyper), state.hyper.get("class_weight")
    if weight is not None and are_balanced(weight, state.population.spec, run.sets.data, state.position):
        del columns["class_weight"]
    return torch.cat([*columns.values(), length.expand(len(run.rows))[:, None]], 1)


def confounded(runs: Sequence[Run]) -> list[str]:
    """A note, if some settings train on fewer folds than there are."""
    folds = len(torch.cat([run.state.position for run in runs]).unique())
    each = []  # each setting's number of folds
    for run in runs:
        position, setting = run.state.position, told_apart(run).unique(dim=0, return_inverse=True)[1]
        each.append(torch.stack([setting, position], 1).unique(dim=0)[:, 0].bincount())
    many = torch.cat(each)
    if len(many) == 1 or bool((many == folds).all()):
        return []
    return [
        f"{int((many < folds).sum()):,} of {len(many):,} settings train on some of the {folds} folds alone: figures of "
        "different folds do not compare settings; a row for each setting and fold, with a column fold, does"
    ]
