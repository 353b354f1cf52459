"""gpubp verify: the promises, checked on this machine, for a run, for settings of `train`, or for an example."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from textwrap import indent, wrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError, DataError
from ..line import counted, line
from ..system.flags import RUN, TEXT
from . import designs, train
from .parser import BROKEN, Parser, values

if TYPE_CHECKING:
    from rich.table import Table

    from ..runs.design import Design
    from ..verify.comparing import Row
    from ..verify.subject import Subject

ABOUT = "check the promises on this machine, for a run or for settings"
WIDE = 100  # columns of a screen that fits the table


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        description="Check on this machine that gradients are right, that engines agree, that a network's bits are its "
        "own, and that killed runs resume, each beside a planted fault that must be found. Exit status 4 if not."
    )
    flags.add_argument("run", type=RUN, nargs="?", help="the directory of a run; by default a small example")
    flags.flag("--config", TEXT, "instead of a run: a YAML file of settings of train, such as RUN/config.yaml")
    flags.flag("--device", TEXT, "auto, cpu, cuda or cuda:1; a GPU is compared with the CPU", "auto")
    flags.switch("--json", "as one JSON object")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Print a row for each promise. -> exit status."""
    from rich.console import Console

    from ..verify.promises import promises
    from .printing import print_json

    begun, rows = time.monotonic(), []
    subject = _subject(settings)
    sys.stderr.writelines(f"{line(each)}\n" for each in subject.about)
    with Console(stderr=True).status("training") as status:
        for row in promises(subject):
            rows.append(row)
            status.update(f"{row.promise}: {row.verdict}; {len(rows)} so far")
    good, seconds = all(row.good for row in rows), time.monotonic() - begun
    if settings["json"]:
        checked = sum(row.checked for row in rows)
        found = {"holds": good, "checked": checked, "unchecked": len(rows) - checked, "device": str(subject.device)}
        found |= {"seconds": seconds, "about": subject.about}
        print_json({**found, "promises": [{**vars(row), "good": row.good} for row in rows]})
    else:
        _print(rows, seconds)
    return 0 if good else BROKEN


def _print(rows: list[Row], seconds: float) -> None:
    """A table, or, if it does not fit, lines for each row; why some are not checked or do not hold; and a summary
    sentence."""
    from .printing import console

    screen = console()
    if screen.width < WIDE:
        for row in rows:
            screen.print("\n".join(_block(row, screen.width)), highlight=False, soft_wrap=True)
    else:
        screen.print(_table(rows))
    told = dict.fromkeys(f"{row.promise}: {row.verdict}: {line(row.reason)}" for row in rows if row.reason)
    for sentence in (*told, f"{_outcome(rows)}; {seconds:.0f} s"):
        screen.print(sentence, highlight=False, soft_wrap=True)


def _outcome(rows: list[Row]) -> str:
    """How many were checked, and what was found."""
    checked, bad = sum(row.checked for row in rows), sum(not row.good for row in rows)
    found = f"{bad} of them not as promised" if bad else "all as promised"
    told = f"{checked} of {len(rows)} rows checked" + (f", {found}" if checked else "")
    return told if checked == len(rows) else f"{told}; {len(rows) - checked} could not be checked"


def _block(row: Row, width: int) -> list[str]:
    """A row as lines of at most `width` columns."""
    told = [row.compared]
    if row.numbers:
        told.append(f"{counted(row.networks, 'network')}, {counted(row.numbers, 'number')}, {_difference(row)}")
    told += [_control(row)] if row.control else []
    return [f"{row.promise}: {row.verdict}", *(indent(each, "  ") for part in told for each in wrap(part, width - 2))]


def _control(row: Row) -> str:
    return f"{row.planted}: {row.control}" if row.control else ""


def _table(rows: list[Row]) -> Table:
    from rich.table import Table

    table, before = Table("promise", "compared", box=None), ""
    for name in ("networks", "numbers", "difference"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("control: a planted fault")
    for row in rows:
        counts = (f"{row.networks:,}", f"{row.numbers:,}", _difference(row)) if row.numbers else ("", "", "")
        name = "" if row.promise == before else row.promise
        table.add_row(name, row.compared, *counts, row.verdict, _control(row))
        before = row.promise
    return table


def _difference(row: Row) -> str:
    """The largest difference, and the bound if there is one."""
    found = "same bits" if row.largest is None else f"{row.largest:.0e}"
    return found if row.bound is None else f"{found} of {row.bound:.0e}"


def _subject(settings: dict[str, Any]) -> Subject:
    """What is verified."""
    from ..verify.promises import default
    from ..verify.subject import scaled_down

    if settings["run"] is not None and settings["config"] is not None:
        raise ConfigError("RUN and --config: one of them expected")
    if settings["run"] is not None:
        return _of_run(Path(settings["run"]), settings["device"])
    if settings["config"] is not None:
        flags = train.parser()
        found = values(flags, flags.parse_args(["--config", settings["config"]]))
        return _of_settings(found, settings["device"], None)
    return scaled_down(default(), device=settings["device"], about=["a small example; gpubp verify RUN takes a run's"])


def _of_run(folder: Path, device: str) -> Subject:
    """The subject of a run of `train`, or of a run from Python, whose data are not known."""
    from ..checkpoints import checkpoint
    from ..runs.design import DESIGN, Design
    from ..system.ambient import HOME
    from ..verify.subject import of_run, scaled_down
    from .settings import settings_of

    design = Design.of(folder / DESIGN) if (folder / DESIGN).is_file() else None
    try:
        found = settings_of(folder, train.kinds())
    except CheckpointError:
        saved = checkpoint.load(folder, HOME)  # raises if it is not a run at all
    else:
        return _of_settings(found, device, design)
    population, notes = saved.populations[0].state.population, saved.populations[0].notes
    return scaled_down(
        of_run(saved.populations) if design is None else design,
        None, population.seed, population.params.dtype, notes["engine"], device,
        [f"{folder} was started from Python, so its data are not known"],
        sum(len(rows) for _, rows in saved.everybody),
    )  # fmt: skip


def _of_settings(settings: dict[str, Any], device: str, design: Design | None) -> Subject:
    """The subject of settings of `train`, with their data if these can be read. design: a run's, if it has one."""
    from ..population import DTYPES
    from ..verify.subject import scaled_down
    from .settings import load_data

    about, data = [], None
    if settings["data"] == "tutorial":
        train.as_the_tutorial(settings)
    try:
        prepared: Any = load_data(settings)
        data = prepared.training
        settings |= {"loss": prepared.loss, **prepared.settings}
    except (DataError, OSError) as error:
        if settings["loss"] is None or (settings["widths"] is None and design is None):
            raise
        prepared = _unread(settings)
        about.append(f"the data cannot be read: {error}")
    if settings["search"] is not None:
        about.append(f"without --search {settings['search']}, which compares networks with each other")
    train.fill(settings, prepared.typical)
    dtype = DTYPES[settings["dtype"] or ("float64" if settings["data"] == "tutorial" else "float32")]
    chosen = designs.design(settings, prepared) if design is None else design
    return scaled_down(chosen, data, settings["seed"], dtype, settings["engine"], device, about)


def _unread(settings: dict[str, Any]) -> Any:
    """What settings say about data that cannot be read; all networks then have the same samples."""
    settings |= dict.fromkeys(designs.POSITIONS)
    given, training = designs.options(settings, "widths"), SimpleNamespace(networks=None)
    widths = designs.topology(given[0]) if given else (1, 1)
    return SimpleNamespace(widths_in=widths[0], widths_out=widths[-1], typical=100, training=training)
