"""What the console shows: rich tables of a report's parts."""

import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDE = 140  # columns, unless on a terminal


def screen() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def table(title: str, words: Sequence[str], figures: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows under headings: words on the left, then figures, flush right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate((*words, *figures)):
        made.add_column(heading, justify="left" if number < len(words) else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def rates(title: str, result: dict[str, Any]) -> Table:
    """The figures of one workload and optimizer."""
    first, rows = next(iter(result["contenders"])), []
    for name, own in result["contenders"].items():
        alone, compiling, paid = own["seconds_alone"], own["compile_seconds"], own["break_even_steps"]
        never = "never" if compiling is not None and "eager" in result["contenders"] else ""
        rows.append((
            name, f"{own['rate']:,.0f}", "1" if name == first else _range(own["ratio"]), f"{own['share_of_peak']:.1%}",
            f"{1e3 * statistics.median(alone):.2f}" if alone else "",
            "" if compiling is None else f"{compiling:.1f}", never if paid is None else f"{paid:,.0f}",
            "" if own["exact"] else "other arithmetic",
        ))  # fmt: skip
    columns = ("network-steps/s", f"{first} / this (95 %)", "of peak", "one call alone ms", "compile s",
               "pays after steps", "")  # fmt: skip
    return table(f"{title}, {result['optimizer']}", ("contender",), columns, rows)


def absent(result: dict[str, Any]) -> Iterator[str]:
    """A line for every contender that was not run."""
    for name, reason in result["absent"].items():
        yield f"  {name}: {reason}"


def summary(results: Sequence[dict[str, Any]], goals: Mapping[tuple[str, str], float]) -> Table:
    """The first contender against the best peer of every row."""
    rows = []
    for result in results:
        best, (first, own) = result["best_peer"], next(iter(result["contenders"].items()))
        goal = goals.get((result["workload"], result["optimizer"]))
        rows.append((
            result["workload"], result["optimizer"], first, best["name"] if best else "", f"{own['rate']:,.0f}",
            _range(best) if best else "", f"{goal:g}" if goal else "", f"{own['share_of_peak']:.1%}",
        ))  # fmt: skip
    columns = ("network-steps/s", "over the best peer (95 %)", "goal", "of peak")
    return table("Against the best peer", ("workload", "optimizer", "contender", "best peer"), columns, rows)


def end_to_end(result: dict[str, Any]) -> Table:
    """W5b."""
    low, high = result["learning_rates"]
    title = (
        f"W5b: digits, 64-32-10, Adam, learning rates {low:g} to {high:g}, whole trainings to a median accuracy of "
        f"{result['accuracy']:.0%} held out; gpubp by {result['engine']}, scikit-learn in {result['threads']} processes"
    )
    columns = ("networks", "epochs", "accuracy", "ms / network", "to accuracy (95 %)", "network-steps/s", "per step")
    rows = [
        (
            name, f"{own['networks']:,}", str(own["epochs"]), f"{own['median_accuracy']:.3f}",
            f"{own['ms_per_network']:.2f}", _range(own["to_accuracy"]), f"{own['rate']:,.0f}", _range(own["for_steps"]),
        )
        for name, own in result["contenders"].items()
    ]  # fmt: skip
    return table(title, ("contender",), columns, rows)


def lanes(cases: Sequence[dict[str, Any]], optimizer: str) -> Table:
    """Lanes as networks over lanes as outputs, by width of the hidden layer."""
    found: dict[tuple[int, int, int], dict[int, str]] = {}
    for case in cases:
        if case["optimizer"] == optimizer and len(case["widths"]) == 3:
            inputs, hidden, outputs = case["widths"]
            found.setdefault((inputs, outputs, case["batch"]), {})[hidden] = f"{case['lanes']['median']:.1f}"
    widths = sorted({hidden for row in found.values() for hidden in row})
    rows = [
        (f"{inputs} inputs, {outputs} outputs, batch {batch}", *(row.get(width, "") for width in widths))
        for (inputs, outputs, batch), row in found.items()
    ]
    title = f"Rate with lanes as networks over the rate with lanes as outputs, {optimizer}, one thread"
    return table(title, ("hidden width",), [*map(str, widths)], rows)


def gains(title: str, results: Sequence[dict[str, Any]]) -> Table:
    """The rate of one layout over another's, by topology."""
    rows = [("-".join(map(str, own["widths"])), str(own["batch"]), _range(own["gain"])) for own in results]
    return table(title, ("network", "batch"), ("rate (95 %)",), rows)


def calls(cases: Sequence[dict[str, Any]]) -> Table:
    """Calls of one step."""
    rows = [(own["case"], own["engine"], *(f"{spent:.1f}" for spent in own["us"].values())) for own in cases]
    return table("Calls of one step, back to back: us of a call", ("networks", "engine"), [*cases[0]["us"]], rows)


def evaluations(cases: Sequence[dict[str, Any]]) -> Table:
    """Evaluation against training."""
    rows = [
        (own["workload"], own["engine"], f"{own['networks']:,}", f"{own['samples']:,}", f"{own['ms']:.2f}",
         f"{own['over_forward']:.2f}") for own in cases
    ]  # fmt: skip
    columns = ("networks", "samples", "ms", "over its forward FLOP at training's rate")
    return table("Evaluations: loss and metric of all networks", ("workload", "engine"), columns, rows)


def parts(name: str, result: dict[str, Any]) -> Table:
    """A run of the command line, part by part."""
    processes = {"the first, which compiles": result["first"], f"median of {len(result['runs'])}": result["median"]}
    rows = [
        (process, *(f"{spent:.2f}" for spent in own.values()), f"{own['total'] / own['steps']:.2f}")
        for process, own in processes.items()
    ]
    title = f"{name}: seconds of gpubp {' '.join(result['command'])}"
    return table(title, ("process",), (*result["median"], "total / steps"), rows)


def beside_jax(results: Sequence[dict[str, Any]]) -> Table:
    """Whole trainings."""
    rows = [
        (own["case"], own["engine"], own["best"], f"{1e3 * statistics.median(own['quiet']['gpubp']):.1f}",
         _range(own["quiet_ratio"]), _range(own["busy_ratio"])) for own in results
    ]  # fmt: skip
    columns = ("ms", "JAX's time over it (95 %)", "with spinning processes (95 %)")
    title = "Whole trainings: gpubp.train, and JAX's jit of vmap of scan"
    return table(title, ("training", "engine", "JAX"), columns, rows)


def _range(ratio: dict[str, float]) -> str:
    figures = (ratio[name] for name in ("median", "low", "high"))
    median, low, high = (f"{each:.2f}" if each < 100 else f"{each:,.0f}" for each in figures)
    return f"{median} ({low} to {high})"
