"""The results table: a row per network, as pyarrow.Table."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import compute
from torch import Tensor

from ..errors import ConfigError
from ..explaining.faults import quantities
from ..maths.spec import NetworkSpec
from ..networks import Outcome
from ..raw.arrow import plain
from ..raw.entities import Entities
from ..raw.tables import listed
from ..settings.config import HYPER, OFF_AT_ZERO, TrainConfig
from ..settings.recipe import LOSS, METRIC, Recipe
from ..state import NAMES, Status, TrainState
from ..stopping import best
from .ranking import BEST, KEYS, OF_LOSS, VALIDATION, keys_of, loss_columns, ranked_by, setting_column

WHOLE = ("network", "id", "steps", "diverged_step")  # columns of whole numbers
FAULT = "diverged_in"  # what first was not finite
STEPS = ("diverged_step", "stopped_step", "best_step")  # of whole numbers that a network may lack
STOPPED = (Status.converged, Status.stopped)
TEXTS = ("widths", "hidden", "output", "loss_function", "bias", "train_bias", "optimizer", "schedule", "batch_size",
         "shuffle", "update_order", "precision", "monitor", "restore_best", "class_weight")  # fmt: skip
# settings that only a design has, by column: `inspect` adds them
DESIGNED = {name: name for name in ("init", "init_scale", "epochs", "evaluate_every")} | {"max_steps": "steps"}
OTHERS = (FAULT, "fold", "status", "loss", "accuracy", "r2")
PIECE = 1 << 16  # rows made at once


class Results:
    """The table of `outcomes`, whole, or in pieces of some networks, so that many need little memory. entities: of the
    data's positions; more: further columns (N,) by name."""

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        metric: str,
        entities: Entities | None = None,
        more: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        self.outcomes, self.metric, self.entities, self.more = outcomes, metric, entities, more
        self.count = sum(len(each.rows) for each in outcomes)
        self.differing = _differing(outcomes)
        self.losses = dict.fromkeys(each.state.population.spec.loss for each in outcomes)
        columns = [(name, column) for each in outcomes for name, column in each.state.hyper.items()]
        self.on = {name for name, column in columns if name in OFF_AT_ZERO and bool(column.any())}
        self.stops = any(bool(_stopped(each.state).any()) for each in outcomes)  # of all: pieces share columns
        if self.count <= PIECE:
            _ = self.whole  # before the networks can change

    @cached_property
    def whole(self) -> pa.Table:
        """A row per network: its row, id, status, steps, losses, metrics and every hyper-parameter in use; with several
        populations also what differs between them; class weights that differ, as text."""
        if self.count <= PIECE:
            return self._table(self.outcomes)
        return pa.concat_tables(self.pieces()).combine_chunks()

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Of all rows, those of the columns `names` that exist, without the memory of the others."""
        known = [self.whole] if "whole" in vars(self) else self.pieces()
        return pa.concat_tables([each.select([name for name in each.column_names if name in names]) for each in known])

    def pieces(self) -> Iterator[pa.Table]:
        """The same, PIECE rows at a time."""
        if self.count <= PIECE:
            yield self.whole
            return
        blank = self._table([each.take(slice(1)) for each in self.outcomes]).slice(0, 0)
        orders = [None if _ascending(each.rows) else each.rows.argsort() for each in self.outcomes]
        sides = torch.arange(0, self.count + PIECE, PIECE)
        cuts = [
            torch.searchsorted((each.rows if order is None else each.rows[order]).contiguous(), sides).tolist()
            for each, order in zip(self.outcomes, orders)
        ]
        for at in range(len(sides) - 1):
            some = []
            for each, order, cut in zip(self.outcomes, orders, cuts):
                part = slice(cut[at], cut[at + 1])
                if part.start < part.stop:
                    some.append(each.take(part if order is None else order[part]))
            yield pa.concat_tables([blank, self._table(some)], promote_options="default").combine_chunks()

    def _table(self, outcomes: Sequence[Outcome]) -> pa.Table:
        tables = []
        for each in outcomes:
            rows, described = _rows(each, self.metric, self.entities, self.stops, self.on), _described(each.state)
            for name in self.differing:
                texts = _class_weights(each.state) if name == "class_weight" else [described[name]] * len(rows)
                kind = pa.string() if name == "class_weight" else None
                rows = rows.append_column(name, pa.array(texts, kind))
            keys = () if self.entities is None else self.entities.names
            told = {KEYS: [*map(key_name, keys)], OF_LOSS: [*loss_columns(self.losses)]}
            tables.append(rows.replace_schema_metadata({key: json.dumps(names) for key, names in told.items()}))
        found = tables[0]
        if len(tables) > 1 or not _ascending(outcomes[0].rows):
            found = pa.concat_tables(tables, promote_options="default").sort_by("network").combine_chunks()
        for name, values in self.more.items():
            found = found.append_column(name, pa.array(values.numpy()[found["network"].to_numpy()]))
        return found


def of_one(outcome: Outcome, metric: str, entities: Entities | None) -> tuple[dict[str, Any], list[str]]:
    """Every value that a table may have for the single network of `outcome`, by column, even if only because of other
    networks; and the names of the columns that any table of it has."""
    state = outcome.state
    others = dict.fromkeys((*STEPS, *HYPER)) | _described(state) | {"class_weight": _class_weights(state)[0]}
    found = others | _rows(outcome, metric, entities, True, OFF_AT_ZERO).to_pylist()[0]
    return found, Results([outcome], metric, entities).whole.column_names


def _ascending(rows: Tensor) -> bool:
    return bool((rows.diff() > 0).all())


def _differing(outcomes: Sequence[Outcome]) -> list[str]:
    """The names of settings that differ between populations, class weights included."""
    described = [_described(each.state) for each in outcomes]
    found = [name for name in described[0] if len({each[name] for each in described}) > 1]
    weights = {*chain(*(_class_weights(each.state) for each in outcomes if "class_weight" in each.state.hyper))}
    bare = any("class_weight" not in each.state.hyper for each in outcomes)
    return [*(["class_weight"] if len(weights) + bare > 1 else []), *found]


def _class_weights(state: TrainState) -> list[str | None]:
    """The class weights of each network, as text."""
    weight = state.hyper.get("class_weight")
    if weight is None:
        return [None] * state.population.count
    distinct, which = weight.cpu().unique(dim=0, return_inverse=True)
    texts = [",".join(str(each).removesuffix(".0") for each in row) for row in distinct.tolist()]
    return [texts[each] for each in which.tolist()]


def by_part(rows: pa.Table) -> pa.Table:
    """A results table in which class weights that only some folds or entities have are named "by" these: such weights,
    as balanced ones are, belong to one setting."""
    keys = [name for name in ("fold", *keys_of(rows)) if name in rows.column_names]
    if not keys or "class_weight" not in rows.column_names:
        return rows
    parts = rows.group_by(keys).aggregate([]).num_rows
    each = rows.group_by([*keys, "class_weight"]).aggregate([]).group_by("class_weight").aggregate([([], "count_all")])
    own = each.filter(compute.less(each["count_all"], parts))["class_weight"].drop_null()
    column = compute.if_else(compute.is_in(rows["class_weight"], own), f"by {' and '.join(keys)}", rows["class_weight"])
    return rows.set_column(rows.column_names.index("class_weight"), "class_weight", column)


def key_name(name: str) -> str:
    """The column of an entity's key `name`: that name, unless another column of the table may have it."""
    taken = {*WHOLE, *STEPS, *TEXTS, *HYPER, *DESIGNED, *OTHERS}
    taken |= {first + each for first in (VALIDATION, BEST) for each in OTHERS}
    return f"entity.{name}" if name in taken or name.startswith(("entity.", "extra.")) else name


def table_of(results: Any) -> pa.Table:
    """A results table, or a frame of it, as a table whose texts have one type. Raises ConfigError for anything else."""
    try:
        found = results if isinstance(results, pa.Table) else pa.table(results)
    except (TypeError, ValueError):
        raise ConfigError(
            f"results is a {type(results).__name__}; a results table, or a frame of it, expected"
        ) from None
    columns = {name: plain(column) for name, column in zip(found.column_names, found.columns)}
    found = pa.table(columns, metadata=found.schema.metadata)
    if missing := {"status", ranked_by(found)} - columns.keys():
        raise ConfigError(
            f"results has no column {listed(sorted(missing))}; a results table, or a frame of it, expected"
        )
    if not found.num_rows:
        raise ConfigError("results has no rows; one or more networks expected")
    return found


def _described(state: TrainState) -> dict[str, Any]:
    """What a population has in common, as plain values."""
    return described(state.population.spec, state.recipe)


def described(spec: NetworkSpec, recipe: Recipe) -> dict[str, Any]:
    """The same for networks with this specification and recipe."""
    hidden = spec.activations[:-1]
    return {
        "widths": ",".join(map(str, spec.widths)),
        "hidden": ",".join(hidden if len(set(hidden)) > 1 else hidden[:1]),
        "output": spec.activations[-1],
        "loss_function": spec.loss,
        "bias": spec.bias,
        "train_bias": spec.train_bias,
        "optimizer": str(recipe.optimizer),
        "schedule": str(recipe.schedule),
        "batch_size": recipe.batch_size,
        "shuffle": recipe.shuffle,
        "update_order": recipe.update_order,
        "precision": recipe.precision,
        "monitor": recipe.monitor,
        "restore_best": recipe.restore_best,
    }


def numbers(tensor: Tensor) -> np.ndarray:
    """As a NumPy array with its own memory: a table does not change with its networks, nor when a tensor's memory
    moves, as it does on being sent to another process."""
    return tensor.detach().cpu().numpy().copy()


def _rows(outcome: Outcome, metric: str, entities: Entities | None, stops: bool, on: Set[str]) -> pa.Table:
    """The rows of one population. stops: whether networks of any population have stopped; on: hyper-parameters, off at
    0, that are on for some network of any population."""
    rows, state, training, validation, folds, faults = outcome
    names = np.array(NAMES)
    known = best(state) if state.recipe.tracks else {}
    at_best = {BEST + name: numbers(known[each]) for name, each in ((LOSS, LOSS), (metric, METRIC)) if each in known}
    columns = {
        "network": numbers(rows),
        "id": numbers(state.population.ids),
        **({"fold": numbers(state.position)} if folds else {}),
        **({} if entities is None else _names(entities, numbers(state.position))),
        "status": names[numbers(state.status).astype(np.int64)],
        "steps": numbers(state.step),
        **{name: numbers(steps) for name, steps in _steps(state, stops).items()},
        FAULT: _faults(state, faults),
        **at_best,
        "loss": numbers(training.loss),
        metric: numbers(training.metric),
    }
    if validation is not None:
        columns |= {VALIDATION + LOSS: numbers(validation.loss), VALIDATION + metric: numbers(validation.metric)}
    columns |= {setting_column(name): values for name, values in _hyper(state, on).items()}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays |= {name: pa.array(columns[name], mask=columns[name] < 0) for name in STEPS if name in columns}
    arrays |= {name: pa.array(columns[name], mask=columns["best_step"] < 0) for name in at_best}
    return pa.table(arrays)


def _faults(state: TrainState, faults: Tensor | None) -> pa.Array:
    """What first was not finite in the last step of each network; null if it has not diverged, or if unknown."""
    if faults is None:
        return pa.nulls(state.population.count, pa.string())
    names, place = pa.array(quantities(state.population.spec, state.recipe)), numbers(faults)
    return names.take(pa.array(place, mask=place < 0))


def _hyper(state: TrainState, on: Set[str]) -> dict[str, np.ndarray]:
    """The hyper-parameters in use, and a 0 for one that is off here but `on` elsewhere, so that no number depends on
    which networks trained together."""
    recipe, count = state.recipe, state.population.count
    known = TrainConfig(recipe.optimizer, schedule=recipe.schedule, steps=1).defaults(state.population.spec.loss)
    found = {}
    for name in (*known, "class_weight"):
        column = state.hyper.get(name)
        if column is None and name in on:
            found[name] = np.zeros(count)
        elif column is not None and column.shape[1] == 1 and (name not in OFF_AT_ZERO or name in on):
            found[name] = numbers(column[:, 0])
    return found


def _names(entities: Entities, position: np.ndarray) -> dict[str, np.ndarray]:
    """The entity of each network, by key column; text as objects."""
    kinds = [object if any(isinstance(each, str) for each in column) else None for column in entities.values]
    columns = (np.array(column, dtype=kind)[position] for column, kind in zip(entities.values, kinds))
    return {key_name(name): column for name, column in zip(entities.names, columns)}


def _stopped(state: TrainState) -> Tensor:
    """(N,) bool: which networks a decision has stopped."""
    return (state.status[:, None] == torch.tensor(STOPPED)).any(1)


def _steps(state: TrainState, stops: bool) -> dict[str, Tensor]:
    """The steps of STEPS that can occur, (N,) each, -1 for none."""
    found = {"diverged_step": state.diverged_step}
    if stops or {"patience", "target_loss"} & state.hyper.keys():
        found["stopped_step"] = torch.where(_stopped(state), state.step, -1)
    if state.recipe.tracks:
        found["best_step"] = best(state)["step"]
    return found
