"""Text from elsewhere is one line; a file is whole or not there; settings are plain YAML."""

import json
import os
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.cli import main
from gpubp.errors import CheckpointError, ConfigError, GpubpError
from gpubp.line import line
from gpubp.system import config_file, files

from .commands import Capture, here, refused  # noqa: F401

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain [red] text, ä 日本", "plain [red] text, ä 日本"),
        (" 40 %  two  spaces", " 40 %  two  spaces"),
        ("  first\n\n second\r\nthird ", "first second third"),
        ("a\x1b[2Jb\x07\x00\x7f\x9b", r"a\x1b[2Jb\x07\x00\x7f\x9b"),
        ("a\u2028b\x85c\x0bd\x1ce", "a b c d e"),
        ("right\u202eleft\u200b", r"right\u202eleft\u200b"),
        ("no\u3164name\ufe0f\u2800\U000e0101", r"no\u3164name\ufe0f\u2800\U000e0101"),
        ("\udcff", r"\udcff"),
        (Path("a/b"), "a/b"),
        ("", ""),
    ],
)
def test_foreign_text_becomes_one_printable_line(given: object, shown: str) -> None:
    assert line(given) == shown
    assert line(given).isprintable()
    assert str(GpubpError(given)) == shown


def test_a_file_keeps_its_old_content_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "before")

    def half(beside: Path) -> None:
        beside.write_text("half")
        assert path.read_text() == "before"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write(path, half)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "before"
    files.write_text(path, "after")
    assert path.read_text() == "after"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("somebody's")
    for place in (path, tmp_path / "file.writing"):
        place.symlink_to(victim)
    files.write_text(path, "ours")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("somebody's", "ours", False)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        assert main(f"train --data xor --networks 2 --epochs 2 --engine eager --run-dir {tmp_path}/run".split()) == 0
    finally:
        os.umask(before)
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert set(found.values()) == {oct(mode)}, found
    assert len(found) >= 9


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    for name in ("pipe", "directory", "device"):
        path = tmp_path / name
        {"pipe": os.mkfifo, "directory": os.mkdir, "device": lambda at: at.symlink_to("/dev/zero")}[name](path)
        with pytest.raises(OSError, match="not a regular file"):
            files.read(path)
        with pytest.raises(ConfigError, match="not a regular file"):
            config_file.read(path)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = {"seed": 5, "data": "a: &b c\nseed: 99", "lr": 0.1, "target": None, "widths": [1, {"x": True}]}
    settings |= {"texts that begin as others do": ["*total*", "&x", "[1, 2]", "{", ": - ["]}
    config_file.write(tmp_path / "s.yaml", settings, "why: so\nseed: 99")
    text = (tmp_path / "s.yaml").read_text()
    assert text.splitlines()[0] == "# why: so seed: 99"
    assert config_file.read(tmp_path / "s.yaml") == settings


INLINE = "{" + BOMB.strip().replace("\n", ",") + "}"
YAML = "plain YAML in UTF-8 expected, such as networks: 100"
PLAIN = "; settings are plain values, written out"
WRONG = {
    BOMB: f"the anchor or alias 'a' (line 1, column 4){PLAIN}",
    "seed: 1\nlr: &rate 0.1\n": f"the anchor or alias 'rate' (line 2, column 5){PLAIN}",
    "seed: 1\nlr: *rate\n": f"the anchor or alias 'rate' (line 2, column 5){PLAIN}",
    "&a seed: 1\n": f"the anchor or alias 'a' (line 1, column 1){PLAIN}",
    f"networks: '{INLINE}'\n": f"a text with the anchor or alias 'a' (line 1, column 35){PLAIN}",
    f"widths: [['{INLINE}']]\n": f"a text with the anchor or alias 'a' (line 1, column 35){PLAIN}",
    "seed: " + "[" * 30 + "]" * 30: f"21 nested lists (line 1, column 26){PLAIN}",
    "seed: 1\nlr: 0.1\nseed: 2\n": "'seed' occurs twice (line 1, column 1; line 3, column 1); once expected",
    "seed: 1\n'seed': 1\n": "'seed' occurs twice (line 1, column 1; line 2, column 1); once expected",
    "lr: {a: 1, a: 1}\n": "'a' occurs twice (line 1, column 6; line 1, column 12); once expected",
    "1: a\n0x1: b\n": "1 occurs twice (line 1, column 1; line 2, column 1); once expected",
    "? [a]\n: 1\n": f"line 1, column 3: {YAML}",
    "seed: [1\n": f"line 2, column 1: {YAML}",
    "seed: 1\n\tlr: 2\n": f"line 2, column 1: {YAML}",
    "seed: !!python/object/apply:os.system [touch planted]\n": "the tag 'tag:yaml.org,2002:python/object/apply:os.sys",
    "seed: !!int ''\n": f"the tag 'tag:yaml.org,2002:int' (line 1, column 7){PLAIN}",
    "seed: \x07\n": YAML,
    "seed: 2020-99-99\n": YAML,
    "seed: 1\n" + "#" * config_file.LARGEST: "longer than 200,000 bytes, the limit of settings",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_file_of_config_that_is_not_plain_is_one_sentence(text: str, tmp_path: Path, capsys: Capture) -> None:
    Path("c.yaml").write_text(text)
    sentence = refused("train --config c.yaml --data xor", capsys, 2)
    assert sentence.startswith("c.yaml: ")
    assert WRONG[text] in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_file_of_settings_names_no_other(capsys: Capture) -> None:
    said = "c.yaml: the setting 'config' is unknown: a file of settings names no other"
    Path("other.yaml").write_text("networks: 2\n")
    for other in ("other.yaml", '"\\0"', "3"):
        Path("c.yaml").write_text(f"config: {other}\nnetworks: 3\n")
        assert refused("train --config c.yaml --data xor", capsys, 2) == said


class Text(str):
    """A text of another type."""


SHARED = [1, 2]
KEPT = {
    "numbers": ({"a": np.float64(0.1), "b": True, "c": None, "d": 2**70}, {"a": 0.1, "b": True, "c": None, "d": 2**70}),
    "sequences": ({"a": (1, [2])}, {"a": [1, [2]]}),
    "one list twice": ({"a": SHARED, "b": SHARED}, {"a": [1, 2], "b": [1, 2]}),
    "texts": ({"a": Text("x"), "b": "\u2028\x1b[2J"}, {"a": "x", "b": "\u2028\x1b[2J"}),
}


@pytest.mark.parametrize("name", KEPT)
def test_settings_from_python_are_kept_by_the_checkpoint_and_written_for_people(name: str, tmp_path: Path) -> None:
    given, kept = KEPT[name]
    inputs = torch.rand(8, 2)
    data, spec = gpubp.Dataset(inputs, inputs), gpubp.NetworkSpec((2, 2))
    config, run = gpubp.TrainConfig(steps=1, batch_size=8), tmp_path / "run"
    gpubp.train(gpubp.Population.create(spec, 1), data, config, run_dir=run, settings=given, engine="eager")
    assert checkpoint.settings(run) == kept
    assert config_file.read(run / "config.yaml") == kept
    (run / "config.yaml").write_text("a: 5\n")
    (note,) = gpubp.resume(run, data, steps=2).notes
    assert note.startswith(f"{run / 'config.yaml'} is not what the run wrote")
    assert checkpoint.settings(run) == config_file.read(run / "config.yaml") == kept


@pytest.mark.parametrize(
    "value",
    [{1, 2}, np.int64(3), 1j, b"x", date(2020, 1, 1), {(1, 2): 3}, object()],
    ids=lambda value: type(value).__name__,
)
def test_settings_from_python_that_are_not_plain_are_refused_before_anything_is_written(
    value: object, tmp_path: Path
) -> None:
    inputs = torch.rand(8, 2)
    data, config = gpubp.Dataset(inputs, inputs), gpubp.TrainConfig(steps=1, batch_size=8)
    population = gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 1)
    nested: list[object] = []
    nested.append(nested)
    deep = json.loads("[" * 20 + "]" * 20)  # 21 with the mapping, which --config could not read again
    for settings in ({"a": value}, {"a": [value]}, {"a": nested}, {"a": deep}):
        with pytest.raises(ConfigError, match="settings: names, and plain numbers, texts, lists and dicts expected"):
            gpubp.train(population, data, config, run_dir=tmp_path / "run", settings=settings, engine="eager")
    assert not (tmp_path / "run").exists()


def test_a_file_for_which_memory_runs_out_is_not_called_damaged() -> None:
    with pytest.raises(CheckpointError, match=r"^run cannot be read: memory has run out$"), files.trusted("run"):
        raise MemoryError
