"""How far products on tensor cores (TrainConfig.precision) lead from exact ones: python -m benchmarks.precision

No GPU is needed: the CPU's kernels, with operands rounded as tensor cores round them, and added in the order in which
tests/play.h adds them, have the bits of the played GPU (tests/test_precision.py). A GPU may round sums otherwise.

First the distance of a network's row from float64's, over the way that float64 went, of the median and of the furthest
network; then the accuracy on the digits, of the same networks.
"""

import shutil
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor

import gpubp
from gpubp.engines import build, cpu, general
from gpubp.settings.recipe import PRECISIONS

from .harness import command
from .workloads import WORKLOADS, Workload

NAMES = {"8-16-1, SGD": "W2", "16-64-64-4, SGD": "W3-N256", "784-128-10, SGD": "W4-N64", "64-32-10, Adam": "W5"}
STEPS = (1, 100)
SPLIT = """\
#define TERMS %d
template <class A>
constexpr int terms_of = TASK == TRAIN ? TERMS : 0;
template <>
constexpr int terms_of<Ones> = 0;
FN v tf32(v x) { return reinterpret<v>((reinterpret<bits<v>>(x) + 0x1000) & ~0x1fff); }
template <int terms>
FN v part(v x, bool small) { return terms == 0 ? x : small ? tf32(x - tf32(x)) : tf32(x); }

"""
EDITS = {  # of product.h: with 3 terms small * big + big * small + big * big of each 8 of k
    "#if !ON_GPU || LAYOUT": SPLIT + "#if !ON_GPU || LAYOUT",
    "for (int k = 0; k < K; k++) {\n      v right": """\
constexpr int terms = terms_of<A>, together = terms == 3 ? 8 : K;
    for (int k8 = 0; k8 < K; k8 += together)
    for (int term = 0; term < max_of(terms, 1); term++)
    for (int k = k8; k < min_of(k8 + together, K); k++) {
      v right""",
    "hold(b.read(k, columns[n] * ENTRIES_PER_V))":
        "hold(part<terms>(b.read(k, columns[n] * ENTRIES_PER_V), terms == 3 && term == 1))",
    "hold(a.broadcast(rows[m], k))": "hold(part<terms>(a.broadcast(rows[m], k), terms == 3 && term == 0))",
}  # fmt: skip


@contextmanager
def rounded(precision: str) -> Iterator[None]:
    """Engine cpu with products that are rounded so, in training; evaluations stay exact."""
    with TemporaryDirectory() as folder, ExitStack() as patched:
        if terms := PRECISIONS[precision]:
            sources = Path(shutil.copytree(build.SOURCES, Path(folder) / "kernel"))
            text = (sources / "product.h").read_text(encoding="utf-8")
            for old, new in EDITS.items():
                assert text.count(old) == 1, old
                text = text.replace(old, new.replace("%d", str(terms)))
            (sources / "product.h").write_text(text, encoding="utf-8")
            patched.callback(build.sources.cache_clear)
            patched.enter_context(patch.object(build, "SOURCES", sources))
            build.sources.cache_clear()
        patched.enter_context(general.only(False))
        patched.enter_context(patch.object(cpu, "KERNELS", {}))
        patched.enter_context(patch.object(cpu, "CALLS", type(cpu.CALLS)()))
        yield


def row(workload: Workload, steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rows (N, P) of networks before their first step and after `steps`, in float64."""
    problem = workload.problem(workload.optimizers[0], dtype)
    data = gpubp.Dataset(problem.inputs.flatten(0, 1), problem.targets.flatten(0, 1))
    config = gpubp.TrainConfig(
        problem.optimizer, lr=problem.lr, batch_size=workload.batch, steps=steps, evaluate_every=steps, shuffle="none"
    )
    result = gpubp.train(problem.population, data, config, engine="cpu")
    return problem.population.params.double(), result.population.params.double()


def distances(name: str, count: int, precision: str, steps: int) -> Tensor:
    """(N,): of each network."""
    workload = replace(WORKLOADS[NAMES[name]], networks=count)
    begun, goal = row(workload, steps, torch.float64)
    with rounded(precision):
        _, end = row(workload, steps, torch.float32)
    return (end - goal).norm(dim=1) / (goal - begun).norm(dim=1)


def accuracies(count: int, precision: str) -> Tensor:
    """(N,): of the digits that networks have not seen, after 20 epochs."""
    data = gpubp.load_data("digits", validation=0.2)
    spec = gpubp.NetworkSpec((64, 32, 10), "relu", loss="cross_entropy")
    config = gpubp.TrainConfig(lr=torch.logspace(-3.5, -1.5, count), epochs=20, batch_size=64, evaluate_every=20)
    with rounded(precision):
        result = gpubp.train(gpubp.Population.create(spec, count), data.training, config, data.validation)
    return torch.tensor(result.table["validation_accuracy"].to_pylist(), dtype=torch.float64)


def main(networks: int = 32, on_digits: int = 1000) -> None:
    """Measure and print."""
    print(f"| distance from float64, {networks} networks | steps | {' | '.join(PRECISIONS)} |\n| --- | --- |"
          + " --- |" * len(PRECISIONS))  # fmt: skip
    for name in NAMES:
        for steps in STEPS:
            found = [distances(name, networks, precision, steps) for precision in PRECISIONS]
            cells = (f"{float(each.median()):.1e}, {float(each.max()):.1e}" for each in found)
            print(f"| {name} | {steps} | {' | '.join(cells)} |", flush=True)
    found = {precision: accuracies(on_digits, precision) for precision in PRECISIONS}
    for precision, each in found.items():
        less = (each - found["exact"]).tolist()
        error = statistics.stdev(less) / len(less) ** 0.5
        print(f"digits, {precision}: accuracy {float(each.mean()):.4f}, {statistics.mean(less):+.5f} +- {error:.5f} "
              "from exact")  # fmt: skip


if __name__ == "__main__":
    command(main, about=__doc__)
