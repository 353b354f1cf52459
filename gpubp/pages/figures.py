"""What the figures of a report show, as plain numbers of five digits; report.js draws them. Their size is bounded,
however many networks, evaluations and samples there are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..raw.tables import Array
from ..results.ranking import keys_of, order_of, worth
from ..studies import Group, Study

NETWORKS, LOST = 1000, 150  # networks shown singly: with a figure, and diverged
BEST = 10  # of the best that are among them
EVALUATIONS, KNOTS = 250, 60  # points of bands, and of one network's curve
SETTINGS, CATEGORIES, BINS = 12, 20, 40
WIDE = 10  # ratio of an axis's ends above which it is logarithmic
BANDS = ("min", "q10", "q25", "median", "q75", "q90", "max")


def number(value: Any) -> Any:
    """A number with five digits; None for one that is not finite; anything else unchanged."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def numbers(values: Any) -> list[Any]:
    """number() of each."""
    return [number(each) for each in (values.tolist() if hasattr(values, "tolist") else values)]


def settings(values: Sequence[Any]) -> list[Any]:
    """The same for settings; an infinite one becomes the text "inf"."""
    return ["inf" if isinstance(each, float) and each == math.inf else number(each) for each in values]


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of the first `count` whole numbers, evenly spaced, with both ends."""
    return sorted({*np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()}) if count else []


def wide(values: Any) -> bool:
    """Whether an axis of these numbers is logarithmic."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return bool(len(known)) and bool(known.min() > 0) and bool(known.max() > WIDE * known.min())


def bands(history: Sequence[Mapping[str, Any]], clock: str) -> dict[str, Any]:
    """Quantiles over networks at each evaluation: at, its `clock`, and BANDS by name for each known figure."""
    some = [history[at] for at in thinned(len(history), EVALUATIONS)]
    panels = {}
    for key in ("loss", "validation_loss", "metric"):
        if any(each[key] for each in some):
            panels[key] = {name: [number((each[key] or {}).get(name)) for each in some] for name in BANDS}
    return {"at": [each[clock] for each in some], "panels": panels}


def statuses(history: Sequence[Mapping[str, Any]], clock: str, networks: int) -> dict[str, Any]:
    """at (the `clock`), seconds and rate of each evaluation, and how many of the `networks` had each status that
    occurs; networks not counted were waiting for a slot."""
    some = [history[at] for at in thinned(len(history), EVALUATIONS)]
    counted = [each["statuses"] | {"waiting": max(0, networks - sum(each["statuses"].values()))} for each in some]
    names = [name for name in (counted[0] if some else ()) if any(each.get(name) for each in counted)]
    return {
        "at": [each[clock] for each in some],
        "seconds": [number(each["seconds"]) for each in some],
        "rate": [number(each["network_steps_per_second"]) for each in some],
        "counts": {name: [each.get(name, 0) for each in counted] for name in names},
    }


def shown(study: Study) -> tuple[list[int], list[int]]:
    """The networks shown singly: evenly spaced by rank, with the best, the median and the worst, best first; and some
    that diverged."""
    ranked = order_of(study.results).numpy()
    ranked = ranked[study.counted[ranked]]
    at = sorted(
        {*thinned(len(ranked), NETWORKS), *range(min(BEST, len(ranked))), *([len(ranked) // 2] if len(ranked) else [])}
    )
    lost = np.flatnonzero(~study.counted)
    return ranked[at].tolist(), lost[thinned(len(lost), LOST)].tolist()


def points(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """The networks shown singly, column by column: row, rank from 1 (None if diverged), figure, and the values of the
    columns `names`."""
    good, lost = shown(study)
    rows = [*good, *lost]
    ranked = order_of(study.results).numpy()
    rank = dict(zip(ranked.tolist(), range(1, len(ranked) + 1)))
    return {
        "network": study.results["network"].take(pa.array(rows, pa.int64())).to_pylist(),
        "rank": [rank.get(row) for row in good] + [None] * len(lost),
        "figure": numbers(study.values[good]) + [None] * len(lost),
        "columns": {name: settings(study.results[name].take(pa.array(rows, pa.int64())).to_pylist()) for name in names},
    }


def effects(study: Study) -> list[dict[str, Any]]:
    """The settings with the strongest effects, and the keys of entities: name, explained, correlation, whether the axis
    is logarithmic, and groups; for very many texts, the largest groups."""
    found = [(each.name, each.explained, each.correlation, each.groups) for each in study.effects()]
    keys = [key for key in keys_of(study.results) if len(study.results[key].unique()) > 1]
    found = [*found, *((key, math.nan, None, study.by([key])) for key in keys)]
    return [_effect(study, *each) for each in found[:SETTINGS]]


def _effect(
    study: Study, name: str, explained: float, correlation: float | None, groups: list[Group]
) -> dict[str, Any]:
    kind = study.results[name].type
    figures = bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    values, left = [each.values[name] for each in groups], 0
    own = figures and 1 < len(groups) == study.results.num_rows  # each network has its own number
    if not figures:
        left = max(0, len(groups) - CATEGORIES)
        groups = sorted(groups, key=lambda each: -each.networks)[:CATEGORIES]
        groups.sort(key=lambda each: float(worth(study.figure, torch.tensor(each.median))))
    return {
        "name": name,
        "explained": number(explained),
        "correlation": number(correlation),
        "numbers": own or any(isinstance(each, tuple) for each in values),
        "log": _geometric(values) or (own and wide(values)),
        "groups": [group(each) for each in groups],
        "left": left,
    }


def _geometric(values: Sequence[Any]) -> bool:
    """Whether these are bins of equal ratios."""
    ratios = [high / low for low, high in (each for each in values if isinstance(each, tuple)) if low > 0]
    return len(ratios) > 1 and max(ratios) < min(ratios) * (1 + 1e-6)


def group(given: Group) -> dict[str, Any]:
    """A group of networks: value or low and high of each column, and its figures."""
    values = given.values.values()
    return {
        "values": [numbers(each) if isinstance(each, tuple) else settings([each])[0] for each in values],
        "networks": given.networks,
        "diverged": given.diverged,
        **{name: number(getattr(given, name)) for name in ("mean", "error", "median")},
    }


def pair(study: Study, found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The medians of groups by the two strongest settings together, if each has few groups."""
    few = [each for each in found if each["explained"] is not None and 1 < len(each["groups"]) <= CATEGORIES]
    names = [each["name"] for each in few[:2]]
    if len(names) < 2:
        return None
    groups = study.by(names)
    filled = sum(each.networks for each in groups) / len(groups)
    return {"names": names, "groups": [group(each) for each in groups]} if filled >= 2 else None


def histogram(study: Study) -> dict[str, Any] | None:
    """How many networks have a figure between the edges of at most BINS bins, logarithmic if the range is wide."""
    values = study.values[study.counted]
    if len(values) < 2 or values.min() == values.max():
        return None
    bins, log = max(5, min(BINS, round(2 * len(values) ** (1 / 2)))), wide(np.quantile(values, (0, 0.9)))
    low, high = float(values.min()), float(values.max())
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return {"log": log, "edges": numbers(edges), "counts": np.histogram(values, edges)[0].tolist()}


def curves(records: Mapping[int, Array]) -> dict[str, Any]:
    """The curves of networks by row: step, loss and, if known, validation loss, at no more than KNOTS evaluations."""
    found = {}
    for row, each in records.items():
        some = each[thinned(len(each), KNOTS)]
        values = [some["step"].tolist(), numbers(some["loss"])]
        known = np.isfinite(some["validation_loss"]).any()
        found[str(row)] = [*values, numbers(some["validation_loss"])] if known else values
    return found
