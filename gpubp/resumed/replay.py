"""replay(): one network of a saved run, trained again alone on the CPU and compared with the run's, bit by bit.

A network's bits depend only on its specification, hyper-parameters, seed, id and data: not on other networks, nor on
the run's device, slots, groups or interruptions. What others decided is taken from the run: that a search stopped the
network, and, in population based training, which one it copied. Initial weights, which a run does not keep, are redrawn
for this network alone, or given. Refused: a damaged checkpoint, other data, an unknown network or step.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import checkpoint
from ..checkpoints.manifests import UNSHARDED
from ..checkpoints.packing import Saved
from ..checkpoints.stored import is_row
from ..errors import CheckpointError, ConfigError
from ..evaluate import metric_name
from ..explaining.steps import Explanation, explain_steps
from ..line import counted, line
from ..networks import Outcome
from ..population import Population
from ..raw.entities import Entities
from ..raw.tables import listed
from ..results.ranking import setting_column
from ..results.saved import RESULTS, read_results
from ..results.table import of_one
from ..runs.design import INIT
from ..runs.making import ready
from ..runs.run import Sets
from ..samples.data import Dataset
from ..search import METHODS
from ..search.lineage import Lineage
from ..state import Status, TrainState
from ..system import arrays, files
from ..system.ambient import HOME, neutral
from .alone import Alone, Stretch, drawn, given, line_of, network_of, place
from .resume import check_data

MISSING = "missing"  # in place of a cell of a missing column
PARTS = {  # what is compared: the groups of TrainState.tensors() with a network's outcome
    "row": ("params",),
    "row kept beside it": ("kept",),
    "optimizer's memory": ("slots", "columns"),
    "hyper-parameters": ("hyper",),
    "evaluations' memory": ("memory",),
    "end": ("step", "status", "diverged_step", "loss"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Replay:
    """What replay() returns.

    network, id: the row in the results, and the id. steps, status: how far the run has trained it. row (P,): its
    parameters there, as in the results: with restore_best, those of its best evaluation. parts: for each part of the
    network, the SHA-256 of the run's bytes and of the replay's. step: the one that `explanation` shows, from 1; shown:
    the row of the network that takes it, an ancestor's if the network became a copy later. notes: what was taken from
    the run unchecked. doubts: likely reasons if anything differs. before, data: the state before the step, the samples.
    """

    network: int
    id: int
    steps: int
    status: str
    row: Tensor
    parts: dict[str, tuple[str, str]]
    step: int
    shown: int
    notes: list[str]
    doubts: list[str]
    before: TrainState
    data: Dataset

    @property
    def hash(self) -> str:
        """The SHA-256 of the bytes of the replay's row."""
        return self.parts["row"][1]

    @property
    def same(self) -> bool:
        """Whether all bits are the run's."""
        return self.difference is None

    @property
    def proven(self) -> bool:
        """Whether the shown step is one of the run's, and not a continuation."""
        return self.same and self.step <= self.steps + (self.status == Status.diverged.name)

    @property
    def difference(self) -> str | None:
        """What differs, and the likely reasons; None if nothing does."""
        differ = [name for name, (run, mine) in self.parts.items() if run != mine]
        if not differ:
            return None
        return (
            f"network {self.network}, trained alone for {counted(self.steps, 'step')}, is not the run's: different are "
            f"its {', '.join(differ)}; likely {', or '.join(self.doubts)}"
        )

    def explanations(self) -> Iterator[Explanation]:
        """Explanations of the step and of those after it, without evaluations in between."""
        return explain_steps(self.before, self.data, shown=self.shown)

    @cached_property
    def explanation(self) -> Explanation:
        """The step's explanation."""
        return next(self.explanations())

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain values, without the explanation."""
        names = ("network", "id", "status", "steps", "same", "hash", "difference", "notes", "step", "proven")
        parts = {name: {"run": run, "replay": mine} for name, (run, mine) in self.parts.items()}
        return {name: getattr(self, name) for name in names} | {"parts": parts}

    def text(self) -> str:
        """The outcome as text, without the explanation."""
        alike = "the same bits as in the run" if self.same else "other bits than in the run"
        lines = [f"Network {self.network} (id {self.id}), {self.status} after {counted(self.steps, 'step')}: {alike}"]
        for name, (run, mine) in self.parts.items():
            lines.append(f"  {name:20} {mine}" + ("" if run == mine else f"; in the run {run}"))
        who = "" if self.shown == self.network else f" is network {self.shown}'s, of which this one became a copy, and"
        if self.same:
            how = "is proven" if self.proven else f"is a continuation: the run has {counted(self.steps, 'step')}"
            lines.append(f"Step {self.step:,}{who} {how}")
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        alike = "the same bits" if self.same else "other bits"
        taken = counted(self.steps, "step")
        return f"Replay(network {self.network}, {self.status} after {taken}: {alike}, {self.hash[:12]})"


@neutral()
def replay(
    run_dir: str | Path,
    network: int,
    step: int | None = None,
    *,
    data: Dataset,
    validation: Dataset | None = None,
    init: str = INIT,
    init_scale: float | Tensor | None = None,
    population: Population | None = None,
    optimizer_state: TrainState | None = None,
    design: Iterator[Any] | None = None,
) -> Replay:
    """Train the network in row `network` of a run's results alone, as far as the run has trained it, and compare all
    its bits with those of the checkpoint and the results. step: the one that the result explains, from 1, by default
    the last; a step beyond the checkpoint is a continuation. Nothing is written.

    data, validation: those of the run. A run of train_many() has its design, with init and init_scale. For a run of
    train(), give these as in Population.create(), init_scale as a number or (N,); or give `population`: the one given
    to train(), or this network alone. optimizer_state: as in train(). design: the same iterator of rows as in
    train_many(), for a run that was given one. Raises CheckpointError for a damaged checkpoint and other data,
    ShapeError for a network and ConfigError for a step that the run does not have, EngineError if this machine cannot
    train it. Different bits are not an error: see Replay.same."""
    folder, row, number = files.path("run_dir", run_dir), arrays.whole(network), arrays.whole(step)
    if row is None or (step is not None and number is None):
        raise ConfigError(f"network {network!r}, step {step!r}: whole numbers expected")
    saved = checkpoint.load(folder, HOME, is_row)
    if saved.older:
        raise CheckpointError(f"{saved.told[0]}, but a replay is compared with the newest: resume the run first")
    search = saved.notes["search"] or {}
    if not isinstance(search, dict):
        raise CheckpointError(f"{folder}: its search, {search!r}, is none that a run has")
    found = network_of(saved, row)
    sets, chosen = _sets(folder, found, data, validation), _step(found, number)
    line = line_of(saved, Lineage.load(folder, search["lineage"]) if "lineage" in search else Lineage(), found)
    origin = line[0].saved
    begun = drawn(folder, saved, origin, init, init_scale, design) if population is None else given(population, origin)
    if optimizer_state is not None:
        optimizer_state = optimizer_state.those_of(begun if population is None else population)
        optimizer_state = optimizer_state.rows(place("optimizer_state", optimizer_state.population, origin))
    alone = Alone.start(begun, line, sets, optimizer_state)
    before, shown, end = _trained(alone, found, chosen - 1)
    notes = [_told(before, after) for before, after in pairwise(line)]
    if search and "lineage" not in search and bool((found.state.status == Status.stopped) & end.state.running):
        end.state.status.copy_(found.state.status)
        notes.append(f"Its search, {search.get('method')}, stopped it: that others were better is the run's word")
    theirs, ours = _digests(found.state), _digests(end.state)
    parts = {name: (each, ours[name]) for name, each in theirs.items()}
    results, note = _results(folder, saved, found, end, data.entities)
    parts, notes = parts | results, notes + note
    status, doubts = Status(int(found.state.status)).name, _doubts(saved, found, init, population)
    replayed = Replay(
        row, int(found.state.population.ids), int(found.state.step), status, end.state.population.params[0], parts,
        chosen, shown, notes, doubts, before, sets.data,
    )  # fmt: skip
    if replayed.same and int(before.step) < chosen - 1:
        raise ConfigError(f"step {chosen}: network {row} goes on from the checkpoint only to step {int(before.step)}")
    return replayed


def _step(found: Saved, step: int | None) -> int:
    """The step to explain, from 1. Raises ConfigError if the network never takes it."""
    state = found.state
    taken = int(state.step) + int(state.status == Status.diverged)  # including one that did not count
    last = int(state.end) if bool(state.running) else taken
    if step is None:
        return max(1, taken)
    if not 1 <= step <= last:
        what = f"network {int(found.rows)} is {Status(int(state.status)).name} after {counted(int(state.step), 'step')}"
        raise ConfigError(f"step {step}: {what}; 1 to {last:,} expected")
    return step


def _sets(folder: Path, found: Saved, data: Dataset, validation: Dataset | None) -> Sets:
    """The samples of one network. Raises CheckpointError unless these are the run's data."""
    population = found.state.population
    whole = ready([population.spec], population.params.dtype, data, validation, None)
    check_data(folder, found, whole)
    return Sets(*(each.alone(found.state.position) for each in whole.each))


def _trained(alone: Alone, found: Saved, before: int) -> tuple[TrainState, int, Outcome]:
    """Train a network as far as the run has, and to `before` steps. -> its state and row after `before` steps; its end
    where the run has it: at the end of an open round before the evaluation, or after it, as an extended run's
    checkpoint does not say."""
    state = found.state
    steps = int(state.step) + int(state.status == Status.diverged)
    waits = found.notes["open"] and bool(state.left == 0) and bool(state.running)
    ends: list[Outcome] = []
    for goal in sorted({(before, True), (steps, not waits), (steps, True)}):
        alone.train(*goal)
        if goal == (before, True):
            there, row = alone.copy(), int(alone.run.rows)
        if goal[0] == steps and not (ends and _digests(ends[-1].state) == _digests(state)):
            ends.append(alone.outcome())
    return there, row, ends[-1]


def _digests(state: TrainState) -> dict[str, str]:
    """The SHA-256 of the bytes of each part that the network has."""
    content = {}
    for part, groups in PARTS.items():
        some = [each for name, each in state.tensors() if name.partition(".")[0] in groups]
        content[part] = b"".join(each.contiguous().numpy().tobytes() for each in some)
    return {part: hashlib.sha256(each).hexdigest() for part, each in content.items() if each}


def _results(
    folder: Path, saved: checkpoint.Checkpoint, found: Saved, end: Outcome, entities: Entities | None
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """A network's row in results.parquet and that of its replay; notes if no row is as recent as the checkpoint, as
    when a resumed run was killed, and on columns that are not compared. A missing column is a difference, except in
    runs of older versions. entities: of the data."""
    if not (folder / RESULTS).is_file():
        return {}, [f"{RESULTS} is missing: the figures are not compared"]
    theirs = read_results(folder / RESULTS).slice(int(found.rows), 1).to_pylist()
    over = not any(bool(each.state.running.any()) for each in saved.populations)
    if not over and [each["steps"] for each in theirs] != [int(found.state.step)]:
        return {}, [f"{RESULTS} is of an earlier moment than the checkpoint: the figures are not compared"]
    there = replace(end.state, position=found.state.position)
    outcome = end._replace(rows=found.rows, state=there, folds=found.notes["folds"])
    mine, needed = of_one(outcome, metric_name(there.population.spec), entities)
    row, notes = {_called(name, mine): value for each in theirs for name, value in each.items()}, []
    if saved.version < UNSHARDED and (lacks := [name for name in needed if name not in row]):
        notes.append(f"{RESULTS}, of an older version, lacks {', '.join(lacks)}: not compared")
        needed = [name for name in needed if name in row]
    if more := [name for name in row if name not in mine]:
        notes.append(f"{RESULTS} has {line(listed(more))}, which the network alone does not tell: not compared")
    names = [*dict.fromkeys((*needed, *(name for name in row if name in mine)))]
    if not int(found.state.step) and bool(found.state.running) and math.isnan(row.get("loss", 0)):
        notes.append(f"{RESULTS} has no figures of a network that had not begun when the run ended: not compared")
        names = [name for name in names if row.get(name) == row.get(name)]
    both = (str([(name, each.get(name, MISSING)) for name in names]).encode() for each in (row, mine))
    run, replayed = (hashlib.sha256(each).hexdigest() for each in both)
    return {"results": (run, replayed)}, notes


def _called(name: str, mine: Mapping[str, Any]) -> str:
    """A results column's present name, among `mine`: custom rules' hyper-parameters used to have bare names."""
    now = setting_column(name)
    return now if name not in mine and now in mine else name


def _told(before: Stretch, after: Stretch) -> str:
    """How a stretch of a line follows another, as text."""
    network, source = (int(each.saved.rows) for each in (after, before))
    changed = ", ".join(f"{name} {value:.6g}" for name, value in after.hyper.items())
    return f"After round {after.round} network {network} became a copy of network {source}, with {changed}"


def _doubts(saved: checkpoint.Checkpoint, found: Saved, init: str, population: Population | None) -> list[str]:
    """Likely reasons for a difference."""
    settings, search = saved.notes["settings"] or {}, saved.notes["search"] or {}
    doubts = []
    if found.notes["engine"] == "eager":
        doubts.append("engine eager, whose bits are those of one device, machine and build of torch")
    if population is None and "init" not in settings:
        doubts.append(f"initial weights that init {init!r} does not draw: init, init_scale or population says which")
    if "init" not in settings:
        doubts.append("an optimizer_state that the training began with")
    if search and search.get("method") not in [*METHODS]:
        doubts.append(f"the search {search.get('method')}, if it rewrites networks")
    return [*doubts, "a file of the run, or a rule of your own, that has changed, or another version of gpubp"]
