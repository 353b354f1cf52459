"""config.yaml: the settings of a run, for people, and for --config.

They are plain YAML: names and values, each name once, of limited size and depth, without tags, which name types, and
without anchors and aliases, of which a few hundred bytes can grow to gigabytes.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, DataError
from ..line import line
from . import files

FILE = "config.yaml"
ENDINGS = (".json", ".yaml", ".yml")  # of files that rows() reads
LARGEST = 200_000  # bytes
DEEPEST = 20  # nested lists and mappings


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A YAML loader that refuses a name given twice in a mapping; YAML's own silently takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping; raises ConfigError for a name that occurs twice."""
        marks: dict[Any, Any] = {}
        for key, _ in node.value:
            name, mark = self.construct_object(key, deep=True), key.start_mark
            if isinstance(name, Hashable) and marks.setdefault(name, mark) is not mark:
                raise ConfigError(f"{name!r} occurs twice ({_place(marks[name])}; {_place(mark)}); once expected")
        return super().construct_mapping(node, deep)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` as a checkpoint keeps them, in JSON. Raises ConfigError for values that are not plain, or nested more
    deeply than read() allows."""
    try:
        kept: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        if _depth(kept) > DEEPEST:
            raise RecursionError
    except (TypeError, ValueError, RecursionError):
        raise ConfigError(
            f"settings: names, and plain numbers, texts, lists and dicts expected, nested up to {DEEPEST} deep"
        ) from None
    return kept


def _depth(value: Any) -> int:
    each = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, each), default=0) if isinstance(value, (dict, list)) else 0


def write(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    """Write `settings`, of plain(), as YAML below a comment of one line. Raises OSError."""
    files.write_text(path, f"# {line(comment)}\n{_as_yaml(settings)}")


def differs(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `path` exists, but differs from what write() makes of `settings`."""
    try:
        return files.read(path).decode().partition("\n")[2] != _as_yaml(settings)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def _as_yaml(settings: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(settings, sort_keys=False))


def read(path: Path) -> Any:
    """The content of the YAML file `path`. Raises ConfigError with the position of anything not allowed."""
    try:
        files.regular(path)
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode()
        if len(text) > LARGEST:
            raise ConfigError(f"longer than {LARGEST:,} bytes, the limit of settings")
        _check(text)
        settings = yaml.load(text, Loader)
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


def rows(path: Path) -> Any:
    """The design in a .json or YAML file: rows, each a mapping of settings, or columns by name. Raises ConfigError."""
    if path.suffix.lower() != ".json":
        return read(path)
    with files.trusted(path, ConfigError, "JSON in UTF-8 expected, a list of rows or columns by name"):
        return json.loads(files.read(path), object_pairs_hook=_once)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two values of one name, json silently takes the last. Raises DataError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name, count = Counter(name for name, _ in pairs).most_common(1)[0]
        raise DataError(f"{name!r} occurs {count} times in an object; once expected")
    return found


def _check(text: str, within: str = "") -> None:
    """Refuse YAML that is not plain. within: the position of a text in another YAML; jsonargparse parses such a text as
    YAML again. In it, only an alias inside a list or a mapping is refused, because `*x` alone is text."""
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        anchor = getattr(event, "anchor", None)
        named = isinstance(event, yaml.AliasEvent) and depth if within else anchor is not None
        tag = None if within else getattr(event, "tag", None)
        if named or tag is not None or depth > DEEPEST:
            what = (
                f"the anchor or alias {anchor!r}" if named else f"the tag {tag!r}" if tag else f"{depth} nested lists"
            )
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
