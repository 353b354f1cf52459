"""Memory that runs out halves the group, at whatever operation, and changes no bit."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import gpubp
from gpubp import memory
from gpubp.engines import ENGINES, eager
from gpubp.errors import OutOfMemoryError
from gpubp.state import TrainState
from gpubp.system import gpus

from .helpers import differing, population, samples, start
from .recorder import recorded
from .test_placement import STEPS, config, in_one_place, same, train  # noqa: F401

FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    OutOfMemoryError("the GPU has no free memory for the kernel's code"),
)


class Full:
    """An engine on whose device `room` networks can train: more run out of memory in the middle of the share."""

    def __init__(self, room: int, after: int = 0, error: Exception = FULL[0]) -> None:
        self.room, self.after, self.error, self.sizes = room, after, error, []  # type: ignore[var-annotated]

    def run(self, state: TrainState, data: gpubp.Dataset, steps: int) -> None:
        self.sizes.append(state.population.count)
        if len(self.sizes) > self.after and state.population.count > self.room:
            eager.run(state.rows(slice(0, self.room)), data, steps)
            raise self.error
        eager.run(state, data, steps)


@pytest.mark.parametrize(
    ("room", "groups", "after", "error"),
    [(6, [4], 0, FULL[0]), (3, [4, 2], 2, FULL[1]), (1, [4, 2, 1], 0, FULL[2]), (3, [4, 2], 1, FULL[3])],
    ids=["allocator", "driver", "cuBLAS", "kernel"],
)
def test_memory_that_runs_out_halves_the_group_and_changes_no_bit(
    room: int, groups: list[int], after: int, error: Exception, expected: gpubp.Result, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    full, released = Full(room, after, error), list[Any]()
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=full.run))
    monkeypatch.setattr(gpus, "release", released.append)
    monkeypatch.setattr("gpubp.runs.run.MOST", 3)  # several calls
    result = train(["cpu"], reporters=[gpubp.ConsoleReporter()])
    assert same(result, expected)
    assert len(result.notes) == len(groups) == len(released)
    told = capsys.readouterr().err
    for note, size in zip(result.notes, groups):
        assert note == (
            f"cpu: memory ran out there; its 7 networks train in {-(-7 // size)} groups of up to {size}, one after the "
            "other; results do not depend on it"
        )
        assert note in told
    assert max(full.sizes[-3:]) <= room


def test_another_error_is_no_reason_for_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(3, 1, error).run))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(["cpu"])


class Short(TorchDispatchMode):
    """Memory that runs out at the `last`th operation that takes some; index_put_ does so on a GPU."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fresh = any(each.alias_info is None for each in func._schema.returns)
        if fresh or func.overloadpacket is torch.ops.aten.index_put_:
            self.left -= 1
            if not self.left:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return func(*args, **(kwargs or {}))


def halted(last: int) -> tuple[TrainState, bool]:
    """Networks of which some diverge and each ends at its own step, after a call that ran out of memory at its `last`th
    operation, and then another. -> the state, and whether memory did run out."""
    spec = gpubp.NetworkSpec((2, 2))
    settings = {"optimizer": "sgd", "lr": [0.01, 1e30, 0.01], "steps": [2, 2, 1], "batch_size": 8, "shuffle": "none"}
    given = gpubp.Dataset(*samples(spec, 40, dtype=torch.float32))
    state = start(population(spec, 3, torch.float32), given, **settings)
    short = Short(last)
    try:
        with short:
            eager.run(state, given, 2)
    except torch.OutOfMemoryError:
        pass
    eager.run(state, given, 2)
    return state, short.left <= 0


def wrongly_halted(played: Callable[[], Any], each: int = 1) -> list[int]:
    """At which operations memory may run out so that some number differs; each, or every `each`th, is tried."""
    with played():
        whole, wrong, last = halted(sys.maxsize)[0], [], 1
        while True:
            found, short = halted(last)
            if differing(found, whole):
                wrong.append(last)
            if not short:
                return wrong
            last += each


@pytest.mark.parametrize(
    ("played", "each"),
    [
        (nullcontext, 13),
        (lambda: recorded(4), 41),
        *(pytest.param(each, 1, marks=pytest.mark.slow) for each in (nullcontext, lambda: recorded(4))),
    ],
    ids=["eager", "recorded", "eager, at each", "recorded, at each"],
)
def test_memory_may_run_out_at_any_operation_without_a_network_half_written(played: Any, each: int) -> None:
    assert wrongly_halted(played, each) == []


@pytest.mark.parametrize("every", [4, STEPS])
def test_memory_that_runs_out_in_an_evaluation_halves_the_group_too(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the last one, after which no step is taken."""
    chosen = config(evaluate_every=every)
    whole, evaluate = train(config=chosen), ENGINES["eager"].evaluate

    def full(networks: gpubp.Population, *rest: Any) -> Any:
        if networks.count > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(networks, *rest)

    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(evaluate=full))
    result = train(["cpu"], config=chosen)
    assert same(result, whole)
    assert sum("memory ran out" in each for each in result.notes) == 1


def test_a_single_network_that_does_not_fit_ends_the_run_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(0).run))
    with pytest.raises(OutOfMemoryError, match=r"7 networks of 3-6-2 with adam need .* on cpu"):
        train(["cpu", "cpu"])


def test_a_share_that_cannot_fit_starts_in_groups_and_says_so(
    expected: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "fit", lambda *given: 2)  # in two seats of one
    result = train(["cpu", "cpu"])
    assert same(result, expected)
    assert result.notes == [
        "cpu: memory is short there; its 4 networks train in 4 groups of up to 1, one after the other; results do not "
        "depend on it",
        "cpu: memory is short there; its 3 networks train in 3 groups of up to 1, one after the other; results do not "
        "depend on it",
    ]
    monkeypatch.setattr(memory, "fit", lambda *given: 0)
    with pytest.raises(OutOfMemoryError, match=r"are free, too little for one: use a smaller batch_size"):
        train(["cpu", "cpu"])
