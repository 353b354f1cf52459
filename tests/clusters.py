"""Designs trained in shards or in one place, compared, and workers of Ray to kill."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp import cluster
from gpubp.cluster.board import board

from .helpers import same_bits

ROOT = Path(__file__).resolve().parent.parent
STORE = 80 << 20  # bytes, the least that Ray takes
ROWS = [{"lr": 10.0 ** -(1 + row % 3), "optimizer": ("adam", "sgd")[row % 2], "seed": 50 - row} for row in range(15)]
PLAIN = [{"lr": (1 + row) * 1e-3} for row in range(12)]


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of two machines with a CPU each, which this process is connected to."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        checks = {"health_check_period_ms": 500}  # of which five tell that a machine is lost
        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "_system_config": checks}
        found = Cluster(initialize_head=True, head_node_args=head)
        found.add_node(num_cpus=1, object_store_memory=STORE)
        ray.init(found.address, log_to_driver=False, logging_level="ERROR")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield found
        ray.shutdown()
        found.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(name="iris", scope="module")
def irises() -> gpubp.sources.Prepared:
    return gpubp.load_data("iris")


def trained(
    iris: Any, shards: int | None, run_dir: Any = None, design: Any = ROWS, validation: bool = True, **more: Any
) -> gpubp.Result:
    """The run of a design in one place, or in shards."""
    settings = {"widths": "4,6,3", "loss": iris.loss, "epochs": 6, "batch_size": 16, **more}
    data = iris.training, iris.validation if validation else None
    if shards is None:
        return gpubp.train_many(design, *data, run_dir=run_dir, **settings)
    return cluster.train_many(design, *data, run_dir=run_dir, shards=shards, **settings)


def check_same(one: gpubp.Result, other: gpubp.Result) -> None:
    """The same bits of every network, the same table, the same records but for their seconds."""
    for mine, theirs in zip(one.states, other.states, strict=True):
        for (name, here), (_, there) in zip(mine.tensors(), theirs.tensors(), strict=True):
            if name in ("limit", "total"):  # where a round stands that networks which have ended take no part in
                continue
            assert same_bits(here, there), name
    assert one.table.equals(other.table)
    timeless = [
        [{name: each for name, each in record.items() if "second" not in name} for record in result.history]
        for result in (one, other)
    ]
    assert timeless[0] == timeless[1]


class At(gpubp.Reporter):
    """Does something once, after the evaluation of a round."""

    def __init__(self, number: int, what: Any) -> None:
        self.number, self.what = number, what

    def evaluated(self, record: Any) -> None:
        if record["round"] == self.number:
            self.number = 0
            self.what()


def slow(board: Callable[[], Any] = board) -> type:
    """A board that is behind: workers wait for what they tell to be heard."""

    class Slow(board()):
        def tell(self, letter: Any) -> Any:
            time.sleep(0.3)
            return super().tell(letter)

    return Slow


def workers(kind: str = "_train") -> list[int]:
    """The processes of this process's clusters that train a shard now, or do something else."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            name = (each / "cmdline").read_bytes().split(b"\0")[0].decode()
            if name.startswith(f"ray::{kind}") and ancestor(int(each.name), 2) == os.getpid():
                found.append(int(each.name))
        except OSError:
            continue
    return found


def ancestor(process: int, generations: int) -> int:
    for _ in range(generations):
        status = Path(f"/proc/{process}/status").read_text()
        process = int(status.partition("PPid:\t")[2].split()[0])
    return process


def interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def kill(kind: str = "_train") -> None:
    os.kill(max(workers(kind)), signal.SIGKILL)
