"""A Ray of this machine that starts for a run, as a person starts one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpubp.cluster.session import _apart

from .clusters import ROOT

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
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ray_starts_for_a_run_that_a_signal_ends_and_resume_goes_on(tmp_path: Path, number: int) -> None:
    flags = "--data iris --networks 40 --lr 1e-3..1e-1:log --steps 20000 --evaluate-every 400 --tensorboard false"
    run_dir, command = tmp_path / "run", [sys.executable, "-m", "gpubp"]
    sharded = [*command, "train", *flags.split(), "--cluster", "local", "--shards", "2", "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        sharded, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    while not any((run_dir / "shards").glob("*/curves.bin")):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a terminal does, and `timeout`
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number
    assert f"{run_dir} holds its last checkpoint; continue with: gpubp resume {run_dir}" in told
    found = subprocess.run([*command, "resume", str(run_dir)], env=environment, capture_output=True, text=True)
    assert found.returncode == 0
    assert "has shards that have not ended; each goes on from its last checkpoint" in found.stderr
    whole = [*command, "train", *flags.split(), "--run-dir", str(tmp_path / "whole")]
    assert subprocess.run(whole, env=environment, capture_output=True).returncode == 0
    assert (run_dir / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()
    assert not (run_dir / "shards" / "driver").exists()
