"""A safetensors file with rows of networks and all that predictions need: gpubp.load() reads it back.

`metadata["gpubp"]` is JSON: format, version, for each population its specification and seed, and the preparation. The
tensors of population 0 are `0.params` (k, P), `0.ids` and `0.place`, its networks' places among all; `position` and
`rows` are of all networks; `results` has the bytes of a Parquet file with a row per network. Nothing in the file is
executed. Refused: files of other kinds and versions, without networks, or with contents that do not match.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..maths.spec import NetworkSpec
from ..raw.preparation import Preparation
from ..system import files
from .members import Group, Members

FORMAT, VERSION = "gpubp networks", 1


def write(members: Members, path: Path) -> None:
    """Write a .safetensors file. Raises OSError."""
    tensors = {"rows": torch.tensor(members.rows), "position": members.position}
    for at, each in enumerate(members.groups):
        parts = {"params": each.params.detach(), "ids": each.ids, "place": each.place}
        tensors |= {f"{at}.{name}": part.cpu().contiguous() for name, part in parts.items()}
    if members.results is not None:
        stream = pa.BufferOutputStream()
        parquet.write_table(members.results, stream)
        tensors["results"] = torch.from_numpy(np.frombuffer(stream.getvalue(), np.uint8).copy())
    preparation = members.preparation
    about = {
        "format": FORMAT,
        "version": VERSION,
        "populations": [{"spec": each.spec.to_dict(), "seed": each.seed} for each in members.groups],
        "preparation": None if preparation is None else preparation.to_dict(),
    }
    files.write(path, lambda beside: save_file(tensors, beside, {"gpubp": json.dumps(about)}))


def read(path: Path, device: torch.device) -> tuple[Members, bytes | None]:
    """The networks of a file, and the bytes of its results. Raises CheckpointError."""
    with files.trusted(path, otherwise="it is no whole safetensors file"):
        files.regular(path)
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = json.loads((file.metadata() or {}).get("gpubp", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a file of networks that gpubp export wrote")
        if about["version"] != VERSION:
            raise CheckpointError(f"{path} has version {about['version']!r}; this gpubp reads version {VERSION}")
        return _members(about, tensors)


def _members(about: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Members, bytes | None]:
    """The content of a file. Raises GpubpError, or one of Python's errors for values of another type."""
    rows, position = tensors["rows"].cpu(), tensors["position"].cpu()
    groups = []
    for at, each in enumerate(about["populations"]):
        params, ids, place = (tensors[f"{at}.{name}"] for name in ("params", "ids", "place"))
        groups.append(Group(NetworkSpec.from_dict(each["spec"]), params, ids, place.cpu(), each["seed"]))
    if not groups or not len(rows):
        raise CheckpointError("no networks are in it")
    numbers = (rows, position, *(each.place for each in groups))
    if any(each.dtype != torch.int64 or each.ndim != 1 for each in numbers) or len(position) != len(rows):
        raise CheckpointError("rows, positions or places are no whole numbers, one for each network")
    places = torch.cat([each.place for each in groups])
    sizes = [len(each.params) for each in groups]
    if places.sort().values.tolist() != [*range(len(rows))] or sizes != [len(each.place) for each in groups]:
        raise CheckpointError(f"networks in places {places.tolist()[:9]}; each place of {len(rows)} once expected")
    preparation = None if about["preparation"] is None else Preparation.from_dict(about["preparation"])
    most = math.inf if preparation is None else preparation.positions
    if bool((position < 0).any()) or int(position.max()) >= most:
        raise CheckpointError(f"positions up to {int(position.max())}; fewer than {most} expected")
    results = tensors.get("results")
    content = None if results is None else results.cpu().numpy().tobytes()
    members = Members(groups, rows.tolist(), preparation, position, ())
    return members, content
