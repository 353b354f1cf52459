"""What PopulationSearchCV trains together, with the results of one fit after the other, and what it trains alone."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationSearchCV

FLOWERS, SPECIES = load_iris(return_X_y=True)
SMALL = {"engine": "eager", "max_iter": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


FORMS = {
    "a mask": lambda rows: np.isin(np.arange(150), rows),
    "a list of truth values": lambda rows: np.isin(np.arange(150), rows).tolist(),
    "a list": lambda rows: rows.tolist(),
    "a tuple": lambda rows: tuple(rows.tolist()),
    "a range": lambda rows: range(rows[0], rows[-1] + 1, rows[1] - rows[0]),
    "a slice": lambda rows: slice(rows[0], rows[-1] + 1, rows[1] - rows[0]),
    "a series": lambda rows: pd.Series(rows, index=rows[::-1]),
    "an index": lambda rows: pd.Index(rows),
    "a mask of polars": lambda rows: pl.Series(np.isin(np.arange(150), rows)),
    "rows from the end": lambda rows: rows - 150,
}


FOLDS = [(np.arange(0, 150, 2), np.arange(1, 150, 2)), (np.arange(1, 150, 3), np.arange(0, 150, 3))]
MLP = MLPClassifier((4,), batch_size=25, learning_rate_init=0.05, **SMALL)
SEVERAL = PopulationClassifier(2, (4,), batch_size=25, engine="eager", epochs=3, random_state=0)
GIVEN = (
    (MLP, {"alpha": [0.1, 3.0]}),
    (SEVERAL, {"lr": [0.01, 0.1]}),
    (make_pipeline(StandardScaler(), MLP), {"mlpclassifier__alpha": [0.1, 3.0]}),
)


@pytest.fixture(scope="module")
def alone():
    """What scikit-learn's own search finds of networks, ensembles, and behind transformers."""
    return [GridSearchCV(*given, cv=FOLDS, refit=False).fit(FLOWERS, SPECIES) for given in GIVEN]


@pytest.mark.parametrize("form", FORMS)
def test_folds_of_every_form_are_those_rows(form, alone, runs):
    folds = [tuple(FORMS[form](rows) for rows in each) for each in FOLDS]
    for given, theirs in [*zip(GIVEN, alone)][2 * (form != "a mask") :]:
        runs.clear()
        ours = PopulationSearchCV(*given, cv=folds, refit=False).fit(FLOWERS, SPECIES)
        assert len(runs) == 1
        for name in ("mean_test_score", "std_test_score"):
            np.testing.assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name])


def test_a_learning_rate_that_falls_trains_with_the_others(runs):
    """Across batches, training sets of 112 and 113, and powers, which it depends on."""
    grid = [
        {"learning_rate": ["invscaling"], "power_t": [0.1, 1.0], "batch_size": [20, 28]},
        {"learning_rate": ["constant"], "alpha": [0.1, 3.0]},
    ]
    given = MLPClassifier((4,), solver="sgd", learning_rate_init=0.1, power_t=0.3, batch_size=20, **SMALL), grid
    folds = [*KFold(4, shuffle=True, random_state=0).split(FLOWERS)][1:3]
    how = {"cv": folds, "scoring": "neg_log_loss", "refit": False}
    ours = PopulationSearchCV(*given, **how).fit(FLOWERS, SPECIES)
    assert sum(runs) == 12
    assert len(runs) == 2  # with and without samples that fill the last minibatch
    theirs = GridSearchCV(*given, **how).fit(FLOWERS, SPECIES)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name])
    assert len(set(ours.cv_results_["mean_test_score"])) == 6


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite", "ignore::FutureWarning")
def test_only_the_fits_that_cannot_train_together_train_alone(runs):
    """A rule that there is not, and negative targets of some folds that a loss does not take."""
    rules = {"init": ["glorot_uniform", "nothing", "kaiming_normal"], "lr": [0.01, 0.1]}
    several = PopulationClassifier(2, (4,), engine="eager", epochs=2, random_state=0)
    told = "4 of 12 fits train one by one: .*init 'nothing' is unknown"
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match=told):
        ours = PopulationSearchCV(several, rules, cv=2, refit=False).fit(FLOWERS, SPECIES)
    assert np.isfinite(ours.cv_results_["mean_test_score"]).tolist() == [True, True, False, False, True, True]
    assert sum(count for count in runs if count > 2) >= 16

    targets = np.append(np.ones(119), -1.0)
    given = MLPRegressor(hidden_layer_sizes=(4,), **SMALL), {"loss": ["squared_error", "poisson"], "alpha": [0.1, 1.0]}
    runs.clear()
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="6 of 12 fits train one by one"):
        ours = PopulationSearchCV(*given, cv=3, refit=False, scoring="r2").fit(FLOWERS[:120], targets)
    with pytest.warns(FitFailedWarning):
        theirs = GridSearchCV(*given, cv=3, refit=False, scoring="r2").fit(FLOWERS[:120], targets)
    assert max(runs) >= 6
    for fold in range(3):
        column = f"split{fold}_test_score"
        np.testing.assert_array_equal(ours.cv_results_[column], theirs.cv_results_[column])


def test_what_cannot_train_together_is_told_and_trains_one_by_one(runs):
    pipe = make_pipeline(StandardScaler(), MLPClassifier((4,), **SMALL))
    grid = {"mlpclassifier": [MLPClassifier((3,), **SMALL), DummyClassifier(strategy="constant", constant=0)]}
    told = "3 of 6 fits train one by one: DummyClassifier is no estimator of gpubp.sklearn"
    with pytest.warns(UserWarning, match=told):
        ours = PopulationSearchCV(pipe, grid, cv=3, refit=False).fit(FLOWERS, SPECIES)
    assert runs == [3]
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"][1], 1 / 3)
