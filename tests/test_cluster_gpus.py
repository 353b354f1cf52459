"""Shards on GPUs that Ray believes in and nobody has: what each asks for, gets and sees. They train on the CPU."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import gpubp
from gpubp import cluster, gpus
from gpubp.cli import main
from gpubp.cluster.shards import Job
from gpubp.search import PopulationBased

from .clusters import PLAIN, STORE, check_same, trained

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

LACKS = "torch finds no GPU here"
TASKS = ["worker.fit", "worker.give", "worker.take", "driver._train"]


@pytest.fixture(scope="module", autouse=True)
def two(machines: Any) -> None:
    """One of the machines has two GPUs, and CPUs for more tasks than that."""
    machines.add_node(num_cpus=6, num_gpus=2, object_store_memory=STORE)


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


@pytest.mark.parametrize(
    "search", [None, pytest.param(PopulationBased(2), marks=pytest.mark.slow)], ids=["plain", "pbt"]
)
def test_there_is_a_shard_for_each_gpu_and_each_task_has_one_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: Any
) -> None:
    iris, folder = gpubp.load_data("iris"), tmp_path / "told"
    folder.mkdir()
    for name in TASKS:
        monkeypatch.setattr(f"gpubp.cluster.{name}", watched(name, folder))
    more: dict[str, Any] = {"widths": "4,6,3", "epochs": 4, "batch_size": 16, "search": search}
    found = cluster.train_many(PLAIN, iris.training, run_dir=tmp_path / "run", loss=iris.loss, **more)
    check_same(trained(iris, None, design=PLAIN, validation=False, **more), found)
    assert "shards: 2" in (tmp_path / "run" / "config.yaml").read_text()
    told = [json.loads(each.read_text()) for each in folder.iterdir()]
    assert {each["task"] for each in told} == {"fit", "_train"} | ({"give", "take"} if search else set())
    for each in told:
        assert (each["device"], each["resources"]) == ("cuda", {"GPU": 1.0, "CPU": 1.0})
        assert each["gpus"] == [each["visible"]], "torch sees the GPU that Ray gave, and no other"
    assert {each["visible"] for each in told} == {"0", "1"}
    for one, other in combinations(sorted(told, key=lambda each: each["begun"]), 2):
        assert one["visible"] != other["visible"] or one["ended"] <= other["begun"]
    processes = {each.name.partition("-")[0] for each in folder.iterdir()}
    assert len(processes) == len(told), "or torch would keep the GPU that the process had before"


@pytest.mark.parametrize(("first", "told"), [("worker.fit", ""), ("driver._train", "shard [01]: ")])
def test_a_worker_that_finds_no_gpu_is_told_of_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: str, told: str
) -> None:
    """On the machine where settings are tried, or on another one."""
    for name in TASKS:
        monkeypatch.setattr(f"gpubp.cluster.{name}", blind(name) if name == first else watched(name, tmp_path))
    flags = "train --data iris --networks 4 --steps 3 --tensorboard false --cluster auto --run-dir"
    assert main([*flags.split(), str(tmp_path / "run")]) == 1
    (error,) = (each for each in capsys.readouterr().err.splitlines() if "error" in each)
    machine = re.escape(socket.gethostname())
    assert re.fullmatch(f"error: {told}machine {machine}: device 'cuda': {LACKS}; use --device cpu", error)
