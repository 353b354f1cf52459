"""What `inspect` prints of a study: tables that fit 80 columns where they can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..line import counted, line
from ..results.ranking import worth
from ..results.table import FAULT
from ..system.free import size

if TYPE_CHECKING:
    from ..runs.planning import Plan
    from ..studies import Group, Study

BAR = 16  # characters
MOST = 10  # networks side by side
MOST_PARTS = 20  # populations of a plan
LEGEND = """
explained: the share of the variance of ranks between groups, less chance
bars: medians, between the quantiles of all networks"""


def networks(screen: Console, picked: Mapping[str, Sequence[Mapping[str, Any]]], many: Mapping[str, int]) -> None:
    """The best, worst and diverged networks, a row each, or, if they do not fit, some columns at a time. If the best
    are all networks, the worst are not listed again."""
    for name, entries in picked.items():
        if not entries or (name == "worst" and len(entries) == many[name]):
            continue
        alike = {"status", "steps"} if name != "diverged" else {"status"}
        some = [name for name in entries[0] if any(entry[name] is not None for entry in entries)]
        shown = [each for each in some if each not in alike or len({entry[each] for entry in entries}) > 1]
        rows = [[_shown(entry[each]) for each in shown] for entry in entries]
        _rows(screen, f"{name} of {many[name]:,}", shown, rows)


def _rows(screen: Console, title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, or, if it does not fit, a column for each row, some at a time."""
    table = _table(names)
    for row in rows:
        table.add_row(*row)
    if _fits(screen, table):
        _print(screen, title, table)
        return
    turned = [_turned(names, rows[:count]) for count in range(min(len(rows), MOST), 0, -1)]
    fitting = next((len(table.columns) - 1 for table in turned if _fits(screen, table)), 1)
    for first in range(0, len(rows), fitting):
        _print(
            screen,
            title if not first else f"{title}, from {first + 1}",
            _turned(names, rows[first : first + fitting]),
        )


def _turned(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A column per row."""
    columns = list(zip(names, *rows))
    table = _table(columns[0], whole=True)
    for column in columns[1:]:
        table.add_row(*column)
    return table


def _fits(screen: Console, table: Table) -> bool:
    return Measurement.get(screen, screen.options.update(width=10_000), table).maximum <= screen.width


def distributions(screen: Console, found: Mapping[str, Mapping[str, Any]]) -> None:
    """A seed study: a column per figure."""
    if not found:
        return
    first = next(iter(found.values()))
    table = _table(["", *found])
    for name in ("min", "q25", "median", "q75", "max", "mean", "std"):
        table.add_row(name, *(_shown(each[name]) for each in found.values()))
        if name in ("median", "mean"):
            ends = [each[f"{name}_interval"] for each in found.values()]
            table.add_row("  95 %", *(f"{_shown(low)}..{_shown(high)}" for low, high in ends))
    below = f"95 %: percentile bootstrap, {first['resamples']:,} resamples"
    _print(screen, f"{first['networks']:,} networks that differ in their seed alone", table, below)


def settings(screen: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """The best settings of several networks."""
    if not entries:
        return
    names = [name for name in entries[0] if not name.startswith("± ")]
    rows = [[_with_error(entry[name], entry.get(f"± {name}")) for name in names] for entry in entries]
    _rows(screen, "best settings, over folds, entities and seeds (mean ± standard error)", names, rows)


def parts(screen: Console, plan: Plan) -> None:
    """The populations of a plan, with what differs between them."""
    names = plan.differing
    table = _table([*names, "networks", "parameters", "network-steps", "engine", "a network"], whole=True)
    for each in plan.parts[:MOST_PARTS]:
        numbers = (f"{number:,}" for number in (each.networks, each.parameters, each.network_steps))
        table.add_row(*(_shown(each.settings[name]) for name in names), *numbers, each.engine, size(each.bytes))
    left = len(plan.parts) - MOST_PARTS
    more = f"and {counted(left, 'population')} more: --json has all" if left > 0 else ""
    _print(screen, counted(len(plan.parts), "population"), table, more)


def faults(screen: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """What first was not finite in networks that diverged."""
    if not entries:
        return
    table = _table(["not finite first", "networks", "median step"], whole=True)
    for entry in entries:
        table.add_row(entry[FAULT] or "unknown", f"{entry['networks']:,}", _shown(entry["median_step"]))
    _print(screen, "networks that diverged", table)


def effects(screen: Console, study: Study, top: int) -> None:
    """The strongest effects."""
    found = study.effects()
    for effect in found[:top]:
        known = effect.correlation is not None and math.isfinite(effect.correlation)
        about = [f"rank correlation {effect.correlation:+.2f}"] if known else []
        if math.isfinite(effect.explained):
            about.append(f"explained {100 * max(effect.explained, 0):.0f} %")
        groups = effect.groups
        if any(isinstance(group.values[effect.name], str) for group in groups):
            groups = sorted(groups, key=lambda group: float(worth(study.figure, torch.tensor(group.median))))
        _listed(screen, study, f"{study.figure} by {effect.name}: {', '.join(about)}", groups[: 2 * top])
        if len(groups) > 2 * top:
            screen.print(f"and {len(groups) - 2 * top:,} more: --by {line(effect.name)}")
    if len(found) > top:
        screen.print(f"\nweaker: {line(', '.join(effect.name for effect in found[top:]))}", highlight=False)
    if found:
        screen.print(LEGEND, highlight=False)


def grouped(screen: Console, study: Study, groups: Sequence[Group]) -> None:
    """Groups by one column, or the medians of groups by two, rows by columns, the best with a star."""
    names = list(groups[0].values)
    if len(names) == 1:
        _listed(screen, study, f"{study.figure} by {names[0]}", groups)
        return
    rows, columns = (sorted({group.values[name]: None for group in groups}, key=_place) for name in names)
    medians = {tuple(group.values.values()): group.median for group in groups}
    known = [median for median in medians.values() if math.isfinite(median)]
    best = min(known, key=lambda median: float(worth(study.figure, torch.tensor(median))), default=None)
    table = _table(["", *map(_label, columns)])
    for row in rows:
        values = [medians.get((row, column)) for column in columns]
        table.add_row(
            _label(row), *(_shown(each) + ("*" if each == best and each is not None else "") for each in values)
        )
    _print(screen, f"median {study.figure} by {names[0]} (down) and {names[1]} (across)", table)


def _listed(screen: Console, study: Study, title: str, groups: Sequence[Group]) -> None:
    """Groups by one column, with a bar for the median, between quantiles of all networks."""
    (name,), (low, high) = groups[0].values, study.quantiles((0.05, 0.95))
    lost = any(group.diverged for group in groups)
    table = _table([name, "networks", *["diverged"] * lost, "mean", "median"])
    table.add_column("5 % ".ljust(BAR - 4) + "95 %")
    full = "█" if screen.encoding.startswith("utf") else "#"
    for group in groups:
        share = (group.median - low) / (high - low) if high > low and math.isfinite(group.median) else 0.0
        counts = [f"{group.networks:,}", *[f"{group.diverged:,}"] * lost]
        bar = full * round(BAR * min(max(share, 0.0), 1.0))
        mean = _with_error(group.mean, group.error)
        table.add_row(_label(group.values[name]), *counts, mean, _shown(group.median), bar)
    _print(screen, title, table)


def _print(screen: Console, title: str, table: Table, below: str = "") -> None:
    screen.print(f"\n{line(title)}", style="bold", highlight=False, soft_wrap=True)
    screen.print(table)
    if below:
        screen.print(below, highlight=False)


def _table(columns: Sequence[str], whole: bool = False) -> Table:
    """A table whose columns' names break after an underscore, unless `whole`. Numbers are never cut off."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for name in columns:
        head = line(name) if whole else line(name).replace("_", "_\n", 1).replace("..", "..\n")
        table.add_column(head, justify="right", overflow="fold")
    return table


def _place(value: Any) -> tuple[bool, float]:
    """A sort key for values and bins of numbers; texts keep their order; None is last."""
    number = value[0] if isinstance(value, tuple) else value
    return value is None, number if isinstance(number, int | float) else 0.0


def _with_error(mean: Any, error: float | None) -> str:
    return _shown(mean) if error is None or math.isnan(error) else f"{_shown(mean)} ± {error:.2g}"


def _label(value: Any) -> str:
    """A value, "none", or a range as in flags."""
    if value is None:
        return "none"
    if not isinstance(value, tuple):
        return _shown(value)
    return "..".join(f"{end:.0f}" if 10 <= abs(end) < 1e5 else f"{end:.2g}" for end in value)


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else line(value)
