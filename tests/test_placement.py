"""Where a population trains: shares and groups change no bit, memory that runs out is borne, devices are named."""

import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.engines import ENGINES, Choice, eager
from gpubp.errors import CheckpointError
from gpubp.placing import placement
from gpubp.placing import shard as shards
from gpubp.state import TrainState
from gpubp.system import gpus

from .helpers import differing, failing, population, same_bits, samples
from .recorder import recorded
from .short_runs import hears

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
            patch.setattr("gpubp.runs.run.placed", placement.Shards)
        return gpubp.train(
            networks, training, more.pop("config", config()), data(30, 9), engine=engine, device=device, **more
        )


@pytest.fixture(name="expected", scope="module")
def in_one_place() -> gpubp.Result:
    return train()


def same(one: gpubp.Result, other: gpubp.Result) -> bool:
    clocks = {"seconds": 0, "network_steps_per_second": 0}
    histories = [[{**record, **clocks} for record in each.history] for each in (one, other)]
    return (
        not differing(one.state, other.state)
        and same_bits(one.loss, other.loss)
        and same_bits(one.validation_loss, other.validation_loss)  # type: ignore[arg-type]
        and histories[0] == histories[1]
        and one.table.equals(other.table)
    )


STOPS = {"lr": [0.01, 0.5, 2, 0.01, 1, 3, 0.2], "patience": 1, "restore_best": True}


@pytest.mark.parametrize(("shares", "optimizer"), [(1, "adam"), (9, "sgd")])
def test_networks_shared_over_any_number_of_devices_have_the_same_bits(shares: int, optimizer: str) -> None:
    chosen = config(optimizer=optimizer, **STOPS)
    assert same(train(["cpu"] * shares, config=chosen), train(config=chosen))


def test_memory_without_room_to_gather_networks_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(optimizer="sgd", schedule="constant", lr=[1e200 if n % 3 == 1 else 0.01 for n in range(COUNT)])
    whole, rows, full = train(config=chosen), TrainState.rows, [True]

    def gathered(state: TrainState, part: Any) -> TrainState:
        if full and inspect.stack()[1].function == "compact":
            full.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows(state, part)

    monkeypatch.setattr(TrainState, "rows", gathered)
    found = train(["cpu"], config=chosen)
    assert same(found, whole)
    assert not full
    assert "train in 2 groups" in found.notes[0]


@pytest.mark.parametrize("shares", [1, 3])
def test_gradients_of_networks_shared_over_devices_are_those_of_the_same_networks(shares: int) -> None:
    def norms(device: Any = None) -> list[list[torch.Tensor]]:
        found: list[list[torch.Tensor]] = []
        looks = hears(looked=lambda snapshot: found.append([snapshot.gradient_norms(most) for most in (COUNT, 2)]))
        train(device, reporters=[looks])
        return found

    shared = norms(["cpu"] * shares)
    assert [len(each) for each in shared[0]] == [COUNT, 2]
    assert all(same_bits(mine, theirs) for (mine, _), (theirs, _) in zip(norms(), shared, strict=True))


def test_every_share_trains_on_a_separate_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def run(state: TrainState, *rest: Any) -> None:
        seen.add((threading.current_thread().name.startswith("gpubp"), *state.population.ids.tolist()))
        eager.run(state, *rest)

    monkeypatch.setitem(ENGINES, "eager", ENGINES["eager"]._replace(run=run))
    train(["cpu"] * 3)
    assert seen == {(True, 0, 1, 2), (True, 3, 4, 5), (True, 6)}


def test_shares_of_recorded_groups_have_the_same_bits(expected: gpubp.Result) -> None:
    with recorded(3) as gpu:
        found = train(["cpu"])
    assert same(found, expected)
    assert sum(count % 3 for count in gpu.replays) == 0 < sum(gpu.replays), "7 networks are 3 groups of 3"


@pytest.mark.parametrize("fit", [COUNT, 2], ids=["memory", "memory runs out"])
def test_the_first_checkpoint_is_written_during_the_first_calls_with_the_initial_state(
    fit: int, expected: gpubp.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, saved, save = threading.Event(), [], checkpoint.save

    def late(run_dir: Path, *rest: Any) -> None:
        if not saved:
            assert trained.wait(60), "the first call waits for the checkpoint"
        save(run_dir, *rest)
        saved.append([tensor.clone() for _, tensor in checkpoint.load(run_dir, CPU).populations[0].state.tensors()])

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
    assert same(found, expected)


def test_a_first_checkpoint_that_cannot_be_written_ends_the_training_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "save", failing(CheckpointError("no space left")))
    calls = []
    for device in (None, ["cpu"]):
        with monkeypatch.context() as patch:
            patch.setattr(eager, "run", lambda *given: calls.append(given))
            with pytest.raises(CheckpointError, match="no space"):
                train(device, config=config(steps=10**6), run_dir=tmp_path / str(device))
    assert len(calls) < 100


def test_a_run_on_many_devices_is_resumed_on_one_and_vice_versa(tmp_path: Path) -> None:
    whole = train(config=config(schedule="constant", steps=20))
    for number, (first, then) in enumerate(((["cpu"] * 3, "cpu"), ("cpu", ["cpu"] * 2))):
        folder = tmp_path / str(number)
        train(first, config=config(schedule="constant"), run_dir=folder)
        resumed = gpubp.resume(folder, data(), data(30, 9), steps=20, device=then)
        assert same_bits(resumed.population.params, whole.population.params)
        assert same_bits(resumed.loss, whole.loss)


def test_the_given_population_is_overwritten_only_on_request() -> None:
    networks, before = population(SPEC, COUNT), population(SPEC, COUNT).params
    result = gpubp.train(networks, data(), config(), engine="eager", device=["cpu", "cpu"])
    assert same_bits(networks.params, before)
    gpubp.train(networks, data(), config(), engine="eager", device=["cpu", "cpu"], inplace=True)
    assert same_bits(networks.params, result.population.params)


def test_products_in_tf32_are_reported_if_torch_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    eagers, own = (Choice(name, ENGINES[name], "") for name in ("eager", "cuda"))
    gpu, said = torch.device("cuda:1"), []
    monkeypatch.setattr(gpus, "tf32", lambda: True)
    for choice, dtype, device in (
        (eagers, torch.float32, gpu), (own, torch.float32, gpu), (eagers, torch.float64, gpu),
        (eagers, torch.float32, CPU),
    ):  # fmt: skip
        said.append(shards.in_tf32(choice, dtype, device))
    assert str(said[0]).startswith("cuda:1: torch is set to multiply in TF32; after torch.set_float32_matmul_precision")
    assert said[1:] == [None] * 3
    monkeypatch.setattr(shards, "in_tf32", lambda *given: "told")
    assert train(["cpu"]).notes == ["told"]


def test_the_reason_for_launching_operation_by_operation_is_reported_once(
    expected: gpubp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    with recorded(), monkeypatch.context() as patch:
        patch.setattr(gpus, "capture", failing(refused))
        patch.setattr("gpubp.runs.run.MOST", 3)
        result = train(["cpu"])
    assert same(result, expected)
    assert result.notes == [
        "cpu: operations are launched one by one, without a CUDA graph: CUDA error: operation not permitted when "
        "stream is capturing"
    ]
