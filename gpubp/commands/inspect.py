"""gpubp inspect: the best, worst and diverged networks of a run, and its outcome."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError
from ..flags import COUNT
from ..line import line, quoted
from .parser import Parser, run_parser

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ABOUT = "the best, worst and diverged networks of a run"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("The best, worst and diverged networks of a run, with their hyper-parameters.")
    flags.flag("--top", COUNT, "how many of each", 5)
    flags.switch("--json", "as one JSON object")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Print the best, worst and diverged networks as tables, or as JSON."""
    import numpy as np
    import pyarrow as pa
    from rich.table import Table

    from ..config import HYPER
    from ..result import order_of, ranked_by
    from .printing import console, print_json

    folder, top = Path(settings["run"]), settings["top"]
    if top < 1:
        raise ConfigError(f"--top {top}: a whole number of 1 or more expected")
    rows = _results(folder)
    damage = _damage(folder)
    sys.stderr.writelines(f"warning: {line(each)}\n" for each in damage)
    diverged = np.array([status == "diverged" for status in rows["status"].to_pylist()])
    ranked = order_of(rows).numpy()
    groups = {"best": ranked[:top], "worst": ranked[::-1][:top], "diverged": np.flatnonzero(diverged)[:top]}
    shown = [name for name in rows.column_names if name not in HYPER or len({*rows[name].to_pylist()} - {None}) > 1]
    if rows["id"].equals(rows["network"]):
        shown.remove("id")
    shown = [name for name in shown if rows[name].null_count < rows.num_rows]  # no network diverged, or stopped
    statuses = {name: rows["status"].to_pylist().count(name) for name in sorted(set(rows["status"].to_pylist()))}
    settled = _over_folds(rows, diverged, shown)[:top] if "fold" in rows.column_names else []
    picked = {name: rows.select(shown).take(pa.array(index)).to_pylist() for name, index in groups.items()}
    if settings["json"]:
        print_json(
            {
                "run": str(folder),
                "networks": rows.num_rows,
                "statuses": statuses,
                "ranked_by": ranked_by(rows),
                "damage": damage,
                **picked,
                **({"settings": settled} if settled else {}),
            }
        )
        return 0
    screen = console()
    fates = ", ".join(f"{count:,} {name}" for name, count in statuses.items())
    screen.print(f"{line(folder)}: {rows.num_rows:,} networks: {fates}; ranked by {ranked_by(rows)}", highlight=False)
    if settled:
        table = Table(title="best settings, over folds and seeds (mean ± standard error)")
        for column in settled[0]:
            table.add_column(line(column), justify="right")
        for entry in settled:
            table.add_row(*(_shown(value) for value in entry.values()))
        screen.print(table)
    for name, entries in picked.items():
        if not entries:
            continue
        table = Table(title=f"{name} of {int(diverged.sum()) if name == 'diverged' else len(ranked):,}")
        for column in shown:
            table.add_column(line(column), justify="left" if column == "status" else "right")
        for entry in entries:
            table.add_row(*(_shown(entry[column]) for column in shown))
        screen.print(table)
    return 0


def _over_folds(rows: pa.Table, diverged: np.ndarray, shown: list[str]) -> list[dict[str, Any]]:
    """The settings whose networks did not diverge in any fold, best first: mean and standard error, over the networks
    that have all hyper-parameters in common, of what was measured on the validation data."""
    import torch

    from ..config import HYPER
    from ..reporters.table import TEXTS
    from ..result import ranked_by, worth

    measured = [name for name in rows.column_names if name.startswith("validation_")]
    names = [name for name in rows.column_names if name in (*HYPER, *TEXTS) or name.startswith("extra.")]
    of_setting: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(rows.select(names).to_pylist()):
        of_setting.setdefault(tuple(row.values()), []).append(number)
    found = []
    for setting, networks in of_setting.items():
        if diverged[networks].any() or not measured:
            continue
        entry: dict[str, Any] = {"networks": len(networks)}
        for name in measured:
            values = rows[name].to_numpy()[networks]
            entry[name] = float(values.mean())
            entry[f"± {name}"] = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
        found.append(entry | {name: value for name, value in zip(names, setting) if name in shown})
    by = ranked_by(rows)
    order = worth(by, torch.tensor([entry[by] for entry in found])).argsort(stable=True)
    return [found[at] for at in order.tolist()]


def _damage(folder: Path) -> list[str]:
    """What is wrong with a run's checkpoint."""
    from .. import checkpoint
    from ..placement import HOME

    try:
        return list(checkpoint.load(folder, HOME).told)
    except CheckpointError as error:
        return [str(error)]


def _results(folder: Path) -> pa.Table:
    """The results of a run, a row per network."""
    from ..reporters.table import RESULTS, read_results

    path = folder / RESULTS
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: {folder} is not the directory of a run, or the run has not ended: gpubp resume "
            f"{quoted(folder)}"
        )
    return read_results(path)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else line(value)
