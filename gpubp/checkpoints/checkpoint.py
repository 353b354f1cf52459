"""Checkpoints on disk: every tensor of a run in one safetensors file, everything else in a JSON manifest.

    RUN/checkpoint/manifest.json                 format, version, settings, an entry per population (packing.py), and
                                                 this checkpoint's part of RUN/history.jsonl (history.py)
    RUN/checkpoint/tensors-00000012.safetensors  named in the manifest, with its SHA-256; of a run that begins without
                                                 the slots that are all zero, which the manifest names
    RUN/checkpoint/manifest.previous.json        the previous checkpoint, with separate tensors
    RUN/shards/...                               rows of networks that trained on a cluster, named in the manifest, with
                                                 their SHA-256 (stored.py), until two later checkpoints

The manifest has a SHA-256 of itself. Each file is written under another name and renamed, the manifest after its
tensors, then the previous one; only then are files that neither names deleted: a run killed at any instant leaves a
complete pair. If the newer pair is damaged, load() uses the previous one and says so. Nothing in these files can
execute code. Damaged and foreign checkpoints and unknown versions are refused with the reason. A damaged history is
dropped with a note: no network depends on it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import stopping
from ..errors import CheckpointError, ConfigError, reason
from ..raw.preparation import FILE as PREPARATION
from ..state import TrainState
from ..system import files, lock
from . import history, manifests, packing
from .ended import Ended
from .history import History
from .manifests import FORMAT, MANIFEST, PREVIOUS, SHARDED, UNSHARDED, VERSION, ForeignError, named
from .packing import Saved
from .stored import SHARDS, Source, StoredState

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """The populations of a run in training, the networks that have left it, and the loop's notes: number, history,
    clock (of Start, None if unknown), seconds, search, queue, and the run's settings, None up to version 4. told: notes
    for the user from loading. older: whether a newer checkpoint is damaged. preparation: the SHA-256 of the run's
    preparation.json; None without one. version: of the format."""

    populations: tuple[Saved, ...]
    ended: Ended
    notes: dict[str, Any]
    told: tuple[str, ...] = ()
    older: bool = False
    preparation: str | None = None
    version: int = UNSHARDED

    @cached_property  # restoring twice would undo it
    def everybody(self) -> list[tuple[TrainState, Tensor]]:
        """All networks, population by population, with their best rows restored, and their rows in the results."""
        device = self.populations[0].state.population.device
        for each in self.populations:
            stopping.restore(each.state)
        found = [(each.state, each.rows) for each in self.populations]
        return found + [(each.state.on(device), each.rows) for each in self.ended.outcomes()]


def save(
    run_dir: Path, populations: Sequence[Saved], notes: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Save `populations` and the loop's `notes` as the run's checkpoint, and keep the previous one. rows: the files
    that have the networks' rows, as Source takes them, if the populations are Rowless.

    Raises CheckpointError if this fails: then the run's checkpoint is unchanged, nothing else is left behind, and
    save() may be called again."""
    folder = run_dir / "checkpoint"
    manifest, before = folder / MANIFEST, files.found(folder / MANIFEST)
    left = (run_dir / SHARDS).is_dir() and any(
        "rows" in each or each.get("shards") for each in map(named, (before, files.found(folder / PREVIOUS)))
    )
    number = max((_number(path) for path in folder.glob("tensors-*.safetensors")), default=0) + 1
    tensors = folder / f"tensors-{number:08}.safetensors"
    lock.check(run_dir)
    try:
        _write(tensors, manifest, populations, notes, rows, left)
    except BaseException as error:
        stays = files.found(manifest) == before  # otherwise it failed with the new manifest in place
        if stays:
            with suppress(OSError):
                tensors.unlink()
        if not isinstance(error, (OSError, SafetensorError)):
            raise
        more = "; the previous one is kept" if stays and before else ""
        why = reason(error, str(error).rpartition(": ")[2])  # safetensors puts the system's message last
        raise CheckpointError(f"{folder}: the checkpoint cannot be written: {why}{more}") from error
    if before and named(before):
        with suppress(OSError):  # then the old one stays
            files.write(folder / PREVIOUS, lambda beside: beside.write_bytes(before))
    _tidy(folder)
    if left and not any("rows" in named(files.found(folder / name)) for name in (MANIFEST, PREVIOUS)):
        shutil.rmtree(run_dir / SHARDS, ignore_errors=True)


def _write(
    tensors: Path, manifest: Path, populations: Sequence[Saved], notes: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]], left: bool,
) -> None:  # fmt: skip
    run_dir, packed = manifest.parent.parent, [packing.pack(each) for each in populations]
    content = {f"{at}.{name}": each for at, (_, part) in enumerate(packed) for name, each in part.items()}
    zeros = list[str]()
    if not notes["number"] and not manifest.exists():
        zeros = [name for name, each in content.items() if packing.is_zero_slot(name.partition(".")[2], each)]
    content = {name: each for name, each in content.items() if name not in zeros}
    _make_room(tensors.parent, sum(tensor.nbytes for tensor in content.values()))
    files.write(tensors, lambda beside: save_file(content, beside))
    described = {
        "format": FORMAT,
        "version": SHARDED if rows else VERSION if zeros else UNSHARDED,
        "tensors": tensors.name,
        "sha256": files.digest(tensors),
        **({"rows": rows} if rows else {"shards": True} if left else {}),
        **({"zeros": zeros} if zeros else {}),
        "populations": [entry for entry, _ in packed],
        "settings": notes["settings"],
        "history": notes["history"].save(run_dir, notes["number"]),
        "clock": notes.get("clock"),
        "seconds": notes["seconds"],
        "search": history.with_files(notes.get("search"), run_dir, notes["number"]),
        "queue": notes.get("queue"),
        "preparation": digest_of(run_dir / PREPARATION),
    }
    text = json.dumps(described | {"manifest_sha256": manifests.digest(described)}, indent=1)
    lock.check(run_dir)  # another process may have taken the run meanwhile
    files.write_text(manifest, text + "\n")


def load(run_dir: Path, device: torch.device, rows: Callable[[str], bool] = lambda name: False) -> Checkpoint:
    """The run's checkpoint, on `device`; if it is damaged, the previous one. Another process may save meanwhile, and
    delete files of rows: rows whose name `rows` accepts are read now, the others when used. Raises CheckpointError with
    the reason if neither can be trusted."""
    found, damaged = _newest(run_dir / "checkpoint", partial(_read, device=device, rows=rows))
    if damaged is None:
        return found
    used = f"{damaged}; the previous checkpoint is used, of round {found.notes['number']}"
    return replace(found, told=(used, *found.told), older=True)


def settings(run_dir: Path) -> Any:
    """The run's settings in the manifest of its checkpoint; None up to version 4. Raises CheckpointError."""
    return _newest(run_dir / "checkpoint", manifests.read)[0].get("settings")


def _newest(folder: Path, read: Callable[[Path], T]) -> tuple[T, CheckpointError | None]:
    """What `read` returns for the manifest, or, if it raises CheckpointError, for the previous one, and that error."""
    while True:
        seen = files.found(folder / MANIFEST)
        try:
            return read(folder / MANIFEST), None
        except ForeignError:
            raise
        except CheckpointError as error:
            damaged = error
        if seen == files.found(folder / MANIFEST):  # else another one was saved meanwhile
            break
    try:
        return read(folder / PREVIOUS), damaged
    except CheckpointError:
        raise damaged from None


def exists(run_dir: Path) -> bool:
    """Whether the run has saved anything."""
    return any(os.path.lexists(run_dir / "checkpoint" / name) for name in (MANIFEST, PREVIOUS))


def begun(run_dir: Path) -> bool:
    """Whether a run was started in `run_dir` and ended before it saved anything."""
    folder, records = run_dir / "checkpoint", run_dir / history.FILE
    if not os.path.isdir(folder) or exists(run_dir):  # Path's raises for a name that is too long
        return False
    later = any(_number(path) > 1 for path in folder.glob("tensors-*.safetensors")) or any(run_dir.glob("results.*"))
    if later or (records.exists() and records.stat().st_size):  # its manifests are lost, or shards are being joined
        return (run_dir / SHARDS / "driver").is_dir()
    return lock.file(run_dir).exists() or ([*run_dir.iterdir()] == [folder] and not any(folder.iterdir()))


def _read(path: Path, device: torch.device, rows: Callable[[str], bool] = lambda name: False) -> Checkpoint:
    """The checkpoint with the manifest `path`."""
    manifest, folder = manifests.read(path), path.parent
    try:
        tensors = folder / Path(manifest["tensors"]).name
        if not _undamaged(tensors, manifest):
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one in {path.name}")
        content = load_file(tensors, device=str(device))
        for name in manifest.get("zeros", ()):
            content[name] = torch.zeros_like(content[f"{name.partition('.')[0]}.params"])
        if manifest["version"] < 5:  # one population, with the loop's notes among its own
            entries, of_loop, contents = [manifest], {"settings": None, **manifest["notes"]}, [content]
        else:
            entries, of_loop = manifest["populations"], manifest
            contents = _by_population(content, len(entries))
        for entry in entries:
            if lacks := packing.missing(entry):
                raise CheckpointError(f"{folder.parent}: {lacks}")
        populations = _populations(manifest, entries, contents, folder.parent, device, rows)
        notes = {name: of_loop[name] for name in ("history", "seconds", "settings")}
        notes |= {name: manifest.get(name) for name in ("search", "queue", "clock")}
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
    found = manifest.get("preparation")
    return Checkpoint(populations, ended, notes, tuple(told), preparation=found, version=manifest["version"])


def _populations(
    manifest: Mapping[str, Any], entries: Sequence[Any], contents: Sequence[dict[str, Tensor]], run_dir: Path,
    device: torch.device, rows: Callable[[str], bool],
) -> tuple[Saved, ...]:  # fmt: skip
    """The populations of a manifest. Raises like packing.unpack(), and CheckpointError."""
    streams = manifest.get("queue") is not None
    if "rows" not in manifest:
        return tuple(packing.unpack(entry, each, streams) for entry, each in zip(entries, contents))
    counts = [len(each["rows"]) for each in contents]
    source, found = Source(manifest["rows"], counts, lambda name: nullcontext(run_dir / name)), []
    for group, (entry, each) in enumerate(zip(entries, contents)):
        saved = packing.unpack(entry, each | source.blank(group, device), streams)
        found.append(saved._replace(state=StoredState.of(saved.state, partial(source.read, group, device))))
    source.fetch({group: [*filter(rows, kinds)] for group, kinds in enumerate(source.kinds)}, device)
    return tuple(found)


def _by_population(content: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The tensors of populations 0, 1, ..., by what follows the number in their names."""
    found: dict[str, dict[str, Tensor]] = {str(at): {} for at in range(count)}
    for name, each in content.items():
        number, _, rest = name.partition(".")
        found.get(number, {})[rest] = each
    return [*found.values()]


def _check_notes(notes: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a loop can resume from the notes."""
    seconds, settings = notes["seconds"], notes["settings"]
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise ConfigError(f"{seconds!r} seconds; a number of 0 or more expected")
    if notes["clock"] not in (None, "step", "network_steps"):
        raise ConfigError(f"clock {notes['clock']!r}; step or network_steps expected")
    if not isinstance(settings, dict | None):
        raise ConfigError(f"settings are a {type(settings).__name__}; values by name expected")


def _undamaged(tensors: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a file of tensors matches its manifest. Raises OSError."""
    if manifest["version"] > 1:
        return bool(files.digest(tensors) == manifest["sha256"])
    files.regular(tensors)
    with tensors.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == manifest["sha256"])


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file of the run, which must fit in memory; None if there is none."""
    content = files.found(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def tensors(run_dir: Path) -> tuple[str, str]:
    """The file of tensors of the newest checkpoint, by its name in the run, and its SHA-256. Raises CheckpointError."""
    manifest = manifests.read(run_dir / "checkpoint" / MANIFEST)
    return f"checkpoint/{manifest['tensors']}", manifest["sha256"]


def _tidy(folder: Path) -> None:
    """Delete the tensors that no manifest names, and files that killed processes left."""
    held = {named(files.found(folder / name)).get("tensors") for name in (MANIFEST, PREVIOUS)}
    files.sweep(folder)
    for old in folder.glob("tensors-*.safetensors"):
        if old.name not in held:
            with suppress(OSError):  # the next one tidies up
                old.unlink()


def _make_room(folder: Path, size: int) -> None:
    """If the disk has no room for a third pair of `size` bytes, delete the previous one, if the newer is undamaged."""
    if shutil.disk_usage(folder).free < size:
        newer = named(files.found(folder / MANIFEST))
        if newer and _undamaged(folder / Path(newer["tensors"]).name, newer):
            (folder / PREVIOUS).unlink(missing_ok=True)
            _tidy(folder)
            if newer.get("shards"):  # only the previous one named it
                shutil.rmtree(folder.parent / SHARDS, ignore_errors=True)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("tensors-")
    return int(digits) if digits.isdecimal() else 0
