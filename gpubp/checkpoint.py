"""Checkpoints on disk: every tensor of a run in one safetensors file, everything else in a JSON manifest.

    RUN/checkpoint/manifest.json                 format, version, settings, an entry per population (packing.py), and
                                                 this checkpoint's part of RUN/history.jsonl (history.py)
    RUN/checkpoint/tensors-00000012.safetensors  named in the manifest, with its SHA-256
    RUN/checkpoint/manifest.previous.json        the previous checkpoint, with separate tensors

The manifest has a SHA-256 of itself. Each file is written under another name and renamed, the manifest after its
tensors, the previous one after that, and only then files that neither names are deleted: a run killed at any instant
leaves a complete pair. If the newer pair is damaged, load() uses the previous one and says so. Nothing in them can
execute code. Damaged and foreign checkpoints and unknown versions are refused with the reason. A damaged history is
dropped with a note: no network depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import files, history, lock, packing, stopping
from .ended import Ended
from .errors import CheckpointError, ConfigError, reason
from .history import History
from .packing import Saved
from .state import TrainState

T = TypeVar("T")
FORMAT, VERSION = "gpubp checkpoint", 6
PIECE, BLOCK = 1 << 26, 1 << 20  # bytes that a thread digests, and reads at once
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"
PREPARATION, SHARDS = "preparation.json", "shards"  # the latter: the folder of a run on a cluster (cluster/)


@dataclass(frozen=True)
class Checkpoint:
    """The populations of a run in training, those that have left it, and the loop's notes: number, history, seconds,
    search, queue, and the run's settings, None up to version 4. told: notes for the user from loading. older: whether a
    newer one is damaged. preparation: the SHA-256 of the run's preparation.json; None without one."""

    populations: tuple[Saved, ...]
    ended: Ended
    notes: dict[str, Any]
    told: tuple[str, ...] = ()
    older: bool = False
    preparation: str | None = None

    @cached_property  # restoring twice would exchange twice
    def everybody(self) -> list[tuple[TrainState, Tensor]]:
        """All networks, population by population, with their best rows restored, and their rows in the results."""
        device = self.populations[0].state.population.device
        for each in self.populations:
            stopping.restore(each.state)
        found = [(each.state, each.rows) for each in self.populations]
        return found + [(each.state.on(device), each.rows) for each in self.ended.outcomes()]


class ForeignError(CheckpointError):
    """A whole checkpoint of another version of gpubp, for which the previous one is no replacement."""


def save(run_dir: Path, populations: Sequence[Saved], notes: Mapping[str, Any]) -> None:
    """Save `populations` and the loop's `notes` as the run's checkpoint, and keep the previous one.

    Raises CheckpointError if it fails: then the run's checkpoint is unchanged, nothing else is left,
    and save() may be called again."""
    folder = run_dir / "checkpoint"
    manifest, before = folder / MANIFEST, _bytes(folder / MANIFEST)
    number = max((_number(path) for path in folder.glob("tensors-*.safetensors")), default=0) + 1
    tensors = folder / f"tensors-{number:08}.safetensors"
    lock.check(run_dir)
    try:
        _write(tensors, manifest, populations, notes)
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


def _write(tensors: Path, manifest: Path, populations: Sequence[Saved], notes: Mapping[str, Any]) -> None:
    run_dir, packed = manifest.parent.parent, [packing.pack(each) for each in populations]
    content = {f"{at}.{name}": each for at, (_, part) in enumerate(packed) for name, each in part.items()}
    _make_room(tensors.parent, sum(tensor.nbytes for tensor in content.values()))
    files.write(tensors, lambda beside: save_file(content, beside))
    described = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": tensors.name,
        "sha256": _digest(tensors),
        "populations": [entry for entry, _ in packed],
        "settings": notes["settings"],
        "history": notes["history"].save(run_dir, notes["number"]),
        "seconds": notes["seconds"],
        "search": history.with_files(notes.get("search"), run_dir, notes["number"]),
        "queue": notes.get("queue"),
        "preparation": digest_of(run_dir / PREPARATION),
    }
    text = json.dumps(described | {"manifest_sha256": _own_digest(described)}, indent=1)
    files.write_text(manifest, text + "\n")


def load(run_dir: Path, device: torch.device) -> Checkpoint:
    """The run's checkpoint, on `device`; if it is damaged, the previous one. Another process may save meanwhile.
    Raises CheckpointError with the reason if none can be trusted."""
    found, damaged = _newest(run_dir / "checkpoint", lambda path: _read(path, device))
    if damaged is None:
        return found
    used = f"{damaged}; the previous checkpoint is used, of round {found.notes['number']}"
    return replace(found, told=(used, *found.told), older=True)


def settings(run_dir: Path) -> Any:
    """The run's settings in the manifest of its checkpoint; None up to version 4. Raises CheckpointError."""
    return _newest(run_dir / "checkpoint", _manifest)[0].get("settings")


def _newest(folder: Path, read: Callable[[Path], T]) -> tuple[T, CheckpointError | None]:
    """What `read` returns for the manifest, or, if it raises CheckpointError, for the previous one, and that error."""
    while True:
        seen = _bytes(folder / MANIFEST)
        try:
            return read(folder / MANIFEST), None
        except ForeignError:
            raise
        except CheckpointError as error:
            damaged = error
        if seen == _bytes(folder / MANIFEST):  # else another was saved meanwhile
            break
    try:
        return read(folder / PREVIOUS), damaged
    except CheckpointError:
        raise damaged from None


def begun(run_dir: Path) -> bool:
    """Whether a run was started in `run_dir`, and ended before it saved anything."""
    folder, records = run_dir / "checkpoint", run_dir / history.FILE
    if not folder.is_dir() or any(os.path.lexists(folder / name) for name in (MANIFEST, PREVIOUS)):
        return False
    later = any(_number(path) > 1 for path in folder.glob("tensors-*.safetensors")) or any(run_dir.glob("results.*"))
    if later or (records.exists() and records.stat().st_size):  # its manifests are lost, or shards are being joined
        return (run_dir / SHARDS).is_dir()
    return lock.file(run_dir).exists() or ([*run_dir.iterdir()] == [folder] and not any(folder.iterdir()))


def _manifest(path: Path) -> dict[str, Any]:
    """The undamaged manifest in `path`."""
    try:
        manifest: dict[str, Any] = json.loads(files.read(path))
        _check(path, manifest)
    except CheckpointError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} is missing: {path.parent.parent} is not the directory of a run, or it saved nothing"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not what was written')}") from None
    return manifest


def _read(path: Path, device: torch.device) -> Checkpoint:
    """The checkpoint with the manifest `path`."""
    manifest, folder = _manifest(path), path.parent
    try:
        tensors = folder / Path(manifest["tensors"]).name
        if _digest(tensors, manifest["version"]) != manifest["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one in {path.name}")
        content = load_file(tensors, device=str(device))
        if manifest["version"] < 5:  # one population, with the loop's notes among its own
            entries, of_loop, contents = [manifest], {"settings": None, **manifest["notes"]}, [content]
        else:
            entries, of_loop = manifest["populations"], manifest
            contents = [_of(content, f"{at}.") for at in range(len(entries))]
        for entry in entries:
            if lacks := packing.missing(entry):
                raise CheckpointError(f"{folder.parent}: {lacks}")
        streams = manifest.get("queue") is not None
        populations = tuple(packing.unpack(entry, each, streams) for entry, each in zip(entries, contents))
        notes = {name: of_loop[name] for name in ("history", "seconds", "settings")}
        notes |= {name: manifest.get(name) for name in ("search", "queue")}
        notes["number"] = max(each.notes["number"] for each in populations)
        ended = Ended.load(folder.parent, (notes["queue"] or {"ended": {}})["ended"])
        packing.check_rows([*(each.rows for each in populations), *(each.rows for each in ended.outcomes())])
        _check_notes(notes)
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:
        why = reason(error, "it is not a safetensors file")
        raise CheckpointError(f"{tensors} cannot be read: {why}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        why = reason(error, f"{path.name} has a value of another type")
        raise CheckpointError(f"{folder} does not hold a complete state: {why}") from None
    told: list[str] = []
    try:
        notes["history"] = History.load(folder.parent, notes["history"])
    except CheckpointError as error:
        notes["history"] = History()
        told.append(f"{error}; the history restarts after round {notes['number']}; the networks are not affected")
    return Checkpoint(populations, ended, notes, tuple(told), preparation=manifest.get("preparation"))


def _of(content: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in content.items() if name.startswith(prefix)}


def _check_notes(notes: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a loop can resume from the notes."""
    seconds, settings = notes["seconds"], notes["settings"]
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise ConfigError(f"{seconds!r} seconds; a number of 0 or more expected")
    if not isinstance(settings, dict | None):
        raise ConfigError(f"settings are a {type(settings).__name__}; values by name expected")


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
