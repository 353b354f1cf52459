"""Classes and Numbers: networks whose targets are labels, or numbers: how both are encoded and predicted."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from ..system.arrays import Array
from .encoding import Labels
from .estimator import Networks
from .jobs import Samples


class Classes(ClassifierMixin, Networks):  # type: ignore[misc]
    """Networks whose targets are labels."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One epoch, with the optimizer's memory of the call before. classes: all labels, needed in the first call;
        scaling stays that of the first call."""
        again = self.__sklearn_is_fitted__()
        if not again and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if again and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit: {self.classes_!r}")
        return self._pass(X, y, sample_weight, classes)

    def predict(self, X: Any) -> Array:
        """The labels (M,), or 0 and 1 (M, outputs)."""
        expected = self._expected(X)
        if self.y_type_ == "multilabel-indicator":
            return (expected > 0.5).astype(int)
        places = (expected[:, 0] > 0.5).astype(int) if self.y_type_ == "binary" else expected.argmax(1)
        return np.asarray(self.classes_[places])

    def predict_proba(self, X: Any, return_std: bool = False) -> Any:
        """The probabilities (M, classes) in the order of classes_: the mean over the networks that predict; with
        return_std also their standard deviation."""
        expected = self._expected(X, return_std)
        if self.y_type_ == "binary":
            expected = np.concatenate([1 - expected, expected], -1)
        return (expected.mean(0), expected.std(0)) if return_std else expected

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of predict_proba()."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))

    @property
    def _task(self) -> tuple[str, tuple[Any, ...]]:
        """The task of a Preparation, and its labels."""
        if self.y_type_ == "multilabel-indicator":
            return "numbers", ()
        labels = [int(each) if isinstance(each, float) else each for each in self.classes_.tolist()]
        return {"binary": "binary", "multiclass": "classes"}[self.y_type_], tuple(labels)

    def _known(self, y: Array, again: bool, classes: Any) -> tuple[dict[str, Any], Array | None]:
        """What a fit knows about its labels, and what to stratify by."""
        labels = Labels.of(y, self.classes_ if again else classes)
        fitted = {"classes_": labels.classes, "y_type_": labels.kind, "n_outputs_": labels.outputs}
        return fitted, y if y.ndim == 1 else None

    def _targets(self, y: Array, fitted: Mapping[str, Any]) -> Array:
        return Labels(fitted["classes_"], fitted["y_type_"]).encoded(y)

    def _entropy(self, samples: Samples) -> str:
        """The loss."""
        return "cross_entropy" if samples.fitted["y_type_"] == "multiclass" else "binary_cross_entropy"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class Numbers(RegressorMixin, Networks):  # type: ignore[misc]
    """Networks whose targets are numbers."""

    _task = "numbers", ()

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One epoch, with the optimizer's memory of the call before. Scaling stays that of the first call."""
        return self._pass(X, y, sample_weight)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The numbers (M,) or (M, outputs): the mean over the networks that predict; with return_std also their
        standard deviation."""
        expected = self._expected(X, return_std)
        if hasattr(self, "target_scaler_"):
            expected = expected * self.target_scaler_.scale_ + self.target_scaler_.mean_
        expected = expected[..., 0] if self.flat_ else expected
        return (expected.mean(0), expected.std(0)) if return_std else expected

    def _known(self, y: Array, again: bool, classes: Any) -> tuple[dict[str, Any], Array | None]:
        """Whether predictions are (M,), and how many numbers a target has. Raises ValueError if that has changed."""
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if again and outputs != self.n_outputs_:
            raise ValueError(f"y has {outputs} numbers per sample; {self.n_outputs_} expected, as in the first call")
        return {"flat_": y.ndim == 1, "n_outputs_": outputs}, None

    def _targets(self, y: Array, fitted: Mapping[str, Any]) -> Array:
        return np.asarray(y, dtype=float).reshape(len(y), -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
