"""The manifests of checkpoints (checkpoint.py), each with a SHA-256 of itself: damaged and foreign ones are refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..system import files

FORMAT, VERSION = "gpubp checkpoint", 8  # version 8 leaves out slots that are all zero
UNSHARDED, SHARDED = 6, 7  # without and with rows in the files of shards
MANIFEST, PREVIOUS = "manifest.json", "manifest.previous.json"


class ForeignError(CheckpointError):
    """An intact checkpoint of another version of gpubp; the previous one must not replace it."""


def read(path: Path) -> dict[str, Any]:
    """The undamaged manifest in `path`."""
    with files.trusted(path):
        try:
            text = files.read(path)
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{path} is missing: {path.parent.parent} is not the directory of a run, or it saved nothing"
            ) from None
        manifest: dict[str, Any] = json.loads(text)
        check(path, manifest)
    return manifest


def check(path: Path, manifest: Any) -> None:
    """Refuse anything but an undamaged manifest of a known version; version 1 has no digest."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a gpubp checkpoint")
    version = manifest.get("version")
    if version != 1 and manifest.get("manifest_sha256") != digest(manifest):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one in it")
    if version not in range(1, VERSION + 1):
        raise ForeignError(f"{path} has version {version!r}; this gpubp reads versions 1 to {VERSION}")


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest without its digest, as JSON with sorted names and without spaces."""
    rest = {name: value for name, value in json.loads(json.dumps(manifest)).items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def named(content: bytes | None) -> dict[str, Any]:
    """An undamaged manifest, or {}."""
    try:
        found = json.loads(content or b"")
        check(Path(MANIFEST), found)
    except (ValueError, RecursionError):  # a CheckpointError is a ValueError
        return {}
    return dict(found) if all(isinstance(found.get(name), str) for name in ("tensors", "sha256")) else {}
