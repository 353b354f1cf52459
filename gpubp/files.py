"""Files that are whole or not there, and the YAML of settings.

A file is filled beside its place, under a name that nobody can foresee, brought to the disk for good and renamed:
whoever reads it, and a process that is killed at any instant, leaves or finds the one of before or the new one. Links
that lie in the way are not followed; sweep() deletes what killed processes left. A file has the mode that the umask
gives. Only regular files are read: a pipe or a device in the place of one would never end.

Settings are plain YAML: names and values, no anchors and aliases (a few hundred bytes of them grow to gigabytes), of a
size and a depth that a person writes.
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
DEEPEST = 20  # lists and mappings within each other
SEAL = "# as written: "
UNFINISHED = ".writing"  # how the name of a file ends that is being filled
FOLLOW_NONE = getattr(os, "O_NOFOLLOW", 0)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def path(name: str, given: Any) -> Path:
    """`given` as a path; raises ConfigError for what is none. name: of the argument."""
    try:
        found = Path(given)
        if b"\0" in os.fspath(found).encode():
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"{name} {given!r}: a path of characters that UTF-8 has, but for NUL, expected") from None
    return found


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Have `fill` write a new file, which becomes `path` when it is whole. Raises OSError, or as `fill` does; `path` is
    then what it was, and nothing is left beside it."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | FOLLOW_NONE, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        fill(beside)
        with beside.open("rb+") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:  # `fill` has put a file of its own there
                beside.chmod(mode)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    with suppress(OSError):  # some systems cannot open a directory, or have no fsync of one; the file is in its place
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path) -> None:
    """Delete what killed processes left unfinished in `folder`, where nobody else may write now."""
    for each in (*folder.glob(f"*{UNFINISHED}"), *folder.glob(".tmp??????")):  # the latter are safetensors' own
        with suppress(OSError):
            each.unlink()


def read(path: Path) -> bytes:
    """What is in a regular file. Raises OSError."""
    regular(path)
    return path.read_bytes()


def regular(path: Path) -> None:
    """Raise OSError unless `path`, or what it links to, is a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def write_text(path: Path, text: str) -> None:
    """`text` as the file `path`, in UTF-8. Raises OSError."""
    write(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_settings(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    """`settings` as YAML below a comment of one line, and another that seals them. Raises OSError."""
    text = as_yaml(settings)
    write_text(path, f"# {line(comment)}\n{_seal(text)}{text}")


def edited(path: Path) -> bool:
    """Whether somebody changed the settings that write_settings() wrote; never of those that older versions did."""
    _, _, rest = path.read_text(encoding="utf-8").partition("\n")
    seal, _, text = rest.partition("\n")
    return seal.startswith(SEAL) and rest != _seal(text) + text


def _seal(text: str) -> str:
    return f"{SEAL}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def as_yaml(settings: Mapping[str, Any]) -> str:
    """`settings` as YAML. Raises ConfigError for what is not plain."""
    try:
        return str(yaml.safe_dump(dict(settings), sort_keys=False))
    except yaml.YAMLError:
        raise ConfigError("settings: names, and plain numbers, texts, lists and dicts expected") from None


def read_settings(path: Path) -> Any:
    """What the YAML file `path` says. Raises ConfigError with the place of what is not allowed."""
    try:
        regular(path)
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode()
        if len(text) > LARGEST:
            raise ConfigError(f"longer than {LARGEST:,} bytes, which is what settings may take")
        _check(text)
        settings = yaml.load(text, LOADER)
        for each in _texts(settings):
            with suppress(yaml.YAMLError):  # which is not meant as YAML
                _check(each, within="a text with ")
        return settings
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # or bytes that are no UTF-8, a day that no month has
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"{_place(mark)}: "
        raise ConfigError(f"{path}: {where}plain YAML in UTF-8 expected, such as networks: 100") from None


def _check(text: str, within: str = "") -> None:
    """Refuse what is not plain. within: where this stands in another YAML, as a text, which jsonargparse reads as YAML
    again; there only an alias within a list or a mapping is not plain, for `*x` is a text like any other."""
    depth = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        anchor = getattr(event, "anchor", None)
        named = isinstance(event, yaml.AliasEvent) and depth if within else anchor is not None
        if named or depth > DEEPEST:
            what = f"the anchor or alias {anchor!r}" if named else f"{depth} lists within each other"
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
