"""What commands print on standard output, and warnings on standard error."""

import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from ..line import line


def console() -> Console:
    """Standard output, where brackets stay brackets and :star: is not an emoji; if its width is unknown, wide enough
    for whole numbers."""
    return Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)


def print_json(values: Mapping[str, Any]) -> None:
    """One object on one line; NaN and infinity, which JSON lacks, become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(dict(values)), allow_nan=False))


@contextmanager
def spoken() -> Iterator[None]:
    """Print warnings raised inside to standard error, one per line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        sys.stderr.write(f"warning: {line(warning.message)}\n")
