"""What parameters of gpubp.sklearn may be, and what is said of others."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import gpubp
from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor

FLOWERS, SPECIES = load_iris(return_X_y=True)
SMALL: dict[str, Any] = {"engine": "eager", "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("name", ["batch_size", "epochs", "weight_decay"])
def test_a_range_of_whole_numbers_is_dealt_as_such(name: str) -> None:
    given = {"epochs": 2} | {name: "3..9:int"}
    model = PopulationClassifier(6, (4,), **given, **SMALL).fit(FLOWERS[::5], SPECIES[::5])
    found = {one.get_params()[name] for one in model.estimators_}
    assert len(found) > 2
    assert found <= {*range(3, 10)}
    assert {*map(type, found)} == {int}
    assert model.n_iter_ == max(found if name == "epochs" else [2])


@pytest.mark.filterwarnings("error", "ignore::sklearn.exceptions.ConvergenceWarning")
def test_samples_and_weights_that_cannot_be_written_to_are_taken() -> None:
    """As those of frames are. A warning of torch's is shown once per process: its own is asked for every time."""
    before, weight = torch.is_warn_always_enabled(), np.linspace(0.5, 2, 150)
    given = FLOWERS.copy(), SPECIES.astype(float), weight.copy()
    for each in given:
        each.flags.writeable = False
    torch.set_warn_always(True)
    try:
        for kind in (PopulationClassifier(2, (4,), epochs=1, **SMALL), MLPRegressor(max_iter=2, **SMALL)):
            found = kind.fit(*given).predict(given[0])
            np.testing.assert_array_equal(found, kind.fit(FLOWERS, given[1], weight).predict(FLOWERS))
            kind.model_.network(0)(given[0])
    finally:
        torch.set_warn_always(before)


SIZES = [(4.5,), (4, "a"), (None,), (True,), (0,), [[[4]]], np.array([[[4]]]), [(4,), (0,)], [(4,), "a"],
         [[4, 3], [None]]]  # fmt: skip
VALUE = r"{} .*: one value, a list or array \(K,\) of alternatives, or a range, expected"
NUMBER = r"{} .*: a number, a list of numbers, or a range LOW\.\.HIGH, expected"
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (PopulationClassifier, {"settings": {"steps": 7}}, "settings: steps 7: epochs, a parameter of its own, says how"),
    *((PopulationClassifier, {name: kind([])}, f"{name} is empty; one value or more expected")
      for name in ("lr", "batch_size", "activation", "optimizer", "dropout") for kind in (list, np.array)),
    *((kind, {"hidden_layer_sizes": sizes}, r"hidden_layer_sizes must be > 0, got .*: whole numbers, one per layer")
      for sizes in SIZES for kind in (MLPClassifier, PopulationClassifier)),
    *((PopulationClassifier, {name: value}, VALUE.format(name))
      for name, value in (("lr", [[0.1], [0.2]]), ("lr", np.ones((2, 1))), ("dropout", {0.1}))),
    (PopulationClassifier, {"settings": {"l2": {}}}, VALUE.format("l2")),
    *((PopulationClassifier, {name: value}, NUMBER.format(name))
      for name, value in (("lr", "fast"), ("epochs", "9"), ("lr", [0.1, "1e-4..1"]))),
    (PopulationClassifier, {"settings": {"l2": "x"}}, NUMBER.format("l2")),
    *((kind, {"dtype": "float16"}, f"The 'dtype' parameter of {kind.__name__} must be a str among")
      for kind in (MLPClassifier, MLPRegressor, PopulationClassifier)),
    *((PopulationClassifier, {"settings": {name: 1}}, rf"settings: {name} is a parameter of its own: {name}=")
      for name in ("lr", "weight_decay", "batch_size", "epochs")),
    *((PopulationClassifier, {"batch_size": size}, "batch_size .*: a whole number of 1 or more expected")
      for size in (0, -5, 2.5, "auto", [32, 0])),
    (PopulationClassifier, {"batch_size": None}, "batch_size is None; a value, a list of alternatives or a range exp"),
    (PopulationClassifier, {"class_weight": {0: -1.0, 1: 1.0, 2: 1.0}},
     r"class_weight \{0: -1.0, .*: numbers of 0 or more expected"),
    (PopulationClassifier, {"class_weight": "heavy"}, "The 'class_weight' parameter of PopulationClassifier must be"),
    (PopulationClassifier, {"settings": {"learning_rate": 1}}, "settings: 'learning_rate' is unknown"),
    (PopulationClassifier, {"settings": {"class_weight": [1.0]}}, "settings: 'class_weight' is unknown"),
    (MLPClassifier, {"solver": "lbfgs"}, "solver='lbfgs' works on the whole data and is not available"),
    (MLPClassifier, {"alpha": -1}, "The 'alpha' parameter of MLPClassifier must be"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "told"), REFUSED)
def test_what_a_parameter_cannot_be_is_refused_by_its_name(kind: Any, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kind(**given, **SMALL).fit(FLOWERS, SPECIES)


def test_topologies_may_be_any_sequence_of_sequences() -> None:
    for sizes in ([(4,), (5,)], ((4,), (5,)), np.array([[4], [5]]), [4, (5,)], [np.int64(4), [5]]):
        model = PopulationClassifier(2, sizes, epochs=1, **SMALL).fit(FLOWERS[::5], SPECIES[::5])
        assert [each.spec.widths for each in model.model_.populations.each] == [(4, 4, 3), (4, 5, 3)]


def signed(grad: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.sign(grad),)


def halved(lr: torch.Tensor, step: torch.Tensor, total: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
    return lr / (1 + step / half)


def test_rules_of_ones_own_are_taken_as_names_are() -> None:
    """One of each kind, alone and among alternatives."""
    rules = gpubp.Optimizer(signed, slots=(), defaults={}, lr=0.01), gpubp.Schedule(halved, {"half": 10.0})
    for optimizer, schedule in (rules, (["adam", rules[0]], ["constant", rules[1]])):
        model = PopulationClassifier(4, (4,), optimizer=optimizer, schedule=schedule, epochs=2, **SMALL)
        assert np.isfinite(model.fit(FLOWERS, SPECIES).losses_).all()
        assert model.estimators_[0].partial_fit(FLOWERS, SPECIES).n_iter_ == 1


def test_what_only_a_fitted_estimator_has_is_asked_for_in_vain_before() -> None:
    for one in (MLPClassifier(), MLPRegressor(), PopulationClassifier(), PopulationRegressor()):
        for name in ("model_", "estimators_", "out_activation_"):
            if hasattr(type(one), name):
                assert not hasattr(one, name)
                with pytest.raises(NotFittedError, match=f"This {type(one).__name__} instance is not fitted yet"):
                    getattr(one, name)


GRID: dict[str, Any] = {"hidden_layer_sizes": [(4,), (8, 8)], "activation": ["tanh", "relu", "gelu", "sine"]}
FULL = r"8 combinations of activation and hidden_layer_sizes for 8 networks; all have one point of lr: each point"


@pytest.mark.parametrize(
    ("count", "given", "told"),
    [
        (4, GRID, "8 combinations of activation and hidden_layer_sizes for 4 networks, which leave 4 of them out$"),
        (3, {"lr": [0.1, 0.01, 0.001, 1e-4]}, "4 combinations of lr for 3 networks, which leave 1 of them out$"),
        (8, GRID | {"lr": "1e-4..1e-1:log"}, FULL),
    ],
)
def test_alternatives_and_ranges_that_have_too_few_networks_are_told_of(count: int, given: Any, told: str) -> None:
    several = PopulationClassifier(count, epochs=1, **{"hidden_layer_sizes": (4,)} | given, **SMALL)
    with pytest.warns(UserWarning, match=told) as caught:
        several.fit(FLOWERS[::5], SPECIES[::5])
    assert [each.filename for each in caught if each.category is UserWarning] == [__file__]


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_grid_that_every_network_has_a_place_in_is_not_spoken_of() -> None:
    for count, given in ((8, GRID), (9, GRID | {"lr": "1e-4..1e-1:log"}), (1, {"lr": "1e-4..1e-1:log"})):
        PopulationClassifier(count, epochs=1, **given, **SMALL).fit(FLOWERS[::5], SPECIES[::5])


@pytest.mark.filterwarnings("error")
def test_advice_for_numbers_that_are_too_large_is_such_that_it_helps() -> None:
    large = FLOWERS * 1e300
    with pytest.raises(ValueError, match="X has numbers that are too large to be scaled: smaller units expected"):
        PopulationClassifier(2, (4,), dtype="float64", **SMALL).fit(large, SPECIES)
    with pytest.raises(ValueError, match="y has numbers that are too large to be scaled: smaller units expected"):
        PopulationRegressor(2, (4,), dtype="float64", **SMALL).fit(FLOWERS, large[:, 0])
    with pytest.raises(ValueError, match=r"infinite as torch\.float32: scale them, or use dtype='float64'"):
        MLPClassifier((4,), **SMALL).fit(large, SPECIES)
    model = PopulationClassifier(2, (4,), dtype="float64", epochs=1, **SMALL).fit(FLOWERS, SPECIES)
    with pytest.raises(ValueError, match=r"infinite as torch\.float64: scale them$"):
        model.predict(np.full((1, 4), 1.7e308))


LAST = "diverged and {} last finite weights: lower the learning rate"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            MLPRegressor(hidden_layer_sizes=(4,)),
            f"1 of 1 network {LAST.format('keeps its')}, or scale inputs and targets",
        ),
        (PopulationRegressor(2, scale_targets=False), f"2 of 2 networks {LAST.format('keep their')}, or scale targets"),
        (PopulationRegressor(2, lr=1e30, optimizer="sgd"), LAST.format("keep their")),
        (MLPClassifier((4,), learning_rate_init=1e30, solver="sgd"), f"{LAST.format('keeps its')}, or scale inputs"),
    ],
)
def test_what_is_to_be_scaled_is_what_is_not(model: Any, told: str) -> None:
    length = "max_iter" if hasattr(model, "max_iter") else "epochs"
    targets = SPECIES if isinstance(model, MLPClassifier) else FLOWERS[:, 0] * 1e30
    with pytest.warns(ConvergenceWarning, match=f"{told}$"):
        model.set_params(**{length: 2}, **SMALL).fit(FLOWERS, targets)
