"""gpubp replay: one network of a run, trained again alone, compared with the run's, and a step of it explained."""

import sys
from pathlib import Path
from typing import Any

from ..system.flags import COUNT, TEXT
from . import explain, train
from .parser import BROKEN, Parser, run_parser

ABOUT = "train one network of a run again, alone, prove that it is the same, and explain a step"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser(
        "Train one network of a run again, alone, on the CPU, compare all its bits with the run's, and explain one of "
        "its steps. The exit status is 4 if they differ."
    )
    flags.flag("--step", COUNT, "the step to explain, from 1; by default the last one that the run has")
    flags.flag("--data", TEXT, "where the run's file of data is now")
    explain.shown(flags)
    return flags


def run(settings: dict[str, Any]) -> int:
    """Replay a network of a run of `train`."""
    from .. import tutorial
    from ..population import DTYPES
    from ..resumed.replay import replay
    from ..runs.design import DESIGN
    from .printing import print_json
    from .settings import load_data, of_run, settings_of

    page, folder, row = explain.page_of(settings), Path(settings["run"]), settings["network"]
    before = of_run(settings_of(folder, train.kinds(), "replay"), settings["data"])
    prepared, given = load_data(before), dict[str, Any](init=before["init"])
    if before["data"] == "tutorial":
        given = {"population": tutorial.population(dtype=DTYPES[before["dtype"]])}
    elif not (folder / DESIGN).is_file():  # from an older version; otherwise the design has them
        given["init_scale"] = train.sampled(before).get("init_scale")
    found = replay(folder, row, settings["step"], data=prepared.training, validation=prepared.validation, **given)
    if settings["json"]:
        shown = found.explanation.to_dict() if found.same else None
        print_json({"run": str(folder), **found.to_dict(), "explanation": shown})
    else:
        print(found.text())
    if not found.same:
        sys.stderr.write(f"error: {found.difference}\n")
        return BROKEN
    if page is not None:
        title = f"Network {found.shown} of {folder}, from step {found.step}"
        explain.write(page, found.explanations(), title, found.data.preparation, settings)
    elif not settings["json"]:
        print(f"\n{found.explanation.text(full=settings['full'])}")
    return 0
