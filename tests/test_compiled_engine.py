"""The compiled engine's surroundings: the choice, and what it is given."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import ENGINES, build, choose, cpu, eager
from gpubp.errors import EngineError

from .helpers import compiled, differences, population, samples, start, threads, train  # noqa: F401

SPEC = gpubp.NetworkSpec((3, 5, 2), "gelu", "tanh")
COUNT, CPU = 19, torch.device("cpu")


# ---- the choice


def test_auto_is_the_compiled_engine_if_there_is_a_compiler() -> None:
    config = gpubp.TrainConfig(steps=1)
    choice = choose("auto", SPEC, config, CPU)
    assert (choice.name, choice.engine) == ("cpu", ENGINES["cpu"])
    assert "compiled by " in choice.reason
    assert choose("cpu", SPEC, config, CPU).reason == "cpu: requested by name"
    assert choose("eager", SPEC, config, CPU).engine.run is eager.run
    assert choose("auto", SPEC, config, torch.device("meta")).name == "eager"
    with pytest.raises(EngineError, match='engine "cpu" trains on the CPU, the networks are on cuda'):
        choose("cpu", SPEC, config, torch.device("cuda"))


@pytest.mark.parametrize("missing", ["compiler", "vectors"])
def test_without_a_compiler_auto_is_eager_and_says_why(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / "cache"))
    if missing == "compiler":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        reason = r"needs a C\+\+ compiler: none of g\+\+, clang\+\+, c\+\+ is installed"
    else:
        monkeypatch.setattr(build, "ARCH", "x86-64")
        reason = "fused multiply-add"
    choice = choose("auto", SPEC, gpubp.TrainConfig(steps=1), CPU)
    assert (choice.name, choice.engine.run) == ("eager", eager.run)
    with pytest.raises(EngineError, match=reason) as error:
        choose("cpu", SPEC, gpubp.TrainConfig(steps=1), CPU)
    assert choice.reason == f"eager: {error.value}"
    networks, data = population(SPEC, 3), gpubp.Dataset(*samples(SPEC, 8))
    assert gpubp.train(networks, data, gpubp.TrainConfig(steps=2)).engine == "eager"
    with pytest.raises(EngineError, match=reason):
        gpubp.train(networks, data, gpubp.TrainConfig(steps=2), engine="cpu")


# ---- what it is given


def test_inputs_and_targets_that_are_not_contiguous_train_to_the_same_bits() -> None:
    networks, data = population(SPEC, COUNT), gpubp.Dataset(*samples(SPEC, 23))
    wide = torch.empty(2, 23, 6, dtype=torch.float64)
    apart = wide[0, :, ::2].copy_(data.inputs), wide[1, :, 1::3].copy_(data.targets)
    states = [train(networks, each, engine=cpu, batch_size=6, steps=9) for each in (data, gpubp.Dataset(*apart))]
    assert not differences(*states)


def test_tensors_of_another_type_are_refused_and_train_takes_any() -> None:
    inputs, target = samples(SPEC, 8, dtype=torch.float32)
    networks, weight = population(SPEC, 3, torch.float32), torch.rand(8, dtype=torch.float64) + 0.1
    for name, *given in (
        ("inputs", inputs.double(), target, weight.float()),
        ("targets", inputs, target.double(), weight.float()),
        ("sample_weight", inputs, target, weight),
    ):
        data = gpubp.Dataset(*given[:2], sample_weight=given[2])
        state = start(networks, data, batch_size=4, steps=2)
        for call, *given in ((cpu.run, state, data, 2), (cpu.evaluate, networks, data, {}, torch.arange(3))):
            with pytest.raises(EngineError, match=f"networks are torch.float32 on cpu, {name} torch.float64"):
                call(*given)
        result = gpubp.train(networks, data, gpubp.TrainConfig(batch_size=4, steps=2))
        assert (result.engine, result.status_names) == ("cpu", ["finished"] * 3)


def tiny(number: float) -> Tensor:
    return torch.tensor([number], dtype=torch.float32)


@pytest.mark.cpu("the setting is that of a CPU's thread")
@pytest.mark.parametrize("count", [1, 2])
def test_denormal_numbers_are_kept_and_the_callers_setting_is_restored(count: int) -> None:
    spec = gpubp.NetworkSpec((3, 4, 2), "identity", bias="none")
    inputs, target = samples(spec, 23, dtype=torch.float32)
    data, settings = gpubp.Dataset(inputs, target * 1e-2), {"optimizer": "sgd", "batch_size": 6, "steps": 9}
    networks = population(spec, COUNT, torch.float32)
    networks.params.mul_(1e-37)
    with threads(count):
        expected = train(networks, data, engine=cpu, **settings)
        moved = expected.population.params - networks.params
        assert ((moved != 0) & (moved.abs() < torch.finfo(torch.float32).tiny)).any(), "denormal numbers occur"
        state = start(networks, data, **settings)
        assert torch.set_flush_denormal(True)
        try:
            cpu.run(state, data, 9)
            assert float(tiny(1e-30) * tiny(1e-10)) == 0, "still set"
        finally:
            torch.set_flush_denormal(False)
    assert not differences(state, expected)
    assert float(tiny(1e-30) * tiny(1e-10)) != 0
