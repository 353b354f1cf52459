"""What parameters of gpubp.sklearn may be, and what is said of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.datasets import load_iris

from gpubp.sklearn import MLPRegressor, PopulationClassifier

FLOWERS, SPECIES = load_iris(return_X_y=True)
SMALL: dict[str, Any] = {"engine": "eager", "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("name", ["batch_size", "epochs", "weight_decay"])
def test_a_range_of_whole_numbers_is_dealt_as_such(name: str) -> None:
    given = {"epochs": 2} | {name: "3..9:int"}
    model = PopulationClassifier(6, (4,), **given, **SMALL).fit(FLOWERS, SPECIES)
    found = {one.get_params()[name] for one in model.estimators_}
    assert len(found) > 2
    assert found <= {*range(3, 10)}
    assert {*map(type, found)} == {int}
    assert model.n_iter_ == max(found if name == "epochs" else [2])


def test_the_length_of_a_training_is_in_epochs() -> None:
    with pytest.raises(ValueError, match="settings: steps 7: epochs, a parameter of its own, says how long it trains"):
        PopulationClassifier(settings={"steps": 7}, **SMALL).fit(FLOWERS, SPECIES)


@pytest.mark.parametrize("name", ["lr", "batch_size", "activation", "optimizer", "dropout"])
@pytest.mark.parametrize("kind", [list, np.array])
def test_alternatives_are_one_or_more(name: str, kind: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is empty; one value or more expected"):
        PopulationClassifier(2, (4,), **{name: kind([])}, **SMALL).fit(FLOWERS, SPECIES)


@pytest.mark.filterwarnings("error", "ignore::sklearn.exceptions.ConvergenceWarning")
def test_samples_and_weights_that_cannot_be_written_to_are_taken() -> None:
    """As those of frames are. A warning of torch's is shown once per process: its own is asked for every time."""
    before, weight = torch.is_warn_always_enabled(), np.linspace(0.5, 2, 150)
    given = FLOWERS.copy(), SPECIES.astype(float), weight.copy()
    for each in given:
        each.flags.writeable = False
    torch.set_warn_always(True)
    try:
        for kind in (PopulationClassifier(2, (4,), epochs=1, **SMALL), MLPRegressor(hidden_layer_sizes=(4,), **SMALL)):
            found = kind.fit(*given).predict(given[0])
            np.testing.assert_array_equal(found, kind.fit(FLOWERS, given[1], weight).predict(FLOWERS))
            kind.model_.network(0)(given[0])
    finally:
        torch.set_warn_always(before)
