"""without_pandas(): pyarrow will not import pandas, which takes half a second; imports_pandas(): whether it will."""

import sys
import warnings
from importlib.util import find_spec
from types import ModuleType

ASKED = False  # whether pyarrow has looked, and found no pandas


def without_pandas() -> None:
    """Keep pyarrow from importing pandas at its first value, which it does to recognise pandas objects, unless this
    process has imported pandas already. pyarrow looks once, and ignores versions older than 1.0. Its to_pandas() then
    fails: only for a command's process, not for a library."""
    global ASKED
    if not imports_pandas():
        return
    import pyarrow

    sys.modules["pandas"] = old = ModuleType("pandas")
    vars(old)["__version__"] = "0"
    try:
        with warnings.catch_warnings(action="ignore"):  # that it is too old
            pyarrow.array([])  # takes no memory: memory.py looks there for a first table
    finally:
        del sys.modules["pandas"]
    ASKED = True


def imports_pandas() -> bool:
    """Whether pyarrow's first value in this process imports pandas."""
    return not ASKED and "pandas" not in sys.modules and find_spec("pandas") is not None
