"""What a launch that was prepared gives the driver, and what it takes the host: against a driver that records."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gpubp.data import TENSORS
from gpubp.engines import cuda
from gpubp.engines.program import Layout

from .driver import STREAM, Driver, expected, launched, recording_driver, training  # noqa: F401
from .helpers import instructions, put

INSTRUCTIONS = 520  # of Python, in a call


def test_from_the_second_call_on_the_driver_is_asked_for_the_launch_alone(driver: Driver) -> None:
    state, data = training()
    for _ in range(3):
        driver.asked.clear()
        cuda.run(state, data, 5)
    assert driver.asked == ["cuCtxGetCurrent", "cuLaunchKernel"]


def test_a_call_takes_few_python_instructions_for_any_number_of_networks(driver: Driver) -> None:
    def taken(count: int, steps: int) -> int:
        state, data = training(count)
        first = instructions(lambda: cuda.run(state, data, steps))
        second, third = (instructions(lambda: cuda.run(state, data, steps)) for _ in range(2))
        assert second == third < first / 4
        return second

    assert taken(10, 1) == taken(1000, 1) == taken(10, 7) <= INSTRUCTIONS


def test_every_tensor_that_moves_is_followed(driver: Driver) -> None:
    state, data = training()
    cuda.run(state, data, 5)
    for name, tensor in [*state.tensors()]:
        put(state, name, tensor.clone())
        cuda.run(state, data, 5)
        given = launched(driver)
        assert {each: given[each] for each in expected(state, data)} == expected(state, data), name
        assert driver.end.diverged == state.diverged_step.data_ptr(), name
        assert driver.end.status == state.status.data_ptr(), name
    for name in TENSORS:
        setattr(data, name, getattr(data, name).clone())
        cuda.run(state, data, 5)
        given = launched(driver)
        assert {each: given[each] for each in expected(state, data)} == expected(state, data), name
    assert len(driver.loaded) == 1


def test_each_call_has_its_own_steps_and_stream_and_the_notes_of_its_state(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, data = training()
    notes = set()
    for number in range(3):
        monkeypatch.setattr(
            torch.cuda, "current_stream", lambda *_, at=number: SimpleNamespace(cuda_stream=STREAM + at)
        )
        cuda.run(state, data, 5 + number)
        assert driver.calls[-1][8] == STREAM + number
        assert driver.job.steps == 5 + number
        notes.add(driver.job.taken)
    assert len(notes) == 1
    other, _ = training()
    cuda.run(other, data, 5)
    assert driver.job.taken not in notes, "another state's"


def test_slots_in_global_memory_are_separate_for_each_call(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LAYOUT", Layout(1, team=True, threads=64, near=False))
    state, data = training(7)
    rooms, empty = [], torch.Tensor.new_empty

    def room(tensor: torch.Tensor, size: int) -> torch.Tensor:
        rooms.append(empty(tensor, size))
        return rooms[-1]

    monkeypatch.setattr(torch.Tensor, "new_empty", room)
    for _ in range(3):
        cuda.run(state, data, 5)
        assert driver.end.slots == rooms[-1].data_ptr()
    (kernel,) = cuda.KERNELS.values()
    assert [len(each) for each in rooms] == [7 * kernel.program.plan.far] * 3


def test_a_layout_by_hand_is_taken_from_the_next_call_on(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    state, data = training()
    for layout in (None, Layout(1, team=True, threads=64), None):
        monkeypatch.setattr(cuda, "LAYOUT", layout)
        monkeypatch.setattr(cuda, "KERNELS", {})
        cuda.run(state, data, 5)
        assert driver.calls[-1][4] == (128 if layout is None else 64)


def test_a_thread_that_worked_on_another_gpu_gets_the_context_and_torchs_device_for_the_launch(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Any] = []
    monkeypatch.setattr("gpubp.gpus.on", lambda device: entered.append(device) or nullcontext())
    state, data = training()
    cuda.run(state, data, 5)
    entered.clear()
    cuda.run(state, data, 5)
    assert entered == []
    driver.current.context = "context 1"
    cuda.run(state, data, 5)
    assert entered == [state.population.device]
    assert len(driver.calls) == 3, "each in the context of its device, or the driver had refused it"
