"""Run: one population in training, round by round, with its evaluations and their decisions.

Evaluations depend only on the configuration and define rounds: in a round every network trains to the step of its next
evaluation. Cutting a call of the engine short changes no bit, so the length of calls may depend on the clock. Within a
round no network's clock is read: the run estimates (pace.py). Signals and files are in loop.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import stopping
from ..backprop import gradients
from ..checkpoints.curves import Losses
from ..checkpoints.history import History
from ..checkpoints.packing import Saved
from ..engines import Choice
from ..evaluate import Evaluation, Round, metric_name
from ..explaining.faults import first_faults
from ..maths.losses import LOSSES
from ..maths.schedules import scheduled
from ..maths.spec import NetworkSpec
from ..networks import Figures, Networks
from ..placing.placement import placed
from ..reporters import Start
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..settings.ranges import LONGEST
from ..settings.recipe import Recipe
from ..state import DIVERGED, FINISHED, RUNNING, Status, TrainState
from ..system.arrays import Array
from ..system.threads import one_thread, threads
from .pace import Pace, slowest

CALL = 0.25  # intended seconds of a call of the engine
MOST = 1 << 16  # steps of one call at most
EAGER = 1 << 10  # likewise of engine eager, which holds a block's order of samples for the whole call
TABLE = 1 << 22  # samples of one call at most, if all networks share an order, which is a table


@dataclass(eq=False)
class Sets:
    """The samples of one or several runs: to train on, and to evaluate on."""

    data: Dataset
    validation: Dataset | None = None

    @property
    def each(self) -> list[Dataset]:
        """All of them, those to train on first."""
        return [each for each in (self.data, self.validation) if each is not None]

    @cached_property
    def fingerprints(self) -> dict[str, str | None]:
        """Their digests, computed once for all checkpoints."""
        given = {"data": self.data, "validation": self.validation}
        return {name: None if each is None else each.fingerprint() for name, each in given.items()}


@dataclass(eq=False)
class Run:
    """number: of the present round, from 1; 0 before the first. open: whether that round has begun and not been
    evaluated. rows (N,): the networks' rows in the results. folds: whether positions in the data are folds. held_out:
    the evaluation of the present networks on the validation data, if known. share, stream: see side_by_side.py.
    sides: the start and end (N,) of the present round, if it has begun here."""

    state: TrainState
    config: TrainConfig
    sets: Sets
    choice: Choice
    where: list[torch.device]
    rows: Tensor
    number: int = 0
    open: bool = False
    folds: bool = False
    held_out: Evaluation | None = None
    share: int = 0
    stream: int | None = None
    sides: tuple[Array, Array] | None = None

    def __post_init__(self) -> None:
        # which networks are evaluated at the end of the present round; see lengthened()
        self.due = self.state.running & self.open & ~self.state.total.isnan()

    def threads(self) -> AbstractContextManager[None]:
        """A context in which torch has the run's share of threads."""
        return threads(self.share) if self.share and self.where[0].type == "cpu" else nullcontext()

    def compile_ahead(self) -> None:
        """Compile the kernels that the run needs."""
        for device in self.where:
            self.choice.engine.compile_ahead(self.state, self.sets.data, self.sets.each, device)

    def begin(self) -> None:
        """Move networks and data to their devices."""
        self.place = placed(self.state, self.sets.each, self.choice, self.where, self.stream)
        longest = EAGER if self.choice.name == "eager" else max(EAGER, TABLE // self.config.batch_size)
        self.place.begin()
        self.pace = Pace(CALL, min(MOST, longest), slowest(self.state.population, self.config.batch_size))
        self.pace.look(self.state)
        self.ran = self.pace.running  # networks that trained when this call began

    @cached_property
    def metric_name(self) -> str:
        """The name of the evaluations' metric."""
        return metric_name(self.state.population.spec)

    def round(self, step: Array) -> tuple[Array, Array]:
        """(N,) each: the start and end of the round that holds the step after `step` (N,)."""
        return self.config.rounds.of(step, self.sets.data.size(self.state.position).numpy())

    def train_to(self, step: Array) -> None:
        """Let each network train to `step` (N,), or to its end."""
        np.minimum(step, self.state.end.numpy(), out=self.state.limit.numpy())

    def lengthened(self) -> None:
        """Continue the present round, whose end may have moved as the training is longer now."""
        state = self.state
        if self.number:
            end = self.round(torch.where(self.due, state.limit, state.step).numpy() - 1)[1]
            self.train_to(np.where(state.running.numpy(), end, state.limit.numpy()))
            self.due |= state.left > 0
            self.open |= bool(self.due.any())
            state.total[state.running & ~self.due] = math.nan  # marks them as evaluated, for checkpoints

    def next_round(self, most: int = LONGEST) -> bool:
        """Start the next round; if evaluations decide nothing, a part of one, of up to `most` steps. False if every
        network has ended."""
        if not self.pace.running:
            return False
        self.number, self.open = self.number + 1, True
        state, step, status = self.state, self.state.step.numpy(), self.state.status.numpy()
        self.due = state.running
        self.sides = begin, end = self.round(step)
        self.train_to(end if self.config.decides else np.minimum(end, step + most))
        anew = (step == begin) | (status != RUNNING)  # not a part of a round
        state.total.numpy()[anew & (status != FINISHED)] = 0  # a longer training may continue their totals
        self.place.begin()
        self.pace.look(state)
        return True

    def advance(self) -> list[str]:
        """One call of the engine, short enough for regular progress, but long enough to pay for its copies. -> notes
        for the user."""
        steps, self.held_out = self.pace.next(self.place.least), None
        notes = self.place.run(steps)
        self.pace.returned(steps)
        return notes

    def settle(self) -> None:
        """Wait for all calls, and bring the clocks to host memory."""
        self.place.look()
        self.pace.settled(self.state)

    def look(self) -> Round:
        """Evaluate at the end of a round, and apply the decisions; if that has happened, only report it."""
        validation = self.sets.validation
        if validation is not None and (self.open or self.held_out is None):
            self.held_out = self.place.evaluate(validation)
        with one_thread():
            found, better = self.decided()
        if self.state.kept and better.any():
            self.place.keep(torch.from_numpy(better))
        self.open = False
        return found

    def decided(self) -> tuple[Round, Array]:
        """Apply the decisions at the end of a round to the state. -> the round, and (N,) bool: the networks whose row
        is their best."""
        state, due = self.state, self.due.numpy() & self.open
        step, status = state.step.numpy(), state.status.numpy()
        first, last = self.round(step - 1) if self.sides is None else self.sides
        mean = state.total.numpy() / np.maximum(step - first, 1)
        mean[~due | (status == DIVERGED)] = math.nan
        figures = [mean] if self.held_out is None else [each.numpy() for each in self.held_out]
        better = stopping.decide(state, figures, due, step == last)
        status[due & (status == RUNNING) & (step >= state.end.numpy())] = FINISHED
        self.pace.running = int(np.count_nonzero(status == RUNNING))
        return Round(torch.from_numpy(mean), self.held_out, self.learning_rate(), state.status.clone()), better

    def losses(self, found: Round) -> Losses:
        """The points of the networks' curves at the end of a round."""
        return Losses(self.rows, self.state.step, found.loss, None if found.held_out is None else found.held_out.loss)

    def stop(self, some: Tensor) -> None:
        """End the training of the networks `some` (N,) bool that still run."""
        self.state.status[self.state.running & some] = Status.stopped
        self.pace.running = int(self.state.running.sum())

    @property
    def shape(self) -> tuple[NetworkSpec, Recipe, int, int]:
        """What its memory depends on (memory.py)."""
        population = self.state.population
        return population.spec, self.state.recipe, population.count, population.params.element_size()

    @property
    def networks(self) -> Networks:
        """The networks, to be taken elsewhere or joined with others."""
        return Networks(self.state, self.config, self.rows)

    def part(self, index: Tensor) -> Run:
        """The networks in the rows `index` (K,), as copies, in a run that has not begun."""
        state, config, rows = self.networks.take(index)
        given = self.sets, self.choice, self.where
        return Run(state, config, *given, rows, self.number, folds=self.folds, share=self.share)

    def renew(self, networks: Networks) -> None:
        """Train these instead, from the next round on. They come from gathered rows."""
        self.state, self.config, self.rows = networks
        self.due = torch.zeros_like(self.state.running)
        self.place, self.held_out = placed(self.state, self.sets.each, self.choice, self.where, self.stream), None
        self.pace.look(self.state)

    def rewrite(self, change: Callable[[TrainState], None]) -> None:
        """Bring the rows to host memory, let `change` write them in place, and place them again. Networks that have
        ended may run again."""
        self.place.gather()
        change(self.state)
        self.place, self.held_out = placed(self.state, self.sets.each, self.choice, self.where, self.stream), None
        self.pace.look(self.state)

    def learning_rate(self) -> Tensor:
        """(N,): the scheduled rate of each network's next step."""
        state = self.state
        step, end = state.step[:, None].double(), state.end[:, None].double()
        return scheduled(state.recipe.timetable, {**state.hyper, **state.memory}, step, end)[:, 0]

    def gradient_norms(self, most: int) -> Tensor:
        """(K,) float64: the norms of the gradients of up to `most` of the networks that train, evenly spaced, on the
        minibatch of their next step, without dropout and penalties."""
        _, grad = gradients(*next_minibatch(self.place.sample(most), self.sets.data))
        norms: Tensor = torch.linalg.vector_norm(grad.double(), dim=1)
        return norms

    def saved(self, at_rest: bool = False) -> Saved:
        """What a checkpoint keeps. at_rest: of a state of which all but the rows changes (see TrainState)."""
        engine = {"engine": self.choice.name, "engine_reason": self.choice.reason}
        notes = {"number": self.number, "open": self.open, "folds": self.folds, **engine, **self.sets.fingerprints}
        return Saved(self.state.at_rest() if at_rest else self.state, self.config, self.rows, notes)

    def figures(self, looks: bool = True) -> Figures:
        """Restore the best rows, if they are kept, evaluate on both datasets, and bring the rows to host memory.
        looks: False gives NaN figures without running any kernel."""
        if self.state.kept and bool((best := stopping.restored(self.state)).any()):
            self.place.exchange(best)
            self.held_out = None
        unknown = Evaluation(*self.state.total.new_full((2, self.state.population.count), math.nan))
        evaluate = self.place.evaluate if looks else lambda _: unknown
        training, validation = evaluate(self.sets.data), self.sets.validation
        if validation is not None and self.held_out is None:
            self.held_out = evaluate(validation)
        self.place.gather()
        return Figures(training, self.held_out, first_faults(self.state, self.sets.data))


def next_minibatch(
    state: TrainState, data: Dataset
) -> tuple[NetworkSpec, Tensor, Tensor, Tensor, Tensor | None, dict[str, Tensor]]:
    """The arguments of gradients() for the next step of each network, without dropout and penalties."""
    population, recipe, hyper = state.population, state.recipe, state.hyper
    clocks = population.ids, state.position, state.step
    order = data.order(population.seed, *clocks, 1, recipe.batch_size, recipe.shuffle).expand(population.count, -1)
    columns = {name: hyper[name][:, 0] for name in LOSSES[population.spec.loss].defaults if name in hyper}
    columns |= {name: hyper[name] for name in ("class_weight",) if name in hyper}
    return population.spec, population.params, *data.batch(order, state.position), columns


def together(runs: Sequence[Run]) -> bool:
    """Whether all networks that train are always evaluated at the same step."""
    rounds = {run.config.rounds for run in runs}
    sizes = torch.cat([run.sets.data.size(run.state.position) for run in runs])
    return len(rounds) == 1 and (rounds.pop().in_steps or bool((sizes == sizes[0]).all()))


def gradient_norms(runs: Sequence[Run], most: int) -> Tensor:
    """The gradient norms of up to `most` of the networks that train, evenly spaced over all runs."""
    total, before, norms = sum(run.pace.running for run in runs), 0, [torch.empty(0, dtype=torch.float64)]
    for run in runs:
        after = before + run.pace.running * min(most, total)
        if count := after // max(1, total) - before // max(1, total):
            norms.append(run.gradient_norms(count))
        before = after
    return torch.cat(norms)


def reasons(runs: Iterable[Run]) -> str:
    """Why each engine was chosen."""
    return "; ".join(dict.fromkeys(run.choice.reason for run in runs))


def start_of(
    runs: Sequence[Run], run_dir: Path | str | None, lines: Sequence[str], settings: Mapping[str, Any], history: History
) -> Start:
    """What reporters receive about `runs` before the first step here."""
    populations = [run.state.population for run in runs]
    return Start(
        networks=sum(each.count for each in populations),
        parameters=max(each.spec.size for each in populations),
        steps=sum(run.state.expected for run in runs),
        done=sum(int(run.state.step.sum()) for run in runs),
        step=max(int(run.state.step.max()) for run in runs),
        engine_reason=reasons(runs),
        run_dir=None if run_dir is None else str(run_dir),
        metric_name=runs[0].metric_name,
        lines=tuple(lines),
        settings=settings,
        history=tuple(history),
        populations=len(runs),
        clock="step" if together(runs) else "network_steps",
    )
