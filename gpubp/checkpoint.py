"""Checkpoints: every tensor of a state in one safetensors file, everything else in a JSON manifest beside it.

    RUN/checkpoint/manifest.json                 format, version, specification, configuration, round, how much of
                                                 RUN/history.jsonl is this checkpoint's (history.py)
    RUN/checkpoint/tensors-00000012.safetensors  what the manifest names, with its SHA-256
    RUN/checkpoint/manifest.previous.json        the checkpoint before that one, with tensors of its own

The manifest carries a SHA-256 of itself. Each file is written beside and renamed, the manifest after its tensors, the
previous one after that, and only then is deleted what neither names: a run killed at any instant leaves a whole pair.
Where the newer pair is damaged, load() takes the previous one and says so. Nothing in them can execute code. What is
damaged, foreign or of another version is refused with its reason, and so is what an engine could not be given, whatever
its digest: every tensor and note is checked for its type, shape and range. A history that is damaged is left out, which
is said: no number of a network depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import arrays, files, history, lock
from .config import TrainConfig
from .engines import ENGINES
from .errors import CheckpointError, ConfigError, reason
from .history import History
from .population import Population
from .spec import NetworkSpec
from .state import TrainState

FORMAT, VERSION = "gpubp checkpoint", 4
PIECE, BLOCK = 1 << 26, 1 << 20  # bytes: of what a thread digests, and of what it reads at once
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"
PREPARATION = "preparation.json"
NOTES = ("number", "history", "seconds", "engine", "engine_reason", "data", "validation")  # what the loop saves


@dataclass(frozen=True)
class Checkpoint:
    """A saved state, and what the loop had saved with it. told: what a person should know of how it was found. older:
    whether a newer one is damaged. preparation: the SHA-256 of the run's preparation.json; None where it had none."""

    state: TrainState
    config: TrainConfig
    notes: dict[str, Any]
    told: tuple[str, ...] = ()
    older: bool = False
    preparation: str | None = None


class ForeignError(CheckpointError):
    """A sound checkpoint that another gpubp wrote: an older one beside it is not what was meant."""


def save(run_dir: Path, state: TrainState, config: TrainConfig, notes: Mapping[str, Any]) -> None:
    """Save `state`, its `config` and the JSON-able `notes` as the run's checkpoint, and keep the previous one.

    Raises CheckpointError where that cannot be done: the run's checkpoint is then what it was, nothing else is left,
    and save() may be called again."""
    folder = run_dir / "checkpoint"
    manifest, before = folder / MANIFEST, _bytes(folder / MANIFEST)
    number = max((_number(path) for path in folder.glob("tensors-*.safetensors")), default=0) + 1
    tensors = folder / f"tensors-{number:08}.safetensors"
    lock.check(run_dir)
    try:
        _write(tensors, manifest, state, config, notes)
    except BaseException as error:
        stays = _bytes(manifest) == before  # or else it failed when the manifest was in its place
        if stays:
            with suppress(OSError):
                tensors.unlink()
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        more = "; the previous one is kept" if stays and before else ""
        why = reason(error, str(error).rpartition(": ")[2])  # safetensors has the system's at its end
        raise CheckpointError(f"{folder}: the checkpoint cannot be written: {why}{more}") from error
    if before and _named(before):
        with suppress(OSError):  # then the one that is there stays
            files.write(folder / PREVIOUS, lambda beside: beside.write_bytes(before))
    _tidy(folder)


def _write(tensors: Path, manifest: Path, state: TrainState, config: TrainConfig, notes: Mapping[str, Any]) -> None:
    run_dir, history = manifest.parent.parent, notes.get("history")
    packed, own = _packed(config)
    content = {name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors()} | own
    _make_room(tensors.parent, sum(tensor.nbytes for tensor in content.values()))
    files.write(tensors, lambda beside: save_file(content, beside))
    kept = {"history": history.save(run_dir, notes["number"])} if isinstance(history, History) else {}
    described = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": tensors.name,
        "sha256": _digest(tensors),
        "spec": state.population.spec.to_dict(),
        "seed": state.population.seed,
        "config": packed,
        "notes": dict(notes) | kept,
        "preparation": digest_of(run_dir / PREPARATION),
    }
    text = json.dumps(described | {"manifest_sha256": _own_digest(described)}, indent=1)
    files.write_text(manifest, text + "\n")


def load(run_dir: Path, device: torch.device) -> Checkpoint:
    """The run's checkpoint, on `device`; where it is damaged, the one before it. Another process may save meanwhile.
    Raises CheckpointError with the reason where none can be trusted."""
    folder = run_dir / "checkpoint"
    while True:
        seen = _bytes(folder / MANIFEST)
        try:
            return _read(folder, MANIFEST, device)
        except ForeignError:
            raise
        except CheckpointError as error:
            damaged = error
        if seen == _bytes(folder / MANIFEST):  # or else another was saved meanwhile
            break
    try:
        before = _read(folder, PREVIOUS, device)
    except CheckpointError:
        raise damaged from None
    used = f"{damaged}; the checkpoint before it is used, of round {before.notes['number']}"
    return replace(before, told=(used, *before.told), older=True)


def begun(run_dir: Path) -> bool:
    """Whether a run was begun in `run_dir`, and ended before it saved anything."""
    folder, records = run_dir / "checkpoint", run_dir / history.FILE
    if not folder.is_dir() or any(os.path.lexists(folder / name) for name in (MANIFEST, PREVIOUS)):
        return False
    later = any(_number(path) > 1 for path in folder.glob("tensors-*.safetensors")) or any(run_dir.glob("results.*"))
    if later or (records.exists() and records.stat().st_size):  # its manifests are lost
        return False
    return lock.file(run_dir).exists() or ([*run_dir.iterdir()] == [folder] and not any(folder.iterdir()))


def _read(folder: Path, name: str, device: torch.device) -> Checkpoint:
    """The checkpoint whose manifest is the file `name`."""
    path = folder / name
    try:
        manifest = json.loads(files.read(path))
        _check(path, manifest)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not there: {folder.parent} is not the directory of a run, or it saved nothing"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not what was written')}") from None
    try:
        tensors = folder / Path(manifest["tensors"]).name
        if _digest(tensors, manifest["version"]) != manifest["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one in {name}")
        content = load_file(tensors, device=str(device))
        spec = NetworkSpec.from_dict(manifest["spec"])
        config = TrainConfig.from_dict(_unpacked(manifest["config"], content))
        state = _state(spec, config, manifest["seed"], content)
        state.check()
        notes = {each: manifest["notes"][each] for each in NOTES}
        _check_notes(notes, config)
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:
        why = reason(error, "they are no safetensors")
        raise CheckpointError(f"{tensors} cannot be read: {why}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        why = reason(error, f"{name} says something of another type")
        raise CheckpointError(f"{folder} does not hold a whole state: {why}") from None
    told: list[str] = []
    try:
        notes["history"] = History.load(folder.parent, notes["history"])
    except CheckpointError as error:
        notes["history"] = History()
        told.append(f"{error}; the history begins anew after round {notes['number']}; the networks are whole")
    return Checkpoint(state, config, notes, tuple(told), preparation=manifest.get("preparation"))


def _check(path: Path, manifest: Any) -> None:
    """Refuse what is no manifest, is damaged, or is of another version; version 1 had no digest of itself."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a gpubp checkpoint")
    version = manifest.get("version")
    if version != 1 and manifest.get("manifest_sha256") != _own_digest(manifest):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    if version not in range(1, VERSION + 1):
        raise ForeignError(f"{path} is of version {version!r}; this gpubp reads versions 1 to {VERSION}")


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file of the run's that is no larger than memory; None where there is none."""
    content = _bytes(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _check_notes(notes: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise ConfigError unless the notes are what a loop goes on from."""
    number, seconds = arrays.whole(notes["number"]), notes["seconds"]
    rounds = -(-config.longest // config.interval)
    texts = [notes[name] for name in ("engine_reason", "data", "validation") if notes[name] is not None]
    sound = {
        f"round {notes['number']!r} of {rounds}": number is not None and 0 <= number <= rounds,
        f"{seconds!r} seconds": type(seconds) in (int, float) and 0 <= seconds < float("inf"),
        f"engine {notes['engine']!r}": isinstance(notes["engine"], str) and notes["engine"] in ENGINES,
        "reason and fingerprints": notes["engine_reason"] is not None and all(isinstance(each, str) for each in texts),
    }
    for what in (what for what, good in sound.items() if not good):
        raise ConfigError(f"{what}; what a run goes on from expected")


def _own_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its digest, as JSON with sorted names and without spaces."""
    rest = {name: value for name, value in json.loads(json.dumps(manifest)).items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _named(manifest: bytes | None) -> dict[str, Any]:
    """A manifest that is what was written, or {}."""
    try:
        found = json.loads(manifest or b"")
        _check(Path(MANIFEST), found)
    except (ValueError, RecursionError):  # a CheckpointError is a ValueError
        return {}
    return dict(found) if all(isinstance(found.get(name), str) for name in ("tensors", "sha256")) else {}


def _tidy(folder: Path) -> None:
    """Delete the tensors that no manifest names, and what killed processes left beside."""
    named = {_named(_bytes(folder / name)).get("tensors") for name in (MANIFEST, PREVIOUS)}
    files.sweep(folder)
    for old in folder.glob("tensors-*.safetensors"):
        if old.name not in named:
            with suppress(OSError):  # the next one tidies up
                old.unlink()


def _make_room(folder: Path, size: int) -> None:
    """Where the disk has no room for a third pair of `size` bytes, delete the previous one, if the newer is whole."""
    if shutil.disk_usage(folder).free < size:
        newer = _named(_bytes(folder / MANIFEST))
        if newer and _digest(folder / Path(newer["tensors"]).name, newer["version"]) == newer["sha256"]:
            (folder / PREVIOUS).unlink(missing_ok=True)
            _tidy(folder)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("tensors-")
    return int(digits) if digits.isdecimal() else 0


def _bytes(path: Path) -> bytes | None:
    try:
        return files.read(path)
    except OSError:
        return None


def _digest(path: Path, version: int = VERSION) -> str:
    """SHA-256 of a file, from version 2 on of the SHA-256 of each of its pieces, which threads compute side by side."""
    files.regular(path)
    if version == 1:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def piece(begin: int) -> bytes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(begin)
            for _ in range(0, PIECE, BLOCK):
                digest.update(file.read(BLOCK))
        return digest.digest()

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(piece, range(0, path.stat().st_size, PIECE)))).hexdigest()


def _packed(config: TrainConfig) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration as JSON, and the tensors that it refers to by {"tensor": name}. A hyper-parameter of one number
    per network is a column of the state already."""
    packed: dict[str, Any] = {}
    own: dict[str, Tensor] = {}
    for name, value in config.to_dict().items():
        if name == "extra":
            packed[name] = {key: _reference(f"hyper.{key}", each) for key, each in value.items()}
        elif name in ("epochs", "steps") and value is not None and not isinstance(value, int):
            own[f"config.{name}"] = torch.as_tensor(value)
            packed[name] = {"tensor": f"config.{name}"}
        else:
            packed[name] = _reference(f"hyper.{name}", value)
    return packed, own


def _reference(name: str, value: Any) -> Any:
    many = isinstance(value, (Tensor, list, tuple)) and torch.as_tensor(value).ndim
    if many:
        return {"tensor": name}
    return value.item() if isinstance(value, Tensor) else value


def _unpacked(packed: Mapping[str, Any], content: Mapping[str, Tensor]) -> dict[str, Any]:
    def value(each: Any) -> Any:
        if not isinstance(each, dict) or set(each) != {"tensor"}:
            return each
        tensor = content[each["tensor"]]
        return tensor[:, 0] if tensor.ndim == 2 and each["tensor"] != "hyper.class_weight" else tensor

    return {
        name: {key: value(each) for key, each in entry.items()} if name == "extra" else value(entry)
        for name, entry in packed.items()
    }


def _state(spec: NetworkSpec, config: TrainConfig, seed: int, content: Mapping[str, Tensor]) -> TrainState:
    """The state whose tensors `content` holds; the names are those of TrainState.tensors()."""

    def group(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): each for key, each in content.items() if key.startswith(f"{name}.")}

    slots, hyper = group("slots"), group("hyper")
    order = (*config.defaults(spec.loss), "class_weight")  # as TrainConfig.columns has them
    plain = [each.name for each in fields(TrainState) if each.type == "Tensor" and each.name != "total"]
    return TrainState(
        population=Population(spec, content["params"], seed, content["ids"]),
        recipe=config.recipe(spec),
        hyper={name: hyper[name] for name in order if name in hyper},
        slots=[slots[name] for name in config.rule.slots],
        columns=group("columns"),
        memory=group("memory") or group("plateau"),  # up to version 3 it had that name
        **{name: content[name] for name in plain},
        total=content["total"].double(),  # up to version 2 it had the type of params
    )
