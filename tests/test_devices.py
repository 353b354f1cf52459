"""Devices are called by name; one that is absent ends a command at once, or is named where auto goes on without it."""

import json
from pathlib import Path

import pytest
import torch

import gpubp
from gpubp.cli import main
from gpubp.errors import ConfigError, DeviceError
from gpubp.population import usable
from gpubp.system import devices, gpus

from .commands import Capture, here, refused  # noqa: F401

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has two."""
    for name, value in {"missing": None, "count": 2, "current": 1, "name": "NVIDIA H100"}.items():
        monkeypatch.setattr(gpus, name, lambda *device, value=value: value)


def test_devices_are_called_by_name(two_gpus: None) -> None:
    for given, expected in {
        "cpu": ["cpu"], "cuda": ["cuda:1"], "cuda:0": ["cuda:0"], "cuda:all": ["cuda:0", "cuda:1"], "auto": ["cuda:1"],
        ("cuda:1", "cuda:0"): ["cuda:1", "cuda:0"], CPU: ["cpu"], torch.device("cuda", 1): ["cuda:1"],
    }.items():  # fmt: skip
        assert list(map(str, devices.devices(given))) == expected
    with pytest.raises(DeviceError, match=r"device 'cuda:2': this machine has 2 GPUs, from cuda:0 on"):
        usable("cuda:2")
    with pytest.raises(ConfigError, match="one or more of the same kind expected"):
        devices.devices(["cpu", "cuda"])
    with pytest.raises(ConfigError, match="one or more of the same kind expected"):
        devices.devices([])


def test_auto_is_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    assert devices.devices("auto") == [CPU]
    networks = gpubp.Population.create(gpubp.NetworkSpec((1, 1)), 1, device="auto")
    assert networks.device == CPU
    with pytest.raises(DeviceError, match=r"device 'cuda': .*use device cpu"):
        networks.to("cuda")


def test_auto_uses_a_gpu_and_says_which(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.automatic() == ("cuda:1", "device cuda:1: NVIDIA H100; --device cuda:all uses all 2")
    monkeypatch.setattr(gpus, "count", lambda: 1)
    monkeypatch.setattr(gpus, "current", lambda: 0)
    assert devices.automatic() == ("cuda:0", "device cuda:0: NVIDIA H100")


def test_auto_continues_on_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    flags = "train --data xor --networks 2 --steps 2 --engine eager --run-dir made --json"
    assert main(flags.split()) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[0] == "device cpu: torch finds no CUDA driver or no GPU here"
    assert json.loads(told.out.splitlines()[-1])["device"] == "cpu"
    assert "device: cpu" in Path("made/config.yaml").read_text()


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "cuda:all"])
def test_cuda_by_name_without_a_gpu_ends_at_once_with_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(gpus, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    said = refused(f"train --data xor --device {name} --run-dir made", capsys)
    shown = "cuda" if name == "cuda:all" else name
    assert said == f"device '{shown}': torch finds no CUDA driver or no GPU here; use device cpu"
    assert list(tmp_path.iterdir()) == []
