"""gpubp predict: predictions of a run's networks for new samples, as CSV."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError, DataError
from ..line import line
from ..system import files
from ..system.flags import COUNT, INDEX, TEXT
from .parser import Parser, run_parser

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..raw.preparation import Preparation
    from ..raw.tables import Table
    from ..results.model import Model

ROWS = "these networks instead, by their rows in the results, such as 3,17"
ABOUT = "predict new samples with a run's networks"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("Predict the samples of a file, or of data by name, as CSV.")
    flags.add_argument(
        "--data",
        type=TEXT,
        required=True,
        metavar="TEXT",
        help="a file with the training's input columns, or data by name: wine",
    )
    flags.flag("--networks", TEXT, "best, a number K for the best K, or all: their mean", "best")
    flags.flag("--rows", TEXT, ROWS)
    flags.switch("--proba", "the probability of each class instead of the class")
    flags.switch("--each", "one column per network instead of the mean")
    flags.switch(
        "--spread",
        "also how far the networks differ: std and the quantiles 0.05, 0.5 and 0.95 of numbers; of classes entropy and "
        "mutual information, in nats, and with --proba std",
    )
    flags.flag("--keep", TEXT, "columns of the file to write before the predictions, separated by commas: id")
    flags.flag("--output", TEXT, "a new .csv file; by default standard output")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Write a CSV with a row per sample: the prediction of the chosen networks together, or of each in a column."""
    from ..raw.preparation import FILE
    from ..raw.tables import write_csv
    from ..results.model import load
    from .printing import spoken

    folder, chosen, each = Path(settings["run"]), chosen_of(settings), settings["each"]
    with spoken():
        model = load(folder)
    if model.preparation is None:
        raise CheckpointError(f"{folder / FILE} is missing: the run was trained on data without a preparation")
    if each and settings["spread"]:
        raise ConfigError("--each and --spread: one of them expected")
    target = None if settings["output"] is None else Path(settings["output"])
    if target is not None and target.suffix.lower() != ".csv":
        raise ConfigError(f"--output {target}: a name that ends in .csv expected")
    if target is not None and os.path.lexists(target):
        raise ConfigError(f"{target} exists already; name a new file")
    with spoken():
        samples = samples_of(settings["data"])
        kept = None if settings["keep"] is None else _kept(samples, settings["keep"], model.preparation)
        tables = _spread if settings["spread"] else _predictions
        found = tables(model, samples, chosen, each, settings["proba"])
        found = found if kept is None else _beside(kept, found)
    with spoken():
        if target is None:
            _print_csv(found)
            return 0
        with files.written(target, DataError):
            files.write(target, lambda beside: write_csv(found, beside))
    return 0


def chosen_of(settings: Mapping[str, Any]) -> str | int | list[int]:
    """The networks that --networks or --rows means. Raises ConfigError."""
    text, rows = settings["networks"], settings["rows"]
    if rows is not None and text != "best":
        raise ConfigError("--networks and --rows: one of them expected")
    try:
        if rows is not None:
            return [int(INDEX.read(part)) for part in rows.split(",")]
        return text if text in ("best", "all") else int(COUNT.read(text))
    except (ValueError, ArithmeticError):
        if rows is not None:
            raise ConfigError(f"--rows {rows!r}: whole numbers of 0 or more, separated by commas, expected") from None
        raise ConfigError(f"--networks {text!r}: best, all, or a number of 1 or more expected") from None


def samples_of(data: str) -> str | Table:
    """The samples that --data means: by name, or the path of a file."""
    from ..samples.sources import SOURCES, check_name

    check_name(data)
    return SOURCES[data].table() if data in SOURCES else data


def _predictions(
    model: Model, samples: str | Table, chosen: str | int | list[int], each: bool, proba: bool
) -> Iterator[pa.Table]:
    """The predictions, some samples at a time."""
    pieces, word = model.pieces(samples, chosen, each, proba), "probability" if proba else "prediction"
    heads = [f"network_{row}" for row in model.chosen(chosen).tolist()] if each else [word]
    parts = _parts(model, proba)
    return (_columns(piece if each else piece[None], heads, parts) for piece in pieces)


def _spread(
    model: Model, samples: str | Table, chosen: str | int | list[int], each: bool, proba: bool
) -> Iterator[pa.Table]:
    """The predictions beside how far the networks differ."""
    import pyarrow as pa

    together = model.ensemble(rows=model.chosen(chosen))
    if proba:
        together.check_probabilities()
    found = together.summary(samples)
    if "probability" in found:
        for name in ["prediction"] if proba else ["probability", "std"]:
            del found[name]
    tables = [_columns(values[None], [name], _parts(model, proba)) for name, values in found.items()]
    return iter([pa.table({name: values for each in tables for name, values in zip(each.column_names, each.columns)})])


def _kept(samples: str | Table, given: str, preparation: Preparation) -> pa.Table:
    """The columns `given` of the samples; of a file, as written there."""
    import pyarrow as pa

    from ..raw.frames import written

    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    if isinstance(samples, str):
        return written(Path(samples), names, preparation.reading)
    return pa.table({name: samples.column(name) for name in names})


def _beside(kept: pa.Table, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of `tables`, each after its row of `kept`."""
    import pyarrow as pa

    at = 0
    for table in tables:
        if both := {*kept.column_names} & {*table.column_names}:
            raise ConfigError(f"--keep {min(both)}: so is a column of predictions called; another name expected")
        some, at = kept.slice(at, len(table)), at + len(table)
        yield pa.table([*some.columns, *table.columns], [*kept.column_names, *table.column_names])


def _parts(model: Model, proba: bool) -> Sequence[Any]:
    """The meaning of predictions' last dimension: classes or target columns."""
    if (proba and model.classes) or model.preparation is None:
        return model.classes
    return [column.name for column in model.preparation.target_columns]


def _columns(found: np.ndarray, heads: Sequence[str], parts: Sequence[Any]) -> pa.Table:
    """Predictions of K networks, or of all together, for M samples, (K, M) or (K, M, parts), as named columns. NaN
    is an empty cell."""
    import pyarrow as pa

    if found.ndim == 2:
        return pa.Table.from_arrays([pa.array(values, from_pandas=True) for values in found], list(heads))
    names = [f"{head}_{part}" for head in heads for part in parts]
    return pa.Table.from_arrays([pa.array(values, from_pandas=True) for each in found for values in each.T], names)


def _print_csv(tables: Iterable[pa.Table]) -> None:
    """Print CSV; on a terminal control characters are escaped as in Python."""
    from ..raw.tables import write_csv

    if not sys.stdout.isatty():
        write_csv(tables, sys.stdout.buffer)
        return
    text = io.BytesIO()
    write_csv(tables, text)
    print(*map(line, text.getvalue().decode().rstrip("\n").split("\n")), sep="\n")
