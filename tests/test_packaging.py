"""Wheel and sdist hold what they must and nothing else; the version is the same everywhere. What does not wait: help,
the version and refusals for torch, `import gpubp` for what only a command line needs."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import gpubp
from gpubp.system import flags
from scripts.flags import text as flags_text

ROOT = Path(__file__).resolve().parent.parent
KINDS = {".py", ".h", ".json", ".css", ".js", ".typed", ""}  # of files in the package
BESIDE = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
FOLDERS = {"gpubp", "tests", "docs", "examples", "scripts", "benchmarks"}
FILES = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "constraints.txt", "pyproject.toml",
         "PKG-INFO", ".gitignore"}  # fmt: skip


def built(source: Path, folder: Path, kind: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_a_wheel_holds_the_package_and_what_describes_it(wheel: Path) -> None:
    files = [path for path in (ROOT / "gpubp").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix for path in files} <= KINDS
    described = {f"gpubp-{gpubp.__version__}.dist-info/{name}" for name in BESIDE}
    found = contents(wheel)
    assert set(found) == {path.relative_to(ROOT).as_posix() for path in files} | described
    for name in ("py.typed", "system/flags.json", "kernel/network.h", "kernel/machines/gpu_block.h"):
        assert found[f"gpubp/{name}"] == (ROOT / "gpubp" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_pip_installs_it_in_a_clean_environment_where_it_trains(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Without network: the packages that it and its build need are those of this environment, which it has in its path;
    gpubp itself is there only if pip put it there."""
    venv.create(tmp_path / "clean", with_pip=True)
    python, scripts = tmp_path / "clean" / "bin" / "python", tmp_path / "clean" / "bin"
    own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True,
                         text=True, check=True).stdout.strip()  # fmt: skip
    Path(own, "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    packed = request.getfixturevalue(kind)
    flags = ["install", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", str(packed)]
    environment = {name: each for name, each in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GPUBP_CACHE": str(tmp_path / "cache"), "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    train = "train --data xor --widths 2,3,1 --networks 2 --steps 5 --engine cpu --run-dir run"
    code = "import gpubp; print(gpubp.__file__)"
    (away := tmp_path / "away").mkdir()
    said = []
    for command in (
        [python, "-m", "pip", *flags],
        [python, "-c", code],
        [scripts / "gpubp", "--version"],
        [scripts / "gpubp", *train.split()],
    ):
        done = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip())
    assert said[1] == str(Path(own, "gpubp", "__init__.py"))
    assert gpubp.__version__ in said[2]
    assert (away / "run" / "results.parquet").exists()


def test_an_sdist_holds_what_a_wheel_is_built_and_tested_from(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as file:
        names = [name.split("/", 1)[1] for name in file.getnames()]
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)  # tarfile's filters came with Python 3.11.4
    assert {name.split("/")[0] for name in names} == FOLDERS | FILES
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".so"))] == []
    (source,) = tmp_path.iterdir()
    assert contents(built(source, tmp_path / "again", "wheel")) == contents(wheel)


def test_the_version_is_the_one_that_was_released_last() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.M)
    assert heads[0] == "[Unreleased]"
    version, day = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heads[1]).groups()  # type: ignore[union-attr]
    assert version == gpubp.__version__
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], str(cited["date-released"])) == (version, day)
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)


HEAVY = ("jsonargparse", "matplotlib", "pandas", "rich", "scipy", "sklearn", "tensorboard")
RUN = "import sys\ntry:\n    {}\nfinally:\n    print(*sys.modules, file=sys.stderr)"


def modules(statement: str) -> set[str]:
    """The packages that a process of its own has loaded after `statement`."""
    code = RUN.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_help_the_version_and_a_refused_flag_wait_for_no_torch() -> None:
    """One process runs them all."""
    lines = ("--help", "--version", "train --help", "train --networks ten", "trian", "inspect", "")
    loop = f"for line in {lines}:\n        try: main(line.split())\n        except SystemExit: pass"
    loaded = modules(f"from gpubp.cli import main\n    {loop}")
    assert "jsonargparse" in loaded
    assert not loaded & {"torch", "numpy", "pyarrow", *HEAVY} - {"jsonargparse"}


def test_the_package_waits_for_torch_and_pyarrow_alone_and_has_every_name_whatever_is_imported_first(
    tmp_path: Path,
) -> None:
    """In processes that one forks, before it has torch and after."""
    code = """if True:
        import os, sys

        def forked(statement):
            if not os.fork():
                try:
                    exec(statement, {})
                    print(*{name.partition(".")[0] for name in sys.modules}, flush=True)
                except Exception as error:
                    print(repr(error), file=sys.stderr, flush=True)
                finally:
                    os._exit(0)
            os.wait()

        forked("import gpubp")
        import torch
        forked("import gpubp; gpubp.train, gpubp.NetworkSpec, gpubp.Population")
        wine = "data = gpubp.load_data('wine'); design = [{'widths': '13,3', 'loss': data.loss, 'steps': 1}]"
        forked(f"import gpubp; {wine}; gpubp.train_many(design, data.training, data.validation, engine='eager')")
        import pyarrow.parquet, rich.console, yaml  # once for all
        flags = "train --data iris --widths 4,3 --networks 2 --steps 1 --engine eager --run-dir".split()
        line = ["gpubp", *flags, sys.argv[1]]
        main = "from gpubp.cli import main; sys.stdout = sys.stderr; main(); sys.stdout = sys.__stdout__"
        forked(f"import sys; sys.argv = {line}; {main}")
        for first in ("gpubp.commands.outcome", "gpubp.backprop"):
            forked(f"import {first}, gpubp; print(*(n for n in gpubp.__all__ if not callable(getattr(gpubp, n))))")
    """
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    without, loaded, trained, by_command, *rest = done.stdout.splitlines()
    assert "torch" not in without.split()
    assert "torch" in loaded.split()
    assert not {*loaded.split()} & {*HEAVY}
    assert not {*trained.split()} & {*HEAVY, "sympy"} - {"pandas", "pyarrow"}
    assert {"pandas", "pyarrow", "scipy", "sklearn"} & {*by_command.split()} == {"pyarrow"}
    assert "Warning" not in done.stderr
    assert "52 MB for libraries and tables of the results" in done.stderr, "pyarrow's and those that write files"
    assert rest[::2] == ["ACTIVATIONS INITIALISERS LOSSES MODULES OPTIMIZERS SCHEDULES backprop"] * 2, done.stderr
    assert set(gpubp.__all__) <= set(dir(gpubp))
    assert gpubp.tutorial.ROUNDS == 10_000, "and so is every module"
    with pytest.raises(AttributeError, match="module 'gpubp' has no attribute 'trian'"):
        gpubp.trian  # noqa: B018


def test_the_flags_are_those_that_the_script_prints() -> None:
    path = Path(flags.__file__).with_suffix(".json")
    assert path.read_text(encoding="utf-8") == flags_text(), "python scripts/flags.py > gpubp/system/flags.json"
    assert json.loads(flags_text()) == flags.FLAGS
