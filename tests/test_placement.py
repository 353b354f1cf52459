"""Where a population trains: shares and groups change no bit, memory that runs out is borne, devices are named."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import gpubp
from gpubp import checkpoint, cuda, devices, memory, placement
from gpubp import shard as shards
from gpubp.cli import main
from gpubp.engines import ENGINES, Choice, eager
from gpubp.errors import CheckpointError, ConfigError, DeviceError, OutOfMemoryError
from gpubp.population import usable
from gpubp.state import TrainState

from .helpers import population, same_bits, samples, start
from .recorder import recorded

SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
COUNT, STEPS = 7, 12
CPU = torch.device("cpu")


def data(size: int = 40, seed: int = 1, **more: Any) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, size, seed=seed), **more)


def config(**settings: Any) -> gpubp.TrainConfig:
    given = {"batch_size": 8, "steps": STEPS, "lr": 0.05, "evaluate_every": 4, "dropout": 0.1}
    plateau = {"schedule": "plateau", "plateau_patience": 0, "plateau_threshold": 0.5}
    return gpubp.TrainConfig(**{**given, **({} if "schedule" in settings else plateau), **settings})


def train(device: Any = None, engine: str = "eager", **more: Any) -> gpubp.Result:
    """A run; on a list of devices the networks are shared, also over a list of one."""
    networks, training = population(SPEC, COUNT), more.pop("data", data())
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(device, list):
            patch.setattr("gpubp.run.placed", placement.Shards)
        return gpubp.train(
            networks, training, more.pop("config", config()), data(30, 9), engine=engine, device=device, **more
        )


def same(one: gpubp.Result, other: gpubp.Result) -> bool:
    tensors = zip(one.state.tensors(), other.state.tensors())
    clocks = {"seconds": 0, "network_steps_per_second": 0}
    histories = [[{**record, **clocks} for record in each.history] for each in (one, other)]
    return (
        all(name == again and same_bits(mine, theirs) for (name, mine), (again, theirs) in tensors)
        and same_bits(one.loss, other.loss)
        and same_bits(one.validation_loss, other.validation_loss)  # type: ignore[arg-type]
        and histories[0] == histories[1]
        and one.table.equals(other.table)
    )


@pytest.mark.parametrize(("shares", "optimizer"), [(1, "adam"), (2, "sgd"), (3, "adam"), (9, "sgd")])
def test_networks_shared_over_any_number_of_devices_have_the_same_bits(shares: int, optimizer: str) -> None:
    chosen = config(optimizer=optimizer)
    assert same(train(["cpu"] * shares, config=chosen), train(config=chosen))


def test_every_share_trains_on_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def run(state: TrainState, *rest: Any) -> None:
        seen.add((threading.current_thread().name, *state.population.ids.tolist()))
        eager.run(state, *rest)

    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=run))
    train(["cpu"] * 3)
    assert {networks for _, *networks in map(list, seen) for networks in [tuple(networks)]} == {
        (0, 1, 2),
        (3, 4, 5),
        (6,),
    }
    assert all(name.startswith("gpubp") for name, *_ in seen)


def test_data_and_settings_of_each_network_go_with_it() -> None:
    own = data(rows=[range(n, 20 + n) for n in range(COUNT)])
    chosen = config(lr=[0.01 * (n + 1) for n in range(COUNT)], steps=[STEPS - n for n in range(COUNT)])
    assert same(train(["cpu"] * 3, data=own, config=chosen), train(data=own, config=chosen))


def test_shares_of_recorded_groups_have_the_same_bits() -> None:
    expected = train()
    with recorded(3) as gpu:
        found = train(["cpu"])
    assert same(found, expected)
    assert sum(count % 3 for count in gpu.replays) == 0 < sum(gpu.replays), "7 networks are 3 groups of 3"


@pytest.mark.parametrize("fit", [COUNT, 2], ids=["memory", "memory runs out"])
def test_the_first_checkpoint_is_written_beside_the_first_calls_and_holds_what_was_there_before(
    fit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, saved, save = threading.Event(), [], checkpoint.save

    def late(run_dir: Path, *rest: Any) -> None:
        if not saved:
            assert trained.wait(60), "the first call waits for the checkpoint"
        save(run_dir, *rest)
        saved.append([tensor.clone() for _, tensor in checkpoint.load(run_dir, CPU).state.tensors()])

    def run(state: TrainState, *rest: Any) -> None:
        eager.run(state.rows(slice(0, fit)), *rest)
        trained.set()
        if state.population.count > fit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(checkpoint, "save", late)
    before = [tensor.clone() for _, tensor in TrainState.start(population(SPEC, COUNT), config(), data()).tensors()]
    with monkeypatch.context() as patch:
        patch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=run))
        found = train(["cpu"], run_dir=tmp_path / "run")
    assert all(map(same_bits, saved[0], before))
    assert len(saved) == 2
    assert same(found, train())


def test_a_first_checkpoint_that_cannot_be_written_ends_the_training_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise CheckpointError("no space left")

    monkeypatch.setattr(checkpoint, "save", full)
    calls = []
    for device in (None, ["cpu"]):
        with monkeypatch.context() as patch:
            patch.setattr(eager, "run", lambda *given: calls.append(given))
            with pytest.raises(CheckpointError, match="no space"):
                train(device, config=config(steps=10**6), run_dir=tmp_path / str(device))
    assert len(calls) < 100


def test_a_run_on_many_devices_is_resumed_on_one_and_the_other_way_round(tmp_path: Path) -> None:
    expected = train(config=config(schedule="constant", steps=20))
    for number, (first, then) in enumerate(((["cpu"] * 3, "cpu"), ("cpu", ["cpu"] * 2))):
        folder = tmp_path / str(number)
        train(first, config=config(schedule="constant"), run_dir=folder)
        resumed = gpubp.resume(folder, data(), data(30, 9), steps=20, device=then)
        assert same_bits(resumed.population.params, expected.population.params)
        assert same_bits(resumed.loss, expected.loss)


def test_a_checkpoint_in_the_middle_holds_the_rows_of_all_devices(tmp_path: Path) -> None:
    train(["cpu"] * 3, run_dir=tmp_path / "one", checkpoint_minutes=0.0)
    train(run_dir=tmp_path / "two", checkpoint_minutes=0.0)
    one, two = (gpubp.load(tmp_path / name).population for name in ("one", "two"))
    assert same_bits(one.params, two.params)


def test_the_given_population_is_written_over_only_where_that_is_asked_for() -> None:
    networks, before = population(SPEC, COUNT), population(SPEC, COUNT).params
    result = gpubp.train(networks, data(), config(), device=["cpu", "cpu"])
    assert same_bits(networks.params, before)
    gpubp.train(networks, data(), config(), device=["cpu", "cpu"], inplace=True)
    assert same_bits(networks.params, result.population.params)


FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    OutOfMemoryError("the GPU has no memory left for the kernel's code"),
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


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(("room", "groups"), [(6, [4]), (3, [4, 2]), (1, [4, 2, 1])])
def test_memory_that_runs_out_halves_the_group_and_changes_no_bit(
    room: int, groups: list[int], after: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, released = train(), []
    full = Full(room, after)
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=full.run))
    monkeypatch.setattr(cuda, "release", released.append)
    monkeypatch.setattr("gpubp.run.MOST", 3)  # several calls
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


@pytest.mark.parametrize("error", FULL, ids=["allocator", "driver", "cuBLAS", "kernel"])
def test_memory_that_runs_out_is_known_by_whatever_says_so(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train()
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(3, 1, error).run))
    result = train(["cpu"])
    assert same(result, expected)
    assert len(result.notes) == 2


def test_another_error_is_no_reason_for_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(3, 1, error).run))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(["cpu"])


def test_products_in_tf32_are_told_of_where_torch_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    eagers, own = (Choice(name, *ENGINES[name], "") for name in ("eager", "cuda"))
    gpu, said = torch.device("cuda:1"), []
    monkeypatch.setattr(cuda, "tf32", lambda: True)
    for choice, dtype, device in (
        (eagers, torch.float32, gpu), (own, torch.float32, gpu), (eagers, torch.float64, gpu),
        (eagers, torch.float32, CPU),
    ):  # fmt: skip
        said.append(shards.in_tf32(choice, dtype, device))
    assert str(said[0]).startswith(
        "cuda:1: torch was told to multiply in TF32; after torch.set_float32_matmul_precision"
    )
    assert said[1:] == [None] * 3
    monkeypatch.setattr(shards, "in_tf32", lambda *given: "told")
    assert train(["cpu"]).notes == ["told"]


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
        expected, wrong, last = halted(sys.maxsize)[0], [], 1
        while True:
            found, short = halted(last)
            if not all(same_bits(mine, theirs) for (_, mine), (_, theirs) in zip(found.tensors(), expected.tensors())):
                wrong.append(last)
            if not short:
                return wrong
            last += each


@pytest.mark.parametrize(
    ("played", "each"),
    [
        (nullcontext, 2),
        (lambda: recorded(4), 7),
        *(pytest.param(each, 1, marks=pytest.mark.slow) for each in (nullcontext, lambda: recorded(4))),
    ],
    ids=["eager", "recorded", "eager, at each", "recorded, at each"],
)
def test_memory_may_run_out_at_any_operation_without_a_network_half_written(played: Any, each: int) -> None:
    assert wrongly_halted(played, each) == []


def test_a_network_that_is_put_back_in_part_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(state: TrainState, part: Tensor, other: TrainState) -> None:
        for (_, mine), (_, theirs) in zip(state.tensors(), other.tensors()):
            mine[part] = theirs

    monkeypatch.setattr(TrainState, "put", put)
    assert wrongly_halted(nullcontext, 4)


@pytest.mark.parametrize("every", [4, STEPS])
def test_memory_that_runs_out_in_an_evaluation_halves_the_group_too(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the last one, after which no step is taken."""
    chosen = config(evaluate_every=every)
    expected, evaluate = train(config=chosen), ENGINES["eager"].evaluate

    def full(networks: gpubp.Population, *rest: Any) -> Any:
        if networks.count > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(networks, *rest)

    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(evaluate=full))
    result = train(["cpu"], config=chosen)
    assert same(result, expected)
    assert len(result.notes) == 1


def test_one_network_that_does_not_fit_ends_the_run_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(0).run))
    with pytest.raises(OutOfMemoryError, match=r"7 networks of 3-6-2 with adam need .* on cpu"):
        train(["cpu", "cpu"])


def test_a_share_that_cannot_fit_begins_in_groups_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train()
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
    with pytest.raises(OutOfMemoryError, match=r"are free, too few for one: take a smaller batch_size"):
        train(["cpu", "cpu"])


def test_why_a_gpu_launches_operation_by_operation_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    with recorded(), monkeypatch.context() as patch:
        patch.setattr(cuda, "capture", refuses)
        patch.setattr("gpubp.run.MOST", 3)
        result = train(["cpu"])
    assert same(result, train())
    assert result.notes == [
        "cpu: every operation is launched by itself, without a CUDA graph: CUDA error: operation not permitted when "
        "stream is capturing"
    ]


def forgetful(shard: shards.Shard) -> None:
    """The rows stay where they are."""


def everything(shard: shards.Shard, *rest: Any) -> Any:
    """Trains again what was trained when memory ran out."""
    shard.there = None
    return halve(shard)


halve = shards.Shard._halve


@pytest.mark.parametrize(("name", "fault"), [("gather", forgetful), ("_halve", everything)])
def test_a_planted_fault_is_found_by_the_bits(name: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train()
    monkeypatch.setattr(shards.Shard, name, fault)
    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=Full(4, after=2).run))
    monkeypatch.setattr("gpubp.run.MOST", 3)
    assert not same(train(["cpu"] if name == "_halve" else ["cpu", "cpu"]), expected)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has two."""
    for name, value in {"missing": None, "count": 2, "current": 1, "name": "NVIDIA H100"}.items():
        monkeypatch.setattr(cuda, name, lambda *device, value=value: value)


def test_devices_are_called_by_name(gpus: None) -> None:
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


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    assert devices.devices("auto") == [CPU]
    assert gpubp.Population.create(gpubp.NetworkSpec((1, 1)), 1, device="auto").device == CPU


def test_auto_takes_a_gpu_and_says_which(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.automatic() == ("cuda:1", "device cuda:1: NVIDIA H100; --device cuda:all takes all 2")
    monkeypatch.setattr(cuda, "count", lambda: 1)
    monkeypatch.setattr(cuda, "current", lambda: 0)
    assert devices.automatic() == ("cuda:0", "device cuda:0: NVIDIA H100")


def test_auto_goes_on_on_the_cpu_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "xor", "--networks", "2", "--steps", "2", "--run-dir", "made", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines()[0] == "device cpu: torch finds no CUDA driver or no GPU here"
    assert json.loads(told.out.splitlines()[-1])["device"] == "cpu"
    assert "device: cpu" in Path("made/config.yaml").read_text()


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "cuda:all"])
def test_cuda_by_name_where_there_is_none_ends_at_once_with_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "torch finds no CUDA driver or no GPU here")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "xor", "--device", name, "--run-dir", "made"]) == 1
    told = capsys.readouterr()
    shown = "cuda" if name == "cuda:all" else name
    assert told.err == f"error: device '{shown}': torch finds no CUDA driver or no GPU here; use --device cpu\n"
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []
