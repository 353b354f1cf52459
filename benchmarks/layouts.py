"""The layouts of the engine `cpu` against each other: lanes as networks or as outputs, the batch whole or in chunks,
three registers, threads that share a network. The choice of engines/layout.py is compared with the best."""

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from gpubp.engines import build, cpu, general
from gpubp.engines import layout as rule
from gpubp.engines.layout import Kind, Layout

from .harness import Setting, interleave, ratio
from .peers import Engine
from .workloads import Problem, Workload

FLOAT = 4  # bytes
NETWORKS = 256
WORK, MOST_STEPS, SAMPLES = 4e9, 1024, 1 << 16  # model FLOP, steps and samples of a call, at most
HIDDEN = (8, 16, 32, 64, 128)
AROUND = ((8, 1, 1), (8, 4, 16), (32, 8, 16), (64, 16, 8), (32, 10, 64), (128, 10, 64), (16, 4, 128), (64, 32, 256))
DEEPER = (  # widths and batch
    ((8, 16, 16, 1), 32), ((16, 32, 32, 4), 64), ((16, 64, 64, 4), 128), ((32, 64, 32, 10), 16),
    ((64, 64, 64, 64, 10), 32), ((4, 8, 8, 8, 2), 8), ((256, 64, 10), 64), ((784, 32, 10), 64),
    ((784, 128, 10), 64), ((512, 256, 10), 16), ((16, 256, 4), 32), ((64, 512, 10), 64),
)  # fmt: skip
OPTIMIZERS = ("sgd", "adam")
ALONE = (((64, 32, 10), 64), ((784, 128, 10), 64), ((784, 512, 256, 10), 64))  # on several threads
TINY = (((2, 2, 2), 1), ((2, 8, 1), 1), ((2, 2, 2), 4), ((2, 8, 1), 4))  # in three registers


class LaidOut(Engine):
    """The engine `cpu` in a given layout, on a given number of threads."""

    def __init__(self, problem: Problem, layout: Layout, threads: int = 1) -> None:
        super().__init__(problem, "cpu")
        self.layout, self.threads = layout, threads

    def call(self) -> None:
        """K steps."""
        before = cpu.LAYOUT, rule.WORTH, torch.get_num_threads()
        cpu.LAYOUT, rule.WORTH = self.layout, 0
        torch.set_num_threads(self.threads)
        try:
            super().call()
        finally:
            cpu.LAYOUT, rule.WORTH = before[:2]
            torch.set_num_threads(before[2])


def workload(widths: tuple[int, ...], batch: int, networks: int = NETWORKS) -> Workload:
    """A workload with calls of some milliseconds."""
    case = Workload(widths, "relu", "mean_squared_error", networks, batch)
    steps = min(MOST_STEPS, SAMPLES // batch, int(WORK / (networks * case.flop)))
    return replace(case, steps=max(2, steps))


def race(case: Workload, optimizer: str, layouts: dict[str, tuple[Layout, int]], setting: Setting) -> dict[str, Any]:
    """Seconds of the calls in each layout and number of threads, by name."""
    problem = case.problem(optimizer)
    contenders = {name: LaidOut(problem, *each) for name, each in layouts.items()}
    for contender in contenders.values():
        contender.call()  # compiles
    seconds = interleave({name: contender.call for name, contender in contenders.items()}, setting)
    first, *others = (contender.params() for contender in contenders.values())
    if len({len(each) for each in seconds.values()}) == 1 and not all(torch.equal(first, each) for each in others):
        raise AssertionError(f"{case}: the layouts differ in a bit")
    facts = {"widths": list(case.widths), "batch": case.batch, "networks": case.networks, "steps": case.steps}
    return {**facts, "optimizer": optimizer, "seconds": seconds}


def chosen(case: Workload, optimizer: str) -> Layout:
    """The choice of engines/layout.py on one thread."""
    slots = {"sgd": 0, "adam": 2}[optimizer]
    given = case.widths, case.batch, slots, FLOAT, case.networks, 1, build.vector_bytes(), False
    return general.chosen(*given).own


def against_the_rule(case: Workload, optimizer: str, setting: Setting) -> dict[str, Any]:
    """Both kinds of lanes, the batch whole and in chunks. lanes: rate of networks over that of outputs, each with its
    better split; excess: time of the chosen layout over that of the fastest, minus 1."""
    lanes, mine = rule.plain(FLOAT, build.vector_bytes()), chosen(case, optimizer)
    layouts: dict[str, tuple[Layout, int]] = {}
    for name, kind in (("networks", Kind.CPU_NETWORKS), ("outputs", Kind.CPU_OUTPUTS)):
        for cut in dict.fromkeys((case.batch, min(case.batch, rule.chunk_of(case.batch)))):
            layouts[f"{name}, {cut}"] = replace(lanes, kind=kind, chunk=cut), 1
    layouts.setdefault(next((name for name, each in layouts.items() if each[0] == mine), "chosen"), (mine, 1))
    result = race(case, optimizer, layouts, setting)
    spent = {name: statistics.median(each) for name, each in result["seconds"].items()}
    best = {kind: min((name for name in spent if name.startswith(kind)), key=spent.__getitem__)
            for kind in ("networks", "outputs")}  # fmt: skip
    taken = next(name for name, each in layouts.items() if each[0] == mine)
    lanes_ratio = ratio(result["seconds"][best["outputs"]], result["seconds"][best["networks"]])
    return {**result, "taken": taken, "lanes": lanes_ratio, "excess": spent[taken] / min(spent.values()) - 1}


def cases(setting: Setting) -> Iterator[dict[str, Any]]:
    """Every topology with every optimizer."""
    around = [((i, hidden, o), batch) for i, o, batch in AROUND for hidden in HIDDEN]
    for (widths, batch), optimizer in itertools.product((*around, *DEEPER), OPTIMIZERS):
        yield against_the_rule(workload(widths, batch), optimizer, setting)


def sharing(threads: int, setting: Setting) -> Iterator[dict[str, Any]]:
    """A single network on all threads and on one. gain: the rate of the former over the latter's."""
    outputs = replace(rule.plain(FLOAT, build.vector_bytes()), kind=Kind.CPU_OUTPUTS)
    for widths, batch in ALONE:
        layouts = {"one thread": (outputs, 1), "shared": (replace(outputs, kind=Kind.CPU_TEAM), threads)}
        result = race(workload(widths, batch, networks=1), "adam", layouts, setting)
        gain = ratio(result["seconds"]["one thread"], result["seconds"]["shared"])
        yield {**result, "threads": threads, "gain": gain}


def registers(setting: Setting) -> Iterator[dict[str, Any]]:
    """Three registers in parallel and one, on one thread. gain: the rate of the former over the latter's."""
    one = rule.plain(FLOAT, build.vector_bytes())
    three = replace(one, registers=3, accumulators=one.accumulators // 3)
    for widths, batch in TINY:
        case = workload(widths, batch, networks=96 * one.vector)
        result = race(case, "sgd", {"one register": (one, 1), "three registers": (three, 1)}, setting)
        gain = ratio(result["seconds"]["one register"], result["seconds"]["three registers"])
        yield {**result, "gain": gain}
