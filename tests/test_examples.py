"""Every script of examples/ trains, with few networks, and writes the picture that it is asked for."""

import resource
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = {
    "ensemble": "--networks 3 --epochs 2",
    "entities": "--epochs 1",
    "halving": "--networks 6 --epochs 3",
    "seeds": "--networks 3 --epochs 2",
    "sweep": "--networks 4 --epochs 1",
    "topologies": "--topologies 2 --seeds 2 --epochs 2",
}


def test_every_example_is_tried() -> None:
    assert sorted(SMALL) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", SMALL)
def test_an_example_draws_its_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "none")  # the engine that compiles nothing
    monkeypatch.setattr(sys, "argv", [name, "--out", "picture.png", *SMALL[name].split()])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_an_example_takes_less_than_a_minute_of_one_processor(name: str, tmp_path: Path) -> None:
    """As it stands, in seconds of all processors, on which others' work has little effect."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", "picture.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").is_file()
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name}: {seconds:.1f} s")
    assert seconds < 60
