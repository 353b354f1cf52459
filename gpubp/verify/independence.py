"""A network has the same bits alone, among others, in another order, with other threads, through slots, in other calls
and groups, and on other devices."""

from collections.abc import Iterator
from functools import partial, reduce
from itertools import cycle

import torch

from ..engines import build, general, layout
from ..line import counted
from ..runs.design import Group
from ..system import gpus
from ..system.ambient import HOME
from ..system.devices import ALL
from ..system.threads import threads
from .comparing import BlindError, Found, Row, checked, compare
from .engines import numbers
from .subject import Subject

THREADS = (1, 2, 3)
CUTS = (1, 4, 2)  # steps of a training's calls
OTHERS = 1_000_000  # added to the seeds of further networks
PROMISE, SEED = "a network's bits are its own", "another seed"
LONE = "there is one network"


def rows(subject: Subject) -> Iterator[Row]:
    """A row for each circumstance that must change no bit."""
    count, many = subject.count, " and ".join(", ".join(map(str, THREADS)).rsplit(", ", 1))
    networks, cuts = counted(count, "network"), ", ".join(map(str, CUTS))
    lonely, slots = counted(len(_lonely(count)), "network"), counted(_slots(subject), "slot")
    circumstances = [
        (f"{lonely} alone, and among {counted(count - 1, 'other')}", SEED, _alone),
        (f"{networks}, and in reverse order among {2 * count}", SEED, _among_others),
        (f"by {many} threads, and by {torch.get_num_threads()}", f"{SEED} with several threads", _threads),
        (f"calls of {cuts} steps{' on halves' if count > 1 else ''}, and one call", "a call of one step fewer", _cut),
        (f"through {slots}, and all at once", SEED, _through_slots),
        (f"{networks} by kernels for any widths, and by those of their own", SEED, _general),
    ]
    for compared, planted, check in circumstances:
        yield checked(Row(PROMISE, compared, planted), partial(check, subject))
    yield _device(subject)


def _lonely(count: int) -> list[int]:
    """The networks that also train alone."""
    return sorted({0, count // 2, count - 1})


def _alone(subject: Subject, wrong: bool) -> Found:
    if subject.count == 1:
        raise BlindError(LONE)
    some = _lonely(subject.count)
    design = subject.seeded(int(wrong))
    mine = [each for row in some for each in subject.train([row], design=design)]
    return compare(mine, [subject.whole[row] for row in some])


def _among_others(subject: Subject, wrong: bool) -> Found:
    order = [row for row in reversed(range(subject.count)) for _ in range(2)]
    design = subject.seeded(int(wrong)).take(torch.tensor(order).numpy())
    design.columns["seed"].values[1::2] += OTHERS
    return compare(subject.train(design=design)[::2], subject.whole[::-1])


def _slots(subject: Subject) -> int:
    return max(1, subject.count // 3)


def _through_slots(subject: Subject, wrong: bool) -> Found:
    if subject.count == 1:
        raise BlindError(LONE)
    return compare(subject.train(design=subject.seeded(int(wrong)), slots=_slots(subject)), subject.whole)


def _general(subject: Subject, wrong: bool) -> Found:
    """General kernels on the CPU, which has them."""
    if (why_not := _plain(subject, HOME)) is not None:
        raise BlindError(f"only compiled kernels are compared; {why_not}")
    whole = subject.whole if subject.device == HOME else subject.train(device=HOME)
    with general.only(True):
        return compare(subject.train(design=subject.seeded(int(wrong)), device=HOME), whole)


def _threads(subject: Subject, wrong: bool) -> Found:
    """Threads on the CPU, which start here for any work, with enough copies of each network to keep them busy."""
    count, found = subject.count, []
    order = [*range(count)] * _copies(subject)
    whole = subject.whole if subject.device == HOME else subject.train(device=HOME)
    for number in THREADS:
        design = subject.seeded(int(wrong and number > 1))
        with threads(number), layout.threads_for_any_work():
            mine = subject.train(order, design=design, device=HOME)
        copies = [compare(mine[at : at + count], whole) for at in range(0, len(mine), count)]
        found.append(reduce(Found.again, copies))
    return reduce(Found.again, found)


def _copies(subject: Subject) -> int:
    """The number of copies of each network that gives compiled engines work for all threads. Raises BlindError."""
    most, starts = max(THREADS), [subject.start(group, HOME, subject.engine) for group in subject.groups()]
    compiled = [(state, choice) for state, _, choice in starts if choice.name != "eager"]
    if not compiled:
        raise BlindError(f"only a compiled engine starts threads for so little work; {starts[0][2].reason}")
    if all(choice.engine.share(state, most, subject.count * most) == most for state, choice in compiled):
        return 1
    lanes = build.vector_bytes() // subject.dtype.itemsize
    return -(-most * lanes // min(len(state.step) for state, _ in compiled))


def _cut(subject: Subject, wrong: bool) -> Found:
    return reduce(Found.beside, [_group_cut(subject, group, wrong) for group in subject.groups()])


def _group_cut(subject: Subject, group: Group, wrong: bool) -> Found:
    """A population on its engine, in pieces and as a whole."""
    whole, data, choice = subject.start(group, subject.device, subject.engine)
    cut, middle, longest = whole.to(subject.device), (len(whole.step) + 1) // 2, int(whole.end.max())
    choice.engine.run(whole, data, longest)
    for part in (cut.rows(slice(None, middle)), cut.rows(slice(middle, None))):
        if len(part.step):
            for steps in _calls(longest - wrong):
                choice.engine.run(part, data, steps)
    return compare(numbers(cut), numbers(whole))


def _calls(steps: int) -> Iterator[int]:
    """The lengths of calls that add up to `steps` steps."""
    for each in cycle(CUTS):
        if steps <= 0:
            return
        yield min(each, steps)
        steps -= each


def _device(subject: Subject) -> Row:
    """The GPU against the CPU, and all GPUs against one."""
    others = ["cpu", *([ALL] if gpus.missing() is None and gpus.count() > 1 else [])]
    there = "cuda" if subject.device == HOME else subject.device
    row = Row("a GPU's bits are the CPU's", f"{there} and {', '.join(others)}", SEED)
    if subject.device == HOME:
        return row.without(gpus.missing() or "the device is the CPU")
    if (why_not := _plain(subject, subject.device, HOME)) is not None:
        return row.without(f"only compiled engines have the same bits on both; {why_not}")

    def check(wrong: bool) -> Found:
        design = subject.seeded(int(wrong))
        return reduce(
            Found.again, [compare(subject.train(design=design, device=each), subject.whole) for each in others]
        )

    return checked(row, check)


def _plain(subject: Subject, *devices: torch.device) -> str | None:
    """Why some of the networks train on engine eager on one of `devices`; None if none does."""
    choices = [subject.start(each, device, subject.engine)[2] for each in subject.groups() for device in devices]
    return next((choice.reason for choice in choices if choice.name == "eager"), None)
