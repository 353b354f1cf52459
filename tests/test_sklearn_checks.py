"""The estimators pass scikit-learn's own checks; exemptions have a reason."""

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from gpubp.sklearn import MLPClassifier, MLPRegressor, PopulationClassifier, PopulationRegressor

WEIGHTS = "samples in minibatches: a weight of 2 is one sample that counts twice, not two samples in two minibatches"
EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
}
SMALL = {"engine": "eager", "random_state": 0}
ESTIMATORS = [
    MLPClassifier((8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    PopulationClassifier(2, (8,), lr=0.2, epochs=4, **SMALL),
    PopulationRegressor(2, (8,), lr=0.2, epochs=4, **SMALL),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: EXEMPT)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
