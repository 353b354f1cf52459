"""The module that calls torch.cuda, with a torch.cuda that writes down what is asked of it."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

import gpubp
from gpubp.placing import turns
from gpubp.system import gpus

from .helpers import failing, population, same_bits, samples, start
from .recorder import like

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


class Stream:
    """A stream by its name."""

    def __init__(self, told: list[str], name: str = "side") -> None:
        self.told, self.name, self.device = told, name, GPU
        told.append(f"{name} stream")

    def wait_stream(self, other: Stream) -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.told.append(f"wait for {self.name}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch.cuda was asked, in order."""
    asked: list[str] = []
    monkeypatch.setattr(gpus, "_side", functools.cache(gpus._side.__wrapped__))
    monkeypatch.setattr(gpus, "SPOILT", set())
    main = Stream(asked, "main")
    asked.clear()

    @contextlib.contextmanager
    def within(name: str) -> Iterator[None]:
        asked.append(f"into {name}")
        try:
            yield
        finally:
            asked.append(f"out of {name}")

    class Recording:
        """torch.cuda.graph: a recording that an error has broken off cannot be ended without another."""

        def __init__(self, graph: Any, pool: Any, stream: Stream, capture_error_mode: str) -> None:
            self.name = f"a recording in {pool} on {stream.name}, {capture_error_mode}"

        def __enter__(self) -> None:
            asked.append(f"into {self.name}")

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
            asked.append(f"out of {self.name}")
            if kind is not None:
                raise RuntimeError("operation failed due to a previous error during capture")

    found: dict[str, Any] = {
        "current_stream": lambda *device: main, "stream": lambda stream: within(stream.name), "graph": Recording,
        "device": lambda device: within(str(device)), "empty_cache": lambda: asked.append("give back"),
        "graph_pool_handle": lambda: "a pool", "current_device": lambda: 1,
    }  # fmt: skip
    for name, fake in found.items():
        monkeypatch.setattr(torch.cuda, name, like(getattr(torch.cuda, name), fake))
    named = {0: "side", -1: "copies"}
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None, priority=0: Stream(asked, named[priority]))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: asked.append("replay")))
    return asked


def test_a_step_warms_up_on_a_stream_beside_and_several_are_recorded_there(told: list[str]) -> None:
    replay = gpus.capture(lambda: told.append("four steps"), lambda: told.append("step"), gpus.pool())
    replay()
    replay()
    recording = "a recording in a pool on side, thread_local"
    assert told == [
        "side stream", "side waits for main", "into side", "step", "step", "step", "out of side", "main waits for side",
        "into main", f"into {recording}", "four steps", f"out of {recording}", "out of main", "replay", "replay",
    ]  # fmt: skip


def test_copies_have_a_stream_that_no_recording_is_given_and_order_is_asked_for_both_ways(told: list[str]) -> None:
    copies = gpus.Copies(GPU)
    copies.follow()
    with copies.beside():
        told.append("copy")
    copies.lead()
    assert told == [
        "copies stream", "copies waits for main", "into copies", "copy", "out of copies", "main waits for copies",
    ]  # fmt: skip


def test_all_recordings_of_a_gpu_are_made_in_one_stream(told: list[str]) -> None:
    pool = gpus.pool()
    for _ in range(2):
        gpus.capture(lambda: None, pool=pool)
    assert told.count("side stream") == 1, "memory of a pool is given again in the stream alone that had it"


def broken(told: list[str]) -> None:
    """A step that waits."""
    if told[-1].startswith("into a recording"):
        raise RuntimeError("operation not permitted when stream is capturing")


def test_a_failed_capture_is_ended_and_its_first_error_is_raised(told: list[str]) -> None:
    with pytest.raises(RuntimeError, match="not permitted"):
        gpus.capture(lambda: broken(told))
    assert told[-2:] == ["out of a recording in None on side, thread_local", "out of main"], "on the stream of before"
    assert not gpus.RECORDING.locked()


def test_nothing_is_kept_of_a_failed_capture(told: list[str]) -> None:
    class Numbers:
        pass

    kept: list[weakref.ref[Numbers]] = []

    def fails() -> None:
        numbers = Numbers()
        kept.append(weakref.ref(numbers))
        broken(told)

    gc.disable()
    try:
        with contextlib.suppress(RuntimeError):
            gpus.capture(fails)
        assert len(kept) == gpus.WARM + 1
        assert all(each() is None for each in kept), "not before somebody looks for cycles"
    finally:
        gc.enable()


def test_threads_of_a_gpu_record_one_after_the_other(told: list[str]) -> None:
    other = threading.Thread(target=lambda: gpus.capture(lambda: told.append("other")))

    def step() -> None:
        if not other.ident:
            other.start()
        time.sleep(0.05)
        told.append("step")

    gpus.capture(step)
    other.join()
    assert told.count("other") == told.count("step") == gpus.WARM + 1
    assert "step" not in told[told.index("other") :], (
        "a warm-up of the other would be recorded too: the stream is the same"
    )


def test_a_failed_warm_up_is_waited_for(told: list[str]) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        gpus.capture(failing(RuntimeError("CUDA out of memory")))
    assert told[-2:] == ["out of side", "main waits for side"]
    assert not gpus.RECORDING.locked()


@pytest.mark.parametrize(("version", "spoilt"), [("2.9.1", True), ("2.12.0+cu126", True), ("2.13.0", False)])
def test_an_older_torch_captures_nothing_after_a_failed_capture(
    version: str, spoilt: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(RuntimeError, match="not permitted"):
        gpus.capture(lambda: broken(told))
    if not spoilt:
        gpus.capture(lambda: None)
        return
    told.clear()
    with pytest.raises(RuntimeError, match=f"torch {re.escape(version)} cannot record after a fa"):
        gpus.capture(lambda: None)
    assert told == []


def test_an_older_torch_that_frees_nothing_after_a_failed_capture_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        assert gpus.RECORDING.locked(), "nothing is given back while a thread records"
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", refuses)
    gpus.release(GPU)
    assert not gpus.RECORDING.locked()


def test_without_pinned_memory_the_tensor_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.ones(3)
    monkeypatch.setattr(torch.Tensor, "pin_memory", failing(RuntimeError("CUDA error: out of memory")))
    assert gpus.pinned(tensor) is tensor


def test_a_gpu_is_selected_by_its_number_and_the_cpu_selects_none(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for device in (CPU, GPU):
        with gpus.on(device):
            gpus.wait(device)
            gpus.release(device)
        if device == CPU:
            copies = gpus.Copies(device)
            copies.follow()
            with copies.beside():
                copies.lead()
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == (device == GPU)
    assert told == ["into cuda:1", "wait for main", "give back", "out of cuda:1"]


def test_what_is_missing_is_reported_and_free_memory_includes_torchs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((False, False, "has no CUDA"), (True, False, "no CUDA driver or no GPU"), (True, True, None))
    for built, available, said in cases:
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda built=built: built)
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert (gpus.missing() is None) if said is None else (said in str(gpus.missing()))
    for name, value in {"memory_reserved": 50, "memory_allocated": 20, "mem_get_info": (100, 1000)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert gpus.free(GPU) == 130


def test_copies_to_and_from_a_gpu_use_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, pinned = gpubp.NetworkSpec((3, 6, 2)), {}
    state = start(population(spec, 5), gpubp.Dataset(*samples(spec, 20)), optimizer="adam", steps=1)
    before = dict(state.tensors())

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned[id(tensor)] = tensor.clone()
        return pinned[id(tensor)]

    monkeypatch.setattr(gpus, "pinned", pin)
    turns.pin(state)
    for name, tensor in state.tensors():
        assert tensor is pinned[id(before[name])], name
        assert same_bits(tensor, before[name]), name
