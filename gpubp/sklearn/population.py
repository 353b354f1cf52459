"""PopulationClassifier and PopulationRegressor: an ensemble of networks, or the best of them, as one estimator."""

import copy
import warnings
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..errors import ConfigError, unknown
from ..maths.losses import LOSSES
from ..maths.optimizers import Optimizer
from ..maths.schedules import Schedule
from ..population import DTYPES
from ..runs.cells import NUMBERS, TABLES
from ..runs.design import TRAINING
from ..search import sample, shortfall
from .encoding import layers
from .estimator import AUTO, Networks
from .jobs import Samples, Trained
from .targets import Classes, Numbers

OWN = ("evaluate_every", "class_weight", "steps")  # decided by other parameters
FURTHER = (*(name for name in TRAINING if name not in OWN), "init_scale", "output", "bias", "train_bias")
NEEDED = ("activation", "optimizer", "lr", "schedule", "batch_size", "epochs", "init")
MANY = (*NEEDED[1:], "weight_decay", "dropout", "label_smoothing")

DOCUMENT = """
    Every network is trained on all samples, by gpubp.train_many, in one run. A parameter of a network may be one value
    for all, a list or an array of alternatives, dealt to the networks as a grid, or for numbers a range such as
    "1e-4..1e-2:log", sampled by Sobol points, each tried with the whole grid: if alternatives make 8 combinations, 16
    networks try all of them at two points of each range. With fewer networks, a warning says what is left out. {kind}

    Parameters
    ----------
    n_networks : number of networks.
    hidden_layer_sizes : widths of the hidden layers, (64, 32); alternatives: [(64,), (64, 32)].
    activation : of the hidden layers, a row of gpubp.ACTIVATIONS; alternatives: a list.
    ensemble : which networks predict: "all" that did not diverge, "best", or a number K for the best K, by the loss on
        the early-stopping samples with early_stopping, otherwise on the training samples.{loss}
    optimizer, lr, schedule, weight_decay, dropout, batch_size, epochs, init : as in gpubp.TrainConfig and
        gpubp.Population.create, alternatives or ranges too; None is the optimizer's default. Batches are made equal:
        with 100 samples, batch_size 64 gives two of 50.
    settings : further settings of a gpubp.TrainConfig by name, such as {{"clip_norm": 1.0, "warmup": 100}}.
    scale_inputs : whether each column is scaled to mean 0 and standard deviation 1 over the training samples.{scaling}
    early_stopping : whether validation_fraction of the samples{stratified} are held out: with "auto" from 200 samples
        on, and never in partial_fit. A network then stops after n_iter_no_change epochs (None: never) in which their
        loss (with settings {{"monitor": "metric"}} their accuracy or R2) is not better than its best by tol, and keeps
        the weights of its best epoch. Otherwise the mean loss of an epoch's minibatches decides, and the last weights
        stay.
    warm_start : whether fit() continues training; scaling stays that of the first call.
    random_state, verbose : as in scikit-learn; verbose shows progress.
    dtype : "float32" or "float64". device, engine : as in gpubp.train_many.

    Attributes
    ----------
    {classes}n_features_in_, feature_names_in_, n_outputs_ : as in scikit-learn. n_iter_ : the most epochs.
    model_ : gpubp.Model with all networks and the scaling, for raw samples: model_.export("networks.onnx", 5).
    members_ : the rows of the networks that predict, best first.
    losses_ : (n_networks,), which rank the networks. history_ : a record per epoch, quantiles over the networks.
    loss_curve_ : the median network's loss, by epoch. estimators_ : an estimator for each network that
        predicts; its history_ and loss_curve_ begin with its own further training.
    """


class _Population(Networks):
    """What both estimators share."""

    _shaping: ClassVar[tuple[str, ...]] = (*Networks._shaping, "scale_inputs", "scale_targets", "class_weight", "loss")
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_networks": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "ensemble": [StrOptions({"all", "best"}), Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "settings": [dict, None],
        "scale_inputs": ["boolean"],
        "early_stopping": ["boolean", StrOptions({AUTO})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "dtype": [StrOptions({*DTYPES})],
    }

    def _rows(self, widths: tuple[int, int], samples: Samples, seed: int) -> Iterator[Mapping[str, Any]]:
        common = {"loss": self._loss(samples)}
        if self.n_iter_no_change is not None:
            common |= {"patience": self.n_iter_no_change, "min_delta": self.tol}
        if samples.held_out is not None:
            common["restore_best"] = True
        if missing := [name for name in NEEDED if getattr(self, name) is None]:
            raise ValueError(f"{missing[0]} is None; a value, a list of alternatives or a range expected")
        given = {name: getattr(self, name) for name in MANY if getattr(self, name, None) is not None}
        given |= {"activation": self.activation, **(self.settings or {})}
        for name, value in (self.settings or {}).items():
            if name == "steps":
                raise ValueError(f"settings: steps {value}: epochs, a parameter of its own, says how long it trains")
            if name not in FURTHER:
                raise ValueError(unknown("settings:", name, FURTHER))
            if name in self._get_param_names():
                raise ValueError(
                    f"settings: {name} is a parameter of its own: {name}={value!r} beside settings expected"
                )
        given = {name: _checked(name, value) for name, value in given.items()}
        ranges = {name: value for name, value in given.items() if _several(value) and isinstance(value, str)}
        for name, value in given.items():
            texts = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
            if texts and name in NUMBERS and name not in ranges:
                raise ValueError(f"{name} {value!r}: a number, a list of numbers, or a range LOW..HIGH, expected")
        choices = {name: value for name, value in given.items() if isinstance(value, list)}
        choices["hidden_layer_sizes"] = _topologies(self.hidden_layer_sizes)
        if told := shortfall(ranges, self.n_networks, choices):
            warnings.warn(told, stacklevel=5)
        cells = sample(ranges, self.n_networks, seed, choices)
        fixed = {name: value for name, value in given.items() if name not in cells}
        for number in range(self.n_networks):
            own = {name: each[number] for name, each in cells.items()}
            own = {
                name: each.item() if isinstance(each, torch.Tensor | np.generic) else each for name, each in own.items()
            }
            hidden, row = own.pop("hidden_layer_sizes"), common | fixed | own
            yield row | {"hidden": row.pop("activation"), "widths": (widths[0], *hidden, widths[1])}

    def _scaled(self) -> Iterator[str]:
        if self.scale_inputs:
            yield "input_scaler_"
        if getattr(self, "scale_targets", False) and LOSSES[self.loss].takes == "number":
            yield "target_scaler_"

    def _count(self, most: int) -> int:
        return {"all": most, "best": 1}.get(self.ensemble) or min(int(self.ensemble), most)

    @property
    def estimators_(self) -> list[Any]:
        """An estimator for each network that predicts, best first, with that network's own parameters: its fit() trains
        such a network."""
        check_is_fitted(self)
        return [self._alone(int(row)) for row in self.members_]

    def _alone(self, row: int) -> Any:
        one, network = copy.copy(self), self._populations.take(torch.tensor([row]))
        one._populations = network
        one._results = self._results.take([row])  # a slice would be stored with all rows
        one.members_, one.losses_, one._own, one._optimizers = np.array([0]), self.losses_[[row]], [{}], []
        one.n_iter_, one._epochs, one.history_, one.loss_curve_ = self._epochs[row], [self._epochs[row]], [], []
        own = {"activation" if name == "hidden" else name: value for name, value in self._own[row].items()}
        further = {name: own.pop(name) for name in self.settings or {} if name in own}
        own |= {"settings": {**self.settings, **further}} if further else {}
        return one.set_params(n_networks=1, hidden_layer_sizes=network.only.spec.widths[1:-1], **own)

    def _ended(self, trained: Trained) -> None:
        """Keep each network's values of the parameters that have several."""
        given = {"hidden": self.activation, **{name: getattr(self, name, None) for name in MANY}}
        own = [name for name, value in (given | (self.settings or {})).items() if _several(value)]
        self._epochs = trained.epochs.tolist()
        self._own = [{name: row[name] for name in own if name in row} for row in trained.rows]


def _several(value: Any) -> bool:
    """Whether the value is a list of alternatives or a range."""
    return isinstance(value, list | np.ndarray) or (isinstance(value, str) and ".." in value)


def _checked(name: str, value: Any) -> Any:
    """A parameter's value, or the list of its alternatives. Raises ValueError for anything else."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return [_one(name, each) for each in value] if isinstance(value, list) else _one(name, value)


def _one(name: str, value: Any) -> Any:
    """A value; for a rule, its name."""
    if name in TABLES and isinstance(value, Optimizer | Schedule):
        return TABLES[name].name(value, name, ConfigError)
    try:
        hash(value)
    except TypeError:
        raise ValueError(
            f"{name} {value!r}: one value, a list or array (K,) of alternatives, or a range, expected"
        ) from None
    return value


def _topologies(sizes: Any) -> list[tuple[int, ...]]:
    """Alternatives of hidden layers: a single one, or each item of a sequence of sequences."""
    several = isinstance(sizes, list | tuple | np.ndarray) and any(np.ndim(each) for each in sizes)
    return [layers(each) for each in (sizes if several else [sizes])]


class PopulationClassifier(Classes, _Population):  # noqa: D101
    __doc__ = "An ensemble of networks that predict labels, or the best of many.\n" + DOCUMENT.format(
        kind="Two classes train by binary\n    cross-entropy, more by cross-entropy, and y may be a matrix of 0 and 1.",
        loss="\n    label_smoothing : of more than two classes; a number, alternatives, or a range.",
        scaling='\n    class_weight : as in scikit-learn: None, "balanced", or weights by label.',
        stratified=", stratified by class,",
        classes="classes_, ",
    )

    def __init__(
        self, n_networks: Any = 16, hidden_layer_sizes: Any = (64, 64), activation: Any = "relu", *,
        ensemble: Any = "all", optimizer: Any = "adam", lr: Any = 3e-3, schedule: Any = "constant",
        weight_decay: Any = None, dropout: Any = None, label_smoothing: Any = None, batch_size: Any = 64,
        epochs: Any = 300, init: Any = "glorot_uniform", settings: Any = None, scale_inputs: Any = True,
        class_weight: Any = None, early_stopping: Any = "auto", validation_fraction: Any = 0.1,
        n_iter_no_change: Any = 20, tol: Any = 1e-4, warm_start: Any = False, random_state: Any = None,
        verbose: Any = False, dtype: Any = "float32", device: Any = "cpu", engine: Any = "auto",
    ) -> None:  # fmt: skip
        self._keep(locals())

    _loss = Classes._entropy


class PopulationRegressor(Numbers, _Population):  # noqa: D101
    __doc__ = "An ensemble of networks that predict numbers, or the best of many.\n" + DOCUMENT.format(
        kind="y may have several columns.",
        loss='\n    loss : a row of gpubp.LOSSES for numbers, such as "mean_squared_error", "huber", "poisson".',
        scaling="\n    scale_targets : the same for the targets, except for poisson; predictions are in their units.",
        stratified="",
        classes="",
    )
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_Population._parameter_constraints,
        "loss": [StrOptions({name for name, rule in LOSSES.items() if rule.takes in ("number", "log rate")})],
        "scale_targets": ["boolean"],
    }

    def __init__(
        self, n_networks: Any = 16, hidden_layer_sizes: Any = (64, 64), activation: Any = "relu", *,
        ensemble: Any = "all", loss: Any = "mean_squared_error", optimizer: Any = "adam", lr: Any = 3e-3,
        schedule: Any = "constant", weight_decay: Any = None, dropout: Any = None, batch_size: Any = 64,
        epochs: Any = 300, init: Any = "glorot_uniform", settings: Any = None, scale_inputs: Any = True,
        scale_targets: Any = True, early_stopping: Any = "auto", validation_fraction: Any = 0.1,
        n_iter_no_change: Any = 20, tol: Any = 1e-4, warm_start: Any = False, random_state: Any = None,
        verbose: Any = False, dtype: Any = "float32", device: Any = "cpu", engine: Any = "auto",
    ) -> None:  # fmt: skip
        self._keep(locals())

    def _loss(self, samples: Samples) -> str:
        return str(self.loss)
