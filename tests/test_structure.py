"""The rooms: a file imports only files above it; the README shows the tree as it is."""

import ast
import re
import tomllib
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ORDER = re.findall(r"^      ([\w/]+?)(?:\.py|/) ", README, re.M)
TREE = README[README.index("    gpubp/\n") : README.index("    scripts/ ")]
LONGEST = 320  # lines
PLACES = ("gpubp/**/*", "tests/*", "benchmarks/*", "scripts/*", "docs/**/*", "examples/*")


def modules():
    return sorted((ROOT / "gpubp").rglob("*.py"))


def room(path):
    return path.relative_to(ROOT / "gpubp").with_suffix("").parts[0]


def name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, files):
    """Those of `files` that a file imports when it is loaded or called, or for types alone, by its syntax tree."""
    statements: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    for node in statements:  # which grow: expressions import nothing
        statements += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt | ast.excepthandler)]
        if isinstance(node, ast.ImportFrom):
            above = name(path.parent / "x").split(".")[: -node.level] if node.level else []
            within = ".".join([*above, node.module] if node.module else above)
            found = [f"{within}.{alias.name}" for alias in node.names]
            yield from (each if each in files else within for each in found if {each, within} & files.keys())
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)


@cache
def arrows(folder):
    """{file: those that it imports}, or of the kernel's headers includes."""
    if folder == "kernel":
        texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "gpubp/kernel").rglob("*.h")}
        return {each: set(re.findall(r'#include "(?:.*/)?(.+?)"', text)) for each, text in texts.items()}
    files = {name(path): path for path in (ROOT / folder).rglob("*.py")}
    return {each: {*imported(path, files)} - {each} for each, path in files.items()}


def test_the_readme_names_every_room_and_every_file_of_the_package():
    files = [path for path in [*modules(), *(ROOT / "gpubp").rglob("*.h")] if room(path) != "__init__"]
    assert {*map(room, files)} == set(ORDER)
    within = [path.name for path in files if path.parent.name != "gpubp" and path.stem != "__init__"]
    assert [each for each in within if f" {each}" not in TREE] == []


@pytest.mark.parametrize("folder", ["gpubp", "kernel", "benchmarks"])
def test_no_files_import_each_other_in_a_circle(folder):
    assert len([*TopologicalSorter(arrows(folder)).static_order()]) >= 10


def test_a_file_imports_only_rooms_above_its_own():
    place = {each: number for number, each in enumerate(ORDER)}
    found = [
        (importer, other)
        for importer, others in arrows("gpubp").items()
        for other in others
        if "." in importer and "." in other and importer.split(".")[1] != other.split(".")[1]
        if place[other.split(".")[1]] >= place[importer.split(".")[1]]
    ]
    assert not found


def test_no_room_is_more_than_a_fifth_of_the_package():
    lines = Counter()
    for path in [*modules(), *(ROOT / "gpubp").rglob("*.h")]:
        lines[room(path)] += len(path.read_text().splitlines())
    assert lines.most_common(1)[0][1] <= lines.total() / 5


def test_ci_runs_the_test_command_of_the_readme():
    assert 'grep "^python3 -m venv .venv-test" README.md' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(re.findall(r"^python3 -m venv \.venv-test", README, re.M)) == 1


def test_every_version_that_is_pinned_is_one_that_the_package_asks_for():
    """And all that the commands of the README install by name is pinned."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in asked.items():
        for each in map(Requirement, lines):
            version = pinned.get(canonicalize_name(each.name))
            assert version is None or each.specifier.contains(version), f"{each}: {version}"
            assert version or each.name == "gpubp" or extra == "bench", f"{each} is not pinned"


DRIVERS = {"torch.cuda": "system/gpus.py", "torch.backends.cuda": "system/gpus.py", "pin_memory": "system/gpus.py",
           "cuda.bindings.driver": "engines/device.py", "cuda.bindings.nvrtc": "engines/nvrtc.py",
           "cuda.core": "engines/nvrtc.py"}  # fmt: skip


LAST = {each.rpartition(".")[2] for each in DRIVERS}


def drivers(text):
    """Which of DRIVERS a file's syntax tree has: as an import, or as a chain of names."""
    found = set()
    if "cuda" not in text and "pin_memory" not in text:
        return found
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node), node.attr] if node.attr in LAST else []
        found |= {each for each in DRIVERS for name in names if f"{name}.".startswith(f"{each}.")}
    return found


def test_what_talks_to_a_gpu_is_behind_small_modules():
    files = [*modules(), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {(each, path.relative_to(ROOT).as_posix()) for path in files for each in drivers(path.read_text())}
    assert found == {(each, f"gpubp/{name}") for each, name in DRIVERS.items()}


@pytest.mark.parametrize("place", PLACES)
def test_files_stay_within_what_a_person_reads_at_once(place):
    files = [path for path in ROOT.glob(place) if path.suffix in (".py", ".h", ".cpp")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert lines
    assert {each: count for each, count in lines.items() if count > LONGEST} == {}


def wide(text):
    """The lines of more than 120 columns, but for rows of tables and what stands in code blocks of Markdown."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]


@pytest.mark.parametrize(("pattern", "files"), [("*.md", 3), ("docs/**/*.md", 30), ("gpubp/kernel/**/*.h", 10)])
def test_documents_and_kernels_keep_to_120_columns(pattern, files):
    texts = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob(pattern)}
    assert len(texts) >= files
    every = (lambda text: [line for line in text.splitlines() if len(line) > 120]) if pattern.endswith("h") else wide
    assert {name: found for name, text in texts.items() if (found := every(text))} == {}
