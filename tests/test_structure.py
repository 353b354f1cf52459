"""The rooms: a file imports only files above it; the README shows the tree as it is, and its code runs."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from gpubp.cli import parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ORDER = re.findall(r"^      ([\w/]+?)(?:\.py|/) ", README, re.M)


def modules():
    return sorted((ROOT / "gpubp").rglob("*.py"))


def room(path):
    parts = path.relative_to(ROOT / "gpubp").with_suffix("").parts
    return parts[0]


def imported(path):
    """The rooms that a file imports when it is loaded or called, by its syntax tree; not those for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(each)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for each in ast.walk(node)
    }
    depth = len(path.relative_to(ROOT / "gpubp").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in hidden and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def test_the_readme_names_every_room_of_the_package():
    rooms = {room(path) for path in modules()} - {"__init__"}
    rooms |= {path.parent.name for path in (ROOT / "gpubp").rglob("*.h")}
    assert rooms == set(ORDER)


def test_a_file_imports_only_files_above_it():
    place = {name: number for number, name in enumerate(ORDER)}
    found = [
        f"{room(path)} imports {name}"
        for path in modules()
        if room(path) != "__init__"
        for name in imported(path)
        if name != "__version__" and place[name] >= place[room(path)]
    ]
    assert not found


@pytest.mark.parametrize("number", range(len(re.findall("```python", README))))
def test_the_python_of_the_readme_runs(number):
    import gpubp

    before = dict(gpubp.ACTIVATIONS)
    try:
        exec(compile(re.findall(r"```python\n(.*?)```", README, re.S)[number], "README.md", "exec"), {})
    finally:
        gpubp.ACTIVATIONS.clear()
        gpubp.ACTIVATIONS.update(before)


def test_the_commands_of_the_readme_are_commands():
    lines = re.findall(r"^(gpubp .*)$", README, re.M)
    assert len(lines) >= 5
    for line in lines:
        arguments = shlex.split(line.split("#")[0])[1:]
        assert parser().parse_args(arguments).subcommand == arguments[0]


def test_ci_runs_the_test_command_of_the_readme():
    assert 'grep "^python3 -m venv .venv-test" README.md' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(re.findall(r"^python3 -m venv \.venv-test", README, re.M)) == 1


def test_files_stay_within_what_a_person_reads_at_once():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in long.items() if lines > 420} == {}
