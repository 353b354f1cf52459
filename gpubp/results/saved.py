"""The results table in files: results.parquet, which holds a digest of it, and results.csv; read_results() refuses a
table that differs from what was written."""

import hashlib
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from torch import Tensor

from ..errors import CheckpointError, DataError
from ..raw.arrow import opened
from ..raw.tables import listed, write_csv
from ..state import NAMES
from ..system import files, lock
from . import table
from .ranking import KEYS, OF_LOSS, told
from .table import FAULT, STEPS, TEXTS, WHOLE, Results

RESULTS = "results.parquet"
SEAL = b"gpubp_sha256"  # the key of the table's digest in results.parquet; with more than PIECE rows:
SEALS = b"gpubp_sha256_of_pieces"  # of its pieces' digests, one after another


def write(results: Results, run_dir: Path) -> None:
    """Write results.parquet and results.csv. Raises OSError, or CheckpointError if another process has the run now."""
    lock.check(run_dir)
    files.write(run_dir / RESULTS, lambda beside: _write_parquet(results, beside))
    files.write(run_dir / "results.csv", lambda beside: write_csv(results.pieces(), beside))


def _write_parquet(results: Results, where: Path) -> None:
    pieces, digests = results.pieces(), []
    first = next(pieces)
    with parquet.ParquetWriter(where, first.schema) as writer:
        for rows in chain([first], pieces):
            writer.write_table(rows)
            digests.append(digest(rows))
        key, seal = (SEAL, digests[0]) if len(digests) == 1 else (SEALS, _sha256("".join(digests)))
        writer.add_key_value_metadata({key: seal})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_results(path: Path) -> pa.Table:
    """A results table; raises CheckpointError if it cannot be read, or differs from what was written."""
    with files.trusted(path):
        size = files.regular(path)
    return results_in(str(path), path, size)


def results_in(path: str, source: Any, size: int) -> pa.Table:
    """read_results() of a file of `size` bytes, or of another source that pyarrow reads, called `path`."""
    with files.trusted(path, otherwise="it is not a whole .parquet file"):
        try:
            found = opened(path, source, size).read()
        except DataError as error:  # which names the file
            raise CheckpointError(error) from None
        known = found.schema.metadata or {}  # older files have no seal
        pieces = [found.slice(at, table.PIECE) for at in range(0, len(found), table.PIECE)]
        damaged = SEAL in known and known[SEAL].decode() != digest(found)
        keys, _ = (told(found, key) for key in (KEYS, OF_LOSS))
        damaged |= SEALS in known and known[SEALS].decode() != _sha256("".join(map(digest, pieces)))
    if damaged:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    names, other = found.column_names, "it is not the results of a run"
    if missing := {"status", "loss", *WHOLE} - set(names):
        raise CheckpointError(f"{path} has no column {', '.join(sorted(missing))}: {other}")
    if not found.num_rows:
        raise CheckpointError(f"{path} has no rows: {other}")
    for name, values in zip(names, found.itercolumns()):
        kind, lacks = values.type, values.null_count and name in ("status", "network", "id", "steps")
        if name == "status":
            right = pa.types.is_string(kind) and set(values.unique().to_pylist()) <= {*NAMES}
        elif name in (*TEXTS, FAULT, *keys):
            right = pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
        else:
            right = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and name not in WHOLE + STEPS)
        if lacks or not right:
            raise CheckpointError(f"{path}: column {name!r} holds {listed(values.slice(0, 3).to_pylist())}: {other}")
    return found


def taken(rows: pa.Table, index: Tensor) -> pa.Table:
    """The rows `index` (K,) of a results table, without its digest, which does not fit them."""
    kept = {key: each for key, each in (rows.schema.metadata or {}).items() if key not in (SEAL, SEALS)}
    return rows.take(index.numpy()).replace_schema_metadata(kept)


def digest(rows: pa.Table) -> str:
    """SHA-256 of the names, types and values of every column."""
    found = hashlib.sha256()
    for name, column in zip(rows.column_names, rows.columns):
        values = column.to_numpy()
        content = "\n".join(map(str, values)).encode() if values.dtype == object else values.tobytes()
        found.update(f"{name} {column.type} {len(values)};".encode() + content)
    return found.hexdigest()
