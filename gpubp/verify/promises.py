"""promises(): what this machine does of what is promised, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator

from . import engines, gradients, independence, killed
from .comparing import Row
from .subject import Subject


def promises(subject: Subject) -> Iterator[Row]:
    """A row for each promise and each way to compare, as they are checked. Raises GpubpError, before the first, if these
    networks cannot be trained at all."""
    _ = subject.whole
    yield from gradients.rows(subject)
    yield from engines.rows(subject)
    yield from independence.rows(subject)
    yield killed.row(subject)
