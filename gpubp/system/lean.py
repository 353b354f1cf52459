"""without_pandas(): pyarrow does not import pandas, which takes half a second; imports_pandas(): whether it will."""

import sys
import warnings
from importlib.util import find_spec
from types import ModuleType

ASKED = False  # pyarrow, by without_pandas()


def without_pandas() -> None:
    """Have pyarrow not import pandas at its first value, as it does to know the objects of pandas, unless this process
    has pandas already. pyarrow looks once, and ignores versions older than 1.0. Its to_pandas() then fails: for the
    process of a command, not of a library."""
    global ASKED
    if not imports_pandas():
        return
    import pyarrow

    sys.modules["pandas"] = old = ModuleType("pandas")
    old.__version__ = "0"  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(action="ignore"):  # that it is too old
            pyarrow.array([])  # which takes no memory, by which memory.py sees whether it has begun
    finally:
        del sys.modules["pandas"]
    ASKED = True


def imports_pandas() -> bool:
    """Whether pyarrow's first value in this process imports pandas."""
    return not ASKED and "pandas" not in sys.modules and find_spec("pandas") is not None
