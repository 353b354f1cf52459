"""The decisions of load_data(), and the sentences that report them: the task, its loss, the reading of columns.

A file's single target holds classes if it holds text, truth values, or few different whole numbers (1.0 counts as 1):
two, or at most MOST that occur EACH times on average. Otherwise it holds numbers. --task and --loss override this.
"""

import numpy as np

from ..errors import ConfigError, one_of
from ..line import advised, counted, line
from .fitting import rounded
from .preparation import TASK_OF_LOSS, UNSCALED, Preparation
from .tables import Array, Table, listed, missing

USUAL = {"classification": "cross_entropy", "regression": "mean_squared_error"}  # task -> loss
MOST, EACH = 100, 5
OVERRIDE = "; task {} (--task) overrides this"
SHOWN = 6  # names in one sentence


def choose_loss(table: Table, usual: str | None, loss: str | None, task: str | None) -> tuple[str, str]:
    """The loss to train with, and why. usual: a source's loss, None for a file; loss, task: as requested, or None."""
    if task is not None:
        one_of(USUAL, task, "task")
    if loss is not None:
        of = "classification" if loss in TASK_OF_LOSS else "regression"
        if task not in (None, of) and loss != "binary_cross_entropy":  # which also takes probabilities
            raise ConfigError(f"loss {loss!r} is one of {of}, task {task!r}; give one of the two")
        return loss, "as requested"
    if task is not None:
        same = usual is not None and (usual in TASK_OF_LOSS) == (task == "classification")
        return (usual if usual is not None and same else USUAL[task]), f"usual for {task}"
    if usual is not None:
        return usual, f"usual for {table.name}"
    task, why = guess(table)
    return USUAL[task], f"as {why}"


def guess(table: Table) -> tuple[str, str]:
    """The task that a file's targets suggest, and why, and, if they could be of the other task, how to choose that."""
    if len(table.targets) > 1:
        return "regression", f"there are {len(table.targets)} targets"
    name = table.targets[0]
    values: Array = table.columns[name]
    if values.dtype.kind in "Ob":
        truths = f"truth values{OVERRIDE.format('regression')}"
        return "classification", f"{name} holds {'text' if values.dtype == object else truths}"
    known = values[~missing(values)]
    parts = known[known != np.floor(known)]
    if len(parts):
        return "regression", f"{name} holds numbers such as {parts[0]:g}"
    count = len(np.unique(known))
    why = f"{name} holds {counted(count, 'different whole number')} in {counted(len(known), 'sample')}"
    few = count <= 2 or (count <= MOST and EACH * count <= len(known))
    if few:
        return "classification", why + OVERRIDE.format("regression")
    return "regression", f"{why}, too many for classes{OVERRIDE.format('classification')}"


def sentences(
    table: Table, preparation: Preparation, rows: Array, held_out: int, scale: str, loss: str, why: str
) -> tuple[str, ...]:
    """A run's first lines: samples and split, inputs, target, task and loss. rows: the training samples; held_out: how
    many are held out."""
    numbers = [column.name for column in preparation.columns if column.categories is None]
    texts = [f"{column.name} ({len(column.categories)})" for column in preparation.columns if column.categories]
    inputs = [counted(preparation.width_in, "input")]
    inputs += [f"numbers, scale {scale}: {listed(numbers, SHOWN)}"] * bool(numbers)
    inputs += [f"texts, an input per category: {listed(texts, SHOWN)}"] * bool(texts)
    classes, targets = preparation.classes, listed(table.targets, SHOWN)
    task = f"classification, {len(classes)} classes ({listed(classes, SHOWN)})" if classes else "regression"
    counting = [
        f"{name} numbers the samples; {advised('drop', name)} leaves it out"
        for name in numbers
        if table.named and table.samples > 2 and _counting(table.columns[name])
    ]
    same = [
        f"{name} is one number, rounded differently, in all training samples: it is not scaled"
        for name in (*numbers, *(() if preparation.classes else table.targets))
        if rounded(table, name, table.columns[name][rows])
    ]
    plain = all(column.factor == 1 and column.offset == 0 for column in preparation.target_columns)
    unscaled = [
        "targets are not scaled; scale_targets standard (--scale-targets) trains on mean 0 and variance 1, and "
        "predicts in their units"
    ]
    unscaled *= plain and preparation.task == "numbers" and loss not in UNSCALED
    lines = (
        f"{table.name}: {counted(table.samples, 'sample')}, {len(rows):,} for training, {held_out} held out",
        *(["read: " + "; ".join(table.about)] if table.about else []),
        "; ".join(inputs),
        f"target: {targets}; task: {task}; loss: {loss}, {why}",
        *unscaled,
        *counting,
        *same,
    )
    return tuple(map(line, lines))


def _counting(values: Array) -> bool:
    """Whether a column counts up by whole numbers, like a saved index."""
    return bool(values[0] == np.floor(values[0])) and bool((np.diff(values.astype(np.float64)) == 1).all())
