"""Studies: what a results table says beyond its best network: the distribution over seeds, the effect of each
hyper-parameter, means of settings over folds and seeds, and of groups by any columns.

    study = gpubp.studies.Study(result.table)  # or pyarrow.parquet.read_table(run_dir + "/results.parquet")
    study.effects()[0]; study.by(["lr", "hidden_width"]); gpubp.studies.distribution(study.values[study.counted])

The figure is the one that ranks networks (results/ranking.py). Networks that diverged have none: groups count them
apart. If topologies differ, there are two more columns: hidden_layers, their number, and hidden_width, the widest. A
standard error is the standard deviation, with n - 1, over the root of n.

Intervals are percentile bootstraps: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Rank
correlations are Spearman's. The explained share is eta squared of the ranks between groups, as in the test of Kruskal
and Wallis, less what groups explain by chance: epsilon squared, Kelley, 1935. It detects a valley, where the
correlation is 0.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pyarrow import compute

from .errors import ConfigError, unknown
from .line import counted, line
from .raw.tables import Array, listed, named
from .results.ranking import best_first, diverged_in, entities, ranks
from .results.table import DESIGNED, FAULT, TEXTS, by_part, table_of
from .settings.config import HYPER
from .system import arrays

BINS, DISTINCT = 6, 12  # bins of a column with more than DISTINCT numbers
RESAMPLES, FEWEST = 2000, 200  # most and fewest of a bootstrap, as DRAWS allows
DRAWS, AT_ONCE, LEVEL = 1 << 28, 1 << 22, 0.95  # numbers drawn in all, and held at once; of an interval
SHAPES = ("hidden_layers", "hidden_width")


class Group(NamedTuple):
    """Some networks. values: what they have in common, by column: a value, or (low, high) of a bin. networks: how many;
    diverged: how many did. mean, error (the mean's standard error), median: of the others' figure, NaN if undefined."""

    values: dict[str, Any]
    networks: int
    diverged: int
    mean: float
    error: float
    median: float


class Effect(NamedTuple):
    """How a column affects the figure. correlation: of their ranks, above 0 if the figure grows with the column, None
    for texts. explained: the share of the ranks' variance that `groups` explain, at most 1, around 0 by chance."""

    name: str
    correlation: float | None
    explained: float
    groups: list[Group]


class Study:
    """The networks of a results table, of pyarrow, or a frame of it. It sees settings that only a design has (init,
    init_scale, epochs, evaluate_every, and steps, as max_steps) if they are appended as columns of these names, as
    `gpubp inspect` does. ranks: ranking.ranks(); figure: its first; values (N,): that figure; counted (N,): whether it
    counts: it is finite and the network did not diverge."""

    def __init__(self, results: Any) -> None:
        results = table_of(results)
        self.results = _with_shapes(results)
        self._compared = by_part(self.results)  # for telling settings apart
        self.figure, *_ = self.ranks = ranks(results)
        self.values: Array = results[self.figure].to_numpy().astype(np.float64)
        self.diverged: Array = diverged_in(results).numpy()
        self.counted: Array = ~self.diverged & np.isfinite(self.values)

    def __repr__(self) -> str:
        varied = f"{listed(self.varied)} varied" if self.varied else "nothing varied"
        return line(f"Study({counted(len(self.values), 'network')} by {self.figure}; {varied})")

    @cached_property
    def varied(self) -> list[str]:
        """The settings that differ between networks: texts, the shapes of topologies, folds, settings that only a
        design has, such as lengths, and hyper-parameters, unless these follow from the texts, as when one optimizer has
        them and another does not."""
        kinds = np.zeros(self._compared.num_rows, dtype=np.int64)
        for name in TEXTS:
            if name in self._compared.column_names:
                kinds = _crossed(kinds, self._compared[name])
        return [name for name in self._compared.column_names if self._differs(name, kinds)]

    def _differs(self, name: str, kinds: Array) -> bool:
        """Whether a column is a setting that differs. kinds (N,): a number for each network's combination of texts."""
        distinct = self._compared[name].unique()
        if name in (*TEXTS, *SHAPES):
            return len(distinct.drop_null()) > 1
        if name in (*DESIGNED, "fold"):
            return len(distinct) > 1
        known = name in HYPER or name.startswith("extra.")
        return known and len(distinct) > 1 and bool(_crossed(kinds, self._compared[name]).max() > kinds.max())

    @cached_property
    def measured(self) -> list[str]:
        """The figures of every network: of the validation data, if there are any, first."""
        names = self.results.column_names
        metric = "accuracy" if "accuracy" in names else "r2"
        found = (f"validation_{self.figure.removeprefix('validation_')}", "validation_loss", f"validation_{metric}")
        return [name for name in dict.fromkeys((*found, "loss", metric)) if name in names]

    @cached_property
    def setting(self) -> Array:
        """(N,): the number of each network's setting; networks of one setting differ only in seed and fold."""
        found = np.zeros(self.results.num_rows, dtype=np.int64)
        for name in self.varied:
            if name != "fold":
                found = _crossed(found, self._compared[name])
        return found

    @cached_property
    def ranking(self) -> Array:
        """The numbers of settings by the mean of the figure, best first, without those that have a diverged network."""
        lost = np.bincount(self.setting, ~self.counted) > 0
        means = [(name, _means(self.setting, self.results[name].to_numpy())[0]) for name in self.ranks]
        order = best_first([(name, torch.from_numpy(each)) for name, each in means]).numpy()
        return np.asarray(order[~lost[order]])

    def quantiles(self, q: Sequence[float]) -> list[float]:
        """Quantiles of the figure over all networks that count; NaN if none does."""
        known = self.values[self.counted]
        return np.quantile(known, q).tolist() if len(known) else [float("nan")] * len(q)

    def distributions(self) -> dict[str, dict[str, Any]]:
        """distribution() of every figure, if all networks have one setting and the same samples; else none."""
        apart = "fold" in self.results.column_names or len(entities(self.results)) > 1
        if self.setting.any() or apart or self.counted.sum() < 2:
            return {}
        columns = {name: self.results[name].to_numpy()[self.counted] for name in self.measured}
        return {name: distribution(values) for name, values in columns.items() if np.isfinite(values).all()}

    def settings(self, top: int) -> list[dict[str, Any]]:
        """The best `top` settings of several networks, over folds, entities and seeds, by the mean of the figure:
        networks, mean and standard error (± name) of each figure, and what differs. Settings of which a network
        diverged are left out; none if no setting has several networks, or if folds have no validation data."""
        top = arrays.count("top", top, 0)
        names = [name for name in self.measured if name.startswith("validation_")]
        if not names and "fold" not in self.results.column_names:
            names = self.measured
        count = np.bincount(self.setting)
        if not names or count.max() == 1:
            return []
        first = np.unique(self.setting, return_index=True)[1]
        means = {name: _means(self.setting, self.results[name].to_numpy()) for name in names}
        own = [name for name in self.varied if name not in ("fold", *SHAPES)]
        found = []
        for each in self.ranking[:top].tolist():
            entry: dict[str, Any] = {"networks": int(count[each])}
            for name, (mean, error) in means.items():
                entry |= {name: float(mean[each]), f"± {name}": float(error[each])}
            found.append(entry | {name: self._compared[name][int(first[each])].as_py() for name in own})
        return found

    def faults(self) -> list[dict[str, Any]]:
        """What first was not finite in networks that diverged, if known: how many, and the median of their steps."""
        if FAULT not in self.results.column_names:  # a table of an older version
            return []
        groups = self.results.filter(self.diverged).group_by(FAULT).aggregate([("diverged_step", "list")]).to_pylist()
        found = [(each[FAULT], np.array(each["diverged_step_list"])) for each in groups]
        found.sort(key=lambda each: -len(each[1]))
        return [{FAULT: name, "networks": len(at), "median_step": float(np.median(at))} for name, at in found]

    def effects(self) -> list[Effect]:
        """The effect of everything that differs, the strongest first."""
        found = [self._effect(name) for name in self.varied]
        return sorted(found, key=lambda effect: -np.nan_to_num(effect.explained, nan=-np.inf))

    def _effect(self, name: str) -> Effect:
        codes, _ = self._groups(name)
        column, correlation = self._compared[name], None
        if _is_number(column) and name != "fold":
            use = self.counted & ~np.isnan(numbers := _numbers(column))
            correlation = spearman(numbers[use], self.values[use])
        return Effect(name, correlation, explained(codes[self.counted], self.values[self.counted]), self.by([name]))

    def by(self, names: str | Sequence[str]) -> list[Group]:
        """The networks in groups by a column, or a list of one or two. Numbers are in order, in bins if there are many:
        of equal widths, or of equal ratios if their median is nearer to the middle of the logarithms; texts in order of
        appearance; last None, for networks without a value. Raises ConfigError for unknown columns."""
        names = named("by", names)
        if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
            raise ConfigError(f"by {', '.join(names) or 'nothing'}: one or two columns, each once, expected")
        labels: list[dict[str, Any]] = [{}]
        group = np.zeros(len(self.values), dtype=np.int64)
        for name in names:
            codes, own = self._groups(name)
            group = group * len(own) + codes
            labels = [{**before, name: label} for before in labels for label in own]
        return [self._group(label, group == number) for number, label in enumerate(labels) if (group == number).any()]

    def _group(self, values: dict[str, Any], inside: Array) -> Group:
        figures, many = self.values[inside & self.counted], int(inside.sum())
        mean, error = (float(each[0]) for each in _means(np.zeros(len(figures), int), figures, 1))
        middle = float(np.median(figures)) if len(figures) else float("nan")
        return Group(values, many, int((inside & self.diverged).sum()), mean, error, middle)

    def _groups(self, name: str) -> tuple[Array, list[Any]]:
        """(N,): the number of each network's group; and what each group has in common."""
        if name not in self.results.column_names:
            raise ConfigError(unknown("by: column", name, self.results.column_names))
        column = self._compared[name]
        if pa.types.is_floating(column.type):
            column = compute.if_else(compute.is_nan(column), None, column)
        distinct = [each for each in column.unique().to_pylist() if each is not None]
        if _is_number(column) and len(distinct) > DISTINCT:
            return _bins(_numbers(column))
        labels = [*(sorted(distinct) if _is_number(column) else distinct), *[None] * bool(column.null_count)]
        place = {value: number for number, value in enumerate(labels)}
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        return np.array([place[each] for each in encoded.dictionary.to_pylist()])[encoded.indices.to_numpy()], labels


def distribution(values: Array, seed: int = 0) -> dict[str, Any]:
    """Of numbers (n,): networks, mean, std (n - 1), min, q25, median, q75, max; mean_interval and median_interval of
    bootstrap() at LEVEL, and the resamples behind them."""
    values = arrays.column("values", values)
    parts = dict(zip(("min", "q25", "median", "q75", "max"), np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()))
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    found = {"networks": len(values), "mean": float(values.mean()), "std": spread, **parts}
    return found | bootstrap(values, seed)


def bootstrap(values: Array, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> dict[str, Any]:
    """mean_interval and median_interval, (low, high), by the percentile bootstrap of numbers (n,), with NumPy's PCG64
    of this seed; resamples: the number drawn, fewer for very many numbers."""
    values = arrays.column("values", values)
    source, left = np.random.default_rng(seed), max(min(resamples, DRAWS // len(values)), FEWEST)
    found = []
    for first in range(0, left, most := max(1, AT_ONCE // len(values))):
        drawn = values[source.integers(len(values), size=(min(most, left - first), len(values)))]
        found.append(np.stack((drawn.mean(1), np.median(drawn, 1, overwrite_input=True))))
    ends = np.quantile(np.concatenate(found, 1), ((1 - level) / 2, (1 + level) / 2), axis=1).T.tolist()
    return {"mean_interval": ends[0], "median_interval": ends[1], "resamples": left}


def spearman(one: Array, other: Array) -> float:
    """The rank correlation of two columns (n,), ties at their mean rank; NaN if a column is constant."""
    ranks = [_ranks(each) - (len(each) + 1) / 2 for each in (one, other)]
    size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / size) if size else float("nan")


def explained(groups: Array, values: Array) -> float:
    """The share of the variance of the ranks of `values` (n,) that numbered groups (n,) explain, less chance:
    1 - (1 - eta squared) (n - 1) / (n - groups); NaN if there is nothing to explain."""
    if not len(values):
        return float("nan")
    ranks, codes = _ranks(values), np.unique(groups, return_inverse=True)[1]
    count = np.bincount(codes)
    within, all_of_it = ((ranks - (np.bincount(codes, ranks) / count)[codes]) ** 2).sum(), ((ranks - ranks.mean()) ** 2)
    free = len(ranks) - len(count)
    total = all_of_it.sum()
    return float(1 - within / total * (len(ranks) - 1) / free) if free and total else float("nan")


def _ranks(values: Array) -> Array:
    """Ranks (n,) from 1, ties at their mean."""
    _, codes, count = np.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum()
    return np.asarray((last - (count - 1) / 2)[codes])


def _means(groups: Array, values: Array, count: int = 0) -> tuple[Array, Array]:
    """Means and their standard errors of the values (n,) in each of numbered groups, NaN if undefined."""
    many = np.bincount(groups, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(groups, values, count) / many
        error = np.sqrt(np.bincount(groups, (values - mean[groups]) ** 2, count) / (many - 1) / many)
    return mean, np.where(many > 1, error, np.nan)


def _bins(values: Array) -> tuple[Array, list[Any]]:
    """(N,): the bin of each number; and the bins, the last ones infinity, and None for NaN."""
    known = values[np.isfinite(values)]
    low, high, middle = float(known.min()), float(known.max()), float(np.median(known))
    edges = np.linspace(low, high, BINS + 1)
    if low > 0 and abs(np.log(middle / low) / np.log(high / low) - 0.5) < abs((middle - low) / (high - low) - 0.5):
        edges = np.geomspace(low, high, BINS + 1)
    codes = np.searchsorted(edges[1:-1], values, "right")
    codes = np.where(np.isposinf(values), BINS, np.where(np.isnan(values), BINS + 1, codes))
    return codes, [*zip(edges[:-1].tolist(), edges[1:].tolist()), math.inf, None]


def _with_shapes(results: pa.Table) -> pa.Table:
    """The table with SHAPES, and without the activation's name where there is no hidden layer."""
    if "widths" not in results.column_names:
        return results
    distinct = results["widths"].unique().to_pylist()
    hidden = {text: [int(width) for width in str(text).split(",")[1:-1]] for text in distinct}
    texts = results["widths"].to_pylist()
    layers = pa.array([len(hidden[text]) for text in texts])
    widest = pa.array([max(hidden[text], default=None) for text in texts], pa.int64())
    if "hidden" in results.column_names:
        known = compute.if_else(compute.equal(results["hidden"], ""), None, results["hidden"])
        results = results.set_column(results.column_names.index("hidden"), "hidden", known)
    return results.append_column("hidden_layers", layers).append_column("hidden_width", widest)


def _crossed(codes: Array, column: pa.ChunkedArray) -> Array:
    """(N,): numbers from 0, equal where both `codes` and the column, which may miss values, are equal."""
    own = column.combine_chunks().dictionary_encode(null_encoding="encode").indices.to_numpy()
    return np.unique(codes * (own.max() + 1) + own, return_inverse=True)[1]


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _numbers(column: pa.ChunkedArray) -> Array:
    """A column (N,) of numbers as float64, NaN where it is missing."""
    return np.asarray(column.cast(pa.float64()).to_numpy())
