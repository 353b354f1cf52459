"""Record: the driver's decisions so far, in RUN/shards/driver/, from which repeating the call continues.

    record.json                the digest of what is trained, how many decisions there were, and the last one's round;
                               whether shards have its rows; the search's settings; the part of history.jsonl, seconds
    decision-00000002.safetensors   what the last decision made of all networks but their rows
    waiting.pt                 evaluations of some shards, which no record has yet, as others have not had them

record.json is written last, with a SHA-256 of each of the others and one of itself. Damaged files are refused, except
evaluations, which are left out: no network depends on them. Nothing in these files can execute code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch.serialization import safe_globals

from ..checkpoints import history, manifests
from ..checkpoints.history import History
from ..errors import CheckpointError, ConfigError
from ..evaluate import Evaluation, Round
from ..runs.design import Group
from ..runs.loop import Search
from ..runs.run import Sets
from ..settings.config import TrainConfig
from ..system import files
from .meeting import LightRun
from .messages import Looked
from .shards import Part

RECORD = "record.json"
WAITING = "waiting.pt"
Waiting = dict[int, dict[int, Looked]]  # by round and shard


@dataclass
class Record:
    """digest: of what is trained; shards: how many. decided: decisions so far, the last at the end of the round
    `number`, in a file with SHA-256 `file`; exchanged: whether shards have its rows; waiting: the SHA-256 of waiting
    evaluations, if any."""

    digest: str
    shards: int
    decided: int = 0
    number: int = 0
    file: str = ""
    exchanged: bool = True
    search: Any = None
    seconds: float = 0.0
    waiting: str = ""
    history: History = field(default_factory=History)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The record in `folder`, if there is one. Raises CheckpointError."""
        path = folder / RECORD
        if not path.exists():
            return None
        with files.trusted(path):
            told = json.loads(files.read(path))
            if told.pop("sha256") != manifests.digest(told):
                raise ValueError
            record = cls(**told)
            plain = [each for each in fields(cls) if each.type in (str, int, bool, float)]
            found = [(each.type, getattr(record, each.name)) for each in plain]
            if any(type(value) is not kind or value < kind() for kind, value in found):  # or negative
                raise ValueError
        try:
            return replace(record, history=History.load(folder, record.history))
        except CheckpointError:
            return replace(record, history=History())  # no network depends on it

    def save(self, folder: Path) -> None:
        """Write it. Raises CheckpointError."""
        with files.written(folder, CheckpointError):
            folder.mkdir(parents=True, exist_ok=True)
            told = {**vars(self), "history": self.history.save(folder)}
            files.write_text(folder / RECORD, json.dumps({**told, "sha256": manifests.digest(told)}) + "\n")
            for old in folder.glob("decision-*.safetensors"):
                if old != self.decision(folder):
                    old.unlink()

    def wait(self, folder: Path, waiting: Waiting) -> None:
        """Write waiting evaluations, before save(). Raises CheckpointError."""
        with files.written(folder, CheckpointError):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / WAITING, lambda beside: torch.save(waiting, beside))
            self.waiting = files.digest(folder / WAITING)

    def waited(self, folder: Path) -> Waiting:
        """The evaluations that waited; none if they differ from what was written."""
        with suppress(Exception):  # an invalid pickle may raise any
            if self.waiting and files.digest(folder / WAITING) == self.waiting:
                with safe_globals([Looked, Round, Evaluation]):  # besides these, only tensors and plain values load
                    return dict(torch.load(folder / WAITING, weights_only=True))
        return {}

    def decision(self, folder: Path) -> Path:
        """The file of the last decision."""
        return folder / f"decision-{self.decided:08}.safetensors"

    def decide(self, folder: Path, number: int, runs: Sequence[LightRun], search: Search, exchanged: bool) -> None:
        """Write what `search` decided at the end of the round `number`. Raises CheckpointError."""
        self.decided, self.number, self.exchanged = self.decided + 1, number, exchanged
        content = {
            f"{at}.{name}": each.contiguous() for at, run in enumerate(runs) for name, each in run.state.tensors()
        }
        with files.written(folder, CheckpointError):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(self.decision(folder), lambda beside: save_file(content, beside))
            self.file = files.digest(self.decision(folder))
            self.search = history.with_files(search.to_dict(), folder, number)
        self.save(folder)

    def restore(self, folder: Path, runs: Sequence[LightRun]) -> None:
        """Restore the last decision in `runs`. Raises CheckpointError."""
        if not self.decided:
            return
        path = self.decision(folder)
        with files.trusted(path):
            if files.digest(path) != self.file:
                raise ValueError
            content = load_file(path)
            for at, run in enumerate(runs):
                run.number, count = self.number, len(run.rows)
                for name, each in run.state.tensors():
                    found = content[f"{at}.{name}"]
                    if (found.dtype, found.shape) != (each.dtype, each.shape):
                        raise ValueError
                    each.copy_(found)
                run.state.bound(run.sets.data)
                if not ((run.state.source >= 0) & (run.state.source < count)).all():
                    raise ValueError


def digest(parts: Sequence[Part], engines: Sequence[str], sets: Sets, shards: int, search: Mapping[str, Any]) -> str:
    """SHA-256 of all that the shards' bits depend on."""
    found = hashlib.sha256(json.dumps([engines, shards, sets.fingerprints, search], default=repr).encode())
    for part in parts:
        plain, tensors = _told(part.config)
        tensors |= {"rows": part.rows, "position": part.position, "ids": part.ids}
        if isinstance(part, Group):
            tensors["params"] = part.population.params
            tensors |= {} if part.before is None else dict(part.before.tensors())
        else:
            plain |= {"init": part.init}
            tensors["scale"] = torch.as_tensor(float("nan") if part.scale is None else part.scale)
        found.update(json.dumps([part.spec.to_dict(), part.seed, str(part.dtype), plain]).encode())
        for name, each in tensors.items():
            found.update(f"{name} {each.dtype} {tuple(each.shape)};".encode())
            found.update(each.cpu().contiguous().numpy().data)
    return found.hexdigest()


def _told(config: TrainConfig) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A configuration as plain values and tensors."""
    values = {**config.to_dict(), **{f"extra.{name}": each for name, each in config.extra.items()}}
    del values["extra"]
    tensors = {name: each for name, each in values.items() if isinstance(each, torch.Tensor)}
    plain = {name: str(each) for name, each in values.items() if name not in tensors}
    return plain, tensors


def check(record: Record, digest: str, shards: int, run_dir: str) -> Record:
    """`record`, if it is this run's. Raises ConfigError if it is another's."""
    if record.shards != shards:
        raise ConfigError(f"shards {shards}: the run in {run_dir} began with {record.shards}")
    if record.digest != digest:
        raise ConfigError(f"run directory {run_dir} has shards of a run with other settings or data; name a new one")
    return record
