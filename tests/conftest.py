"""Shapes are checked under pytest alone, where their modules are tested (SHAPED): jaxtyping and beartype read the
annotations of CHECKED at every call, which takes as long as training what the tests train.

pytest --device cuda: what the tests train takes its steps there (elsewhere.py), but for files in HERE, and for tests
marked `cpu`, which say why.
"""

import gc
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from jaxtyping import _decorator, install_import_hook

sys.dont_write_bytecode = False  # or each of the many processes compiles the package, and each worker all tests
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
CHECKED = ("gpubp.backprop", "gpubp.maths.blocks", "gpubp.maths.numerics", "gpubp.maths.rng")
SHAPED = ("divergence", "gradient", "groups", "independence", "left_out", "numerics", "optimizers",
          "predictions", "products", "rng", "step", "tutorial")  # fmt: skip
_decorator._tb_flag = False  # or it imports jax, which takes three seconds, to shorten tracebacks
install_import_hook(CHECKED, "beartype.beartype")
gc.disable()  # what is imported stays: a quarter of collecting tests would be a search for garbage among it
FIXTURES = ("tests.browser", "tests.clusters", "tests.short_runs")  # which have some
HERE = {
    "trains nothing, or by no engine": ("arithmetic", "build", "cache", "compiler", "evaluation", "examples", "files",
        "flags", "formulas", "gradient", "initialise", "layout", "modules", "numerics", "packaging", "preparation",
        "prepared_samples", "products", "reporters", "rng", "site", "sources", "structure", "tables", "text",
        "translate"),
    "counts the calls of a place": ("pace",),
    "plays a GPU itself": ("cuda", "fake_cuda", "gpu", "gpu_check", "gpu_choice", "gpu_compile",
        "gpu_launch", "gpu_layout", "gpu_training", "graph", "groups", "memory_runs_out", "placement",
        "precision", "proofs", "turns"),
    "compiles for the CPU otherwise": ("kernel_mutants", "mutants", "sanitizers"),
    "chooses its device by name": ("arrays", "bad_input", "benchmarks", "command_line", "command_predict",
        "command_train", "devices", "exact_numbers", "exit_statuses", "forks", "fuzz", "names", "on_gpu", "signals",
        "sklearn", "sklearn_checks", "sklearn_search", "sklearn_together"),
    "explains a step, which takes the CPU": ("explain",),
}  # fmt: skip
OWN = ("bits", "build", "compiled", "compiled_divergence", "compiled_engine", "compiled_evaluation",
       "compiled_independence", "compiled_rules", "compiler", "independence_drawn", "kernel_mutants", "layout",
       "precision", "prepared", "prepared_kept", "products", "sanitizers", "small_errors")  # fmt: skip
TAKEN = "calls taken elsewhere"  # in the report, of every test with --device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="where engines take their steps: cuda, cuda:1, or played, by the CPU")


def pytest_configure(config: pytest.Config) -> None:
    """But in the process that runs no tests, and begins those that do."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import torch

        torch.set_num_threads(1)  # two wait for each other ten times as long if others compute; threads() tries others
        for name in FIXTURES:
            config.pluginmanager.import_plugin(name)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --device, the files of HERE."""
    away = config.getoption("--device") is not None
    return True if away and any(collection_path.name == f"test_{name}.py" for name in sum(HERE.values(), ())) else None


def pytest_sessionstart(session: pytest.Session) -> None:
    """pytest looks through the loggers of all libraries six times for a test, and no test asks what they said."""
    session.config.pluginmanager.unregister(name="logging-plugin")
    logging.getLogger().addHandler(logging.NullHandler())  # or some would be printed


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.set_threshold(50_000)  # of 700: less time goes into looking for garbage
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    away = config.getoption("--device") is not None
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if (mark := item.get_closest_marker("cpu")) and away:
            item.add_marker(pytest.mark.skip(reason=mark.args[0] if mark.args else "shows what a CPU does"))


def pytest_runtest_logfinish() -> None:
    """A process that can no longer use its GPU, as after an illegal access, fails no further test: it ends, and
    pytest-xdist begins another."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import torch

    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            os._exit(3)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With --device, how many calls were taken there, and the files that took none."""
    taken: dict[str, int] = defaultdict(int)
    for report in terminalreporter.getreports(""):  # of teardowns, where it is noted
        for name, calls in report.user_properties:
            taken[report.location[0]] += calls if name == TAKEN else 0
    if taken:
        terminalreporter.write_line(f"{TAKEN}: {sum(taken.values()):,}")
        terminalreporter.write_line(f"no {TAKEN}: {', '.join(name for name in taken if not taken[name]) or 'nowhere'}")


@pytest.fixture(autouse=True, scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels are kept in a directory of this test run, and compiled as fast as can be (helpers.FAST): no bit depends
    on it, as test_compiled.py shows."""
    from gpubp.engines import build

    from .helpers import FAST

    with pytest.MonkeyPatch.context() as patch:
        if "GPUBP_CACHE" not in os.environ:
            folder = tmp_path_factory.getbasetemp()
            shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
            patch.setenv("GPUBP_CACHE", str(shared / "kernels"))
        patch.setattr(build, "FLAGS", (*build.FLAGS, *FAST))
        yield


@pytest.fixture(autouse=True, scope="module")
def widths(request: pytest.FixtureRequest) -> Iterator[None]:
    """General kernels serve all topologies, but in the files of OWN none."""
    from gpubp.engines import general

    with general.only(request.path.stem.removeprefix("test_") not in OWN):
        yield


@pytest.fixture(autouse=True, scope="session")
def disk() -> Iterator[None]:
    """Nothing waits for the disk, which takes milliseconds for a file: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Shapes are checked in files of SHAPED alone."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", request.path.stem.removeprefix("test_") not in SHAPED)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True, scope="session")
def device(pytestconfig: pytest.Config) -> Iterator[list[int]]:
    """Engines take their steps where --device says. -> the calls that they have taken there."""
    chosen = pytestconfig.getoption("--device")
    if chosen is None:
        yield []
        return
    from .elsewhere import elsewhere

    with elsewhere(chosen) as place:
        yield place.calls


@pytest.fixture(autouse=True)
def taken(device: list[int], request: pytest.FixtureRequest) -> Iterator[None]:
    """With --device, how many calls of a test were taken there is a property of its report."""
    before = len(device)
    yield
    if request.config.getoption("--device") is not None:
        request.node.user_properties.append((TAKEN, len(device) - before))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """A file of that name with that content."""

    def writer(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of networks of each run of gpubp.sklearn."""
    from gpubp.runs import training

    counts: list[int] = []
    train_many = training.train_many

    def counted(design: list[Any], *rest: Any, **given: Any) -> Any:
        counts.append(len(design))
        return train_many(design, *rest, **given)

    monkeypatch.setattr(training, "train_many", counted)
    return counts
