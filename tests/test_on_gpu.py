"""On a GPU: every row of the tables near the CPU's, networks independent, steps replayed from a recording, devices that
share. The proofs without one are test_graph.py, test_fake_cuda.py and test_placement.py."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp import memory
from gpubp.engines import ENGINES, eager, graph
from gpubp.maths import rng
from gpubp.state import Status, TrainState
from gpubp.system import devices, gpus

from . import tolerances
from .gpu_cases import BATCH, CASES, COUNT, SPEC, STEPS, Case
from .helpers import population, same_bits, samples, start

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda:0")


def trained(case: Case, device: torch.device | str) -> TrainState:
    """Networks after STEPS steps of eager on a device, float64."""
    where = torch.device(device)
    there = case.data(torch.float64).to(where, torch.float64)
    settings = {"batch_size": BATCH, "steps": STEPS, "lr": 0.01, **case.settings}
    state = start(population(case.spec, COUNT).to(where), there, **settings)
    eager.run(state, there, STEPS)
    if where.type == "cuda":
        assert graph.reason(there) is None, graph.reason(there)
    return state


@pytest.mark.parametrize("name", CASES)
def test_every_row_and_feature_is_the_cpus(name: str) -> None:
    case = CASES[name]
    found, expected = (trained(case, device) for device in (DEVICE, "cpu"))
    for (tensor, mine), (_, theirs) in zip(found.tensors(), expected.tensors()):
        assert mine.device == DEVICE
        assert torch.allclose(mine.cpu(), theirs, **tolerances.TRAINING, equal_nan=True), tensor


def test_random_numbers_and_orders_are_the_cpus_to_the_bit() -> None:
    ids, step = torch.arange(300), torch.arange(300) * 7

    def drawn(device: torch.device) -> Iterator[torch.Tensor]:
        yield rng.words(3, ids.to(device), 1000, 1, rng.DROPOUT, step.to(device)).cpu()
        for bounds in (None, (97, 97)):
            yield rng.samples(3, ids.to(device), step.to(device), 500, 97, True, bounds).cpu()

    assert all(map(torch.equal, drawn(DEVICE), drawn(torch.device("cpu"))))


@pytest.mark.parametrize("engine", [name for name in ("eager", "cuda") if name in ENGINES])
def test_networks_are_independent(engine: str) -> None:
    proofs = pytest.importorskip("benchmarks.proofs", reason="the benchmarks folder is not importable from here")
    assert proofs.independence(engine, str(DEVICE)).differing == []


def test_a_diverging_network_affects_no_other() -> None:
    rates = [0.01, 1e200, 0.01, 0.01, 1e200]
    found, sound = (trained(Case(SPEC, {"optimizer": "sgd", **lr}), DEVICE) for lr in ({"lr": rates}, {}))
    assert (found.status == Status.diverged).tolist() == [False, True, False, False, True]
    assert same_bits(found.population.params[[0, 2, 3]], sound.population.params[[0, 2, 3]])
    assert found.population.params.isfinite().all()


@pytest.mark.skipif("cuda" not in ENGINES, reason="this gpubp has no engine cuda")
def test_a_call_of_the_compiled_engine_is_captured_in_a_graph() -> None:
    engine, data = ENGINES["cuda"], gpubp.Dataset(*samples(SPEC, 23)).to(DEVICE, torch.float64)
    state, other = (start(population(SPEC, COUNT).to(DEVICE), data, batch_size=BATCH, steps=30) for _ in range(2))
    engine.run(state, data, 4)  # compiled and loaded
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        engine.run(state, data, 4)
    for _ in range(2):
        recording.replay()
    engine.run(other, data, 12)
    assert state.step.tolist() == [12] * COUNT
    assert same_bits(state.population.params, other.population.params)


@pytest.mark.skipif("cuda" not in ENGINES, reason="this gpubp has no engine cuda")
def test_evaluations_are_the_cpus_to_the_bit() -> None:
    proofs = pytest.importorskip("benchmarks.proofs", reason="the benchmarks folder is not importable from here")
    proof = proofs.equal_figures("cuda", str(DEVICE), "cpu")
    assert (proof.compared, proof.differing) == (proofs.FIGURES, [])


def test_multiply_adds_by_themselves_are_the_peak_of_products() -> None:
    limits = pytest.importorskip("benchmarks.limits", reason="the benchmarks folder is not importable from here")
    peak, of = limits.peak(str(DEVICE), 1)
    assert of == "a loop of multiply-adds"
    assert peak > 0.95 * limits.matmul_peak(str(DEVICE))


def run(device: Any, **more: Any) -> gpubp.Result:
    config = gpubp.TrainConfig(batch_size=8, steps=12, lr=0.05, evaluate_every=4)
    data, held_out = (gpubp.Dataset(*samples(SPEC, 40, seed=seed)) for seed in (1, 9))
    return gpubp.train(population(SPEC, 7), data, config, held_out, engine="eager", device=device, **more)


def test_a_run_on_the_gpu_is_near_one_on_the_cpu_and_its_figures_are_at_home() -> None:
    found, expected = run("cuda"), run("cpu")
    assert found.population.device == torch.device("cpu")
    assert found.notes == []
    for name in ("loss", "metric", "validation_loss", "validation_metric"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **tolerances.TRAINING)


def test_a_population_on_the_gpu_trains_and_stays_there() -> None:
    config = gpubp.TrainConfig(batch_size=8, steps=12)
    result = gpubp.train(population(SPEC, 7).to("cuda"), gpubp.Dataset(*samples(SPEC, 40)), config, engine="eager")
    assert result.population.device == DEVICE
    assert result.population.predict(torch.zeros(3, 5)).device == DEVICE


def test_every_number_of_gpus_gives_the_same_bits() -> None:
    everyone, one = devices.devices("cuda:all"), run(["cuda:0"])
    for device in (["cuda:0", "cuda:0"], everyone):  # the same one twice: two threads of one GPU
        assert same_bits(run(device).population.params, one.population.params)


def test_a_run_stopped_on_the_gpu_resumes_to_the_same_bits(tmp_path: Path) -> None:
    run("cuda", run_dir=tmp_path / "run")
    data, held_out = (gpubp.Dataset(*samples(SPEC, 40, seed=seed)) for seed in (1, 9))
    resumed = gpubp.resume(tmp_path / "run", data, held_out, steps=20, device="cuda")
    config = gpubp.TrainConfig(batch_size=8, steps=20, lr=0.05, evaluate_every=4)
    whole = gpubp.train(population(SPEC, 7), data, config, held_out, engine="eager", device="cuda")
    assert same_bits(resumed.population.params, whole.population.params)


@pytest.mark.parametrize("engine", [name for name in ("eager", "cuda") if name in ENGINES])
def test_memory_that_runs_out_for_real_halves_the_group(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is allowed nine tenths of the rows beyond what it holds, however much the GPU has: all rows do not fit;
    half of them do, with what training takes besides, of which there are twice as many bytes of rows."""
    spec, config = gpubp.NetworkSpec((64, 256, 10), "relu"), gpubp.TrainConfig(batch_size=8, steps=4)
    count = 2 * memory.needed(spec, config.recipe(spec), 0, 4, gpu=True) // (4 * spec.size)
    rows = torch.empty(count, spec.size).uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
    networks = gpubp.Population(spec, rows, 0, torch.arange(count))
    data = gpubp.Dataset(*samples(spec, 40, dtype=torch.float32))
    expected = gpubp.train(networks, data, config, engine=engine, device="cuda").population.params
    gpus.release(DEVICE)
    monkeypatch.setattr(memory, "fit", lambda *given: sys.maxsize)  # it would foresee what is to happen
    allowed = torch.cuda.memory_reserved(DEVICE) + 0.9 * rows.nbytes
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(DEVICE)[1], DEVICE)
    try:
        result = gpubp.train(networks, data, config, engine=engine, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    assert any("memory ran out there" in note for note in result.notes), result.notes
    assert same_bits(result.population.params, expected)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("engine", [name for name in ("eager", "cuda") if name in ENGINES])
def test_groups_that_take_turns_have_the_bits_of_one(engine: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count, config = 600, gpubp.TrainConfig(batch_size=8, steps=200, lr=0.01, evaluate_every=70)
    data = gpubp.Dataset(*samples(SPEC, *((count, 40) if own else (40,)), dtype=torch.float32))

    def trained() -> gpubp.Result:
        networks = population(SPEC, count, torch.float32)
        return gpubp.train(networks, data, config, data, engine=engine, device="cuda")

    expected = trained()
    for fit in (400, 130, 2):
        if fit > 2 or engine == "cuda":
            monkeypatch.setattr(memory, "fit", lambda *given, fit=fit: fit)
            found = trained()
            assert f"groups of up to {fit // 2}" in found.notes[0]
            for (name, mine), (_, theirs) in zip(found.state.tensors(), expected.state.tensors()):
                assert same_bits(mine.cpu(), theirs.cpu()), name
            assert same_bits(found.loss, expected.loss)
