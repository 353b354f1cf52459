"""Model: the networks of a run, which predict from raw samples to labels or numbers in the units of the targets.

Model.of() makes one from a Result, load() from a run directory: the networks from its checkpoint, the preparation of
columns from preparation.json, and the ranking from results.parquet. Refused: samples without the columns of training,
or with numbers that the networks' precision cannot hold, and the ranking of a run that has not ended.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from ..checkpoints import checkpoint
from ..checkpoints.stored import predicts
from ..errors import CheckpointError, ConfigError, GpubpError, check_kind, warn
from ..export import formats, safetensors
from ..export.members import Group, Members
from ..export.modules import PreparedNetwork
from ..line import counted, line, quoted
from ..maths.spec import NetworkSpec
from ..population import Population
from ..populations import Populations, are_rows, chosen, members
from ..raw.frames import checked, inputs_of, table_of, typed
from ..raw.preparation import FILE, Label, Preparation
from ..raw.tables import Array, listed
from ..raw.text import owned
from ..state import Status
from ..system import arrays, files
from ..system.ambient import neutral
from ..system.devices import usable
from .answers import answers, entity_of, speakers, tell_silent, without
from .ensemble import Ensemble, check_widths, classes_of
from .ranking import diverged_in, order_of
from .result import Result
from .saved import RESULTS, read_results, results_in, taken


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """N trained networks and the preparation of their samples.

    preparation: None if training was on plain tensors; then samples are numbers (M, I), used as they are. results:
    the results table, a row per network, or None if the run has not ended: then the networks have no ranking. diverged
    (N,): which networks diverged, if known. position (N,): of each network's samples in the data, its fold or entity;
    by default its row.

    `networks` of predict() and predict_proba(): "best", a number K for the best K, "all" that did not diverge, or a
    sequence of rows or a mask, [3] for network 3, [-1] for the last. Several networks predict the mean of their
    expected targets: probabilities, rates for poisson, margins clipped to -1 and 1 for hinge. With `each`, every
    network predicts, (K, ...). With one model per entity, the networks of its entity answer each sample, and "best" and
    K apply to each entity; without such networks the prediction is missing (NaN, or None), with a warning.

    `samples`: a frame of pandas or polars, a pyarrow.Table, a Table, a mapping of columns, a
    sequence of mappings, or the path of a file, matched by column names; a tensor, an array or rows of values, in the
    order of preparation.columns. Predictions that are NaN or infinite, which finite samples can cause, give a warning.
    """

    populations: Populations
    preparation: Preparation | None = None
    results: pa.Table | None = None
    diverged: Tensor | None = None
    position: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", Populations.of(self.populations))
        check_kind("preparation", self.preparation, Preparation, optional=True)
        if self.position is None:
            object.__setattr__(self, "position", torch.arange(self.populations.count))
        check_widths(self.populations, self.preparation)
        if self.results is not None:
            object.__setattr__(self, "diverged", diverged_in(self.results))

    @classmethod
    def of(cls, result: Result) -> Self:
        """The networks of a Result, as load() returns them from its run directory."""
        check_kind("result", result, Result)
        position = result.populations.in_order([state.position for state in result.states])
        return cls(result.populations, result.preparation, result.table, position=position)

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
        """The labels in the order of predict_proba()'s columns; class numbers without a preparation, () for numbers."""
        return classes_of(self._spec, self.preparation)

    def __len__(self) -> int:
        return self.populations.count

    def __repr__(self) -> str:
        widths = dict.fromkeys("-".join(map(str, each.spec.widths)) for each in self.populations.each)
        many = f"{counted(len(self), 'network')} of {listed(widths)}"
        if self.preparation is None:
            return f"Model({many}, {self._spec.loss}, on plain tensors)"
        targets = listed([column.name for column in self.preparation.target_columns])
        classes = f" ({listed(self.classes)})" if self.classes else ""
        columns = counted(len(self.preparation.columns), "column")
        return line(f"Model({many}, {self._spec.loss}: {columns} -> {targets}{classes})")

    @neutral()
    def ranking(self) -> Tensor:
        """Rows of the networks that did not diverge, best first, as Result.ranking()."""
        if self.results is None:
            raise CheckpointError(
                f"the networks have no ranking: {RESULTS} is missing, damaged or not of this checkpoint; name networks "
                "by their rows, such as [0, 3] (--rows 0,3), or let the run end: gpubp resume"
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
        return PreparedNetwork(bare, self.preparation.at(int(self.position[row])), loss)

    @neutral()
    def export(
        self, path: str | Path, networks: str | int | Sequence[int] | Tensor = "best", to: str | None = None
    ) -> Path:
        """Write networks to a file of another format: `to` is onnx, numpy (a Python file), safetensors (which load()
        reads) or torch (a state dict), by default what `path` ends with: .onnx, .py, .safetensors, .pt. Several
        networks predict together in the file, as in predict(), with their spread. Raises ConfigError and SpecError, by
        name, for what the format cannot hold."""
        target = files.path("path", path)
        name = formats.format_of(target, to)
        formats.write(self._members(networks, name == "safetensors"), target, name)
        return target

    @neutral()
    def estimator(self, networks: str | int | Sequence[int] | Tensor = "best") -> Any:
        """A fitted estimator of scikit-learn: for one network a Pipeline with its scaling, for several a
        VotingClassifier or VotingRegressor. Given an array, it warns of missing column names, like scikit-learn's
        estimators fitted to a frame. Raises SpecError for what an MLP of scikit-learn does not have."""
        from ..export import sklearn

        return sklearn.estimator(self._members(networks))

    def _members(self, networks: str | int | Sequence[int] | Tensor, apart: bool = False) -> Members:
        """The networks of an export. apart: whether they may be of different entities."""
        entities = None if self.preparation is None else self.preparation.entities
        if entities is not None and not apart and not are_rows(networks):
            told = "with one model per entity the rows of its networks (--rows) expected"
            raise ConfigError(f"networks {networks!r}: {told}")
        rows = self.chosen(networks)
        groups = [
            Group(each.spec, each.params[local.to(each.device)], each.ids[local.to(each.device)], place, each.seed)
            for each, local, place in self.populations.parts(rows)
        ]
        results = None if self.results is None else taken(self.results, rows)
        position = self.position.cpu()[rows]
        return Members(groups, rows.tolist(), self.preparation, position, self.classes, results)

    @neutral()
    def inputs(self, samples: Any, row: int | None = None) -> Tensor:
        """The inputs (M, I) of raw samples, with the networks' dtype and device. Warns of columns that differ from
        training. row: the network whose scaling applies, if scaling differs between folds or entities; by default each
        sample's entity decides."""
        position: Tensor | int | None = None if row is None else int(self.position[self.chosen([row])])
        if row is None and self.preparation is not None and self.preparation.entities is not None:
            samples = table_of(samples, self.preparation)
            position = entity_of(samples, self.preparation.entities).clamp(min=0)
        return inputs_of(samples, self.preparation, self._spec.widths[0], self.populations.each[0].params, position)

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
        networks for many samples need little memory. Raises at once, as these do."""
        if self.preparation is not None and self.preparation.entities is not None:
            if each:
                raise ConfigError("each: a sample is answered by its entity's networks together")
            return self._of_entities(samples, networks, self.preparation, proba)
        together = Ensemble(self.populations, self.chosen(networks), self.preparation, self.position)
        return together.pieces(together.inputs(samples), each, proba)

    def _of_entities(
        self, samples: Any, networks: str | int | Sequence[int] | Tensor, preparation: Preparation, proba: bool
    ) -> Iterator[Array]:
        """pieces() of one model per entity."""
        assert preparation.entities is not None
        count = 1 if isinstance(networks, str) and networks == "best" else arrays.whole(networks)
        ranked = self.chosen(networks if count is None or count < 1 else "all")
        together = Ensemble(self.populations, ranked, preparation, self.position)
        if proba:
            together.check_probabilities()
        asked = speakers(ranked, self.position, len(preparation.entities), count)
        table = checked(samples, preparation)
        position = entity_of(table, preparation.entities)
        inputs = preparation.inputs(table, position.clamp(min=0))
        inputs = typed(inputs, self.populations.each[0].params, table, preparation)
        silent = (position < 0) | (asked[0, position] < 0)
        tell_silent(table, preparation.entities, silent)
        return without(
            together.said(answers(self.populations, preparation, inputs, position, asked), proba=proba), silent
        )

    @neutral()
    def chosen(self, networks: str | int | Sequence[int] | Tensor) -> Tensor:
        """The rows selected by `networks`, best first unless it lists them."""
        return chosen("networks", networks, len(self), self.ranking)

    @neutral()
    def ensemble(self, best: int | None = None, rows: Sequence[int] | Tensor | None = None) -> Ensemble:
        """The `best` networks together, or those in `rows`, by numbers or a mask; by default all that did not diverge.
        Raises ConfigError for rows of diverged networks."""
        if self.preparation is not None and self.preparation.entities is not None:
            raise ConfigError(
                "ensemble: networks of different entities; predict(), or gpubp predict without --spread, answers a "
                "sample by its entity's"
            )
        found = members(best, rows, len(self), self.ranking, self.diverged)
        return Ensemble(self.populations, found, self.preparation, self.position)


@neutral()
def load(run_dir: str | Path, device: str | torch.device = "cpu") -> Model:
    """The networks of a run from its last checkpoint, or those of a .safetensors file that export() wrote, ready for
    raw samples. Raises CheckpointError if it cannot be trusted."""
    folder = files.path("run_dir", run_dir)
    if os.path.isfile(folder):  # Path's raises for a name that is too long
        return _exported(folder, usable(device))
    saved = checkpoint.load(folder, usable(device), predicts)
    for each in saved.told:
        warn(each)
    states, of_all = zip(*saved.everybody)
    networks = Populations(tuple(state.population for state in states), of_all)
    steps = networks.in_order([state.step for state in states])
    if saved.older and not bool(steps.any()):
        raise CheckpointError(
            f"{saved.told[0]}, whose networks are untrained and cannot predict; gpubp resume {folder}, or "
            "gpubp.resume for a run from Python, retrains them to the same bits"
        )
    path, rows = folder / FILE, folder / RESULTS
    if saved.preparation not in (None, checkpoint.digest_of(path)):
        raise CheckpointError(
            f"{path} is damaged or missing: its SHA-256 is not the one in the checkpoint; gpubp resume {folder} "
            "rewrites it"
        )
    with files.trusted(path):
        preparation = Preparation.load(folder)
        diverged = networks.in_order([state.status for state in states]) == Status.diverged
        position = networks.in_order([state.position for state in states])
        model = Model(networks, preparation, None, diverged, position)
    results = None
    if rows.is_file():
        try:
            results = read_results(rows)
        except CheckpointError as error:  # the networks are whole
            warn(f"{error}; the networks have no ranking; gpubp resume {quoted(folder)} rewrites it")
    if results is None or not np.array_equal(results["steps"].to_numpy(), steps.cpu().numpy()):
        return model
    return Model(networks, preparation, results, position=position)


def _exported(path: Path, device: torch.device) -> Model:
    """The networks of an exported file."""
    found, content = safetensors.read(path, device)
    results = None if content is None else results_in(f"{path}: its results", owned(content), len(content))
    try:
        each = tuple(Population(group.spec, group.params, group.seed, group.ids) for group in found.groups)
        networks = Populations(each, tuple(group.place for group in found.groups))
        bad = networks.in_order([~part.params.isfinite().all(1) for part in each]).nonzero()
        if len(bad):  # rows of diverged networks may be non-finite
            some = f"{len(bad)} of {networks.count} networks have weights that are NaN or infinite"
            warn(f"{path}: {some}, the first in row {int(bad[0])}")
        return Model(networks, found.preparation, results, position=found.position)
    except GpubpError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
