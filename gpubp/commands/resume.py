"""gpubp resume: resume a run; one that ended before its first checkpoint restarts from its config.yaml."""

import sys
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..line import line
from ..system import config_file, lock
from ..system.flags import COUNT, NUMBER, TEXT, TRUTH
from . import clusters, train
from .parser import Parser, run_parser

CHANGEABLE = ("epochs", "steps", "device", "data", "tensorboard", "report", "checkpoint_minutes")
ABOUT = "resume a run, or extend it"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("Resume a run, with the bits of an uninterrupted run.")
    flags.flag("--epochs", COUNT, "more than before: extends the run")
    flags.flag("--steps", COUNT, "the same, for a run that counts steps")
    flags.flag("--device", TEXT, "as in train; by default the run's")
    flags.flag("--data", TEXT, "where the run's file of data is now")
    flags.flag("--tensorboard", TRUTH, "as in train; by default as before")
    flags.flag("--report", TEXT, "as in train; by default as before")
    flags.flag("--checkpoint-minutes", NUMBER, "as in train; by default as before")
    flags.flag("--cluster", TEXT, "as in train, of a run whose shards have not ended; by default local if it began so")
    flags.switch("--force", "take over a run whose process is dead but whose lock remains")
    flags.switch("--json", "end standard output with one JSON object")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Resume a run of `train`."""
    from ..checkpoints import checkpoint
    from ..checkpoints.stored import SHARDS
    from ..resumed.resume import resume
    from . import outcome
    from .settings import load_data, name_device, of_run, readable, settings_of

    folder = Path(settings["run"])
    begun = checkpoint.begun(folder)
    if begun and not (folder / config_file.FILE).exists():
        raise CheckpointError(f"{folder} ended before anything was written; restart it with the same gpubp train")
    before = settings_of(folder, train.kinds())
    if settings["cluster"] is not None and not (begun and before["cluster"]):
        how = "has ended its shards: it goes on" if before["cluster"] else "began"
        raise ConfigError(f"--cluster {line(settings['cluster'])}: {line(folder)} {how} on one machine")
    now = {**before, **{name: settings[name] for name in CHANGEABLE if settings[name] is not None}}
    now = of_run(now, settings["data"])
    if begun:
        now["cluster"] = clusters.chosen(folder / config_file.FILE, before["cluster"], settings["cluster"])
        for name, other in (("epochs", "steps"), ("steps", "epochs")):
            if settings[name] is not None and before[other] is not None:
                raise ConfigError(f"this run counts {other}: give only {other} to extend it")
        with lock.held(folder, settings["force"]):
            pass
        told = "ended before its first checkpoint; it restarts from its config.yaml"
        if (folder / SHARDS).exists():
            told = "has shards that have not ended; each goes on from its last checkpoint"
        sys.stderr.write(f"{line(folder)} {told}\n")
        return train.run({**readable(now), "run_dir": str(folder), "json": settings["json"], "plan": False})
    name_device(now)
    prepared = load_data(now)
    result = outcome.ended(
        folder,
        lambda: resume(
            folder,
            prepared.training,
            prepared.validation,
            settings["epochs"],
            settings["steps"],
            outcome.reporters(now, folder),
            now["device"],
            now["checkpoint_minutes"],
            settings=now,
            force=settings["force"],
        ),
    )
    return outcome.report({**settings, **now}, result)
