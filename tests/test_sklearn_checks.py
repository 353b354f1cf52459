"""The estimators pass scikit-learn's own checks; exemptions have a reason."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import estimator_checks_generator

from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor

WEIGHTS = "samples in minibatches: a weight of 2 is one sample that counts twice, not two samples in two minibatches"
EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
}
SMALL = {"engine": "eager", "random_state": 0}
ESTIMATORS = [
    MLPClassifier((8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    PopulationRegressor(2, (8,), lr=0.2, epochs=4, **SMALL),
    MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    PopulationClassifier(2, (8,), lr=0.2, epochs=4, **SMALL),
]


def cases():
    """A classifier and a regressor, one of each family, say as much as all four; arrays as much as matrices."""
    for number, estimator in enumerate(ESTIMATORS):
        for _, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            slow = number >= 2 or name in EXEMPT or name == "check_estimator_sparse_matrix"
            marks = [pytest.mark.slow] * slow
            marks += [pytest.mark.xfail(reason=EXEMPT[name])] if name in EXEMPT else []
            yield pytest.param(estimator, check, marks=marks, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), [*cases()])
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
