"""Fits made together, before scikit-learn requests them one by one.

A search of scikit-learn clones its estimator, sets parameters, fits and scores, in the order settings x folds. Ahead
stands in for the estimator: it trains all these fits together, and hands out each in turn. A fit that cannot train with
the others (`reason`) trains alone; its error, if any, is raised when its turn comes.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.validation import _check_method_params

from ..errors import GpubpError
from ..system.arrays import Array
from . import jobs
from .encoding import Raw
from .estimator import Networks
from .jobs import Job, Samples, Table

PLAIN = str | int | float | np.generic | None  # values that their text fully describes


@dataclass(eq=False)
class Fit:
    """A setting on a fold. model: the estimator; seconds: of its fit; reason: why it must train alone."""

    model: Any
    params: Mapping[str, Any]
    fold: int
    job: Job | None = None
    reason: str | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def last(self) -> str:
        """The prefix of the networks' parameters: the last step's in a pipeline."""
        return f"{self.model.steps[-1][0]}__" if isinstance(self.model, Pipeline) else ""

    @property
    def networks(self) -> Any:
        """The last step of a pipeline, or the estimator."""
        return self.model.steps[-1][1] if self.last else self.model

    @property
    def head(self) -> Any:
        """What identifies the transformers before the networks, with their parameters; None without any."""
        if not self.last or len(self.model.steps) == 1:
            return None
        own = ((name, value) for name, value in self.params.items() if not name.startswith(self.last))
        return self.fold, *((name, repr(value) if isinstance(value, PLAIN) else id(value)) for name, value in own)

    def replay(self, *_: Any, **__: Any) -> Any:
        """The model's fit(), which has happened already."""
        if self.error is not None:
            raise self.error
        return self.model


@dataclass(eq=False)
class Batch:
    """Fits to given samples, and what they share: transformers, checked samples, and samples as networks see them.
    params: of fit()."""

    X: Any
    y: Any
    params: Mapping[str, Any]
    rows: Sequence[Array]  # row numbers of each fold, to train on
    raws: dict[Any, tuple[list[Any], Raw]] = field(default_factory=dict)
    samples: dict[Any, Samples] = field(default_factory=dict)
    tables: dict[Any, dict[Any, Table]] = field(default_factory=dict)

    def run(self, fits: Sequence[Fit]) -> None:
        """Fit all, together where possible. Raises ValueError for a parameter that an estimator lacks."""
        for fit in fits:
            fit.model.set_params(**clone(fit.params, safe=False))
        for fit in fits:
            _guarded(fit, self._prepare)
        together = {fit: fit.job for fit in fits if fit.job is not None}
        for (fit, job), outcome in zip(together.items(), jobs.train([*together.values()])):
            if isinstance(outcome, GpubpError):
                fit.reason = str(outcome)
            else:
                fit.networks._adopt(job.samples, outcome)
                fit.seconds += outcome.seconds
        alone = [fit for fit in fits if fit.reason is not None]
        if alone:
            warnings.warn(f"{len(alone)} of {len(fits)} fits train one by one: {alone[0].reason}", stacklevel=2)
        for fit in alone:
            _guarded(fit, self._fit_alone)

    def _prepare(self, fit: Fit) -> None:
        """Set fit.job, or the reason for having none."""
        networks = fit.networks
        if isinstance(networks, Pipeline):
            fit.reason = "the last step of the Pipeline is a Pipeline: one Pipeline with all their steps expected"
            return
        if not isinstance(networks, Networks):
            fit.reason = f"{type(networks).__name__} is no estimator of gpubp.sklearn, and no Pipeline that ends in one"
            return
        given = self._given(fit)
        weight = given.pop(f"{fit.last}sample_weight", None)
        if given:
            fit.reason = f"fit() has parameters besides {fit.last}sample_weight: {', '.join(given)}"
        else:
            split, seed = networks._seeds()
            raw = self._raw(fit, weight)
            rows = self.rows[fit.fold] if fit.head is None else np.arange(len(raw.inputs))
            key = fit.head, fit.fold, networks._shape(split), weight is None
            if key not in self.samples:
                known = self.tables.setdefault(fit.head, {})
                self.samples[key] = networks._encoded(raw, rows, split, known=known)
            fit.job = networks._job(self.samples[key], seed, record=False)

    def _given(self, fit: Fit) -> dict[str, Any]:
        """The parameters of fit(), in a Pipeline with the name of their step: step__name."""
        if not (fit.last and self.params and get_config()["enable_metadata_routing"]):
            return {**self.params}
        steps = process_routing(fit.model, "fit", **self.params).items()
        return {f"{step}__{name}": each for step, of in steps for some in of.values() for name, each in some.items()}

    def _raw(self, fit: Fit, weight: Any) -> Raw:
        """The samples as they reach the networks: all of them, or, after transformers, only those to train on."""
        key = type(fit.networks), fit.head, weight is None
        if key not in self.raws:
            if fit.head is None:
                self.raws[key] = [], fit.networks._raw(self.X, self.y, weight)
            else:
                X, y, weight = (
                    None if each is None else _safe_indexing(each, self.rows[fit.fold])
                    for each in (self.X, self.y, weight)
                )
                head = fit.model[:-1]
                X = head.fit_transform(X, y)
                self.raws[key] = head.steps, fit.networks._raw(X, y, weight)
        steps, raw = self.raws[key]
        if steps:
            fit.model.steps[:-1] = steps
        return raw

    def _fit_alone(self, fit: Fit) -> None:
        rows = self.rows[fit.fold]
        params = _check_method_params(self.X, params=self.params, indices=rows)
        y = () if self.y is None else (_safe_indexing(self.y, rows),)
        fit.model.fit(_safe_indexing(self.X, rows), *y, **params)


def _guarded(fit: Fit, step: Callable[[Fit], None]) -> None:
    """Run a step of a fit, and note its time and any error."""
    begun = time.perf_counter()
    try:
        step(fit)
    except Exception as error:
        fit.error, fit.reason = error, None
    fit.seconds += time.perf_counter() - begun


class Ahead:
    """Takes the place of `estimator` in a search; errors still name the estimator."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.fits: Iterator[Fit] = iter(())
        self.seconds: list[float] = []

    def train(self, settings: Sequence[Mapping[str, Any]], X: Any, y: Any, params: Any, rows: Sequence[Array]) -> None:
        """Fit all settings to the rows of all folds, to be handed out in this order."""
        fits = [Fit(clone(self.estimator), each, fold) for each in settings for fold in range(len(rows))]
        Batch(X, y, params, rows).run(fits)
        self.fits = iter(fits)
        self.seconds += [fit.seconds for fit in fits]

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.estimator)

    def __repr__(self) -> str:
        return repr(self.estimator)

    def __sklearn_clone__(self) -> Any:
        return self

    def set_params(self, **params: Any) -> Any:
        """The next estimator, fitted; after the last one, a new one."""
        fit = next(self.fits, None)
        if fit is None:
            return clone(self.estimator).set_params(**params)
        assert fit.params.keys() == params.keys()
        fit.model.fit = fit.replay
        return fit.model

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["estimator"], name)
