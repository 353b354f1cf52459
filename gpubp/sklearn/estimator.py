"""Networks: what the estimators share: from samples to jobs (jobs.py), trained networks and predictions.

Subclasses say what targets are (targets.py), and which networks their parameters describe (`_rows`). Random numbers
come from random_state in one draw per fit: for the early-stopping samples, and for the networks.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..errors import GpubpError
from ..line import counted
from ..maths.spec import NetworkSpec
from ..population import DTYPES
from ..populations import Populations
from ..reporters.console import ConsoleReporter
from ..results.model import Model
from ..system.arrays import Array
from ..system.threads import one_thread
from . import jobs
from .encoding import (
    Raw,
    balanced,
    dense,
    divided,
    equal,
    labels_or_matrix,
    named,
    of_fit,
    scaled,
    scaler,
    stratifies,
    tensor,
)
from .jobs import Job, Samples, Table, Trained, specified

SEEDS = 2**31 - 1
FEW = 1 << 26  # products of a prediction that is faster in one thread
READ: Mapping[str, Any] = {"accept_sparse": ("csr", "csc"), "dtype": [np.float64, np.float32]}
NAMED = {"X": "input_scaler_", "y": "target_scaler_"}
AUTO, ENOUGH = "auto", 200  # of early_stopping: with this many samples, some are held out
DECIDING = ("patience", "min_delta", "tol", "monitor", "restore_best")  # settings of early stopping


class Networks(BaseEstimator):  # type: ignore[misc]
    """Fit, partial_fit and predictions of networks; abstract."""

    _shaping: ClassVar[tuple[str, ...]] = ("dtype", "early_stopping", "validation_fraction")

    def _keep(self, given: dict[str, Any]) -> None:
        """Every parameter under its own name, as scikit-learn expects. given: the locals of __init__."""
        self.__dict__.update((name, value) for name, value in given.items() if name != "self")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the networks on X (M, features) and y (M,) or (M, outputs). With warm_start, a further call continues
        their training. Raises ValueError for invalid parameters and samples, before any training."""
        return self._train(X, y, sample_weight, bool(self.warm_start) and self.__sklearn_is_fitted__())

    def _pass(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        """One epoch, with the networks as they are."""
        if self.early_stopping and self.early_stopping != AUTO:
            raise ValueError("partial_fit does not support early_stopping=True")
        return self._train(X, y, sample_weight, self.__sklearn_is_fitted__(), classes, epochs=1)

    def _train(
        self, X: Any, y: Any, sample_weight: Any, again: bool, classes: Any = None, epochs: int | None = None
    ) -> Self:
        seeds = self._seeds()
        raw = self._raw(X, y, sample_weight, again)
        samples = self._encoded(raw, np.arange(len(raw.inputs)), seeds[0], again, classes, hold_out=epochs is None)
        (trained,) = jobs.train([self._job(samples, seeds[1], again, epochs)])
        if isinstance(trained, GpubpError):
            raise trained
        self._optimizers = [] if epochs is None else trained.states
        return self._adopt(samples, trained, again)

    def _seeds(self) -> tuple[int, int]:
        """The seeds of the early-stopping samples, and of the networks. Raises ValueError for invalid parameters."""
        self._validate_params()
        split, networks = check_random_state(self.random_state).randint(SEEDS, size=2).tolist()
        return split, networks

    def _raw(self, X: Any, y: Any, sample_weight: Any, again: bool = False) -> Raw:
        """Checked samples. again: they must have the features of earlier ones."""
        numbers, names = isinstance(self, RegressorMixin), named(X)
        X, y = validate_data(self, X, y, reset=not again, multi_output=True, y_numeric=numbers, **READ)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        seen = {name: getattr(self, name) for name in ("n_features_in_", "feature_names_in_") if hasattr(self, name)}
        return Raw(dense(X), labels_or_matrix(y), sample_weight, seen if again else seen | {"_names": names})

    def _shape(self, seed: int) -> tuple[Any, ...]:
        """All that _encoded() depends on, besides the samples and their rows."""
        given = [getattr(self, name, None) for name in self._shaping]
        return type(self), repr(given), seed if self.early_stopping else None

    def _encoded(
        self, raw: Raw, rows: Array, seed: int, again: bool = False, classes: Any = None,
        known: dict[Any, Table] | None = None, hold_out: bool = True,
    ) -> Samples:  # fmt: skip
        """The `rows` of the samples as the networks see them. known: tables of these samples, encoded for any rows.
        hold_out: whether some may be held out for early stopping."""
        fitted, strata = self._known(raw.targets[rows], again, classes)
        weight = balanced(raw, rows, getattr(self, "class_weight", None))
        train, held_out = rows, None
        present = slice(None) if weight is None else weight[rows] > 0
        if hold_out and self._holds_out(rows[present], None if strata is None else strata[present]):
            train, held_out = divided(rows, self.validation_fraction, strata, seed)
        if weight is not None and not weight[train].any():
            raise ValueError("sample_weight is 0 for all samples; one or more above 0 expected")
        values = {"input_scaler_": raw.inputs, "target_scaler_": self._targets(raw.targets, fitted)}
        scalers = {
            name: getattr(self, name) if again and hasattr(self, name) else scaler(of, values[name], train, weight)
            for of, name in NAMED.items()
            if name in self._scaled()
        }
        own = rows.tobytes() if scalers or weight is not raw.weight else b""
        key = own, repr([each.tolist() if isinstance(each, np.ndarray) else each for each in fitted.values()])
        key += self._shape(seed)
        table = None if known is None else known.get(key)
        if table is None:
            values |= {name: scaled(values[name], each) for name, each in scalers.items()}
            inputs, targets = (tensor(name, values[each], DTYPES[self.dtype]) for name, each in NAMED.items())
            table = Table(inputs, targets, None if weight is None else tensor("weight", weight, torch.float64))
            if known is not None:
                known[key] = table
        others = None if held_out is None else torch.from_numpy(held_out)
        return Samples(table, torch.from_numpy(train), others, {**raw.seen, **fitted, **scalers})

    def _holds_out(self, rows: Array, strata: Array | None) -> bool:
        """Whether some of these rows are held out for early stopping."""
        if self.early_stopping != AUTO:
            return bool(self.early_stopping)
        return len(rows) >= ENOUGH and (strata is None or stratifies(strata, self.validation_fraction))

    def _scaled(self) -> Iterator[str]:
        """The names of the scalers that the parameters select."""
        yield from ()

    def _job(
        self, samples: Samples, seed: int, again: bool = False, epochs: int | None = None, record: bool = True
    ) -> Job:
        """The networks that the parameters describe, to be trained on `samples`; for `epochs`, if given. record:
        whether every epoch is in the history."""
        widths, training = (samples.table.inputs.shape[1], samples.fitted["n_outputs_"]), len(samples.rows)
        rows = [*map(dict, self._rows(widths, samples, seed))]
        names = np.random.RandomState(seed).randint(SEEDS, size=len(rows)).tolist()
        for row, name in zip(rows, names):
            row |= {"seed": name, "batch_size": equal(row["batch_size"], training)}
            row |= {"evaluate_every": 1} if record else {}
            if epochs is not None:
                row["epochs"] = epochs
                for each in DECIDING:
                    row.pop(each, None)
        start = self._start(rows) if again else None
        reporters = [ConsoleReporter()] if self.verbose else []
        later = self.t_ % SEEDS if again else 0
        states = getattr(self, "_optimizers", ()) if again and epochs is not None else ()
        return Job(samples, rows, DTYPES[self.dtype], self.engine, self.device, reporters, start, states, later)

    def _start(self, rows: Sequence[Mapping[str, Any]]) -> Populations:
        """The present networks. Raises ValueError unless `rows` describe their topologies."""
        given = self._populations
        specs = [part.population.spec for row in range(given.count) for part in given.parts(torch.tensor([row]))]
        if [spec.layout for spec in specs] != [NetworkSpec(**specified(row)).layout for row in rows]:
            raise ValueError("warm_start and partial_fit: the topology has changed; fit with warm_start=False")
        return given

    def _adopt(self, samples: Samples, trained: Trained, again: bool = False) -> Self:
        """Become the estimator of these networks."""
        for name in {*NAMED.values()} & {*vars(self)}:  # left by an earlier fit: this one may have none
            delattr(self, name)
        for name, value in samples.fitted.items():
            setattr(self, name, value)
        self._populations, self._results = trained.populations, trained.results
        self.n_iter_ = int(trained.epochs.max())
        before, seen = (self.history_, self.t_) if again else ([], 0)
        self.t_: int = seen + self.n_iter_ * len(samples.rows)
        self.history_: list[dict[str, Any]] = [*before, *trained.history]
        self.loss_curve_ = [record["loss"].get("median", float("nan")) for record in self.history_]
        self.losses_ = trained.loss.double().numpy()
        good, count = trained.best, len(trained.loss)
        if bad := count - len(good):
            given = {"inputs": "input_scaler_"} | (
                {"targets": "target_scaler_"} if isinstance(self, RegressorMixin) else {}
            )
            bare = " and ".join(what for what, name in given.items() if not hasattr(self, name))
            warnings.warn(
                f"{bad} of {counted(count, 'network')} diverged and "
                f"{'keeps its' if bad == 1 else 'keep their'} last finite weights: lower the learning rate"
                + (f", or scale {bare}" if bare else ""),
                ConvergenceWarning,
                stacklevel=4,
            )
        best = good if len(good) else torch.arange(count)
        self.members_ = best[: self._count(len(best))].numpy()
        self._ended(trained)
        return self

    def _ended(self, trained: Trained) -> None:
        """Set the attributes that only some estimators have."""

    def _count(self, most: int) -> int:
        """How many of `most` networks predict."""
        return most

    def _expected(self, X: Any, each: bool = False) -> Array:
        """Expected targets: the mean over the networks that predict (M, O), or of each (K, M, O); float64."""
        check_is_fitted(self)
        inputs = dense(validate_data(self, X, reset=False, **READ))
        if hasattr(self, "input_scaler_"):
            inputs = scaled(inputs, self.input_scaler_)
        bare = Model(self._populations)
        how = bare.predict_proba if bare.classes else bare.predict
        size = max(population.spec.size for population in self._populations.each)
        with one_thread() if len(inputs) * len(self.members_) * size < FEW else nullcontext():
            return np.asarray(how(tensor("X", inputs, DTYPES[self.dtype]), networks=self.members_.tolist(), each=each))

    @property
    def model_(self) -> Model:
        """All networks on raw samples, with the names, scaling and labels of the fit."""
        check_is_fitted(self)
        names = self._names or [f"x{number}" for number in range(self.n_features_in_)]
        inputs, targets = (getattr(self, name, None) for name in NAMED.values())
        preparation = of_fit(names, inputs, self.n_outputs_, targets, *self._task)
        return Model(self._populations, preparation, self._results)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_populations")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
