"""Result: what training returns; kept(), which adds a Result to later errors."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor, nn

from .. import stopping
from ..errors import ConfigError
from ..evaluate import Evaluation
from ..line import counted, line
from ..networks import Outcome
from ..population import Population
from ..populations import Populations, members
from ..raw.preparation import Preparation
from ..settings.recipe import LOSS, METRIC
from ..state import NAMES, Status, TrainState, counts
from ..system.ambient import neutral
from .ensemble import Ensemble
from .ranking import entities, keys_of, order_of, ranked_by, ranking_columns


class Results(Protocol):
    """The table of results (table.py)."""

    @property
    def whole(self) -> pa.Table:
        """All rows."""

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Of all rows, those of the columns `names` that exist."""

    def pieces(self) -> Iterator[pa.Table]:
        """The rows, some at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What training returns.

    population: the trained networks, each at its last finite step, or with restore_best at its best evaluation, on the
    device of the given population. Networks of train_many() that differ in more than numbers are several populations:
    populations.each, and populations.rows, their rows in the table and in everything else with N numbers. outcomes: of
    each population, the end of its training and its figures. table: a row per network (pyarrow); results: the same,
    also in pieces. In a run of more networks than slots, outcomes of networks that have left are views of files, and a
    tensor (N,) is made only when used; a cluster run's rows are read when used. history: a record per evaluation (see
    train()). notes: for the user, such as that memory ran out. interrupted: the signal that ended the run early, or
    None. unsaved: why the last checkpoint or the results could not be written to run_dir, or None. silenced: reporters
    that failed to write, and why. waiting: rows of the design that have not become networks yet, if the run ended
    early; None of a stream. search: the search that decided which networks continue, in its final state (search/);
    population based training's has the lineage. preparation: of the data's raw columns, for Model.of(). seconds: of
    training, evaluation and saving; step_seconds: of steps alone. network_steps: the number taken.
    """

    populations: Populations
    outcomes: Sequence[Outcome]
    results: Results
    history: list[dict[str, Any]]
    notes: list[str]
    engine: str
    engine_reason: str
    seconds: float
    step_seconds: float
    network_steps: int
    run_dir: Path | None
    interrupted: int | None
    unsaved: str | None
    silenced: list[str]
    search: Any = None
    waiting: int | None = 0
    preparation: Preparation | None = None

    @cached_property
    def loss(self) -> Tensor:
        """(N,): over each network's training samples at its end."""
        return self.populations.in_order([each.training.loss for each in self.outcomes])

    @cached_property
    def metric(self) -> Tensor:
        """(N,): accuracy or R2, likewise."""
        return self.populations.in_order([each.training.metric for each in self.outcomes])

    @cached_property
    def validation_loss(self) -> Tensor | None:
        """(N,): over the validation data, or None."""
        found = self._validation
        return self.populations.in_order([each.loss for each in found]) if found else None

    @cached_property
    def validation_metric(self) -> Tensor | None:
        """(N,): likewise."""
        found = self._validation
        return self.populations.in_order([each.metric for each in found]) if found else None

    @cached_property
    def best_loss(self) -> Tensor | None:
        """(N,): the loss of the best evaluation, NaN where there is none; None if no setting needs it."""
        return self._at_best(LOSS)

    @cached_property
    def best_metric(self) -> Tensor | None:
        """(N,): its metric, likewise; None if no setting goes by it."""
        return self._at_best(METRIC)

    def _at_best(self, figure: str) -> Tensor | None:
        best = [stopping.best(state) if state.recipe.tracks else {} for state in self.states]
        if not any(figure in each for each in best):
            return None
        blank = (torch.full((state.population.count,), float("nan"), dtype=torch.float64) for state in self.states)
        found = [each.get(figure, none) for each, none in zip(best, blank)]
        return self.populations.in_order([torch.where(each.isfinite(), each, float("nan")) for each in found])

    @property
    def _validation(self) -> list[Evaluation]:
        return [each.validation for each in self.outcomes if each.validation is not None]

    @property
    def states(self) -> tuple[TrainState, ...]:
        """Each population's state at the end of its training."""
        return tuple(each.state for each in self.outcomes)

    @property
    def table(self) -> pa.Table:
        """A row per network."""
        return self.results.whole

    @property
    def population(self) -> Population:
        """The trained networks, if one population holds them all; raises ConfigError if there are several."""
        return self.populations.only

    @property
    def state(self) -> TrainState:
        """Their state at the end of training, likewise."""
        first, *others = self.states
        if self.populations.only is self.populations.each[0]:
            return first
        return first.concatenate(*others).rows(self.populations.order)

    def network(self, row: int) -> nn.Sequential:
        """The network in this row of the table as torch.nn.Sequential, with copies of its weights."""
        return self.populations.network(row)

    @neutral()
    def ensemble(self, best: int | None = None, rows: Sequence[int] | Tensor | None = None) -> Ensemble:
        """The `best` networks together, or those in `rows`, by numbers or a mask; by default all that did not diverge.
        It takes inputs (M, I) as the networks see them; Model.of(result).ensemble() takes raw samples. Raises
        ConfigError for rows of diverged networks, and of different entities."""
        found = members(best, rows, self.populations.count, self.ranking, self.status == Status.diverged)
        keys = keys_of(next(self.results.pieces()))
        if keys and len(of := entities(self.results.columns(keys).take(found.numpy()))) > 1:
            raise ConfigError(
                f"ensemble: networks of {len(of):,} entities, such as {of[0]} and {of[1]}; those of one entity, by "
                "their rows, expected"
            )
        return Ensemble(self.populations, found)

    @neutral()
    def ranking(self) -> Tensor:
        """Rows of the networks that did not diverge, best first, by the column ranked_by() of the table."""
        return order_of(self._ranked)

    @property
    def _ranked(self) -> pa.Table:
        return self.results.columns(ranking_columns(each.spec.loss for each in self.populations.each))

    @property
    def status(self) -> Tensor:
        """(N,) int8: the Status of each network."""
        return self.populations.in_order([each.status for each in self.states])

    @property
    def status_names(self) -> list[str]:
        """The same by name: one text per network."""
        return [NAMES[number] for number in self.status.tolist()]

    @property
    def statuses(self) -> dict[str, int]:
        """How many networks have each status, by name."""
        return counts(self.status)

    @property
    def fates(self) -> str:
        """The number of networks per status, and of rows that wait, as text."""
        numbers = self.statuses | {"waiting": self.waiting}
        return ", ".join(f"{count:,} {name}" for name, count in numbers.items() if count)

    @property
    def stopped_by(self) -> str | None:
        """The name of the signal that ended the run early."""
        return None if self.interrupted is None else signal.Signals(self.interrupted).name

    def __repr__(self) -> str:
        rows, best = self._ranked, ""
        name, good = ranked_by(rows), order_of(rows)
        if len(good):
            row = int(good[0])
            best = f"; best {name.replace('_', ' ')} {rows[name][row].as_py():.4g} (network {row})"
        early = "" if self.interrupted is None else f"; stopped by {self.stopped_by}"
        where = "" if self.run_dir is None else f"; {self.run_dir}"
        many = counted(self.populations.count, "network")
        return line(f"Result({many}: {self.fates}{best}; engine {self.engine}{early}{where})")


@contextmanager
def kept(result: Result, early: bool = False, more: str | None = None) -> Iterator[None]:
    """Exceptions raised inside carry the result as `result`. early: the training has not come to its end. more: how to
    continue, by default with resume()."""
    try:
        yield
    except BaseException as error:
        if not hasattr(error, "result"):
            early |= result.interrupted is not None
            resumed = f"continue with gpubp.resume({str(result.run_dir)!r}, ...)" if result.run_dir else ""
            then = f"; {more or resumed}" if early and (more or resumed) else ""
            how = "ended early" if early else "has ended"
            error.add_note(f"the training {how}; this exception's `result` has the outcome{then}")
            error.result = result  # type: ignore[attr-defined]
        raise
