"""A cluster on which nobody trains: what `gpubp train --cluster` reads and writes of a run before its shards train."""

import json
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpubp.checkpoints import manifests
from gpubp.cluster import training
from gpubp.cluster.messages import NONE, Looked, clocks
from gpubp.cluster.record import Record
from gpubp.errors import ClusterError
from gpubp.evaluate import Evaluation, Round
from gpubp.system import files

from . import mutated_arrays, mutations
from .helpers import failing
from .mutations import Chance

BEGUN = ["train", "--data", "data.csv", "--target", "y", "--run-dir", "begun", "--networks", "6", "--steps", "9",
         "--search", "halving", "--cluster", "local", "--shards", "2", "--engine", "eager", "--device", "cpu",
         "--tensorboard", "false"]  # fmt: skip


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


def ray() -> SimpleNamespace:
    """A Ray of one machine with two CPUs, whose tasks run here and now."""

    def init(where: str, **_: Any) -> None:
        if where == "auto":
            raise ConnectionError("no Ray runs here")

    def remote(**_: Any) -> Callable[..., Any]:
        return lambda task: SimpleNamespace(remote=task)

    return SimpleNamespace(
        is_initialized=lambda: False, init=init, shutdown=lambda: None, remote=remote, put=lambda each: each,
        wait=lambda tasks, **_: (tasks, []), get=lambda each: each,
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}],
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
        _private=SimpleNamespace(worker=SimpleNamespace(), services=SimpleNamespace()),
    )  # fmt: skip


class Driver:
    """Lets a search decide once, hears of one evaluation of the first shard, writes that down, and ends."""

    def __init__(
        self, ray: Any, job: Any, shards: Sequence[Any], sets: Any, options: Any, together: Any, record: Record,
        root: Any, folder: Path,
    ) -> None:  # fmt: skip
        self.shards, self.record, self.folder, self.signals = shards, record, folder, list[int]()

    def train(self, runs: Sequence[Any], search: Any, meetings: Sequence[int]) -> Any:
        if search is not None and not self.record.decided and meetings:
            self.record.decide(self.folder, meetings[0], runs, search, exchanged=True)
        first = self.shards[0]
        times = [
            {name: each[index] for name, each in clocks(runs[group].state).items()}
            for group, index in zip(first.groups, first.index)
        ]
        none = [torch.zeros(len(index), dtype=torch.float64) for index in first.index]
        found = [Round(each, Evaluation(each, each), each, time["status"]) for each, time in zip(none, times)]
        self.record.wait(self.folder, {self.record.number + 1: {0: Looked(self.record.number + 1, times, found, NONE)}})
        self.record.save(self.folder)
        raise ClusterError("nobody trains here")

    def close(self) -> None:
        pass


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Let gpubp find this Ray, and no address that answers."""

    patch.setitem(sys.modules, "ray", ray())
    patch.setattr(socket, "create_connection", failing(ConnectionRefusedError("nobody answers")))
    patch.setattr(training, "Driver", Driver)


def of_a_record(chance: Chance) -> tuple[list[str], str]:
    """A run whose shards have not ended, its driver's record changed by somebody who knows how digests are made."""
    shutil.copytree("good/begun", "begun")
    folder = Path("begun/shards/driver")
    path = folder / "record.json"
    told = json.loads(path.read_text())
    del told["sha256"]
    kind = chance.choice(["record", "record", "record", "file", "waiting", "history", "bytes", "size", "place"])
    named = {"file": "decision-*.safetensors", "waiting": "waiting.pt"}
    what = kind
    if kind == "record":
        told, what = mutations.elsewhere(told, chance)
    elif kind == "history":
        told["history"] = [{"round": chance.choice([*mutations.JUNK, 2])}]
    elif kind in named:
        (other,) = folder.glob(named[kind])
        content = other.read_bytes()
        rows = kind == "file"
        other.write_bytes(
            mutated_arrays.rows_of_a_shard(chance, content) if rows else mutations.damaged(content, chance)[0]
        )
        told[kind] = files.digest(other)
    else:
        path = chance.choice(sorted(each for each in folder.iterdir() if each.is_file()))
        if kind == "bytes":
            path.write_bytes(mutations.damaged(path.read_bytes(), chance)[0])
        elif kind == "size":
            what = mutations.sparse(path, chance)
        else:
            Path("victim").write_text("somebody's")
            what = mutations.replaced(
                path, chance, Path("good", "networks.onnx").read_bytes(), Path("victim").absolute()
            )
    if kind in ("record", "history", *named):
        (folder / "record.json").write_text(json.dumps(told | {"sha256": manifests.digest(told)}))
    others = [["resume", "begun"], ["inspect", "begun"], ["resume", "begun", "--steps", "12"]]
    return chance.choice([BEGUN, BEGUN, BEGUN, ["resume", "begun", "--cluster", "local"], *others]), what
