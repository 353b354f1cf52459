"""Training that goes on: the optimizer's memory of an earlier training, also where networks have left or joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gpubp

from .helpers import population, same_bits
from .test_train import SPEC, config, data


@pytest.mark.parametrize("optimizer", gpubp.OPTIMIZERS)
def test_an_optimizer_goes_on_from_the_state_of_an_earlier_training(optimizer: str) -> None:
    settings = {
        "optimizer": optimizer,
        "shuffle": "none",
        "steps": None,
        "evaluate_every": None,
        "lr": None,
        "batch_size": 20,
    }
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
    first = gpubp.train(population(SPEC, 3), data(), config(optimizer="adam"))
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
    twice = gpubp.train(population(SPEC, 3).take([0, 0, 1]), data(), config(optimizer="adam"))
    with pytest.raises(gpubp.errors.ConfigError, match="several of its networks have one id"):
        gpubp.train(twice.population.take([2, 0, 1]), data(), config(optimizer="adam"), optimizer_state=twice.state)


@pytest.mark.parametrize("optimizer", gpubp.OPTIMIZERS)
def test_networks_that_leave_join_and_move_keep_the_memory_that_is_theirs(optimizer: str) -> None:
    """Each as if it went on alone."""
    first = gpubp.train(population(SPEC, 4), data(), config(optimizer=optimizer), engine="eager")
    joined = gpubp.Population.create(SPEC, seed=first.population.seed, ids=[9], dtype=first.population.params.dtype)
    mixed = replace(first.population.take([3, 0]).concatenate(joined), seed=1)
    rates = [0.1, 0.01, 0.03]
    then = gpubp.train(
        mixed, data(), config(optimizer=optimizer, lr=rates), engine="eager", optimizer_state=first.state
    )
    for row, of in enumerate((3, 0, None)):
        memory = {} if of is None else {"optimizer_state": first.state.rows([of])}
        alone = gpubp.train(
            mixed.take([row]), data(), config(optimizer=optimizer, lr=rates[row]), engine="eager", **memory
        )
        assert same_bits(then.population.params[row], alone.population.params[0])


def test_a_note_says_where_samples_come_in_the_same_order_again() -> None:
    first = gpubp.train(population(SPEC, 2), data(), config(), engine="eager")
    for more, shuffle, told in ((0, "network", True), (1, "network", False), (0, "none", False)):
        networks = replace(first.population, seed=first.population.seed + more)
        then = gpubp.train(networks, data(), config(shuffle=shuffle), engine="eager", optimizer_state=first.state)
        assert ("samples and dropout are as in the training before" in " ".join(then.notes)) == told


def test_a_replay_finds_the_memory_of_networks_that_moved_or_joined(tmp_path: Path) -> None:
    first = gpubp.train(population(SPEC, 4), data(), config(), engine="eager")
    joined = gpubp.Population.create(SPEC, seed=first.population.seed, ids=[9], dtype=first.population.params.dtype)
    mixed = first.population.take([3, 0]).concatenate(joined)
    gpubp.train(mixed, data(), config(), engine="eager", optimizer_state=first.state, run_dir=tmp_path / "run")
    for row in range(3):
        again = {"data": data(), "population": mixed, "optimizer_state": first.state}
        assert gpubp.replay(tmp_path / "run", row, **again).same
