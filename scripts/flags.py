"""Prints gpubp/system/flags.json, from TrainConfig and the tables: python scripts/flags.py > gpubp/system/flags.json"""

import inspect
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's gpubp, not an installed one

from gpubp.maths.activations import ACTIVATIONS
from gpubp.maths.initialise import INITIALISERS
from gpubp.maths.losses import LOSSES
from gpubp.maths.optimizers import OPTIMIZERS
from gpubp.maths.schedules import SCHEDULES, WARMUP
from gpubp.samples.sources import SOURCES
from gpubp.settings.config import HYPER, TrainConfig

TABLES = {"data": SOURCES, "activation": ACTIVATIONS, "loss": LOSSES, "init": INITIALISERS, "optimizer": OPTIMIZERS,
          "schedule": SCHEDULES}  # fmt: skip


SEVERAL = {"batch_size": "COUNTS", "epochs": "LENGTHS", "steps": "LENGTHS"}  # may have several alternatives


def flags():
    """The rows of every table by name; and each setting of TrainConfig: its kind (cli.py), default and description."""
    notes, usual = dict(re.findall(r"^ {4}(\w+): (.*)$", inspect.getdoc(TrainConfig), re.M)), _usual()
    settings = {
        each.name: {
            "kind": SEVERAL.get(each.name, _kind(each)),
            "default": each.default,
            "about": notes[each.name] + (f" Default: {usual[each.name]}." if each.name in HYPER else ""),
        }
        for each in fields(TrainConfig)
        if each.name != "extra"
    }
    return {"tables": {name: list(table) for name, table in TABLES.items()}, "settings": settings}


def _kind(each):
    """The kind of a setting's flag."""
    if each.name in HYPER:
        return "NUMBERS"
    return "true|false" if each.type == "bool" else "COUNT" if each.type.startswith("int") else "TEXT"


def _usual():
    """The default of each hyper-parameter, in words."""
    found = {name: {} for name in HYPER}  # value -> the rows that have it
    defaults = [(name, row.defaults) for table in (SCHEDULES, LOSSES) for name, row in table.items()]
    defaults += [
        (name, {"lr": row.lr, "weight_decay": row.weight_decay, **row.defaults}) for name, row in OPTIMIZERS.items()
    ]
    for row, given in defaults:
        for name, value in given.items():
            found[name].setdefault(value, []).append(row)
    words = {
        name: ", ".join(f"{value:g} ({', '.join(rows)})" for value, rows in values.items())
        for name, values in found.items()
    }
    return {name: text or "off" for name, text in words.items()} | {name: f"{x:.4g}" for name, x in WARMUP.items()}


def text():
    """The content of the file."""
    return json.dumps(flags(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
