"""Jobs: fits of estimators as data, and train(), which trains the networks of many jobs in one run per kind.

A network's bits depend on its own row and samples alone (README, "What is promised"), so a job's networks are the same
as when it trains alone with the same engine. Refused: what gpubp.train_many refuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ..errors import GpubpError
from ..evaluate import metric_name
from ..maths.spec import NetworkSpec
from ..population import Population
from ..populations import Populations
from ..reporters import Reporter
from ..results.ranking import order_of
from ..results.result import Result
from ..results.table import Results
from ..runs import training
from ..runs.cells import EXTRA
from ..runs.design import SPEC, TRAINING, Design, Group
from ..samples.data import Dataset
from ..settings.config import TrainConfig
from ..state import TrainState
from ..system.ambient import neutral
from ..system.threads import one_thread


@dataclass(frozen=True, eq=False)
class Table:
    """Samples as networks see them: inputs (M, I), targets (M,) or (M, O), weight (M,) float64 or None."""

    inputs: Tensor
    targets: Tensor
    weight: Tensor | None


@dataclass(frozen=True, eq=False)
class Samples:
    """The rows of a table to train on, and those for early stopping, if any. fitted: the estimator's attributes that
    the encoding decides, such as n_outputs_."""

    table: Table
    rows: Tensor
    held_out: Tensor | None
    fitted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What samples that train in one run have in common."""
        inputs, targets = self.table.inputs, self.table.targets
        outputs = self.fitted["n_outputs_"]
        return inputs.shape[1], targets.shape[1:], targets.dtype, outputs, self.held_out is None


class Trained(NamedTuple):
    """The networks of a job. loss, status (N,): of each at its end, on the early-stopping samples, or else on those to
    train on. best: the rows of those that did not diverge, best first. epochs (N,): of each. history: the run's
    records; seconds: the job's share of the run's time. states: with their rows, if the job trained alone. results: the
    table. rows: as in Job."""

    populations: Populations
    loss: Tensor
    status: Tensor
    best: Tensor
    epochs: Tensor
    history: list[dict[str, Any]]
    seconds: float
    states: Sequence[tuple[Tensor, TrainState]]
    results: pa.Table
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Job:
    """rows: of a design, one per network, with its `seed`. start: networks to continue with, in the order of `rows`;
    states: at the end of their training, to keep the memory of their optimizers; seed: of a continued training, so that
    the samples come in another order."""

    samples: Samples
    rows: Sequence[Mapping[str, Any]]
    dtype: torch.dtype = torch.float32
    engine: str = "auto"
    device: str = "cpu"
    reporters: Sequence[Reporter] = ()
    start: Populations | None = None
    states: Sequence[tuple[Tensor, TrainState]] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for row in dict.fromkeys(frozenset(row.items()) for row in self.rows):  # refused here, before any job trains
            given = dict(row)
            spec = NetworkSpec(**specified(given))
            extra = {name.removeprefix(EXTRA): value for name, value in row if name.startswith(EXTRA)}
            TrainConfig(**{name: given[name] for name in TRAINING if name in given}, extra=extra).recipe(spec)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What jobs of one run have in common."""
        losses = tuple(sorted({str(row["loss"]) for row in self.rows}))
        weighted = self.samples.table.weight is not None or any(self.spare(row) for row in self.rows)
        return *self.samples.kind, losses, weighted, self.dtype, self.engine, self.device

    def spare(self, row: Mapping[str, Any]) -> int:
        """How many samples the last minibatch of an epoch lacks. As many samples of weight 0 join the rows: every epoch
        is then one pass, with the loss of all samples."""
        return -len(self.samples.rows) % int(row["batch_size"])


def specified(row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a row that specifies its network."""
    return {name: row[name] for name in SPEC if name in row}


@neutral()
def train(jobs: Sequence[Job]) -> list[Trained | GpubpError]:
    """The trained networks of each job, in their order, or why they cannot be trained."""
    kinds: dict[Any, list[int]] = {}
    for number, job in enumerate(jobs):
        kinds.setdefault(job.kind if job.start is None else number, []).append(number)
    found: dict[int, Trained | GpubpError] = {}
    for numbers in kinds.values():
        some = [jobs[number] for number in numbers]
        found |= zip(numbers, _apart(some))
    return [found[number] for number in range(len(jobs))]


def _apart(jobs: Sequence[Job]) -> list[Trained | GpubpError]:
    """Jobs of one kind in one run, or, if some are refused, in as few as leave those out: an error does not name its
    job."""
    try:
        return [*_together(jobs)] if jobs[0].start is None else [_continued(jobs[0])]
    except GpubpError as error:
        if len(jobs) == 1:
            return [error]
    half = len(jobs) // 2
    return _apart(jobs[:half]) + _apart(jobs[half:])


def _together(jobs: Sequence[Job]) -> list[Trained]:
    """Jobs of one kind in one run."""
    first, (data, validation, places) = jobs[0], _datasets(jobs)
    rows = [{**row, "fold": place} for row, place in zip((row for job in jobs for row in job.rows), places)]
    result = training.train_many(
        rows, data, validation, dtype=first.dtype, engine=first.engine, reporters=first.reporters, device=first.device
    )
    return _parts(result, jobs)


def _datasets(jobs: Sequence[Job]) -> tuple[Dataset, Dataset | None, list[int]]:
    """The samples to train on and for early stopping, and the position of each network's samples in them."""
    tables = list({id(job.samples.table): job.samples.table for job in jobs}.values())
    sizes = torch.tensor([0, *(len(table.inputs) for table in tables)])
    begins = dict(zip(map(id, tables), sizes.cumsum(0).tolist()))
    spares = [(job.samples, job.spare(row)) for job in jobs for row in job.rows]
    each = {(id(samples), spare): (samples, spare) for samples, spare in spares}
    places = {key: number for number, key in enumerate(each)}
    inputs, targets = ([getattr(table, name) for table in tables] for name in ("inputs", "targets"))
    weights, rows, absent = None, [], int(sizes.sum())
    for samples, spare in each.values():
        mine = samples.rows + begins[id(samples.table)]
        rows.append(torch.cat([mine, torch.full((spare,), absent)]))
    if any(spare for _, spare in spares) or tables[0].weight is not None:
        inputs, targets = [*inputs, inputs[0][:1]], [*targets, targets[0][:1]]
        given = [torch.ones(len(table.inputs)).double() if table.weight is None else table.weight for table in tables]
        weights = torch.cat([*given, torch.zeros(1).double()])
    whole = torch.cat(inputs), torch.cat(targets)
    at = [places[id(samples), spare] for samples, spare in spares]
    data = Dataset(*whole, rows, weights)
    if jobs[0].samples.held_out is None:
        return data, None, at
    held_out = [samples.held_out + begins[id(samples.table)] for samples, _ in each.values()]
    return data, Dataset(*whole, held_out, weights), at


@one_thread()
def _parts(result: Result, jobs: Sequence[Job]) -> list[Trained]:
    """The result of each job."""
    loss = result.loss if result.validation_loss is None else result.validation_loss
    steps = result.populations.in_order([state.step for state in result.states])
    found, begin = [], 0
    for job in jobs:
        count, samples = len(job.rows), len(job.samples.rows)
        at = slice(begin, begin + count)
        populations = result.populations.take(torch.arange(begin, begin + count))
        batches = torch.tensor([-(-samples // int(row["batch_size"])) for row in job.rows])
        epochs = (steps[at] // batches).clamp(min=1)
        share = result.seconds * count / result.populations.count
        table, history = result.table.slice(begin, count), list(result.history)
        states = list(zip(result.populations.rows, result.states)) if len(jobs) == 1 else []
        outcome = loss[at], result.status[at], order_of(table), epochs, history, share, states, table, job.rows
        found.append(Trained(populations, *outcome))
        begin += count
    return found


def _continued(job: Job) -> Trained:
    """The networks of job.start after more training, population by population."""
    assert job.start is not None
    data, validation, places = _datasets([job])
    rows = [{**row, "fold": place} for row, place in zip(job.rows, places)]
    groups = [each.made() for each in Design.of(rows).planned(0, job.dtype, data.networks)]
    results = [
        training.train(
            replace(_gathered(job.start, group.rows).to(dtype=job.dtype), spec=group.spec, seed=job.seed),
            data.alone(group.position), group.config,
            None if validation is None else validation.alone(group.position), job.engine, job.reporters,
            device=job.device, optimizer_state=_before(job, group),
        )
        for group in groups
    ]  # fmt: skip
    populations = Populations(tuple(each.population for each in results), tuple(group.rows for group in groups))
    outcomes = [each.outcomes[0]._replace(rows=group.rows) for each, group in zip(results, groups)]
    merged = replace(
        results[0],
        populations=populations,
        outcomes=outcomes,
        results=Results(outcomes, metric_name(groups[0].spec)),
        seconds=sum(each.seconds for each in results),
    )
    return _parts(merged, [job])[0]


def _before(job: Job, group: Group) -> TrainState | None:
    """The state of these very networks after an earlier training with this optimizer, if the job has it."""
    wanted = group.spec, group.config.optimizer
    for rows, state in job.states:
        if torch.equal(rows, group.rows) and (state.population.spec, state.recipe.optimizer) == wanted:
            return state
    return None


def _gathered(every: Populations, rows: Tensor) -> Population:
    """The networks in `rows` (K,) of one specification, as one population."""
    parts = list(every.parts(rows))
    order = torch.cat([part.place for part in parts]).argsort()
    params = torch.cat([part.population.params[part.local] for part in parts])[order]
    ids = torch.cat([part.population.ids[part.local] for part in parts])[order]
    return replace(parts[0].population, params=params, ids=ids)
