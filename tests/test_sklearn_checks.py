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
MATRIX = "check_estimator_sparse_matrix"
COSTLY = [
    {MATRIX, "check_estimator_sparse_array", "check_methods_subset_invariance", "check_pipeline_consistency",
     "check_dtype_object", "check_supervised_y_2d", "check_fit_score_takes_y"},
    {MATRIX, "check_estimators_dtypes", "check_fit_idempotent", "check_estimators_nan_inf", "check_fit2d_1sample",
     "check_estimators_overwrite_params", "check_dont_overwrite_parameters", "check_n_features_in_after_fitting",
     "check_sample_weights_pandas_series", "check_sample_weights_shape", "check_regressor_data_not_an_array"},
    (), (),
]  # fmt: skip
SMALL = {"engine": "eager", "random_state": 0}
ESTIMATORS = [
    MLPClassifier((8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    PopulationRegressor(2, (8,), lr=0.2, epochs=4, **SMALL),
    MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.2, max_iter=4, **SMALL),
    PopulationClassifier(2, (8,), lr=0.2, epochs=4, **SMALL),
]


def cases():
    """A classifier and a regressor, one of each family, say as much as all four; matrices as much as arrays; and those
    that cost most, of both, as much of one."""
    for number, estimator in enumerate(ESTIMATORS):
        for _, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            slow = number >= 2 or name in EXEMPT or name in COSTLY[number]
            marks = [pytest.mark.slow] * slow
            marks += [pytest.mark.xfail(reason=EXEMPT[name])] if name in EXEMPT else []
            yield pytest.param(estimator, check, marks=marks, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), [*cases()])
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
