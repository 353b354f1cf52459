"""FORMATS: file formats by name; format_of(): the format that a file's name implies; write()."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, DataError, one_of
from ..system import files
from . import numpy, onnx, safetensors, torch
from .members import Members


class Format(NamedTuple):
    """A kind of file. suffix: of its name; write: takes members and path."""

    suffix: str
    write: Callable[[Members, Path], None]


FORMATS = {
    "onnx": Format(".onnx", onnx.write),
    "numpy": Format(".py", numpy.write),
    "safetensors": Format(".safetensors", safetensors.write),
    "torch": Format(".pt", torch.write),
}


def format_of(path: Path, to: str | None) -> str:
    """The name of the format `to`, or by default of the one that `path` ends with. Raises ConfigError."""
    if to == "sklearn":
        raise ConfigError(
            "to 'sklearn': an estimator is an object in Python, whose files are pickles, which can execute code; "
            "gpubp.load(run).estimator() makes one"
        )
    if to is not None:
        return one_of(FORMATS, to, "to", ConfigError)
    for name, each in FORMATS.items():
        if path.suffix == each.suffix:
            return name
    known = ", ".join(f"{each.suffix} ({name})" for name, each in FORMATS.items())
    raise ConfigError(
        f"file {path.name!r}: a name that ends with {known}, or one of these formats by to (--to), expected"
    )


def write(members: Members, path: Path, name: str) -> None:
    """Write the networks to a file of the format `name`: the whole file, or none. Raises DataError if it cannot be
    written."""
    with files.written(path, DataError):
        FORMATS[name].write(members, path)
