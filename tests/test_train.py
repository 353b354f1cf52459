"""train() around the engine: what it returns, what it leaves alone, rounds, calls; without autograd. And training that
goes on: the optimizer's memory of an earlier training, also where networks have left or joined."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpubp
from gpubp.state import TrainState

from .helpers import differing, failing, population, quick, same_bits, samples
from .short_runs import hears

SPEC = gpubp.NetworkSpec((3, 6, 2), "tanh")
CLASSES = gpubp.NetworkSpec((3, 6, 4), "relu", loss="cross_entropy")


def data(spec: gpubp.NetworkSpec = SPEC, size: int = 40, seed: int = 1) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(spec, size, seed=seed))


def config(**settings: Any) -> gpubp.TrainConfig:
    return gpubp.TrainConfig(**{"batch_size": 8, "steps": 20, "lr": 0.01, "evaluate_every": 5, **settings})


def trained(
    networks: gpubp.Population | None = None, given: gpubp.Dataset | None = None, **settings: Any
) -> gpubp.Result:
    """By eager, which compiles nothing."""
    return gpubp.train(networks or population(SPEC, 3), given or data(), config(**settings), engine="eager")


def test_the_result_has_the_outcome_of_every_network() -> None:
    networks, training, held_out = population(CLASSES, 3), data(CLASSES), data(CLASSES, 30, 9)
    result = gpubp.train(networks, training, config(), validation=held_out)
    for values in (result.loss, result.metric, result.validation_loss, result.validation_metric):
        assert values.shape == (3,)
        assert values.isfinite().all()
    assert result.status_names == ["finished"] * 3
    assert result.statuses == {"running": 0, "finished": 3, "diverged": 0}, "no fate that nothing here can bring"
    assert (result.table.num_rows, result.table["network"].to_pylist()) == (3, list(range(3)))
    assert result.table["validation_accuracy"].to_pylist() == result.validation_metric.tolist()
    assert [record["step"] for record in result.history] == [5, 10, 15, 20]
    assert (result.network_steps, result.interrupted, result.run_dir) == (3 * 20, None, None)
    assert result.engine in ("cpu", "eager")
    assert result.engine_reason.startswith(f"{result.engine}: ")
    assert result.seconds > 0
    for name, held in (("loss", training), ("validation_loss", held_out)):
        net = result.population.predict(held.inputs)
        expected = torch.stack([torch.nn.functional.cross_entropy(each, held.targets) for each in net])
        torch.testing.assert_close(getattr(result, name), expected)


@pytest.mark.parametrize("kind", ["", "made in inference mode", "requiring grad"])
def test_inplace_writes_to_params_of_every_kind(kind: str) -> None:
    with torch.inference_mode(kind == "made in inference mode"):
        networks = population(CLASSES, 3)
    networks.params.requires_grad_(kind == "requiring grad")
    before = networks.params.clone()
    expected = gpubp.train(networks, data(CLASSES), config()).population.params
    assert same_bits(networks.params, before), "the given population stays as it was"
    assert same_bits(networks.params, gpubp.train(networks, data(CLASSES), config(), inplace=True).population.params)
    assert same_bits(networks.params, expected)


def test_a_result_prints_as_one_line_that_names_the_best() -> None:
    result = trained(population(SPEC, 5), lr=[0.01, 1e308, 0.01, 0.01, 0.01], optimizer="sgd")
    best = int(result.ranking()[0])
    assert repr(result) == (
        f"Result(5 networks: 4 finished, 1 diverged; best loss {float(result.loss[best]):.4g} (network {best}); "
        f"engine {result.engine})"
    )
    assert repr(trained(population(SPEC, 1))).startswith("Result(1 network: 1 finished; best ")


def test_the_ranking_is_by_validation_loss_or_else_by_loss_without_diverged_networks() -> None:
    rates = [0.001, 1e300, 0.02, 0.005, 0.05]
    settings = config(lr=rates, optimizer="sgd", steps=60)
    apart = data(seed=50)
    for held_out in (None, apart):
        result = gpubp.train(population(SPEC, 5), data(), settings, validation=held_out, engine="eager")
        loss = result.loss if result.validation_loss is None else result.validation_loss
        expected = sorted((n for n in range(5) if n != 1), key=lambda n: float(loss[n]))
        assert (result.status == gpubp.Status.diverged).tolist() == [n == 1 for n in range(5)]
        assert (result.status.dtype, result.status_names[1]) == (torch.int8, "diverged")
        assert [step is None for step in result.table["diverged_step"].to_pylist()] == [n != 1 for n in range(5)]
        assert result.population.params.isfinite().all()
        assert result.ranking().tolist() == expected
        if held_out is not None:
            assert expected != sorted(expected, key=lambda n: float(result.loss[n])), "the two orders differ"


def test_plateau_reduces_only_the_rates_of_networks_that_do_not_improve() -> None:
    rates = [0.01, 1e-14, 0.01]
    settings = config(optimizer="sgd", lr=rates, schedule="plateau", plateau_patience=1, plateau_factor=0.5, steps=40)
    result = gpubp.train(population(SPEC, 3), data(), settings, validation=data(), engine="eager")
    # nothing gained in evaluations 2 to 8, each second one of which is one too many
    assert result.state.memory["scale"].flatten().tolist() == [1.0, 0.5**3, 1.0]


def test_reporters_hear_the_start_every_evaluation_and_the_end() -> None:
    told, what = list[tuple[str, Any]](), ("start", "progress", "evaluated", "finish")
    reporter = hears(**{name: lambda each, name=name: told.append((name, each)) for name in what})
    gpubp.train(population(SPEC, 3), data(), config(), reporters=[reporter], engine="eager")
    names = [name for name, _ in told]
    assert (names[0], names[-1], names.count("evaluated")) == ("start", "finish", 4)
    done = [each.done for name, each in told if name == "progress"]
    assert (done[-1], done) == (60, sorted(done))


ENTRIES = [
    (torch.autograd, "backward"), (torch.autograd, "grad"), (torch.autograd.Function, "apply"),
    (torch.autograd.graph, "_engine_run_backward"), (torch.autograd.functional, "vjp"),
    (torch.autograd.functional, "jacobian"), (torch.Tensor, "backward"), (torch.Tensor, "requires_grad_"),
    (torch.func, "grad"), (torch.func, "vjp"), (torch.func, "jvp"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "optimizers"), [("auto", ["adam"]), ("eager", gpubp.OPTIMIZERS)])
def test_training_never_enters_autograd(engine: str, optimizers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def trainings() -> list[TrainState]:
        settings = [config(optimizer=each, steps=3) for each in optimizers]
        return [gpubp.train(population(CLASSES, 3), data(CLASSES), each, engine=engine).state for each in settings]

    expected, probe = trainings(), torch.ones(1, requires_grad=True)
    for owner, name in ENTRIES:
        monkeypatch.setattr(owner, name, failing(AssertionError("autograd was entered")))
    with pytest.raises(AssertionError, match="autograd was entered"):
        probe.backward()
    with torch.autograd.set_grad_enabled(False):
        assert not any(map(differing, expected, trainings()))


def test_results_are_ordinary_tensors() -> None:
    result = gpubp.train(population(CLASSES, 3), data(CLASSES), config(), validation=data(CLASSES, seed=4))
    assert torch.is_grad_enabled(), "the caller's mode is as it was"
    values = [result.loss, result.metric, result.validation_loss, result.validation_metric]
    for tensor in [*values, *(each for _, each in result.state.tensors())]:
        assert not tensor.requires_grad
        assert not tensor.is_inference()
        assert tensor.grad_fn is None
    result.population.params.requires_grad_()
    (result.population.params**2).sum().backward()
    assert result.population.params.grad is not None


def asking(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_()


def inference(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tensor.clone()


KINDS: dict[str, Any] = {  # of settings and data, that train without a run directory
    "NumPy's numbers and names": {
        "lr": np.float64(0.01), "steps": np.int64(2), "batch_size": np.int16(4), "evaluate_every": torch.tensor(2),
        "optimizer": np.str_("sgd"), "schedule": np.str_("cosine"), "shuffle": np.str_("none"),
        "checkpoint_minutes": np.float32(5),
        "spec": {"hidden": np.array(["tanh"]), "loss": np.str_("cross_entropy"), "bias": np.str_("layer")},
    },
    "a number of float32": {"lr": np.float32(0.01), "optimizer": "pulled", "extra": {"pull": np.float32(0.1)}},
    "arrays": {"lr": np.logspace(-3, -1, 3), "steps": np.array([2, 3, 4], np.uint8)},
    "an array of no dimension": {"lr": np.array(0.01), "optimizer": "pulled", "extra": {"loss": np.full(3, 0.2)}},
    "lists of NumPy's": {"lr": [np.float32(0.01)] * 3, "inputs": inference},
    "lists of parameters": {"lr": [torch.nn.Parameter(torch.tensor(0.01))] * 3, "class_weight": asking(torch.ones(4))},
    "parameters": {"lr": torch.nn.Parameter(torch.full((3,), 0.01)), "inputs": asking},
    "made in inference mode": {"lr": inference(torch.full((3,), 0.01))},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_settings_and_data_of_every_kind_are_saved_with_a_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = gpubp.Optimizer(lambda grad, pull, loss: (grad * pull * loss,), defaults={"pull": 1.0, "loss": 1.0}, lr=0.1)
    monkeypatch.setitem(gpubp.OPTIMIZERS, "pulled", rule)
    given = dict(KINDS[kind])
    spec = gpubp.NetworkSpec(**{"widths": (3, 6, 4), "loss": "cross_entropy", **given.pop("spec", {})})
    minutes, made = given.pop("checkpoint_minutes", 5), given.pop("inputs", lambda inputs: inputs)
    inputs, targets = samples(spec, 12)
    training, settings = gpubp.Dataset(made(inputs), targets), config(**{"steps": 3, **given})
    kept: Any = {"run_dir": tmp_path, "checkpoint_minutes": minutes}
    plain, saved = (gpubp.train(population(spec, 3), training, settings, engine="eager", **more) for more in ({}, kept))
    assert (saved.unsaved, saved.table["loss"].to_pylist()) == (None, plain.loss.tolist())
    again = gpubp.resume(tmp_path, training)
    assert differing(plain.state, saved.state) == differing(plain.state, again.state) == []


def test_a_configuration_is_one_line_of_what_is_not_usual() -> None:
    assert repr(gpubp.TrainConfig(steps=3)) == "TrainConfig(steps=3)"
    many = gpubp.TrainConfig(steps=3, extra={"pull": torch.arange(1000)})
    assert repr(many) == "TrainConfig(steps=3, extra={'pull': '1000 numbers from 0 to 999'})"
    assert repr(gpubp.TrainConfig(lr=[0.1, 0.1], steps=3)) == "TrainConfig(lr=0.1, steps=3)"
    shown = repr(gpubp.TrainConfig("sgd", epochs=[5] * 1000, lr=torch.linspace(0, 1, 1000), extra={}))
    assert shown == ("TrainConfig(optimizer='sgd', lr='1000 numbers from 0 to 1', epochs=5)")


def test_a_table_has_memory_of_its_own() -> None:
    result = gpubp.train(population(CLASSES, 3), data(CLASSES), config(), validation=data(CLASSES, 30, 9))
    table, before = result.table, result.table.to_pylist()
    tensors = [each for _, each in result.state.tensors()]
    for each in (*tensors, *result.outcomes[0].training, *result.outcomes[0].validation):
        each.zero_()
    assert table.to_pylist() == before


@pytest.mark.parametrize("optimizer", gpubp.OPTIMIZERS)
def test_an_optimizer_goes_on_from_the_state_of_an_earlier_training(optimizer: str) -> None:
    settings = {"optimizer": optimizer, "shuffle": "none", "steps": None, "evaluate_every": None, "lr": None,
                "batch_size": 20}  # fmt: skip
    whole = gpubp.train(population(SPEC, 3), data(), config(**settings, epochs=3), engine="eager")
    first = gpubp.train(population(SPEC, 3), data(), config(**settings, epochs=2), engine="eager")
    rest = config(**settings, epochs=1)
    then = gpubp.train(first.population, data(), rest, engine="eager", optimizer_state=first.state)
    assert same_bits(then.population.params, whole.population.params)
    for mine, theirs in zip(then.state.slots, whole.state.slots):
        assert same_bits(mine, theirs)
    anew = gpubp.train(first.population, data(), rest, engine="eager")
    assert same_bits(anew.population.params, whole.population.params) == (not whole.state.slots)


def test_the_memory_of_another_optimizer_or_of_other_networks_is_refused() -> None:
    first = trained()
    for networks, optimizer in ((population(SPEC, 3), "sgd"),
                                (population(gpubp.NetworkSpec((3, 6, 2)), 3), "adam")):  # fmt: skip
        with pytest.raises(
            gpubp.errors.ConfigError, match="optimizer_state: of 3 networks 3-6-2 with optimizer 'adam'"
        ):
            gpubp.train(networks, data(), config(optimizer=optimizer), optimizer_state=first.state)
    with pytest.raises(gpubp.errors.ConfigError, match="optimizer_state is a Result, TrainState expected"):
        gpubp.train(first.population, data(), config(optimizer="adam"), optimizer_state=first)  # type: ignore[arg-type]
    others = gpubp.Population.create(SPEC, ids=[7, 8])
    with pytest.raises(gpubp.errors.ConfigError, match="no network of the population, with ids such as 0 and 7"):
        gpubp.train(others, data(), config(optimizer="adam"), optimizer_state=first.state)
    twice = trained(population(SPEC, 3).take([0, 0, 1]))
    with pytest.raises(gpubp.errors.ConfigError, match="several of its networks have one id"):
        gpubp.train(twice.population.take([2, 0, 1]), data(), config(optimizer="adam"), optimizer_state=twice.state)


MEMORIES = ("momentum", "adadelta", "amsgrad", "nadam")  # whose slots and columns are all that the others have


@pytest.mark.parametrize("optimizer", quick(gpubp.OPTIMIZERS, MEMORIES))
def test_networks_that_leave_join_and_move_keep_the_memory_that_is_theirs(optimizer: str, tmp_path: Path) -> None:
    """Each as if it went on alone, and as its replay finds it."""
    given: dict[str, Any] = {"optimizer": optimizer, "steps": 8, "evaluate_every": 4}
    first = gpubp.train(population(SPEC, 4), data(), config(**given), engine="eager")
    joined = gpubp.Population.create(SPEC, seed=first.population.seed, ids=[9], dtype=first.population.params.dtype)
    mixed = replace(first.population.take([3, 0]).concatenate(joined), seed=1)
    rates, memory = [0.1, 0.01, 0.03], {"optimizer_state": first.state}
    chosen = config(lr=rates, **given)
    then = gpubp.train(mixed, data(), chosen, engine="eager", run_dir=tmp_path, **memory)
    for row, of in enumerate((3, 0, None)):
        own: dict[str, Any] = {} if of is None else {"optimizer_state": first.state.rows([of])}
        alone = gpubp.train(mixed.take([row]), data(), config(lr=rates[row], **given), engine="eager", **own)
        assert same_bits(then.population.params[row], alone.population.params[0])
        assert gpubp.replay(tmp_path, row, data=data(), population=mixed, **memory).same


def test_a_note_says_where_samples_come_in_the_same_order_again() -> None:
    first = gpubp.train(population(SPEC, 2), data(), config(), engine="eager")
    for more, shuffle, told in ((0, "network", True), (1, "network", False), (0, "none", False)):
        networks = replace(first.population, seed=first.population.seed + more)
        then = gpubp.train(networks, data(), config(shuffle=shuffle), engine="eager", optimizer_state=first.state)
        assert ("samples and dropout are as in the training before" in " ".join(then.notes)) == told
