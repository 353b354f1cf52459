"""Files and tables that tests of data read, and how a command line that reads them ends."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.errors import DataError
from gpubp.raw.tables import Table

Write = Callable[[str, str | bytes], Path]

FLOWERS = "length,colour,kind\n1.0,red,a\n2.0,blue,b\n3.0,red,a\n6.0,green,b\n"


def table(columns: Mapping[str, list[Any]], targets: tuple[str, ...] = ("y",)) -> Table:
    arrays = {
        name: np.array(values, dtype=object if any(isinstance(value, str) for value in values) else None)
        for name, values in columns.items()
    }
    return Table("a table", arrays, targets)


def refused(what: str) -> Any:
    return pytest.raises(DataError, match=re.escape(what))


def status(arguments: list[str]) -> object:
    """What `gpubp arguments` exits with."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code
