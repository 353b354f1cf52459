"""Checkpoints: every tensor of a state in one safetensors file, everything else in a JSON manifest.

    RUN/checkpoint/manifest.json                 format, version, specification, configuration, round, and this
                                                 checkpoint's part of RUN/history.jsonl (history.py)
    RUN/checkpoint/tensors-00000012.safetensors  named in the manifest, with its SHA-256
    RUN/checkpoint/manifest.previous.json        the previous checkpoint, with separate tensors

The manifest has a SHA-256 of itself. Each file is written under another name and renamed, the manifest after its
tensors, the previous one after that, and only then files that neither names are deleted: a run killed at any instant
leaves a complete pair. If the newer pair is damaged, load() uses the previous one and says so. Nothing in them can
execute code. Damaged and foreign checkpoints and unknown versions are refused with the reason. Even if digests are
right, every tensor and note is checked for type, shape and range. A damaged history is dropped with a note: no
network depends on it.
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
from .recipe import missing
from .spec import NetworkSpec
from .state import TrainState

FORMAT, VERSION = "gpubp checkpoint", 4
PIECE, BLOCK = 1 << 26, 1 << 20  # bytes that a thread digests, and reads at once
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"
PREPARATION = "preparation.json"
NOTES = ("number", "history", "seconds", "engine", "engine_reason", "data", "validation")  # saved by the loop


@dataclass(frozen=True)
class Checkpoint:
    """A saved state, and the loop's notes. told: notes for the user from loading. older:
    whether a newer one is damaged. preparation: the SHA-256 of the run's preparation.json; None without one."""

    state: TrainState
    config: TrainConfig
    notes: dict[str, Any]
    told: tuple[str, ...] = ()
    older: bool = False
    preparation: str | None = None


class ForeignError(CheckpointError):
    """A whole checkpoint of another version of gpubp, for which the previous one is no replacement."""


def save(run_dir: Path, state: TrainState, config: TrainConfig, notes: Mapping[str, Any]) -> None:
    """Save `state`, its `config` and the JSON-able `notes` as the run's checkpoint, and keep the previous one.

    Raises CheckpointError if it fails: then the run's checkpoint is unchanged, nothing else is left,
    and save() may be called again."""
    folder = run_dir / "checkpoint"
    manifest, before = folder / MANIFEST, _bytes(folder / MANIFEST)
    number = max((_number(path) for path in folder.glob("tensors-*.safetensors")), default=0) + 1
    tensors = folder / f"tensors-{number:08}.safetensors"
    lock.check(run_dir)
    try:
        _write(tensors, manifest, state, config, notes)
    except BaseException as error:
        stays = _bytes(manifest) == before  # else it failed after the manifest was in place
        if stays:
            with suppress(OSError):
                tensors.unlink()
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        more = "; the previous one is kept" if stays and before else ""
        why = reason(error, str(error).rpartition(": ")[2])  # safetensors puts the system's message last
        raise CheckpointError(f"{folder}: the checkpoint cannot be written: {why}{more}") from error
    if before and _named(before):
        with suppress(OSError):  # then the old one stays
            files.write(folder / PREVIOUS, lambda beside: beside.write_bytes(before))
    _tidy(folder)


def _write(tensors: Path, manifest: Path, state: TrainState, config: TrainConfig, notes: Mapping[str, Any]) -> None:
    run_dir, history = manifest.parent.parent, notes.get("history")
    packed, lengths = _packed(config)
    content = {name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors()} | lengths
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
    """The run's checkpoint, on `device`; if it is damaged, the previous one. Another process may save meanwhile.
    Raises CheckpointError with the reason if none can be trusted."""
    folder = run_dir / "checkpoint"
    while True:
        seen = _bytes(folder / MANIFEST)
        try:
            return _read(folder, MANIFEST, device)
        except ForeignError:
            raise
        except CheckpointError as error:
            damaged = error
        if seen == _bytes(folder / MANIFEST):  # else another was saved meanwhile
            break
    try:
        before = _read(folder, PREVIOUS, device)
    except CheckpointError:
        raise damaged from None
    used = f"{damaged}; the previous checkpoint is used, of round {before.notes['number']}"
    return replace(before, told=(used, *before.told), older=True)


def begun(run_dir: Path) -> bool:
    """Whether a run was started in `run_dir`, and ended before it saved anything."""
    folder, records = run_dir / "checkpoint", run_dir / history.FILE
    if not folder.is_dir() or any(os.path.lexists(folder / name) for name in (MANIFEST, PREVIOUS)):
        return False
    later = any(_number(path) > 1 for path in folder.glob("tensors-*.safetensors")) or any(run_dir.glob("results.*"))
    if later or (records.exists() and records.stat().st_size):  # its manifests are lost
        return False
    return lock.file(run_dir).exists() or ([*run_dir.iterdir()] == [folder] and not any(folder.iterdir()))


def _read(folder: Path, name: str, device: torch.device) -> Checkpoint:
    """The checkpoint with the manifest `name`."""
    path = folder / name
    try:
        manifest = json.loads(files.read(path))
        _check(path, manifest)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: {folder.parent} is not the directory of a run, or it saved nothing"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not what was written')}") from None
    try:
        tensors = folder / Path(manifest["tensors"]).name
        if _digest(tensors, manifest["version"]) != manifest["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one in {name}")
        if lacks := missing(manifest["spec"], manifest["config"]):
            raise CheckpointError(f"{folder.parent}: {lacks}")
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
        why = reason(error, "it is not a safetensors file")
        raise CheckpointError(f"{tensors} cannot be read: {why}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        why = reason(error, f"{name} has a value of another type")
        raise CheckpointError(f"{folder} does not hold a complete state: {why}") from None
    told: list[str] = []
    try:
        notes["history"] = History.load(folder.parent, notes["history"])
    except CheckpointError as error:
        notes["history"] = History()
        told.append(f"{error}; the history restarts after round {notes['number']}; the networks are not affected")
    return Checkpoint(state, config, notes, tuple(told), preparation=manifest.get("preparation"))


def _check(path: Path, manifest: Any) -> None:
    """Refuse anything but an undamaged manifest of a known version; version 1 has no digest of itself."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a gpubp checkpoint")
    version = manifest.get("version")
    if version != 1 and manifest.get("manifest_sha256") != _own_digest(manifest):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    if version not in range(1, VERSION + 1):
        raise ForeignError(f"{path} has version {version!r}; this gpubp reads versions 1 to {VERSION}")


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file of the run that fits in memory; None if there is none."""
    content = _bytes(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _check_notes(notes: Mapping[str, Any], config: TrainConfig) -> None:
    """Raise ConfigError unless a loop can resume from the notes."""
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
        raise ConfigError(f"{what}; a note that a run can resume from expected")


def _own_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its digest, as JSON with sorted names and without spaces."""
    rest = {name: value for name, value in json.loads(json.dumps(manifest)).items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _named(manifest: bytes | None) -> dict[str, Any]:
    """An undamaged manifest, or {}."""
    try:
        found = json.loads(manifest or b"")
        _check(Path(MANIFEST), found)
    except (ValueError, RecursionError):  # a CheckpointError is a ValueError
        return {}
    return dict(found) if all(isinstance(found.get(name), str) for name in ("tensors", "sha256")) else {}


def _tidy(folder: Path) -> None:
    """Delete the tensors that no manifest names, and files that killed processes left."""
    named = {_named(_bytes(folder / name)).get("tensors") for name in (MANIFEST, PREVIOUS)}
    files.sweep(folder)
    for old in folder.glob("tensors-*.safetensors"):
        if old.name not in named:
            with suppress(OSError):  # the next one tidies up
                old.unlink()


def _make_room(folder: Path, size: int) -> None:
    """If the disk has no room for a third pair of `size` bytes, delete the previous one, if the newer is undamaged."""
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
    """SHA-256 of a file; from version 2 on over the SHA-256 of its pieces, which threads compute in parallel."""
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
    """The configuration as JSON, and the tensors that it refers to as {"tensor": name}, except hyper-parameters with
    one number per network, which are columns of the state."""
    packed: dict[str, Any] = {}
    lengths: dict[str, Tensor] = {}
    for name, value in config.to_dict().items():
        if name == "extra":
            packed[name] = {key: _reference(f"hyper.{key}", each) for key, each in value.items()}
        elif name in ("epochs", "steps") and value is not None and not isinstance(value, int):
            lengths[f"config.{name}"] = torch.as_tensor(value)
            packed[name] = {"tensor": f"config.{name}"}
        else:
            packed[name] = _reference(f"hyper.{name}", value)
    return packed, lengths


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
    """The state with the tensors of `content`, named as in TrainState.tensors()."""

    def group(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): each for key, each in content.items() if key.startswith(f"{name}.")}

    slots, hyper = group("slots"), group("hyper")
    order = (*config.defaults(spec.loss), "class_weight")  # as in TrainConfig.columns
    plain = [each.name for each in fields(TrainState) if each.type == "Tensor" and each.name != "total"]
    return TrainState(
        population=Population(spec, content["params"], seed, content["ids"]),
        recipe=config.recipe(spec),
        hyper={name: hyper[name] for name in order if name in hyper},
        slots=[slots[name] for name in config.rule.slots],
        columns=group("columns"),
        memory=group("memory") or group("plateau"),  # its name up to version 3
        kept=group("kept"),
        **{name: content[name] for name in plain},
        total=content["total"].double(),  # up to version 2 it has the dtype of params
    )
