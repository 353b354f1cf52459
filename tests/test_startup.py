"""What does not wait: help, the version and refusals for torch, `import gpubp` for what only a command line needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gpubp
from gpubp import flags
from scripts.flags import text

HEAVY = ("jsonargparse", "matplotlib", "pandas", "pyarrow", "rich", "scipy", "sklearn", "tensorboard")
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
    assert not loaded & {"torch", "numpy", *HEAVY} - {"jsonargparse"}


def test_the_package_waits_for_torch_and_nothing_heavier() -> None:
    assert "torch" not in modules("import gpubp")
    loaded = modules("import gpubp; gpubp.train, gpubp.NetworkSpec, gpubp.Population")
    assert "torch" in loaded
    assert not loaded & set(HEAVY)


def test_every_public_name_exists_whichever_module_is_imported_first() -> None:
    code = """if True:
        import importlib, os, torch
        for first in ("gpubp.commands.outcome", "gpubp.backprop"):
            if not os.fork():  # a process that has imported torch alone
                gpubp = importlib.import_module(first) and importlib.import_module("gpubp")
                print(*(name for name in gpubp.__all__ if not callable(getattr(gpubp, name))), flush=True)
                os._exit(0)
            os.wait()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 2 * "ACTIVATIONS INITIALISERS LOSSES OPTIMIZERS SCHEDULES backprop\n", done.stderr
    assert set(gpubp.__all__) <= set(dir(gpubp))
    assert gpubp.tutorial.ROUNDS == 10_000, "and so is every module"
    with pytest.raises(AttributeError, match="module 'gpubp' has no attribute 'trian'"):
        gpubp.trian  # noqa: B018


def test_the_flags_are_those_that_the_script_prints() -> None:
    path = Path(flags.__file__).with_suffix(".json")
    assert path.read_text(encoding="utf-8") == text(), "python scripts/flags.py > gpubp/flags.json"
    assert json.loads(text()) == flags.FLAGS
