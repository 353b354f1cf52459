"""The report of a run as one page: its tables as HTML, and figures.py's numbers, which report.js draws with Plot.

A table or a sentence beside each figure says the same. All that a run names is text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..results.ranking import order_of
from ..results.table import FAULT
from ..studies import Study
from . import figures
from .blocks import figure, label, pairs, records, safe, section, share, shown, table, words
from .page import embedded, page, text

LIBRARIES = ("d3.min.js", "plot.umd.min.js")
CLOCKS = {"step": "training step", "network_steps": "network-steps"}  # by name in records: their text
STEPS = 8  # rows of the tables of bands and statuses
WORDS = {"loss": "training loss", "metric": "validation {}", "validation_loss": "validation loss"}

BANDS = "Bands: half and 80 % of the networks that have not diverged; the line is their median, dashed is the best."
SLOTS = "They are those of the networks that have a slot at the time."
CURVES = "of the best, the median and the worst network, and of the one picked here or by a click in a figure below."
SETTINGS = """Dots and thin strokes are networks, ticks at the edge those that diverged; thick marks are the medians of
groups. “Explains” is the share of the variance of ranks between the groups, less what chance explains."""
PREDICTIONS = "Of the validation samples. The networks were chosen by them, so new samples would fare a little worse."


class Facts(NamedTuple):
    """The content of a report. name: of the run; study: of its results table; picked: its best, worst and diverged
    networks, a row each by column; history: its records; curves: the records of networks by row; predictions: as from
    predictions.py; unknown: why there are none; settings: by name; about: engine, machine and rate, likewise; told:
    notes for the reader; clock: of CLOCKS; networks: including those that wait, by default those of the table."""

    name: str
    study: Study
    picked: Mapping[str, Sequence[Mapping[str, Any]]]
    history: Sequence[Mapping[str, Any]]
    curves: Mapping[int, Any]
    predictions: Sequence[Mapping[str, Any]]
    unknown: str
    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    told: Sequence[str] = ()
    clock: str = "step"
    networks: int = 0


def report(facts: Facts) -> str:
    """The page."""
    data = _data(facts)
    sections = [
        _head(facts),
        _training(facts, data),
        _networks(facts, data),
        _settings(facts, data),
        _predictions(facts),
        _run(facts, data),
    ]
    licence = f"/*\n{text('libraries/LICENSE')}*/"
    return page(
        f"Report of {facts.name}",
        "\n".join(["<main>", *sections, "</main>", embedded("data", data)]),
        styles=[text("report.css")],
        scripts=[licence, *(text(f"libraries/{name}") for name in LIBRARIES), text("report.js")],
    )


def _data(facts: Facts) -> dict[str, Any]:
    """What the figures show."""
    study, effects = facts.study, figures.effects(facts.study)
    metric = next((each["metric_name"] for each in facts.history), "metric")
    return {
        "figure": study.figure,
        "metric": metric,
        "log": figures.wide(np.quantile(study.values[study.counted], (0, 0.95))) if study.counted.any() else False,
        "less": study.figure.endswith("loss"),
        "clock": CLOCKS[facts.clock],
        "bands": figures.bands(facts.history, facts.clock),
        "statuses": figures.statuses(facts.history, facts.clock, facts.networks or len(study.values)),
        "points": figures.points(study, [each["name"] for each in effects]),
        "effects": effects,
        "pair": figures.pair(study, effects),
        "histogram": figures.histogram(study),
        "curves": figures.curves(facts.curves),
        "predictions": facts.predictions,
    }


def _head(facts: Facts) -> str:
    study, statuses = facts.study, facts.study.results["status"].to_pylist()
    counts = {name: statuses.count(name) for name in dict.fromkeys(statuses)}
    ranked = order_of(study.results).tolist()
    cards = {"networks": f"{len(statuses):,}"}
    if ranked and study.counted.any():
        low, middle, high = study.quantiles((0, 0.5, 1))
        cards |= {f"best {words(study.figure)}": shown(low if study.figure.endswith("loss") else high)}
        cards |= {"median": shown(middle), "best network": f"{ranked[0]:,}"}
    cards |= {name: f"{count:,}" for name, count in counts.items()}
    cards |= {name: shown(facts.about[name]) for name in ("network-steps/s",) if name in facts.about}
    told = "".join(f"<li>{safe(each)}</li>" for each in facts.told)
    better = "less" if study.figure.endswith("loss") else "more"
    return (
        f"<header><h1>{safe(facts.name)}</h1>\n{pairs(cards, 'cards')}\n"
        f"<p class=quiet>Networks are ranked by {safe(words(study.figure))}; {better} is better.</p>"
        + (f"<ul class=told>{told}</ul>" if told else "")
        + "</header>"
    )


def _training(facts: Facts, data: Mapping[str, Any]) -> str:
    bands, statuses = data["bands"], data["statuses"]
    if not bands["at"]:
        return section("Training", "<p>The run has no evaluation yet.</p>")
    some, parts = figures.thinned(len(bands["at"]), STEPS), []
    for key, panel in bands["panels"].items():
        name = WORDS[key].format(data["metric"])
        rows = [[bands["at"][at], *(panel[each][at] for each in figures.BANDS)] for at in some]
        about = f"{name}: the median, half and 80 % of the networks, and the best, by {data['clock']}"
        parts.append(figure("bands", about, table([data["clock"], *figures.BANDS], rows, name), key=key, title=name))
    counts = statuses["counts"]
    rows = [[bands["at"][at], *(each[at] for each in counts.values())] for at in some]
    said = f"{BANDS} {SLOTS}" if "waiting" in counts else BANDS
    about = f"how many networks had which status, by {data['clock']}"
    parts.append(figure("statuses", about, table([data["clock"], *counts], rows, "status"), title="status"))
    return section("Training", f"<p class=quiet>{said}</p><div class=grid>{''.join(parts)}</div>")


def _networks(facts: Facts, data: Mapping[str, Any]) -> str:
    text, parts = "", []
    if data["curves"]:
        validated = any(len(each) > 2 for each in data["curves"].values())
        what = "Validation loss (solid) and training loss (dashed)" if validated else "Training loss"
        note, count = f"{what} {CURVES}", len(facts.study.values)
        if len(data["points"]["network"]) < count:
            kept = f"{len(data['curves']):,} of {count:,} networks"
            note += f" {kept} can be picked: evenly by rank, and some that diverged."
        pick = "<label class=screen>pick a network <select id=pick></select></label> <span id=picked></span>"
        about = "learning curves of the best, the median, the worst and the picked network"
        rest = "<div id=numbers class=wide role=region tabindex=0 aria-label='learning curves as a table'></div>"
        text += f"<p class=quiet>{note}</p><p>{pick}</p>"
        parts.append(figure("curves", about, rest, title="learning curves"))
    else:
        text += "<p>The run has kept no learning curves of its networks.</p>"
    if data["histogram"]:
        edges, counts = data["histogram"]["edges"], data["histogram"]["counts"]
        rows = [[low, high, count] for low, high, count in zip(edges, edges[1:], counts)]
        name = words(data["figure"])
        about = f"how many networks have which {name}"
        parts.append(
            figure("histogram", about, table(["from", "to", "networks"], rows, about), title=f"{name} of networks")
        )
    many = {"best": int(facts.study.counted.sum()), "worst": int(facts.study.counted.sum())}
    many["diverged"] = int(facts.study.diverged.sum())
    tables = [
        f"<h3>{name} of {many[name]:,}</h3>{records(rows, name)}"
        for name, rows in facts.picked.items()
        if rows and (name != "worst" or many["best"] > len(rows))
    ]
    if faults := facts.study.faults():
        rows = [[each[FAULT] or "unknown", each["networks"], each["median_step"]] for each in faults]
        about = "not finite first"
        tables.append(f"<h3>{about}</h3>{table(['', 'networks', 'median step'], rows, about)}")
    return section("Networks", f"{text}<div class='grid curves'>{''.join(parts)}</div>{''.join(tables)}")


def _settings(facts: Facts, data: Mapping[str, Any]) -> str:
    study, parts = facts.study, []
    for at, each in enumerate(data["effects"]):
        title = each["name"]
        told = [f"rank correlation {each['correlation']:+.2f}"] if each["correlation"] is not None else []
        told += [f"explains {100 * max(each['explained'], 0):.0f} %"] if each["explained"] is not None else []
        told += [f"{each['left']:,} more groups"] if each["left"] else []
        names = ("networks", "diverged", "median", "mean", "error")
        rows = [[label(*group["values"]), *(group[name] for name in names)] for group in each["groups"]]
        beside = table([title, "networks", "diverged", "median", "mean", "± error"], rows, f"{study.figure} by {title}")
        about = f"{words(study.figure)} of networks by {title}, and the median of groups"
        parts.append(figure("effect", about, beside, key=at, title=title, told="; ".join(told)))
    if data["pair"]:
        one, other = data["pair"]["names"]
        rows = [[label(group["values"][0]), label(group["values"][1]), group["networks"], group["median"]]
                for group in data["pair"]["groups"]]  # fmt: skip
        about = f"median {words(study.figure)} by {one} and {other} together"
        parts.append(
            figure("pair", about, table([one, other, "networks", "median"], rows, about), title=f"{one} and {other}")
        )
    found, means = study.distributions(), study.settings(10)
    text = ""
    if parts:
        text = f"<p class=quiet>{SETTINGS}</p><div class='grid small'>{''.join(parts)}</div>"
    if found:
        parts_of = ("mean", "std", "min", "q25", "median", "q75", "max")
        intervals = ("mean_interval", "median_interval")
        rows = [[name, *(each[part] for part in parts_of), *(label(each[part]) for part in intervals)]
                for name, each in found.items()]  # fmt: skip
        head = ["", *parts_of, "mean, 95 %", "median, 95 %"]
        text += "<h3>Over seeds</h3><p class=quiet>The networks differ in their seed alone; intervals by bootstrap.</p>"
        text += table(head, rows, "distribution over seeds")
    elif means:
        text += "<h3>Best settings, over folds, entities and seeds</h3>"
        text += "<p class=quiet>Means and their standard errors (±).</p>"
        text += records(means, "best settings")
    return section("Settings", text) if text else ""


def _predictions(facts: Facts) -> str:
    if not facts.predictions:
        return section("Predictions", f"<p>{safe(facts.unknown)}</p>")
    parts, rows = [], []
    for at, each in enumerate(facts.predictions):
        title = each["name"]
        if "matrix" in each:
            matrix = each["matrix"]
            right = (
                f"{matrix['right']:,} of {matrix['samples']:,} samples right: {matrix['right'] / matrix['samples']:.2%}"
            )
            body = [[name, *counts, share(counts[place], sum(counts))]
                    for place, (name, counts) in enumerate(zip(matrix["labels"], matrix["counts"]))]  # fmt: skip
            beside = table(["actual", *matrix["labels"], "found"], body, f"{title}: actual classes by predicted ones")
            parts.append(figure("matrix", f"{title}, {right}", beside, key=at, title=title, told=right))
        for place, target in enumerate(each.get("targets", ())):
            names = ("rmse", "mae", "bias", "r2")
            rows.append([title, target["name"], *(target[name] for name in names), *target["quantiles"]])
            told = f"RMSE {shown(target['rmse'])}, R2 {shown(target['r2'])}"
            about = f"residuals of {target['name']}, {title}, by prediction: {told}"
            parts.append(
                figure("residuals", about, "", key=at, place=place, title=f"{title}: {target['name']}", told=told)
            )
    head = ["", "target", "RMSE", "MAE", "bias", "R2", *(f"q{share}" for share in ("05", "25", "50", "75", "95"))]
    below = table(head, rows, "residuals: predicted less actual") if rows else ""
    return section("Predictions", f"<p class=quiet>{PREDICTIONS}</p><div class=grid>{''.join(parts)}</div>{below}")


def _run(facts: Facts, data: Mapping[str, Any]) -> str:
    seconds, rate = data["statuses"]["seconds"], data["statuses"]["rate"]
    some = figures.thinned(len(seconds), STEPS)
    beside = table(["seconds", "network-steps/s"], [[seconds[at], rate[at]] for at in some], "rate")
    drawn = figure("rate", "network-steps per second, by time", beside, title="rate") if len(seconds) > 1 else ""
    chosen = {name: value for name, value in facts.settings.items() if value is not None}
    below = f"<h3>Configuration</h3>{pairs(chosen)}" if chosen else ""
    return section("Run", f"<div class=grid><div>{pairs(facts.about)}</div>{drawn}</div>{below}")
