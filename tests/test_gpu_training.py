"""train() with engine "cuda" on GPUs that the CPU plays: placement, engine, launch and kernel together, from the first
call to the last, to the CPU engine's bits; and what goes to and fro meanwhile."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import memory
from gpubp.engines import choose, cuda
from gpubp.engines.chip import Limits
from gpubp.errors import EngineError, OutOfMemoryError
from gpubp.placing import placement, shard
from gpubp.state import TrainState
from gpubp.system import devices

from .helpers import compiled, differing, instructions, population, quick, same_bits, samples  # noqa: F401
from .playing import H100, Launch, Player, machine
from .test_placement import same

pytestmark = pytest.mark.usefixtures("short_calls")
SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
COUNT, STEPS = 7, 12
RATES = [0.01 * (n + 1) for n in range(COUNT)]


def data(kind: str = "shared", size: int = 40, seed: int = 1) -> gpubp.Dataset:
    """float32, as a GPU would have it."""
    own = "inputs" in kind
    inputs, target = samples(SPEC, *((COUNT, size) if own else (size,)), dtype=torch.float32, seed=seed)
    rows = [range(n, 20 + 2 * n) for n in range(COUNT)] if "rows" in kind else None
    weight = torch.rand(COUNT, size, generator=torch.Generator().manual_seed(3)) if "weights" in kind else None
    return gpubp.Dataset(inputs, target, rows, weight)


def train(device: str, kind: str = "shared", run_dir: Path | None = None, **settings: Any) -> gpubp.Result:
    given = {"batch_size": 8, "steps": STEPS, "lr": RATES, "evaluate_every": 4, "dropout": 0.1, **settings}
    engine = "cpu" if device == "cpu" else "cuda"
    held_out = data("shared", 30, 9)
    return gpubp.train(
        population(SPEC, COUNT, torch.float32), data(kind), gpubp.TrainConfig(**given), held_out, engine=engine,
        device=device, run_dir=run_dir,
    )  # fmt: skip


def trained_by() -> str:
    """The sentence of the one kernel for training that was compiled."""
    (kernel,) = (each for each in cuda.KERNELS.values() if each.program.key.trains)
    return kernel.reason


SETTINGS: dict[str, dict[str, Any]] = {
    "adam": {},
    "a plateau": {"schedule": "plateau", "plateau_patience": 0, "plateau_threshold": 0.5, "lr": 0.05},
    "ends of their own": {"steps": [STEPS - n for n in range(COUNT)]},
    "some diverge": {"lr": [1e38 if n % 3 == 1 else 0.01 for n in range(COUNT)]},
    "some stop": {"patience": 1, "restore_best": True, "lr": [0.01, 0.5, 2, 0.01, 1, 3, 0.2]},
    "own rows": {"kind": "rows"},
    "own inputs and weights": {"kind": "inputs and weights"},
}


@pytest.mark.parametrize(("name", "count"), quick(itertools.product(SETTINGS, (1, 3)), [("some diverge", 3)]))
def test_a_run_on_any_number_of_gpus_is_the_cpus(name: str, count: int) -> None:
    expected = train("cpu", **SETTINGS[name])
    with machine(count) as own:
        found = train("cuda:0" if count == 1 else "cuda:all", **SETTINGS[name])
        assert found.engine_reason == trained_by()
    assert (found.engine, expected.engine) == ("cuda", "cpu")
    assert found.notes == []
    assert same(found, expected)
    assert {device for _, device in own.on} == {f"cuda:{number}" for number in range(count)}
    training = [launch for launch in own.player.launches if "#define TASK 0" in launch.text]
    assert len(training) == count * STEPS // 4 * 2, "a launch for every call, of 3 steps and of 1"
    if name == "some diverge":
        assert found.statuses["diverged"] == 2


def test_a_driver_that_has_no_memory_left_halves_the_group_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, play = train("cpu"), Player.play

    def full(player: Player, launch: Launch) -> None:
        if launch.job.count > 4:
            raise OutOfMemoryError("the GPU has no memory left for the kernel's code")
        play(player, launch)

    monkeypatch.setattr(Player, "play", full)
    with machine() as own:
        found = train("cuda:0")
    assert same(found, expected)
    assert len(found.notes) == 1
    assert "memory ran out there; its 7 networks train in 2 groups of up to 4" in found.notes[0]
    assert own.pinned == at_home(found), "what goes to and fro from then on"


def at_home(result: gpubp.Result) -> int:
    """Bytes of a state, and of where a call ends."""
    return sum(tensor.nbytes for _, tensor in result.state.tensors()) + result.state.limit.nbytes


def test_a_run_begun_on_gpus_is_resumed_on_others_and_on_the_cpu(tmp_path: Path) -> None:
    whole = train("cpu", steps=20)
    for number, other in enumerate(("cuda:0", "cuda:all", "cpu")):
        folder = tmp_path / str(number)
        with machine(2):
            first = train("cuda:all", run_dir=folder)
            resumed = gpubp.resume(folder, data(), data("shared", 30, 9), steps=20, device=other)
            assert first.engine_reason == trained_by()
        assert same_bits(resumed.population.params, whole.population.params)
        assert same_bits(resumed.loss, whole.loss)
        assert resumed.engine == ("cpu" if other == "cpu" else "cuda")
        told = resumed.engine_reason
        assert told.endswith("; the run started with engine cuda") if other == "cpu" else told == first.engine_reason


SMALL = Limits(80, 1000)  # of a GPU in which no network fits


def test_auto_takes_what_every_gpu_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = population(SPEC, COUNT, torch.float32), data(), gpubp.TrainConfig(batch_size=8, steps=STEPS)
    with machine(2) as own:
        found = {torch.device("cuda:0"): H100, torch.device("cuda:1"): SMALL}
        monkeypatch.setattr(own.player, "limits", found.__getitem__)
        result = gpubp.train(*given, device="cuda:all")
        with pytest.raises(EngineError, match="a block has 1,000"):
            gpubp.train(*given, engine="cuda", device="cuda:all", run_dir=tmp_path / "run")
    assert result.engine == "eager"
    assert result.engine_reason.endswith("(cuda:1)")
    assert own.player.launches == []
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_names_the_present_gpu(tmp_path: Path) -> None:
    with machine():
        first = train("cuda:0", run_dir=tmp_path / "run", batch_size=64)
    with machine() as own:
        own.player.found = Limits(80, 163 << 10)
        resumed = gpubp.resume(tmp_path / "run", data(), data("shared", 30, 9), steps=20, device="cuda:0")
    assert "of 232,448 bytes" in first.engine_reason
    assert resumed.engine_reason == first.engine_reason.replace("232,448", "166,912")


def test_a_run_that_does_not_fit_on_the_gpu_says_where_it_goes_on(tmp_path: Path) -> None:
    train("cpu", run_dir=tmp_path / "run")
    with machine() as own:
        own.player.found = SMALL
        with pytest.raises(EngineError, match='started with engine "cpu", and resumes only where that can train it'):
            gpubp.resume(tmp_path / "run", data(), data("shared", 30, 9), steps=20, device="cuda:0")


def test_rows_and_data_stay_and_a_call_copies_only_clocks() -> None:
    with machine() as own:
        result = train("cuda:0", "inputs and weights")
    names = [name for name, _ in own.sent]
    assert names.count("state") == 1
    assert names.count("data") == 2, "training and validation data, once"
    assert names.count(shard.ROWS) == 1, "the rows come home at the end"
    there, back = (*shard.CLOCKS, *shard.LOOPS), shard.CLOCKS
    assert set(names) == {"state", "data", shard.ROWS, there, back}
    each = max(size for name, size in own.sent if name in (there, back)) / COUNT
    columns = len(result.state.columns) + len(result.state.memory)
    assert each <= 8 * (columns + 6), "numbers of a network, whatever its size"


@pytest.mark.parametrize("count", [1, 2])
def test_a_gpu_has_only_the_data_of_its_networks(count: int) -> None:
    with machine(count) as own:
        train("cuda:all", "inputs and weights")
    sent = sorted((size for name, size in own.sent if name == "data"), reverse=True)[:count]
    assert sum(sent) == data("inputs and weights").nbytes(COUNT)
    assert max(sent) == data("inputs and weights").nbytes(-(-COUNT // count))


def test_separate_data_that_do_not_fit_are_copied_group_by_group_into_one_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "fit", lambda *given: 6)
    kind, rooms = "inputs and weights", list[int]()
    expected, whole = train("cpu", kind), data(kind).nbytes(COUNT)
    with machine() as own, monkeypatch.context() as patch:
        room = gpubp.Dataset.room
        patch.setattr(gpubp.Dataset, "room", lambda *given: rooms.append(given[1]) or room(*given))
        result = train("cuda:0", kind)
    sent = [size for name, size in own.sent if name == "data"]
    assert rooms == [6], "two seats"
    spread = 8 * COUNT * SPEC.widths[-1]  # what R2 divides by, float64
    assert own.pinned == whole + spread + at_home(result)
    assert sum(sent[:3]) == whole, "the first call's three groups"
    assert max(sent) == data(kind).nbytes(3)
    assert same(result, expected)


def test_data_count_in_what_fits() -> None:
    spec, recipe, gpu = SPEC, gpubp.TrainConfig(steps=1).recipe(SPEC), torch.device("cuda:0")
    own, shared = data("inputs"), data()
    for given in ([], [own], [shared], [own, shared]):
        least = memory.needed(spec, recipe, 5, 4, True, given)
        with machine(free=least):
            assert memory.fit(spec, recipe, 4, gpu, given) == 5
        with machine(free=least - 1):
            assert memory.fit(spec, recipe, 4, gpu, given) == 4
    wide, many = gpubp.NetworkSpec((200, 200, 10)), memory.STREAMED + 5
    for count in (7, memory.STREAMED, many):  # the copies that they train on are no more than those that train at once
        with machine(free=memory.needed(wide, recipe, count, 4, True)):
            assert memory.fit(wide, recipe, 4, gpu) == count
    each = memory.needed(wide, recipe, many, 4, True) - memory.needed(wide, recipe, many - 1, 4, True)
    assert each == (1 + len(recipe.rule.slots)) * 4 * wide.size + 8 * memory.COLUMNS
    more = memory.needed(spec, recipe, 5, 4, True, [own]) - memory.needed(spec, recipe, 5, 4, True)
    assert more == 5 * (own.inputs[0].nbytes + own.targets[0].nbytes)


def test_a_call_does_no_python_work_that_grows_with_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    run, taken = shard.Shard.run, []

    def counted(one: shard.Shard, steps: int) -> list[str]:
        taken.append(instructions(lambda: run(one, steps)))
        return []

    for count in (10, 300):
        networks = population(SPEC, count, torch.float32)
        config = gpubp.TrainConfig(batch_size=8, steps=STEPS, dropout=0.1)
        state = TrainState.start(networks, config, data())
        state.limit.copy_(state.end)
        with machine(), monkeypatch.context() as patch:
            where = devices.devices("cuda:all")
            place = placement.placed(state, [data()], choose("cuda", SPEC, config, where[0]), where)
            place.run(3)
            patch.setattr(shard.Shard, "run", counted)
            place.run(2)  # from Python 3.13 on a function's instructions are told of from its second call on
            place.run(2)
            place.look()
        assert state.step.tolist() == [7] * count
    assert taken[1] == taken[3] > 100


@pytest.mark.slow  # one population on three GPUs and two populations on one are quick
def test_a_design_on_two_gpus_is_the_cpus() -> None:
    design = [{"widths": widths, "lr": rate} for widths in ("3,6,2", "3,2") for rate in (0.01, 0.5, 2.0)]
    common: dict[str, Any] = {"hidden": "tanh", "batch_size": 8, "dropout": 0.1, "steps": STEPS}
    common |= {"evaluate_every": 4, "patience": 1}
    expected = gpubp.train_many(design, data(), data("shared", 30, 9), engine="cpu", **common)
    with machine(2):
        found = gpubp.train_many(design, data(), data("shared", 30, 9), engine="cuda", device="cuda:all", **common)
    assert (found.engine, len(found.states)) == ("cuda", 2)
    assert found.table.equals(expected.table)
    assert not any(map(differing, found.states, expected.states))
    assert expected.statuses["stopped"] > 0
