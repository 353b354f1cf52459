"""The calls of engines/device.py as NVIDIA's bindings take them, in a process whose libcuda.so.1 plays kernels on a CPU
(driver.cpp): a wrong name, number or type of an argument, or a pointer to the wrong thing, ends there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpubp.engines import build
from gpubp.errors import EngineError

from .helpers import compiled  # noqa: F401

ROOT = Path(__file__).parent.parent
STREAM = 77


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that driver is."""
    pytest.importorskip("cuda.bindings.driver", reason='needs pip install "gpubp[gpu]"')
    if sys.platform != "linux":
        pytest.skip("NVIDIA has no bindings for this system")
    found = tmp_path_factory.mktemp("driver")
    source, library = ROOT / "tests" / "driver.cpp", found / "libcuda.so.1"
    try:
        command = [*build.compiler(), "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(source), "-o", str(library)]
    except EngineError as error:
        pytest.skip(str(error))
    subprocess.run([*command, "-ldl"], check=True)
    return found


def through(folder: Path, stream: int, version: int = 13000) -> subprocess.CompletedProcess[str]:
    """tests/through_driver.py with that driver, which says that it is of this version."""
    paths = os.pathsep.join([str(folder), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)])
    environment = {**os.environ, "LD_LIBRARY_PATH": paths, "PLAYED_VERSION": str(version)}
    command = [sys.executable, "-m", "tests.through_driver", str(stream)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_the_engine_reaches_the_driver_through_the_real_bindings(folder: Path) -> None:
    done = through(folder, STREAM)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["[]"] * 4


def test_a_driver_that_refuses_is_heard(folder: Path) -> None:
    done = through(folder, STREAM + 1)
    assert done.returncode
    assert 'EngineError: engine "cuda": the driver says CUDA_ERROR_INVALID_VALUE' in done.stderr


def test_a_driver_of_cuda_12_is_refused(folder: Path) -> None:
    done = through(folder, STREAM, 12080)
    assert done.returncode
    assert 'EngineError: engine "cuda" needs a driver of CUDA 13 or newer, this one is of CUDA 12.8' in done.stderr
