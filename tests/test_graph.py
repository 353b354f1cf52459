"""Training on a GPU, played by the CPU: groups of one size, a step recorded once and replayed, to eager's bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

import gpubp
from gpubp.engines import eager, graph
from gpubp.maths.optimizers import Optimizer
from gpubp.state import Status, TrainState
from gpubp.system import gpus

from .gpu_cases import CASES, KINDS
from .helpers import differing, failing, noted, population, quick, same_bits, start, train
from .recorder import recorded
from .test_independence import BATCH, COUNT, SPECS, dataset

STEPS = 7


def networks(spec: gpubp.NetworkSpec, count: int = COUNT) -> gpubp.Population:
    return population(spec, count, torch.float32)


@pytest.mark.parametrize("name", SPECS)
def test_replayed_steps_have_the_bits_of_steps_taken_one_by_one(name: str) -> None:
    spec, data = SPECS[name], dataset(SPECS[name])
    chosen = {"batch_size": BATCH, "steps": STEPS, "lr": [0.01 * (n + 1) for n in range(COUNT)], "shuffle": "shared"}
    expected = train(networks(spec), data, **chosen)
    with recorded() as gpu:
        found = train(networks(spec), data, [3, 4], **chosen)
    assert not differing(found, expected)
    assert gpu.replays == [3 * 3, 3], "9 networks are 3 groups of 4; 3 steps are 3 recordings, 4 are one"


@pytest.mark.parametrize("name", quick(CASES, ["every activation", *KINDS]))
def test_every_row_and_feature_has_these_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where networks are, and end, at different steps, and samples are drawn for a few of them at once."""
    case = CASES[name]
    data, settings = case.data(torch.float32), {"batch_size": BATCH, "steps": 8, **case.settings}
    expected = train(networks(case.spec, 5), data, **settings)
    monkeypatch.setattr(gpubp.samples.data, "AT_ONCE", 30)
    with recorded():
        state = start(networks(case.spec, 5), data, **settings)
        for part, steps in ((slice(0, 3), 2), (slice(2, 4), 1), (slice(0, 5), 3), (slice(0, 5), 8)):
            eager.run(state.rows(part), data, steps)
    assert not differing(state, expected)


def test_a_diverging_network_is_found_at_its_step_and_affects_no_other() -> None:
    spec, data = SPECS["5-33-2"], dataset(SPECS["5-33-2"])
    settings = {"batch_size": BATCH, "steps": STEPS, "optimizer": "momentum"}
    settings["lr"] = [1e38 if n in (1, 6) else 0.01 for n in range(COUNT)]
    expected = train(networks(spec), data, **settings)
    with recorded() as gpu:
        found = train(networks(spec), data, **settings)
    assert found.status.tolist().count(Status.diverged) == 2
    assert not differing(found, expected)
    assert len(gpu.tapes) == 2, "tries again by the same recordings, of 4 steps and of 1"


def test_a_rule_may_make_one_slots_old_numbers_anothers_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_back(grad: Tensor, last: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        return grad + 0.5 * before, grad, last

    monkeypatch.setitem(gpubp.OPTIMIZERS, "two_back", Optimizer(two_back, ("last", "before")))
    spec, data = SPECS["5-33-2"], dataset(SPECS["5-33-2"])
    settings = {"batch_size": BATCH, "steps": STEPS, "optimizer": "two_back", "lr": 0.05}
    expected = train(networks(spec), data, **settings)
    with recorded():
        assert not differing(train(networks(spec), data, **settings), expected)


def test_steps_are_captured_once_and_again_only_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = SPECS["5-33-2"], dataset(SPECS["5-33-2"])
    expected = train(networks(spec, 4), data, [1, 123], batch_size=BATCH, steps=200)
    with recorded() as gpu:
        state = start(networks(spec, 4), data, batch_size=BATCH, steps=200)
        for steps in (1, 2, 5, 30, 86):
            eager.run(state, data, steps)
        made_up = "of 1, 4, 16 and 64 steps: 1, 2, 4 + 1, 16 + 3 * 4 + 2, 64 + 16 + 4 + 2"
        assert gpu.replays == [8, 5, 2, 1], made_up
        assert not differing(state, expected)
        eager.run(state.rows(torch.tensor([2])), data, 2)
        assert gpu.replays == [8 + 2, 5, 2, 1]
        settings = {"batch_size": BATCH, "steps": 2}
        for changed in ({"batch_size": BATCH + 1}, {"update_order": "layerwise"}, {"schedule": "cosine"}):
            eager.run(start(networks(spec), data, **{**settings, **changed}), data, 2)
        other = start(population(spec, COUNT, torch.float32, seed=6), data, **settings)
        eager.run(other, data, 2)
        assert gpu.replays[4:] == [2 * 3] * 4
        eager.run(state.rows(slice(0, 4)), data, 1)
        monkeypatch.setitem(gpubp.ACTIVATIONS, "gelu", gpubp.ACTIVATIONS["silu"])
        eager.run(state.rows(slice(0, 4)), data, 1)
        assert gpu.replays[8:] == [1, 1], "a rule that was replaced"


def test_no_recording_takes_more_rounds_to_draw_its_samples_than_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data = SPECS["2-2-2"], dataset(SPECS["2-2-2"])
    monkeypatch.setattr(gpubp.samples.data, "AT_ONCE", 1)  # a network at once
    expected = train(networks(spec), data, batch_size=BATCH, steps=22)
    with recorded(COUNT) as gpu:
        assert not differing(train(networks(spec), data, batch_size=BATCH, steps=22), expected)
    assert gpu.replays == [1, 6], "9 networks in 9 rounds: of 16 steps and of 1, none of 4"


def test_a_step_is_recorded_on_the_gpu_of_its_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, data, current = SPECS["2-2-2"], dataset(SPECS["2-2-2"]), []

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(gpus, "on", on)
    with recorded(), monkeypatch.context() as patch:
        seen = noted(patch, gpus, "capture", lambda *given: [*current])
        train(networks(spec), data, batch_size=BATCH, steps=2)
    assert seen == [[torch.device("cpu")]]


FACTOR = 1.0


def reads_a_constant(net: Tensor) -> Tensor:
    return FACTOR * net


def test_a_rule_that_reads_a_changed_value_is_captured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    own = gpubp.ACTIVATIONS["identity"]._replace(value=reads_a_constant)
    monkeypatch.setitem(gpubp.ACTIVATIONS, "own", own)
    spec = gpubp.NetworkSpec((5, 8, 2), "own")
    data, settings = dataset(spec), {"batch_size": BATCH, "steps": STEPS}

    def changing(state: TrainState) -> TrainState:
        for value, steps in ((1.0, 3), (2.0, 4)):
            monkeypatch.setitem(globals(), "FACTOR", value)
            eager.run(state, data, steps)
        return state

    expected = changing(start(networks(spec), data, **settings))
    with recorded() as gpu:
        found = changing(start(networks(spec), data, **settings))
    assert not differing(found, expected)
    assert gpu.replays == [3 * 3, 3], "a recording for each call, whatever the number of groups"


def test_a_deleted_dataset_deletes_its_recording() -> None:
    spec, data = SPECS["2-2-2"], dataset(SPECS["2-2-2"])
    with recorded():
        train(networks(spec), data, batch_size=BATCH, steps=2)
        assert len(graph.GROUPS) == 1
        del data
        assert len(graph.GROUPS) == 0


def waiting(net: Tensor) -> Tensor:
    return net * (float(net.flatten()[0]) * 0 + 1)


def test_what_cannot_be_recorded_is_launched_step_by_step_and_the_reason_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(gpubp.ACTIVATIONS, "waiting", gpubp.Activation(waiting, lambda net, out: torch.ones_like(net)))
    spec = gpubp.NetworkSpec((5, 8, 2), "waiting")
    data, settings = dataset(spec), {"batch_size": BATCH, "steps": STEPS}
    expected = train(networks(spec), data, **settings)
    assert graph.reason(data) is None
    with recorded() as gpu, monkeypatch.context() as patch:
        tried = noted(patch, gpus, "capture")
        found = train(networks(spec), data, [2, 2, 3], **settings)
        reason = graph.reason(data)
    assert gpu.tapes == []
    assert len(tried) == 1, "torch keeps the memory of each that fails"
    assert "_local_scalar_dense" in reason
    assert "not permitted when stream is capturing" in reason
    assert not differing(found, expected)


def test_memory_that_runs_out_while_recording_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(), monkeypatch.context() as patch:
        patch.setattr(gpus, "capture", failing(RuntimeError("CUDA error: out of memory")))
        with pytest.raises(RuntimeError, match="CUDA error: out of memory"):
            train(networks(SPECS["2-2-2"]), dataset(SPECS["2-2-2"]), batch_size=BATCH, steps=2)


def test_a_copied_state_trains_independently() -> None:
    """What `to` makes shares no memory with what it was made of."""
    state = start(networks(SPECS["2-2-2"]), dataset(SPECS["2-2-2"]), steps=3)
    other = state.to(torch.device("cpu"))
    eager.run(other, dataset(SPECS["2-2-2"]), 3)
    assert state.step.tolist() == [0] * COUNT
    assert not same_bits(state.population.params, other.population.params)
