"""Ensemble: several networks that predict together: their mean, how far they differ, and how much of that is doubt.

For classes the entropy of the mean probability is the whole uncertainty of a prediction. Mutual information, that
entropy minus the mean of the members' entropies, is the part due to their disagreement, high where they saw few
samples: "Bayesian Active Learning by Disagreement", Houlsby, Huszar, Ghahramani, Lengyel, "Bayesian Active Learning for
Classification and Preference Learning", 2011. Both in nats.

Members may differ in topology, and in losses that predict the same kind of number. Refused: other mixtures of losses,
diverged networks, and probabilities of a loss that has none. Members are evaluated in pieces. Only quantiles, which
need all members of a sample, take memory for each: K numbers per output for 32 samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backprop import forward
from ..errors import ConfigError, ShapeError, warn
from ..evaluate import figures
from ..line import line
from ..maths.blocks import CHUNK
from ..maths.losses import LOSSES, Loss
from ..maths.spec import NetworkSpec
from ..populations import Populations
from ..raw.frames import checked, inputs_of
from ..raw.preparation import Label, Preparation
from ..raw.tables import Array, listed
from ..samples.checks import check
from ..samples.data import Dataset
from ..system import arrays
from ..system.ambient import neutral

PIECE = 16 * CHUNK  # samples predicted at once
FEWEST = 32  # at least, with `each`: multiples of it leave every sample's bits the same
AT_ONCE = 1 << 22  # outs of all networks for a piece


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    """K networks that predict together.

    populations: all networks, or one Population. rows (K,): the members' rows, or a mask. preparation: of raw samples
    (Model lists their kinds); without one, samples are numbers (M, I), used as they are. position (N,): the fold of
    each network, where scaling differs between folds.

    A member predicts probabilities, one per class, if its loss takes logits; else the expected target: a number in the
    units of the targets, a rate for poisson, a margin from -1 to 1 for hinge. The shape of probabilities is
    (M, classes); of numbers (M,), or (M, O) with several target columns or without a preparation.
    """

    populations: Populations
    rows: Tensor
    preparation: Preparation | None = None
    position: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", Populations.of(self.populations))
        rows = arrays.indices("rows", self.rows, self.populations.count, ConfigError, negative=True)
        object.__setattr__(self, "rows", rows)
        check_widths(self.populations, self.preparation)
        losses = sorted({part.population.spec.loss for part in self.populations.parts(self.rows)})
        if len({_kind(LOSSES[loss]) for loss in losses}) > 1:
            raise ConfigError(
                f"an ensemble of networks with losses {listed(losses)}, which predict different kinds of numbers: name "
                "members of one loss by their rows"
            )

    @cached_property
    def spec(self) -> NetworkSpec:
        """What all members have in common: inputs, outputs, kind of loss."""
        return next(self.populations.parts(self.rows[:1])).population.spec

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels in the order of predict_proba()'s columns; class numbers without a preparation, () for numbers."""
        return classes_of(self.spec, self.preparation)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return line(f"Ensemble({len(self):,} of {self.populations.count:,} networks, {self.spec.loss})")

    @neutral()
    def inputs(self, samples: Any) -> Tensor:
        """The inputs (M, I) of raw samples, before scaling where that differs between members."""
        if self.preparation is not None and self._apart:
            return self.preparation.plain(checked(samples, self.preparation))
        return inputs_of(samples, self.preparation, self.spec.widths[0], self.populations.each[0].params)

    @property
    def _apart(self) -> bool:
        return self.preparation is not None and self.preparation.scaled_apart

    @neutral()
    def predict(self, samples: Any) -> Array:
        """The labels (M,) by the mean probability or margin, or the mean of predicted numbers."""
        return np.concatenate([*self.pieces(self.inputs(samples))])

    @neutral()
    def predict_proba(self, samples: Any) -> Array:
        """The mean probability of each class, (M, classes); for binary_cross_entropy without labels (M, O)."""
        return np.concatenate([*self.pieces(self.inputs(samples), proba=True)])

    @neutral()
    def std(self, samples: Any) -> Array:
        """The standard deviation between members, that of numpy.std: the sum of squares is divided by K."""
        return self._over(self._std, self.inputs(samples))

    @neutral()
    def median(self, samples: Any) -> Array:
        """The median of the members' predictions."""
        return self.quantiles(samples, 0.5)

    @neutral()
    def quantiles(self, samples: Any, q: float | Sequence[float]) -> Array:
        """Quantiles of the members' predictions, as in numpy.quantile: several q give (Q,) in front."""
        at = np.asarray(arrays.tensor("q", q, ConfigError), np.float64)
        if at.ndim > 1 or not at.size or not ((at >= 0) & (at <= 1)).all():
            raise ConfigError(f"q {q!r}: a number from 0 to 1, or a list of them, expected")
        return self._over(lambda piece: self._quantiles(piece, at), self.inputs(samples), self._few, at.ndim)

    @neutral()
    def entropy(self, samples: Any) -> Array:
        """Predictive entropy, that of the mean probability, in nats: (M,); (M, O) if each output is a probability."""
        return self._over(lambda piece: self._entropies(piece)[0], self.inputs(samples))

    @neutral()
    def mutual_information(self, samples: Any) -> Array:
        """entropy() minus the mean of the members' own entropies, in nats, 0 or more; shapes as there."""
        return self._over(lambda piece: self._entropies(piece)[1], self.inputs(samples))

    @neutral()
    def summary(self, samples: Any, q: Sequence[float] = (0.05, 0.5, 0.95)) -> dict[str, Array]:
        """By name: prediction; for probabilities also probability, std, entropy and mutual_information; for numbers std
        and the quantiles q, as q05, q50, q95."""
        inputs, logits = self.inputs(samples), LOSSES[self.spec.loss].takes == "logit"
        found = {"prediction": np.concatenate([*self.pieces(inputs)])}
        if logits:
            found["probability"] = np.concatenate([*self.pieces(inputs, proba=True)])
        found["std"] = self._over(self._std, inputs)
        if logits:
            both = self._over(lambda piece: torch.stack(self._entropies(piece)), inputs, axis=1)
            return found | dict(zip(("entropy", "mutual_information"), both))
        many = self._over(lambda piece: self._quantiles(piece, np.asarray(q)), inputs, self._few, 1)
        return found | {f"q{100 * each:02g}": values for each, values in zip(q, many)}

    @neutral()
    def evaluate(self, data: Dataset) -> dict[str, float]:
        """Figures of the mean prediction by scikit-learn's names: accuracy and log_loss; accuracy alone for hinge; r2
        and mean_squared_error, in the units of these targets. data: samples as the networks see them; if scaling
        differs between members, inputs() and unscaled targets."""
        if not isinstance(data, Dataset) or data.networks is not None:
            raise ConfigError("an ensemble is evaluated on a gpubp.Dataset that is the same for all networks")
        check(data, self.spec, len(self))
        inputs = data.inputs.to(self.populations.each[0].params)
        mean = torch.cat([self._expected(piece, each=False) for piece in inputs.split(PIECE)])
        return figures(LOSSES[self.spec.loss], mean, data)

    def pieces(self, inputs: Tensor, each: bool = False, proba: bool = False) -> Iterator[Array]:
        """predict(), or with `proba` predict_proba(), of inputs (M, I), in pieces of some samples, so that the
        predictions of many networks for many samples need little memory. each: of every member, (K, ...)."""
        if proba:
            self.check_probabilities()
        expected = (self._expected(piece, each) for piece in inputs.split(self._few if each else PIECE))
        return self.said(expected, each, proba)

    def said(self, given: Iterable[Tensor], each: bool = False, proba: bool = False) -> Iterator[Array]:
        """Predictions from expected targets; it ends with a warning if they are not finite."""
        speakers = len(self) if each else 1
        seen, bad, first, of_network = 0, 0, None, np.zeros(speakers, dtype=bool)
        for expected in given:
            values = np.asarray(self._probabilities(expected)) if proba else self._predictions(expected)
            sound = np.isfinite(np.asarray(expected)).all(-1)
            if values.dtype.kind == "f":  # the units of the targets may overflow
                sound &= np.isfinite(values).reshape(*sound.shape, -1).all(-1)
            broken = ~sound.reshape(speakers, -1)
            if first is None and broken.any():
                first = seen + int(broken.any(0).argmax())
            seen, bad, of_network = seen + broken.shape[1], bad + int(broken.sum()), of_network | broken.any(1)
            yield values
        if first is not None:
            whose = f"{int(of_network.sum())} of {speakers} networks" if each else f"the mean of {len(self)} networks"
            warn(
                f"{bad:,} of {speakers * seen:,} predictions are NaN or infinite, or labels from such numbers: of "
                f"{whose}, the first for sample {first}; check the samples for numbers far from those of training"
            )

    def _predictions(self, expected: Tensor) -> Array:
        if not self.classes:
            return np.asarray(self._said(expected))
        return np.asarray(expected.argmax(-1)) if self.preparation is None else self.preparation.decode(expected)

    def _probabilities(self, expected: Tensor) -> Tensor:
        binary = len(self.classes) == 2 and expected.shape[-1] == 1
        return torch.cat((1 - expected, expected), -1) if binary else expected

    def _said(self, expected: Tensor) -> Tensor:
        """Expected targets (..., O) as probabilities of classes, or as numbers in the units of the targets."""
        if self.classes and LOSSES[self.spec.loss].takes == "logit":
            return self._probabilities(expected)
        if self.preparation is None:
            return expected
        numbers = expected if self._apart else self.preparation.outputs(expected)
        return numbers[..., 0] if numbers.shape[-1] == 1 else numbers

    def _members(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Some members at a time: their places among all (k,), and their expected targets (k, M, O), by their loss's
        inverse link, float64; in the units of the targets if scaling differs between members."""
        if self.preparation is None or self.position is None or not self._apart:
            yield from self._together(torch.arange(len(self)), inputs)
            return
        like, position = self.populations.each[0].params, self.position[self.rows]
        for each in position.unique().tolist():
            given = self.preparation.scaled(inputs, each).to(like)
            for at, expected in self._together((position == each).nonzero().squeeze(1), given):
                yield at, self.preparation.outputs(expected, each)

    def _together(self, members: Tensor, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """_members() for these members, which have the same inputs."""
        most = max(1, AT_ONCE // (PIECE * self.spec.widths[-1]))
        for population, local, place in self.populations.parts(self.rows[members]):
            link = LOSSES[population.spec.loss].inverse_link
            for some, at in zip(local.to(inputs.device).split(most), members[place].split(most)):
                yield at, link(forward(population.spec, population.params[some], inputs).double())

    @neutral()
    def _expected(self, inputs: Tensor, each: bool) -> Tensor:
        """Expected targets: the mean of the members (M, O), or each (K, M, O); float64, on the CPU."""
        shape = len(inputs), self.spec.widths[-1]
        found = (
            torch.zeros(len(self), *shape, dtype=torch.float64)
            if each
            else inputs.new_zeros(*shape, dtype=torch.float64)
        )
        for at, expected in self._members(inputs):
            if each:
                found[at] = expected.cpu()
            else:
                found += expected.sum(0)
        return found if each else (found / len(self)).cpu()

    @property
    def _few(self) -> int:
        """How many samples all members predict at once, if each is kept."""
        most = AT_ONCE // (len(self) * self.spec.widths[-1])
        return max(FEWEST, min(PIECE, most)) // FEWEST * FEWEST

    def _over(self, measure: Callable[[Tensor], Any], inputs: Tensor, size: int = PIECE, axis: int = 0) -> Array:
        """`measure` of all inputs (M, I), piece by piece. axis: that of the samples."""
        found = np.concatenate([np.asarray(measure(piece)) for piece in inputs.split(size)], axis)
        if bad := int((~np.isfinite(found)).sum()):
            warn(
                f"{bad:,} of {found.size:,} numbers are NaN or infinite; check the samples for numbers far from those "
                "of training"
            )
        return found

    def _quantiles(self, inputs: Tensor, q: Array) -> Array:
        said = self._said(self._expected(inputs, each=True)).numpy()
        with np.errstate(invalid="ignore"):  # between infinite numbers; _over() warns
            return np.asarray(np.quantile(said, q, axis=0))

    def _std(self, inputs: Tensor) -> Tensor:
        """Merged from pieces of members as in Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for
        Computing Sample Variances", 1979."""
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for _, expected in self._members(inputs):
            said, many = self._said(expected.cpu()), len(expected)
            gap = said.mean(0) - mean
            squares = squares + said.var(0, correction=0) * many + gap * gap * (count * many / (count + many))
            count, mean = count + many, mean + gap * (many / (count + many))
        return (squares / count).sqrt()

    def _entropies(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Predictive entropy and mutual information."""
        self.check_probabilities()
        total, own = torch.zeros(()), torch.zeros(())
        for _, expected in self._members(inputs):
            yes = self._probabilities(expected.cpu())
            chances = yes if self.classes else torch.stack((1 - yes, yes), -1)
            total, own = total + chances.sum(0), own + torch.special.entr(chances).sum((0, -1))
        entropy = torch.special.entr(total / len(self)).sum(-1)
        return entropy, (entropy - own / len(self)).clamp(min=0)  # rounding may give less

    def check_probabilities(self) -> None:
        """Raise ConfigError for a loss that does not take logits."""
        if LOSSES[self.spec.loss].takes != "logit":
            raise ConfigError(
                f"loss {self.spec.loss!r} gives no probabilities; cross_entropy and binary_cross_entropy do"
            )


def classes_of(spec: NetworkSpec, preparation: Preparation | None) -> tuple[Label, ...]:
    """The labels; without a preparation, class numbers; () if targets are numbers."""
    if preparation is not None:
        return preparation.classes
    return tuple(range(spec.widths[-1])) if LOSSES[spec.loss].classes else ()


def check_widths(populations: Populations, preparation: Preparation | None) -> None:
    """Raise ShapeError for a preparation whose widths are not the networks'."""
    widths = populations.each[0].spec.widths
    if preparation is not None and (preparation.width_in, preparation.width_out) != (widths[0], widths[-1]):
        raise ShapeError(
            f"preparation of {preparation.width_in} inputs and {preparation.width_out} outputs; the networks have "
            f"{widths[0]} and {widths[-1]}"
        )


def _kind(rule: Loss) -> tuple[str, str]:
    """What an expected target is: a class, a probability, a margin or a number."""
    return rule.metric, rule.takes if rule.takes in ("logit", "score") else "number"
