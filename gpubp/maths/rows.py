"""Table: rules of one kind by name; a rule given instead of a name goes by the name of its first function.

Only the name is saved: a process that loads such a run must first add the rule to its table. Refused: rules without a
name (lambdas), and rules with another row's name.
"""

from types import FunctionType
from typing import Any, Generic, TypeVar

from ..errors import GpubpError, lookup

Row = TypeVar("Row", bound=tuple[Any, ...])
Rule = Any  # a name or a row; once checked, a name


class CustomName(str):
    """The name of a custom rule that is not in a table, with its `row`; equal only to names of the same row."""

    row: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CustomName) and str.__eq__(self, other) and other.row == self.row

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class Table(dict[str, Row], Generic[Row]):
    """Rows by name; for a CustomName, its own row."""

    def __missing__(self, name: str | Row) -> Row:
        if isinstance(name, CustomName):
            found: Row = name.row
            return found
        raise KeyError(name)

    def name(self, given: object, what: str, error: type[GpubpError]) -> str:
        """The name of `given`, a name or a row; raises `error` for anything else."""
        if isinstance(given, CustomName):
            return given
        if not isinstance(given, type(next(iter(self.values())))):
            lookup(self, given, what, error)
            return str(given)  # from NumPy's str
        for name, row in self.items():
            if row == given:
                return name
        for part in given:
            if callable(part) and not isinstance(part, FunctionType):
                raise error(f"{what}: {part!r} is not a Python function; one made by def expected")
        name = getattr(given[0], "__name__", "")
        if not name.isidentifier():
            raise error(f"{what}: {given[0]!r} has no name, by which a rule is saved; a function made by def expected")
        if name in self:
            raise error(f"{what} {name!r}: the table has another rule of this name; rename the function {name}")
        own = CustomName(name)
        own.row = given
        return own
