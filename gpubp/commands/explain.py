"""gpubp explain: steps of one network with every number, as text, JSON or a page."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..line import line
from ..system import files
from ..system.flags import INDEX, RUN, TEXT
from . import train
from .parser import Parser

if TYPE_CHECKING:
    from ..explaining.steps import Explanation
    from ..raw.preparation import Preparation
    from ..tutorial import Figure

ABOUT = "one step of one network with every number"
STEPS, MOST = 10, 100  # further steps on a page


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(description="The next step of one network of a run, with every number; by default the tutorial's.")
    flags.add_argument("run", type=RUN, nargs="?", default="tutorial", help="the directory of a run, or tutorial")
    flags.flag("--data", TEXT, "where the run's file of data is now")
    shown(flags)
    return flags


def shown(flags: Parser) -> None:
    """Add the flags for showing a step."""
    flags.flag("--network", INDEX, "row of the network", 0)
    flags.switch("--full", "all units and terms")
    flags.switch("--json", "as one JSON object")
    flags.flag("--html", TEXT, "a new file, such as step.html: a page with a drawing of the network, for a browser")
    flags.flag("--steps", INDEX, f"further steps on the page, at most {MOST}; {STEPS} by default")


def run(settings: dict[str, Any]) -> int:
    """Steps of one network, as text, JSON or a page."""
    import torch

    from .. import stopping, tutorial
    from ..checkpoints import checkpoint
    from ..checkpoints.stored import is_row
    from ..explaining.steps import explain_steps
    from ..resumed.alone import network_of
    from ..resumed.resume import check_data, sets_of
    from ..state import TrainState
    from ..system.ambient import HOME
    from .settings import load_data, of_run, settings_of

    page, row = page_of(settings), settings["network"]
    if settings["run"] == "tutorial":
        if settings["data"] is not None:
            raise ConfigError("--data: only with a run")
        title, figures = "The tutorial's network, step by step", tutorial.compare() if page else ()
        data = tutorial.dataset()
        state = TrainState.start(tutorial.population(), tutorial.config(), data)
        explanations = explain_steps(state, data, row)
    else:
        folder, figures = Path(settings["run"]), ()
        title = f"Network {row} of {folder}"
        before = of_run(settings_of(folder, train.kinds()), settings["data"])
        saved = checkpoint.load(folder, HOME, is_row)
        sys.stderr.writelines(f"warning: {line(each)}\n" for each in saved.told)
        state = network_of(saved, row).state
        prepared = load_data(before)
        data = prepared.training
        check_data(folder, saved.populations[0], sets_of(saved, data, prepared.validation))
        own = data.alone(state.position).to(HOME, state.population.params.dtype)
        state.position = torch.zeros_like(state.position)
        best = int(state.memory["best_step"]) if state.kept and bool(stopping.restored(state)) else None
        explanations = explain_steps(state, own, 0, row, best)
    if page is not None:
        write(page, explanations, title, data.preparation, settings, figures)
        return 0
    explanation = next(explanations)
    print(explanation.json() if settings["json"] else explanation.text(full=settings["full"]))
    return 0


def html(flag: str, given: str) -> Path:
    """The file of a page that a flag names. Raises ConfigError for a name that browsers show as text."""
    found = files.path(flag, given)
    if found.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{flag} {given}: a name that ends in .html expected")
    return found


def page_of(settings: dict[str, Any]) -> Path | None:
    """The file of the page, if requested; flags that do not go with it are refused."""
    steps, page = settings["steps"], settings["html"]
    if page is None:
        if steps is not None:
            raise ConfigError(f"--steps {steps}: for --html FILE")
        return None
    if settings["json"]:
        raise ConfigError("--html and --json: one of them expected")
    settings["steps"] = STEPS if steps is None else steps
    if settings["steps"] > MOST:
        raise ConfigError(f"--steps {steps}: at most {MOST} expected")
    if os.path.lexists(page):
        raise ConfigError(f"{page} exists already; name a new file")
    return html("--html", page)


def write(
    page: Path, explanations: Iterator[Explanation], title: str, preparation: Preparation | None,
    settings: dict[str, Any], figures: Sequence[Figure] = (),
) -> None:  # fmt: skip
    """Write a page of the first step and further ones, and report it."""
    from ..pages.explained import explained

    found = explained(islice(explanations, 1 + settings["steps"]), title, preparation, settings["full"], figures)
    with files.written(page, ConfigError):
        files.write_text(page, found)
    print(f"{line(page)}: {len(found) / 1e6:.1f} MB")
