"""Model: the networks of a run, which predict from raw samples to labels or numbers in the units of the targets.

load() makes one from a run directory: the networks from its checkpoint, the preparation of columns from
preparation.json, and the ranking from results.parquet. Refused: samples without the columns of training, or
with numbers that the networks' precision cannot hold, and the ranking of a run that has not ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from . import arrays, checkpoint, files, stopping
from .ambient import neutral
from .backprop import forward
from .blocks import CHUNK
from .devices import usable
from .errors import CheckpointError, ConfigError, DataError, ShapeError, reason, warn
from .frames import table_of
from .line import line, quoted
from .losses import LOSSES
from .modules import PreparedNetwork
from .population import Population
from .populations import Populations
from .preparation import FILE, Label, Preparation
from .reporters.table import RESULTS, read_results
from .result import order_of
from .spec import NetworkSpec
from .tables import Array, listed

PIECE = 16 * CHUNK  # samples predicted at once
FEWEST = 32  # at least, with `each`: multiples of this do not change the bits of any sample
AT_ONCE = 1 << 22  # outs of all networks for a piece


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """N trained networks and the preparation of their samples.

    preparation: None if training was on plain tensors; then samples are numbers (M, I), used as they are. results:
    the results table, a row per network, or None if the run has not ended: then the networks have no ranking.

    `networks` of predict() and predict_proba(): "best", a number K for the best K, "all" that did not diverge, or a
    sequence of rows or a mask, [3] for network 3, [-1] for the last. Several networks predict the mean of their
    expected targets: probabilities, rates for poisson, margins clipped to -1 and 1 for hinge. With `each`,
    every network predicts, (K, ...).

    `samples`: a frame of pandas or polars, a pyarrow.Table, a Table, a mapping of columns, a
    sequence of mappings, or the path of a file, matched by column names; a tensor, an array or rows of values, in the
    order of preparation.columns. Predictions that are NaN or infinite, which finite samples can cause, give a warning.
    """

    populations: Populations
    preparation: Preparation | None = None
    results: pa.Table | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", Populations.of(self.populations))
        widths, given = self._spec.widths, self.preparation
        if given is not None and (given.width_in, given.width_out) != (widths[0], widths[-1]):
            raise ShapeError(
                f"preparation of {given.width_in} inputs and {given.width_out} outputs; the networks have {widths[0]} "
                f"and {widths[-1]}"
            )

    @property
    def population(self) -> Population:
        """The networks, if one population holds them all; raises ConfigError if there are several."""
        return self.populations.only

    @property
    def spec(self) -> NetworkSpec:
        """Their specification, likewise."""
        return self.population.spec

    @property
    def _spec(self) -> NetworkSpec:
        """What all specifications have in common: inputs, outputs, kind of loss."""
        return self.populations.each[0].spec

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels in the order of predict_proba()'s columns; without a preparation class numbers, () for numbers."""
        if self.preparation is not None:
            return self.preparation.classes
        return tuple(range(self._spec.widths[-1])) if LOSSES[self._spec.loss].classes else ()

    def __len__(self) -> int:
        return self.populations.count

    def __repr__(self) -> str:
        widths = dict.fromkeys("-".join(map(str, each.spec.widths)) for each in self.populations.each)
        many = f"{len(self):,} network{'s' * (len(self) != 1)} of {listed(list(widths))}"
        if self.preparation is None:
            return f"Model({many}, {self._spec.loss}, on plain tensors)"
        targets = listed([column.name for column in self.preparation.target_columns])
        classes = f" ({listed(self.classes)})" if self.classes else ""
        return line(f"Model({many}, {self._spec.loss}: {len(self.preparation.columns)} columns -> {targets}{classes})")

    @neutral()
    def ranking(self) -> Tensor:
        """Rows of the networks that did not diverge, best first, as Result.ranking()."""
        if self.results is None:
            raise CheckpointError(
                f"the networks have no ranking: {RESULTS} is missing, damaged or not of this checkpoint; name networks "
                "by their rows, such as [0, 3], or let the run end: gpubp resume"
            )
        return order_of(self.results)

    @neutral()
    def network(self, row: int, raw: bool = False) -> nn.Module:
        """The network in a row, with copies of its weights: a PreparedNetwork from raw numbers to numbers in the units
        of the targets, or logits of classes. With `raw`, or without a preparation: a torch.nn.Sequential on inputs(),
        whose outs are those of the loss."""
        bare = self.populations.network(row)
        loss = next(self.populations.parts(torch.tensor([row % len(self)]))).population.spec.loss
        if raw or self.preparation is None:
            return bare
        return PreparedNetwork(bare, self.preparation, loss)

    @neutral()
    def inputs(self, samples: Any) -> Tensor:
        """The inputs (M, I) of raw samples, with the networks' dtype and device. Warns of columns that differ from
        training."""
        like, names = self.populations.each[0].params, None
        if self.preparation is None:
            prepared = _numbers(samples, self._spec.widths[0])
            if not prepared.is_floating_point():
                arrays.held("samples", prepared, prepared.to(like.dtype))
        else:
            table = table_of(samples, self.preparation)
            prepared = self.preparation.inputs(table)
            for each in self.preparation.strange(table):
                warn(f"{table.name}: {each}")
            names = [column.name for column in self.preparation.columns for _ in column.categories or (None,)]
        inputs = prepared.to(like.device, like.dtype)
        bad = (~inputs.isfinite()).nonzero()
        if len(bad):
            sample, place = bad[0].tolist()
            where = f"input {place}" if names is None else f"{table.name}: column {names[place]!r}"
            raise DataError(
                f"{where} becomes {float(prepared[sample, place]):g} in sample {sample}, one of {len(bad)} numbers "
                f"that are not finite as {like.dtype}; finite numbers expected"
            )
        return inputs

    @neutral()
    def predict(self, samples: Any, networks: str | int | Sequence[int] | Tensor = "best", each: bool = False) -> Array:
        """The predictions for M samples: labels (M,); numbers in the units of the targets, (M,), or (M, O) with
        several target columns or without preparation.

        A number is the expected target: a rate for poisson; if targets are not labels, a probability for
        binary_cross_entropy and a margin from -1 to 1 for hinge.
        """
        return np.concatenate(list(self.pieces(samples, networks, each)), 1 if each else 0)

    @neutral()
    def predict_proba(
        self, samples: Any, networks: str | int | Sequence[int] | Tensor = "best", each: bool = False
    ) -> Array:
        """The probabilities for M samples, (M, classes) in the order of `classes`; for binary_cross_entropy without
        labels (M, O), of 1 in each column. Raises ConfigError for a loss that takes no logits."""
        return np.concatenate(list(self.pieces(samples, networks, each, proba=True)), 1 if each else 0)

    @neutral()
    def pieces(
        self,
        samples: Any,
        networks: str | int | Sequence[int] | Tensor = "best",
        each: bool = False,
        proba: bool = False,
    ) -> Iterator[Array]:
        """predict(), or with `proba` predict_proba(), in pieces of some samples, so that the predictions of many
        networks for many samples need little memory. Raises at once, like these."""
        if proba and LOSSES[self._spec.loss].takes != "logit":
            raise ConfigError(
                f"loss {self._spec.loss!r} gives no probabilities; cross_entropy and binary_cross_entropy do"
            )
        rows, inputs = self.chosen(networks), self.inputs(samples)
        most = max(FEWEST, min(PIECE, AT_ONCE // (len(rows) * self._spec.widths[-1]))) // FEWEST * FEWEST
        return self._pieces(rows, inputs.split(most if each else PIECE), each, proba)

    @neutral()
    def chosen(self, networks: str | int | Sequence[int] | Tensor) -> Tensor:
        """The rows selected by `networks`, best first unless it lists them."""
        many = isinstance(networks, Iterable) and not isinstance(networks, str)
        if many and getattr(networks, "ndim", True):
            rows = arrays.indices("networks", networks, len(self), ConfigError, negative=True)
            if not len(rows):
                raise ConfigError("networks: one row or more expected, got none")
            return rows
        number = arrays.whole(networks)
        if networks not in ("best", "all") and (number is None or number < 1):
            raise ConfigError(
                f"networks {networks!r}: best, all, a number of 1 or more, or a sequence of rows expected"
            )
        ranked = self.ranking()
        if not len(ranked):
            raise CheckpointError("every network diverged; there is none to predict with")
        count = {"best": 1, "all": len(ranked)}.get(str(networks)) or number or 0
        if count > len(ranked):
            raise ConfigError(f"networks {count}: the run has {len(ranked)} networks that did not diverge")
        return ranked[:count]

    def _pieces(self, rows: Tensor, inputs: Iterable[Tensor], each: bool, proba: bool) -> Iterator[Array]:
        """The iterator of pieces(); it ends with a warning if predictions are not finite."""
        speakers = len(rows) if each else 1
        seen, bad, first, of_network = 0, 0, None, np.zeros(speakers, dtype=bool)
        for piece in inputs:
            expected = self._expected(rows, piece, each)
            values = self._probabilities(expected) if proba else self._predictions(expected)
            sound = np.isfinite(np.asarray(expected)).all(-1)
            if values.dtype.kind == "f":  # the units of the targets may overflow
                sound &= np.isfinite(values).reshape(*sound.shape, -1).all(-1)
            broken = ~sound.reshape(speakers, len(piece))
            if first is None and broken.any():
                first = seen + int(broken.any(0).argmax())
            seen, bad, of_network = seen + len(piece), bad + int(broken.sum()), of_network | broken.any(1)
            yield values
        if first is not None:
            whose = f"{int(of_network.sum())} of {speakers} networks" if each else f"the mean of {len(rows)} networks"
            warn(
                f"{bad:,} of {speakers * seen:,} predictions are NaN or infinite, or labels from such numbers: of "
                f"{whose}, the first for sample {first}; check the samples for numbers far from those of training"
            )

    def _predictions(self, expected: Tensor) -> Array:
        if self.preparation is None:
            return np.asarray(expected.argmax(-1) if self.classes else expected)
        decoded = self.preparation.decode(expected)
        single = self.preparation.task == "numbers" and decoded.shape[-1] == 1
        return decoded[..., 0] if single else decoded

    def _probabilities(self, expected: Tensor) -> Array:
        binary = len(self.classes) == 2 and expected.shape[-1] == 1
        return np.asarray(torch.cat((1 - expected, expected), -1) if binary else expected)

    @neutral()
    def _expected(self, rows: Tensor, inputs: Tensor, each: bool) -> Tensor:
        """Expected targets of the networks in `rows` (K,), by their loss's inverse link: the mean (M, O), or each
        (K, M, O); float64, on the CPU."""
        shape, most = (len(inputs), self._spec.widths[-1]), max(1, AT_ONCE // (PIECE * self._spec.widths[-1]))
        found = torch.zeros(len(rows), *shape, dtype=torch.float64) if each else inputs.new_zeros(*shape).double()
        for population, local, place in self.populations.parts(rows):
            link = LOSSES[population.spec.loss].inverse_link
            for some, at in zip(local.to(inputs.device).split(most), place.split(most)):
                expected = link(forward(population.spec, population.params[some], inputs).double())
                if each:
                    found[at] = expected.cpu()
                else:
                    found += expected.sum(0)
        return found if each else (found / len(rows)).cpu()


@neutral()
def load(run_dir: str | Path, device: str | torch.device = "cpu") -> Model:
    """The networks of a run from its last checkpoint, ready for raw samples. Raises CheckpointError if it cannot be
    trusted."""
    folder = files.path("run_dir", run_dir)
    saved = checkpoint.load(folder, usable(device))
    for each in saved.told:
        warn(each)
    everybody = saved.everybody
    states = [each.state for each in everybody]
    networks = Populations(tuple(state.population for state in states), tuple(each.rows for each in everybody))
    steps = networks.in_order([state.step for state in states])
    if saved.older and not bool(steps.any()):
        raise CheckpointError(
            f"{saved.told[0]}, whose networks are untrained and cannot predict; gpubp resume {folder}, or "
            "gpubp.resume for a run from Python, retrains them to the same bits"
        )
    for state in states:
        stopping.restore(state)
    path, rows = folder / FILE, folder / RESULTS
    if saved.preparation not in (None, checkpoint.digest_of(path)):
        raise CheckpointError(
            f"{path} is damaged or missing: its SHA-256 is not the one in the checkpoint; gpubp resume {folder} "
            "rewrites it"
        )
    try:
        preparation = Preparation.from_dict(json.loads(files.read(path))) if path.exists() else None
        model = Model(networks, preparation)
    except (OSError, ValueError, RecursionError) as error:  # a GpubpError is a ValueError
        raise CheckpointError(f"{path} cannot be read: {reason(error, 'it is not what was written')}") from None
    results = None
    if rows.is_file():
        try:
            results = read_results(rows)
        except CheckpointError as error:  # the networks are whole
            warn(f"{error}; the networks have no ranking; gpubp resume {quoted(folder)} rewrites it")
    if results is None or results["steps"].to_pylist() != steps.tolist():
        return model
    return Model(networks, preparation, results)


def _numbers(samples: Any, width: int) -> Tensor:
    """Samples (M, I) for networks without a preparation, unchanged."""
    try:
        numbers = arrays.tensor("samples", samples)
    except DataError as error:
        raise DataError(
            f"{error}; the run was trained on plain tensors, without a preparation: numbers (M, {width})"
        ) from None
    if numbers.ndim != 2 or numbers.shape[1] != width or not len(numbers):
        raise ShapeError(f"samples {tuple(numbers.shape)}: (M, {width}) expected")
    return numbers
