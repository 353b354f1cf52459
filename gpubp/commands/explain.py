"""gpubp explain: one step of one network with every number."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..flags import INDEX, TEXT
from ..line import line
from . import train
from .parser import Parser

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..state import TrainState

ABOUT = "one step of one network with every number"


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(description="The next step of one network of a run, with every number; by default the tutorial's.")
    flags.add_argument("run", type=TEXT, nargs="?", default="tutorial", help="the directory of a run, or tutorial")
    flags.flag("--network", INDEX, "row of the network", 0)
    flags.switch("--full", "all units and terms")
    flags.switch("--json", "as one JSON object")
    return flags


def run(settings: dict[str, Any]) -> int:
    """One step of one network, as text or JSON."""
    from .. import checkpoint, tutorial
    from ..ambient import HOME
    from ..explain import explain
    from ..state import TrainState
    from .settings import load_data, settings_of

    if settings["run"] == "tutorial":
        data = tutorial.dataset()
        state = TrainState.start(tutorial.population(), tutorial.config(), data)
    else:
        folder = Path(settings["run"])
        before = settings_of(folder, train.kinds())
        saved = checkpoint.load(folder, HOME)
        sys.stderr.writelines(f"warning: {line(each)}\n" for each in saved.told)
        state, settings["network"] = _state(saved, settings["network"])
        data = tutorial.dataset() if before["data"] == "tutorial" else load_data(before).training
        data = data.to(HOME, state.population.params.dtype)
    explanation = explain(state, data, settings["network"])
    print(explanation.json() if settings["json"] else explanation.text(full=settings["full"]))
    return 0


def _state(saved: Checkpoint, row: int) -> tuple[TrainState, int]:
    """The population of the network in a row of the results, and its row in that."""
    for state, rows in saved.everybody():
        found = (rows == row).nonzero()
        if len(found):
            return state, int(found[0])
    return saved.populations[0].state, row  # refused where it is used
