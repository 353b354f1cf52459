"""gpubp export: networks of a run as a file of another format."""

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..line import line
from ..system.flags import TEXT
from .parser import Parser, run_parser
from .predict import ROWS, chosen_of

ABOUT = "networks of a run as a file for ONNX, NumPy, torch or gpubp itself"
LOADED = {  # how to read the file, by format
    "onnx": "onnxruntime.InferenceSession({!r}), or gpubp.Population.from_onnx([{!r}])",
    "numpy": "importing it, which needs NumPy alone: predict(samples)",
    "safetensors": "gpubp.load({!r}), and gpubp predict",
    "torch": "torch.load({!r}), a state dict of gpubp.load(RUN).network(row)",
}
UNNAMED = 'runpy.run_path({!r})["predict"](samples), which needs NumPy alone'
SEVERAL = "torch.load({!r}), a state dict of torch.nn.ModuleList([gpubp.load(RUN).network(row) for row in ROWS])"


def parser() -> Parser:
    """The command's flags."""
    flags = run_parser("Write networks of a run to a file, with scaling and names of classes; several answer together.")
    flags.flag("--to", TEXT, "onnx, numpy (a Python file), safetensors or torch; as --output ends, or safetensors")
    flags.flag("--networks", TEXT, "best, a number K for the best K, or all", "best")
    flags.flag("--rows", TEXT, ROWS)
    flags.flag("--output", TEXT, "a new file; by default networks.onnx, .py, .safetensors or .pt in the run")
    return flags


def run(settings: dict[str, Any]) -> int:
    """Write the file and say what is in it."""
    from ..export.formats import FORMATS, format_of
    from ..raw.tables import listed
    from ..results.model import load
    from .printing import spoken

    place, given = Path(settings["run"]), settings["output"]
    to = format_of(Path(given or "networks.safetensors"), settings["to"])
    home = place if place.is_dir() else place.parent
    target = home / f"networks{FORMATS[to].suffix}" if given is None else Path(given)
    if os.path.lexists(target):
        raise ConfigError(f"{target} exists already; --output with a new file expected")
    chosen = chosen_of(settings)
    with spoken():
        model = load(place)
        model.export(target, chosen, to)
        rows = model.chosen(chosen).tolist()
    print(line(f"{target}: {len(rows):,} of {len(model):,} networks, row{'s' * (len(rows) > 1)} {listed(rows, 5)}"))
    how = LOADED[to]
    if to == "numpy" and target.suffix != ".py":
        how = UNNAMED
    elif to == "torch" and len(rows) > 1:
        how = SEVERAL
    sys.stderr.write(f"read it by {how.format(str(target), str(target))}\n")
    return 0
