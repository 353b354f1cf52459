"""Training that goes on: the optimizer's memory of an earlier training, also where networks have left or joined."""

from __future__ import annotations

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
    for networks, optimizer in ((population(SPEC, 3), "sgd"), (population(SPEC, 2), "adam"),
                                (population(gpubp.NetworkSpec((3, 6, 2)), 3), "adam")):  # fmt: skip
        with pytest.raises(
            gpubp.errors.ConfigError, match="optimizer_state: of 3 networks 3-6-2 with optimizer 'adam'"
        ):
            gpubp.train(networks, data(), config(optimizer=optimizer), optimizer_state=first.state)
    with pytest.raises(gpubp.errors.ConfigError, match="optimizer_state is a Result, TrainState expected"):
        gpubp.train(first.population, data(), config(optimizer="adam"), optimizer_state=first)  # type: ignore[arg-type]
