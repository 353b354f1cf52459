"""What networks predict together, of which samples, and what is refused or warned of, by models made by hand."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

import gpubp
from gpubp.errors import CheckpointError, ConfigError, DataError, GpubpError, ShapeError
from gpubp.raw.columns import Column
from gpubp.raw.preparation import Preparation
from gpubp.results.ensemble import PIECE
from gpubp.results.model import Model

from .helpers import population
from .tolerances import PREDICTION


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_arrays_of_numbers_are_in_the_order_of_the_columns(kind: Callable[[Any], Any]) -> None:
    model = Model(population(gpubp.NetworkSpec((2, 1)), 1), numbers(("a", 1.0, 2.0), ("b", 0.0, 10.0), y=(5.0, 3.0)))
    values = [[1.0, 20.0], [3.0, 0.0]]
    out = model.population.predict(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))[0, :, 0]
    np.testing.assert_allclose(model.predict(kind(values), [0]), out * 3 + 5, rtol=PREDICTION["rtol"])


def numbers(*inputs: tuple[str, float, float], **targets: tuple[float, float]) -> Preparation:
    """The preparation of number columns: name, offset, factor."""
    return Preparation(
        tuple(Column(*each) for each in inputs), tuple(Column(name, *each) for name, each in targets.items()), "numbers"
    )


def constant(loss: str, *outs: list[float]) -> gpubp.Population:
    """Networks of one input that say `outs` whatever the input is."""
    spec = gpubp.NetworkSpec((1, len(outs[0])), loss=loss)
    rows = torch.tensor([[0.0] * len(each) + each for each in outs])
    return gpubp.Population(spec, rows, 0, torch.arange(len(outs)))


def labelled(task: str, *classes: str) -> Preparation:
    return Preparation((Column("x"),), (Column("y"),), task, classes)


def test_one_sure_network_does_not_outvote_the_others() -> None:
    """sigmoid(5, -1, -1.5, -1.5) is 0.99, 0.27, 0.18, 0.18: 0.407 on average, where the mean logit is above 0."""
    logits = [5.0, -1.0, -1.5, -1.5]
    x = {"x": [0.0, 1.0]}
    binary = Model(constant("binary_cross_entropy", *([each] for each in logits)), labelled("binary", "no", "yes"))
    two = Model(constant("cross_entropy", *([0.0, each] for each in logits)), labelled("classes", "no", "yes"))
    for model in (binary, two):
        assert model.predict(x, range(4)).tolist() == ["no", "no"]
        np.testing.assert_allclose(model.predict_proba(x, range(4))[:, 1], 0.406775, atol=1e-6)
        assert model.predict(x, [0]).tolist() == ["yes", "yes"]
    sign = Model(constant("hinge", [50.0], [-0.9], [-0.8]), labelled("sign", "no", "yes"))
    assert sign.predict(x, range(3)).tolist() == ["no", "no"], "1 - 0.9 - 0.8 is below 0"
    rates = Model(constant("poisson", [0.0], [2.0]), numbers(("x", 0.0, 1.0), y=(0.0, 1.0)))
    np.testing.assert_allclose(rates.predict(x, range(2)), (1 + np.e**2) / 2, rtol=1e-6)


def test_targets_of_binary_cross_entropy_that_are_no_labels_are_predicted_as_probabilities() -> None:
    networks = constant("binary_cross_entropy", [0.0, 1.0], [1.0, 0.0])
    many = Model(networks, numbers(("x", 0.0, 1.0), a=(0.0, 1.0), b=(0.0, 1.0)))
    half = (0.5 + 1 / (1 + np.exp(-1))) / 2
    for model in (many, Model(networks)):
        x = torch.zeros(1, 1)
        np.testing.assert_allclose(model.predict(x, range(2)), [[half, half]], rtol=1e-6)
        assert np.array_equal(model.predict_proba(x, range(2)), model.predict(x, range(2)))
        assert model.classes == ()


def test_a_custom_loss_of_logits_gives_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = gpubp.LOSSES["binary_cross_entropy"]._replace(inverse_link=lambda out: torch.sigmoid(out))
    monkeypatch.setitem(gpubp.LOSSES, "custom", rule)
    found = Model(constant("custom", [0.0], [1.0])).predict_proba(torch.zeros(1, 1), [0])
    assert found.tolist() == [[0.5]]


def test_diverged_networks_do_not_predict_unless_they_are_named() -> None:
    results = pa.table({"status": ["finished", "diverged", "finished"], "steps": [1] * 3, "loss": [0.5, 0.1, 0.2]})
    model = Model(constant("huber", [1.0], [2.0], [4.0]), None, results)
    x = torch.zeros(1, 1)
    assert model.ranking().tolist() == [2, 0]
    assert model.predict(x).tolist() == [[4]]
    assert model.predict(x, "all").tolist() == [[2.5]]
    assert model.predict(x, [1]).tolist() == [[2]]
    lost = Model(model.population, None, results.set_column(0, "status", pa.array(["diverged"] * 3)))
    with pytest.raises(CheckpointError, match="every network diverged"):
        lost.predict(x)


ONE = Model(
    constant("huber", [1.0], [2.0]),
    numbers(("x", 0.0, 1e-3), y=(0.0, 1.0)),
    pa.table({"status": ["finished"] * 2, "steps": [1, 1], "loss": [0.5, 0.1]}),
)


REFUSED: list[tuple[Any, Any, type[GpubpError], str]] = [
    ({"z": [1.0]}, "best", DataError, "column 'x' is missing; the columns are z"),
    (pa.table({"xx": [1.0]}), "best", DataError, "column 'x' is missing; did you mean 'xx'"),
    ({"x": ["a"]}, "best", DataError, "column 'x' holds text, the first 'a' in sample 0, but numbers"),
    ({"x": [None, 1.0]}, "best", DataError, "column 'x' lacks 1 of 2 values, the first in sample 0"),
    ({"x": [1.0, 1e300]}, "best", DataError, "column 'x' becomes 1e.303 in sample 1, one of 1 .* as torch.float32"),
    ({"x": [[1.0]]}, "best", DataError, "column 'x'"),
    ({"x": 1.0}, "best", DataError, "samples: column 'x': only numbers of"),
    ([], "best", DataError, "samples"),
    ([1.0], "best", DataError, "samples: a list; columns or rows of"),
    ([[1.0], [1.0, 2.0]], "best", DataError, "samples: a list; columns or rows of"),
    (torch.zeros(3), "best", DataError, r"samples \(3,\): \(M, 1\), in the order of preparation.columns"),
    (torch.zeros(2, 2), "best", DataError, r"samples \(2, 2\): \(M, 1\)"),
    (None, "best", DataError, "samples: a NoneType; "),
    ("new.txt", "best", DataError, "the ending '.txt' is unknown"),
    ({"x": [1.0]}, "bets", ConfigError, "networks 'bets': best, all, a number of 1 or more, or a sequence of rows"),
    ({"x": [1.0]}, 0, ConfigError, "networks 0: best"),
    ({"x": [1.0]}, True, ConfigError, "networks True: best"),
    ({"x": [1.0]}, 3, ConfigError, "networks 3: the run has 2 networks that did not diverge"),
    ({"x": [1.0]}, [2], ConfigError, "network 2: a row from 0 to 1"),
    ({"x": [1.0]}, [-3], ConfigError, "network -3: a row from 0 to 1, or from -2 to -1 from the end,"),
    ({"x": [1.0]}, -1, ConfigError, "networks -1: best"),
    ({"x": [1.0]}, [], ConfigError, "networks: one row or more expected, got none"),
    ({"x": [1.0]}, [False, False], ConfigError, "networks: one row or more expected, got none"),
    ({"x": [1.0]}, [0.5], ConfigError, "networks: float64"),
    ({"x": [1.0]}, 1.5, ConfigError, "networks 1.5: best"),
]


@pytest.mark.parametrize(("samples", "networks", "error", "message"), REFUSED)
def test_what_cannot_be_predicted_is_refused(
    samples: Any, networks: Any, error: type[GpubpError], message: str
) -> None:
    with pytest.raises(error, match=message):
        ONE.predict(samples, networks)


def test_a_warning_is_given_each_time_at_the_line_that_called() -> None:
    column = Column("x", low=0.0, high=1.0)
    model = Model(ONE.population, Preparation((column,), (Column("y"),), "numbers"), ONE.results)
    with warnings.catch_warnings(record=True) as told:
        warnings.resetwarnings()  # so that what was said of a line is kept, and not said again
        for _ in range(2):
            model.predict({"x": [5.0]})
            model.inputs({"x": [5.0]})
    assert [warning.filename for warning in told] == [__file__] * 4
    assert [warning.lineno - told[0].lineno for warning in told] == [0, 1, 0, 1]


def test_what_a_network_does_not_take_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"raw samples \(4, 2\): the last size must be 1"):
        ONE.network(0)(torch.zeros(4, 2))
    with pytest.raises(ShapeError, match=r"network.* 0 to 1"):
        ONE.network(2)


def test_predictions_that_are_not_finite_are_warned_of_and_given() -> None:
    spec = gpubp.NetworkSpec((2, 1), loss="poisson", bias="none")
    rates = Model(gpubp.Population(spec, torch.tensor([[1.0, 1.0], [0.0, 0.0]]), 0, torch.arange(2)))
    samples = torch.zeros(PIECE + 2, 2)
    samples[-1] = 1e4
    place = f"the first for sample {PIECE + 1};"
    with pytest.warns(UserWarning, match=f"1 of {2 * len(samples):,} predictions .* of 1 of 2 networks, {place}"):
        each = rates.predict(samples, [0, 1], each=True)
    assert each[:, -1].tolist() == [[np.inf], [1]]
    with pytest.warns(UserWarning, match=f"1 of {len(samples):,} predictions .* of the mean of 2 networks, {place}"):
        assert rates.predict(samples, [0, 1])[-1].tolist() == [np.inf]
    units = Model(constant("huber", [3e38]), numbers(("x", 0.0, 1.0), y=(0.0, 1e300)))
    with pytest.warns(UserWarning, match="2 of 2 predictions .* the first for sample 0;"):
        assert units.predict({"x": [1.0, 2.0]}, [0]).tolist() == [np.inf] * 2
    lost = Model(constant("cross_entropy", [np.inf, np.inf]), labelled("classes", "no", "yes"))
    with pytest.warns(UserWarning, match="1 of 1 predictions are NaN or infinite, or labels from such"):
        lost.predict({"x": [1.0]}, [0])
