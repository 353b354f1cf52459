"""A population in training as JSON values and named tensors, and back: what a checkpoint (checkpoint.py) stores of it.

Engines trust the pointers of a state, and digests reveal damage, not intent: so every tensor and value that is read
back is checked for type, shape and range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..engines import ENGINES
from ..errors import ConfigError, ShapeError
from ..maths.activations import ACTIVATIONS
from ..maths.losses import LOSSES
from ..maths.optimizers import OPTIMIZERS
from ..maths.schedules import SCHEDULES
from ..maths.spec import NetworkSpec
from ..population import Population
from ..settings.config import TrainConfig
from ..state import TrainState
from ..system import arrays

NOTES = ("number", "open", "folds", "engine", "engine_reason", "data", "validation")  # of a population


class Saved(NamedTuple):
    """A population in training: rows (N,), of its networks in the results, and the NOTES of its run (runs/run.py)."""

    state: TrainState
    config: TrainConfig
    rows: Tensor
    notes: dict[str, Any]


def pack(saved: Saved) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The entry of a manifest, and its tensors, those of TrainState.tensors(), rows and the configuration's lengths."""
    state, config, rows, notes = saved
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.tensors()} | {"rows": rows}
    packed: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if name == "extra":
            packed[name] = {key: _reference(f"hyper.{key}", each) for key, each in value.items()}
        elif name in ("epochs", "steps") and value is not None and not isinstance(value, int):
            tensors[f"config.{name}"] = torch.as_tensor(value)
            packed[name] = {"tensor": f"config.{name}"}
        else:
            packed[name] = _reference(f"hyper.{name}", value)
    entry = {
        "spec": state.population.spec.to_dict(),
        "seed": state.population.seed,
        "config": packed,
        "notes": {name: notes[name] for name in NOTES},
    }
    return entry, tensors


def is_zero_slot(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of pack() is a slot, of every parameter, that is all zeros, none of them negative."""
    whole = torch.int32 if tensor.element_size() == 4 else torch.int64
    return name.startswith("slots.") and not bool(tensor.view(whole).any())


def _reference(name: str, value: Any) -> Any:
    """A value of a configuration; in place of one number per network the name of their column in the state."""
    many = isinstance(value, (Tensor, list, tuple)) and torch.as_tensor(value).ndim
    if many:
        return {"tensor": name}
    return value.item() if isinstance(value, Tensor) else value


def unpack(entry: Mapping[str, Any], tensors: Mapping[str, Tensor], streams: bool = False) -> Saved:
    """The population as it was saved. streams: whether networks join it, so that it may have any number of rounds.
    Raises GpubpError for values that a run cannot resume from, or an error of Python or torch for values of another
    type."""
    spec, config = NetworkSpec.from_dict(entry["spec"]), TrainConfig.from_dict(_values(entry["config"], tensors))
    state = _state(spec, config, entry["seed"], tensors)
    state.check()
    left = {"open": bool(state.left.any()), "folds": False}  # up to version 4
    notes = {name: {**left, **entry["notes"]}[name] for name in NOTES}
    taken = int(state.step.sum()) + state.population.count  # each round has a step, even if one that did not count
    _check_notes(notes, math.inf if streams else taken + 1)  # a run made longer may have more than config says
    rows = tensors.get("rows", torch.arange(state.population.count))
    if rows.dtype != torch.int64 or rows.shape != state.step.shape:
        raise ShapeError(f"rows {tuple(rows.shape)} {rows.dtype}: {tuple(state.step.shape)} int64 expected")
    return Saved(state, config, rows, notes)


def bare(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TrainState:
    """Only the state of networks that unpack() has accepted, or that this process has packed: no number is read."""
    first = {name: each[:1] for name, each in tensors.items()}  # all share what a recipe depends on
    config = TrainConfig.from_dict(_values(entry["config"], first))
    return _state(NetworkSpec.from_dict(entry["spec"]), config, entry["seed"], tensors)


def missing(entry: Mapping[str, Any]) -> str | None:
    """Which rule of an entry this process's tables lack, and how to add it; or None."""
    spec, config = entry["spec"], entry["config"]
    hidden = spec.get("hidden")
    activations = [*(hidden if isinstance(hidden, list) else [hidden]), spec.get("output")]
    tables: list[tuple[str, Mapping[str, object], str, list[Any]]] = [
        ("ACTIVATIONS", ACTIVATIONS, "Activation", activations),
        ("LOSSES", LOSSES, "Loss", [spec.get("loss")]),
        ("OPTIMIZERS", OPTIMIZERS, "Optimizer", [config.get("optimizer")]),
        ("SCHEDULES", SCHEDULES, "Schedule", [config.get("schedule")]),
    ]
    for table, rows, kind, names in tables:
        for name in names:
            if isinstance(name, str) and name not in rows:
                return (
                    f"{kind.lower()} {name!r} is in no table of this process; add it as the run had it: "
                    f"gpubp.{table}[{name!r}] = gpubp.{kind}(...)"
                )
    return None


def _values(packed: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a configuration, with the tensors that they refer to."""

    def value(each: Any) -> Any:
        if not isinstance(each, dict) or set(each) != {"tensor"}:
            return each
        tensor = tensors[each["tensor"]]
        return tensor[:, 0] if tensor.ndim == 2 and each["tensor"] != "hyper.class_weight" else tensor

    return {
        name: {key: value(each) for key, each in entry.items()} if name == "extra" else value(entry)
        for name, entry in packed.items()
    }


def _state(spec: NetworkSpec, config: TrainConfig, seed: int, tensors: Mapping[str, Tensor]) -> TrainState:
    """The state with these tensors, named as in TrainState.tensors()."""

    def group(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): each for key, each in tensors.items() if key.startswith(f"{name}.")}

    slots, hyper = group("slots"), group("hyper")
    order = (*config.defaults(spec.loss), "class_weight")  # as in TrainConfig.columns
    plain = [each.name for each in fields(TrainState) if each.type == "Tensor" and each.name != "total"]
    return TrainState(
        population=Population(spec, tensors["params"], seed, tensors["ids"]),
        recipe=config.recipe(spec),
        hyper={name: hyper[name] for name in order if name in hyper},
        slots=[slots[name] for name in config.rule.slots],
        columns=group("columns"),
        memory=group("memory") or group("plateau"),  # its name up to version 3
        kept=group("kept"),
        **{name: tensors[name] for name in plain},
        total=tensors["total"].double(),  # up to version 2 it has the dtype of params
    )


def check_rows(each: Sequence[Tensor]) -> None:
    """Raise ConfigError unless these are the rows of all networks, each once."""
    seen = torch.zeros(sum(map(len, each)), dtype=torch.bool)
    for rows in each:
        inside = bool(((rows >= 0) & (rows < len(seen))).all())
        if inside:
            seen[rows.cpu()] = True
    if not seen.all():
        raise ConfigError(f"rows of {len(seen)} networks are not 0 to {len(seen) - 1}")


def _check_notes(notes: Mapping[str, Any], rounds: float) -> None:
    """Raise ConfigError unless a run can resume from the notes. rounds: the most allowed."""
    number = arrays.whole(notes["number"])
    texts = [notes[name] for name in ("engine_reason", "data", "validation") if notes[name] is not None]
    sound = {
        f"round {notes['number']!r} of {rounds}": number is not None and 0 <= number <= rounds,
        "open and folds": all(isinstance(notes[name], bool) for name in ("open", "folds")),
        f"engine {notes['engine']!r}": isinstance(notes["engine"], str) and notes["engine"] in ENGINES,
        "reason and fingerprints": notes["engine_reason"] is not None and all(isinstance(each, str) for each in texts),
    }
    for what in (what for what, good in sound.items() if not good):
        raise ConfigError(f"{what}; a note that a run can resume from expected")
