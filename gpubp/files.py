"""Atomic files, and the YAML of settings.

A file is written under a random name in its folder, synced to disk and renamed: readers, and a process killed at any
instant, find either the old file or the new one. Links in its place are not followed; sweep() deletes what killed
processes left. A file has the mode of the umask. Only regular files are read: a pipe or a device would never end.

Settings are plain YAML: names and values, without anchors and aliases (a few hundred bytes of them grow to gigabytes),
of limited size and depth.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError
from .line import line

LARGEST = 200_000  # bytes of a file of settings
DEEPEST = 20  # nested lists and mappings
SEAL = "# as written: "
UNFINISHED = ".writing"  # suffix of a file being written
FOLLOW_NONE = getattr(os, "O_NOFOLLOW", 0)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def path(name: str, given: Any) -> Path:
    """`given` as a path; raises ConfigError if it is not one. name: of the argument."""
    try:
        found = Path(given)
        if b"\0" in os.fspath(found).encode():
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"{name} {given!r}: a path in UTF-8 without NUL expected") from None
    return found


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a new file, which replaces `path` when complete. Raises OSError, or like `fill`; then `path` is
    unchanged, and nothing else is left."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | FOLLOW_NONE, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        fill(beside)
        with beside.open("rb+") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:  # `fill` replaced the file
                beside.chmod(mode)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    with suppress(OSError):  # some systems cannot open or sync a directory; the file is in place
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path) -> None:
    """Delete unfinished files of killed processes in `folder`, where nobody else may be writing."""
    for each in (*folder.glob(f"*{UNFINISHED}"), *folder.glob(".tmp??????")):  # the latter are safetensors'
        with suppress(OSError):
            each.unlink()


def read(path: Path) -> bytes:
    """The content of a regular file. Raises OSError."""
    regular(path)
    return path.read_bytes()


def regular(path: Path) -> None:
    """Raise OSError unless `path`, or what it links to, is a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def write_text(path: Path, text: str) -> None:
    """Write `text` to the file `path` in UTF-8. Raises OSError."""
    write(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_settings(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    """Write `settings` as YAML, below a comment of one line and a digest. Raises OSError."""
    text = as_yaml(settings)
    write_text(path, f"# {line(comment)}\n{_seal(text)}{text}")


def edited(path: Path) -> bool:
    """Whether a file of write_settings() was edited; False for files of older versions."""
    _, _, rest = path.read_text(encoding="utf-8").partition("\n")
    seal, _, text = rest.partition("\n")
    return seal.startswith(SEAL) and rest != _seal(text) + text


def _seal(text: str) -> str:
    return f"{SEAL}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def as_yaml(settings: Mapping[str, Any]) -> str:
    """`settings` as YAML. Raises ConfigError for values that are not plain."""
    try:
        return str(yaml.safe_dump(dict(settings), sort_keys=False))
    except yaml.YAMLError:
        raise ConfigError("settings: names, and plain numbers, texts, lists and dicts expected") from None


def read_settings(path: Path) -> Any:
    """The content of the YAML file `path`. Raises ConfigError with the position of anything not allowed."""
    try:
        regular(path)
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode()
        if len(text) > LARGEST:
            raise ConfigError(f"longer than {LARGEST:,} bytes, the limit of settings")
        _check(text)
        settings = yaml.load(text, LOADER)
        for each in _texts(settings):
            with suppress(yaml.YAMLError):  # not meant as YAML
                _check(each, within="a text with ")
        return settings
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # or bytes that are not UTF-8, an invalid date
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"{_place(mark)}: "
        raise ConfigError(f"{path}: {where}plain YAML in UTF-8 expected, such as networks: 100") from None


def _check(text: str, within: str = "") -> None:
    """Refuse YAML that is not plain. within: the position of a text in another YAML, which jsonargparse parses as YAML
    again; there only an alias inside a list or a mapping is refused, because `*x` alone is a text."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        anchor = getattr(event, "anchor", None)
        named = isinstance(event, yaml.AliasEvent) and depth if within else anchor is not None
        if named or depth > DEEPEST:
            what = f"the anchor or alias {anchor!r}" if named else f"{depth} nested lists"
            place = _place(event.start_mark)
            raise ConfigError(f"{within}{what} ({place}); settings are plain values, written out")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(each)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
