"""How the best network, and the ensemble of the best, predict the validation samples: matrix of classes, or residuals.

With folds, each fold's samples are predicted by networks that did not train on them: those of the best setting, and
together those of the best settings; with entities, by the best networks of each. The same samples chose the networks,
so the figures are a little better than on new samples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..maths.losses import LOSSES
from ..populations import Populations
from ..raw.preparation import Preparation
from ..raw.tables import Array
from ..results.ensemble import Ensemble
from ..results.ranking import order_of
from ..samples.data import Dataset
from ..studies import Study
from .figures import number, numbers, thinned

MEMBERS = 10  # of the ensemble, per fold or entity
POSITIONS, SAMPLES = 300, 200_000  # most folds or entities, and samples of each, that are predicted
SHOWN, CLASSES, TARGETS = 1500, 30, 4  # most residuals shown, classes of a matrix, and targets


class Trained(NamedTuple):
    """Networks with their study. position (N,): their positions in the data. preparation: of raw samples, or None."""

    populations: Populations
    position: Tensor
    study: Study
    preparation: Preparation | None


def predictions(trained: Trained, validation: Dataset) -> list[dict[str, Any]]:
    """For the best network and, if there are several, the ensemble: name, and matrix() or residuals(); none if all
    diverged."""
    rows = chosen(trained, validation)
    folds = "fold" in trained.study.results.column_names
    each = "" if validation.networks is None else "fold" if folds else "entity"
    found = []
    for name, most in (("best setting" if folds else "best network", 1), ("ensemble", MEMBERS)):
        members = {place: some[:most] for place, some in rows.items()}
        if name != "ensemble" or any(len(some) > 1 for some in rows.values()):
            many = max(map(len, members.values()), default=0)
            said = [_said(trained, validation, place, some) for place, some in members.items()]
            title = f"ensemble of {many}" if name == "ensemble" else name
            title += f", for each {each}" if each else ""
            found += [{"name": title, **_judged(trained, said)}] if said else []
    return found


def chosen(trained: Trained, validation: Dataset) -> dict[int, Tensor]:
    """For each position in the data that has its own samples, its networks, best first."""
    study, ranked = trained.study, order_of(trained.study.results)
    ranked = ranked[torch.from_numpy(study.counted)[ranked]]
    if validation.networks is None:
        return {0: ranked} if len(ranked) else {}
    if "fold" in study.results.column_names:  # rank settings by the mean over folds
        place = np.full(len(study.setting), len(study.setting))
        place[study.ranking] = np.arange(len(study.ranking))
        order = np.argsort(place[study.setting], kind="stable")
        ranked = torch.from_numpy(order[np.isin(study.setting[order], study.ranking)])
    own = trained.position[ranked]
    places = own.unique().tolist()
    return {places[at]: ranked[own == places[at]] for at in thinned(len(places), POSITIONS)}


def _said(trained: Trained, data: Dataset, place: int, rows: Tensor) -> tuple[Array, Array]:
    """Targets and predictions of the samples at one position: class numbers (M,), or numbers (M, O) in raw units."""
    position = torch.tensor([place if data.networks is not None else 0])
    at = torch.tensor(thinned(int(data.size(position)[0]), SAMPLES))[None]
    batch = data.batch(at if data.rows is None else data.row(position, at), position)
    together = Ensemble(trained.populations, rows)
    rule = LOSSES[together.spec.loss]
    found = torch.from_numpy(np.concatenate([*together.pieces(batch.inputs[0])]))
    targets = batch.targets[0]
    if rule.metric == "classes":
        return targets.numpy(), found.numpy()
    if rule.metric == "sign":  # two classes for each output
        half = 0.5 if rule.takes == "logit" else 0.0
        return (targets > half).long().flatten().numpy(), (found > half).long().flatten().numpy()
    if trained.preparation is not None:
        targets, found = (trained.preparation.outputs(each.double(), place) for each in (targets, found))
    return targets.double().numpy(), found.double().numpy()


def _judged(trained: Trained, said: Sequence[tuple[Array, Array]]) -> dict[str, Any]:
    actual, predicted = (np.concatenate([*each]) for each in zip(*said))
    if actual.dtype.kind == "f":
        names = None if trained.preparation is None else [each.name for each in trained.preparation.target_columns]
        return {"targets": residuals(actual, predicted, names)}
    count = int(max(actual.max(), predicted.max())) + 1
    labels = [*range(max(count, 2))] if trained.preparation is None else [*trained.preparation.classes]
    return {"matrix": matrix(actual, predicted, labels or [0, 1])}


def matrix(actual: Array, predicted: Array, labels: Sequence[Any]) -> dict[str, Any]:
    """How many samples of a class (row) were predicted as which (column), for at most CLASSES, the last for others."""
    size = len(labels)
    counts = np.bincount(actual * size + predicted, minlength=size * size).reshape(size, size)
    names, right, all_of_them = [str(each) for each in labels], int(counts.trace()), int(counts.sum())
    if size > CLASSES:
        order = np.argsort(-counts.sum(1), kind="stable")
        group = np.full(size, CLASSES - 1)
        group[order[: CLASSES - 1]] = np.arange(CLASSES - 1)
        merged = np.zeros((CLASSES, CLASSES), counts.dtype)
        np.add.at(merged, (group[:, None], group[None]), counts)
        counts, names = merged, [*(names[at] for at in order[: CLASSES - 1]), f"{size - CLASSES + 1:,} others"]
    return {"labels": names, "counts": counts.tolist(), "right": right, "samples": all_of_them}


def residuals(actual: Array, predicted: Array, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """For the first TARGETS targets: figures over all samples, and some samples, evenly in the target's order."""
    found = []
    for at in range(min(TARGETS, actual.shape[1])):
        target, error = actual[:, at], predicted[:, at] - actual[:, at]
        order = np.argsort(target, kind="stable")
        some = order[thinned(len(order), SHOWN)]
        around = ((target - target.mean()) ** 2).sum()
        found.append(
            {
                "name": f"target {at}" if names is None else names[at],
                "samples": len(target),
                "rmse": number(float((error**2).mean() ** 0.5)),
                "mae": number(float(np.abs(error).mean())),
                "bias": number(float(error.mean())),
                "r2": number(float(1 - (error**2).sum() / around)) if around else None,
                "quantiles": numbers(np.quantile(error, (0.05, 0.25, 0.5, 0.75, 0.95))),
                "predicted": numbers(predicted[some, at]),
                "residual": numbers(error[some]),
            }
        )
    return found
