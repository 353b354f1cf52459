"""Designs trained in shards or in one place, compared; workers of Ray to kill, and tasks on GPUs that nobody has."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp import cluster
from gpubp.cluster.board import board
from gpubp.cluster.shards import Job
from gpubp.engines import build
from gpubp.system import gpus

from .helpers import FAST, differing, failing

ROOT = Path(__file__).resolve().parent.parent
STORE = 80 << 20  # bytes, the least that Ray takes
ROWS = [{"lr": 10.0 ** -(1 + row % 3), "optimizer": ("adam", "sgd")[row % 2], "seed": 50 - row} for row in range(15)]
PLAIN = [{"lr": (1 + row) * 1e-3} for row in range(12)]
LONG = {"design": PLAIN, "epochs": 120, "evaluate_every": 2, "checkpoint_minutes": 0}  # 60 rounds of 15 steps
LACKS = "torch finds no GPU here"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of a machine with two CPUs, which this process is connected to. Workers compile fast too."""
    import ray
    from ray.cluster_utils import Cluster

    compiler = tmp_path_factory.mktemp("bin") / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "g++")} "$@" {" ".join(FAST)}\n')
    compiler.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", str(compiler))
        patch.setattr(build, "FLAGS", tuple(flag for flag in build.FLAGS if flag not in FAST))  # the compiler has them
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        checks = {"health_check_period_ms": 500}  # of which five tell that a machine is lost
        head = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True, "_system_config": checks}
        found = Cluster(head_node_args={"num_cpus": 2, "object_store_memory": STORE, **head}, initialize_head=True)
        ray.init(found.address, log_to_driver=False, logging_level="ERROR")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield found
        ray.shutdown()
        found.shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(name="iris", scope="module")
def irises() -> gpubp.Prepared:
    return gpubp.load_data("iris")


def trained(
    iris: Any, shards: int | None, run_dir: Any = None, design: Any = ROWS, validation: bool = True, **more: Any
) -> gpubp.Result:
    """The run of a design in one place, or in shards."""
    settings = {"widths": "4,6,3", "loss": iris.loss, "epochs": 6, "batch_size": 16, "engine": "eager", **more}
    data = iris.training, iris.validation if validation else None
    if shards is None:
        return gpubp.train_many(design, *data, run_dir=run_dir, **settings)
    return cluster.train_many(design, *data, run_dir=run_dir, shards=shards, device="cpu", **settings)


def check_same(one: gpubp.Result, other: gpubp.Result) -> None:
    """The same bits of every network, the same table, the same records but for their seconds."""
    for mine, theirs in zip(one.states, other.states, strict=True):
        # where a round stands that networks which have ended take no part in
        assert {*differing(mine, theirs)} <= {"limit", "total"}
    assert one.table.equals(other.table)
    timeless = [
        [{name: each for name, each in record.items() if "second" not in name} for record in result.history]
        for result in (one, other)
    ]
    assert timeless[0] == timeless[1]


class At(gpubp.Reporter):
    """Does something once, after the evaluation of a round, or of a later one if that is not heard of."""

    def __init__(self, number: int, what: Any) -> None:
        self.number, self.what = number, what

    def evaluated(self, record: Any) -> None:
        if 0 < self.number <= record["round"]:
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


interrupted = failing(KeyboardInterrupt)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def kill(kind: str = "_train") -> None:
    os.kill(max(workers(kind)), signal.SIGKILL)


def watch(patch: pytest.MonkeyPatch, folder: Path, blinded: str = "") -> None:
    """Tasks are watched, but for the one of the name `blinded`."""
    for name in ("worker.fit", "worker.give", "worker.take", "driver._train"):
        patch.setattr(f"gpubp.cluster.{name}", blind(name) if name == blinded else watched(name, folder))


def watched(name: str, folder: Path) -> Callable[..., Any]:
    """The task of that name, on the CPU. It leaves in `folder` what it was given, and when it ran."""
    module, _, task = name.partition(".")

    def watching(*given: Any) -> Any:
        import ray

        context, told = ray.get_runtime_context(), {"task": task, "begun": time.monotonic()}
        told["device"] = next(each.device if isinstance(each, Job) else each for each in given if of_device(each))
        told["resources"], told["gpus"] = context.get_assigned_resources(), context.get_accelerator_ids()["GPU"]
        told["visible"] = os.environ["CUDA_VISIBLE_DEVICES"]
        found = getattr(import_module(f"gpubp.cluster.{module}"), task)(*map(at_home, given))
        (folder / f"{os.getpid()}-{time.time_ns()}").write_text(json.dumps(told | {"ended": time.monotonic()}))
        return found

    def of_device(given: Any) -> bool:
        return isinstance(given, Job) or (isinstance(given, str) and given in ("cpu", "cuda"))

    def at_home(given: Any) -> Any:
        home = given._replace(device="cpu") if isinstance(given, Job) else "cpu"
        return home if of_device(given) else given

    return watching


def blind(name: str) -> Callable[..., Any]:
    """The task of that name where torch sees no GPU, whatever Ray says."""
    module, _, task = name.partition(".")

    def seeing_nothing(*given: Any) -> Any:
        gpus.missing = lambda: LACKS
        return getattr(import_module(f"gpubp.cluster.{module}"), task)(*given)

    return seeing_nothing
