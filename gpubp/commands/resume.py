"""gpubp resume: go on with a run; one that ended before its first checkpoint is begun anew, as its config.yaml says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .. import files, lock
from ..errors import CheckpointError, ConfigError
from ..flags import COUNT, TEXT
from ..line import line
from . import train
from .parser import Parser, run_parser

EDITED = "{} was edited: where data and curves are is taken from it, what is trained is as the run began"
ABOUT = "go on with a run, or make it longer"


def parser() -> Parser:
    """Its flags."""
    flags = run_parser("Go on with a run, to the same bits as if it had never stopped.")
    flags.flag("--epochs", COUNT, "more than before: makes the run longer")
    flags.flag("--steps", COUNT, "the same, for a run that counts steps")
    flags.flag("--device", TEXT, "as of train; by default where the run trained")
    flags.switch("--force", "take over a run whose process is gone but whose lock remains")
    flags.switch("--json", "one JSON object on standard output, last")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Go on with a run of `train`; what is said of it anew goes into its config.yaml."""
    from .. import checkpoint, tutorial
    from ..training import resume
    from . import outcome
    from .settings import load_data, settings_of

    folder = Path(settings["run"])
    begun = checkpoint.begun(folder)
    if begun and not (folder / "config.yaml").exists():
        raise CheckpointError(
            f"{folder} ended before anything of it was written; gpubp train, as before, begins it anew"
        )
    before = settings_of(folder, train.kinds())
    now = {**before, **{name: settings[name] for name in ("epochs", "steps", "device") if settings[name] is not None}}
    if begun:
        for name, other in (("epochs", "steps"), ("steps", "epochs")):
            if settings[name] is not None and before[other] is not None:
                raise ConfigError(f"this run counts {other}: give {other}, and nothing else, to make it longer")
        with lock.held(folder, settings["force"]):
            pass
        sys.stderr.write(
            f"{line(folder)} ended before its first checkpoint; it is begun anew, as its config.yaml says\n"
        )
        return train.run({**now, "run_dir": str(folder), "json": settings["json"]})
    train.name_device(now)
    prepared = None if before["data"] == "tutorial" else load_data(before)
    lines = [EDITED.format(folder / "config.yaml")] if files.edited(folder / "config.yaml") else []
    result = outcome.ended(
        folder,
        lambda: resume(
            folder,
            tutorial.dataset() if prepared is None else prepared.training,
            None if prepared is None else prepared.validation,
            settings["epochs"],
            settings["steps"],
            outcome.reporters(before, folder),
            now["device"],
            before["checkpoint_minutes"],
            settings=now,
            lines=lines,
            force=settings["force"],
        ),
    )
    return outcome.report({**settings, **now}, result)
