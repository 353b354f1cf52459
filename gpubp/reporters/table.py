"""The results table: a row per network, as pyarrow.Table, results.parquet, which holds a digest of it, and results.csv;
read_results() refuses what is not what was written.

pyarrow is imported by what makes a table: `import gpubp` need not wait for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import files, lock
from ..errors import CheckpointError, reason
from ..networks import Outcome
from ..state import Status, TrainState

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "results.parquet"
WHOLE = ("network", "id", "steps", "diverged_step")  # columns of whole numbers
STEPS = ("diverged_step", "stopped_step", "best_step")  # those of whole numbers that a network may lack
STOPPED = (Status.converged, Status.stopped)
TEXTS = ("widths", "hidden", "output", "loss_function", "bias", "train_bias", "optimizer", "schedule", "batch_size",
         "shuffle", "update_order", "restore_best", "class_weight")  # fmt: skip
SEAL = b"gpubp_sha256"  # the key of the table's digest in results.parquet


def table(outcomes: Sequence[Outcome], metric: str) -> pa.Table:
    """A row per network: its row, id, status, steps, losses, metrics and every hyper-parameter in use; of several
    populations also what differs between them; class weights that differ, as text."""
    import pyarrow as pa

    tables, weights = [_rows(each, metric) for each in outcomes], [_class_weights(each.state) for each in outcomes]
    if len({*chain(*weights)}) > 1:
        tables = [
            rows.append_column("class_weight", pa.array(texts, pa.string())) for rows, texts in zip(tables, weights)
        ]
    if len(tables) == 1:
        return tables[0]
    described = [_described(each.state) for each in outcomes]
    for name in described[0]:
        if len({each[name] for each in described}) > 1:
            column = [pa.array([each[name]] * len(rows)) for each, rows in zip(described, tables)]
            tables = [rows.append_column(name, values) for rows, values in zip(tables, column)]
    return pa.concat_tables(tables, promote_options="default").sort_by("network").combine_chunks()


def _class_weights(state: TrainState) -> list[str | None]:
    """The class weights of each network, as text."""
    weight = state.hyper.get("class_weight")
    if weight is None:
        return [None] * state.population.count
    distinct, which = weight.cpu().unique(dim=0, return_inverse=True)
    texts = [",".join(str(each).removesuffix(".0") for each in row) for row in distinct.tolist()]
    return [texts[each] for each in which.tolist()]


def with_columns(rows: pa.Table, columns: Mapping[str, Tensor]) -> pa.Table:
    """The table with more columns (N,), in the order of its rows."""
    import pyarrow as pa

    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values.numpy()))
    return rows


def _described(state: TrainState) -> dict[str, Any]:
    """What a population has in common, as plain values."""
    spec, recipe = state.population.spec, state.recipe
    hidden = spec.activations[:-1]
    return {
        "widths": ",".join(map(str, spec.widths)),
        "hidden": ",".join(hidden if len(set(hidden)) > 1 else hidden[:1]),
        "output": spec.activations[-1],
        "loss_function": spec.loss,
        "bias": spec.bias,
        "train_bias": spec.train_bias,
        "optimizer": str(recipe.optimizer),
        "schedule": str(recipe.schedule),
        "batch_size": recipe.batch_size,
        "shuffle": recipe.shuffle,
        "update_order": recipe.update_order,
        "restore_best": recipe.restore_best,
    }


def _rows(outcome: Outcome, metric: str) -> pa.Table:
    """The rows of one population."""
    import pyarrow as pa

    def numbers(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy()

    rows, state, training, validation, folds = outcome
    names = np.array([each.name for each in Status])
    columns = {
        "network": numbers(rows),
        "id": numbers(state.population.ids),
        **({"fold": numbers(state.position)} if folds else {}),
        "status": names[numbers(state.status).astype(np.int64)],
        "steps": numbers(state.step),
        **{name: numbers(steps) for name, steps in _steps(state).items()},
        "loss": numbers(training.loss),
        metric: numbers(training.metric),
    }
    if validation is not None:
        columns |= {"validation_loss": numbers(validation.loss), f"validation_{metric}": numbers(validation.metric)}
    hyper = {name: numbers(column[:, 0]) for name, column in state.hyper.items() if column.shape[1] == 1}
    columns |= {f"extra.{name}" if name in columns else name: values for name, values in hyper.items()}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays |= {name: pa.array(columns[name], mask=columns[name] < 0) for name in STEPS if name in columns}
    return pa.table(arrays)


def _steps(state: TrainState) -> dict[str, Tensor]:
    """The steps of STEPS that can be, (N,) each, -1 for none."""
    found, stopped = {"diverged_step": state.diverged_step}, (state.status[:, None] == torch.tensor(STOPPED)).any(1)
    if {"patience", "target_loss"} & state.hyper.keys() or bool(stopped.any()):
        found["stopped_step"] = torch.where(stopped, state.step, -1)
    if state.recipe.tracks:
        found["best_step"] = state.memory["best_step"][:, 0].long()
    return found


def write(rows: pa.Table, run_dir: Path) -> None:
    """Write results.parquet and results.csv. Raises OSError, or CheckpointError if another process has the run now."""
    from pyarrow import parquet

    from ..tables import write_csv

    lock.check(run_dir)
    sealed = rows.replace_schema_metadata({SEAL: digest(rows)})
    files.write(run_dir / RESULTS, lambda beside: parquet.write_table(sealed, beside))
    files.write(run_dir / "results.csv", lambda beside: write_csv([rows], beside))


def read_results(path: Path) -> pa.Table:
    """A results table; raises CheckpointError if it cannot be read, or differs from what was written."""
    import pyarrow as pa
    from pyarrow import parquet

    from ..tables import listed

    try:
        files.regular(path)
        found = parquet.ParquetFile(path).read()
        seal = (found.schema.metadata or {}).get(SEAL)  # older files have none
        damaged = seal is not None and seal.decode() != digest(found)
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not a whole .parquet file')}") from None
    if damaged:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    names, other = found.column_names, "it is not the results of a run"
    if missing := {"status", "loss", *WHOLE} - set(names):
        raise CheckpointError(f"{path} has no column {', '.join(sorted(missing))}: {other}")
    if not found.num_rows or len(set(names)) < len(names):
        raise CheckpointError(f"{path} has {found.num_rows} rows, columns {listed(names)}: {other}")
    for name, values in zip(names, found.itercolumns()):
        kind, lacks = values.type, values.null_count and name in ("status", "network", "id", "steps")
        if name == "status":
            right = pa.types.is_string(kind) and set(values.to_pylist()) <= {each.name for each in Status}
        elif name in TEXTS:
            right = pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
        else:
            right = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and name not in WHOLE + STEPS)
        if lacks or not right:
            raise CheckpointError(f"{path}: column {name!r} holds {listed(values.slice(0, 3).to_pylist())}: {other}")
    return found


def digest(rows: pa.Table) -> str:
    """SHA-256 of the names, types and values of every column."""
    found = hashlib.sha256()
    for name, column in zip(rows.column_names, rows.columns):
        values = column.to_numpy()
        content = "\n".join(map(str, values)).encode() if values.dtype == object else values.tobytes()
        found.update(f"{name} {column.type} {len(values)};".encode() + content)
    return found.hexdigest()
