"""The ranking of the networks in a results table: ranks(), by which columns; order_of(), the best first; and which
columns name entities and the settings of losses."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from pyarrow import compute
from torch import Tensor

from ..evaluate import METRICS
from ..maths.losses import LOSSES
from ..settings.config import HYPER
from ..settings.recipe import LOSS, METRIC
from ..state import Status, TrainState

KEYS = b"gpubp_keys"  # of the table's columns that name entities
VALIDATION, BEST = "validation_", "best_"  # before the name of a figure: on the validation data; at best_step
OF_LOSS = b"gpubp_of_loss"  # of the table's columns with hyper-parameters of losses


def setting_column(name: str) -> str:
    """The column of a hyper-parameter; a custom rule's is called as in a design."""
    return name if name in HYPER else f"extra.{name}"


def loss_columns(names: Iterable[str]) -> dict[str, float]:
    """The columns of the hyper-parameters of losses, by name, with their defaults."""
    return {setting_column(name): default for each in names for name, default in LOSSES[each].defaults.items()}


def ranking_columns(losses: Iterable[str]) -> list[str]:
    """The columns that ranked_by() and order_of() read, for networks with these losses."""
    hyper = loss_columns(losses)
    measured = [f"{prefix}{name}" for prefix in ("", VALIDATION, BEST) for name in (LOSS, *METRICS.values())]
    return ["status", "loss_function", "class_weight", "monitor", *hyper, *measured]


def told(rows: pa.Table, key: bytes) -> list[str]:
    """The columns that a results table lists under `key`."""
    found = json.loads((rows.schema.metadata or {}).get(key, b"[]"))
    if not isinstance(found, list):
        raise ValueError
    return [name for name in found if name in rows.column_names]


def keys_of(rows: pa.Table) -> list[str]:
    """The columns of a results table that name the entity of each network. Raises ValueError unless it is a list."""
    return told(rows, KEYS)


def entities(rows: pa.Table) -> list[dict[str, Any]]:
    """The entities of the networks of a results table, by their key columns; none if there are no such columns."""
    keys = keys_of(rows)
    found: list[dict[str, Any]] = rows.group_by(keys).aggregate([]).to_pylist() if keys else []
    return found


def diverged_in(results: pa.Table) -> Tensor:
    """(N,): which networks of a results table diverged."""
    return torch.tensor(compute.equal(results["status"], Status.diverged.name).to_numpy())


def ranked_by(results: pa.Table) -> str:
    """The column of a results table that ranks its networks, on the validation data if there are any: the loss, less is
    better, if all have the same loss function with the same hyper-parameters and class weights. Otherwise losses cannot
    be compared, and the metric, accuracy or R2, ranks them: more is better. The metric also ranks networks that all
    monitor it."""
    return ranks(results)[0]


def ranks(results: pa.Table) -> list[str]:
    """The column that ranks the networks, then one that ranks those of equal rank, if there is one."""
    names = results.column_names
    own = loss_columns(LOSSES)
    kinds = [results[name].fill_null(default) for name, default in own.items() if name in names]
    more = {"loss_function", "class_weight", *told(results, OF_LOSS)} - own.keys()
    kinds += [results[name] for name in names if name in more]
    alike = all(len(each.unique()) == 1 for each in kinds)
    metric = "accuracy" if "accuracy" in names else "r2"
    first = VALIDATION if VALIDATION + LOSS in names else ""
    rated = BEST + metric in names and results[first + metric].null_count < results.num_rows
    if "monitor" in names:  # networks differ in it, or did before some were left out
        rated &= results["monitor"].unique().to_pylist() == [METRIC]
    return [first + each for each in [metric] * (rated or not alike) + [LOSS] * alike]


def ranked_by_loss(states: Sequence[TrainState]) -> bool:
    """Whether the loss ranks the networks: they are comparable(), and do not all monitor the metric."""
    return comparable(states) and not all(state.recipe.rated for state in states)


def comparable(states: Sequence[TrainState]) -> bool:
    """Whether all losses are of one kind: one function, with the same hyper-parameters and class weights."""
    names = {state.population.spec.loss for state in states}
    if len(names) > 1:
        return False
    usual = {"class_weight": None, **LOSSES[names.pop()].defaults}
    for name, default in usual.items():
        off = torch.full((1, 1), float("inf") if default is None else default, dtype=torch.float64)
        columns = [state.hyper.get(name, off) for state in states]
        if len({each.shape[1] for each in columns}) > 1 or len(torch.cat(columns).unique(dim=0)) > 1:
            return False
    return True


def worth(name: str, values: Tensor) -> Tensor:
    """Keys that, in ascending order, sort `values` of the column `name` from best to worst, NaN last."""
    return (values if name.endswith("loss") else -values).nan_to_num(float("inf"))


def best_first(figures: Sequence[tuple[str, Tensor]]) -> Tensor:
    """The places from best to worst by the first of the named figures (N,), those of equal rank by the next."""
    order = torch.arange(len(figures[0][1]))
    for name, values in reversed(figures):
        order = order[worth(name, values)[order].argsort(stable=True)]
    return order


def order_of(results: pa.Table) -> Tensor:
    """Rows of the networks in a results table that did not diverge, best first."""
    order = best_first([(name, torch.tensor(results[name].to_numpy())) for name in ranks(results)])
    return order[~diverged_in(results)[order]]
