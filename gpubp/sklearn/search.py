"""PopulationSearchCV: scikit-learn's searches with all settings x folds in one training.

Choice, scoring and cv_results_ are those of GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV and
HalvingRandomSearchCV; only the fits are ours (ahead.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes these classes available
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    check_cv,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import indexable
from sklearn.utils.validation import _num_samples

from ..errors import unknown
from .ahead import Ahead

HALVING = ("factor", "resource", "max_resources", "min_resources", "aggressive_elimination")


class PopulationSearchCV(BaseSearchCV):  # type: ignore[misc]
    """GridSearchCV, RandomizedSearchCV or one of their halving variants, over the estimators of gpubp.sklearn and
    Pipelines that end in one: the networks of all settings and folds train together, each as it would alone with the
    same engine.

    Any parameter may be searched, including topologies and transformers' parameters. Transformers are fitted once per
    fold and setting of theirs. Fits that cannot train with the others, such as of an estimator of scikit-learn, happen
    one by one, with a warning that says why.

    Parameters
    ----------
    estimator : an estimator of gpubp.sklearn, or a Pipeline.
    param_grid : as in GridSearchCV; with n_iter the same as param_distributions.
    param_distributions : as in RandomizedSearchCV, in place of param_grid.
    n_iter : number of settings to sample; None means all of param_grid, or 10 of param_distributions, with halving as
        many as the samples allow.
    halving : None, or parameters of HalvingGridSearchCV (for distributions, of HalvingRandomSearchCV) by name, such as
        {"factor": 3, "resource": "max_iter", "max_resources": 200}; the settings of each iteration train together.
        scoring, refit, cv, verbose, error_score, return_train_score : as in GridSearchCV.
    n_jobs, pre_dispatch : ignored, so that only the name of the class needs to change: training uses torch's threads.
    random_state : of sampled settings and of halving.

    Attributes
    ----------
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_, refit_time_, multimetric_,
        classes_, n_features_in_, feature_names_in_ : as in GridSearchCV, except that fit times are shares of the
        training's time. With halving, also the attributes of HalvingGridSearchCV.
    """

    def __init__(
        self, estimator: Any, param_grid: Any = None, *, param_distributions: Any = None, n_iter: int | None = None,
        halving: Mapping[str, Any] | None = None, scoring: Any = None, n_jobs: Any = None, refit: Any = True,
        cv: Any = None, verbose: Any = 0, pre_dispatch: Any = "2*n_jobs", error_score: Any = np.nan,
        return_train_score: bool = False, random_state: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            estimator, scoring=scoring, n_jobs=n_jobs, refit=refit, cv=cv, verbose=verbose, pre_dispatch=pre_dispatch,
            error_score=error_score, return_train_score=return_train_score,
        )  # fmt: skip
        self.param_grid, self.param_distributions, self.n_iter = param_grid, param_distributions, n_iter
        self.halving, self.random_state = halving, random_state

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train all settings on all folds, choose the best, and fit it to all samples (refit). params: of fit(), such
        as sample_weight, and of the cv object, such as groups."""
        search = self._search()
        search.fit(*indexable(X, y), **params)
        search.cv_results_ |= _times(search.estimator.seconds, search.n_splits_)
        for name, value in list(vars(search).items()):
            if name.endswith("_") and not name.startswith("_"):
                setattr(self, name, value)
        scorers, _ = self._get_scorers()  # the search's own may refer to Ahead
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        return self

    def _search(self) -> Any:
        """The search of scikit-learn that the parameters select."""
        names = ("scoring", "refit", "cv", "verbose", "error_score", "return_train_score")
        common = {name: getattr(self, name) for name in names} | {"n_jobs": 1}
        spaces = [each for each in (self.param_grid, self.param_distributions) if each is not None]
        if len(spaces) != 1:
            raise ValueError("param_grid or param_distributions, one of them, expected")
        given, sampled = (Ahead(self.estimator), *spaces), self.n_iter is not None or self.param_grid is None
        grids = [each for each in np.ravel(self.param_grid) if isinstance(each, Mapping)]
        drawn = [name for grid in grids for name, values in grid.items() if hasattr(values, "rvs")]
        if drawn and not sampled:
            raise ValueError(
                f"param_grid: {drawn[0]} is a distribution: n_iter, the number of settings to draw, expected too, or "
                "param_distributions in place of param_grid"
            )
        if self.halving is None:
            if not sampled:
                return _together(GridSearchCV)(*given, **common)
            common |= {"n_iter": 10 if self.n_iter is None else self.n_iter, "random_state": self.random_state}
            return _together(RandomizedSearchCV)(*given, **common)
        if not isinstance(self.halving, Mapping):
            raise ValueError(f"halving {self.halving!r}: None or a dict of parameters expected")
        for name in self.halving:
            if name not in HALVING:
                raise ValueError(unknown("halving:", name, HALVING))
        common |= {"random_state": self.random_state, **self.halving}
        if not sampled:
            return _together(HalvingGridSearchCV)(*given, **common)
        common["n_candidates"] = "exhaust" if self.n_iter is None else self.n_iter
        return _together(HalvingRandomSearchCV)(*given, **common)


class _Together:
    """A search whose estimator is Ahead."""

    cv: Any
    estimator: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        self._given = X, y
        return super().fit(X, y, **params)  # type: ignore[misc]

    def _get_routed_params_for_fit(self, params: Any) -> Any:
        classifies = is_classifier(self.estimator)
        self.cv = check_cv(self.cv, self._given[1], classifier=classifies)  # once: it may be an iterator
        self._routed = super()._get_routed_params_for_fit(params)  # type: ignore[misc]
        return self._routed

    def _run_search(self, evaluate_candidates: Callable[..., Any], callback_ctx: Any = None) -> None:
        def evaluate(settings: Any, cv: Any = None, more_results: Any = None, **_: Any) -> Any:
            settings = list(settings)
            split = (cv or self.cv).split(*self._given, **self._routed.splitter.split)
            number = np.arange(_num_samples(self._given[0]))
            folds = [tuple(number[list(each) if isinstance(each, tuple) else each] for each in fold) for fold in split]
            rows = [train for train, _ in folds]
            self.estimator.train(settings, *self._given, self._routed.estimator.fit, rows)
            return evaluate_candidates(settings, _Folds(folds), more_results)

        newer = {} if callback_ctx is None else {"callback_ctx": callback_ctx}  # of scikit-learn 1.9
        super()._run_search(evaluate, **newer)  # type: ignore[misc]


class _Folds:
    """A cv object of known folds, as row numbers, however they are given: masks, lists, ranges, series."""

    def __init__(self, folds: list[Any]) -> None:
        self.folds = folds

    def split(self, X: Any, y: Any = None, **_: Any) -> list[Any]:
        return self.folds


def _together(kind: type[BaseSearchCV]) -> type[Any]:
    """A search of scikit-learn's with Ahead as its estimator; errors call it PopulationSearchCV."""
    return type(PopulationSearchCV.__name__, (_Together, kind), {})


def _times(seconds: list[float], folds: int) -> dict[str, Any]:
    each = np.reshape(seconds, (-1, folds))
    return {"mean_fit_time": each.mean(1), "std_fit_time": each.std(1)}
