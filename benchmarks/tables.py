"""What the console shows: rich tables of a report's parts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table


def rates(title: str, result: dict[str, Any]) -> Table:
    """The figures of one workload and optimizer."""
    first = next(iter(result["contenders"]))
    columns = ("network-steps/s", f"{first} / this (95 %)", "of peak", "one call alone ms", "compile s",
               "pays after steps", "")  # fmt: skip
    table = _table(f"{title}, {result['optimizer']}", ("contender",), columns)
    for name, own in result["contenders"].items():
        alone = own.get("seconds_alone")
        compiling, paid = own["compile_seconds"], own["break_even_steps"]
        never = "never" if compiling is not None and "eager" in result["contenders"] else ""
        table.add_row(
            name, f"{own['rate']:,.0f}", "1" if name == first else _range(own["ratio"]), f"{own['share_of_peak']:.1%}",
            f"{1e3 * statistics.median(alone):.2f}" if alone else "",
            "" if compiling is None else f"{compiling:.1f}", never if paid is None else f"{paid:,.0f}",
            "" if own.get("exact", True) else "other arithmetic",
        )  # fmt: skip
    return table


def absent(result: dict[str, Any]) -> Iterator[str]:
    """A line for every contender that was not run."""
    for name, reason in result["absent"].items():
        yield f"  {name}: {reason}"


def summary(results: Sequence[dict[str, Any]], goals: Mapping[tuple[str, str], float]) -> Table:
    """The first contender against the best peer of every row."""
    columns = ("network-steps/s", "over the best peer (95 %)", "goal", "of peak")
    table = _table("Against the best peer", ("workload", "optimizer", "contender", "best peer"), columns)
    for result in results:
        best, (first, own) = result["best_peer"], next(iter(result["contenders"].items()))
        goal = goals.get((result["workload"], result["optimizer"]))
        table.add_row(
            result["workload"], result["optimizer"], first, best["name"] if best else "", f"{own['rate']:,.0f}",
            _range(best) if best else "", f"{goal:g}" if goal else "", f"{own['share_of_peak']:.1%}",
        )  # fmt: skip
    return table


def end_to_end(result: dict[str, Any]) -> Table:
    """W5b."""
    low, high = result["learning_rates"]
    title = (
        f"W5b: digits, 64-32-10, Adam, learning rates {low:g} to {high:g}, whole trainings to a median accuracy of "
        f"{result['accuracy']:.0%} held out; scikit-learn in {result['threads']} processes"
    )
    columns = ("networks", "epochs", "accuracy", "ms / network", "to accuracy (95 %)", "network-steps/s", "per step")
    table = _table(title, ("contender",), columns)
    for name, own in result["contenders"].items():
        alone = name == "gpubp"
        table.add_row(
            f"gpubp.train, {result['engine']}" if alone else name, f"{own['networks']:,}", str(own["epochs"]),
            f"{own['median_accuracy']:.3f}", f"{own['ms_per_network']:.2f}",
            "1" if alone else _range(own["to_accuracy"]), f"{own['rate']:,.0f}",
            "1" if alone else _range(own["for_steps"]),
        )  # fmt: skip
    return table


def lanes(cases: Sequence[dict[str, Any]], optimizer: str) -> Table:
    """Lanes as networks over lanes as outputs, by width of the hidden layer."""
    shown = [case for case in cases if case["optimizer"] == optimizer and len(case["widths"]) == 3]
    rows: dict[tuple[int, int, int], dict[int, float]] = {}
    for case in shown:
        inputs, hidden, outputs = case["widths"]
        rows.setdefault((inputs, outputs, case["batch"]), {})[hidden] = case["lanes"]["median"]
    widths = sorted({hidden for row in rows.values() for hidden in row})
    title = f"Rate with lanes as networks over the rate with lanes as outputs, {optimizer}, one thread"
    table = _table(title, ("hidden width",), [str(width) for width in widths])
    for (inputs, outputs, batch), row in rows.items():
        found = [f"{row[width]:.1f}" if width in row else "" for width in widths]
        table.add_row(f"{inputs} inputs, {outputs} outputs, batch {batch}", *found)
    return table


def gains(title: str, results: Sequence[dict[str, Any]]) -> Table:
    """The rate of one layout over another's, by topology."""
    table = _table(title, ("network", "batch"), ("rate (95 %)",))
    for result in results:
        table.add_row("-".join(map(str, result["widths"])), str(result["batch"]), _range(result["gain"]))
    return table


def calls(cases: Sequence[dict[str, Any]]) -> Table:
    """Calls of one step."""
    parts = list(cases[0]["us"])
    table = _table("Calls of one step, back to back: us of a call", ("networks", "engine"), parts)
    for own in cases:
        table.add_row(own["case"], own["engine"], *(f"{own['us'][part]:.1f}" for part in parts))
    return table


def evaluations(cases: Sequence[dict[str, Any]]) -> Table:
    """Evaluation against training."""
    columns = ("networks", "samples", "ms", "over its forward FLOP at training's rate")
    table = _table("Evaluations: loss and metric of all networks", ("workload", "engine"), columns)
    for own in cases:
        counts = (f"{own[name]:,}" for name in ("networks", "samples"))
        table.add_row(own["workload"], own["engine"], *counts, f"{own['ms']:.2f}", f"{own['over_forward']:.2f}")
    return table


def parts(name: str, result: dict[str, Any]) -> Table:
    """A run of the command line, part by part."""
    heads = list(result["median"])
    table = _table(f"{name}: seconds of gpubp {' '.join(result['command'])}", ("process",), (*heads, "total / steps"))
    rows = {"the first, which compiles": result["first"], f"median of {len(result['runs'])}": result["median"]}
    for row, own in rows.items():
        table.add_row(row, *(f"{own[part]:.2f}" for part in heads), f"{own['total'] / own['steps']:.2f}")
    return table


def beside_jax(results: Sequence[dict[str, Any]]) -> Table:
    """Whole trainings."""
    columns = ("ms", "JAX's time over it (95 %)", "with spinning processes (95 %)")
    table = _table(
        "Whole trainings: gpubp.train, and JAX's jit of vmap of scan", ("training", "engine", "JAX"), columns
    )
    for own in results:
        spent = f"{1e3 * statistics.median(own['quiet']['gpubp']):.1f}"
        ratios = (_range(own[name]) for name in ("quiet_ratio", "busy_ratio"))
        table.add_row(own["case"], own["engine"], own["best"], spent, *ratios)
    return table


def _range(ratio: dict[str, float]) -> str:
    median, low, high = (_short(ratio[key]) for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def _table(title: str, words: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
