"""A network's bits are its own: alone, among others, in another order, with other threads, through slots, in other
calls and groups, on other devices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial, reduce
from itertools import cycle

import torch

from .. import gpus, serial
from ..ambient import HOME
from ..design import Group
from ..devices import ALL
from .comparing import Found, Numbers, Row, checked, compare
from .engines import numbers
from .subject import Subject

THREADS = (1, 2, 3)
CUTS = (1, 4, 2)  # steps of the calls of a training
OTHERS = 1_000_000  # added to the seeds of further networks
SEED, BIT = "the next network's seed", "one bit of one number"


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each circumstance that changes no bit."""
    count, slots = subject.count, max(1, subject.count // 3)
    circumstances = [
        (f"{len(_lonely(count))} networks alone, and among {count - 1} others", SEED, _alone),
        (f"{count} networks, and in reverse order among twice as many", SEED, _among_others),
        (f"{', '.join(map(str, THREADS))} threads, and {torch.get_num_threads()}", BIT, _threads),
        (f"calls of {', '.join(map(str, CUTS))} steps on two groups, and one call on all", BIT, _cut),
        (f"through {slots} slots, and all at once", SEED, _through_slots),
    ]
    for compared, planted, check in circumstances:
        yield checked(Row("its bits are its own", compared, planted), partial(check, subject))
    yield _device(subject)


def _lonely(count: int) -> list[int]:
    """The networks that train alone too."""
    return sorted({0, count // 2, count - 1})


def _alone(subject: Subject, wrong: bool) -> Found:
    some = _lonely(subject.count)
    design = subject.seeded(int(wrong))
    mine = [each for row in some for each in subject.train([row], design=design)]
    return compare(mine, [subject.whole[row] for row in some])


def _among_others(subject: Subject, wrong: bool) -> Found:
    order = [row for row in reversed(range(subject.count)) for _ in range(2)]
    design = subject.seeded(int(wrong)).take(torch.tensor(order).numpy())
    design.columns["seed"].values[1::2] += OTHERS
    return compare(subject.train(design=design)[::2], subject.whole[::-1])


def _through_slots(subject: Subject, wrong: bool) -> Found:
    mine = subject.train(design=subject.seeded(int(wrong)), slots=max(1, subject.count // 3))
    return compare(mine, subject.whole)


def _threads(subject: Subject, wrong: bool) -> Found:
    found = []
    for number in THREADS:
        with serial.threads(number):
            found.append(compare(_flipped(subject.train(), wrong), subject.whole))
    return reduce(Found.again, found)


def _cut(subject: Subject, wrong: bool) -> Found:
    return reduce(Found.beside, [_group_cut(subject, group, wrong) for group in subject.groups()])


def _group_cut(subject: Subject, group: Group, wrong: bool) -> Found:
    """One population by its engine, in pieces and as a whole."""
    whole, data, choice = subject.start(group, subject.device, subject.engine)
    cut, middle = whole.to(subject.device), (len(whole.step) + 1) // 2
    choice.run(whole, data, int(whole.end.max()))
    for part in (cut.rows(slice(None, middle)), cut.rows(slice(middle, None))):
        for steps in cycle(CUTS):
            if not bool(part.left.any()):
                break
            choice.run(part, data, steps)
    return compare(_flipped(numbers(cut), wrong), numbers(whole))


def _device(subject: Subject) -> Row:
    """The GPU beside the CPU, and all GPUs beside one."""
    others = ["cpu", *([ALL] if gpus.missing() is None and gpus.count() > 1 else [])]
    there = "cuda" if subject.device == HOME else subject.device
    row = Row("a GPU's bits are the CPU's", f"{there} and {', '.join(others)}", BIT)
    if subject.device == HOME:
        return row.without(gpus.missing() or "--device names the CPU")
    if (why_not := _plain(subject)) is not None:
        return row.without(f"only compiled engines have the same bits on both; {why_not}")

    def check(wrong: bool) -> Found:
        found = [compare(_flipped(subject.train(device=name), wrong), subject.whole) for name in others]
        return reduce(Found.again, found)

    return checked(row, check)


def _plain(subject: Subject) -> str | None:
    """Why some of the networks train by engine eager, on the device or on the CPU; None if none does."""
    choices = [
        subject.start(each, device, subject.engine)[2] for each in subject.groups() for device in (subject.device, HOME)
    ]
    return next((choice.reason for choice in choices if choice.name == "eager"), None)


def _flipped(given: list[Numbers], wrong: bool) -> list[Numbers]:
    """The numbers, with one bit of the last network's first parameter flipped where that is wanted."""
    if not wrong:
        return given
    params = given[-1]["params"].cpu().clone()
    params.view(torch.uint8)[0] ^= 1
    return [*given[:-1], {**given[-1], "params": params}]
