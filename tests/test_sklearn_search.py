"""PopulationSearchCV: the results of scikit-learn's searches, from one training."""

import pickle
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from sklearn import config_context, model_selection, neural_network
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, GroupKFold, RandomizedSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from gpubp import sklearn
from gpubp.sklearn import MLPClassifier, PopulationClassifier, PopulationSearchCV

FLOWERS, SPECIES = load_iris(return_X_y=True)
SMALL = {"engine": "eager", "max_iter": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Counted(TransformerMixin, BaseEstimator):
    """Adds a column; counts its fits."""

    fits = 0

    def __init__(self, column=0.0):
        self.column = column

    def fit(self, X, y=None):
        type(self).fits += 1
        self.mean_ = X.mean(0)
        return self

    def transform(self, X):
        return np.c_[X - self.mean_, np.full(len(X), self.column)]


def same(ours, theirs, exactly=True):
    """Whether two searches have the same columns, and but for times the same numbers."""
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for name, column in theirs.cv_results_.items():
        if exactly and "time" not in name:
            np.testing.assert_array_equal(ours.cv_results_[name], column, err_msg=name)
    assert ours.best_params_ == theirs.best_params_


def test_a_search_is_one_run_with_the_results_of_one_fit_after_the_other(runs):
    """To the bit, with topologies, rates and batches that differ."""
    grid = [
        {"hidden_layer_sizes": [(4,), (5, 3)], "learning_rate_init": [0.01, 0.2]},
        {"batch_size": [30], "alpha": [1.0]},
    ]
    given = MLPClassifier((4,), batch_size=20, **SMALL), grid
    ours = PopulationSearchCV(*given, cv=3, return_train_score=True).fit(FLOWERS, SPECIES)
    assert runs == [15, 1]  # and the best again
    same(ours, GridSearchCV(*given, cv=3, return_train_score=True).fit(FLOWERS, SPECIES))
    assert len(set(ours.cv_results_["mean_train_score"])) >= 3
    again = pickle.loads(pickle.dumps(ours))
    assert len(pickle.dumps(ours)) < 2 * len(pickle.dumps(ours.best_estimator_)) + 10_000
    assert again.score(FLOWERS, SPECIES) == ours.best_estimator_.score(FLOWERS, SPECIES)
    assert (ours.cv_results_["mean_fit_time"] > 0).all()


def test_ensembles_are_searched_as_networks_are(runs):
    base = PopulationClassifier(2, (4,), engine="eager", epochs=2, random_state=0, early_stopping=True)
    grid = {"class_weight": [None, "balanced"], "ensemble": ["best", "all"]}
    X, y = FLOWERS[20:], SPECIES[20:]
    weight = np.linspace(0.5, 2, len(y))
    ours = PopulationSearchCV(base, grid, cv=2).fit(X, y, sample_weight=weight)
    assert runs == [16, 2]
    same(ours, GridSearchCV(base, grid, cv=2).fit(X, y, sample_weight=weight))


def test_transformers_are_fitted_once_per_fold_and_setting_of_theirs(runs):
    pipe = make_pipeline(Counted(), StandardScaler(), MLPClassifier((4,), **SMALL))
    grid = {"counted__column": [0.0, 1.0], "mlpclassifier__alpha": [0.1, 10.0]}
    Counted.fits = 0
    ours = PopulationSearchCV(pipe, grid, cv=2).fit(FLOWERS, SPECIES)
    assert Counted.fits == 2 * 2 + 1
    assert runs == [8, 1]
    same(ours, GridSearchCV(pipe, grid, cv=2).fit(FLOWERS, SPECIES))
    inside = make_pipeline(
        StandardScaler(), PopulationSearchCV(MLPClassifier((4,), **SMALL), {"alpha": [0.1, 1]}, cv=2)
    )
    assert inside.fit(FLOWERS, SPECIES).score(FLOWERS, SPECIES) > 0


def test_transformers_whose_settings_print_alike_are_not_taken_for_each_other():
    one, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 100
    pipe = make_pipeline(FunctionTransformer(lambda X, shift: X * shift[1000]), MLPClassifier((4,), **SMALL))
    grid = {"functiontransformer__kw_args": [{"shift": one}, {"shift": other}]}
    ours = PopulationSearchCV(pipe, grid, cv=3, refit=False).fit(FLOWERS, SPECIES)
    theirs = GridSearchCV(pipe, grid, cv=3, refit=False).fit(FLOWERS, SPECIES)
    found, wanted = (each.cv_results_["mean_test_score"] for each in (ours, theirs))
    assert wanted[0] != wanted[1]
    np.testing.assert_array_equal(found, wanted)


def test_folds_that_lack_one_of_very_many_classes_are_encoded_apart():
    labels, known = np.repeat(np.arange(1200), 2), {}
    mlp = MLPClassifier((4,), **SMALL)
    raw = mlp._raw(labels[:, None].astype(float), labels, None)
    tables = [mlp._encoded(raw, np.flatnonzero(labels != lacks), 0, known=known).table for lacks in (600, 601)]
    assert [int(table.targets.max()) for table in tables] == [1198, 1198]
    assert not np.array_equal(*(table.targets for table in tables))


def test_settings_are_drawn_scored_and_split_as_in_scikit_learn():
    given = MLPClassifier((4,), **SMALL), {"learning_rate_init": loguniform(1e-3, 1e-1)}
    how = {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss", "cv": GroupKFold(2)}
    groups = np.arange(150) // 5 % 7
    ours = PopulationSearchCV(*given, n_iter=3, random_state=1, **how).fit(FLOWERS, SPECIES, groups=groups)
    same(ours, RandomizedSearchCV(*given, n_iter=3, random_state=1, **how).fit(FLOWERS, SPECIES, groups=groups))
    assert "rank_test_neg_log_loss" in ours.cv_results_


def test_routed_weights_of_samples_reach_the_networks_together(runs):
    """And through a transformer that asks for them one by one, with the same results."""
    grid, weight = {"mlpclassifier__alpha": [0.1, 1.0]}, np.linspace(0.1, 2, 150)
    for asks, scales, together in ((True, False, [4]), (False, False, [4]), (True, True, [])):
        with config_context(enable_metadata_routing=True):
            scaler = StandardScaler().set_fit_request(sample_weight=scales)
            mlp = MLPClassifier((4,), **SMALL).set_fit_request(sample_weight=asks).set_score_request(sample_weight=True)
            given = make_pipeline(scaler, mlp), grid
            theirs = GridSearchCV(*given, cv=2, refit=False).fit(FLOWERS, SPECIES, sample_weight=weight)
            runs.clear()
            with nullcontext() if together else pytest.warns(UserWarning, match="standardscaler__sample_weight"):
                ours = PopulationSearchCV(*given, cv=2, refit=False).fit(FLOWERS, SPECIES, sample_weight=weight)
        assert runs == (together or [1] * 4)
        for name in ("mean_test_score", "std_test_score"):
            np.testing.assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name])


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_setting_that_fails_does_not_take_the_others_with_it():
    grid = {"learning_rate_init": [0.01, -1.0]}
    with pytest.warns(FitFailedWarning, match="The 'learning_rate_init' parameter of MLPClassifier must be"):
        ours = PopulationSearchCV(MLPClassifier((4,), **SMALL), grid, cv=2).fit(FLOWERS, SPECIES)
    assert np.isfinite(ours.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert ours.best_params_ == {"learning_rate_init": 0.01}
    with pytest.raises(ValueError, match="learning_rate_init"):
        PopulationSearchCV(MLPClassifier(**SMALL), grid, cv=3, error_score="raise").fit(FLOWERS, SPECIES)


def test_a_parameter_that_there_is_not_is_an_error_as_in_scikit_learn(runs):
    given = MLPClassifier((4,), **SMALL), [{"alpha": [0.1]}, {"alhpa": [0.1]}]
    for search in (GridSearchCV, PopulationSearchCV):
        runs.clear()
        with pytest.raises(ValueError, match="Invalid parameter 'alhpa' for estimator MLPClassifier"):
            search(*given, cv=3).fit(FLOWERS, SPECIES)
    assert runs == []
    with pytest.raises(ValueError, match="The 'scoring' parameter of PopulationSearchCV must be"):
        PopulationSearchCV(*given, scoring="acuracy").fit(FLOWERS, SPECIES)


def test_halving_trains_the_settings_of_an_iteration_together(runs):
    given = MLPClassifier((4,), engine="eager", random_state=0), {"learning_rate_init": [1e-3, 1e-2, 0.03, 0.1]}
    halving = {"factor": 2, "resource": "max_iter", "min_resources": 2, "max_resources": 8}
    ours = PopulationSearchCV(*given, halving=halving, cv=2, random_state=0).fit(FLOWERS, SPECIES)
    assert runs == [8, 4, 2, 1]
    assert ours.n_candidates_ == [4, 2, 1]
    assert ours.cv_results_["n_resources"].tolist() == [2] * 4 + [4] * 2 + [8]


@pytest.mark.parametrize("theirs", [GridSearchCV, RandomizedSearchCV])
def test_a_search_of_scikit_learn_becomes_ours_by_its_name(theirs):
    """With all of its parameters."""
    space = "param_grid" if theirs is GridSearchCV else "param_distributions"
    own = {"n_iter": 2, "random_state": 0} if theirs is RandomizedSearchCV else {}
    given = {space: {"alpha": [0.01, 0.1, 10.0]}, "cv": 2, "n_jobs": -1, "pre_dispatch": 4, **own}
    made = [kind(MLPClassifier((4,), **SMALL), **given) for kind in (theirs, PopulationSearchCV)]
    assert made[0].get_params().keys() <= made[1].get_params().keys()
    same(made[1].fit(FLOWERS, SPECIES), made[0].set_params(n_jobs=1).fit(FLOWERS, SPECIES))
    if theirs is RandomizedSearchCV:
        ten = PopulationSearchCV(MLPClassifier((4,), **SMALL), param_distributions={"alpha": [*range(20)]}, cv=2)
        assert len(ten.fit(FLOWERS, SPECIES).cv_results_["params"]) == 10


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "param_grid or param_distributions, one of them, expected"),
        ({"param_grid": {"alpha": [1.0]}, "param_distributions": {"alpha": [1.0]}}, "one of them, expected"),
        ({"param_grid": {"alpha": [1.0]}, "halving": True}, "halving True: None or a dict of parameters expected"),
        ({"param_grid": {"alpha": [1.0]}, "halving": {"fctor": 2}}, "halving: 'fctor' is unknown; did you mean"),
        ({"param_grid": {"alpha": [1.0]}, "halving": {"resource": "foo", "max_resources": 9}},
         "resource=foo which is not supported by estimator MLPClassifier"),
        *(({"param_grid": grid, "halving": halving},
           "param_grid: alpha is a distribution: n_iter, the number of settings to draw")
          for grid in ({"alpha": uniform(0, 1)}, [{"beta_1": [0.8]}, {"alpha": uniform(0, 1)}])
          for halving in (None, {"factor": 2})),
    ],
)  # fmt: skip
def test_a_search_that_says_too_little_or_too_much_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        PopulationSearchCV(MLPClassifier((4,), **SMALL), **given).fit(FLOWERS, SPECIES)


@pytest.mark.parametrize(
    "theirs", ["HalvingGridSearchCV", pytest.param("HalvingRandomSearchCV", marks=pytest.mark.slow)]
)
def test_halving_by_samples_is_that_of_scikit_learn(theirs, runs):
    """Of a grid, and of as many settings as samples suffice for."""
    alphas = [0.01, 10.0] if theirs == "HalvingGridSearchCV" else [0.01, 0.1, 10.0]
    given = {"alpha": alphas, "learning_rate_init": [0.01, 0.1]}
    halving, mlp = {"factor": 2, "min_resources": 30}, MLPClassifier((4,), **SMALL)
    space = "param_grid" if theirs == "HalvingGridSearchCV" else "param_distributions"
    how = {"cv": 2, "random_state": 0, "return_train_score": True}
    ours = PopulationSearchCV(mlp, **{space: given}, halving=halving, **how).fit(FLOWERS, SPECIES)
    assert sum(runs) == 2 * sum(ours.n_candidates_) + 1
    assert len(runs) < 10
    other = getattr(model_selection, theirs)(mlp, given, **halving, **how).fit(FLOWERS, SPECIES)
    assert ours.n_resources_ == other.n_resources_ == [30, 60, 120]
    same(ours, other)


SETS = {
    "iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits,
    "diabetes": load_diabetes,
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "iris")) for name in SETS])
def test_scores_are_those_of_scikit_learn_within_noise(name):
    """Means over folds and seeds, whose spread is the noise, at each of two rates, and the better rate."""
    X, y = SETS[name](return_X_y=True)
    kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
    y = (y - y.mean()) / y.std() if name == "diabetes" else y
    X, folds, seeds = StandardScaler().fit_transform(X), ShuffleSplit(2, random_state=0), 3
    given = {"hidden_layer_sizes": (8,), "max_iter": 15, "batch_size": 48}
    grid = {"learning_rate_init": [0.002, 0.02], "random_state": [*range(seeds)]}
    found = []
    for search, module in ((PopulationSearchCV, sklearn), (GridSearchCV, neural_network)):
        outcome = search(getattr(module, kind)(**given), grid, cv=folds, refit=False).fit(X, y)
        found.append(outcome.cv_results_["mean_test_score"].reshape(2, seeds))
    ours, theirs = found
    noise = np.sqrt((ours.var(1, ddof=1) + theirs.var(1, ddof=1)) / seeds)  # of each rate
    assert (abs(ours.mean(1) - theirs.mean(1)) < 4 * noise + 0.005).all(), (ours, theirs)
    assert abs(ours.mean() - theirs.mean()) < 4 * np.linalg.norm(noise) / 2 + 0.005, (ours, theirs)
    assert ours.mean(1).argmax() == theirs.mean(1).argmax() == 1
    assert ours[1].mean() > (0.3 if name == "diabetes" else 0.85)


def test_an_error_names_what_was_given_and_no_stand_in():
    with pytest.raises(ValueError, match=r"must be an object implementing 'fit'\. Got None instead"):
        PopulationSearchCV(None, {"alpha": [1.0]}).fit(FLOWERS, SPECIES)


def test_a_pipeline_within_a_pipeline_trains_one_by_one_and_says_why():
    inner = make_pipeline(StandardScaler(), MLPClassifier((4,), **SMALL))
    search = PopulationSearchCV(make_pipeline(StandardScaler(), inner), {"pipeline__mlpclassifier__alpha": [0.1]}, cv=2)
    told = "2 of 2 fits train one by one: the last step of the Pipeline is a Pipeline: one Pipeline with all"
    with pytest.warns(UserWarning, match=told):
        assert search.fit(FLOWERS, SPECIES).predict(FLOWERS).shape == (150,)
