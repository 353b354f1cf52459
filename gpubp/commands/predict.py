"""gpubp predict: what a run's networks say of new samples, as CSV."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..errors import CheckpointError, ConfigError, DataError
from ..flags import COUNT, TEXT
from ..line import line
from .parser import Parser, run_parser

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ABOUT = "predict new samples with a run's networks"


def parser() -> Parser:
    """Its flags."""
    flags = run_parser("Predict the samples of a file, as CSV.")
    flags.add_argument(
        "--data", type=TEXT, required=True, metavar="TEXT", help="a file with the training's input columns"
    )
    flags.flag("--networks", TEXT, "best, a number K for the best K, or all: their mean", "best")
    flags.switch("--proba", "the probability of each class instead of the class")
    flags.switch("--each", "each network in a column of its own instead of the mean")
    flags.flag("--output", TEXT, "a new .csv file; standard output by default")
    return flags


def run(settings: dict[str, Any]) -> int:
    """A CSV with a row per sample of a file: what the chosen networks predict together, or each in a column."""
    from ..model import load
    from ..preparation import FILE
    from ..tables import write_csv

    folder, chosen, each = Path(settings["run"]), settings["networks"], settings["each"]
    with _spoken():
        model = load(folder)
    if model.preparation is None:
        raise CheckpointError(f"{folder / FILE} is not there: the run was trained on data that take no file")
    if chosen not in ("best", "all"):
        try:
            chosen = COUNT.read(chosen)
        except (ValueError, ArithmeticError):
            raise ConfigError(f"--networks {chosen!r}: best, all, or a number of 1 or more expected") from None
    target = None if settings["output"] is None else Path(settings["output"])
    if target is not None and os.path.lexists(target):
        raise ConfigError(f"{target} exists already; name a new file")
    rows = model.chosen(chosen)
    with _spoken():
        pieces = model.pieces(settings["data"], rows, each, settings["proba"])
    word = "probability" if settings["proba"] else "prediction"
    heads = [f"network_{row}" for row in rows.tolist()] if each else [word]
    parts = model.classes if settings["proba"] and model.classes else [c.name for c in model.preparation.target_columns]
    tables = (_columns(piece if each else piece[None], heads, parts) for piece in pieces)
    with _spoken():
        if target is None:
            _print_csv(tables)
            return 0
        try:
            files.write(target, lambda beside: write_csv(tables, beside))
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error.strerror or error}") from None
    return 0


@contextmanager
def _spoken() -> Iterator[None]:
    """What is warned of within goes to standard error, a line each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for warning in told:
        sys.stderr.write(f"warning: {line(warning.message)}\n")


def _columns(said: np.ndarray, heads: Sequence[str], parts: Sequence[Any]) -> pa.Table:
    """What each of K networks, or all together, say of M samples, (K, M) or (K, M, parts), as columns with names."""
    import pyarrow as pa

    if said.ndim == 2:
        return pa.Table.from_arrays([pa.array(values) for values in said], list(heads))
    names = [f"{head}_{part}" for head in heads for part in parts]
    return pa.Table.from_arrays([pa.array(values) for each in said for values in each.T], names)


def _print_csv(tables: Iterable[pa.Table]) -> None:
    """As a file has it; what would move a terminal's cursor is shown there as Python escapes it."""
    from ..tables import write_csv

    if not sys.stdout.isatty():
        write_csv(tables, sys.stdout.buffer)
        return
    text = io.BytesIO()
    write_csv(tables, text)
    print(*map(line, text.getvalue().decode().rstrip("\n").split("\n")), sep="\n")
