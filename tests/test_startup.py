"""What does not wait: help, the version and refusals for torch, `import gpubp` for what only a command line needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gpubp
from gpubp.system import flags
from scripts.flags import text

HEAVY = ("jsonargparse", "matplotlib", "pandas", "rich", "scipy", "sklearn", "tensorboard")
RUN = "import sys\ntry:\n    {}\nfinally:\n    print(*sys.modules, file=sys.stderr)"


def modules(statement: str) -> set[str]:
    """The packages that a process of its own has loaded after `statement`."""
    code = RUN.format(statement)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_help_the_version_and_a_refused_flag_wait_for_no_torch() -> None:
    """One process runs them all."""
    lines = ("--help", "--version", "train --help", "train --networks ten", "trian", "inspect", "")
    loop = f"for line in {lines}:\n        try: main(line.split())\n        except SystemExit: pass"
    loaded = modules(f"from gpubp.cli import main\n    {loop}")
    assert "jsonargparse" in loaded
    assert not loaded & {"torch", "numpy", "pyarrow", *HEAVY} - {"jsonargparse"}


def test_the_package_waits_for_torch_and_pyarrow_alone_and_has_every_name_whatever_is_imported_first() -> None:
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
        import pyarrow.parquet, rich.console, yaml  # once for both
        for first in ("gpubp.commands.outcome", "gpubp.backprop"):
            forked(f"import {first}, gpubp; print(*(n for n in gpubp.__all__ if not callable(getattr(gpubp, n))))")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    without, loaded, trained, *rest = done.stdout.splitlines()
    assert "torch" not in without.split()
    assert "torch" in loaded.split()
    assert not {*loaded.split()} & {*HEAVY}
    assert not {*trained.split()} & {*HEAVY, "sympy"} - {"pandas", "pyarrow"}
    assert rest[::2] == ["ACTIVATIONS INITIALISERS LOSSES MODULES OPTIMIZERS SCHEDULES backprop"] * 2, done.stderr
    assert set(gpubp.__all__) <= set(dir(gpubp))
    assert gpubp.tutorial.ROUNDS == 10_000, "and so is every module"
    with pytest.raises(AttributeError, match="module 'gpubp' has no attribute 'trian'"):
        gpubp.trian  # noqa: B018


def test_the_flags_are_those_that_the_script_prints() -> None:
    path = Path(flags.__file__).with_suffix(".json")
    assert path.read_text(encoding="utf-8") == text(), "python scripts/flags.py > gpubp/system/flags.json"
    assert json.loads(text()) == flags.FLAGS
