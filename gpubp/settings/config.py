"""TrainConfig: how to train, checked once; every hyper-parameter a number for all networks or (N,) numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError, check_kind, one_of
from ..maths.losses import LOSSES
from ..maths.optimizers import OPTIMIZERS
from ..maths.rows import Rule
from ..maths.schedules import SCHEDULES, WARMUP
from ..maths.spec import NetworkSpec
from ..samples.data import Dataset
from ..system import arrays
from ..system.ambient import neutral
from . import class_weights
from .ranges import bounded, numbers_of
from .recipe import EXACT, LOSS, MONITORED, PRECISIONS, Recipe, Rules
from .rounds import Rounds, fitted

Hyper = float | Sequence[float] | Tensor | None

SHUFFLES, ORDERS = ("network", "shared", "none"), ("simultaneous", "layerwise")
TEXTS = {"monitor": MONITORED, "shuffle": SHUFFLES, "update_order": ORDERS, "precision": PRECISIONS}
EVENTS = {"epochs": 1, "steps": 100}  # between evaluations, for a schedule that watches them
SWITCHES = {  # of every optimizer, schedule and loss, with their defaults
    "l1": 0.0, "l2": 0.0, "dropout": 0.0, "clip_value": None, "clip_norm": None, "patience": None, "min_delta": 0.0,
    "tol": None, "target_loss": None,
}  # fmt: skip
OFF_AT_ZERO = {"weight_decay", "l1", "l2", "dropout", "warmup", "label_smoothing", "min_delta"}  # free as a plain 0


@dataclass(frozen=True, eq=False)
class TrainConfig(Rules):
    """How a population is trained. Raises ConfigError or ShapeError for invalid settings.

    Every hyper-parameter is a number for all networks or N numbers, one per network; None means the default of its
    optimizer, schedule or loss (OPTIMIZERS, SCHEDULES, LOSSES), or off. Names and meanings are torch's.

    Attributes:
        optimizer: a row of OPTIMIZERS, by name or itself.
        lr: learning rate.
        weight_decay: times the parameter, added to the gradient; decoupled for adamw and lion.
        momentum: of momentum and nesterov.
        alpha: of rmsprop: fraction of the old squares.
        rho: of adadelta: fraction of the old squares.
        beta1: of adam, amsgrad, adamw, nadam, lion: fraction of the old mean.
        beta2: of adam, amsgrad, adamw, nadam: fraction of the old squares; of lion: of the old mean.
        eps: added to a divisor; if 0, a gradient that has always been 0 gives 0 / 0: the network diverges.
        momentum_decay: of nadam.
        schedule: a row of SCHEDULES, by name or itself: the learning rate by step.
        step_size: of step: steps between two reductions.
        gamma: of step and exponential: factor of one reduction.
        eta_min: of cosine: the last learning rate.
        pct_start: of one_cycle: fraction of the steps in which the rate rises.
        div_factor: of one_cycle: lr divided by the first learning rate.
        final_div_factor: of one_cycle: first learning rate divided by the last.
        timescale: of inverse_sqrt: steps.
        plateau_factor: of plateau: factor of one reduction.
        plateau_patience: of plateau: evaluations without a better loss before a reduction.
        plateau_threshold: of plateau: relative gain that counts as better.
        plateau_cooldown: of plateau: evaluations that do not count after a reduction.
        plateau_min_lr: of plateau: the least learning rate.
        warmup: steps of linear warm-up before the schedule.
        warmup_start: fraction of the learning rate in the first step of the warm-up.
        l1: adds l1 * sum |w| over a network's weights, not its biases, to the loss.
        l2: adds l2 / 2 * sum w^2 over a network's weights, not its biases, to the loss.
        dropout: fraction of each hidden layer's outs set to 0; the rest is multiplied by 1 / (1 - dropout).
        clip_value: limits each number of the gradient.
        clip_norm: limits the norm of a network's whole gradient, after clip_value.
        delta: of huber: where the error becomes linear.
        quantile: of quantile: the quantile to predict.
        label_smoothing: of cross_entropy: fraction of the target spread over all classes.
        patience: evaluations in a row without a better figure, on the validation data if any, before a network stops.
        min_delta: how much better than the best a figure must be to count as better; Keras's.
        tol: how much better than the best a figure must be to reset patience; scikit-learn's, without min_delta.
        target_loss: loss of an evaluation at which a network stops.
        class_weight: of cross_entropy: (O,) or (N, O); or "balanced", of each network's samples: class_weights.py.
        batch_size: B, samples per step; at most all, but a network with fewer rows keeps B: fitted().
        epochs: passes through a network's samples, one number or (N,): ceil(epochs M / B) steps.
        steps: training steps, one number or (N,), instead of epochs.
        evaluate_every: epochs, or steps, between evaluations; by default a hundredth of all; 1 or 100 if they decide.
        monitor: what patience and restore_best go by: loss, or the validation data's metric (accuracy or R2).
        restore_best: whether a network ends with the row of its best evaluation.
        shuffle: network (an order per network), shared (one for all) or none.
        update_order: simultaneous, or layerwise: a layer is updated before the delta below it is computed.
        precision: of products: exact; or tf32 or 3xtf32, on a GPU's tensor cores, with bits that no CPU reproduces.
        extra: hyper-parameters of custom rules.
    """

    optimizer: Rule = "adam"
    lr: Hyper = None
    weight_decay: Hyper = None
    momentum: Hyper = None
    alpha: Hyper = None
    rho: Hyper = None
    beta1: Hyper = None
    beta2: Hyper = None
    eps: Hyper = None
    momentum_decay: Hyper = None
    schedule: Rule = "constant"
    step_size: Hyper = None
    gamma: Hyper = None
    eta_min: Hyper = None
    pct_start: Hyper = None
    div_factor: Hyper = None
    final_div_factor: Hyper = None
    timescale: Hyper = None
    plateau_factor: Hyper = None
    plateau_patience: Hyper = None
    plateau_threshold: Hyper = None
    plateau_cooldown: Hyper = None
    plateau_min_lr: Hyper = None
    warmup: Hyper = None
    warmup_start: Hyper = None
    l1: Hyper = None
    l2: Hyper = None
    dropout: Hyper = None
    clip_value: Hyper = None
    clip_norm: Hyper = None
    delta: Hyper = None
    quantile: Hyper = None
    label_smoothing: Hyper = None
    patience: Hyper = None
    min_delta: Hyper = None
    tol: Hyper = None
    target_loss: Hyper = None
    class_weight: Sequence[float] | Tensor | str | None = None
    batch_size: int = 32
    epochs: int | Sequence[int] | Tensor | None = None
    steps: int | Sequence[int] | Tensor | None = None
    evaluate_every: int | None = None
    monitor: str = LOSS
    restore_best: bool = False
    shuffle: str = "network"
    update_order: str = "simultaneous"
    precision: str = EXACT
    extra: Mapping[str, Hyper] = field(default_factory=dict)

    @neutral()
    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", OPTIMIZERS.name(self.optimizer, "optimizer", ConfigError))
        object.__setattr__(self, "schedule", SCHEDULES.name(self.schedule, "schedule", ConfigError))
        for name, allowed in TEXTS.items():
            one_of(allowed, getattr(self, name), name)
            object.__setattr__(self, name, str(getattr(self, name)))  # from NumPy's str
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError("epochs or steps, exactly one, expected")
        for name in ("batch_size", "evaluate_every"):
            value = getattr(self, name)
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, bounded(name, arrays.count(name, value)))
        for name in ("epochs", "steps"):
            if getattr(self, name) is not None:
                self._keep(name)
                length = arrays.tensor(name, getattr(self, name), ConfigError)
                if length.ndim > 1 or length.dtype != torch.int64 or not length.numel() or int(length.min()) < 1:
                    raise ConfigError(f"{name} {getattr(self, name)!r}: whole numbers of 1 or more expected")
                bounded(name, int(length.max()))
        object.__setattr__(self, "class_weight", class_weights.plain(self.class_weight))
        if not isinstance(self.extra, Mapping):
            raise ConfigError(f"extra {self.extra!r}: a dict of hyper-parameters by name expected")
        if not isinstance(self.restore_best, bool):
            raise ConfigError(f"restore_best {self.restore_best!r}: True or False expected")
        if self.update_order == "layerwise" and self.clip_norm is not None:
            raise ConfigError("clip_norm needs the whole gradient before any update, unlike update_order 'layerwise'")
        for name, value in self._given():
            if name in HYPER:
                self._keep(name)
            numbers_of(name, value)
        apart = self.min_delta is not None and bool(numbers_of("min_delta", self.min_delta).any())
        idle = not self.restore_best and (apart or self.monitor != LOSS)
        if self.patience is None and (self.tol is not None or idle):
            raise ConfigError("min_delta and monitor do nothing without patience or restore_best; tol needs patience")
        if self.tol is not None and apart:
            raise ConfigError("min_delta and tol both say what is better for patience; one of them expected")
        object.__setattr__(self, "extra", {n: arrays.plain(n, each, ConfigError) for n, each in self.extra.items()})

    def _keep(self, name: str) -> None:
        object.__setattr__(self, name, arrays.plain(name, getattr(self, name), ConfigError))

    def _given(self) -> Iterator[tuple[str, Any]]:
        for name in HYPER:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        for name, value in self.extra.items():
            if name in HYPER:
                raise ConfigError(f"extra holds {name!r}, which is a setting: TrainConfig({name}=...)")
            yield name, value

    def defaults(self, loss: str) -> dict[str, float | None]:
        """Every hyper-parameter of this optimizer, schedule and loss with its default; None if that is "off"."""
        return {
            "lr": self.rule.lr,
            "weight_decay": self.rule.weight_decay,
            **self.rule.defaults,
            **self.timetable.defaults,
            **WARMUP,
            **SWITCHES,
            **LOSSES[loss].defaults,
        }

    def values(self, loss: str) -> dict[str, Any]:
        """Every hyper-parameter in use, given or default. Raises ConfigError if one is given but unused."""
        known, given = self.defaults(loss), dict(self._given())
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{name} is not a hyper-parameter of optimizer {self.optimizer!r}, schedule {self.schedule!r} and "
                    f"loss {loss!r}; they have {', '.join(sorted(known))}"
                )
        return {name: given.get(name, default) for name, default in known.items()}

    def switched_on(self, loss: str) -> dict[str, Any]:
        """Those of values() that have an effect: without None, and without a plain 0 that means off."""
        return {
            name: value
            for name, value in self.values(loss).items()
            if value is not None and not (name in OFF_AT_ZERO and isinstance(value, (int, float)) and value == 0)
        }

    def recipe(self, spec: NetworkSpec) -> Recipe:
        """The settings that shape the computation. Raises ConfigError for an unused hyper-parameter."""
        on = (*self.switched_on(spec.loss), *(["class_weight"] if self.class_weight is not None else []))
        names = (each.name for each in fields(Recipe) if each.name != "hyper")
        return Recipe(hyper=on, **{name: getattr(self, name) for name in names})

    def columns(self, spec: NetworkSpec, count: int, device: torch.device) -> dict[str, Tensor]:
        """{name: (N, 1) float64}, defaults filled in, without those that are off; class_weight (N, O). Raises
        ShapeError for a column of another length."""
        columns = {}
        for name, value in self.switched_on(spec.loss).items():
            numbers = numbers_of(name, value).to(device)
            if numbers.ndim == 1 and len(numbers) != count:
                raise ShapeError(f"{name} has {len(numbers)} numbers; one, or {count}, one per network, expected")
            columns[name] = numbers.expand(count)[:, None].clone(memory_format=torch.contiguous_format)
        if self.class_weight is not None:
            columns["class_weight"] = class_weights.columns(self.class_weight, spec, count).to(device)
        return columns

    def lengths(self, sizes: Tensor) -> Tensor:
        """Steps of networks with `sizes` (N,) samples, (N,) int64."""
        name = "epochs" if self.steps is None else "steps"
        length = torch.as_tensor(getattr(self, name), dtype=torch.int64, device=sizes.device)
        if length.ndim and len(length) != len(sizes):
            raise ShapeError(f"{name} has {len(length)} numbers; one, or {len(sizes)}, one per network, expected")
        return (length.expand(len(sizes)) if self.steps is not None else self.rounds.after(length, sizes)).clone()

    def fitted(self, spec: NetworkSpec, data: Dataset, position: Tensor) -> tuple[TrainConfig, list[str]]:
        """This configuration for networks at `position` (N,) in the data, and notes for the user."""
        batch_size, notes = fitted(self.batch_size, data)
        weight = class_weights.fitted(self.class_weight, spec, data, position)
        return replace(self, batch_size=batch_size, class_weight=weight), notes

    @property
    def rounds(self) -> Rounds:
        """When networks are evaluated."""
        return Rounds(self.interval, self.steps is not None, self.batch_size)

    @property
    def interval(self) -> int:
        """evaluate_every, with its default filled in. If evaluations change the training, it does not depend on its
        length: a network has the same bits beside longer-trained ones, and an extended run those of a longer run."""
        usual = EVENTS["epochs" if self.steps is None else "steps"] if self.decides else -(-self.longest // 100)
        return usual if self.evaluate_every is None else self.evaluate_every

    @property
    def decides(self) -> bool:
        """Whether evaluations change the training."""
        limits = self.patience is not None or self.target_loss is not None
        return self.timetable.events or limits or self.restore_best

    @property
    def longest(self) -> int:
        """Epochs, or steps, of the network that trains longest."""
        return int(torch.as_tensor(self.epochs if self.steps is None else self.steps).max())

    def take(self, index: Tensor) -> TrainConfig:
        """The configuration of the networks in these rows."""
        one = {**dict(self._given()), "epochs": self.epochs, "steps": self.steps}
        if not isinstance(self.class_weight, str):
            one["class_weight"] = self.class_weight
        each = {name: arrays.tensor(name, value, ConfigError) for name, value in one.items() if value is not None}
        many: dict[str, Any] = {
            name: value[arrays.indices("take", index, len(value), ShapeError, negative=True)]
            for name, value in each.items()
            if value.ndim == 1 + (name == "class_weight")
        }
        extra = {name: many.pop(name, value) for name, value in self.extra.items()}
        return replace(self, **many, extra=extra)

    def __repr__(self) -> str:
        usual = {each.name: each.default for each in fields(self)} | {"extra": {}}
        given = {name: arrays.in_short(value) for name, value in self.to_dict().items()}
        given["extra"] = {name: arrays.in_short(value) for name, value in self.extra.items()}
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items() if value != usual[name])
        return f"TrainConfig({shown})"

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, tensors included."""
        rules = {"optimizer": str(self.optimizer), "schedule": str(self.schedule)}
        return {each.name: getattr(self, each.name) for each in fields(self)} | rules

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """From the result of to_dict(); raises ConfigError for an unknown setting."""
        check_kind("training settings", values, Mapping)
        known = [each.name for each in fields(cls)]
        for name in values:
            one_of(known, name, "training setting")
        return cls(**values)


HYPER = tuple(each.name for each in fields(TrainConfig) if each.type == "Hyper")
