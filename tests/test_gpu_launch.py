"""What the GPU engine hands to the driver, against a driver that records: grid, block, shared memory, stream; nobody
computes. That the fields of a Job are right is for test_gpu.py, by the bits."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpubp
from gpubp.engines import cuda, device
from gpubp.engines.layout import Kind, Layout
from gpubp.errors import EngineError, OutOfMemoryError
from gpubp.state import TrainState

from .driver import COUNT, EACH, FAILURE, MEMORY_GONE, PROCESSORS, SPEC, STREAM, Driver, recording_driver, training  # noqa: F401
from .helpers import instructions_of_repeats, population, put
from .recorder import Tape

INSTRUCTIONS = 520  # of Python, in a call


def test_a_launch_has_the_grid_the_stream_and_where_to_say_who_diverged(driver: Driver) -> None:
    state, data = training()
    cuda.run(state, data, 5)
    (kernel,) = cuda.KERNELS.values()
    layout = kernel.program.layout
    ((function, *shape, shared, stream, _, extra),) = driver.calls
    assert function == cuda.text(kernel.program).encode()
    assert shape == [-(-COUNT // layout.threads), 1, 1, layout.threads, 1, 1]
    assert (shared, stream, extra) == (kernel.program.plan.shared, STREAM, 0)
    assert driver.allowed == shared
    assert driver.job.taken, "room for the kernel's own notes"
    assert driver.job.steps == 5
    ends = (driver.end.status, driver.end.diverged, driver.end.far)
    assert ends == (state.status.data_ptr(), state.diverged_step.data_ptr(), None)


def test_slots_outside_have_room_for_the_blocks_that_run_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "LAYOUT", Layout(Kind.GPU_BLOCK, threads=64, slots_apart=True))
    state, data = training(1000)
    cuda.run(state, data, 5)
    assert driver.calls[0][1] == EACH * PROCESSORS
    assert driver.end.far
    cuda.run(*training(7), 5)
    assert driver.calls[1][1] == 7, "no more blocks than networks"
    monkeypatch.setattr(cuda, "LAYOUT", Layout(Kind.GPU_BLOCK, threads=8, teams=4, slots_apart=True))
    rooms, empty = [], torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *given: rooms.append(empty(*given)) or rooms[-1])
    cuda.KERNELS.clear()
    given = training(9)
    for _ in range(2):
        cuda.run(*given, 5)
        assert driver.end.far == rooms[-1].data_ptr(), "each call has its own"
    assert driver.calls[2][1:5] == (3, 1, 1, 32)
    (kernel,) = cuda.KERNELS.values()
    assert [len(room) for room in rooms] == [3 * 4 * kernel.program.plan.far] * 2, "for four networks of each block"


def test_a_new_thread_gets_a_context_for_loading_and_launching(driver: Driver) -> None:
    given = training()
    for _ in range(2):  # loads and launches, and then launches alone
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cuda.run, *given, 5).result()
    assert (len(driver.loaded), len(driver.calls)) == (1, 2)


def test_a_launch_can_be_captured_in_a_graph(driver: Driver) -> None:
    """After a first one it waits for nothing, and torch is asked for nothing."""
    state, data = training()
    cuda.run(state, data, 5)
    with Tape() as tape:
        cuda.run(state, data, 5)
    assert not tape.recorded
    first, second = (call[:9] for call in driver.calls)
    assert first == second, "grid, block, shared memory and stream"
    assert len(driver.loaded) == 1


def test_a_driver_error_is_reported(driver: Driver) -> None:
    state, data = training()
    driver.answer = FAILURE
    with pytest.raises(EngineError, match="the driver reports LAUNCH_FAILED"):
        cuda.run(state, data, 5)
    driver.answer = MEMORY_GONE
    with pytest.raises(OutOfMemoryError):
        cuda.run(state, data, 5)


def test_other_types_and_places_are_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    state, data = training()
    state = TrainState.start(population(SPEC, COUNT, torch.float64), gpubp.TrainConfig(steps=1), data)
    with pytest.raises(EngineError, match=r"networks are torch.float64 on cpu, inputs torch.float32"):
        cuda.run(state, data, 5)
    monkeypatch.setattr(device, "on_a_gpu", lambda tensor: tensor.is_cuda)
    with pytest.raises(EngineError, match="a GPU expected"):
        cuda.run(*training(), 5)


# ---- a launch that was prepared


def test_from_the_second_call_on_the_driver_is_asked_for_the_launch_alone(driver: Driver) -> None:
    state, data = training()
    for _ in range(3):
        driver.asked.clear()
        cuda.run(state, data, 5)
    assert driver.asked == ["cuCtxGetCurrent", "cuLaunchKernel"]


def test_a_call_takes_few_python_instructions_for_any_number_of_networks(driver: Driver) -> None:
    def taken(count: int, steps: int) -> int:
        state, data = training(count)
        return instructions_of_repeats(lambda: cuda.run(state, data, steps))

    assert taken(10, 1) == taken(1000, 1) == taken(10, 7) <= INSTRUCTIONS


def test_a_tensor_that_moves_is_followed(driver: Driver) -> None:
    """As by the CPU's engine, for which test_prepared.py tries each."""
    state, data = training()
    cuda.run(state, data, 5)
    for name in ("status", "diverged_step"):
        put(state, name, getattr(state, name).clone())
        cuda.run(state, data, 5)
        assert (driver.end.status, driver.end.diverged) == (state.status.data_ptr(), state.diverged_step.data_ptr())
    data.inputs = data.inputs.clone()
    cuda.run(state, data, 5)
    assert driver.job.inputs == data.inputs.data_ptr()
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


def test_a_thread_that_worked_on_another_gpu_gets_the_context_and_torchs_device_for_the_launch(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Any] = []
    monkeypatch.setattr("gpubp.system.gpus.on", lambda device: entered.append(device) or nullcontext())
    state, data = training()
    cuda.run(state, data, 5)
    entered.clear()
    cuda.run(state, data, 5)
    assert entered == []
    driver.current.context = "context 1"
    cuda.run(state, data, 5)
    assert entered == [state.population.device]
    assert len(driver.calls) == 3, "each in the context of its device, or the driver had refused it"
