"""MLPClassifier and MLPRegressor with scikit-learn's parameters, trained by gpubp: one network each; PopulationSearchCV
trains those of all its settings together."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ..errors import ConfigError
from ..maths.schedules import SCHEDULES, Schedule
from ..population import DTYPES
from ..runs.cells import EXTRA
from ..state import Status
from .encoding import equal, layers
from .estimator import Networks
from .jobs import Samples, Trained
from .targets import Classes, Numbers

ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
BATCH = 200  # of batch_size="auto"
DTYPE = {"dtype": [StrOptions({*DTYPES})]}

DOCUMENT = """
    Parameters and attributes are those of sklearn.neural_network.{name}, with these differences:

    - solver="lbfgs", labels of a single class and negative sample weights are refused. Sparse matrices are made dense.
      partial_fit takes classes before sample_weight, and predictions are float64.
    - Random numbers are gpubp's, so weights differ for the same random_state; biases start at 0.
    - dtype: networks train in float32; "float64" is slower. engine, device: as in PopulationClassifier.
    - An epoch has as many minibatches, but of equal size; if they do not divide the samples, the last one extends into
      the next epoch.
    - Adam's epsilon is added after the bias correction, as in its paper's algorithm and in torch.
    - alpha is divided by the batch size, as in scikit-learn, whatever the samples weigh.
    - loss_curve_ has the sum of squared errors over several outputs, not their mean, and for poisson lacks the term of
      the targets alone. validation_scores_, by which early_stopping goes, has the mean accuracy over several labels,
      not that of all at once; if an output's held-out targets are all equal, it has NaN, where scikit-learn has 0 or 1,
      and training does not stop early.
    - learning_rate="adaptive" divides the rate by 5 when the loss, also with early_stopping, has not fallen by a
      fraction of tol, to 1e-6 at the least, where scikit-learn ends the training.
    - With momentum, a changed learning rate applies to all of the velocity at once, as in torch.
    - warm_start and partial_fit keep the weights, partial_fit the optimizer's memory too; the learning rate's schedule
      and the epochs without a better figure start anew in each call.
    - model_ is a gpubp.Model on raw samples: model_.export("network.onnx", [0]).
    """


def invscaling(lr: Tensor, step: Tensor, total: Tensor, power_t: Tensor, batch: Tensor, samples: Tensor) -> Tensor:
    """scikit-learn's: lr / (t + 1)^power_t, where t counts the samples of all finished epochs."""
    ended = torch.floor(step * batch / samples) * samples
    return lr * torch.exp(-power_t * torch.log(ended + 1))


INVSCALING = SCHEDULES.name(
    Schedule(invscaling, {"power_t": 0.5, "batch": 1.0, "samples": 1.0}), "schedule", ConfigError
)


def _averaged(loss: str, outputs: int) -> int:
    """The number of outputs, if scikit-learn's loss is a sum over outputs and ours the mean; else 1."""
    return outputs if loss in ("binary_cross_entropy", "poisson") else 1


class _MLP(Networks):
    """What both estimators share."""

    def _rows(self, widths: tuple[int, int], samples: Samples, seed: int) -> Iterator[Mapping[str, Any]]:
        if self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' works on the whole data and is not available; 'adam' or 'sgd' expected")
        sizes, batch = layers(self.hidden_layer_sizes), self._batch(len(samples.rows))
        loss = self._loss(samples)
        outputs = _averaged(loss, widths[1])
        row = {
            "widths": (widths[0], *sizes, widths[1]), "hidden": ACTIVATIONS[self.activation], "loss": loss,
            "init_scale": math.sqrt(1 / 3) if self.activation == "logistic" else 1.0,
            "l2": self.alpha / batch / outputs, "lr": float(self.learning_rate_init),
            "batch_size": batch, "epochs": self.max_iter, "shuffle": "network" if self.shuffle else "none",
            "monitor": "metric" if self.early_stopping else "loss", "restore_best": self.early_stopping,
        }  # fmt: skip
        yield row | self._optimizer(batch, len(samples.rows), outputs) | self._ending(loss, widths[1])

    def _optimizer(self, batch: int, training: int, outputs: int) -> dict[str, Any]:
        if self.solver == "adam":
            return {"optimizer": "adam", "beta1": self.beta_1, "beta2": self.beta_2, "eps": self.epsilon / outputs}
        nesterov = self.nesterovs_momentum and self.momentum > 0
        chosen = {
            "optimizer": "nesterov" if nesterov else "momentum", "momentum": self.momentum,
            "lr": self.learning_rate_init * outputs,
        }  # fmt: skip
        if self.learning_rate == "invscaling":
            own = {"power_t": self.power_t, "batch": batch, "samples": training}
            return chosen | {"schedule": INVSCALING} | {EXTRA + name: float(value) for name, value in own.items()}
        if self.learning_rate == "adaptive":
            return chosen | {
                "schedule": "plateau", "plateau_factor": 0.2, "plateau_patience": self._waits,
                "plateau_threshold": self.tol, "plateau_min_lr": 1e-6 * outputs,
            }  # fmt: skip
        return chosen

    @property
    def _waits(self) -> int | None:
        """Epochs without a better loss; scikit-learn's n_iter_no_change may be infinite."""
        return None if math.isinf(self.n_iter_no_change) else int(self.n_iter_no_change)

    def _ending(self, loss: str, outputs: int) -> dict[str, Any]:
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        if adaptive or self._waits is None or self._waits >= self.max_iter:
            return {}
        if self.early_stopping:
            return {"patience": self._waits + 1, "tol": self.tol}
        summed = loss == "half_squared_error"  # over outputs, where scikit-learn's curve has the mean
        tol = self.tol * outputs if summed else self.tol / _averaged(loss, outputs)
        return {"patience": self._waits + 1, "tol": tol}

    def _batch(self, training: int) -> int:
        if self.batch_size == "auto":
            return equal(BATCH, training)
        if self.batch_size > training:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
            )
        return equal(self.batch_size, training)

    def _ended(self, trained: Trained) -> None:
        (population,) = trained.populations.each
        layers = population.spec.layers(population.params)
        self.coefs_ = [weight[0].double().numpy() for weight, _ in layers]
        self.intercepts_ = [bias[0].double().numpy() for _, bias in layers]
        self.n_layers_ = len(layers) + 1
        outputs = _averaged(population.spec.loss, population.spec.widths[-1])
        self.loss_curve_ = [outputs * loss for loss in self.loss_curve_]
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
        self.validation_scores_ = self.best_validation_score_ = None
        if self.early_stopping:
            self.validation_scores_ = [record["metric"].get("median", float("nan")) for record in self.history_]
            self.best_validation_score_ = max(self.validation_scores_)
        if bool((trained.status == Status.finished).any()) and self.n_iter_ == self.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=2,
            )

    @property
    def out_activation_(self) -> str:
        """The activation of the output that predicts."""
        check_is_fitted(self)
        return {"binary_cross_entropy": "logistic", "cross_entropy": "softmax", "poisson": "exp"}.get(
            self._populations.only.spec.loss, "identity"
        )


class MLPClassifier(Classes, _MLP):  # noqa: D101
    __doc__ = "scikit-learn's MLPClassifier, trained by gpubp.\n" + DOCUMENT.format(name="MLPClassifier")
    _parameter_constraints: ClassVar[dict[str, Any]] = neural_network.MLPClassifier._parameter_constraints | DTYPE

    def __init__(
        self, hidden_layer_sizes: Any = (100,), activation: Any = "relu", *, solver: Any = "adam", alpha: Any = 0.0001,
        batch_size: Any = "auto", learning_rate: Any = "constant", learning_rate_init: Any = 0.001,
        power_t: Any = 0.5, max_iter: Any = 200, shuffle: Any = True, random_state: Any = None, tol: Any = 1e-4,
        verbose: Any = False, warm_start: Any = False, momentum: Any = 0.9, nesterovs_momentum: Any = True,
        early_stopping: Any = False, validation_fraction: Any = 0.1, beta_1: Any = 0.9, beta_2: Any = 0.999,
        epsilon: Any = 1e-8, n_iter_no_change: Any = 10, max_fun: Any = 15000,
        dtype: Any = "float32", device: Any = "cpu", engine: Any = "auto",
    ) -> None:  # fmt: skip
        self._keep(locals())

    _loss = Classes._entropy


class MLPRegressor(Numbers, _MLP):  # noqa: D101
    __doc__ = "scikit-learn's MLPRegressor, trained by gpubp.\n" + DOCUMENT.format(name="MLPRegressor")
    _parameter_constraints: ClassVar[dict[str, Any]] = neural_network.MLPRegressor._parameter_constraints | DTYPE

    def __init__(
        self, loss: Any = "squared_error", hidden_layer_sizes: Any = (100,), activation: Any = "relu", *,
        solver: Any = "adam", alpha: Any = 0.0001, batch_size: Any = "auto", learning_rate: Any = "constant",
        learning_rate_init: Any = 0.001, power_t: Any = 0.5, max_iter: Any = 200, shuffle: Any = True,
        random_state: Any = None, tol: Any = 1e-4, verbose: Any = False, warm_start: Any = False, momentum: Any = 0.9,
        nesterovs_momentum: Any = True, early_stopping: Any = False, validation_fraction: Any = 0.1,
        beta_1: Any = 0.9, beta_2: Any = 0.999, epsilon: Any = 1e-8, n_iter_no_change: Any = 10, max_fun: Any = 15000,
        dtype: Any = "float32", device: Any = "cpu", engine: Any = "auto",
    ) -> None:  # fmt: skip
        self._keep(locals())

    def _loss(self, samples: Samples) -> str:
        return {"squared_error": "half_squared_error", "poisson": "poisson"}[self.loss]
