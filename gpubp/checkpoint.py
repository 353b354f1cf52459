"""Checkpoints: every tensor of a state in one safetensors file, everything else in a JSON manifest beside it.

    RUN/checkpoint/manifest.json                format, version, specification, configuration, position, history
    RUN/checkpoint/tensors-00000012.safetensors what the manifest names, with its SHA-256

Both are written beside and renamed, the manifest last: a run killed at any instant leaves the old pair or the new one.
Nothing in them can execute code. What is damaged, foreign or of another version is refused with its reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import TrainConfig
from .errors import CheckpointError, GpubpError
from .population import Population
from .spec import NetworkSpec
from .state import TrainState

FORMAT, VERSION = "gpubp checkpoint", 1
NOTES = ("number", "history", "seconds", "engine", "engine_reason", "data", "validation")  # what the loop saves


@dataclass(frozen=True)
class Checkpoint:
    """A saved state, and what the loop had saved with it."""

    state: TrainState
    notes: dict[str, Any]


def save(run_dir: Path, state: TrainState, notes: Mapping[str, Any]) -> None:
    """Save `state` and the JSON-able `notes` as the run's checkpoint. Raises CheckpointError where that cannot be done;
    the checkpoint of before is then still there."""
    folder = run_dir / "checkpoint"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = max((_number(path) for path in folder.glob("tensors-*.safetensors")), default=0) + 1
        tensors = folder / f"tensors-{number:08}.safetensors"
        config, own = _packed(state)
        content = {name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors()} | own
        beside = tensors.with_suffix(".writing")
        save_file(content, beside)
        _settle(beside, tensors)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "tensors": tensors.name,
            "sha256": _digest(tensors),
            "spec": state.population.spec.to_dict(),
            "seed": state.population.seed,
            "config": config,
            "notes": dict(notes),
        }
        beside = folder / "manifest.writing"
        beside.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        _settle(beside, folder / "manifest.json")
        for old in (*folder.glob("tensors-*.safetensors"), *folder.glob("*.writing")):
            if old != tensors:
                old.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the checkpoint cannot be written: {error}; the one of before stays"
        ) from error


def load(run_dir: Path, device: torch.device) -> Checkpoint:
    """The run's checkpoint, on `device`. Raises CheckpointError with the reason for one that cannot be trusted."""
    path = run_dir / "checkpoint" / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is not there: {run_dir} is not the directory of a run, or it saved nothing"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a gpubp checkpoint")
    if manifest.get("version") != VERSION:
        raise CheckpointError(f"{path} is of version {manifest.get('version')!r}; this gpubp reads version {VERSION}")
    try:
        tensors = path.parent / Path(manifest["tensors"]).name
        if _digest(tensors) != manifest["sha256"]:
            raise CheckpointError(f"{tensors} is damaged: its SHA-256 is not the one in {path.name}")
        content = load_file(tensors, device=str(device))
        spec = NetworkSpec.from_dict(manifest["spec"])
        config = TrainConfig.from_dict(_unpacked(manifest["config"], content))
        notes = {name: manifest["notes"][name] for name in NOTES}
        return Checkpoint(_state(spec, config, manifest["seed"], content), notes)
    except CheckpointError:
        raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.parent}: the tensors cannot be read: {error}") from None
    except (GpubpError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path.parent} does not hold a whole state: {error!r}") from None


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("tensors-")
    return int(digits) if digits.isdecimal() else 0


def _settle(beside: Path, final: Path) -> None:
    """`beside`, on the disk for good, under the name `final`."""
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(beside, final)
    if os.name == "posix":  # elsewhere a directory cannot be opened
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(state: TrainState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration as JSON, and the tensors that it refers to by {"tensor": name}. A hyper-parameter of one number
    per network is a column of the state already."""
    packed: dict[str, Any] = {}
    own: dict[str, Tensor] = {}
    for name, value in state.config.to_dict().items():
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
    plain = [each.name for each in fields(TrainState) if isinstance(content.get(each.name), Tensor)]
    state = TrainState(
        population=Population(spec, content["params"], seed, content["ids"]),
        config=config,
        hyper={name: hyper[name] for name in order if name in hyper},
        slots=[slots[name] for name in config.rule.slots],
        columns=group("columns"),
        plateau=group("plateau"),
        **{name: content[name] for name in plain},
    )
    for name, tensor in state.tensors():
        if len(tensor) != state.population.count:
            raise CheckpointError(f"{name} has {len(tensor)} rows, params have {state.population.count}")
    return state
