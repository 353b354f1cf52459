"""The rooms: a file imports only files above it; the README shows the tree as it is, and its code runs."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


DRIVERS = {"torch.cuda": "cuda.py", "torch.backends.cuda": "cuda.py", "pin_memory": "cuda.py",
           "cuda.bindings.driver": "engines/device.py", "cuda.bindings.nvrtc": "engines/nvrtc.py",
           "cuda.core": "engines/nvrtc.py"}  # fmt: skip


def drivers(text):
    """Which of DRIVERS a file's syntax tree has: as an import, or as a chain of names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node), node.attr]
        found |= {each for each in DRIVERS for name in names if f"{name}.".startswith(f"{each}.")}
    return found


def test_what_talks_to_a_gpu_is_behind_small_modules():
    files = [*modules(), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {(each, path.relative_to(ROOT).as_posix()) for path in files for each in drivers(path.read_text())}
    assert found == {(each, f"gpubp/{name}") for each, name in DRIVERS.items()}


@pytest.mark.parametrize(
    "planted",
    ["import torch.cuda as gpu", "from torch import cuda", "from torch.cuda import Stream", "torch.cuda.synchronize()",
     "x = torch.backends.cuda.is_built()", "tensor.pin_memory()", "from cuda.bindings import driver"],
)  # fmt: skip
def test_a_call_that_is_planted_elsewhere_is_found(planted):
    assert drivers(f"import torch\ndef f(tensor):\n    {planted}\n")
    assert not drivers("import torch\nfrom .. import cuda\ntorch.OutOfMemoryError, tensor.is_cuda, cuda.name(device)")


def test_files_stay_within_what_a_person_reads_at_once():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


def wide(text):
    """The lines of more than 120 columns, but for rows of tables and what stands in code blocks of Markdown."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]


@pytest.mark.parametrize("pattern", ["*.md", "docs/*.md"])
def test_documents_keep_to_120_columns(pattern):
    assert {path.name: found for path in ROOT.glob(pattern) if (found := wide(path.read_text(encoding="utf-8")))} == {}


def test_kernels_keep_to_120_columns():
    lines = [
        (path.name, line) for path in (ROOT / "gpubp/kernel").glob("*.h") for line in path.read_text().splitlines()
    ]
    assert len(lines) > 1000
    assert [each for each in lines if len(each[1]) > 120] == []
