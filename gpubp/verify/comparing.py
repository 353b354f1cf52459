"""compare(): numbers of networks against those they should equal, to the bit or within a bound; and Row, a line of the
table of promises. Every check and its control, a planted fault that must be found, end here."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..errors import reason

Numbers = dict[str, Tensor]  # one network's numbers, by name
HOLDS, FAILS, NONE = "holds", "DOES NOT HOLD", "not checked"
CAUGHT, MISSED = "caught", "NOT CAUGHT"
SMALL = 0.01  # differences are relative to the largest number in a network's tensor, or to this


class BlindError(Exception):
    """Why a comparison can show nothing about these networks."""


class Found(NamedTuple):
    """What a comparison found. largest: the largest difference; None if all bits are the same. where: its place."""

    networks: int
    numbers: int
    largest: float | None
    where: str = ""

    def within(self, bound: float | None) -> bool:
        """Whether all bits are the same, or, with a bound, the largest difference is within it."""
        return self.largest is None or (bound is not None and self.largest <= bound)

    @property
    def size(self) -> float:
        """The largest difference, for sorting: below 0 if all bits are the same."""
        return -1.0 if self.largest is None else self.largest

    def beside(self, other: Self) -> Self:
        """Both comparisons, of different networks."""
        return self.again(other)._replace(networks=self.networks + other.networks)

    def again(self, other: Self) -> Self:
        """Both comparisons, of the same networks."""
        worst = max(self, other, key=lambda each: each.size)
        return worst._replace(networks=self.networks, numbers=self.numbers + other.numbers)


@dataclass(frozen=True)
class Row:
    """A promise. compared: what with what; planted: the fault of the control; bound: the largest difference allowed,
    None for the same bits. verdict: HOLDS, FAILS, or NONE, with a reason; control: CAUGHT, if the comparison found the
    planted fault, or MISSED."""

    promise: str
    compared: str
    planted: str
    bound: float | None = None
    networks: int = 0
    numbers: int = 0
    largest: float | None = None
    verdict: str = NONE
    reason: str = ""
    control: str = ""

    def without(self, why: str) -> Self:
        """The row as not checked, and why."""
        return replace(self, verdict=NONE, reason=why)

    @property
    def checked(self) -> bool:
        """Whether it could be checked."""
        return self.verdict != NONE

    @property
    def good(self) -> bool:
        """Whether nothing is wrong: the promise holds and its control was caught, or it is not checked."""
        return self.verdict == NONE or (self.verdict == HOLDS and self.control == CAUGHT)


def compare(mine: Sequence[Numbers], theirs: Sequence[Numbers]) -> Found:
    """Network by network, name by name. Another shape, dtype or name is an infinite difference, as is a number that is
    finite on only one side."""
    if len(mine) != len(theirs):
        return Found(len(theirs), 0, float("inf"), f"{len(mine)} networks, not {len(theirs)}")
    return reduce(Found.beside, each_compared(mine, theirs), Found(0, 0, None))


def each_compared(mine: Sequence[Numbers], theirs: Sequence[Numbers]) -> Iterator[Found]:
    """The comparison of each network."""
    for number, (one, other) in enumerate(zip(mine, theirs)):
        found = Found(1, 0, None)
        if one.keys() != other.keys():
            found = found._replace(largest=float("inf"), where=f"names of network {number}")
        for name in (name for name in other if name in one):
            difference = _difference(one[name], other[name])
            found = found.again(Found(1, other[name].numel(), difference, f"{name} of network {number}"))
        yield found


def _difference(one: Tensor, other: Tensor) -> float | None:
    """The largest difference between two tensors, relative to the larger of SMALL and the largest number in `other`;
    None if they have the same bits."""
    one, other = one.detach().cpu().contiguous(), other.detach().cpu().contiguous()
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return float("inf")
    if one.flatten().view(torch.uint8).equal(other.flatten().view(torch.uint8)):
        return None
    mine, theirs = one.double(), other.double()
    odd = ~(mine.isfinite() & theirs.isfinite())
    alike = (mine == theirs) | (mine.isnan() & theirs.isnan())
    if bool((odd & ~alike).any()):
        return float("inf")
    scale = max(SMALL, float(theirs[~odd].abs().max()) if bool((~odd).any()) else 0.0)
    return float((mine - theirs).masked_fill(odd, 0).abs().max()) / scale


def checked(row: Row, check: Callable[[bool], Found]) -> Row:
    """The row with what was found. check: makes the numbers and compares them; with True they have the planted fault,
    which must be found. It raises BlindError if it can show nothing here."""
    try:
        found, control = check(False), check(True)
    except BlindError as why:
        return row.without(str(why))
    except Exception as error:  # what cannot be computed does not hold; the other promises are still checked
        return replace(row, verdict=FAILS, reason=reason(error, f"{type(error).__name__}: {error}"))
    holds = found.within(row.bound)
    return replace(
        row,
        networks=found.networks,
        numbers=found.numbers,
        largest=found.largest,
        verdict=HOLDS if holds else FAILS,
        reason="" if holds else f"the largest difference is in {found.where}",
        control=MISSED if control.within(row.bound) else CAUGHT,
    )
