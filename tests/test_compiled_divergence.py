"""A failure is a value in the compiled engine too: a network that diverges stops where it was, and changes nobody."""

import itertools

import pytest
import torch

import gpubp
from gpubp.engines import cpu, eager
from gpubp.state import Status

from .helpers import compiled, copied, differences, laid_out, layouts, numbers, quick, samples, train  # noqa: F401
from .test_compiled import DTYPES, Case
from .test_divergence import check_neighbours, trained_by_returning

COUNT, STEPS, BATCH = 19, 12, 6
EVERYONE = list(range(COUNT))
NAMES = ("outputs", "chosen")
LAYOUTS = ("chosen", "networks", "outputs", "one number", "three registers", "networks, half a register",
           "outputs, half a register", "networks in chunks", "outputs in chunks", "team", "team in chunks")  # fmt: skip
WIDE = [0.01, 1.0, 0.01, 2.0, 10.0, 1e38, 0.01, 1e3, 3e38, 1e20]
SPEC = gpubp.NetworkSpec((5, 6, 2), "relu")


def rates(dtype: torch.dtype) -> list[float]:
    """Learning rates of networks that end well, late, soon, and in their first step."""
    wide = WIDE if dtype == torch.float32 else [rate**8 if rate < 3e38 else 1.7e308 for rate in WIDE]
    return [wide[n % len(wide)] if n % 3 else 0.01 for n in EVERYONE]


def case(dtype: torch.dtype, lr: list[float] | None = None) -> Case:
    settings = {"optimizer": "momentum", "batch_size": BATCH, "steps": STEPS, "lr": lr}
    return Case(SPEC, dtype, "shared", "", "chosen", settings)


@pytest.mark.parametrize(("dtype", "name"), quick(itertools.product(DTYPES, LAYOUTS), [*zip(DTYPES, NAMES)]))
def test_the_step_of_divergence_is_that_of_one_step_at_a_time(dtype: torch.dtype, name: str) -> None:
    own = case(dtype, lr=rates(dtype))
    with laid_out(layouts(dtype, BATCH)[name]):
        slow, before, data = own.start(), [], own.data()
        for _ in range(STEPS):
            before.append(copied(slow))
            cpu.run(slow, data, 1)
        found = slow.diverged_step.tolist()
        assert {0, -1} < set(found), "some diverge in the first step, some later, some never"
        assert len(set(found)) > 3
        for cuts in ([STEPS], [5, 7], [1, 11], [100]):
            state = own.train(cuts=cuts)
            assert not differences(state, slow), cuts
    for number, step in enumerate(found):
        if step < 0:
            assert (state.status[number], state.step[number]) == (Status.running, STEPS)
            continue
        assert (state.status[number], state.step[number]) == (Status.diverged, step)
        kept = set(differences(state, before[step], [number]))
        assert kept == {"status", "diverged_step"}, "everything is as before that step"
        assert all(each[number].isfinite().all() for key, each in numbers(state).items() if key != "loss")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_network_that_is_not_finite_from_the_start_stays_as_it_is(value: float) -> None:
    own = case(torch.float32)
    check_neighbours(own.population(), own.data(), value, engine=cpu, **own.settings)


def test_a_divergence_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "KERNELS", {})
    spec = gpubp.NetworkSpec((8, 16, 1), "tanh")  # of which one or a thousand networks take different layouts
    data = gpubp.Dataset(*samples(spec, 64, dtype=torch.float32))
    lr = torch.full((1000,), 0.01)
    lr[3] = 1e38
    networks = gpubp.Population.create(spec, 1000)
    state = train(networks, data, [2, 3], engine=cpu, optimizer="sgd", batch_size=32, steps=5, lr=lr, shuffle="none")
    assert (state.diverged_step >= 0).sum() == 1
    assert len(cpu.KERNELS) <= 2, "one for networks at the same step, one for networks apart"


@pytest.mark.parametrize("name", ["eager", *NAMES])
@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]], ids=str)
def test_a_slot_that_is_non_finite_for_a_single_step_counts(
    cuts: list[int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with laid_out(layouts(torch.float32, 1).get(name)):
        state = trained_by_returning(eager if name == "eager" else cpu, cuts, monkeypatch)
    assert state.diverged_step.tolist() == [-1, 3]
    assert state.step.tolist() == [8, 3]
