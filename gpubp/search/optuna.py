"""A study of Optuna in batches: its sampler suggests many trials at once, which train as one design.

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    space = {"lr": "1e-4..1e-1:log", "optimizer": ["adam", "sgd"], "widths": ["64,16,10", "64,32,32,10"]}
    optimize(study, space, data, validation, n_trials=200, batch=50, loss="cross_entropy", epochs=20)
    study.best_params

A study that minimises receives losses; one that maximises, the metric of the validation data. Every evaluation is
reported, at its epoch or step, and the study's pruner stops networks. As in Study.optimize, these end as pruned, and
networks that diverge as failed. A sampler sees only the outcome of earlier batches: TPESampler(constant_liar=True)
spreads the trials of a batch. `pip install gpubp[optuna]`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, check_kind
from ..evaluate import Round
from ..results.result import Result
from ..runs.run import Run
from ..runs.training import train_many
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..state import Status
from ..system import arrays
from .method import Method, asked, in_order
from .sampling import Range, parse

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.study import StudyDirection
    from optuna.trial import Trial, TrialState
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(f"gpubp.search.optuna needs Optuna: pip install gpubp[optuna] ({missing})") from None


def optimize(
    study: optuna.Study,
    space: Mapping[str, Any],
    data: Dataset,
    validation: Dataset | None = None,
    n_trials: int = 100,
    batch: int = 50,
    row: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
    **common: Any,
) -> list[Result]:
    """Run `n_trials` trials of `study`, up to `batch` at once. -> the results, one per batch; a trial's user attributes
    `batch` and `network` say where its network is in them. A study that minimises receives losses, one that maximises
    accuracy or R2, of the validation data; at every evaluation its pruner, by default MedianPruner, may stop networks.

    space: by name a range as text, "1e-4..1e-1:log" or "1..8:int", a list of choices, or a distribution of Optuna. row:
    turns a trial's parameters into the network's row of a design, by default unchanged; its `seed` is the trial's
    number. common: settings of all networks, and arguments of train_many() except run_dir and search: a study has its
    own storage. A sampler that has tried everything, such as GridSampler, ends the study after its batch. Raises
    ConfigError, and what train_many() raises; unfinished trials then fail."""
    check_kind("space", space, Mapping)
    for name in ("run_dir", "search"):
        if name in common:
            raise ConfigError(f"optimize: {name} is not for studies, which have a storage and a pruner")
    if len(study.directions) > 1:
        raise ConfigError(f"optimize: a study of {len(study.directions)} values; one, a loss or a metric, expected")
    maximise = study.direction == StudyDirection.MAXIMIZE
    if maximise and validation is None:
        raise ConfigError("optimize: a study that maximises is told metrics of validation data, and there are none")
    left, size, results = arrays.count("n_trials", n_trials), arrays.count("batch", batch), list[Result]()
    distributions = {name: _distribution(name, each) for name, each in space.items()}
    while left:
        trials = [study.ask(distributions) for _ in range(min(left, size))]
        try:
            search = Reports(trials, maximise)
            design = [{"seed": trial.number, **row(trial.params)} for trial in trials]
            result = train_many(design, data, validation, search=search, **common)
            for number, trial in enumerate(trials):
                trial.set_user_attr("batch", len(results))
                trial.set_user_attr("network", number)
            goes_on = _tell(study, trials, result, search.pruned, maximise)
        finally:
            for trial in trials:
                _told(study, trial, state=TrialState.FAIL, skip_if_finished=True)
        results.append(result)
        left = left - len(trials) if goes_on else 0
    return results


class Reports(Method):
    """Reports evaluations to trials, which are in the order of the networks, and stops what their pruner prunes."""

    name = "optuna"

    def __init__(self, trials: Sequence[Trial], maximise: bool) -> None:
        self.trials, self.maximise, self.pruned = trials, maximise, set[int]()

    def interval(self, configs: Sequence[TrainConfig]) -> int:
        """The interval that the longest network has without a study."""
        return asked(self.name, configs) or max(each.interval for each in configs)

    def begin(self, runs: Sequence[Run]) -> list[str]:
        """Look up how long the training of each network is."""
        lengths = (run.config.steps if run.config.epochs is None else run.config.epochs for run in runs)
        each = (torch.as_tensor(length).expand(len(run.rows)) for run, length in zip(runs, lengths))
        self.ends = in_order(runs, each).tolist()
        return []

    def decide(self, number: int, runs: Sequence[Run], found: Sequence[Round]) -> None:
        """Report the networks that trained in this round; stop those to be pruned."""
        losses = [each.loss if each.held_out is None else each.held_out.loss for each in found]
        metrics = [each.held_out.metric for each in found if each.held_out is not None]
        values = in_order(runs, metrics if self.maximise else losses).tolist()
        status, interval = in_order(runs, [each.status for each in found]), runs[0].config.interval
        trained = ~in_order(runs, [each.loss for each in found]).isnan()  # NaN if it diverged
        for row in trained.nonzero().squeeze(1).tolist():
            self.trials[row].report(values[row], min(number * interval, self.ends[row]))
            if status[row] == Status.running and self.trials[row].should_prune():
                self.pruned.add(row)
        stops = torch.zeros(len(self.trials), dtype=torch.bool)
        stops[list(self.pruned)] = True
        for run in runs:
            run.stop(stops[run.rows])


def _tell(study: optuna.Study, trials: Sequence[Trial], result: Result, pruned: set[int], maximise: bool) -> bool:
    """Tell the outcome of each trial. -> whether the sampler continues."""
    held_out: Sequence[Tensor | None] = result.validation_loss, result.validation_metric
    loss, metric = (own if own is not None else whole for own, whole in zip(held_out, (result.loss, result.metric)))
    values, goes_on = (metric if maximise else loss).tolist(), True
    for number, (trial, value, status) in enumerate(zip(trials, values, result.status_names)):
        if number in pruned:
            goes_on &= _told(study, trial, state=TrialState.PRUNED)
        elif status == Status.diverged.name or math.isnan(value):
            goes_on &= _told(study, trial, state=TrialState.FAIL)
        else:
            goes_on &= _told(study, trial, value)
    return goes_on


def _told(study: optuna.Study, trial: Trial, value: float | None = None, **how: Any) -> bool:
    """Tell the outcome of a trial. -> whether the sampler continues: to end, it calls Study.stop, which raises outside
    Study.optimize; the outcome is stored all the same."""
    try:
        study.tell(trial, value, **how)
    except RuntimeError as error:
        if "`Study.stop`" not in str(error):
            raise
        return False
    return True


def _distribution(name: str, given: Any) -> BaseDistribution:
    """The distribution of a parameter; raises ConfigError."""
    if isinstance(given, BaseDistribution):
        return given
    if isinstance(given, list) and given:  # topologies as text: storages keep no tuples
        return CategoricalDistribution(
            [",".join(map(str, each)) if isinstance(each, tuple) else each for each in given]
        )
    space = parse(name, given) if isinstance(given, str) else None
    if not isinstance(space, Range):
        raise ConfigError(f"space: {name} {given!r}: a range LOW..HIGH, a list, or a distribution of Optuna expected")
    if space.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)
