"""Shards as tasks of Ray: python -m benchmarks.cluster [--seconds 60] [--rounds 3] [--simulate 1000].

The time of one worker of one core with N networks, of two with 2 N, and of N without Ray and with one thread, in
interleaved rounds, as ratios; both the whole call and the training in it. --simulate instead measures what a task, a
message, a record and a checkpoint cost here, and plays a run of so many shards, and of a tenth and of ten times as many
(cluster_model.py)."""

import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch

import gpubp
from gpubp import cluster
from gpubp.checkpoints import checkpoint
from gpubp.checkpoints.history import History
from gpubp.checkpoints.stored import is_row
from gpubp.cluster.board import board
from gpubp.cluster.meeting import light_runs
from gpubp.cluster.merge import outcomes, saved
from gpubp.cluster.messages import NONE, End, Looked, clocks
from gpubp.cluster.progress import Together
from gpubp.cluster.shards import dealt
from gpubp.cluster.storage import Storage
from gpubp.evaluate import Evaluation, Round
from gpubp.networks import Figures
from gpubp.reporters import Progress
from gpubp.reporters.listeners import Listeners
from gpubp.results.saved import write
from gpubp.results.table import Results
from gpubp.runs.design import Design
from gpubp.runs.making import Source
from gpubp.runs.run import Sets
from gpubp.system import lock

from .cluster_model import Cluster, Costs, meeting, simulate
from .harness import command, cost

COMMON = {"widths": "16,64,64,4", "loss": "mean_squared_error", "batch_size": 32}
NETWORKS = 512  # of one worker
STORE = 200 << 20  # bytes of a machine's object store


def main(seconds: float = 60.0, rounds: int = 3, simulate: int = 0) -> None:
    """seconds: that one core trains; simulate: shards of a run to play, instead."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster as Machines

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    machines = Machines(initialize_head=True, head_node_args=head)
    machines.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(machines.address, log_to_driver=False, logging_level="ERROR")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4096, 16, generator=generator)
    data = gpubp.Dataset(inputs, torch.tanh(inputs @ torch.randn(16, 4, generator=generator)))
    try:
        with tempfile.TemporaryDirectory() as folder:
            if simulate:
                play(costs(ray, data, Path(folder)), simulate)
            else:
                efficiency(data, Path(folder), seconds, rounds)
    finally:
        ray.shutdown()
        machines.shutdown()


def efficiency(data: gpubp.Dataset, folder: Path, seconds: float, rounds: int) -> None:
    """One worker and two, beside the same without Ray."""
    torch.set_num_threads(1)
    trained(0, data, folder / "first", 50)  # compiles
    probe = trained(0, data, folder / "probe", 500)
    steps = max(500, round(500 * seconds / probe.seconds))
    print(f"{NETWORKS} networks of 16-64-64-4 for each worker, {steps:,} steps")
    trained(2, data, folder / "warm", 50)
    times = [
        [timed(shards, data, folder / f"{number}-{shards}", steps) for shards in range(3)] for number in range(rounds)
    ]
    none, one, two = numpy.array(times).transpose(1, 0, 2)
    for name, ratios in {"one over none": none / one, "two over none": none / two, "two over one": one / two}.items():
        whole, training = numpy.median(ratios, axis=0)
        print(f"efficiency of {name}: {whole:.3f}; of training {training:.3f} ({ratios[:, 1].min():.3f} to "
              f"{ratios[:, 1].max():.3f})")  # fmt: skip


def rows(networks: int, steps: int) -> dict[str, list[float]]:
    return {"lr": [1e-4 * (1 + row % 100) for row in range(networks)], "steps": [steps] * networks}


def trained(shards: int, data: gpubp.Dataset, folder: Path, steps: int) -> gpubp.Result:
    """NETWORKS for each of the shards; 0: as for one, without Ray."""
    given, common = rows(NETWORKS * max(1, shards), steps), {**COMMON, "run_dir": folder}
    return (
        cluster.train_many(given, data, shards=shards, **common) if shards else gpubp.train_many(given, data, **common)
    )


def timed(shards: int, *given: Any) -> tuple[float, float]:
    """Seconds of a call, and of the training in it: of shards, with their start, saving and evaluation."""
    result, clock, _ = cost(lambda: trained(shards, *given))
    return clock, result.step_seconds if shards else result.seconds


def costs(ray: Any, data: gpubp.Dataset, folder: Path) -> Costs:
    """What one request costs here."""
    first = spent(lambda: ray.get(ray.remote(num_cpus=1)(imported).remote()))
    result = trained(0, data, folder / "run", 100)
    nothing = ray.remote(num_cpus=1)(nothing_done)
    ray.get([nothing.remote() for _ in range(20)])
    task = spent(lambda: ray.get([nothing.remote() for _ in range(500)])) / 500
    news, content = ray.remote(num_cpus=0)(board()).remote(), pickle.dumps(Progress(0, 0.0, 0))
    ray.get(news.taken.remote({}))

    def tell() -> None:
        for number in range(2000):
            news.tell.remote(((0, ""), number, content))
        ray.get(news.taken.remote({}))

    message = spent(tell) / 2000
    design = Design.of(rows(20_000, 100), **COMMON)
    parts, sets = Source(0, torch.float32, None).planned(design), Sets(data)
    shards = list(dealt(parts, 10))
    runs = light_runs(parts, [("cpu", "")], sets, False)
    looked = [nothing_found(shard, runs) for shard in shards]
    together = Together(runs, shards, Listeners((), lambda *_: None), History(), 0.0, (), {})
    record = spent(lambda: together.record(1, looked)) / 20_000
    size = (folder / "run" / "checkpoint").glob("tensors-*")
    state = max(each.stat().st_size for each in size) / NETWORKS
    light = sum(each.nbytes for name, each in result.state.tensors() if not is_row(name)) / NETWORKS
    found = Costs(
        task, message, record, joined(shards, parts, runs, sets, folder / "joined") / 20_000, tidied(folder / "left"),
        state, len(pickle.dumps(looked[0])) / 2000, len(pickle.dumps(shards[0])) / 2000, light, first,
    )  # fmt: skip
    for name, value in asdict(found).items():
        print(f"{name}: {value:.3g}")
    return found


def joined(shards: Sequence[Any], parts: Sequence[Any], runs: Sequence[Any], sets: Sets, folder: Path) -> float:
    """Seconds from the last reports of shards to the files of the run."""
    notes = {"number": 1, "open": False, "folds": False, "engine": "cpu", "engine_reason": "", **sets.fingerprints}
    reports = []
    for shard in shards:
        (index,), numbers = shard.index, torch.rand(len(shard.index[0]))
        named = {"file": f"shards/{shard.number}/checkpoint/tensors-00000001.safetensors", "sha256": 64 * "0"}
        figures = Figures(Evaluation(numbers, numbers), None, torch.full(numbers.shape, -1, dtype=torch.int16))
        end = End([figures], [notes], named | {"networks": shard.networks(len(shards))}, "")
        states = [{name: each[index] for name, each in runs[0].state.tensors() if name != "source"}]
        reports.append(pickle.dumps((states, end)))
    lock.file(folder).parent.mkdir(parents=True)

    def join() -> None:
        each = [pickle.loads(report) for report in reports]
        for shard, (states, _) in zip(shards, each):
            runs[0].state.put_in(shard.index[0], states[0])
        ends = [end for _, end in each]
        networks = saved(runs, parts, shards, ends)
        write(Results(outcomes(networks, shards, ends, False), "r2"), folder)
        told = {"number": 1, "history": History(), "seconds": 1.0, "settings": {}}
        checkpoint.save(folder, networks, told, [end.file for end in ends])

    return spent(join)


def tidied(folder: Path, shards: int = 200) -> float:
    """Seconds for a shard's folder."""
    kept = set()
    for shard in range(shards):
        where = folder / f"{shard}" / "checkpoint"
        where.mkdir(parents=True)
        names = ("lock", "manifest.json", "manifest.previous.json", "tensors-00000001.safetensors", "../curves.bin")
        for name in (*names, "../history.jsonl", "tensors-00000002.safetensors"):
            (where / name).write_bytes(b"x")
        kept.add(f"{shard}/checkpoint/tensors-00000002.safetensors")
    return spent(lambda: Storage(str(folder)).keep(kept)) / shards


def nothing_done() -> None:
    """The task that costs least."""


def imported() -> str:
    """What a new worker does first."""
    import gpubp.cluster

    return gpubp.cluster.__name__


def nothing_found(shard: Any, runs: Sequence[Any]) -> Looked:
    """An evaluation of a shard, of any numbers."""
    index, state = shard.index[0], runs[0].state
    numbers = torch.rand(len(index), dtype=torch.float64)
    found = Round(numbers, None, numbers, state.status[index])
    return Looked(1, [{name: each[index] for name, each in clocks(state).items()}], [found], NONE)


def spent(what: Callable[[], object]) -> float:
    """Seconds."""
    return cost(what)[1]


def play(measured: Costs, shards: int) -> None:
    """Runs of more and more shards."""
    for number in (shards // 10, shards, 10 * shards):
        given = Cluster(number)
        found = simulate(measured, given)
        busy = ", ".join(f"{name} {share:.1%}" for name, share in sorted(found.busy.items()))
        print(f"{number:,} shards of {given.networks:,} networks, {given.hours:g} h: efficiency "
              f"{found.efficiency:.1%}, and {found.ideal / (found.seconds - found.joining):.1%} before the joining of "
              f"{found.joining:,.0f} s; busy: {busy}; redone {found.redone / 3600:.2f} h")  # fmt: skip
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in meeting(measured, given).items())
        print(f"    a meeting point: {parts}")


if __name__ == "__main__":
    command(main, about=__doc__)
