"""A Ray of this machine that starts for a run, as a person starts one."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpubp.cluster.session import _apart

from .clusters import ROOT, ancestor

pytest.importorskip("ray")


def test_processes_of_a_ray_that_starts_are_apart(tmp_path: Path) -> None:
    from ray._private import services

    before = services.ConsolePopen, services.resolve_ip_for_localhost
    with _apart(services):
        process = services.ConsolePopen(["sleep", "60"], cwd=tmp_path)
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert os.getsid(process.pid) == process.pid
    process.kill()
    process.wait()
    assert (services.ConsolePopen, services.resolve_ip_for_localhost) == before
    with _apart(lacking := SimpleNamespace(other=1)):
        assert vars(lacking) == {"other": 1}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_a_ray_starts_for_a_run_that_ends_early_and_resume_goes_on(tmp_path: Path, number: int | None) -> None:
    """By a signal, or as a process of Ray is killed."""
    flags = "--data iris --networks 40 --lr 1e-3..1e-1:log --steps 20000 --evaluate-every 400 --tensorboard false"
    run_dir, command = tmp_path / "run", [sys.executable, "-m", "gpubp"]
    sharded = [*command, "train", *flags.split(), "--cluster", "local", "--shards", "2", "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(sharded, env=environment, text=True, start_new_session=True, **pipes)
    while not any((run_dir / "shards").glob("*/curves.bin")):
        assert process.poll() is None
        time.sleep(0.1)
    if number is None:
        os.kill(raylet(process.pid), signal.SIGKILL)
    else:
        os.killpg(process.pid, number)  # as a terminal does, and `timeout`
    printed, told = process.communicate(timeout=120)
    assert (process.returncode, printed) == (1 if number is None else 128 + number, "")
    last = "error: the Ray of this machine has ended" if number is None else f"stopped by {signal.Signals(number).name}"
    assert told.count(last) == 1
    assert f"{run_dir} holds its last checkpoint; continue with: gpubp resume {run_dir}" in told
    found = subprocess.run([*command, "resume", str(run_dir)], env=environment, capture_output=True, text=True)
    assert found.returncode == 0
    assert "has shards that have not ended; each goes on from its last checkpoint" in found.stderr
    whole = [*command, "train", *flags.split(), "--run-dir", str(tmp_path / "whole")]
    assert subprocess.run(whole, env=environment, capture_output=True).returncode == 0
    assert (run_dir / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    assert not (run_dir / "shards" / "driver").exists()


def raylet(process: int) -> int:
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"raylet/raylet" in each.read_bytes() and ancestor(int(each.parent.name), 1) == process:
                return int(each.parent.name)
    raise LookupError
