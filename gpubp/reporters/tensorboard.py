"""TensorBoard: curves, histograms and texts of the population, the same number for any number of networks.

    training/loss/median             over the minibatches since the last evaluation; best; log10_loss, a histogram
    training/log10_gradient_norm     a histogram over up to 100 networks, on the minibatch of their next step
    validation/accuracy/median       of the held-out samples (or r2); best
    validation/loss/median           the same; log10_loss
    variation/...                    q10 and q90 of these, and the best 8 losses, rank_1 to rank_8: under Custom Scalars
                                     bands around the median, and the best 8 together
    variation/lr, variation/...      histograms of the hyper-parameters that differ, among networks that still train
    vitals/...                       learning rate, network-steps/s, networks by status, memory, final training accuracy
    winners/...                      the best 100 networks, a run of TensorBoard each; their settings under HParams

Texts: configuration, outcome, the best 8 and the worst 20 networks with the reasons; now_best and now_worst are those
at the time.
TensorBoard orders groups and cards by name, so these names put the most important first. A tag has at most 1,000 points
in 2^31 evaluations: all of the first 256, then log-spaced ones; histograms and lists have fewer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ..errors import ConfigError
from ..line import line
from ..results.ranking import keys_of, order_of, ranked_by, worth
from ..results.result import Result
from ..results.table import TEXTS
from ..settings.config import HYPER
from ..state import Status
from ..system.free import held
from ..system.threads import one_thread
from . import QUANTILES, Reporter, Start, due, quantiles
from .snapshot import Snapshot

CURVES, SLICES = (256, 32), (8, 8)  # of due(): for points of curves; for histograms and lists of networks
BEST, WORST, TRIALS = 8, 20, 100
SAMPLED, SHARE = 100, 200  # networks with gradient norms, at most, and network-steps per norm, so that they cost little
DECADES = 30  # ratio of largest to least number above which a histogram takes logarithms
LIMITS = 1e-10, 1e10  # bounds for numbers shown as logarithms: otherwise a few would flatten the rest
HPARAMS, WINNERS = "hparams", "winners"  # the folder of trials, and their group of cards, the last one


class TensorBoardReporter(Reporter):
    """Writes to `folder`. The step axis has the networks' training steps, or, if networks do not take their steps
    together (as in a queue, or with several batch sizes), the network-steps of all."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from . import events
        except ImportError:
            raise ConfigError('TensorBoard is not installed: pip install "gpubp[tensorboard]"') from None
        self.folder, self.events = Path(folder), events

    def start(self, start: Start) -> None:
        """Open a file. Points that a resumed run had written stay and are not written again, as the numbers are the
        same; missing ones come from its history."""
        self.metric, self.clock = start.metric_name, start.clock
        self.hidden: Mapping[str, Any] | None = None  # the last record, if it is not shown
        self.logs: set[str] = set()  # hyper-parameters that are shown as logarithms
        self.spent = start.done  # network-steps at the last gradient norms
        rows = [(name, value) for name, value in start.settings.items() if value is not None]
        about = "\n\n".join([*map(_cell, (*start.lines, start.text)), _table(("setting", "value"), rows)])
        try:
            self.last = self.events.last_step(self.folder) if start.history else -1
            self.file = self.events.EventFile(self.folder)
            if self.last < 0:
                self.file.restart()
            self.file.add([self.events.text("configuration", about)], max(0, self.last))
        except OSError as error:
            raise ConfigError(f"no curves can be written to {self.folder}: {error.strerror}") from None
        self.new, self.charted = self.last < 0, self.last >= 0  # whether the end adds anything; whether charts exist
        last = start.history[-1]["seconds"] if start.history else 0.0
        for record in start.history:
            if self.clock in record:  # not in those of old versions
                self.show(record, None, time.time() - last + record["seconds"])

    @one_thread()
    def looked(self, snapshot: Snapshot) -> None:
        """Add a point to the curves, and perhaps to histograms and lists."""
        self.show(snapshot.record, snapshot)

    def show(self, record: Mapping[str, Any], snapshot: Snapshot | None, when: float | None = None) -> None:
        """Add a record made at time `when`, with the networks in `snapshot`, if given."""
        self.hidden = None
        if record[self.clock] <= self.last:
            return
        if not due(record["round"], *CURVES):
            self.hidden = record  # shown only if it is the last
            return
        now = None if snapshot is None else _now(snapshot)
        values = [self.events.scalar(*each) for each in self.curves(record, now).items()]
        if snapshot is not None and now is not None:
            values += [self.events.scalar(*each) for each in self.ranks(now).items()]
            values += [self.events.scalar(f"vitals/memory_{name}_GB", size / 1e9) for name, size in held().items()]
            if due(record["round"], *SLICES):
                settings = _differing(snapshot)
                values += [self.events.histogram(*each) for each in self.histograms(snapshot, settings).items()]
                lists = now.lists(settings)
                values += [self.events.text(f"now_{name}", each) for name, each in lists.items()]
        self.write(values, record, when)

    def write(self, values: Iterable[Any], record: Mapping[str, Any], when: float | None = None) -> None:
        """Write a point at the record's place."""
        self.last, self.new = record[self.clock], True
        self.file.add(values, self.last, when)

    def curves(self, record: Mapping[str, Any], now: _Ranking | None = None) -> dict[str, float]:
        """The numbers of a record by tag. The first ones come with charts: of a band around the median, and of the best
        by the present ranking, if known, or by the loss."""
        shown = {
            "training/loss": (record["loss"], "min"),
            "validation/loss": (record["validation_loss"], "min"),
            f"validation/{self.metric}": (record["metric"], "max"),
        }
        shown = {name: found for name, found in shown.items() if found[0]}
        if shown and not self.charted:
            bands = {name: (f"{name}/median", f"variation/{name}/q10", f"variation/{name}/q90") for name in shown}
            losses = [name for name in shown if name != f"validation/{self.metric}"]
            ranked = losses[-1:] if now is None else [now.tag]
            ranks = {
                f"the best {BEST}: {name}": [f"variation/{name}/rank_{k + 1}" for k in range(BEST)] for name in ranked
            }
            self.file.add([self.events.charts(bands, ranks)], 0)
            self.charted = True
        found: dict[str, float] = {}
        for name, (spread, best) in shown.items():
            found |= {f"{name}/best": spread[best], f"{name}/median": spread["median"]}
            found |= {f"variation/{name}/{which}": spread[which] for which in ("q10", "q90")}
        if record["lr"]:
            found["vitals/learning_rate/median"] = record["lr"]["median"]
        found |= {f"vitals/networks_{status}": count for status, count in record["statuses"].items()}
        found["vitals/network_steps_per_second"] = record["network_steps_per_second"]
        return found

    def ranks(self, now: _Ranking) -> dict[str, float]:
        """The present best figures, whichever networks have them."""
        return {f"variation/{now.tag}/rank_{k + 1}": value for k, value in enumerate(now.best())}

    def histograms(self, snapshot: Snapshot, settings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of each histogram by tag. settings: the hyper-parameters that differ, (N,) each."""
        alive, running, steps = snapshot.status != Status.diverged, snapshot.running, snapshot.record["network_steps"]
        found = {"training/log10_loss": snapshot.loss[alive]}
        if snapshot.validation_loss is not None:
            found["validation/log10_loss"] = snapshot.validation_loss[alive]
        if bool(running.any()):
            most = max(BEST, min(SAMPLED, (steps - self.spent) // SHARE))
            found["training/log10_gradient_norm"], self.spent = snapshot.gradient_norms(most), steps
        found = {name: values[values >= 0].clamp(*LIMITS).log10() for name, values in found.items()}
        for name, values in settings.items():
            least, largest = float(values.nan_to_num(float("inf")).min()), float(values.nan_to_num(0.0).max())
            if 0 < least * DECADES <= largest:
                self.logs.add(name)
            some = values[running]
            found[f"variation/{'log10_' * (name in self.logs)}{name}"] = some.log10() if name in self.logs else some
        finite = {name: values[values.isfinite()] for name, values in found.items()}
        return {name: values for name, values in finite.items() if len(values)}

    @one_thread()
    def finish(self, result: Result) -> None:
        """Write the last evaluation, the outcome, and the best networks with their hyper-parameters."""
        if self.hidden is not None:
            self.write([self.events.scalar(*each) for each in self.curves(self.hidden).items()], self.hidden)
        if self.new:
            self.outcome(result)
        self.file.close()

    def outcome(self, result: Result) -> None:
        """What an ended run adds at its last step, with the figures of networks that have not diverged."""
        alive = result.status != Status.diverged
        figures = {
            "training loss": result.loss,
            f"training {self.metric}": result.metric,
            "validation loss": result.validation_loss,
            f"validation {self.metric}": result.validation_metric,
        }
        found = {name: quantiles(values[alive]) for name, values in figures.items() if values is not None}
        rows = [(name, *(f"{value:.5g}" for value in each.values())) for name, each in found.items()]
        settings = {name: result.table[name].to_pylist() for name in _settings(result.table)}
        texts = {"outcome": f"{result.fates}\n\n{_table(('', *QUANTILES), rows)}"}
        texts |= _at_the_end(result.table).lists(settings)
        values = [self.events.text(*each) for each in texts.items()]
        if final := found[f"training {self.metric}"]:
            values.append(self.events.scalar(f"vitals/training_{self.metric}/median", final["median"]))
        self.file.add(values, max(0, self.last))
        self.trials(result.table)

    def trials(self, table: pa.Table) -> None:
        """A run of TensorBoard for each of the best networks, replacing earlier ones."""
        for path in self.folder.glob(f"{HPARAMS}/network_*/{self.events.NAME}*"):
            with suppress(OSError):
                path.unlink()
        best = order_of(table)[:TRIALS]
        held_out = "validation_" if "validation_loss" in table.column_names else ""
        names = [f"{held_out}loss", f"{held_out}{self.metric}"]
        chosen = _settings(table)
        for row in table.take(best.numpy()).to_pylist():
            name, when = f"network_{row['network']}", time.time()
            file = self.events.EventFile(self.folder / HPARAMS / name)
            settings = {key: row[key] for key in chosen if row[key] is not None and row[key] == row[key]}
            values = [self.events.scalar(f"{WINNERS}/{key}", row[key]) for key in names if row[key] == row[key]]
            file.add([self.events.trial(settings, name), *values], max(0, self.last), when)
            file.close()

    def failed(self) -> None:
        """Close the file, if open."""
        if hasattr(self, "file"):
            self.file.close()


class _Ranking(NamedTuple):
    """Networks ranked by the figure `name`: rows (N,) in the results, their values (N,), and the step at which they
    diverged, or -1."""

    name: str
    rows: Tensor
    values: Tensor
    diverged: Tensor

    @property
    def ranked(self) -> Tensor:
        """(N,) bool: the networks that have not diverged and have a value."""
        return self.values.isfinite() & (self.diverged < 0)

    @property
    def tag(self) -> str:
        """The name of the figure as a tag of TensorBoard."""
        return f"training/{self.name}".replace("training/validation_", "validation/")

    def best(self) -> list[float]:
        """The places of the best values, best first; sorting all of ten thousand takes 40 times as long."""
        ranked = self.ranked
        values = worth(self.name, self.values).masked_fill(~ranked, float("inf"))
        order = values.topk(min(BEST, len(values)), largest=False).indices
        return list(self.values[order[ranked[order]]].tolist())

    def lists(self, settings: Mapping[str, Sequence[Any] | Tensor]) -> dict[str, str]:
        """The best and the worst networks, with reasons, as texts. settings: columns of N by name."""
        order = worth(self.name, self.values).argsort(stable=True)
        order = order[self.ranked[order]]
        gone = (self.diverged >= 0).nonzero().squeeze(1)
        gone = gone[self.diverged[gone].argsort(stable=True)]
        worst = [*gone.tolist(), *order.flip(0).tolist()][:WORST]
        median = quantiles(self.values[order]).get("median", 0.0)

        def reason(row: int) -> str:
            step, value = int(self.diverged[row]), float(self.values[row])
            if step >= 0:
                return f"diverged in step {step + 1:,}"
            times = f", {value / median:.3g} times the median" if self.name.endswith("loss") and median > 0 else ""
            return f"{self.name.replace('_', ' ')} {value:.4g}{times}"

        def shown(rows: Iterable[int]) -> str:
            heads = ("network", "why", *settings)
            return _table(heads, [(int(self.rows[k]), reason(k), *(_short(column[k]) for column in settings.values()))
                                  for k in rows])  # fmt: skip

        return {"best": shown(order[:BEST].tolist()), "worst": shown(worst)}


def _now(snapshot: Snapshot) -> _Ranking:
    """The ranking of a snapshot, on the validation data if there are any."""
    name, values = "validation_loss", snapshot.validation_loss
    if values is None:
        name, values = "loss", snapshot.loss
    if not snapshot.ranked_by_loss:
        name, values = f"validation_{snapshot.record['metric_name']}", snapshot.validation_metric
    values = torch.full_like(snapshot.loss, float("nan")) if values is None else values
    return _Ranking(name, snapshot.rows, values, snapshot.diverged_step)


def _at_the_end(table: pa.Table) -> _Ranking:
    """The ranking of a results table."""
    name = ranked_by(table)
    numbers = (table[each].fill_null(-1).to_numpy() for each in ("network", name, "diverged_step"))
    return _Ranking(name, *map(torch.tensor, numbers))


def _differing(snapshot: Snapshot) -> dict[str, Tensor]:
    """The hyper-parameters in which networks differ."""
    columns = snapshot.hyper()
    return {name: values for name, values in columns.items() if bool((values != values[0]).any())}


def _settings(table: pa.Table) -> list[str]:
    """The columns of a results table that tell its networks apart: settings, folds, entities; else their ids."""
    known = {*HYPER, *TEXTS, "fold", *keys_of(table)}
    named = [name for name in table.column_names if name in known or name.startswith("extra.")]
    return [name for name in named if len(table[name].unique()) > 1] or ["id"]


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = (heads, ["---"] * len(heads), *(map(_cell, row) for row in rows))
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def _short(value: Any) -> str:
    """A number with few digits, or a text."""
    plain = value.item() if isinstance(value, Tensor) else value
    return f"{plain:.4g}" if isinstance(plain, float) else str(plain)


def _cell(value: Any) -> str:
    """One line of a Markdown table, without markup."""
    plain = line(value).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(plain.split()))
